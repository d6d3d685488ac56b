"""Northwind at work: budgets, a server with tools, and a mission with every kind of verdict."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal

import pytest
from allauth.usersessions.models import UserSession
from django.core.cache import cache
from django.db import connection

from agents import services as agents
from agents.catalogue import TEMPLATES
from agents.choices import Runtime, ServerState, StopScope, ToolState, Transport
from agents.grants import Grant
from agents.models import Agent, McpServer, McpTool, Mission, Run
from agents.services import Remit
from budgets import prices
from budgets import services as budgets
from budgets.changes import wording_of
from budgets.types import Level, Limits, WindowKind
from controlplane.common.canonical import digest
from controlplane.common.clock import now
from controlplane.tenancy import tokens
from controlplane.tenancy.credentials import issue_personal_token
from controlplane.tenancy.invitations import invite
from controlplane.tenancy.models import Organisation, Team, TokenKind, User
from controlplane.tenancy.services import principal_of_token
from controlplane.tenancy.types import Permission, Principal, Role, system_principal
from governance import services as governance
from governance.bundles import ensure_baseline, forget
from governance.choices import ActionState
from governance.models import Escalation
from governance.types import Judgement, Proposal

CLERK = TEMPLATES["receivables"]
_TEXT = {"type": "object", "additionalProperties": {"type": "string"}}


@pytest.fixture
def rules(db: None) -> Iterator[None]:
    """The baseline in force, and no cache that knows another: tests with threads empty the table that held it."""
    ensure_baseline()
    forget()
    cache.clear()
    yield
    cache.clear()
    forget()


@dataclass
class World:
    """What stands in the database, and how an agent acts in it."""

    organisation: Organisation
    team: Team
    owner: Principal
    agent: Agent
    server: McpServer
    mission: Mission
    run: Run
    as_run: Principal

    def act(
        self, tool: str, summary: str = "", outcome: str = "success", key: str | None = None, **arguments: str
    ) -> Judgement:
        """Propose a call as the agent; what is allowed is done and ends with `outcome`."""
        proposal = Proposal(kind="tool.call", tool=tool, arguments=arguments, justification="", idempotency_key=key)
        judgement = governance.propose(proposer=self.as_run, proposal=proposal)
        if judgement.state is ActionState.PERMITTED and judgement.permit:
            governance.redeem(
                holder=self.as_run,
                action_id=judgement.action_id,
                audience="api",
                permit_token=judgement.permit.token,
            )
            governance.record_outcome(
                holder=self.as_run,
                action_id=judgement.action_id,
                audience="api",
                outcome=outcome,
                summary=summary or "done",
            )
        return judgement

    def begin(self, tool: str, **arguments: str) -> Judgement:
        """Sent, and under way outside."""
        proposal = Proposal(kind="tool.call", tool=tool, arguments=arguments, audience="mcp")
        return governance.propose_and_start(proposer=self.as_run, proposal=proposal)

    def ask_credit(
        self, amount: str = "240.00", reason: str = "Delivered 9 days late", key: str | None = None
    ) -> Escalation:
        """A credit above what the clerk may give alone: waits for a person."""
        judgement = self.act("books__apply_credit", key=key, invoice="INV-0131", amount=amount, reason=reason)
        assert judgement.escalation is not None, judgement
        return Escalation.objects.select_related("action").get(pk=judgement.escalation.id)

    def draft(self, title: str, *, budget: str = "2.00", owner: Principal | None = None) -> Mission:
        return agents.draft_mission(
            actor=owner or self.owner, agent_id=self.agent.pk, title=title, remit=remit(budget=budget)
        )

    def plain_remit(self) -> Remit:
        return remit(budget="1.00")

    def account_of(self, subject_type: str, subject_id: uuid.UUID) -> uuid.UUID:
        found = budgets.account_of(subject_type=subject_type, subject_id=subject_id)
        assert found is not None
        return found


def remit(*, budget: str = "2.00", grants: tuple[Grant, ...] = tuple(CLERK.grants), goal: str = CLERK.goal) -> Remit:
    return Remit(
        goal=goal,
        criteria=list(CLERK.criteria),
        grants=list(grants),
        budget_money=Decimal(budget),
        budget_steps=250,
        budget_tokens=10_000,
        deadline=now() + timedelta(hours=8),
    )


@pytest.fixture
def make_remit() -> Callable[..., Remit]:
    return remit


@pytest.fixture
def budgets_open(northwind: Organisation, team: Team, other_team: Team) -> None:
    """400 a month for Northwind, 100 for each team."""
    actor = system_principal(organisation_id=northwind.pk)
    prices.load_default_prices(organisation_id=northwind.pk)
    top = open_budget(actor, northwind, None, None, Level.ORGANISATION, northwind.name, northwind.pk, "400")
    for each in (team, other_team):
        open_budget(actor, northwind, each, top, Level.TEAM, each.name, each.pk, "100")


def open_budget(
    actor: Principal,
    organisation: Organisation,
    team: Team | None,
    parent: uuid.UUID | None,
    level: Level,
    name: str,
    subject_id: uuid.UUID,
    limit: str,
) -> uuid.UUID:
    return budgets.open_account(
        actor=actor,
        organisation_id=organisation.pk,
        team_id=team.pk if team else None,
        parent_id=parent,
        level=level,
        name=name,
        subject_type=level.value,
        subject_id=subject_id,
        limits=Limits(money=Decimal(limit)),
        window=WindowKind.MONTH,
    )


@pytest.fixture
def make_server(northwind: Organisation, alice: User) -> Callable[..., McpServer]:
    """A server that was reached, with approved tools as its listing gave them."""

    def make(slug: str, names: tuple[str, ...], **traits: bool) -> McpServer:
        server = McpServer.objects.create(
            organisation=northwind,
            name=slug.capitalize(),
            slug=slug,
            transport=Transport.STDIO,
            environment=slug if slug in ("books", "sqlite") else "time",
            command=["/remit/samples", slug],
            state=ServerState.OK,
            protocol_version="2025-06-18",
            checked_at=now(),
            created_by=alice,
        )
        for name in names:
            reads = name not in ("apply_credit", "write_reminder", "write_query")
            definition = {
                "name": name,
                "description": f"{name.replace('_', ' ').capitalize()}.",
                "inputSchema": _TEXT,
                "annotations": {"readOnlyHint": reads},
            }
            McpTool.objects.create(
                server=server,
                name=name,
                qualified_name=f"{slug}__{name}",
                definition=definition,
                definition_sha256=digest(definition),
                state=ToolState.ACTIVE,
                read_only=reads,
                reversible=name != "write_query",
                approved_by=alice,
                approved_at=now(),
                changed_at=now(),
            )
        return server

    return make


@pytest.fixture
def world(
    northwind: Organisation,
    team: Team,
    rules: None,
    budgets_open: None,
    as_alice: Principal,
    make_server: Callable[..., McpServer],
) -> World:
    """Alice's clerk with a running mission; nothing has been done yet."""
    server = make_server(
        "books", ("overdue", "customer", "search", "outbox", "attachment", "write_reminder", "apply_credit")
    )
    make_server("sqlite", ("list_tables", "describe_table", "read_query", "write_query"))
    agent = agents.register_agent(
        actor=as_alice,
        team_id=team.pk,
        name=CLERK.agent_name,
        runtime=Runtime.MANAGED,
        description=CLERK.sentence,
        capabilities=CLERK.capabilities,
        program=CLERK.program,
    )
    mission = agents.draft_mission(
        actor=as_alice, agent_id=agent.pk, title="Chase overdue invoices", remit=remit(), template="receivables"
    )
    agents.submit_mission(actor=as_alice, mission_id=mission.pk)
    mission.refresh_from_db()
    run = Run.objects.get(mission=mission)
    Run.objects.filter(pk=run.pk).update(state="running", started_at=now())
    return World(northwind, team, as_alice, agent, server, mission, run, principal_of_run(mission, run))


