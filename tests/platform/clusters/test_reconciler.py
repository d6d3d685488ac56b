"""Passes of the reconciler over a cluster that breaks down: nothing is started twice, and it ends as desired."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta

import pytest
from django.db import connection, transaction
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from controlplane.audit.events import Event
from controlplane.audit.models import Entry
from controlplane.clusters import selectors, services
from controlplane.clusters.models import Cluster, Sandbox, SandboxLog
from controlplane.clusters.types import LAUNCH_WAITS, MIB, DriverError, ExitReason, Resources, SandboxPhase
from controlplane.common.clock import now
from controlplane.common.errors import RemitError
from controlplane.tenancy.types import Principal, system_principal

pytestmark = pytest.mark.django_db

LARGE = Resources(cpu_millicores=1000, memory_bytes=512 * MIB)
SMALL = Resources(cpu_millicores=100, memory_bytes=64 * MIB)


def refreshed(sandbox: Sandbox) -> Sandbox:
    sandbox.refresh_from_db()
    return sandbox


def make_due() -> None:
    Sandbox.objects.update(next_attempt_at=None)


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


def test_end_that_comes_together_with_a_resize_is_not_taken_for_a_loss(
    sandbox, cluster, owner, reconcile, northwind
) -> None:
    reconcile()
    cluster.end(str(sandbox.pk))
    cluster.say(str(sandbox.pk), b"bye")
    system = system_principal(organisation_id=northwind.pk)
    cluster.script = [
        "fine",
        "fine",
        lambda: services.resize_sandbox(actor=system, sandbox_id=sandbox.pk, resources=LARGE),
    ]
    reconcile()
    reconcile()
    row = refreshed(sandbox)
    assert (row.observed_phase, row.exit_reason) == (SandboxPhase.EXITED, ExitReason.COMPLETED)
    assert owner.phases_of(sandbox) == ["running", "exited"]


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


def test_resize_up_and_down_shows_desired_and_observed_until_they_agree(sandbox, cluster, reconcile, northwind) -> None:
    reconcile()
    system = system_principal(organisation_id=northwind.pk)
    for size in (LARGE, SMALL):
        before = refreshed(sandbox).observed_resources
        services.resize_sandbox(actor=system, sandbox_id=sandbox.pk, resources=size)
        row = refreshed(sandbox)
        assert row.desired_resources["memory_bytes"] == size.memory_bytes
        assert row.observed_resources == before
        reconcile()
        row = refreshed(sandbox)
        assert row.observed_resources == row.desired_resources
        assert row.observed_generation == row.desired_generation


def test_refused_resize_is_shown_not_repeated_and_forgotten_with_the_next_size(
    sandbox, cluster, reconcile, northwind
) -> None:
    reconcile()
    cluster.resize_limit = 200 * MIB
    system = system_principal(organisation_id=northwind.pk)
    services.resize_sandbox(actor=system, sandbox_id=sandbox.pk, resources=SMALL)
    reconcile()
    row = refreshed(sandbox)
    assert row.resize_error == "It uses more memory than that."
    assert row.observed_resources["memory_bytes"] == Resources().memory_bytes
    reconcile()
    assert cluster.calls.count("resize") == 1
    services.resize_sandbox(actor=system, sandbox_id=sandbox.pk, resources=Resources())
    reconcile()
    row = refreshed(sandbox)
    assert (row.resize_error, row.observed_phase) == ("", SandboxPhase.RUNNING)


def test_resize_that_the_cluster_refuses_for_good_does_not_end_the_sandbox(
    sandbox, cluster, owner, reconcile, northwind, monkeypatch
) -> None:
    reconcile()

    def refuse(name: str, resources: Resources) -> None:
        raise DriverError("That is no size.", permanent=True, code="spec.invalid")

    monkeypatch.setattr(cluster, "resize", refuse)
    services.resize_sandbox(
        actor=system_principal(organisation_id=northwind.pk), sandbox_id=sandbox.pk, resources=LARGE
    )
    reconcile()
    row = refreshed(sandbox)
    assert (row.observed_phase, row.resize_error) == (SandboxPhase.RUNNING, "That is no size.")
    assert owner.phases_of(sandbox) == ["running"]


def test_sandbox_whose_resize_keeps_failing_is_still_seen_to_end(sandbox, cluster, reconcile, northwind) -> None:
    reconcile()
    services.resize_sandbox(
        actor=system_principal(organisation_id=northwind.pk), sandbox_id=sandbox.pk, resources=LARGE
    )
    cluster.script = ["fine", "fine", "down"]
    reconcile()
    assert refreshed(sandbox).next_attempt_at is not None
    cluster.end(str(sandbox.pk))
    reconcile()
    assert refreshed(sandbox).observed_phase == SandboxPhase.EXITED


def test_ended_sandbox_is_not_resized(sandbox, cluster, reconcile, northwind) -> None:
    reconcile()
    cluster.end(str(sandbox.pk))
    reconcile()
    with pytest.raises(RemitError) as refused:
        services.resize_sandbox(
            actor=system_principal(organisation_id=northwind.pk), sandbox_id=sandbox.pk, resources=LARGE
        )
    assert refused.value.code == "sandbox.ended"
    assert refreshed(sandbox).desired_generation == 1


def test_outsider_resizes_nothing(sandbox, reconcile, as_charlie: Principal) -> None:
    reconcile()
    with pytest.raises(RemitError) as refused:
        services.resize_sandbox(actor=as_charlie, sandbox_id=sandbox.pk, resources=LARGE)
    assert refused.value.status == 404
    assert refreshed(sandbox).desired_generation == 1


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


def test_unreachable_cluster_is_named_and_nothing_changes(sandbox, cluster, reconcile) -> None:
    reconcile()
    cluster.script = ["down"]
    assert reconcile() == 0
    assert Cluster.objects.get().error == "Nobody answers."
    assert refreshed(sandbox).observed_phase == SandboxPhase.RUNNING
    reconcile()
    assert Cluster.objects.get().error == ""


def test_orphan_of_a_run_is_removed_and_others_are_let_be(sandbox, cluster, reconcile, nobody) -> None:
    reconcile()
    template = cluster.known[str(sandbox.pk)]
    cluster.known[str(nobody)] = template.__class__(**{**vars(template), "name": str(nobody)})
    cluster.known["mcp-books-1"] = template.__class__(
        **{**vars(template), "name": "mcp-books-1", "labels": {"purpose": "server"}}
    )
    reconcile()
    assert set(cluster.known) == {str(sandbox.pk), "mcp-books-1"}


def test_output_is_kept_after_the_end_and_capped(sandbox, cluster, reconcile) -> None:
    reconcile()
    cluster.say(str(sandbox.pk), b"first line\n")
    reconcile()
    cluster.say(str(sandbox.pk), b"x" * (2 * 1024 * 1024))
    cluster.end(str(sandbox.pk))
    reconcile()
    assert cluster.known == {}
    kept = selectors.log_of(refreshed(sandbox), last_bytes=10 * 1024 * 1024)
    assert kept.text.startswith("first line\nxxx")
    assert (kept.total_bytes, kept.capped) == (1024 * 1024, True)


def test_output_is_read_on_where_a_lost_answer_left_off(sandbox, cluster, reconcile) -> None:
    reconcile()
    cluster.say(str(sandbox.pk), bytes(range(256)) * 1024)
    cluster.script = ["fine", "fine", "fine", "down"]
    reconcile()
    reconcile()
    pieces = SandboxLog.objects.filter(sandbox=sandbox).order_by("offset")
    assert b"".join(bytes(piece.data) for piece in pieces) == bytes(range(256)) * 1024


# Interleavings

EVENTS = st.sampled_from(
    ["fine", "fine", "fine", "down", "lost", "killed", "restart", "restart after", "take over", "stop", "resize", "end"]
)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(script=st.lists(EVENTS, max_size=25), passes=st.integers(1, 6))
def test_whatever_is_interleaved_nothing_starts_twice_and_it_ends_as_desired(
    script: list[str], passes: int, make_sandbox, cluster, owner, reconcile, take_over, northwind
) -> None:
    Sandbox.objects.all().delete()
    Cluster.objects.update(lease_owner="", lease_until=None)
    cluster.__init__()
    owner.told.clear()
    sandbox = make_sandbox()
    name = str(sandbox.pk)
    system = system_principal(organisation_id=northwind.pk)

    def resize() -> None:
        with suppress(RemitError):  # it may have ended
            services.resize_sandbox(actor=system, sandbox_id=sandbox.pk, resources=LARGE)

    moves: dict[str, Callable[[], None]] = {
        "take over": take_over,
        "stop": lambda: services.delete_sandbox(sandbox_id=sandbox.pk),
        "resize": resize,
        "end": lambda: cluster.end(name),
    }
    cluster.script = [moves.get(event, event) for event in script]
    for _ in range(passes):
        reconcile()
        make_due()
    cluster.script = []
    Cluster.objects.update(lease_owner="", lease_until=None)
    for _ in range(6):
        make_due()
        reconcile()

    assert cluster.created.count(name) <= 1
    row = refreshed(sandbox)
    assert not row.dirty
    if row.desired == "deleted":
        assert row.observed_phase == SandboxPhase.DELETED
    if row.observed_phase == SandboxPhase.RUNNING:
        assert cluster.known[name].resources == Resources(**row.desired_resources)
        assert row.observed_resources == row.desired_resources
    else:
        assert row.observed_phase in (SandboxPhase.EXITED, SandboxPhase.LOST, SandboxPhase.DELETED)
        assert name not in cluster.known
    phases = owner.phases_of(sandbox)
    assert len(phases) == len(set(phases))
    order = ["running", "exited", "lost", "deleted"]
    assert phases == sorted(phases, key=order.index)


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


def test_refusal_of_one_size_is_not_taken_for_the_answer_to_the_next(sandbox, cluster, reconcile, northwind) -> None:
    reconcile()
    cluster.resize_limit = 200 * MIB
    system = system_principal(organisation_id=northwind.pk)
    services.resize_sandbox(actor=system, sandbox_id=sandbox.pk, resources=SMALL)
    reconcile()
    services.resize_sandbox(actor=system, sandbox_id=sandbox.pk, resources=LARGE)
    cluster.script = ["fine", "fine", "down"]
    reconcile()
    reconcile()  # too early to ask again: what it sees still says no to the size before
    row = refreshed(sandbox)
    assert (row.resize_error, row.observed_generation < row.desired_generation) == ("", True)
    make_due()
    reconcile()
    row = refreshed(sandbox)
    assert (row.resize_error, row.observed_resources) == ("", row.desired_resources)


def test_sandbox_that_nobody_saw_end_ended_when_it_was_last_seen(sandbox, cluster, reconcile) -> None:
    reconcile()
    seen = now() - timedelta(hours=9)
    Sandbox.objects.update(started_at=seen - timedelta(minutes=1), observed_at=seen)
    cluster.stop_and_start()
    reconcile()
    assert refreshed(sandbox).exited_at == seen


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
