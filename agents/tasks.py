"""The pillar's tasks: deadlines, proofs of stops and what goes on after one, tests of servers and the regular look at
them."""

import uuid

from celery import shared_task

from agents import services
from agents.servers import checking, health


@shared_task  # type: ignore[untyped-decorator]
def sweep() -> None:
    services.expire_missions()
    services.note_open_proofs()
    services.resume_lifted()


@shared_task  # type: ignore[untyped-decorator]
def resume_lifted() -> None:
    services.resume_lifted()


@shared_task  # type: ignore[untyped-decorator]
def run_server_test(test_id: str) -> None:
    checking.run_test(uuid.UUID(test_id))


@shared_task  # type: ignore[untyped-decorator]
def look_at_servers() -> None:
    checking.sweep_tests()
    checking.check_due_servers()


@shared_task  # type: ignore[untyped-decorator]
def tidy_servers() -> None:
    health.forget_old_hours()
    checking.forget_old_tests()
