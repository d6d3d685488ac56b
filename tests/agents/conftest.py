"""A company with a running mission of an outside agent, and the tools it may use."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal

import pytest

from agents import services
from agents.choices import Runtime
from agents.grants import Grant
from agents.models import McpServer, McpTool, Mission
from agents.services.onboarding import Person, create_organisation
from budgets.types import Limits
from controlplane.common.clock import now
from controlplane.tenancy import services as tenancy
from controlplane.tenancy.models import Organisation, Team, User
from controlplane.tenancy.types import Principal, Role

TOOL, LISTING, REFUND = "books__apply_credit", "books__overdue", "books__refund"


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

    def make(name: str = "Clerk", *more: Grant) -> Mission:
        alice = person("alice")
        team = Team.objects.get(organisation=company)
        agent = services.register_agent(actor=alice, team_id=team.pk, name=name, runtime=Runtime.EXTERNAL)
        remit = services.Remit(
            goal="Every overdue invoice has a reminder.",
            criteria=["Reminders are written"],
            grants=(Grant(TOOL, effect="escalate"), Grant(LISTING, max_calls=3), *more),
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
    for name in (TOOL, LISTING, REFUND):
        McpTool.objects.create(
            server=server,
            name=name.removeprefix("books__"),
            qualified_name=name,
            definition={"name": name.removeprefix("books__"), "inputSchema": {"type": "object"}},
            definition_sha256="sha256:aa",
        )
    return server
