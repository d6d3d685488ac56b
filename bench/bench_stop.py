"""Stop: from the click to the last proof, with 100 running sandboxes on a real local node.

`python bench/bench_stop.py` prints one JSON object. PostgreSQL, node and worker are its own, in a temporary folder;
every run is an agent's program that sleeps. Each round starts `BENCH_SANDBOXES` (100) of them, gives some permits and
questions, stops their team, waits for the last proof, and lifts the stop again.
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from server import ROOT, Server, durable_server

SANDBOXES = int(os.environ.get("BENCH_SANDBOXES", "100"))
STOPS = int(os.environ.get("BENCH_STOPS", "12"))
ASKING = 20  # missions with an open question, and as many with an unused permit
TOOL, LISTING = "books__apply_credit", "books__overdue"


def main() -> dict[str, Any]:
    with durable_server() as server, _node(server) as isolation:
        import django

        django.setup()
        from django.core.management import call_command

        call_command("migrate", interactive=False, verbosity=0)
        from controlplane.common.tasks import Task

        Task._send = lambda *_: None  # there is no broker here; the worker below looks every two seconds
        ground = Ground()
        with _worker():
            rounds = [ground.one_round(number) for number in range(STOPS)]
    totals = sorted(each["last_proof_milliseconds"] for each in rounds)
    return {
        "bench": f"stop of a team with {SANDBOXES} running sandboxes",
        "isolation": isolation,
        "stops": STOPS,
        "commit_milliseconds_p50": round(statistics.median(each["commit_milliseconds"] for each in rounds)),
        "processes_gone_milliseconds_p50": round(statistics.median(each["processes_milliseconds"] for each in rounds)),
        "last_proof_milliseconds_p50": round(statistics.median(totals)),
        "last_proof_milliseconds_worst": round(totals[-1]),
        "last_proof_milliseconds_all": [round(value) for value in totals],
        "load": [round(value, 1) for value in os.getloadavg()],
        "goals": {"last_proof_milliseconds_worst": "at most 2000"},
    }


class Ground:
    """A team with agents whose programs sleep, and who may stop it and agree to its lifting."""

    def __init__(self) -> None:
        from decimal import Decimal

        from agents.models import McpServer, McpTool
        from agents.services.onboarding import Person, create_organisation
        from budgets.types import Limits
        from controlplane.tenancy.models import Team, User
        from controlplane.tenancy.types import Role

        self.organisation = create_organisation(
            name="Bench",
            currency="USD",
            monthly_limit=Limits(money=Decimal(100_000)),
            teams={"Work": Limits(money=Decimal(50_000))},
            people=(
                Person("nadia@bench.example", "Nadia", (Role.ADMIN,)),
                Person("dana@bench.example", "Dana", (Role.APPROVER,)),
            ),
        )
        self.team = Team.objects.get(organisation=self.organisation)
        self.nadia, self.dana = (self._person(name) for name in ("nadia", "dana"))
        books = McpServer.objects.create(
            organisation=self.organisation,
            name="Books",
            slug="books",
            transport="stdio",
            created_by=User.objects.get(pk=self.nadia.id),
        )
        for name in (TOOL, LISTING):
            plain = name.removeprefix("books__")
            McpTool.objects.create(
                server=books,
                name=plain,
                qualified_name=name,
                definition={"name": plain, "inputSchema": {"type": "object"}},
                definition_sha256="sha256:aa",
            )

    def _person(self, name: str) -> Any:
        from controlplane.tenancy.models import User
        from controlplane.tenancy.services import principal_of_user

        return principal_of_user(user=User.objects.get(email=f"{name}@bench.example"))

    def one_round(self, number: int) -> dict[str, float]:
        from agents import services
        from agents.choices import StopScope

        self._start(number)
        self._until_running()
        self._work()
        clicked = time.perf_counter()
        stop = services.stop(actor=self.nadia, scope=StopScope.TEAM, scope_id=self.team.pk, reason="bench")
        returned = (time.perf_counter() - clicked) * 1000
        while stop.proven_at is None:
            stop.refresh_from_db()
            time.sleep(0.002)
        seen = {name: self._milliseconds(stop, name) for name in stop.proofs}
        answer = {
            "commit_milliseconds": seen["permits"],
            "processes_milliseconds": seen["processes"],
            "last_proof_milliseconds": max(seen.values()),
        }
        print(
            f"  {number + 1}: {answer} returned after {returned:.0f} ms, {stop.counts}",
            file=sys.stderr,
            flush=True,
        )
        self._lift(stop)
        return answer

    def _milliseconds(self, stop: Any, name: str) -> float:
        from datetime import datetime

        return float((datetime.fromisoformat(stop.proofs[name]) - stop.at).total_seconds() * 1000)

    def _start(self, number: int) -> None:
        from datetime import timedelta
        from decimal import Decimal

        from agents import services
        from agents.choices import Runtime
        from agents.grants import Grant
        from controlplane.clusters.types import MIB, Resources
        from controlplane.common.clock import now

        agent = services.register_agent(
            actor=self.nadia,
            team_id=self.team.pk,
            name=f"Sleeper {number}",
            runtime=Runtime.MANAGED,
            command=["/usr/bin/sleep", "3600"],
            resources=Resources(cpu_millicores=100, memory_bytes=32 * MIB, pids=16, disk_bytes=4 * MIB),
        )
        remit = services.Remit(
            goal="Sleep.",
            criteria=["It slept"],
            grants=(Grant(TOOL, effect="escalate"), Grant(LISTING)),
            budget_money=Decimal("1.00"),
            budget_steps=1000,
            deadline=now() + timedelta(hours=8),
        )
        for index in range(SANDBOXES):
            mission = services.draft_mission(
                actor=self.nadia, agent_id=agent.pk, title=f"Sleep {number}.{index}", remit=remit
            )
            services.submit_mission(actor=self.nadia, mission_id=mission.pk)

    def _until_running(self) -> None:
        from controlplane.clusters.models import Sandbox

        deadline = time.monotonic() + 300
        while Sandbox.objects.filter(observed_phase="running", desired="running").count() < SANDBOXES:
            if time.monotonic() > deadline:
                raise RuntimeError(str(list(Sandbox.objects.values_list("observed_phase", "message")[:5])))
            time.sleep(0.2)

    def _work(self) -> None:
        """Some hold a permit, some wait for a person: with their holds and questions."""
        from agents.models import Run
        from controlplane.tenancy.types import Principal, PrincipalKind
        from governance import services as gate
        from governance.types import Proposal

        live = Run.objects.filter(state="running", mission__team=self.team).select_related("mission__agent")
        for index, run in enumerate(live.order_by("id")[: 2 * ASKING]):
            who = Principal(
                kind=PrincipalKind.RUN,
                id=run.pk,
                name="Sleeper",
                organisation_id=self.organisation.pk,
                team_id=self.team.pk,
                agent_id=run.mission.agent_id,
                mission_id=run.mission_id,
                run_id=run.pk,
            )
            gate.propose(proposer=who, proposal=Proposal("tool.call", {"n": index}, tool=(TOOL, LISTING)[index % 2]))

    def _lift(self, stop: Any) -> None:
        from agents import services
        from agents.models import Mission
        from controlplane.clusters.models import Sandbox
        from governance import services as gate

        for mission in Mission.objects.filter(paused_by=stop):
            services.stop_mission(actor=self.nadia, mission_id=mission.pk)
        asked = services.ask_to_lift(actor=self.nadia, stop_id=stop.pk, resume=False)
        gate.decide(approver=self.dana, escalation_id=asked.escalation.id, version=1, approve=True, reason="")
        while Sandbox.objects.exclude(observed_phase="deleted").exists():
            time.sleep(0.2)


@contextlib.contextmanager
def _node(server: Server) -> Iterator[str]:
    from controlplane.clusters.drivers.local import LocalDriver
    from controlplane.clusters.node import node_command
    from controlplane.clusters.node.cgroups import find_tree, tree_label
    from controlplane.clusters.types import DriverError

    socket, state = server.sockets / "node.sock", server.folder / "node"
    command = node_command(socket=socket, state=state, gateway_socket=server.folder / "gate" / "web.sock")
    command[0] = sys.executable
    with (server.folder / "node.log").open("wb") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, env={**os.environ, "PYTHONPATH": str(ROOT / "platform")}
        )
    driver = LocalDriver(socket)
    try:
        for _ in range(1000):
            with contextlib.suppress(DriverError):
                yield str(driver.info().isolation.value)
                break
            time.sleep(0.02)
    finally:
        process.terminate()
        process.wait(30)
        if tree := find_tree(tree_label(Path(state))):
            tree.sweep()
            tree.remove()


@contextlib.contextmanager
def _worker() -> Iterator[None]:
    """What a worker does about sandboxes and proofs, every two seconds."""
    from django.db import connection

    from agents import tasks
    from controlplane.clusters.tasks import reconcile_all

    over = threading.Event()

    def work() -> None:
        while not over.is_set():
            reconcile_all()
            tasks.sweep()
            over.wait(2)
        connection.close()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


if __name__ == "__main__":
    print(json.dumps(main(), indent=2))
