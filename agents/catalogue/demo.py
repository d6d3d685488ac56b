"""The demo organisation: three people, three servers, and a first mission that starts by itself."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from decimal import Decimal

import structlog

from agents.catalogue.templates import TEMPLATES, folder_of, start_from_template
from agents.catalogue.types import ServerNeed, Template
from agents.choices import Transport
from agents.models import McpServer, Mission
from agents.servers import services as servers
from agents.servers.environments import EnvironmentUnavailable, environment
from agents.servers.types import RunContext
from agents.services import submit_mission
from agents.services.onboarding import Person, create_organisation
from budgets.types import Limits
from controlplane.tenancy import services as tenancy
from controlplane.tenancy.models import Organisation, Team, User
from controlplane.tenancy.types import Principal, Role

log = structlog.get_logger(__name__)

NAME = "Northwind"
TEAM = "Finance operations"
NADIA = Person("nadia@northwind.example", "Nadia", (Role.BUILDER,), TEAM)
DANA = Person("dana@northwind.example", "Dana", (Role.APPROVER, Role.ADMIN))
FINN = Person("finn@northwind.example", "Finn", (Role.FINANCE,))
PEOPLE = (NADIA, DANA, FINN)

Say = Callable[[str], None]


def seed_organisation() -> Organisation:
    """Northwind, its people and its budgets. Found again when it is there already."""
    found = Organisation.objects.filter(slug="northwind").first()
    return found or create_organisation(
        name=NAME,
        currency="USD",
        monthly_limit=Limits(money=Decimal("400")),
        teams={TEAM: Limits(money=Decimal("100")), "Platform": Limits(money=Decimal("50"))},
        people=PEOPLE,
    )


def build_environments(say: Say) -> None:
    """The programs the samples need, so that nobody waits for an installation later. What can't be had is said and
    left out."""
    for name in ("agent", "books", "sqlite", "git", "time"):
        try:
            environment(name, progress=say)
        except EnvironmentUnavailable as error:
            say(f"{name}: {error.message} {error.remedy}")


def register_servers(organisation: Organisation, say: Say) -> None:
    """Register what the templates need and read each server's tools once, as Nadia would on the Servers page."""
    actor = principal_of(NADIA, organisation)
    for item in TEMPLATES.values():
        for need in item.servers:
            if not McpServer.objects.filter(organisation=organisation, slug=need.slug).exists():
                say(f"Registering the server {need.name}")
                register_need(actor, item, need)


def register_need(actor: Principal, item: Template, need: ServerNeed) -> McpServer:
    """Register one stdio server, list its tools, and say what is known of them."""
    server = servers.register_server(
        actor=actor,
        name=need.name,
        slug=need.slug,
        transport=Transport.STDIO,
        environment=need.environment,
        command=need.command,
        mounts=need.mounts,
    )
    # Servers of samples want their files to be there even to say which tools they have: a folder as of a mission, for
    # this once.
    folder = folder_of(server.pk)
    try:
        if item.files is not None:
            item.files(folder)
        refreshed = servers.refresh_tools(actor=actor, server_id=server.pk, context=RunContext(mission_id=server.pk))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if refreshed.fault:
        log.warning("demo.server_not_listed", server=need.slug, fault=refreshed.fault)
    for tool in server.tools.filter(name__in=need.traits):
        servers.describe_tool(actor=actor, tool_id=tool.pk, traits=need.traits[tool.name])
    return server


def start_first_mission(organisation: Organisation) -> Mission | None:
    """The Receivables mission, once per organisation."""
    if Mission.objects.filter(organisation=organisation).exists():
        return None
    actor = principal_of(NADIA, organisation)
    team = Team.objects.get(organisation=organisation, name=TEAM)
    mission = start_from_template(actor=actor, team_id=team.pk, code="receivables", values={})
    submit_mission(actor=actor, mission_id=mission.pk)
    return mission


def principal_of(person: Person, organisation: Organisation) -> Principal:
    user = User.objects.get(email__iexact=person.email)
    principal = tenancy.principal_of_user(user=user, organisation_id=organisation.pk)
    if principal is None:
        raise LookupError(f"{person.email} is not a member of {organisation.name}")
    return principal
