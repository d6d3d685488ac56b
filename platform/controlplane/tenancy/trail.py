"""What tenancy has to tell the audit trail, which stands above it: the trail registers itself here at start."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any, Final, Protocol

from controlplane.tenancy.types import Principal


class Recorder(Protocol):
    def __call__(
        self,
        *,
        event: str,
        actor: Principal,
        subject_type: str,
        subject_id: uuid.UUID,
        subject_name: str,
        team_id: uuid.UUID | None,
        payload: Mapping[str, Any],
    ) -> None: ...


_RECORDER: Final[list[Recorder]] = []


def register_recorder(recorder: Recorder) -> None:
    """Called once by the audit app's `ready()`; `event` is a code of its closed list."""
    _RECORDER[:] = [recorder]


def record(
    *,
    event: str,
    actor: Principal,
    subject_type: str,
    subject_id: uuid.UUID,
    subject_name: str,
    team_id: uuid.UUID | None = None,
    payload: Mapping[str, Any] | None = None,
) -> None:
    """Write the entry, inside the caller's transaction. Without a trail nothing may be changed."""
    if not _RECORDER:
        raise RuntimeError("no audit trail is registered")
    _RECORDER[0](
        event=event,
        actor=actor,
        subject_type=subject_type,
        subject_id=subject_id,
        subject_name=subject_name,
        team_id=team_id,
        payload=payload or {},
    )
