"""A credential of the agent's own, in the settings of a stock MCP client: it acts for the agent's one mission under way
as the token of that mission's run does, also when it is replaced in the middle."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from agents import services
from agents.models import Mission, Run
from controlplane.audit.models import Entry
from controlplane.common.clock import now
from controlplane.tenancy.models import Token
from controlplane.tenancy.types import Principal
from governance import services as governance
from governance.approval_models import EscalationMessage
from governance.choices import ActionState
from governance.models import Action, Escalation

OWN = ["remit__action", "remit__answer", "remit__finish", "remit__mission", "remit__progress"]
LARGE = {"invoice": "INV-0200", "amount": "240.00"}


@pytest.fixture
def issue(owner: Principal, mission: Mission) -> Callable[[], tuple[Token, str]]:
    def one() -> tuple[Token, str]:
        return services.issue_credential(
            actor=owner, agent_id=mission.agent_id, name="Settings", expires_at=now() + timedelta(days=1)
        )

    return one


def approve(approver: Principal, action_id: str) -> None:
    row = Escalation.objects.get(action_id=action_id)
    governance.decide(approver=approver, escalation_id=row.pk, approve=True, version=row.version, reason="It is owed.")


def test_it_sees_what_its_mission_grants_and_turns_the_run_green(
    make_agent_client: Callable[..., Any], issue: Callable[[], tuple[Token, str]], mission: Mission
) -> None:
    client = make_agent_client(issue()[1])
    assert client.tools() == ["books__apply_credit", "books__overdue", *OWN]
    assert client.call("remit__mission").structured_content["id"] == str(mission.pk)
    assert Run.objects.get(mission=mission).first_call_at is not None


def test_a_call_that_people_agreed_to_is_carried_out_when_it_is_repeated_also_with_the_credential_that_replaced_it(
    make_agent_client: Callable[..., Any],
    issue: Callable[[], tuple[Token, str]],
    owner: Principal,
    approver: Principal,
    upstream: Any,
    mission: Mission,
) -> None:
    old, text = issue()
    asked = make_agent_client(text).call("books__apply_credit", LARGE).structured_content
    row = Escalation.objects.get(pk=asked["escalation"]["id"])
    governance.ask_agent(actor=approver, escalation_id=row.pk, text="Why so much?")
    client = make_agent_client(issue()[1])
    services.revoke_credential(actor=owner, agent_id=mission.agent_id, token_id=old.pk)
    told = client.call("remit__action", {"id": asked["id"], "wait": 0}).structured_content
    assert [question["text"] for question in told["questions"]] == ["Why so much?"]
    assert not client.call("remit__answer", {"id": asked["id"], "text": "Agreed in March."}).is_error
    assert EscalationMessage.objects.filter(escalation=row).count() == 2
    approve(approver, asked["id"])
    done = client.call("books__apply_credit", LARGE)
    assert not done.is_error
    assert json.loads(done.content[0].text) == LARGE
    assert done.meta["remit/action"] == asked["id"]
    assert upstream.calls == [("apply_credit", LARGE)]
    assert not client.call("remit__progress", {"position": 0, "state": "claimed"}).is_error
    assert not client.call("remit__finish", {"summary": "Credited."}).is_error
    mission.refresh_from_db()
    assert mission.outcome == "claimed"


def test_what_the_token_of_its_attempt_asked_for_it_answers_and_carries_out(
    make_agent_client: Callable[..., Any],
    agent: Any,
    issue: Callable[[], tuple[Token, str]],
    approver: Principal,
    upstream: Any,
) -> None:
    asked = agent.call("books__apply_credit", LARGE).structured_content
    row = Escalation.objects.get(pk=asked["escalation"]["id"])
    governance.ask_agent(actor=approver, escalation_id=row.pk, text="Why so much?")
    client = make_agent_client(issue()[1])
    told = client.call("remit__action", {"id": asked["id"], "wait": 0}).structured_content
    assert [question["open"] for question in told["questions"]] == [True]
    assert not client.call("remit__answer", {"id": asked["id"], "text": "Agreed in March."}).is_error
    approve(approver, asked["id"])
    for call in ({}, {"action": asked["id"]}):  # the second gets what came of the first
        assert client.call("books__apply_credit", LARGE, **call).meta["remit/action"] == asked["id"]
    assert upstream.calls == [("apply_credit", LARGE)]


@pytest.mark.parametrize("turned", [False, True], ids=["the run first", "the credential first"])
def test_the_same_call_by_the_token_of_its_attempt_is_the_same_action(
    make_agent_client: Callable[..., Any], agent: Any, issue: Callable[[], tuple[Token, str]], *, turned: bool
) -> None:
    clients = (make_agent_client(issue()[1]), agent) if turned else (agent, make_agent_client(issue()[1]))
    first, again = (client.call("books__apply_credit", LARGE).structured_content for client in clients)
    assert again == first
    assert Escalation.objects.count() == 1
    other = clients[1].call("books__apply_credit", LARGE, idempotency_key="another").structured_content
    assert other["id"] != first["id"]
    assert other["digest"] == first["digest"]  # so that one answer does for both


def test_people_and_the_trail_are_told_the_agents_name_and_not_what_its_credential_is_called(
    make_agent_client: Callable[..., Any], owner: Principal, mission: Mission
) -> None:
    _, text = services.issue_credential(
        actor=owner, agent_id=mission.agent_id, name="Bob", expires_at=now() + timedelta(days=1)
    )
    asked = make_agent_client(text).call("books__apply_credit", LARGE).structured_content
    assert Action.objects.get(pk=asked["id"]).proposer_name == "Clerk"
    told = Entry.objects.filter(subject_id=asked["id"])
    assert {(entry.actor_kind, entry.actor_name) for entry in told} == {("agent", "Clerk")}


def test_while_its_mission_is_paused_it_is_told_so(
    make_agent_client: Callable[..., Any],
    issue: Callable[[], tuple[Token, str]],
    owner: Principal,
    upstream: Any,
    mission: Mission,
) -> None:
    client = make_agent_client(issue()[1])
    services.pause_mission(actor=owner, mission_id=mission.pk, reason="Quarter end.")
    assert client.call("remit__mission").structured_content["state"] == "paused"
    assert client.call("books__overdue").structured_content["reason_code"] == "mission.not_active"
    assert upstream.calls == []


def test_without_a_mission_under_way_it_opens_nothing(
    make_agent_client: Callable[..., Any],
    issue: Callable[[], tuple[Token, str]],
    owner: Principal,
    upstream: Any,
    mission: Mission,
) -> None:
    client = make_agent_client(issue()[1])
    services.stop_mission(actor=owner, mission_id=mission.pk, reason="Enough.")
    assert client.tools() == OWN
    assert client.call("remit__mission").structured_content["reason_code"] == "mission.none"
    assert client.call("books__overdue").structured_content["reason_code"] == "mission.ambiguous"
    assert upstream.calls == []
    assert not Action.objects.filter(kind="tool.call").exists()


def test_who_waits_for_an_action_with_a_token_that_is_revoked_meanwhile_learns_nothing_more(
    agent: Any, owner: Principal, approver: Principal, mission: Mission
) -> None:
    asked = agent.call("books__apply_credit", LARGE).structured_content
    told: list[Any] = []
    waits = threading.Thread(target=lambda: told.append(agent.call("remit__action", {"id": asked["id"], "wait": 20})))
    began = time.monotonic()
    waits.start()
    time.sleep(1)
    services.issue_run_token(actor=owner, mission_id=mission.pk)  # the one before is dead
    row = Escalation.objects.get(pk=asked["escalation"]["id"])
    governance.ask_agent(actor=approver, escalation_id=row.pk, text="Not for a thief to read.")
    waits.join()
    assert time.monotonic() - began < 10
    assert told[0].is_error
    assert told[0].structured_content["reason_code"] == "token.revoked"
    assert "thief" not in str(told[0])
    assert Action.objects.get(pk=asked["id"]).state == ActionState.WAITING
