"""Timers of governance. Idempotent: may run late, twice, or on two workers at once."""

from __future__ import annotations

import uuid

from celery import shared_task

from controlplane.common.tasks import Task
from governance import services


@shared_task(base=Task, name="governance.tasks.sweep")  # type: ignore[untyped-decorator]
def sweep() -> None:
    services.sweep()


@shared_task(base=Task, name="governance.tasks.tell")  # type: ignore[untyped-decorator]
def tell(escalation_id: str) -> None:
    """Woken when a question goes on, is answered by its agent or passed over."""
    if services.tell_about(uuid.UUID(escalation_id)):
        services.send_mails()


@shared_task(base=Task, name="governance.tasks.tell_all")  # type: ignore[untyped-decorator]
def tell_all() -> None:
    """Questions that were opened, whatever was not told because a message was lost, and mail that was not sent."""
    for escalation_id in services.untold():
        services.tell_about(escalation_id)
    services.send_mails()
