"""The reconciler starts what is wanted once: also when answers get lost, workers pause, or a program is refused."""

from __future__ import annotations

from datetime import timedelta

import pytest

from controlplane.clusters.models import Cluster, Sandbox, SandboxLog
from controlplane.clusters.types import LAUNCH_WAITS, DriverError, ExitReason, SandboxPhase
from controlplane.common.clock import now

from .sandboxes import make_due, refreshed

pytestmark = pytest.mark.django_db


def test_wanted_sandbox_is_started_once_and_seen_running(sandbox, cluster, owner, reconcile) -> None:
    assert reconcile() == 1
    assert reconcile() == 0
    row = refreshed(sandbox)
    assert (row.observed_phase, row.dirty, row.observed_generation) == (SandboxPhase.RUNNING, False, 1)
    assert cluster.created == [str(sandbox.pk)]
    assert owner.phases_of(sandbox) == ["running"]


def test_answer_that_got_lost_is_found_by_the_next_pass(sandbox, cluster, reconcile) -> None:
    cluster.script = ["fine", "fine", "lost"]
    reconcile()
    assert refreshed(sandbox).observed_phase == SandboxPhase.PENDING
    reconcile()
    assert refreshed(sandbox).observed_phase == SandboxPhase.RUNNING
    assert len(cluster.created) == 1


def test_paused_worker_writes_nothing_under_its_old_epoch(sandbox, cluster, owner, reconcile, take_over) -> None:
    reconcile()
    cluster.end(str(sandbox.pk))

    def other_worker_sees_the_end() -> None:
        take_over()
        Sandbox.objects.filter(pk=sandbox.pk).update(message="written by the new holder")

    cluster.say(str(sandbox.pk), b"done")
    cluster.script = ["fine", "fine", other_worker_sees_the_end]  # the pause is in the middle of reading its log
    reconcile()
    row = refreshed(sandbox)
    assert (row.observed_phase, row.message) == (SandboxPhase.EXITED, "written by the new holder")
    assert owner.phases_of(sandbox) == ["running", "exited"]
    assert [bytes(piece.data) for piece in SandboxLog.objects.filter(sandbox=sandbox)] == [b"done"]


def test_worker_paused_before_a_start_does_not_start_what_ended_meanwhile(
    sandbox, cluster, owner, reconcile, take_over
) -> None:
    def everything_happens() -> None:
        take_over()
        cluster.end(str(sandbox.pk))
        take_over()

    cluster.script = ["fine", "fine", everything_happens]
    reconcile()
    assert refreshed(sandbox).observed_phase == SandboxPhase.EXITED
    assert cluster.created == [str(sandbox.pk)]
    assert cluster.known == {}
    reconcile()
    assert owner.phases_of(sandbox) == ["running", "exited"]


def test_worker_paused_over_a_node_restart_starts_nothing_on_the_new_node(
    sandbox, cluster, reconcile, take_over
) -> None:
    def everything_happens() -> None:
        take_over()
        cluster.restart()
        take_over()

    cluster.script = ["fine", "fine", everything_happens]
    reconcile()
    assert refreshed(sandbox).observed_phase == SandboxPhase.LOST
    assert cluster.created == [str(sandbox.pk)]
    assert cluster.known == {}


def test_lease_that_was_lost_while_a_program_was_installed_starts_nothing(
    sandbox, cluster, owner, reconcile, take_over
) -> None:
    def other_worker() -> None:
        owner.before_launch = None
        take_over()

    owner.before_launch = other_worker
    reconcile()
    assert cluster.created == [str(sandbox.pk)]
    assert cluster.calls.count("apply") == 1
    assert refreshed(sandbox).observed_phase == SandboxPhase.RUNNING


def test_second_worker_leaves_a_leased_cluster_alone(sandbox, cluster, reconcile) -> None:
    Cluster.objects.update(lease_owner="other", lease_until=now() + timedelta(seconds=20))
    assert reconcile() == 0
    assert cluster.calls == []


def test_start_that_is_refused_for_good_ends_with_the_reason_and_without_a_start(
    sandbox, cluster, owner, reconcile
) -> None:
    owner.trouble = DriverError("Its run has ended.", permanent=True)
    reconcile()
    row = refreshed(sandbox)
    assert (row.observed_phase, row.exit_reason, row.message) == ("exited", "start_failed", "Its run has ended.")
    assert row.started_at is None
    assert cluster.created == []


def test_program_that_cannot_be_made_ready_is_tried_again_and_then_given_up(sandbox, cluster, owner, reconcile) -> None:
    owner.trouble = OSError("no space left")
    for _ in range(9):
        reconcile()
        assert refreshed(sandbox).observed_phase == SandboxPhase.PENDING
        assert "no space left" in sandbox.message
        assert sandbox.next_attempt_at > now()
        make_due()
    reconcile()
    assert refreshed(sandbox).exit_reason == ExitReason.START_FAILED


def test_one_sandbox_that_fails_oddly_does_not_keep_the_others_from_starting(
    make_sandbox, cluster, owner, reconcile, monkeypatch
) -> None:
    first, second = make_sandbox(), make_sandbox()
    told = owner.on_change

    def fail_for_the_first(*, sandbox: Sandbox) -> None:
        if sandbox.pk == first.pk:
            raise RuntimeError("unexpected")
        told(sandbox=sandbox)

    monkeypatch.setattr(owner, "on_change", fail_for_the_first)
    reconcile()
    assert refreshed(second).observed_phase == SandboxPhase.RUNNING
    assert refreshed(first).observed_phase == SandboxPhase.PENDING
    monkeypatch.setattr(owner, "on_change", told)
    make_due()
    reconcile()
    assert refreshed(first).observed_phase == SandboxPhase.RUNNING
    assert len(cluster.created) == 2


def test_clock_that_was_set_back_keeps_no_cluster_and_no_sandbox_waiting(
    sandbox, cluster, reconcile, northwind
) -> None:
    """As a worker left them that was killed an hour ahead of the time that it is now."""
    cluster.script = ["fine", "fine", "down"]
    reconcile()
    ahead = now() + timedelta(hours=1)
    Sandbox.objects.update(next_attempt_at=ahead)
    Cluster.objects.update(lease_owner="killed", lease_until=ahead)
    reconcile()
    assert refreshed(sandbox).observed_phase == SandboxPhase.RUNNING
    assert cluster.created == [str(sandbox.pk)]


def test_start_that_waits_for_what_is_being_installed_is_no_failed_one_and_keeps_nobody_waiting(
    make_sandbox, cluster, owner, reconcile
) -> None:
    first, ending = make_sandbox(), make_sandbox()
    owner.trouble = DriverError("Its program is being installed.", code=LAUNCH_WAITS)
    for _ in range(12):
        reconcile()
        make_due()
    row = refreshed(first)
    assert (row.observed_phase, row.attempts, row.message) == ("pending", 0, "Its program is being installed.")
    owner.trouble = None
    reconcile()
    assert len(cluster.created) == 2
    cluster.end(str(ending.pk))
    late = make_sandbox()
    seen: list[str] = []
    owner.before_launch = lambda: seen.append(refreshed(ending).observed_phase)
    reconcile()
    assert seen == ["exited"]
    assert refreshed(late).observed_phase == SandboxPhase.RUNNING
