"""The gate in process against pgbench's TPC-B on the same server in the same run: policy, five-level hold, decision,
audit, permit and live hints.

`python bench/bench_gate.py` prints one JSON object. BENCH_SECONDS, BENCH_ROUNDS, BENCH_CLIENTS, BENCH_SCALE change the
effort; BENCH_POLICIES the size of the mission's policy set.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import threading
import time
import uuid
from decimal import Decimal
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.installation import valkey
from bench.server import CLIENTS, ROUNDS, SCALE, SECONDS, durable_server

MISSIONS = 64
POLICIES = int(os.environ.get("BENCH_POLICIES", "100"))
TOOL = "books__apply_credit"


def main() -> dict[str, Any]:
    with durable_server() as server, valkey():
        runs = _prepare()
        server.initialise_tpcb()
        _analyse()
        _decide_for(1, runs)  # connections, plans, compiled policies
        rounds = []
        for _ in range(ROUNDS):
            tpcb = server.rate()
            rounds.append((tpcb, *_decide_for(SECONDS, runs)))
        cedar = _cedar_share()
    tpcb = statistics.median(row[0] for row in rounds)
    rate = statistics.median(row[1] for row in rounds)
    return {
        "bench": "gate",
        "clients": CLIENTS,
        "seconds": SECONDS,
        "rounds": ROUNDS,
        "tpcb_scale": SCALE,
        "policies": POLICIES,
        "load_average": os.getloadavg()[0],
        "per_second": {"tpcb": round(tpcb), "gate": round(rate)},
        "milliseconds": {
            "p50": round(statistics.median(row[2] for row in rounds), 2),
            "p99": round(statistics.median(row[3] for row in rounds), 2),
        },
        "cedar_microseconds": cedar,
        "ratios": {
            "gate_vs_tpcb": round(rate / tpcb, 2),
            "policy_stage_vs_bare_cedar": round(cedar["stage"] / cedar["bare"], 2),
        },
        "goals": {"gate_vs_tpcb": 0.3, "policy_stage_vs_bare_cedar": 1.15, "p99_milliseconds": 10},
    }


def _decide_for(seconds: float, runs: list[Any]) -> tuple[float, float, float]:
    """Decisions a second, p50 and p99 in milliseconds, of CLIENTS threads, each with its share of the missions."""
    from django.db import connection

    from controlplane.common.errors import RemitError
    from governance import services
    from governance.choices import Verdict
    from governance.types import Proposal

    latencies: list[list[float]] = []
    busy: list[str] = []
    until = time.perf_counter() + seconds

    def work(number: int) -> None:
        mine = runs[number::CLIENTS]
        taken: list[float] = []
        count = 0
        while (since := time.perf_counter()) < until:
            proposal = Proposal(
                kind="bench.call",
                tool=TOOL,
                arguments={"invoice": f"INV-{count:04d}", "amount": "40.00", "note": "overdue since March"},
                justification="The customer was promised this credit.",
                idempotency_key=uuid.uuid4().hex,
            )
            try:
                judgement = services.propose(proposer=mine[count % len(mine)], proposal=proposal)
            except RemitError as error:
                if error.retry_after_seconds is None and error.status != 503:
                    raise
                busy.append(error.code)  # told to come back: counts as no decision, and its time is lost
                continue
            if judgement.verdict is not Verdict.ALLOW:
                raise RuntimeError(judgement.message)
            taken.append((time.perf_counter() - since) * 1000)
            count += 1
        latencies.append(taken)
        connection.close()

    started = time.perf_counter()
    threads = [threading.Thread(target=work, args=(number,)) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    everything = sorted(value for taken in latencies for value in taken)
    if len(latencies) != CLIENTS:
        raise RuntimeError("a client failed")
    elapsed = time.perf_counter() - started
    return len(everything) / elapsed, everything[len(everything) // 2], everything[int(len(everything) * 0.99)]


def _cedar_share(number: int = 3000) -> dict[str, float]:
    """The policy stage against the same question put to bare cedarpy, every handle made beforehand; medians."""
    import cedarpy

    from governance import policy
    from governance.bundles import active_bundle

    kind = _Kind()
    prepared = kind.prepare_for(uuid.uuid4(), {"amount": "40.00"}, None)
    bundle = active_bundle(uuid.uuid4())
    assert bundle is not None
    compiled = bundle.compiled(prepared.grants)
    facts = policy.Facts("tool.call", prepared.principal_entity, prepared.resource_entity, prepared.context)
    everything = cedarpy.PolicySet.from_json_str(
        json.dumps({"staticPolicies": compiled.sources, "templates": {}, "templateLinks": []})
    )
    entities = cedarpy.Entities.from_json_str(json.dumps([facts.principal, facts.resource]), compiled.schema)
    request = {
        "principal": facts.principal["uid"],
        "action": {"type": "Action", "id": "tool.call"},
        "resource": facts.resource["uid"],
        "context": {**facts.context, "approved": []},
    }
    times: dict[str, list[int]] = {"bare": [], "stage": []}
    for _ in range(number):
        since = time.perf_counter_ns()
        cedarpy.is_authorized(request, everything, entities, compiled.schema)
        between = time.perf_counter_ns()
        policy.ask(bundle.compiled(prepared.grants), facts, approved=frozenset(), denial=None)
        times["bare"].append(between - since)
        times["stage"].append(time.perf_counter_ns() - between)
    return {name: round(statistics.median(values) / 1000, 1) for name, values in times.items()}


class _Kind:
    """A tool call whose facts are at hand: the bench is of the gate, not of the query that gathers them."""

    code = "bench.call"
    label = "Bench"
    cedar_action = "tool.call"
    accounts: dict[uuid.UUID, uuid.UUID] = {}
    grants: Any = None

    def prepare(self, *, proposer: Any, proposal: Any) -> Any:
        return self.prepare_for(proposer.team_id, proposal.arguments, proposer)

    def prepare_for(self, team_id: uuid.UUID, arguments: Any, proposer: Any) -> Any:
        from agents.grants import Grant, argument_facts, compile_grants
        from governance.types import BudgetRequest, Prepared

        if _Kind.grants is None:
            mine = [Grant(tool=TOOL, constraints={"amount": {"max": "100.00"}})]
            others = [
                Grant(tool=f"books__tool_{n}", constraints={"amount": {"max": f"{n}.00"}}) for n in range(POLICIES - 1)
            ]
            _Kind.grants = (mine, compile_grants(version_id=uuid.UUID(int=1), grants=[*mine, *others]))
        mine, compiled = _Kind.grants
        agent_id = proposer.agent_id if proposer else team_id
        return Prepared(
            team_id=team_id,
            title=TOOL,
            envelope={"agent": str(agent_id), "mission": "mission@1", "definition": "sha256:00"},
            principal_entity={
                "uid": {"type": "Agent", "id": str(agent_id)},
                "attrs": {"team": "receivables", "runtime": "managed"},
                "parents": [],
            },
            resource_entity={
                "uid": {"type": "Tool", "id": TOOL},
                "attrs": {"server": "books", "read_only": False, "reversible": True, "approved": True},
                "parents": [],
            },
            context={
                "args": argument_facts(tool=TOOL, arguments=arguments, grants=mine),
                "calls": 0,
                "importance": "normal",
                "mission_active": True,
            },
            grants=compiled,
            guards_saw="mission active, run running, 3 calls in 10 s",
            budget=BudgetRequest(
                account_id=self.accounts[proposer.mission_id],
                money=Decimal("0.01"),
                currency="USD",
                signature=uuid.uuid4().bytes,
            )
            if proposer
            else None,
            agent_id=agent_id,
            mission_id=proposer.mission_id if proposer else None,
            mission_version=1,
            run_id=proposer.run_id if proposer else None,
            effects=("books.write",),
        )

    def lock(self, **_: Any) -> None:
        pass

    def on_decided(self, **_: Any) -> None:
        pass


def _prepare() -> list[Any]:
    """One organisation, 2 teams, 4 projects, 8 agents, 64 missions with a run each: every hold passes five levels."""
    import django

    django.setup()
    from django.core.management import call_command

    call_command("migrate", verbosity=0, skip_checks=True)
    from controlplane.common.ids import new_id
    from controlplane.tenancy.models import Organisation, Team
    from controlplane.tenancy.types import Principal, PrincipalKind
    from governance.registry import register_kind

    organisation = Organisation.objects.create(name="Northwind", slug="northwind")
    team = Team.objects.create(organisation=organisation, name="Receivables", slug="receivables")
    levels = [_open(organisation.pk, None, "organisation", 0)]
    for level, number in (("other", 2), ("other", 4), ("agent", 8), ("mission", MISSIONS)):
        levels = [_open(organisation.pk, levels[index % len(levels)], level, index) for index in range(number)]
    agents = [new_id() for _ in range(8)]
    runs = []
    for index, account in enumerate(levels):
        mission_id = new_id()
        _Kind.accounts[mission_id] = account
        runs.append(
            Principal(
                kind=PrincipalKind.RUN,
                id=new_id(),
                name="clerk",
                organisation_id=organisation.pk,
                team_id=team.pk,
                agent_id=agents[index % 8],
                mission_id=mission_id,
                run_id=new_id(),
            )
        )
    register_kind(_Kind())
    return runs


def _open(organisation_id: uuid.UUID, parent_id: uuid.UUID | None, level: str, index: int) -> uuid.UUID:
    from budgets import services
    from budgets.types import Level, Limits, WindowKind
    from controlplane.tenancy.types import system_principal

    return services.open_account(
        actor=system_principal(organisation_id=organisation_id),
        organisation_id=organisation_id,
        team_id=None,
        parent_id=parent_id,
        level=Level(level),
        name=f"{level} {index}",
        limits=Limits(money=Decimal(10**9), tokens=10**14, steps=10**14),
        window=WindowKind.TOTAL,
    )


def _analyse() -> None:
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE")


if __name__ == "__main__":
    print(json.dumps(main()))
