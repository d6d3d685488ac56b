"""What the reconciler makes of a node that died, restarted, was told to stop, or does not answer."""

from __future__ import annotations

from datetime import timedelta

import pytest

from controlplane.audit.events import Event
from controlplane.audit.models import Entry
from controlplane.clusters.models import Cluster, Sandbox
from controlplane.clusters.types import ExitReason, SandboxPhase
from controlplane.common.clock import now

from .sandboxes import refreshed

pytestmark = pytest.mark.django_db


def test_start_that_may_have_happened_before_the_node_died_is_lost_not_repeated(
    sandbox, cluster, owner, reconcile
) -> None:
    cluster.script = ["fine", "fine", "killed"]
    reconcile()
    cluster.restart()
    reconcile()
    row = refreshed(sandbox)
    assert (row.observed_phase, row.exit_reason) == (SandboxPhase.LOST, ExitReason.NODE_LOST)
    assert len(cluster.created) == 1
    assert Entry.objects.filter(event=Event.SANDBOX_LOST).count() == 1
    for _ in range(3):
        assert reconcile() == 0
    assert owner.phases_of(sandbox) == ["lost"]


def test_node_restart_under_a_running_sandbox_is_a_loss(sandbox, cluster, owner, reconcile) -> None:
    reconcile()
    cluster.restart()
    reconcile()
    assert owner.phases_of(sandbox) == ["running", "lost"]
    assert len(cluster.created) == 1


def test_sandbox_of_a_node_that_was_told_to_stop_ended_with_it_and_is_not_lost(
    sandbox, cluster, owner, reconcile
) -> None:
    reconcile()
    cluster.stop_and_start()
    reconcile()
    row = refreshed(sandbox)
    assert (row.observed_phase, row.exit_reason) == (SandboxPhase.EXITED, ExitReason.NODE_STOPPED)
    assert owner.phases_of(sandbox) == ["running", "exited"]
    assert len(cluster.created) == 1
    assert not Entry.objects.filter(event=Event.SANDBOX_LOST).exists()


def test_two_orderly_stops_that_nobody_looked_between_are_no_loss_nor_is_a_crash_after_them(
    sandbox, cluster, owner, reconcile
) -> None:
    reconcile()
    cluster.stop_and_start()
    cluster.stop_and_start()
    cluster.restart()
    reconcile()
    row = refreshed(sandbox)
    assert (row.observed_phase, row.exit_reason) == (SandboxPhase.EXITED, ExitReason.NODE_STOPPED)
    assert owner.phases_of(sandbox) == ["running", "exited"]
    assert not Entry.objects.filter(event=Event.SANDBOX_LOST).exists()


def test_sandbox_of_the_life_before_an_orderly_stop_is_lost(sandbox, cluster, owner, reconcile) -> None:
    reconcile()
    cluster.restart()
    cluster.stop_and_start()
    reconcile()
    assert owner.phases_of(sandbox) == ["running", "lost"]


def test_unreachable_cluster_is_named_and_nothing_changes(sandbox, cluster, reconcile) -> None:
    reconcile()
    cluster.script = ["down"]
    assert reconcile() == 0
    assert Cluster.objects.get().error == "Nobody answers."
    assert refreshed(sandbox).observed_phase == SandboxPhase.RUNNING
    reconcile()
    assert Cluster.objects.get().error == ""


def test_sandbox_that_nobody_saw_end_ended_when_it_was_last_seen(sandbox, cluster, reconcile) -> None:
    reconcile()
    seen = now() - timedelta(hours=9)
    Sandbox.objects.update(started_at=seen - timedelta(minutes=1), observed_at=seen)
    cluster.stop_and_start()
    reconcile()
    assert refreshed(sandbox).exited_at == seen
