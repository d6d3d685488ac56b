"""What people do to one mission at the same moment, over real connections."""

from __future__ import annotations

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
from agents.choices import Runtime
from agents.grants import Grant
from agents.models import McpServer, McpTool, Mission, Run
from agents.services.onboarding import Person, create_organisation
from budgets.models import Hold, Window
from budgets.types import Limits
from controlplane.common.clock import now
from controlplane.common.errors import RemitError
from controlplane.tenancy import services as tenancy
from controlplane.tenancy.models import Organisation, Team, Token, User
from controlplane.tenancy.types import Principal, Role
from governance import services as gate
from governance.choices import ActionState
from governance.models import Action, Escalation
from governance.types import Judgement, Proposal

R = TypeVar("R")
TOOL, LISTING = "books__apply_credit", "books__overdue"
pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def company(transactional_db: None) -> Organisation:
    return create_organisation(
        name="Northwind",
        currency="USD",
        monthly_limit=Limits(money=Decimal(100)),
        teams={"Finance": Limits(money=Decimal(50))},
        people=(
            Person("alice@northwind.example", "Alice", (Role.BUILDER,), "Finance"),
            Person("bob@northwind.example", "Bob", (Role.APPROVER,), "Finance"),
        ),
    )


@pytest.fixture
def person(company: Organisation) -> Callable[[str], Principal]:
    def of(name: str) -> Principal:
        user = User.objects.get(email=f"{name}@northwind.example")
        principal = tenancy.principal_of_user(user=user, organisation_id=company.pk)
        assert principal is not None
        return principal

    return of


@pytest.fixture
def start(person: Callable[[str], Principal], company: Organisation) -> Callable[..., Mission]:
    """A running mission of an agent of its own, which may give credits when a person agrees."""

    def make(name: str = "Clerk") -> Mission:
        alice = person("alice")
        team = Team.objects.get(organisation=company)
        agent = services.register_agent(actor=alice, team_id=team.pk, name=name, runtime=Runtime.EXTERNAL)
        remit = services.Remit(
            goal="Every overdue invoice has a reminder.",
            criteria=["Reminders are written"],
            grants=(Grant(TOOL, effect="escalate"), Grant(LISTING, max_calls=3)),
            budget_money=Decimal(1),
            budget_steps=100,
            deadline=now() + timedelta(hours=8),
        )
        mission = services.draft_mission(actor=alice, agent_id=agent.pk, title=name, remit=remit)
        services.submit_mission(actor=alice, mission_id=mission.pk)
        mission.refresh_from_db()
        return mission

    return make


@pytest.fixture
def books(person: Callable[[str], Principal], company: Organisation) -> McpServer:
    server = McpServer.objects.create(
        organisation=company, name="Books", slug="books", transport="stdio", created_by_id=person("alice").id
    )
    for name in (TOOL, LISTING):
        McpTool.objects.create(
            server=server,
            name=name.removeprefix("books__"),
            qualified_name=name,
            definition={"name": name.removeprefix("books__"), "inputSchema": {"type": "object"}},
            definition_sha256="sha256:aa",
        )
    return server


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


def test_one_mission_that_can_not_be_ended_now_keeps_no_other_from_ending(start: Callable[..., Mission]) -> None:
    missions = [start(f"Clerk {number}") for number in range(3)]
    Mission.objects.update(deadline=now() - timedelta(seconds=1))
    with ThreadPoolExecutor(1) as pool, transaction.atomic():
        list(Window.objects.select_for_update().filter(account_id=missions[1].account_id))
        assert pool.submit(on_a_connection_of_its_own, services.expire_missions).result(10) == 2
    states = {mission.pk: mission.state for mission in Mission.objects.all()}
    assert [states[mission.pk] for mission in missions] == ["expired", "active", "expired"]
    assert services.expire_missions() == 1