def principal_of_run(mission: Mission, run: Run) -> Principal:
    text = tokens.issue(
        kind=TokenKind.RUN,
        organisation_id=mission.organisation_id,
        team_id=mission.team_id,
        agent_id=mission.agent_id,
        mission_id=mission.pk,
        run_id=run.pk,
        name=mission.agent.name,
        expires_at=now() + timedelta(hours=1),
    )[1]
    return principal_of_token(text)


@pytest.fixture
def busy(world: World, as_bob: Principal) -> World:
    """A morning's work: reading, writing, a refusal for each reason, a loop, an approval and an open question."""
    act = world.act
    act("books__overdue", "31 invoices")
    for number in range(113, 119):
        act("books__customer", f"Customer of INV-0{number}", invoice=f"INV-0{number}")
    for number in range(113, 117):
        act(
            "books__write_reminder",
            "Reminder in the outbox",
            invoice=f"INV-0{number}",
            subject="Your invoice is overdue",
            body="Please pay within 14 days.",
        )
    act(
        "books__apply_credit", "Credit note CN-0007", invoice="INV-0113", amount="40.00", reason="Delivered 4 days late"
    )
    act("sqlite__write_query", query="UPDATE customers SET iban = 'DE00 0000 0000 0000 0000 00' WHERE id = 17")
    act("books__attachment", path="/etc/passwd")
    earlier = world.ask_credit("180.00", "Delivered 12 days late, agreed with logistics in ticket 4402")
    governance.decide(
        approver=as_bob, escalation_id=earlier.pk, version=1, approve=True, reason="Agreed with logistics"
    )
    refused = world.ask_credit("480.00", "The customer asked for it on the phone")
    governance.decide(
        approver=as_bob, escalation_id=refused.pk, version=1, approve=False, reason="No ticket, no agreement"
    )
    world.ask_credit("240.00", "Delivered 9 days late (ticket 4471)")
    agents.report_progress(principal=world.as_run, position=0, state="claimed", evidence="31 invoices listed")
    agents.note_heartbeat(principal=world.as_run)
    return world


