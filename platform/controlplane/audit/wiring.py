"""What the audit trail registers with the layers below it at start: tenancy's recorder and its gauges."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from typing import Any

from controlplane.audit import selectors, services
from controlplane.audit.events import Event
from controlplane.common.metrics import Sample, register_gauges
from controlplane.tenancy.trail import register_recorder
from controlplane.tenancy.types import Principal


def register() -> None:
    register_recorder(_record)
    register_gauges("audit", _gauges)


def _record(
    *,
    event: str,
    actor: Principal,
    subject_type: str,
    subject_id: uuid.UUID,
    subject_name: str,
    team_id: uuid.UUID | None,
    payload: Mapping[str, Any],
) -> None:
    services.record(
        event=Event(event),
        actor=actor,
        subject=services.Subject(type=subject_type, id=subject_id, name=subject_name, team_id=team_id),
        payload=payload,
    )


def _gauges() -> Iterable[Sample]:
    backlog = selectors.backlog()
    yield Sample("remit_audit_unsealed", "Audit entries that wait for their place in the chain.", backlog.entries)
    yield Sample(
        "remit_audit_sealer_lag_seconds", "Age of the oldest audit entry that is not sealed.", backlog.lag_seconds
    )
