"""The gate over HTTP: decisions a second of one web worker pinned to one core, its clients on another.

`python bench/bench_http.py` prints one JSON object. BENCH_HTTP_SECONDS and BENCH_HTTP_CLIENTS change the effort;
BENCH_PROFILE=<file> writes a profile of the worker's request threads.
"""

from __future__ import annotations

import http.client
import json
import multiprocessing
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from decimal import Decimal
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.server import ROOT, ROUNDS, durable_server

SECONDS = float(os.environ.get("BENCH_HTTP_SECONDS", "6"))
CLIENTS = int(os.environ.get("BENCH_HTTP_CLIENTS", "10"))
PROCESSES = 2
MISSIONS = 64  # a run may make 200 proposals in ten seconds
TOOL = "books__apply_credit"
BUSY = -1.0


def main() -> dict[str, Any]:
    with durable_server(), _valkey():
        tokens = _prepare()
        cores = sorted(os.sched_getaffinity(0))
        with _web(core=cores[0]) as (port, process):
            os.sched_setaffinity(0, cores[1:] or cores)
            _load(port, tokens, seconds=3.0)  # connections, plans, compiled policies
            before = _processor_seconds(process)
            rounds = [_load(port, tokens, seconds=SECONDS) for _ in range(ROUNDS)]
            used = _processor_seconds(process) - before
    busy = sum(taken.count(BUSY) for taken in rounds)
    rounds = [[value for value in taken if value != BUSY] for taken in rounds]
    rate = statistics.median(len(taken) / SECONDS for taken in rounds)
    ordered = [sorted(taken) for taken in rounds]
    p50, p99 = (statistics.median(row[int(len(row) * share)] for row in ordered) for share in (0.5, 0.99))
    return {
        "bench": "http",
        "clients": CLIENTS,
        "seconds": SECONDS,
        "rounds": ROUNDS,
        "cores": len(cores),
        "load_average": os.getloadavg()[0],
        "answered_busy": busy,
        # What the machine's other work can't change: the worker's own processor time, and the rate that it would allow.
        "processor_milliseconds_per_decision": round(used * 1000 / sum(len(taken) for taken in rounds), 2),
        "milliseconds": {"p50": round(p50, 1), "p99": round(p99, 1)},
        "ratios": {"decisions_per_second": round(rate), "p99_milliseconds": round(p99, 1)},
        "goals": {"decisions_per_second": 350, "p99_milliseconds": 40},
    }


# The load -------------------------------------------------------------------------------------------------------------


def _load(port: int, tokens: list[str], *, seconds: float) -> list[float]:
    """Milliseconds of every decision, of CLIENTS connections kept alive in PROCESSES processes."""
    context = multiprocessing.get_context("spawn")
    shares = [tokens[number::PROCESSES] for number in range(PROCESSES)]
    pipes = [context.Pipe(duplex=False) for _ in shares]
    processes = []
    for number, (_, sender) in enumerate(pipes):
        clients = len(range(number, CLIENTS, PROCESSES))
        process = context.Process(target=_clients, args=(port, shares[number], clients, seconds, sender))
        process.start()
        processes.append(process)
    taken: list[float] = []
    for receiver, _ in pipes:
        answer = receiver.recv()
        if isinstance(answer, str):
            raise RuntimeError(answer)
        taken += answer
    for process in processes:
        process.join(10)
    return taken


