"""Another size for a running sandbox: desired and observed, refused, failing, and together with its end."""

from __future__ import annotations

import pytest

from controlplane.clusters import services
from controlplane.clusters.types import MIB, DriverError, ExitReason, Resources, SandboxPhase
from controlplane.common.errors import RemitError
from controlplane.tenancy.types import Principal, system_principal

from .sandboxes import LARGE, SMALL, make_due, refreshed

pytestmark = pytest.mark.django_db


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
