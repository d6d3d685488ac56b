"""Runs inside the installation, as its people would act: one JSON line in (what, with which arguments), one out."""

from __future__ import annotations

import io
import json
import sys
import traceback
import uuid
from collections.abc import Sequence
from datetime import timedelta
from decimal import Decimal
from typing import Any

from django.core.management import call_command
from django.db import close_old_connections

from agents import services
from agents.catalogue import demo
from agents.catalogue.receivables import RECEIVABLES
from agents.catalogue.templates import start_from_template
from agents.choices import Runtime, Transport
from agents.grants import Grant
from agents.models import McpServer, Mission
from agents.servers import services as servers
from agents.servers.types import MountRequest
from controlplane.clusters.types import MIB, Resources
from controlplane.common.clock import now
from controlplane.tenancy.models import Organisation, Team
from controlplane.tenancy.types import Principal
from governance import services as governance
from governance.models import Escalation

DIARY = MountRequest("missions/{mission}/diary", "/data", writable=True)
PROGRAMS = MountRequest("data/programs", "/srv")
HOSTILE = ("echo", "hang", "flood", "die", "garbage", "wrong_id")


def command(*arguments: str) -> str:
    """What `manage.py` prints."""
    printed = io.StringIO()
    call_command(*arguments, stdout=printed)
    return printed.getvalue()


def register_servers() -> list[str]:
    """The diary and the hostile server; what was wrong with each."""
    commands = {"diary": ("/srv/diary.py",), "hostile": ("/srv/hostile.py", "2025-11-25", "/data/diary")}
    return [_register(slug, command) for slug, command in commands.items()]


def register_samples() -> None:
    organisation = _organisation()
    for need in RECEIVABLES.servers:
        if not McpServer.objects.filter(organisation=organisation, slug=need.slug).exists():
            demo.register_need(_nadia(), need)


def make_missions(count: int) -> list[tuple[str, str]]:
    """(mission, token of its run) of active missions whose agents run elsewhere."""
    grants = [Grant("diary__write"), *(Grant(f"hostile__{name}") for name in HOSTILE)]
    grants.append(Grant("hostile__slow", effect="escalate"))
    made = []
    for _ in range(count):
        mission = _start(f"Diarist {uuid.uuid4().hex[:8]}", Runtime.EXTERNAL, grants=grants)
        made.append((str(mission.pk), services.issue_run_token(actor=_nadia(), mission_id=mission.pk)))
    return made


def start_program(program: Sequence[str], memory_mebibytes: int) -> str:
    """An active mission whose agent is a command in a sandbox."""
    resources = Resources(memory_bytes=memory_mebibytes * MIB)
    name = f"Program {uuid.uuid4().hex[:8]}"
    return str(_start(name, Runtime.MANAGED, command=program, resources=resources).pk)


def start_receivables() -> str:
    mission = start_from_template(actor=_nadia(), team_id=_team().pk, code="receivables", values={})
    services.submit_mission(actor=_nadia(), mission_id=mission.pk)
    return str(mission.pk)


def stop_mission(mission: str) -> None:
    services.stop_mission(actor=_nadia(), mission_id=uuid.UUID(mission), reason="The test is over.")


def approve(action: str) -> None:
    """Dana agrees."""
    dana = demo.principal_of(demo.DANA, _organisation())
    asked = Escalation.objects.get(action_id=action)
    governance.decide(approver=dana, escalation_id=asked.pk, approve=True, version=asked.version, reason="It is owed.")


def reconcile(actions: Sequence[str], outcome: str) -> None:
    """Nadia looked for herself what came of these unknown actions."""
    for action in actions:
        governance.reconcile(actor=_nadia(), action_id=uuid.UUID(action), outcome=outcome, reason="I read the diary.")


def _register(slug: str, program: Sequence[str]) -> str:
    server = servers.register_server(
        actor=_nadia(),
        name=slug,
        slug=slug,
        transport=Transport.STDIO,
        environment="books",
        command=program,
        mounts=(PROGRAMS, DIARY),
    )
    return servers.refresh_tools(actor=_nadia(), server_id=server.pk).fault


def _start(name: str, runtime: Runtime, *, grants: Sequence[Grant] = (), **version: Any) -> Mission:
    agent = services.register_agent(actor=_nadia(), team_id=_team().pk, name=name, runtime=runtime, **version)
    remit = services.Remit(
        goal="Write every line once.",
        criteria=["Every line is written"],
        grants=grants,
        budget_money=Decimal(3),
        budget_steps=5000,
        deadline=now() + timedelta(hours=2),
    )
    mission = services.draft_mission(actor=_nadia(), agent_id=agent.pk, title="Keep a diary", remit=remit)
    services.submit_mission(actor=_nadia(), mission_id=mission.pk)
    return mission


def _organisation() -> Organisation:
    return Organisation.objects.get(slug="northwind")


def _team() -> Team:
    return Team.objects.get(organisation=_organisation(), name=demo.TEAM)


def _nadia() -> Principal:
    return demo.principal_of(demo.NADIA, _organisation())


KNOWN = {
    function.__name__: function
    for function in (
        command, register_servers, register_samples, make_missions, start_program, start_receivables, stop_mission,
        approve, reconcile,
    )
}  # fmt: skip


def serve() -> None:
    answers, sys.stdout = sys.stdout, sys.stderr
    for line in sys.stdin:
        name, arguments = json.loads(line)
        close_old_connections()
        try:
            answer = {"result": KNOWN[name](*arguments)}
        except BaseException:
            answer = {"failure": traceback.format_exc()[-3000:]}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    serve()
