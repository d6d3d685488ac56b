"""Stops with real processes on a real node: killed at once, by whoever comes first, and proven with their times."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from agents import services, stop_proofs
from agents.choices import Runtime, StopScope
from agents.models import Mission, Run, Stop
from budgets.models import Hold
from controlplane.clusters import ending, reconciler
from controlplane.clusters import services as clusters
from controlplane.clusters.lease import lease_of
from controlplane.clusters.models import Sandbox
from controlplane.clusters.types import MIB, DriverError, Resources, SandboxPhase, SandboxSpec
from controlplane.tenancy.models import Token
from tests.agents.test_runs_on_a_node import LocalNode, local_node

__all__ = ["local_node"]
pytestmark = pytest.mark.django_db
SMALL = Resources(cpu_millicores=100, memory_bytes=32 * MIB, pids=16, disk_bytes=4 * MIB)


@pytest.fixture
def node(local_node: LocalNode, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalNode]:
    """The node as the reconciler and a stop reach it; empty afterwards."""
    for module in (reconciler, ending):
        monkeypatch.setattr(module, "driver_of", lambda _cluster: local_node.driver)
    yield local_node
    for status in local_node.driver.observe():
        local_node.driver.delete(status.name)


@pytest.fixture
def sleepers(node: LocalNode, person: Callable, team: Callable, make_remit: Callable) -> list[Mission]:
    """Six missions of one agent whose programs run."""
    alice = person("Alice")
    agent = services.register_agent(
        actor=alice,
        team_id=team("Finance").pk,
        name="Sleeper",
        runtime=Runtime.MANAGED,
        command=["/usr/bin/sleep", "600"],
        resources=SMALL,
    )
    made = []
    for number in range(6):
        mission = services.draft_mission(actor=alice, agent_id=agent.pk, title=f"Sleep {number}", remit=make_remit())
        services.submit_mission(actor=alice, mission_id=mission.pk)
        made.append(mission)
    deadline = time.monotonic() + 60
    while Run.objects.filter(state="running").count() < len(made):
        assert time.monotonic() < deadline, list(Sandbox.objects.values_list("observed_phase", "message"))
        one_pass()
    return made


def one_pass() -> None:
    reconciler.reconcile_cluster(clusters.local_cluster().pk)


def after_commit(stop: Stop) -> None:
    """What the stopping process does once its transaction is done."""
    services.note_proofs(stop_id=stop.pk)
    clusters.end_now(cluster_ids=frozenset({clusters.local_cluster().pk}))


def alive(node: LocalNode) -> list[str]:
    return [status.name for status in node.driver.observe() if status.phase is not SandboxPhase.EXITED]


def test_all_processes_of_a_stopped_agent_are_gone_in_one_call_and_each_proof_has_its_time(
    sleepers: list[Mission], node: LocalNode, person: Callable
) -> None:
    stop = services.stop(actor=person("Alice"), scope=StopScope.AGENT, scope_id=sleepers[0].agent_id)
    before = {rung.name: rung for rung in stop_proofs.proofs(stop)}["processes"]
    assert (before.holds, before.left, before.found) == (False, 6, 6)
    after_commit(stop)
    assert alive(node) == []
    stop.refresh_from_db()
    assert stop.proven_at is not None
    assert stop.proofs["permits"] < stop.proofs["processes"]
    assert all(rung.holds for rung in stop_proofs.proofs(stop))
    assert set(Hold.objects.values_list("state", flat=True)) <= {"settled", "voided"}
    assert not Token.objects.filter(revoked_at__isnull=True, kind="run").exists()
    one_pass()
    assert node.driver.observe() == []
    assert set(Sandbox.objects.values_list("observed_phase", flat=True)) == {"deleted"}


def test_a_stop_of_one_attempt_ends_its_process_alone(
    sleepers: list[Mission], node: LocalNode, person: Callable
) -> None:
    run = Run.objects.get(mission=sleepers[0])
    stop = services.stop(actor=person("Alice"), scope=StopScope.RUN, scope_id=run.pk)
    after_commit(stop)
    assert len(alive(node)) == 5
    assert str(run.sandbox_id) not in alive(node)
    stop.refresh_from_db()
    assert stop.proven_at is not None


def test_when_the_stopping_process_dies_a_worker_ends_them(
    sleepers: list[Mission], node: LocalNode, person: Callable
) -> None:
    stop = services.stop(actor=person("Alice"), scope=StopScope.AGENT, scope_id=sleepers[0].agent_id)
    assert len(alive(node)) == 6  # nobody came as far as killing them
    ending.end_unwanted(clusters.local_cluster().pk)  # the first thing of a worker's task and of its sweep
    assert alive(node) == []
    stop.refresh_from_db()
    assert stop.proven_at is not None


def test_a_busy_reconciler_does_not_keep_them_alive(sleepers: list[Mission], node: LocalNode, person: Callable) -> None:
    """Another worker holds the cluster's lease, as while it installs what a program needs."""
    with lease_of(clusters.local_cluster().pk) as held:
        assert held is not None
        stop = services.stop(actor=person("Alice"), scope=StopScope.AGENT, scope_id=sleepers[0].agent_id)
        after_commit(stop)
        assert alive(node) == []