@pytest.fixture
def asked(world: World, as_nadia: Principal, alice: User, bob: User, dana: User) -> World:
    """Questions, an emergency, routes, changes of limits, credentials, a stop and an invitation in Northwind."""
    world.act("books__overdue", "31 invoices")
    governance.break_glass(
        actor=as_nadia, escalation_id=world.ask_credit("180.00").pk, version=1, reason="The payment run closes."
    )
    world.ask_credit()
    governance.save_group(actor=as_nadia, name="Desk", member_ids=[bob.pk])
    governance.save_route(actor=as_nadia, route=governance.Route(name="Widening", kind="mission.widen"))
    governance.delegate(
        actor=as_nadia, from_user_id=bob.pk, to_user_id=dana.pk, starts_at=now(), ends_at=now() + timedelta(days=1)
    )
    budgets.change_limit(
        actor=system_principal(organisation_id=world.organisation.pk),
        account_id=world.account_of("team", world.team.pk),
        window=WindowKind.MONTH,
        limits=Limits(Decimal(900)),
        reason="More",
        seen=wording_of(Limits(Decimal(100))),
    )
    agents.issue_credential(
        actor=world.owner, agent_id=world.agent.pk, name="Laptop", expires_at=now() + timedelta(days=30)
    )
    packer = agents.register_agent(actor=world.owner, team_id=world.team.pk, name="Packer", runtime=Runtime.EXTERNAL)
    agents.stop(actor=world.owner, scope=StopScope.AGENT, scope_id=packer.pk, reason="Look first")
    expires_at = now() + timedelta(days=7)
    issue_personal_token(
        principal=world.owner, user=alice, name="Laptop", expires_at=expires_at, scopes={Permission.MISSION_VIEW}
    )
    invite(principal=as_nadia, email="ines@northwind.example", roles=[(None, Role.AUDITOR)])
    UserSession.objects.create(user=alice, ip="192.0.2.7", session_key="a" * 32, user_agent="Firefox/140.0")
    return world


@pytest.fixture
def asked_before() -> Callable[[timedelta], None]:
    """Questions as if they had been asked that long ago; the database lets nobody else change that."""

    def move(ago: timedelta) -> None:
        with connection.cursor() as cursor:
            cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
            cursor.execute("ALTER TABLE governance_escalation DISABLE TRIGGER USER")
            Escalation.objects.update(opened_at=now() - ago)
            cursor.execute("ALTER TABLE governance_escalation ENABLE TRIGGER USER")

    return move
