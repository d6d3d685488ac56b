"""The pillar's sweep: deadlines."""

from celery import shared_task

from agents.services import expire_missions


@shared_task  # type: ignore[untyped-decorator]
def sweep() -> None:
    expire_missions()
