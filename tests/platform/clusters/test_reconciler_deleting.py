"""What is deleted ends deleted and stays so, whenever it is asked; and what is left on a node is removed."""

from __future__ import annotations

import threading

import pytest
from django.db import connection, transaction

from controlplane.clusters import services
from controlplane.clusters.types import ExitReason, SandboxPhase

from .sandboxes import refreshed

pytestmark = pytest.mark.django_db


def test_delete_during_start_ends_deleted_and_stays_so(sandbox, cluster, owner, reconcile) -> None:
    cluster.script = ["fine", "fine", lambda: services.delete_sandbox(sandbox_id=sandbox.pk)]
    reconcile()
    reconcile()
    row = refreshed(sandbox)
    assert (row.observed_phase, row.dirty) == (SandboxPhase.DELETED, False)
    assert cluster.known == {}
    assert reconcile() == 0


@pytest.mark.django_db(transaction=True)
def test_delete_that_a_write_of_what_was_seen_waits_for_is_not_forgotten(sandbox, cluster, reconcile) -> None:
    asked = threading.Event()

    def ask_and_commit_once_somebody_waits() -> None:
        with transaction.atomic():
            services.delete_sandbox(sandbox_id=sandbox.pk)
            asked.set()
            with connection.cursor() as cursor:
                for _ in range(2000):
                    cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
                    if cursor.fetchone() != (0,):
                        break
        connection.close()

    other = threading.Thread(target=ask_and_commit_once_somebody_waits)
    # During the look that follows the start; what it saw is written after that.
    cluster.script = ["fine", "fine", lambda: (other.start(), asked.wait(20))]
    reconcile()
    other.join()
    assert refreshed(sandbox).dirty
    reconcile()
    row = refreshed(sandbox)
    assert (row.observed_phase, row.dirty, cluster.known) == (SandboxPhase.DELETED, False, {})


def test_delete_while_its_program_is_installed_means_no_start(sandbox, cluster, owner, reconcile) -> None:
    owner.before_launch = lambda: services.delete_sandbox(sandbox_id=sandbox.pk)
    reconcile()
    reconcile()
    assert refreshed(sandbox).observed_phase == SandboxPhase.DELETED
    assert cluster.created == []
    assert owner.phases_of(sandbox) == ["deleted"]


def test_delete_before_the_first_pass_never_starts_it(sandbox, cluster, reconcile) -> None:
    services.delete_sandbox(sandbox_id=sandbox.pk)
    reconcile()
    assert refreshed(sandbox).observed_phase == SandboxPhase.DELETED
    assert cluster.created == []


@pytest.mark.parametrize("ending", ["lost", "exited", "deleted"])
def test_deleting_what_has_ended_comes_to_rest_and_keeps_why_it_ended(
    ending, sandbox, cluster, owner, reconcile
) -> None:
    reconcile()
    if ending == "lost":
        cluster.restart()
    elif ending == "exited":
        cluster.end(str(sandbox.pk), ExitReason.OUT_OF_MEMORY, 137)
    else:
        services.delete_sandbox(sandbox_id=sandbox.pk)
    reconcile()
    before = refreshed(sandbox).exit_reason
    services.delete_sandbox(sandbox_id=sandbox.pk)
    for _ in range(3):
        reconcile()
    row = refreshed(sandbox)
    assert (row.observed_phase, row.dirty, row.exit_reason) == (SandboxPhase.DELETED, False, before)
    assert owner.phases_of(sandbox).count("deleted") == 1


def test_node_that_would_not_clean_up_is_asked_again(sandbox, cluster, reconcile) -> None:
    reconcile()
    cluster.end(str(sandbox.pk))
    cluster.script = ["fine", "fine", "down"]
    reconcile()
    assert refreshed(sandbox).observed_phase == SandboxPhase.EXITED
    assert str(sandbox.pk) in cluster.known
    reconcile()
    assert cluster.known == {}
    assert refreshed(sandbox).exit_reason == ExitReason.COMPLETED


def test_orphan_of_a_run_is_removed_and_others_are_let_be(sandbox, cluster, reconcile, nobody) -> None:
    reconcile()
    template = cluster.known[str(sandbox.pk)]
    cluster.known[str(nobody)] = template.__class__(**{**vars(template), "name": str(nobody)})
    cluster.known["mcp-books-1"] = template.__class__(
        **{**vars(template), "name": "mcp-books-1", "labels": {"purpose": "server"}}
    )
    reconcile()
    assert set(cluster.known) == {str(sandbox.pk), "mcp-books-1"}