def test_a_sandbox_that_was_about_to_start_never_does(
    node: LocalNode, person: Callable, team: Callable, make_remit: Callable
) -> None:
    alice = person("Alice")
    agent = services.register_agent(
        actor=alice, team_id=team("Finance").pk, name="Late", runtime=Runtime.MANAGED, command=["/usr/bin/sleep", "600"]
    )
    mission = services.draft_mission(actor=alice, agent_id=agent.pk, title="Late", remit=make_remit())
    services.submit_mission(actor=alice, mission_id=mission.pk)
    sandbox = Sandbox.objects.get(mission_id=mission.pk)
    stop = services.stop(actor=alice, scope=StopScope.MISSION, scope_id=mission.pk)
    after_commit(stop)
    sandbox.refresh_from_db()
    assert (sandbox.observed_phase, sandbox.message) == ("exited", "Stopped before it started.")
    with pytest.raises(DriverError, match="deleted"):  # a start that was asked for earlier arrives only now
        node.driver.apply(SandboxSpec(name=str(sandbox.pk), command=("/usr/bin/sleep", "600"), resources=SMALL))
    one_pass()
    assert node.driver.observe() == []
    assert all(rung.holds for rung in stop_proofs.proofs(stop))


def test_the_servers_of_its_sessions_end_with_it(sleepers: list[Mission], node: LocalNode, person: Callable) -> None:
    runs = list(Run.objects.order_by("id"))
    for run in runs[:2]:
        node.driver.apply(
            SandboxSpec(
                name=f"mcp-books-{run.pk.hex[-12:]}",
                command=("/usr/bin/sleep", "600"),
                resources=SMALL,
                gateway=False,
                labels={"purpose": "server", "run": str(run.pk)},
            )
        )
    stop = services.stop(actor=person("Alice"), scope=StopScope.MISSION, scope_id=runs[0].mission_id)
    after_commit(stop)
    left = [name for name in alive(node) if name.startswith("mcp-")]
    assert left == [f"mcp-books-{runs[1].pk.hex[-12:]}"]


@pytest.mark.django_db(transaction=True)
def test_the_servers_of_an_agent_that_runs_elsewhere_end_with_it(
    node: LocalNode, work: Callable, person: Callable
) -> None:
    mine, other = work("Clerk"), work("Neighbour")
    clusters.local_cluster()
    for mission in (mine.mission, other.mission):
        run = Run.objects.get(mission=mission)
        node.driver.apply(
            SandboxSpec(
                name=f"mcp-books-{run.pk.hex[-12:]}",
                command=("/usr/bin/sleep", "600"),
                resources=SMALL,
                gateway=False,
                labels={"purpose": "server", "run": str(run.pk)},
            )
        )
    services.stop(actor=person("Alice"), scope=StopScope.AGENT, scope_id=mine.agent.pk)
    left = Run.objects.get(mission=other.mission)
    assert alive(node) == [f"mcp-books-{left.pk.hex[-12:]}"]


def test_a_node_that_does_not_answer_leaves_the_proof_open_and_is_tried_again(
    sleepers: list[Mission], node: LocalNode, person: Callable, monkeypatch: Any
) -> None:
    def down(*_: object, **__: object) -> None:
        raise DriverError("Nobody answers.")

    with monkeypatch.context() as patch:
        patch.setattr(node.driver, "kill", down)
        stop = services.stop(actor=person("Alice"), scope=StopScope.AGENT, scope_id=sleepers[0].agent_id)
        after_commit(stop)
        stop.refresh_from_db()
        assert stop.proven_at is None
        assert set(stop.proofs) == {"missions", "permits", "questions", "tokens", "holds", "budget"}
    with contextlib.suppress(DriverError):
        ending.end_unwanted(clusters.local_cluster().pk)
    stop.refresh_from_db()
    assert stop.proven_at is not None
