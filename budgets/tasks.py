"""The ledger's timer. Idempotent: may run late, twice, or on two workers at once."""

from __future__ import annotations

import structlog
from celery import shared_task

from budgets.costs.checking import check_all, never_checked
from budgets.costs.facts import refresh_changed
from budgets.costs.folding import fold_all
from budgets.sweeping import sweep_all
from controlplane.common.errors import RemitError
from controlplane.common.partitions import keep_ahead
from controlplane.common.tasks import Task

log = structlog.get_logger(__name__)


@shared_task(base=Task, name="budgets.tasks.sweep")  # type: ignore[untyped-decorator]
def sweep() -> None:
    """Holds whose time is over."""
    try:
        swept = sweep_all()
    except RemitError as error:
        if error.retry_after_seconds is None:
            raise
        log.info("budgets.sweep_later", reason=error.code)
        return
    if swept.expired or swept.provisional:
        log.info("budgets.swept", expired=swept.expired, provisional=swept.provisional)


@shared_task(base=Task, name="budgets.tasks.make_months")  # type: ignore[untyped-decorator]
def make_months() -> int:
    """The journal's tables for this month and the next twelve."""
    return keep_ahead("budgets_make_partitions")


@shared_task(base=Task, name="budgets.tasks.fold_costs")  # type: ignore[untyped-decorator]
def fold_costs() -> None:
    """New lines of the journal into the sums that pages read."""
    folded = fold_all()
    if not folded.waits and never_checked():
        check_costs()
    if folded.lines:
        log.info("costs.folded", lines=folded.lines, waits=folded.waits)


@shared_task(base=Task, name="budgets.tasks.refresh_costs")  # type: ignore[untyped-decorator]
def refresh_costs() -> None:
    """What was decided about missions since, and what the open ones tried."""
    refresh_changed()


@shared_task(base=Task, name="budgets.tasks.check_costs")  # type: ignore[untyped-decorator]
def check_costs() -> None:
    """Every sum counted anew from the journal."""
    wrong = check_all()
    if wrong:
        log.error("costs.wrong", days=len(wrong), first=wrong[0].day, remedy="./manage.py costs rebuild")
