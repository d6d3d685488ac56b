"""What people do to one mission at the same moment, over real connections."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from decimal import Decimal
from typing import TypeVar

import pytest
from django.db import connection, transaction

from agents import services
from agents.grants import Grant
from agents.models import McpServer, Mission, Run
from budgets.models import Hold, Window
from controlplane.common.clock import now
from controlplane.common.errors import RemitError
from controlplane.tenancy import services as tenancy
from controlplane.tenancy.models import Token
from controlplane.tenancy.types import Principal
from governance import services as gate
from governance.choices import ActionState
from governance.models import Action, Escalation
from governance.types import Judgement, Proposal

from .conftest import LISTING, REFUND, TOOL

R = TypeVar("R")
pytestmark = pytest.mark.django_db(transaction=True)


def on_a_connection_of_its_own(call: Callable[[], R]) -> R:
    try:
        return call()
    finally:
        connection.close()


def test_of_tokens_asked_for_at_once_one_lives(
    person: Callable[[str], Principal], start: Callable[..., Mission]
) -> None:
    mission, alice = start(), person("alice")

    def issue(_: int) -> str:
        return on_a_connection_of_its_own(lambda: services.issue_run_token(actor=alice, mission_id=mission.pk))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(issue, range(8)))
    assert Token.objects.filter(mission_id=mission.pk, revoked_at__isnull=True).count() == 1


def test_a_token_asked_for_while_the_mission_stops_is_dead(
    person: Callable[[str], Principal], start: Callable[..., Mission]
) -> None:
    mission, alice = start(), person("alice")
    run = Run.objects.get(mission=mission)
    with ThreadPoolExecutor(1) as pool:
        with transaction.atomic():
            Run.objects.filter(pk=run.pk).update(reason="stopping")  # where the stop will be when it holds the run
            asked = pool.submit(
                on_a_connection_of_its_own, lambda: services.issue_run_token(actor=alice, mission_id=mission.pk)
            )
            time.sleep(0.3)
            services.stop_mission(actor=alice, mission_id=mission.pk)
        assert asked.exception(10) is not None
    assert not Token.objects.filter(mission_id=mission.pk, revoked_at__isnull=True).exists()


def test_a_question_approved_while_the_mission_stops_leaves_nothing_open_or_held(
    person: Callable[[str], Principal], start: Callable[..., Mission], books: McpServer
) -> None:
    alice, bob = person("alice"), person("bob")
    mission = start("Clerk")
    agent = tenancy.principal_of_token(services.issue_run_token(actor=alice, mission_id=mission.pk))
    first, second = (
        gate.propose(proposer=agent, proposal=Proposal("tool.call", {"amount": amount}, tool=TOOL)) for amount in "12"
    )
    assert first.escalation is not None
    assert second.escalation is not None
    with ThreadPoolExecutor(2) as pool:
        with transaction.atomic():
            # The stop has the mission and waits at the first question; who approves the second waits for the mission.
            Escalation.objects.select_for_update().get(pk=first.escalation.id)
            stopped = pool.submit(
                on_a_connection_of_its_own, lambda: services.stop_mission(actor=alice, mission_id=mission.pk)
            )
            time.sleep(0.5)
            approved = pool.submit(
                on_a_connection_of_its_own,
                lambda: gate.decide(
                    approver=bob, escalation_id=second.escalation.id, version=1, approve=True, reason=""
                ),
            )
            time.sleep(0.5)
        stopped.result(10)
        with pytest.raises(RemitError, match=r"settled before you|no longer waiting"):
            approved.result(10)
    calls = Action.objects.filter(kind="tool.call")
    assert set(calls.values_list("state", flat=True)) == {ActionState.WITHDRAWN}
    assert set(Hold.objects.values_list("state", flat=True)) == {"voided"}


@pytest.mark.parametrize("propose", [gate.propose, gate.propose_and_start])
def test_calls_at_once_can_not_each_be_the_last_one_allowed(
    person: Callable[[str], Principal],
    start: Callable[..., Mission],
    books: McpServer,
    propose: Callable[..., Judgement],
) -> None:
    agent = tenancy.principal_of_token(services.issue_run_token(actor=person("alice"), mission_id=start().pk))

    def call(number: int) -> Judgement:
        proposal = Proposal("tool.call", {"page": number}, tool=LISTING, audience="mcp")
        return on_a_connection_of_its_own(lambda: propose(proposer=agent, proposal=proposal))

    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(call, range(12)))
    assert Counter(answer.reason_code for answer in answers) == {"": 3, "grant.calls_used_up": 9}
    assert Action.objects.filter(tool=LISTING, state__in=["permitted", "executing"]).count() == 3


@pytest.mark.parametrize("propose", [gate.propose, gate.propose_and_start])
@pytest.mark.parametrize("seed", range(3))
def test_calls_at_once_can_not_together_pass_what_they_may_come_to_in_all(
    person: Callable[[str], Principal],
    start: Callable[..., Mission],
    books: McpServer,
    propose: Callable[..., Judgement],
    seed: int,
) -> None:
    limited = Grant(REFUND, constraints={"amount": {"max": "40.00", "max_total": "100.00"}})
    mission = start("Clerk", limited)
    agent = tenancy.principal_of_token(services.issue_run_token(actor=person("alice"), mission_id=mission.pk))
    amounts = random.Random(seed).choices(["40.00", "40", "39.999999", "33.34", "0.000001", "-40", "4e1", "41"], k=20)

    def call(amount: str) -> Judgement:
        proposal = Proposal("tool.call", {"amount": amount}, tool=REFUND, audience="mcp")
        return on_a_connection_of_its_own(lambda: propose(proposer=agent, proposal=proposal))

    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(call, amounts))
    allowed = [Decimal(amount) for amount, answer in zip(amounts, answers, strict=True) if not answer.reason_code]
    kept = Action.objects.filter(tool=REFUND, state__in=["permitted", "executing"])
    assert sorted(allowed) == sorted(Decimal(action.arguments["amount"]) for action in kept)
    assert 60 < sum(allowed) <= 100
    assert min(allowed) > 0
    used_up = [answer for answer in answers if answer.reason_code == "grant.total_above_limit"]
    assert all("Left: " in answer.remedies[0] for answer in used_up)


def test_one_mission_that_can_not_be_ended_now_keeps_no_other_from_ending(start: Callable[..., Mission]) -> None:
    missions = [start(f"Clerk {number}") for number in range(3)]
    Mission.objects.update(deadline=now() - timedelta(seconds=1))
    with ThreadPoolExecutor(1) as pool, transaction.atomic():
        list(Window.objects.select_for_update().filter(account_id=missions[1].account_id))
        assert pool.submit(on_a_connection_of_its_own, services.expire_missions).result(10) == 2
    states = {mission.pk: mission.state for mission in Mission.objects.all()}
    assert [states[mission.pk] for mission in missions] == ["expired", "active", "expired"]
    assert services.expire_missions() == 1
