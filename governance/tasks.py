"""Timers of governance. Idempotent: may run late, twice, or on two workers at once."""

from __future__ import annotations

from celery import shared_task

from controlplane.common.tasks import Task
from governance import services


@shared_task(base=Task, name="governance.tasks.sweep")  # type: ignore[untyped-decorator]
def sweep() -> None:
    services.sweep()


@shared_task(base=Task, name="governance.tasks.tell_all")  # type: ignore[untyped-decorator]
def tell_all() -> None:
    """Questions nobody was told of yet, and mail that was not sent. Nobody who asks waits for a broker."""
    for escalation_id in services.untold():
        services.tell_about(escalation_id)
    services.send_mails()
