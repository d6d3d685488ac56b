"""One tools/call through `/mcp` against the same call to the same server directly, by the same stock client in turns.

`python bench/bench_mcp.py` prints one JSON object. BENCH_CALLS sets the number of calls of each kind. The upstream is a
stock streamable HTTP server in a process of its own, as is the gateway; the client waits for each answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.installation import valkey
from bench.server import ROOT, durable_server

CALLS = int(os.environ.get("BENCH_CALLS", "400"))
WARM_UP = 30
MISSIONS = 10  # a run may make 200 proposals in ten seconds; the calls are spread over several
UPSTREAM = """
import sys, uvicorn
from mcp.server import MCPServer
server = MCPServer("bench")
@server.tool()
def credit(invoice: str, amount: str, reason: str) -> dict:
    "Credit an amount on an invoice."
    return {"invoice": invoice, "amount": amount, "booked": True}
app = server.streamable_http_app(stateless_http=True, json_response=True)
uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
"""


def main() -> dict[str, Any]:
    os.environ["REMIT_MCP_ALLOW_LOOPBACK"] = "1"
    with durable_server(), valkey(), _process(["-c", UPSTREAM], "/mcp") as upstream:
        tokens = _prepare(f"{upstream}/mcp")
        environment = {"REMIT_LOG_LEVEL": "WARNING", "PYTHONPATH": f"{ROOT}:{ROOT / 'platform'}"}
        web = [
            "-m",
            "uvicorn",
            "controlplane.asgi:application",
            "--host",
            "127.0.0.1",
            "--log-level",
            "warning",
            "--no-access-log",
        ]
        with _process(web, "/mcp", environment, port_option="--port") as gateway:
            results = {
                mode: asyncio.run(_measure(f"{upstream}/mcp", f"{gateway}/mcp", tokens, mode))
                for mode in ("auto", "legacy")
            }
    auto = results["auto"]
    return {
        "bench": "mcp",
        "calls": CALLS,
        "load_average": os.getloadavg()[0],
        "milliseconds": {
            "client of 2026-07-28": auto,
            "client of 2025-11-25": results["legacy"],
        },
        "ratios": {"overhead_p50_milliseconds": round(auto["through_p50"] - auto["direct_p50"], 2)},
        "goals": {"overhead_p50_milliseconds": "at most 8"},
    }


async def _measure(direct_url: str, gateway_url: str, tokens: list[str], mode: str) -> dict[str, float]:
    direct: list[float] = []
    through: list[float] = []
    async with contextlib.AsyncExitStack() as stack:
        plain = await stack.enter_async_context(_client(direct_url, "", mode))
        governed = [await stack.enter_async_context(_client(gateway_url, token, mode)) for token in tokens]
        for number in range(CALLS + WARM_UP):
            arguments = {"invoice": f"INV-{number:04d}", "amount": "1.00", "reason": f"bench {mode}"}
            taken = (
                await _timed(plain, "credit", arguments),
                await _timed(governed[number % len(governed)], "bench__credit", arguments),
            )
            if number >= WARM_UP:
                direct.append(taken[0])
                through.append(taken[1])
    return {
        "direct_p50": round(statistics.median(direct), 2),
        "direct_p99": round(sorted(direct)[int(len(direct) * 0.99)], 2),
        "through_p50": round(statistics.median(through), 2),
        "through_p99": round(sorted(through)[int(len(through) * 0.99)], 2),
    }


async def _timed(client: Any, tool: str, arguments: dict[str, Any]) -> float:
    since = time.perf_counter()
    result = await client.call_tool(tool, arguments)
    taken = (time.perf_counter() - since) * 1000
    if result.is_error:
        raise RuntimeError(f"{tool}: {result.content[0].text}")
    return taken


@contextlib.asynccontextmanager
async def _client(url: str, token: str, mode: str) -> AsyncIterator[Any]:
    import httpx2
    from mcp import Client
    from mcp.client.streamable_http import streamable_http_client

    headers = {"Authorization": f"Bearer {token}"} if token else {}
    async with (
        httpx2.AsyncClient(headers=headers, timeout=30, trust_env=False) as http,
        Client(streamable_http_client(url, http_client=http), mode=mode) as client,
    ):
        yield client


def _prepare(upstream_url: str) -> list[str]:
    """An organisation with the server registered and one token for each of MISSIONS missions."""
    import django

    django.setup()
    from django.core.management import call_command

    call_command("migrate", verbosity=0, skip_checks=True)
    from agents import services
    from agents.choices import Runtime, Transport
    from agents.grants import Grant
    from agents.servers import services as registry
    from agents.services.onboarding import Person, create_organisation
    from budgets.types import Limits
    from controlplane.common.clock import now
    from controlplane.tenancy.models import Team, User
    from controlplane.tenancy.services import principal_of_user
    from controlplane.tenancy.types import Role

    organisation = create_organisation(
        name="Northwind",
        currency="USD",
        monthly_limit=Limits(money=Decimal(100_000)),
        teams={"Finance": Limits(money=Decimal(50_000))},
        people=(Person("nadia@northwind.example", "Nadia", (Role.ADMIN,), None),),
    )
    nadia = principal_of_user(user=User.objects.get(email="nadia@northwind.example"), organisation_id=organisation.pk)
    assert nadia is not None
    row = registry.register_server(actor=nadia, name="Bench", slug="bench", transport=Transport.HTTP, url=upstream_url)
    refreshed = registry.refresh_tools(actor=nadia, server_id=row.pk)
    if refreshed.fault:
        raise RuntimeError(refreshed.fault)
    team = Team.objects.get(organisation=organisation)
    remit = services.Remit(
        goal="Credit what is owed.",
        criteria=["Credits are given"],
        grants=[Grant("bench__credit", constraints={"amount": {"max": "100.00"}})],
        budget_money=Decimal("5.00"),
        budget_steps=1_000_000,
        deadline=now() + timedelta(hours=8),
    )
    tokens = []
    for number in range(MISSIONS):
        agent = services.register_agent(actor=nadia, team_id=team.pk, name=f"Clerk {number}", runtime=Runtime.EXTERNAL)
        mission = services.draft_mission(actor=nadia, agent_id=agent.pk, title="Bench", remit=remit)
        services.submit_mission(actor=nadia, mission_id=mission.pk)
        tokens.append(services.issue_run_token(actor=nadia, mission_id=mission.pk))
    return tokens


@contextlib.contextmanager
def _process(
    arguments: list[str], path: str, environment: dict[str, str] | None = None, port_option: str = ""
) -> Iterator[str]:
    """A server in a process of its own on a free loopback port; its address once it answers at `path`."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, *arguments, *([port_option] if port_option else []), str(port)]
    process = subprocess.Popen(command, env={**os.environ, **(environment or {})}, stdout=sys.stderr, cwd=ROOT)
    address = f"http://127.0.0.1:{port}"
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + 60
    try:
        while True:
            try:
                opener.open(urllib.request.Request(address + path, data=b"{}", method="POST"), timeout=2)
                break
            except urllib.error.HTTPError:
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"{' '.join(command[:4])} did not start") from None
                time.sleep(0.1)
        yield address
    finally:
        process.terminate()
        process.wait(20)


if __name__ == "__main__":
    print(json.dumps(main()))
