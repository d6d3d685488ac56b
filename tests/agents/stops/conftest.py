"""Northwind with two teams, and missions of agents that run elsewhere and may give credits."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal

import pytest

from agents import services
from agents.choices import Runtime
from agents.grants import Grant
from agents.models import Agent, McpServer, McpTool, Mission, Run
from agents.services.onboarding import Person, create_organisation
from budgets.types import Limits
from controlplane.common.clock import now
from controlplane.tenancy import services as tenancy
from controlplane.tenancy.models import Organisation, Team, User
from controlplane.tenancy.types import Principal, Role
from governance import services as gate
from governance.bundles import ensure_baseline, forget
from governance.types import Judgement, Proposal

CREDIT, READ = "books__apply_credit", "books__overdue"


@dataclass
class Work:
    """A running mission and how its agent acts."""

    agent: Agent
    mission: Mission
    token: str

    @property
    def run(self) -> Run:
        return Run.objects.filter(mission=self.mission).latest("attempt")

    def principal(self) -> Principal:
        return tenancy.principal_of_token(self.token)

    def read(self, page: int = 1, *, principal: Principal | None = None) -> Judgement:
        """Allowed outright."""
        who = principal or self.principal()
        return gate.propose(proposer=who, proposal=Proposal("tool.call", {"page": page}, tool=READ))

    def ask(self, amount: str = "40.00") -> Judgement:
        """Waits for a person."""
        proposal = Proposal("tool.call", {"amount": amount}, tool=CREDIT)
        return gate.propose(proposer=self.principal(), proposal=proposal)

    def begin(self, page: int = 99) -> Judgement:
        """Sent: under way outside."""
        proposal = Proposal("tool.call", {"page": page}, tool=READ, audience="mcp")
        return gate.propose_and_start(proposer=self.principal(), proposal=proposal)


@pytest.fixture
def company(db: None) -> Organisation:
    ensure_baseline()
    forget()
    made = create_organisation(
        name="Northwind",
        currency="USD",
        monthly_limit=Limits(money=Decimal(100)),
        teams={"Finance": Limits(money=Decimal(50)), "Logistics": Limits(money=Decimal(20))},
        people=(
            Person("nadia@northwind.example", "Nadia", (Role.ADMIN,)),
            Person("dana@northwind.example", "Dana", (Role.APPROVER,)),
            Person("alice@northwind.example", "Alice", (Role.BUILDER,), "Finance"),
            Person("bob@northwind.example", "Bob", (Role.APPROVER,), "Finance"),
            Person("lars@northwind.example", "Lars", (Role.BUILDER,), "Logistics"),
            Person("finn@northwind.example", "Finn", (Role.FINANCE,)),
            Person("odile@northwind.example", "Odile", (Role.AUDITOR,)),
        ),
    )
    create_organisation(
        name="Elsewhere",
        currency="USD",
        monthly_limit=Limits(money=Decimal(100)),
        teams={"Finance": Limits(money=Decimal(50))},
        people=(Person("charlie@elsewhere.example", "Charlie", tuple(Role)),),
    )
    server = McpServer.objects.create(
        organisation=made,
        name="Books",
        slug="books",
        transport="stdio",
        created_by=User.objects.get(email="nadia@northwind.example"),
    )
    for name in (CREDIT, READ):
        plain = name.removeprefix("books__")
        McpTool.objects.create(
            server=server,
            name=plain,
            qualified_name=name,
            definition={"name": plain, "inputSchema": {"type": "object"}},
            definition_sha256="sha256:aa",
        )
    return made


@pytest.fixture
def person(company: Organisation) -> Callable[[str], Principal]:
    def of(name: str) -> Principal:
        user = User.objects.get(name=name)
        principal = tenancy.principal_of_user(user=user)
        assert principal is not None
        return principal

    return of


@pytest.fixture
def team(company: Organisation) -> Callable[[str], Team]:
    return lambda name: Team.objects.get(organisation=company, name=name)


@pytest.fixture
def work(company: Organisation, person: Callable[[str], Principal], team: Callable[[str], Team]) -> Callable[..., Work]:
    """`work("Clerk")`: Alice's agent of that name with a running mission; `agent=` gives it another mission."""

    def make(
        name: str = "Clerk", *, who: str = "Alice", where: str = "Finance", agent: Agent | None = None, money: str = "1"
    ) -> Work:
        actor = person(who)
        if agent is None:
            agent = services.register_agent(actor=actor, team_id=team(where).pk, name=name, runtime=Runtime.EXTERNAL)
        mission = services.draft_mission(actor=actor, agent_id=agent.pk, title=f"{name} at work", remit=remit(money))
        services.submit_mission(actor=actor, mission_id=mission.pk)
        mission.refresh_from_db()
        return Work(agent, mission, services.issue_run_token(actor=actor, mission_id=mission.pk))

    return make


def remit(money: str = "1") -> services.Remit:
    return services.Remit(
        goal="Every overdue invoice has a reminder.",
        criteria=["Reminders are written"],
        grants=(Grant(CREDIT, effect="escalate"), Grant(READ)),
        budget_money=Decimal(money),
        budget_steps=1000,
        deadline=now() + timedelta(hours=8),
    )


@pytest.fixture
def make_remit() -> Callable[..., services.Remit]:
    return remit


@pytest.fixture
def nowhere() -> uuid.UUID:
    return uuid.UUID("0190a000-0000-7000-8000-000000000000")