def _clients(port: int, tokens: list[str], clients: int, seconds: float, results: Connection) -> None:
    import threading

    barrier = threading.Barrier(clients)
    taken: list[float] = []
    failed: list[str] = []

    def work(mine: list[str]) -> None:
        try:
            taken.extend(_one_client(port, mine, seconds, barrier))
        except Exception as error:
            failed.append(f"{type(error).__name__}: {error}")
            barrier.abort()

    threads = [threading.Thread(target=work, args=(tokens[n::clients],)) for n in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    results.send(failed[0] if failed else taken)


def _one_client(port: int, tokens: list[str], seconds: float, barrier: Any) -> list[float]:
    """Raw requests on one connection: what is measured is the server, not a client library."""
    taken: list[float] = []
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        count = 0
        barrier.wait(20)
        until = time.perf_counter() + seconds
        while time.perf_counter() < until:
            token = tokens[count % len(tokens)]
            arguments = {"invoice": f"INV-{count:04d}", "amount": "40.00"}
            body = json.dumps({"kind": "tool.call", "tool": TOOL, "arguments": arguments}).encode()
            head = (
                f"POST /api/v1/actions HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {token}\r\n"
                f"content-type: application/json\r\nidempotency-key: {uuid.uuid4().hex}\r\n"
                f"content-length: {len(body)}\r\n\r\n"
            ).encode()
            since = time.perf_counter()
            connection.sendall(head + body)
            answer = _answer(connection)
            count += 1
            if b'"code": "ledger.busy"' in answer:  # counts as not decided, and is named in the result
                taken.append(BUSY)
                continue
            taken.append((time.perf_counter() - since) * 1000)
            if not answer.startswith(b"HTTP/1.1 201") or b'"verdict": "allow"' not in answer:
                raise RuntimeError(answer[:600].decode(errors="replace"))
    return taken


def _answer(connection: socket.socket) -> bytes:
    answer = connection.recv(65536)
    head, _, body = answer.partition(b"\r\n\r\n")
    length = int(head.lower().split(b"content-length: ", 1)[1].split(b"\r\n", 1)[0])
    while len(body) < length:
        piece = connection.recv(65536)
        answer, body = answer + piece, body + piece
    return answer


# What is served -------------------------------------------------------------------------------------------------------


def _prepare() -> list[str]:
    """An organisation with a registered tool and missions with 100 grants each; the tokens of their runs."""
    import django

    django.setup()
    from django.core.management import call_command

    call_command("migrate", verbosity=0, skip_checks=True)
    from agents import services
    from agents.choices import Runtime, ServerState, ToolState, Transport
    from agents.grants import Grant
    from agents.models import McpServer, McpTool
    from agents.services.onboarding import Person, create_organisation
    from budgets.types import Limits
    from controlplane.common.clock import now
    from controlplane.tenancy import services as tenancy
    from controlplane.tenancy.models import Team, User
    from controlplane.tenancy.types import Role

    organisation = create_organisation(
        name="Northwind",
        currency="USD",
        monthly_limit=Limits(money=Decimal(10**6)),
        teams={"Receivables": Limits(money=Decimal(10**6))},
        people=(Person("nadia@northwind.example", "Nadia", (Role.ADMIN,), None),),
    )
    organisation.sign_off_above = Decimal(10**6)
    organisation.save(update_fields=["sign_off_above"])
    nadia = tenancy.principal_of_user(
        user=User.objects.get(email="nadia@northwind.example"), organisation_id=organisation.pk
    )
    assert nadia is not None
    team = Team.objects.get(organisation=organisation)
    server = McpServer.objects.create(
        organisation=organisation,
        name="Books",
        slug="books",
        transport=Transport.HTTP,
        state=ServerState.OK,
        created_by_id=nadia.user_id,
    )
    schema = {"type": "object", "properties": {"invoice": {"type": "string"}, "amount": {"type": "string"}}}
    McpTool.objects.create(
        server=server,
        name="apply_credit",
        qualified_name=TOOL,
        definition={"name": "apply_credit", "inputSchema": schema},
        definition_sha256="sha256:" + "5e" * 32,
        state=ToolState.ACTIVE,
    )
    grants = [Grant(TOOL, constraints={"amount": {"min": "0.01", "max": "100.00"}})]
    grants += [Grant(f"books__tool_{n}", constraints={"amount": {"max": f"{n}.00"}}) for n in range(99)]
    tokens = []
    for number in range(MISSIONS):
        agent = services.register_agent(actor=nadia, team_id=team.pk, name=f"Clerk {number}", runtime=Runtime.EXTERNAL)
        remit = services.Remit(
            goal="Every overdue invoice has a reminder.",
            criteria=["Reminders are written"],
            grants=grants,
            budget_money=Decimal(10_000),
            deadline=now() + timedelta(hours=8),
        )
        mission = services.draft_mission(actor=nadia, agent_id=agent.pk, title=f"Mission {number}", remit=remit)
        services.submit_mission(actor=nadia, mission_id=mission.pk)
        mission.refresh_from_db()
        if mission.state != "active":
            raise RuntimeError(mission.state_reason)
        tokens.append(services.issue_run_token(actor=nadia, mission_id=mission.pk))
    from django.db import connection, connections

    with connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE")
    connections.close_all()
    return tokens


@contextmanager
def _web(*, core: int) -> Iterator[tuple[int, int]]:
    """The product's own web process on a free port, pinned to one core."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, str(ROOT / "manage.py"), "web", "--port", str(port), "--no-gateway-socket"]
    if profile := os.environ.get("BENCH_PROFILE"):
        command = [sys.executable, str(Path(__file__).with_name("profiled.py")), profile, *command[1:]]
    log = tempfile.TemporaryFile()  # noqa: SIM115
    process = subprocess.Popen(
        command, stdout=log, stderr=log, env={**os.environ, "REMIT_LOG_LEVEL": "WARNING"},
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),
    )  # fmt: skip
    try:
        _wait_ready(process, port)
        yield port, process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)
        log.close()


def _processor_seconds(process: int) -> float:
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _wait_ready(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError("the web process ended")
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", "/healthz")
            if connection.getresponse().status == 200:
                return
        except OSError:
            time.sleep(0.1)
        finally:
            connection.close()
    raise RuntimeError("the web process did not come up")


@contextmanager
def _valkey() -> Iterator[None]:
    """Live hints are sent as in the product, so a server to send them to is part of the bench."""
    from controlplane.embedded.child import Child
    from controlplane.embedded.state import StateFolder
    from controlplane.embedded.valkey import Valkey

    folder = Path(tempfile.mkdtemp(prefix="remit-bench-"))
    state = StateFolder(folder)
    state.open()
    valkey = Valkey(state)
    child = Child(valkey)
    try:
        child.start()
        child.wait_ready(seconds=30)
        os.environ["REDIS_URL"] = valkey.url
        yield
    finally:
        child.stop()
        state.close()
        shutil.rmtree(folder, ignore_errors=True)
        if state.sockets.exists():
            shutil.rmtree(state.sockets, ignore_errors=True)


if __name__ == "__main__":
    print(json.dumps(main()))
