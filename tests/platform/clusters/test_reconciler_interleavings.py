"""Passes of the reconciler over a cluster that breaks down: nothing is started twice, and it ends as desired."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from controlplane.clusters import services
from controlplane.clusters.models import Cluster, Sandbox
from controlplane.clusters.types import Resources, SandboxPhase
from controlplane.common.errors import RemitError
from controlplane.tenancy.types import system_principal

from .sandboxes import LARGE, make_due, refreshed

pytestmark = pytest.mark.django_db

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
