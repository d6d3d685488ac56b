"""What changes between the reading of the facts and the commit is judged, never overlooked: the call does not start."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import pytest
from django.db import connection, transaction

from agents import services as agents
from agents.choices import AgentState, MissionState, RunState, ServerState, StopScope, ToolState, Transport
from agents.kinds.tool_call import ToolCall
from agents.models import Agent, McpServer, McpTool, Mission, MissionVersion, Run
from budgets.models import Hold
from budgets.services import open_account
from budgets.types import Level, Limits, WindowKind
from controlplane.common.clock import now
from controlplane.common.errors import RemitError
from controlplane.tenancy.models import Token, User
from controlplane.tenancy.types import Principal, system_principal
from governance import services
from governance.bundles import forget
from governance.choices import ActionState, Verdict
from governance.models import Action
from governance.types import Prepared, Proposal

pytestmark = pytest.mark.django_db(transaction=True)
TOOL = "books__apply_credit"


@pytest.fixture
def mission(make_mission: Callable[..., Mission], alice: User, northwind: Any) -> Mission:
    services.ensure_baseline()
    forget()
    server = McpServer.objects.create(
        organisation=northwind,
        name="Books",
        slug="books",
        transport=Transport.STDIO,
        state=ServerState.OK,
        created_by=alice,
    )
    McpTool.objects.create(
        server=server,
        name="apply_credit",
        qualified_name=TOOL,
        definition={"name": "apply_credit", "inputSchema": {"type": "object"}},
        definition_sha256="sha256:aa",
    )
    row = make_mission(grants=[{"tool": TOOL, "effect": "allow", "constraints": {}}])
    row.account_id = open_account(
        actor=system_principal(organisation_id=row.organisation_id),
        organisation_id=row.organisation_id,
        team_id=row.team_id,
        parent_id=None,
        level=Level.MISSION,
        name="Mission",
        limits=Limits(money=Decimal(5), tokens=None, steps=10),
        window=WindowKind.TOTAL,
    )
    row.save(update_fields=["account_id"])
    return row


def pause(mission: Mission) -> None:
    Mission.objects.filter(pk=mission.pk).update(state=MissionState.PAUSED, state_reason="Paused by Alice")


def narrow(mission: Mission) -> None:
    version = MissionVersion.objects.get(mission=mission, number=mission.version)
    version.pk, version.number, version.grants = None, version.number + 1, []
    version.save(force_insert=True)
    Mission.objects.filter(pk=mission.pk).update(version=version.number)


def quarantine(_: Mission) -> None:
    McpTool.objects.update(state=ToolState.QUARANTINED)


def redefine(_: Mission) -> None:
    McpTool.objects.update(definition_sha256="sha256:bb", state=ToolState.QUARANTINED)


def switch_off(_: Mission) -> None:
    McpServer.objects.update(state=ServerState.DISABLED)


def retire(mission: Mission) -> None:
    Agent.objects.filter(pk=mission.agent_id).update(state=AgentState.RETIRED)


def end_the_run(mission: Mission) -> None:
    Run.objects.filter(mission=mission).update(state=RunState.STOPPED)


def revoke(_: Mission) -> None:
    Token.objects.update(revoked_at=now())


CHANGES = [pause, narrow, quarantine, redefine, switch_off, retire, end_the_run]


@pytest.fixture
def meanwhile(monkeypatch: pytest.MonkeyPatch, mission: Mission) -> Callable[[Callable[[Mission], None]], None]:
    """Makes a change on another connection right after the facts were read, once."""
    read = ToolCall.prepare

    def arrange(change: Callable[[Mission], None]) -> None:
        waiting = [change]

        def prepare(kind: ToolCall, *, proposer: Principal, proposal: Proposal) -> Prepared:
            prepared = read(kind, proposer=proposer, proposal=proposal)
            if waiting:
                with ThreadPoolExecutor(1) as pool:
                    pool.submit(_on_its_own_connection, waiting.pop(), mission).result(20)
            return prepared

        monkeypatch.setattr(ToolCall, "prepare", prepare)

    return arrange


def _on_its_own_connection(change: Callable[[Mission], None], mission: Mission) -> None:
    try:
        change(mission)
    finally:
        connection.close()


@pytest.mark.parametrize("change", CHANGES)
def test_a_call_that_would_start_at_once_is_judged_by_what_holds_at_its_commit(
    change: Any, meanwhile: Any, as_run: Principal
) -> None:
    meanwhile(change)
    judgement = services.propose_and_start(proposer=as_run, proposal=_proposal())
    assert judgement.verdict is Verdict.DENY
    assert judgement.started is None
    assert list(Action.objects.values_list("state", flat=True)) == [ActionState.DENIED]
    assert not Hold.objects.exists()


def test_a_token_revoked_between_its_recognition_and_the_commit_starts_nothing(
    meanwhile: Any, as_run: Principal
) -> None:
    for propose in (services.propose, services.propose_and_start):
        Token.objects.update(revoked_at=None)
        meanwhile(revoke)
        with pytest.raises(RemitError, match=r"token\.revoked"):
            propose(proposer=as_run, proposal=_proposal())
    assert not Action.objects.exists()
    assert not Hold.objects.exists()


@pytest.mark.parametrize("change", [*CHANGES, revoke])
def test_a_permit_is_used_by_what_holds_at_that_moment(change: Any, meanwhile: Any, as_run: Principal) -> None:
    judgement = services.propose(proposer=as_run, proposal=_proposal())
    assert judgement.permit is not None
    meanwhile(change)
    with pytest.raises(RemitError):
        services.redeem(
            holder=as_run, action_id=judgement.action_id, audience="mcp", permit_token=judgement.permit.token
        )
    action = Action.objects.get()
    assert action.state == ActionState.DENIED
    assert action.executing_at is None
    assert Hold.objects.get().state == "voided"


def test_a_call_that_waited_for_the_stop_of_its_run_does_not_start(
    mission: Mission, as_run: Principal, as_nadia: Principal
) -> None:
    stopped = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        stopping = pool.submit(
            _on_its_own_connection, lambda _: _stop_until_somebody_waits(as_nadia, as_run, stopped), mission
        )
        assert stopped.wait(20)
        judgement = services.propose_and_start(proposer=as_run, proposal=_proposal())
        stopping.result(20)
    assert Run.objects.get(pk=as_run.run_id).state == RunState.STOPPED
    assert (judgement.verdict, judgement.reason_code) == (Verdict.DENY, "run.ended")
    assert judgement.started is None
    assert not Hold.objects.exists()


def _stop_until_somebody_waits(actor: Principal, run: Principal, stopped: threading.Event) -> None:
    assert run.run_id is not None
    with transaction.atomic():
        agents.stop(actor=actor, scope=StopScope.RUN, scope_id=run.run_id, reason="Look first")
        stopped.set()
        until = time.monotonic() + 15
        with connection.cursor() as cursor:
            while time.monotonic() < until:
                cursor.execute("SELECT count(*) FROM pg_locks WHERE NOT granted")
                if cursor.fetchone()[0]:
                    return
                time.sleep(0.02)
    raise AssertionError("nobody waited")


def _proposal() -> Proposal:
    return Proposal(kind="tool.call", tool=TOOL, arguments={"amount": "40.00"}, audience="mcp")
