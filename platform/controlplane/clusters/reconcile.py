"""One reconcile step as a pure function: (desired, observed) → command. May run twice, late, or on two workers: same
end state."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from controlplane.clusters.types import Resources, SandboxPhase, SandboxStatus


class Command(enum.StrEnum):
    NOTHING = "nothing"
    APPLY = "apply"
    RESIZE = "resize"
    DELETE = "delete"
    MARK_LOST = "mark_lost"
    MARK_DELETED = "mark_deleted"


@dataclass(frozen=True)
class Desired:
    """What the database wants of one sandbox, and what it last saw."""

    running: bool
    resources: Resources
    resize_pending: bool  # the desired size is newer than the one last tried
    ever_applied: bool
    ended: bool  # it has run and ended; it must not be started again


def next_command(*, desired: Desired, observed: SandboxStatus | None) -> Command:
    """The one thing to do now.

    A sandbox that ran once and is unknown to its cluster is lost, never silently started again: what it did is not
    known,
    and only its owner may decide on another attempt.
    """
    if not desired.running:
        return Command.DELETE if observed is not None else Command.MARK_DELETED
    if observed is None:
        if desired.ended:
            return Command.NOTHING
        return Command.MARK_LOST if desired.ever_applied else Command.APPLY
    if observed.phase is SandboxPhase.RUNNING and desired.resize_pending and observed.resources != desired.resources:
        return Command.RESIZE
    return Command.NOTHING
