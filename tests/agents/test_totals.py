"""What an argument may come to over a whole mission: small calls add up, whatever their attempt and whoever agreed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from agents import services
from agents.grants import Grant
from agents.models import McpServer, Mission, Run
from controlplane.tenancy import services as tenancy
from controlplane.tenancy.types import Principal
from governance import services as gate
from governance.choices import ActionState
from governance.models import Action, Escalation
from governance.types import Judgement, Proposal

from .conftest import REFUND

pytestmark = pytest.mark.django_db(transaction=True)
LIMITED = Grant(REFUND, constraints={"amount": {"max": "40", "max_total": "100"}})
BY_A_PERSON = Grant(REFUND, effect="escalate", constraints={"amount": {"max": "60", "max_total": "150"}})


@pytest.fixture
def refund(
    person: Callable[[str], Principal],
    start: Callable[..., Mission],
    books: McpServer,
) -> Callable[..., Judgement]:
    mission = start("Clerk", LIMITED, BY_A_PERSON)

    def call(amount: Any) -> Judgement:
        token = services.issue_run_token(actor=person("alice"), mission_id=mission.pk)
        proposal = Proposal("tool.call", {"amount": amount}, tool=REFUND, audience="mcp")
        return gate.propose(proposer=tenancy.principal_of_token(token), proposal=proposal)

    return call


def test_what_was_allowed_before_counts_and_the_refusal_says_what_is_left(refund: Callable[..., Judgement]) -> None:
    assert [refund(40).state for _ in range(2)] == [ActionState.PERMITTED] * 2
    assert refund("20").state == ActionState.PERMITTED  # exactly what was left
    asked = refund("0.000001")
    assert asked.state == ActionState.WAITING  # a person may still agree to up to 150
    refused = refund("51")
    assert (refused.state, refused.reason_code) == (ActionState.DENIED, "grant.total_above_limit")
    assert refused.remedies[0] == "Left: 50."
    assert refused.permit is None


def test_what_was_refused_or_still_waits_does_not_count(refund: Callable[..., Judgement]) -> None:
    assert refund("60").state == ActionState.WAITING
    assert refund("61").state == ActionState.DENIED
    assert [refund(40).state for _ in range(3)] == [ActionState.PERMITTED] * 2 + [ActionState.WAITING]


def test_a_question_that_is_approved_too_late_finds_the_total_used_up(
    refund: Callable[..., Judgement],
    person: Callable[[str], Principal],
) -> None:
    waiting = [refund("60"), refund("59.5"), refund("59")]
    approved = []
    for judgement in waiting:
        question = Escalation.objects.get(action_id=judgement.action_id)
        gate.decide(
            approver=person("bob"), escalation_id=question.pk, version=question.version, approve=True, reason="fine"
        )
        approved.append(Action.objects.get(pk=judgement.action_id))
    assert [action.state for action in approved] == ["permitted", "permitted", "denied"]
    assert approved[-1].reason_code == "grant.total_above_limit"


def test_another_attempt_begins_with_what_the_first_one_left(refund: Callable[..., Judgement]) -> None:
    assert [refund(40).state for _ in range(2)] == [ActionState.PERMITTED] * 2
    run = Run.objects.get()
    Run.objects.filter(pk=run.pk).update(state="failed")
    Run.objects.create(mission=run.mission, attempt=run.attempt + 1, state="running", agent_version=run.agent_version)
    assert refund(40).state == ActionState.WAITING


@pytest.mark.parametrize("amount", ["-1", -0.5, "1Ki", "4e1", "٤٠", " 40", "40 ", None, True, ["40"], {"amount": "40"}])
def test_what_can_not_be_added_up_is_refused(refund: Callable[..., Judgement], amount: Any) -> None:
    assert refund(amount).state == ActionState.DENIED
    assert not Action.objects.filter(tool=REFUND).exclude(state=ActionState.DENIED).exists()
