"""What benches of the served product share: an organisation with missions, Valkey, a web process on its own core."""

from __future__ import annotations

import http.client
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

from bench.server import ROOT

TOOL = "books__apply_credit"


def missions(count: int) -> list[str]:
    """An organisation with a registered tool and active missions with 100 grants each; the tokens of their runs."""
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
    for number in range(count):
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
def web(*, core: int) -> Iterator[tuple[int, int]]:
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


def processor_seconds(process: int) -> float:
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
def valkey() -> Iterator[None]:
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
