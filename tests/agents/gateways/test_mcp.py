"""A stock MCP client with a run's token: what it sees, what goes through, what is refused, what waits for a person."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from agents import services
from agents.choices import ServerState
from agents.gateways.threads import in_thread
from agents.models import McpServer, McpTool, Mission, Run
from budgets.models import Hold
from controlplane.audit.models import Entry
from controlplane.common.clock import now
from controlplane.tenancy import credentials
from controlplane.tenancy.models import User
from controlplane.tenancy.types import Principal
from governance import services as governance
from governance.choices import ActionState
from governance.models import Action, Escalation

OWN = ["remit__action", "remit__answer", "remit__finish", "remit__mission", "remit__progress"]
SMALL = {"invoice": "INV-0113", "amount": "40.00"}
LARGE = {"invoice": "INV-0200", "amount": "240.00"}


def approve(approver: Principal, action_id: str) -> None:
    escalation = Escalation.objects.get(action_id=action_id)
    governance.decide(
        approver=approver, escalation_id=escalation.pk, approve=True, version=escalation.version, reason="It is owed."
    )


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_only_granted_tools_are_listed_in_one_order(
    make_agent_client: Callable[..., Any], token: str, mode: str
) -> None:
    agent = make_agent_client(token, mode)
    assert agent.tools() == ["books__apply_credit", "books__overdue", *OWN]


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_a_granted_call_goes_through_and_its_outcome_is_recorded(
    make_agent_client: Callable[..., Any], token: str, upstream: Any, mission: Mission, mode: str
) -> None:
    result = make_agent_client(token, mode).call("books__apply_credit", SMALL)
    assert not result.is_error
    assert json.loads(result.content[0].text) == SMALL
    assert upstream.calls == [("apply_credit", SMALL)]
    action = Action.objects.get(mission_id=mission.pk, kind="tool.call")
    assert action.state == ActionState.SUCCEEDED
    assert action.outcome is not None
    assert action.outcome["result_sha256"].startswith("sha256:")
    assert result.meta["remit/source"] == {"server": "books", "tool": "apply_credit", "trust": "untrusted"}
    assert result.meta["remit/action"] == str(action.pk)
    events = set(Entry.objects.filter(subject_id=action.pk).values_list("event", flat=True))
    assert {"action.allowed", "permit.consumed", "action.succeeded"} <= events


def test_the_first_call_turns_the_run_green(agent: Any, mission: Mission) -> None:
    assert Run.objects.get(mission=mission).first_call_at is None
    agent.tools()
    assert Run.objects.get(mission=mission).first_call_at is not None


@pytest.mark.parametrize("tool", ["books__delete_everything", "books__nothing", "nowhere__tool"])
def test_what_is_not_granted_is_refused_and_recorded_but_never_sent(
    agent: Any, upstream: Any, mission: Mission, tool: str
) -> None:
    result = agent.call(tool, {})
    said = result.structured_content
    assert result.is_error
    assert (said["verdict"], said["reason_code"], said["permit"]) == ("deny", "grant.missing", None)
    assert said["remedies"]
    assert upstream.calls == []
    action = Action.objects.get(pk=said["id"])
    assert (action.state, action.tool, action.mission_id) == (ActionState.DENIED, tool, mission.pk)


def test_a_call_of_a_server_whose_tools_were_never_read_is_told_so_and_what_to_do(
    agent: Any, upstream: Any, books: McpServer
) -> None:
    McpTool.objects.all().delete()
    McpServer.objects.filter(pk=books.pk).update(state=ServerState.UNREACHABLE, protocol_version="")
    said = agent.call("books__overdue", {}).structured_content
    assert (said["verdict"], said["reason_code"]) == ("deny", "server.unread")
    assert said["message"].endswith("The server of books__overdue is registered, and its tools could not be read yet.")
    assert "Read its tools” on the page of the server “Books”" in said["remedies"][0]

    McpServer.objects.filter(pk=books.pk).update(state=ServerState.OK, protocol_version="2025-11-25")
    said = agent.call("books__overdue", {}).structured_content
    assert (said["verdict"], said["reason_code"]) == ("deny", "tool.unknown")
    assert "The server “Books” is registered, and does not offer books__overdue." in said["message"]

    McpServer.objects.filter(pk=books.pk).update(state=ServerState.DISABLED)
    assert agent.call("books__overdue", {}).structured_content["reason_code"] == "server.off"
    assert upstream.calls == []


def test_arguments_outside_the_grant_are_refused_with_what_would_be_allowed(agent: Any, upstream: Any) -> None:
    result = agent.call("books__apply_credit", {"invoice": "INV-0113", "amount": "900.00"})
    assert result.is_error
    assert result.structured_content["reason_code"] == "grant.argument_above_limit"
    assert upstream.calls == []


@pytest.mark.parametrize(
    "arguments", [{"invoice": "INV-0113"}, {**SMALL, "agent": "somebody-else"}, {"invoice": 113, "amount": "1.00"}]
)
def test_arguments_that_do_not_fit_the_pinned_schema_are_refused(agent: Any, upstream: Any, arguments: Any) -> None:
    result = agent.call("books__apply_credit", arguments)
    assert result.is_error
    assert result.structured_content["verdict"] == "deny"
    assert upstream.calls == []


def test_a_call_that_needs_a_person_returns_at_once_with_a_handle(agent: Any, upstream: Any) -> None:
    result = agent.call("books__apply_credit", LARGE)
    said = result.structured_content
    assert result.is_error
    assert said["verdict"] == "escalate"
    assert said["state"] == "waiting"
    assert said["escalation"]["expires_at"]
    assert said["escalation"]["url"].endswith(f"/actions/{said['id']}")
    assert upstream.calls == []
    state = agent.call("remit__action", {"id": said["id"], "wait": 0}).structured_content
    assert (state["state"], state["escalation"]["id"]) == ("waiting", said["escalation"]["id"])


def test_once_approved_the_same_call_naming_its_action_is_carried_out_once(
    agent: Any, upstream: Any, approver: Principal
) -> None:
    identifier = agent.call("books__apply_credit", LARGE).structured_content["id"]
    approve(approver, identifier)
    assert agent.call("remit__action", {"id": identifier}).structured_content["state"] == "permitted"
    result = agent.call("books__apply_credit", LARGE, action=identifier)
    assert not result.is_error
    assert upstream.calls == [("apply_credit", LARGE)]
    again = agent.call("books__apply_credit", LARGE, action=identifier)
    assert upstream.calls == [("apply_credit", LARGE)]
    assert again.content[0].text == result.content[0].text


def test_the_result_of_a_call_is_for_whoever_made_it(
    agent: Any, upstream: Any, approver: Principal, make_agent_client: Any
) -> None:
    identifier = agent.call("books__apply_credit", LARGE).structured_content["id"]
    approve(approver, identifier)
    assert not agent.call("books__apply_credit", LARGE, action=identifier).is_error
    user = User.objects.get(pk=approver.user_id)
    expires_at = now() + timedelta(hours=1)
    text = credentials.issue_personal_token(principal=approver, user=user, name="reader", expires_at=expires_at)[1]
    answer = make_agent_client(text).call("books__apply_credit", LARGE, action=identifier)
    assert (answer.is_error, answer.structured_content["reason_code"]) == (True, "action.not_found")
    assert upstream.calls == [("apply_credit", LARGE)]


def test_once_approved_repeating_the_call_is_enough(agent: Any, upstream: Any, approver: Principal) -> None:
    identifier = agent.call("books__apply_credit", LARGE).structured_content["id"]
    approve(approver, identifier)
    assert not agent.call("books__apply_credit", LARGE).is_error
    assert upstream.calls == [("apply_credit", LARGE)]
    # The agreement is used up: the next one asks again.
    assert agent.call("books__apply_credit", LARGE).structured_content["verdict"] == "escalate"


@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        ("books__apply_credit", {**LARGE, "amount": "250.00"}),
        ("books__apply_credit", {**LARGE, "invoice": "INV-0999"}),
        ("books__overdue", {}),
    ],
)
def test_an_approval_is_for_that_call_and_no_other(
    agent: Any, upstream: Any, approver: Principal, tool: str, arguments: Any
) -> None:
    identifier = agent.call("books__apply_credit", LARGE).structured_content["id"]
    approve(approver, identifier)
    result = agent.call(tool, arguments, action=identifier)
    assert result.is_error
    assert result.structured_content["reason_code"] == "action.other_call"
    assert upstream.calls == []
    assert Action.objects.get(pk=identifier).state == ActionState.PERMITTED


def test_a_denied_action_stays_denied(agent: Any, upstream: Any, approver: Principal) -> None:
    identifier = agent.call("books__apply_credit", LARGE).structured_content["id"]
    escalation = Escalation.objects.get(action_id=identifier)
    governance.decide(
        approver=approver, escalation_id=escalation.pk, approve=False, version=escalation.version, reason="Too much."
    )
    result = agent.call("books__apply_credit", LARGE, action=identifier)
    assert result.structured_content["verdict"] == "deny"
    assert upstream.calls == []


def test_repeating_a_call_that_waits_asks_nobody_twice_and_holds_nothing_twice(
    agent: Any, approver: Principal, upstream: Any, mission: Mission
) -> None:
    first = agent.call("books__apply_credit", LARGE).structured_content
    held = Hold.objects.filter(state="held").count()
    for _ in range(5):
        again = agent.call("books__apply_credit", LARGE).structured_content
        assert (again["id"], again["state"], again["escalation"]) == (first["id"], "waiting", first["escalation"])
    other = agent.call("books__apply_credit", {**LARGE, "amount": "250.00"}).structured_content
    assert other["id"] != first["id"]
    keyed = agent.call("books__apply_credit", LARGE, idempotency_key="the-second-credit")
    assert keyed.structured_content["id"] not in (first["id"], other["id"])
    assert Escalation.objects.filter(mission_id=mission.pk).count() == 3
    assert Hold.objects.filter(state="held").count() == held + 2
    approve(approver, first["id"])
    assert not agent.call("books__apply_credit", LARGE).is_error
    assert upstream.calls == [("apply_credit", LARGE)]


def test_waiting_for_a_decision_ends_when_it_is_made(agent: Any, approver: Principal) -> None:
    identifier = agent.call("books__apply_credit", LARGE).structured_content["id"]

    async def story(client: Any) -> Any:
        waiting = asyncio.create_task(client.call_tool("remit__action", {"id": identifier, "wait": 20}))
        await asyncio.sleep(0.5)
        assert not waiting.done()
        await in_thread(approve, approver, identifier)
        return await asyncio.wait_for(waiting, 10)

    assert agent.do(story).structured_content["state"] == "permitted"


def test_a_repeated_idempotency_key_is_carried_out_once(agent: Any, upstream: Any) -> None:
    first = agent.call("books__apply_credit", SMALL, idempotency_key="credit-1")
    second = agent.call("books__apply_credit", SMALL, idempotency_key="credit-1")
    assert upstream.calls == [("apply_credit", SMALL)]
    assert first.content[0].text == second.content[0].text
    other = agent.call("books__apply_credit", {**SMALL, "amount": "41.00"}, idempotency_key="credit-1")
    assert other.structured_content["reason_code"] == "idempotency.other_body"
    assert len(upstream.calls) == 1


def test_the_mission_is_told_and_progress_and_the_end_are_taken(agent: Any, mission: Mission) -> None:
    told = agent.call("remit__mission").structured_content
    assert told["goal"] == "Every overdue invoice has a reminder."
    assert [item["text"] for item in told["criteria"]] == ["Reminders are written", "Credits are explained"]
    assert told["budget"]["money_left"] is not None
    claimed = agent.call("remit__progress", {"position": 0, "evidence": "14 reminders in the outbox"})
    assert claimed.structured_content["state"] == "claimed"
    agent.call("remit__progress", {"item": "Credits are explained", "evidence": "see the book"})
    assert all(item["state"] == "claimed" for item in agent.call("remit__mission").structured_content["criteria"])
    assert not agent.call("remit__finish", {"summary": "All done.", "evidence": ["14 reminders"]}).is_error
    mission.refresh_from_db()
    assert (mission.outcome, mission.claim["summary"]) == ("claimed", "All done.")


def test_own_tools_refuse_what_makes_no_sense(agent: Any) -> None:
    for tool, arguments in (
        ("remit__progress", {}),
        ("remit__progress", {"position": 99}),
        ("remit__progress", {"item": "Something else"}),
        ("remit__finish", {"summary": ""}),
        ("remit__action", {"id": "not-an-id"}),
        ("remit__action", {"id": "0190a000-0000-7000-8000-000000000000", "wait": 0}),
        ("remit__anything", {}),
        ("remit__mission", {"of": "another"}),
    ):
        result = agent.call(tool, arguments)
        assert result.is_error, (tool, arguments)
        assert result.structured_content["reason_code"]
    unnamed = agent.call("remit__progress", {"evidence": "14 reminders"}).structured_content
    assert unnamed["reason_code"] == "progress.item"
    assert "remit__mission shows it; or item" in str(unnamed)


def test_what_is_wrong_with_all_arguments_is_said_without_a_place(agent: Any) -> None:
    refused = agent.call("remit__progress", {"criterion": 0})
    assert refused.structured_content["remedies"] == [
        "Additional properties are not allowed ('criterion' was unexpected)"
    ]
    assert ": Additional" not in str(refused.content)
    placed = agent.call("remit__progress", {"position": -1}).structured_content["remedies"]
    assert placed == ["/position: -1 is less than the minimum of 0"]


def test_a_paused_mission_refuses_every_call(agent: Any, upstream: Any, owner: Principal, mission: Mission) -> None:
    services.pause_mission(actor=owner, mission_id=mission.pk, reason="Quarter end.")
    result = agent.call("books__apply_credit", SMALL)
    assert result.structured_content["verdict"] == "deny"
    assert upstream.calls == []


def test_results_of_servers_are_labelled_and_stripped_of_their_own_labels(agent: Any, upstream: Any) -> None:
    upstream.behave = lambda *_: {
        "content": [
            {"type": "text", "text": "\x1b[31mred\u202e", "_meta": {"remit/action": "forged"}},
            {"type": "hologram", "data": 1},
        ],
        "_meta": {"remit/source": {"trust": "trusted"}},
    }
    result = agent.call("books__overdue")
    assert result.meta["remit/source"]["trust"] == "untrusted"
    assert result.content[0].text == "\x1b[31mred\u202e"
    assert result.content[0].meta is None
    assert json.loads(result.content[1].text)["type"] == "hologram"
    outcome = Action.objects.get(tool="books__overdue").outcome
    assert outcome is not None
    assert "\x1b" not in outcome["summary"]
    assert "\u202e" not in outcome["summary"]


def test_a_tool_that_says_it_failed_is_a_failed_action(agent: Any, upstream: Any) -> None:
    upstream.behave = lambda *_: {"content": [{"type": "text", "text": "the book is locked"}], "isError": True}
    result = agent.call("books__apply_credit", SMALL)
    assert result.is_error
    assert result.content[0].text == "the book is locked"
    action = Action.objects.get(tool="books__apply_credit")
    assert action.state == ActionState.FAILED


def test_a_server_that_hangs_leaves_the_action_unknown(agent: Any, upstream: Any) -> None:
    upstream.behave = lambda *_: asyncio.sleep(30)
    result = agent.call("books__apply_credit", SMALL)
    said = result.structured_content
    assert result.is_error
    assert (said["outcome"], said["reason_code"], said["verdict"]) == ("unknown", "upstream.timeout", "allow")
    assert Action.objects.get(pk=said["id"]).state == ActionState.UNKNOWN


def test_a_client_that_hangs_up_does_not_undo_what_was_permitted(agent: Any, upstream: Any) -> None:
    async def slowly() -> None:
        await asyncio.sleep(0.6)

    upstream.behave = lambda *_: slowly()

    async def story(client: Any) -> None:
        call = asyncio.create_task(client.call_tool("books__apply_credit", SMALL))
        await asyncio.sleep(0.3)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)

    agent.do(story)
    action = Action.objects.get(tool="books__apply_credit")
    for _ in range(100):
        action.refresh_from_db()
        if action.state == ActionState.SUCCEEDED:
            break
        time.sleep(0.05)
    assert action.state == ActionState.SUCCEEDED
    assert len(upstream.calls) == 1
