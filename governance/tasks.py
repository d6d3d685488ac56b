"""Timers of governance. Idempotent: may run late, twice, or on two workers at once."""

from __future__ import annotations

from celery import shared_task

from controlplane.common.tasks import Task
from governance import services


@shared_task(base=Task, name="governance.tasks.sweep")  # type: ignore[untyped-decorator]
def sweep() -> None:
    services.sweep()
