"""The ledger's timer. Idempotent: may run late, twice, or on two workers at once."""

from __future__ import annotations

import structlog
from celery import shared_task

from budgets.sweeping import sweep_all
from controlplane.common.errors import RemitError
from controlplane.common.tasks import Task

log = structlog.get_logger(__name__)


@shared_task(base=Task, name="budgets.tasks.sweep")  # type: ignore[untyped-decorator]
def sweep() -> None:
    """Holds whose time is over, and the coming months' journal tables."""
    try:
        swept = sweep_all()
    except RemitError as error:
        if error.retry_after_seconds is None:
            raise
        log.info("budgets.sweep_later", reason=error.code)
        return
    if swept.expired or swept.provisional:
        log.info("budgets.swept", expired=swept.expired, provisional=swept.provisional)
