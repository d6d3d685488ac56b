"""What governance tells Prometheus and the readiness probe: decisions, stage times, open questions, a loaded policy."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any

from controlplane.common import metrics
from controlplane.common.health import register_check
from controlplane.common.metrics import Sample, register_gauges
from governance import bundles
from governance.choices import EscalationState
from governance.models import Escalation
from governance.types import Stage


def register() -> None:
    register_check("policy_loaded", _policy_loaded)
    register_gauges("governance", _gauges)


def observe(*, verdict: str, stages: Iterable[Stage]) -> None:
    """Count one decision and the time of each stage that was asked."""
    _decisions(verdict).inc()
    for stage in stages:
        if stage.verdict is not None:
            _seconds(stage.name).observe(stage.microseconds / 1_000_000)


def _policy_loaded() -> str | None:
    known = bundles.policy_loaded()
    return None if known else "No policy bundle is active: run `./manage.py migrate` or `./manage.py bundle load`."


def _gauges() -> Iterable[Sample]:
    waiting = Escalation.objects.filter(state=EscalationState.OPEN).count()
    yield Sample("remit_escalations_open", "Questions that wait for a person.", waiting)


@functools.cache
def _decisions(verdict: str) -> Any:
    return metrics.DECISIONS.labels(verdict)


@functools.cache
def _seconds(stage: str) -> Any:
    return metrics.GATE_STAGE_SECONDS.labels(stage)
