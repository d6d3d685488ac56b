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
    CLEAN_UP = "clean_up"  # it has ended, and its node still keeps something of it


@dataclass(frozen=True)
class Desired:
    """What the database wants of one sandbox, and what it last saw.

    `may_have_run`: it was seen, or asked for in an earlier life of its node. `ended`: it must not be started again.
    """

    running: bool
    resources: Resources
    resize_pending: bool  # the desired size is newer than the one last tried
    may_have_run: bool
    ended: bool
    deleted: bool  # its end is recorded: nothing is left to want


def next_command(*, desired: Desired, observed: SandboxStatus | None) -> Command:
    """The one thing to do now.

    A sandbox that may have run and is unknown to its cluster is lost, never silently started again: what it did is not
    known, and only its owner may decide on another attempt.
    """
    if desired.deleted:
        return Command.CLEAN_UP if observed is not None else Command.NOTHING
    if not desired.running:
        return Command.DELETE if observed is not None else Command.MARK_DELETED
    if desired.ended:
        return Command.CLEAN_UP if observed is not None else Command.NOTHING
    if observed is None:
        return Command.MARK_LOST if desired.may_have_run else Command.APPLY
    if observed.phase is SandboxPhase.RUNNING and desired.resize_pending and observed.resources != desired.resources:
        return Command.RESIZE
    return Command.NOTHING
