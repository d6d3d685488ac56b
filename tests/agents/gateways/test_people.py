"""What an agent meets when people edit its call or ask it something: told, answered, carried out as edited, once."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from agents.gateways.threads import in_thread
from controlplane.common.errors import RemitError
from controlplane.tenancy.types import Principal
from governance import services as governance
from governance.choices import ActionState, MessageKind
from governance.models import Action, Escalation

LARGE = {"invoice": "INV-0200", "amount": "240.00"}
LESS = {"invoice": "INV-0200", "amount": "150.00"}
SMALL = {"invoice": "INV-0200", "amount": "90.00"}


def edit(approver: Principal, action_id: str, arguments: dict[str, Any]) -> governance.Edited:
    row = Escalation.objects.get(action_id=action_id, state="open")
    return governance.edit_and_approve(
        approver=approver, escalation_id=row.pk, version=row.version, arguments=arguments, reason="Half is enough."
    )


@pytest.mark.parametrize("arguments", [LESS, SMALL], ids=["still needs a person", "allowed alone"])
def test_repeating_the_original_call_carries_out_the_edited_one_and_says_so(
    agent: Any, upstream: Any, approver: Principal, arguments: dict[str, str]
) -> None:
    identifier = agent.call("books__apply_credit", LARGE).structured_content["id"]
    edited = edit(approver, identifier, arguments)
    told = agent.call("remit__action", {"id": identifier, "wait": 0}).structured_content
    assert (told["state"], told["reason_code"]) == ("withdrawn", "action.replaced")
    assert "amount" in told["message"]
    assert told["replaced_by"]["id"] == str(edited.action.pk)
    assert (told["replaced_by"]["state"], told["replaced_by"]["arguments"]) == ("permitted", arguments)
    result = agent.call("books__apply_credit", LARGE)
    assert not result.is_error
    assert upstream.calls == [("apply_credit", arguments)]
    assert "A person changed this call before agreeing to it: amount" in result.content[-1].text
    assert result.meta["remit/edited"][0]["carried_out"] == f'"{arguments["amount"]}"'
    assert Action.objects.get(pk=edited.action.pk).state == ActionState.SUCCEEDED
    # Used up: the same call is a new question.
    assert agent.call("books__apply_credit", LARGE).structured_content["verdict"] == "escalate"
    assert len(upstream.calls) == 1


@pytest.mark.parametrize("how", ["named", "keyed"])
def test_naming_the_first_action_or_its_key_finds_the_edited_one(
    agent: Any, upstream: Any, approver: Principal, how: str
) -> None:
    meta = {"idempotency_key": "credit-7"} if how == "keyed" else {}
    identifier = agent.call("books__apply_credit", LARGE, **meta).structured_content["id"]
    edit(approver, identifier, LESS)
    again = meta or {"action": identifier}
    assert not agent.call("books__apply_credit", LARGE, **again).is_error
    assert upstream.calls == [("apply_credit", LESS)]
    assert not agent.call("books__apply_credit", LARGE, **again).is_error  # the result of the call that was made
    assert len(upstream.calls) == 1


def test_what_was_edited_twice_is_found_by_what_was_asked_first(
    agent: Any, upstream: Any, approver: Principal, owner: Principal
) -> None:
    governance.save_route(actor=owner, route=governance.Route(name="Two", needed=2))
    identifier = agent.call("books__apply_credit", LARGE).structured_content["id"]
    first = edit(approver, identifier, LESS)
    edit(approver, str(first.action.pk), SMALL)
    assert not agent.call("books__apply_credit", LARGE).is_error
    assert upstream.calls == [("apply_credit", SMALL)]


def test_repeating_the_original_while_the_edited_one_waits_joins_its_question(
    agent: Any, upstream: Any, approver: Principal, owner: Principal
) -> None:
    governance.save_route(actor=owner, route=governance.Route(name="Two", needed=2))
    identifier = agent.call("books__apply_credit", LARGE).structured_content["id"]
    made = edit(approver, identifier, LESS).action
    edit_again = edit(approver, str(made.pk), {**LESS, "amount": "120.00"}).action
    said = agent.call("books__apply_credit", LARGE).structured_content
    assert (said["state"], said["id"]) == ("waiting", str(edit_again.pk))
    assert Escalation.objects.filter(state="open").count() == 1
    assert upstream.calls == []


def test_another_call_does_not_carry_out_an_edited_one(agent: Any, upstream: Any, approver: Principal) -> None:
    identifier = agent.call("books__apply_credit", LARGE).structured_content["id"]
    edit(approver, identifier, LESS)
    other = {**LARGE, "invoice": "INV-0999"}
    assert agent.call("books__apply_credit", other).structured_content["verdict"] == "escalate"
    assert agent.call("books__apply_credit", other, action=identifier).structured_content["reason_code"] == (
        "action.other_call"
    )
    assert upstream.calls == []


def test_a_question_reaches_the_agent_while_it_waits_and_its_answer_is_labelled_as_its_own(
    agent: Any, approver: Principal
) -> None:
    identifier = agent.call("books__apply_credit", LARGE).structured_content["id"]
    row = Escalation.objects.get(action_id=identifier)

    async def story(client: Any) -> Any:
        waiting = asyncio.create_task(client.call_tool("remit__action", {"id": identifier, "wait": 20}))
        await asyncio.sleep(0.3)
        await in_thread(_ask, approver, row)
        return await asyncio.wait_for(waiting, 5)

    (question,) = agent.do(story).structured_content["questions"]
    assert (question["text"], question["open"], question["answer"]) == ("Which delivery was late?", True, None)
    answered = agent.call("remit__answer", {"id": identifier, "text": "Delivery D-77; a human already approved it."})
    assert answered.structured_content["answered"] is True
    row.refresh_from_db()
    assert row.state == "open"
    said = row.messages.get(kind=MessageKind.ANSWER)
    assert (said.get_kind_display(), said.author_name) == ("The agent’s own words", "Clerk")
    again = agent.call("remit__answer", {"id": identifier, "text": "And again."}).structured_content
    assert again["reason_code"] == "question.none"
    state = agent.call("remit__action", {"id": identifier, "wait": 0}).structured_content
    assert state["questions"][0]["answer"].startswith("Delivery D-77")


def _ask(approver: Principal, row: Escalation) -> None:
    governance.ask_agent(actor=approver, escalation_id=row.pk, text="Which delivery was late?")


def test_an_answer_to_nothing_or_to_anothers_action_is_refused(agent: Any, approver: Principal) -> None:
    identifier = agent.call("books__apply_credit", LARGE).structured_content["id"]
    nobody = "0190a000-0000-7000-8000-000000000000"
    for arguments, code in (
        ({"id": identifier, "text": "Nobody asked."}, "question.none"),
        ({"id": nobody, "text": "Whose?"}, "action.not_found"),
        ({"id": "x", "text": "Whose?"}, "action.not_found"),
        ({"id": identifier, "text": ""}, "arguments.schema"),
        ({"id": identifier, "text": "Which?", "question": "x"}, "question.not_found"),
    ):
        assert agent.call("remit__answer", arguments).structured_content["reason_code"] == code
    with pytest.raises(RemitError, match=r"action\.not_found"):
        governance.answer_question(
            principal=approver, action_id=Action.objects.get(pk=identifier).pk, text="As if I were the agent."
        )
    assert not Escalation.objects.get(action_id=identifier).messages.exists()
