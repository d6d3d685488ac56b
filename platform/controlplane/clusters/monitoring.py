"""What clusters tell Prometheus: how many sandboxes should run, by the phase they are in."""

from __future__ import annotations

from collections.abc import Iterable

from django.db.models import Count

from controlplane.clusters.models import Sandbox
from controlplane.clusters.types import SandboxPhase
from controlplane.common.metrics import Sample, register_gauges


def register() -> None:
    register_gauges("clusters", _gauges)


def _gauges() -> Iterable[Sample]:
    counts = dict(
        Sandbox.objects.filter(desired="running").values_list("observed_phase").annotate(number=Count("pk")).order_by()
    )
    for phase in SandboxPhase:
        yield Sample(
            "remit_sandboxes", "Sandboxes that should run.", counts.get(phase.value, 0), {"phase": phase.value}
        )
