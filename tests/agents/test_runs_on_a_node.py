"""Managed runs on the real local node: started, resized, lost, out of memory, out of time, stopped; and what the
mission
makes of it. The reconciler's passes are made by the tests."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace

import pytest

from agents import services
from agents.choices import MissionState, RunState, Runtime
from agents.grants import Grant
from agents.models import Agent, AgentVersion, Mission, Run
from agents.servers import environments
from agents.services import runs
from agents.services.onboarding import Person, create_organisation
from budgets import selectors as budgets
from budgets.types import Limits
from controlplane.audit.events import Event
from controlplane.audit.models import Entry
from controlplane.clusters import reconciler, selectors
from controlplane.clusters import services as clusters
from controlplane.clusters.drivers.local import LocalDriver
from controlplane.clusters.models import Sandbox
from controlplane.clusters.node import node_command
from controlplane.clusters.node.cgroups import find_tree, tree_label
from controlplane.clusters.types import MIB, DriverError, Resources, SandboxPhase
from controlplane.common.clock import now
from controlplane.tenancy import services as tenancy
from controlplane.tenancy.models import Organisation, Team, Token, User
from controlplane.tenancy.types import Principal, Role

pytestmark = pytest.mark.django_db

PYTHON = "/usr/bin/python3"
WAITS = "import time; print('waiting', flush=True); time.sleep(600)"


class LocalNode:
    """A real node process with a folder of its own."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="remit-node-"))
        self.state = self.folder / "state"
        socket = self.folder / "run" / "node.sock"
        self._command = node_command(socket=socket, state=self.state, gateway_socket=self.folder / "gate" / "web.sock")
        self._command[0] = sys.executable
        self.driver = LocalDriver(socket)
        self.start()

    def start(self) -> None:
        with (self.folder / "node.log").open("ab") as log:
            self.process = subprocess.Popen(self._command, stdout=log, stderr=log)
        deadline = time.monotonic() + 30
        while True:
            with contextlib.suppress(DriverError):
                self.driver.observe()
                return
            assert self.process.poll() is None, (self.folder / "node.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def restart_after_kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self.start()

    def stop_and_start(self) -> None:
        self.process.terminate()
        self.process.wait(20)
        self.start()

    def remove(self) -> None:
        self.process.terminate()
        self.process.wait(20)
        if tree := find_tree(tree_label(self.state)):
            tree.sweep()
            tree.remove()
        shutil.rmtree(self.folder, ignore_errors=True)


@pytest.fixture(scope="module")
def local_node() -> Iterator[LocalNode]:
    if not Path(PYTHON).exists():
        pytest.skip(f"{PYTHON} is what the sandboxes of these tests run")
    node = LocalNode()
    try:
        node.driver.info()
    except DriverError as error:
        node.remove()
        if os.environ.get("REMIT_REQUIRE_SANDBOX") == "1":
            pytest.fail(error.message)
        pytest.skip(error.message)
    yield node
    node.remove()


@pytest.fixture
def node(local_node: LocalNode, db: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalNode]:
    """The node, reached by the reconciler; empty afterwards."""
    monkeypatch.setattr(reconciler, "driver_of", lambda _cluster: local_node.driver)
    yield local_node
    for status in local_node.driver.observe():
        local_node.driver.delete(status.name)


@pytest.fixture
def company(db: None) -> Organisation:
    return create_organisation(
        name="Northwind",
        currency="USD",
        monthly_limit=Limits(money=Decimal(100)),
        teams={"Finance": Limits(money=Decimal(50))},
        people=(Person("alice@northwind.example", "Alice", (Role.BUILDER,), "Finance"),),
    )


@pytest.fixture
def alice(company: Organisation) -> Principal:
    user = User.objects.get(email="alice@northwind.example")
    principal = tenancy.principal_of_user(user=user, organisation_id=company.pk)
    assert principal is not None
    return principal


@pytest.fixture
def start(alice: Principal, company: Organisation, node: LocalNode) -> Callable[..., Mission]:
    """`start("print(1)", wall_clock_seconds=5)`: an active mission whose agent runs that Python."""

    def make(script: str, **version: object) -> Mission:
        team = Team.objects.get(organisation=company)
        agent: Agent = services.register_agent(
            actor=alice,
            team_id=team.pk,
            name=f"Clerk {Agent.objects.count() or ''}".strip(),
            runtime=Runtime.MANAGED,
            command=[PYTHON, "-I", "-c", script],
        )
        AgentVersion.objects.filter(agent=agent).update(**version)
        remit = services.Remit(
            goal="Every overdue invoice has a reminder.",
            criteria=["Reminders are written"],
            grants=[Grant("books__overdue")],
            budget_money=Decimal("1.00"),
            deadline=now() + timedelta(hours=8),
        )
        mission = services.draft_mission(actor=alice, agent_id=agent.pk, title="Chase invoices", remit=remit)
        services.submit_mission(actor=alice, mission_id=mission.pk)
        mission.refresh_from_db()
        assert mission.state == MissionState.ACTIVE
        return mission

    return make


def one_pass() -> None:
    Sandbox.objects.update(next_attempt_at=None)
    reconciler.reconcile_cluster(clusters.local_cluster().pk)


def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, list(Sandbox.objects.values())
        one_pass()
        time.sleep(0.05)


def last_run(mission: Mission) -> Run:
    return Run.objects.filter(mission=mission).select_related("sandbox").latest("attempt")


def run_is(mission: Mission, state: RunState, attempt: int = 1) -> Callable[[], bool]:
    return lambda: Run.objects.filter(mission=mission, attempt=attempt, state=state).exists()


def test_run_that_ends_well_is_seen_charged_and_its_output_kept(start, node) -> None:
    mission = start("print('all reminders written')")
    until(run_is(mission, RunState.SUCCEEDED))
    mission.refresh_from_db()
    assert mission.state == MissionState.ACTIVE
    assert "without claiming" in mission.state_reason
    run = last_run(mission)
    assert run.attempt == 1
    assert selectors.log_of(run.sandbox).text.strip() == "all reminders written"
    assert node.driver.observe() == []
    assert not Token.objects.filter(run_id=run.pk, revoked_at__isnull=True).exists()
    spend = budgets.mission_spend(mission_ids=[mission.pk])[mission.pk]
    assert spend.held.money == 0


def test_killed_node_means_a_lost_run_and_the_next_attempt_up_to_the_third(start, node) -> None:
    mission = start(WAITS)
    for attempt in (1, 2, 3):
        until(run_is(mission, RunState.RUNNING, attempt))
        node.restart_after_kill()
        until(run_is(mission, RunState.LOST, attempt))
    one_pass()
    mission.refresh_from_db()
    assert mission.state == MissionState.PAUSED
    assert "node" in mission.state_reason
    assert Run.objects.filter(mission=mission).count() == 3
    assert Entry.objects.filter(mission_id=mission.pk, event=Event.MISSION_PAUSED).count() == 1
    assert Entry.objects.filter(mission_id=mission.pk, event=Event.SANDBOX_LOST).count() == 3
    assert not Token.objects.filter(mission_id=mission.pk, revoked_at__isnull=True).exists()


def test_orderly_stop_is_told_as_one_and_never_uses_up_the_attempts(start, node) -> None:
    mission = start(WAITS)
    for attempt in (1, 2, 3, 4):
        until(run_is(mission, RunState.RUNNING, attempt))
        node.stop_and_start()
        if attempt == 2:  # and once more, before any worker looked
            node.stop_and_start()
        until(run_is(mission, RunState.STOPPED, attempt))
    until(run_is(mission, RunState.RUNNING, 5))
    mission.refresh_from_db()
    assert mission.state == MissionState.ACTIVE
    reasons = set(Run.objects.filter(mission=mission, attempt__lt=5).values_list("reason", flat=True))
    assert reasons == {"It was stopped with the installation"}
    assert not Entry.objects.filter(mission_id=mission.pk, event=Event.SANDBOX_LOST).exists()
    for attempt in (5, 6, 7):
        until(run_is(mission, RunState.RUNNING, attempt))
        node.restart_after_kill()
        until(run_is(mission, RunState.LOST, attempt))
    one_pass()
    mission.refresh_from_db()
    assert mission.state == MissionState.PAUSED


def test_program_that_fails_is_tried_three_times_then_the_mission_pauses_with_the_reason(start) -> None:
    mission = start("raise SystemExit(7)")
    until(run_is(mission, RunState.FAILED, 3))
    mission.refresh_from_db()
    assert mission.state == MissionState.PAUSED
    assert "code 7" in mission.state_reason
    assert Run.objects.filter(mission=mission).count() == 3


def test_run_out_of_memory_says_so(start, node) -> None:
    if "memory" not in node.driver.info().limits:
        pytest.skip("memory is not limited on this machine")
    mission = start(
        "x = []\nwhile True: x.append(bytearray(8 * 1024 * 1024))",
        resources={"cpu_millicores": 500, "memory_bytes": 64 * MIB, "pids": 16, "disk_bytes": 16 * MIB},
    )
    until(run_is(mission, RunState.FAILED))
    reason = Run.objects.get(mission=mission, attempt=1).reason
    # Where control groups can't be written, the program meets the limit as an error of its own.
    assert reason == "It ran out of memory (limit 64 MiB)" or "code 1" in reason


def test_run_out_of_time_pauses_at_once_instead_of_running_as_long_again(start) -> None:
    mission = start(WAITS, wall_clock_seconds=1)
    until(run_is(mission, RunState.FAILED))
    mission.refresh_from_db()
    assert mission.state == MissionState.PAUSED
    assert "longer than 1 seconds" in mission.state_reason
    assert Run.objects.filter(mission=mission).count() == 1


def test_program_that_cannot_start_says_why(start) -> None:
    mission = start("print(1)", command=["/no/such/program"])
    until(run_is(mission, RunState.FAILED, 3))
    mission.refresh_from_db()
    assert mission.state == MissionState.PAUSED
    spend = budgets.mission_spend(mission_ids=[mission.pk])[mission.pk]
    assert (spend.held.money, spend.spent.money) == (0, 0)


def test_size_is_changed_while_it_runs_and_the_page_shows_both(start, alice, node) -> None:
    mission = start(WAITS)
    until(run_is(mission, RunState.RUNNING))
    for memory, cpu in ((384 * MIB, 750), (192 * MIB, 250)):
        size = Resources(cpu_millicores=cpu, memory_bytes=memory)
        clusters.resize_sandbox(actor=alice, sandbox_id=last_run(mission).sandbox_id, resources=size)
        assert last_run(mission).sandbox.observed_resources["memory_bytes"] != memory
        one_pass()
        box = last_run(mission).sandbox
        assert box.resize_error or box.observed_resources == box.desired_resources
        assert box.observed_phase == SandboxPhase.RUNNING
    [status] = node.driver.observe()
    assert status.phase is SandboxPhase.RUNNING


def test_stopped_mission_leaves_no_process_and_keeps_the_output(start, alice, node) -> None:
    mission = start(WAITS)
    until(run_is(mission, RunState.RUNNING))
    until(lambda: "waiting" in selectors.log_of(last_run(mission).sandbox).text)
    services.stop_mission(actor=alice, mission_id=mission.pk, reason="enough")
    until(lambda: last_run(mission).sandbox.observed_phase == SandboxPhase.DELETED)
    assert node.driver.observe() == []
    assert "waiting" in selectors.log_of(last_run(mission).sandbox).text
    run = last_run(mission)
    assert (run.state, run.reason) == (RunState.STOPPED, "enough")


def test_mission_stopped_before_its_start_runs_nothing(start, alice, node) -> None:
    mission = start(WAITS)
    services.stop_mission(actor=alice, mission_id=mission.pk, reason="second thoughts")
    one_pass()
    assert node.driver.observe() == []
    assert last_run(mission).sandbox.observed_phase == SandboxPhase.DELETED


def test_mission_stopped_while_its_program_is_installed_runs_nothing_and_leaves_no_token(
    start, alice, node, monkeypatch
) -> None:
    mission = start(WAITS)
    prepared = runs.programs.launch

    def stopped_meanwhile(**fields: object) -> object:
        services.stop_mission(actor=alice, mission_id=mission.pk, reason="too late")
        return prepared(**fields)

    monkeypatch.setattr(runs.programs, "launch", stopped_meanwhile)
    one_pass()
    one_pass()
    assert node.driver.observe() == []
    assert not Token.objects.filter(mission_id=mission.pk, revoked_at__isnull=True).exists()


def test_worker_that_finds_a_program_being_installed_goes_on_with_others(
    start, node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environments, "configuration", lambda: SimpleNamespace(state_dir=tmp_path))
    needs_it, plain = start(WAITS, program="receivables"), start(WAITS)
    requirements = (environments.REQUIREMENTS / "agent.txt").read_bytes()
    fingerprint = environments._fingerprint(requirements, sys.version.encode(), sys.base_prefix.encode())
    (tmp_path / "environments").mkdir()
    with (tmp_path / "environments" / f".agent-{fingerprint}.lock").open("w") as somebody_installs:
        fcntl.flock(somebody_installs, fcntl.LOCK_EX)
        until(run_is(plain, RunState.RUNNING))
        for _ in range(12):
            one_pass()
        waiting = last_run(needs_it)
        assert (waiting.state, waiting.sandbox.message) == (RunState.STARTING, "Its program is being installed.")
        assert not Token.objects.filter(run_id=waiting.pk).exists()


def test_ended_run_is_not_launched_again_by_anyone(start, alice) -> None:
    mission = start(WAITS)
    sandbox = last_run(mission).sandbox
    services.stop_mission(actor=alice, mission_id=mission.pk, reason="over")
    with pytest.raises(DriverError) as refused:
        runs.RunSandboxes().launch(sandbox=sandbox)
    assert refused.value.permanent
    assert not Token.objects.filter(mission_id=mission.pk, revoked_at__isnull=True).exists()


def test_person_asks_for_another_attempt_after_the_mission_paused(start, alice) -> None:
    mission = start("raise SystemExit(1)")
    until(run_is(mission, RunState.FAILED, 3))
    services.resume_mission(actor=alice, mission_id=mission.pk)
    services.restart_run(actor=alice, mission_id=mission.pk)
    until(run_is(mission, RunState.FAILED, 4))
    mission.refresh_from_db()
    assert mission.state == MissionState.PAUSED
    assert Run.objects.filter(mission=mission).count() == 4
