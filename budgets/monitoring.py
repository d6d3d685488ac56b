"""What budgets tells Prometheus: money set aside and not yet charged or released."""

from __future__ import annotations

from collections.abc import Iterable

from django.db.models import Count

from budgets.models import Hold
from budgets.types import HoldState
from controlplane.common.metrics import Sample, register_gauges


def register() -> None:
    register_gauges("budgets", _gauges)


def _gauges() -> Iterable[Sample]:
    counts = dict(
        Hold.objects.filter(closed_at__isnull=True).values_list("state").annotate(number=Count("pk")).order_by()
    )
    for state in (HoldState.HELD, HoldState.DISPATCHED):
        yield Sample("remit_holds_open", "Holds not yet closed.", counts.get(state.value, 0), {"state": state.value})
