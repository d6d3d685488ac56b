"""The reconcile step by itself: what it decides for every pair of desired and observed."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.clusters.reconcile import Command, Desired, next_command
from controlplane.clusters.types import MIB, Resources, SandboxPhase, SandboxStatus

SMALL = Resources(cpu_millicores=500, memory_bytes=128 * MIB)
LARGE = Resources(cpu_millicores=1000, memory_bytes=256 * MIB)


def wanted(**changes: object) -> Desired:
    values: dict[str, object] = {
        "running": True,
        "resources": SMALL,
        "resize_pending": False,
        "may_have_run": True,
        "ended": False,
        "deleted": False,
    }
    return Desired(**{**values, **changes})  # type: ignore[arg-type]


def seen(phase: SandboxPhase, resources: Resources = SMALL) -> SandboxStatus:
    return SandboxStatus(name="s", phase=phase, resources=resources, started_at=datetime(2026, 1, 1, tzinfo=UTC))


PENDING, RUNNING, EXITED = SandboxPhase.PENDING, SandboxPhase.RUNNING, SandboxPhase.EXITED

TABLE = [
    ("new and nowhere: start it", wanted(may_have_run=False), None, Command.APPLY),
    ("may have run and is nowhere: lost", wanted(), None, Command.MARK_LOST),
    ("starting: wait", wanted(may_have_run=False), seen(PENDING), Command.NOTHING),
    ("running as wanted: nothing", wanted(), seen(RUNNING), Command.NOTHING),
    (
        "running at another size: resize",
        wanted(resources=LARGE, resize_pending=True),
        seen(RUNNING),
        Command.RESIZE,
    ),
    (
        "another size before it runs: wait",
        wanted(resources=LARGE, resize_pending=True),
        seen(PENDING),
        Command.NOTHING,
    ),
    ("a size that was refused is not tried again", wanted(resources=LARGE), seen(RUNNING), Command.NOTHING),
    (
        "a size for what has exited: nothing",
        wanted(resources=LARGE, resize_pending=True),
        seen(EXITED),
        Command.NOTHING,
    ),
    ("just exited: see it", wanted(), seen(EXITED), Command.NOTHING),
    ("ended and gone: nothing", wanted(ended=True), None, Command.NOTHING),
    ("ended, never seen running: not started again", wanted(ended=True, may_have_run=False), None, Command.NOTHING),
    ("ended but still there: clean up", wanted(ended=True), seen(EXITED), Command.CLEAN_UP),
    ("ended but alive: clean up", wanted(ended=True), seen(RUNNING), Command.CLEAN_UP),
    ("unwanted and running: delete", wanted(running=False), seen(RUNNING), Command.DELETE),
    ("unwanted while it starts: delete", wanted(running=False, may_have_run=False), seen(PENDING), Command.DELETE),
    ("unwanted and exited: delete", wanted(running=False), seen(EXITED), Command.DELETE),
    ("unwanted before it started: say so", wanted(running=False, may_have_run=False), None, Command.MARK_DELETED),
    ("unwanted and gone: say so", wanted(running=False), None, Command.MARK_DELETED),
    ("unwanted and lost: say so", wanted(running=False, ended=True), None, Command.MARK_DELETED),
    ("deleted: nothing", wanted(running=False, ended=True, deleted=True), None, Command.NOTHING),
    (
        "deleted but there: clean up",
        wanted(running=False, ended=True, deleted=True),
        seen(RUNNING),
        Command.CLEAN_UP,
    ),
]


@pytest.mark.parametrize(("desired", "observed", "command"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_step_decides(desired: Desired, observed: SandboxStatus | None, command: Command) -> None:
    assert next_command(desired=desired, observed=observed) is command


desires = st.builds(
    Desired,
    running=st.booleans(),
    resources=st.sampled_from([SMALL, LARGE]),
    resize_pending=st.booleans(),
    may_have_run=st.booleans(),
    ended=st.booleans(),
    deleted=st.booleans(),
)
sights = st.none() | st.builds(seen, st.sampled_from([PENDING, RUNNING, EXITED]), st.sampled_from([SMALL, LARGE]))


@given(desires, sights)
def test_it_starts_only_what_is_wanted_unknown_and_never_ran(desired: Desired, observed: SandboxStatus | None) -> None:
    if next_command(desired=desired, observed=observed) is Command.APPLY:
        assert desired.running
        assert observed is None
        assert not any((desired.may_have_run, desired.ended, desired.deleted))


@given(desires, sights)
def test_it_kills_nothing_that_is_wanted_and_alive(desired: Desired, observed: SandboxStatus | None) -> None:
    if desired.running and not desired.ended and not desired.deleted:
        command = next_command(desired=desired, observed=observed)
        assert command not in (Command.DELETE, Command.CLEAN_UP, Command.MARK_DELETED)
