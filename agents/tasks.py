"""The pillar's sweep: deadlines, proofs of stops, and what goes on after one."""

from celery import shared_task

from agents import services


@shared_task  # type: ignore[untyped-decorator]
def sweep() -> None:
    services.expire_missions()
    services.note_open_proofs()
    services.resume_lifted()


@shared_task  # type: ignore[untyped-decorator]
def resume_lifted() -> None:
    services.resume_lifted()
