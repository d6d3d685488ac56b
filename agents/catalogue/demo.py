"""The demo organisation: three people, three servers, and a first mission that starts by itself."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from functools import partial
from pathlib import Path

import structlog
from django.conf import settings

from agents.catalogue.readiness import readiness_of
from agents.catalogue.sample_folders import sample_folder
from agents.catalogue.templates import TEMPLATES, start_from_template
from agents.catalogue.types import ServerNeed, Template
from agents.choices import Runtime, ServerState, Transport
from agents.models import McpServer, Mission
from agents.servers import services as servers
from agents.servers.environments import EnvironmentUnavailable, environment
from agents.servers.selectors import address_of
from agents.services import submit_mission
from agents.services.onboarding import Person, create_organisation
from budgets.types import Limits
from controlplane.common import installing
from controlplane.common.errors import RemitError, conflict
from controlplane.common.installing import Installing
from controlplane.live.services import announce
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
FIRST = "receivables"
# While much else starts, a program may be too slow at first.
READ_AGAIN_SECONDS = (3.0, 15.0)

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


class Playing:
    """Installs what the templates need, one template after the other, and starts the first mission on its way.

    Where it is stands in the state folder, and open pages are told at every step. What can't be had is said and left
    out: the other samples come all the same.
    """

    def __init__(self, organisation: Organisation, say: Say) -> None:
        self._organisation = organisation
        self._say = say
        self._state = Path(settings.CONFIG.state_dir)
        total = sum(len(names) + len(item.servers) for item, names in _environments())
        self._at = Installing(organisation.slug, total=total)

    def play(self) -> Mission | None:
        mission = None
        for item, names in _environments():
            for name in names:
                self._step(f"Installing the environment of {name}", partial(environment, name))
            for need in item.servers:
                self._step(f"Reading the tools of {need.name}", partial(register_need, self._actor, need))
            if item.code == FIRST and readiness_of(self._actor, item, None).ready:
                mission = start_first_mission(self._organisation)
        return mission

    def fail(self, sentence: str) -> None:
        self._show(replace(self._at, failure=sentence))

    @property
    def _actor(self) -> Principal:
        return principal_of(NADIA, self._organisation)

    def _step(self, sentence: str, work: Callable[[], object]) -> None:
        self._say(sentence)
        self._show(replace(self._at, step=sentence))
        left_out = self._at.left_out
        try:
            work()
        except EnvironmentUnavailable as error:
            left_out = (*left_out, f"{sentence}: {error.message} {error.remedy}")
        except RemitError as error:
            left_out = (*left_out, " ".join((f"{sentence}: {error.message}", *error.remedies)))
        for reason in left_out[len(self._at.left_out) :]:
            self._say(reason)
        self._show(replace(self._at, done=self._at.done + 1, left_out=left_out))

    def _show(self, at: Installing) -> None:
        self._at = at
        installing.write(self._state, at)
        self._tell()

    def _tell(self) -> None:
        announce(f"organisation:{self._organisation.pk}", "samples")


def _environments() -> list[tuple[Template, list[str]]]:
    """Each template with the environments it needs that no template before it needed."""
    seen: set[str] = set()
    wanted = []
    for item in TEMPLATES.values():
        programs = ["agent"] if item.runtime == Runtime.MANAGED else []
        names = [name for name in (*programs, *(need.environment for need in item.servers)) if name not in seen]
        seen.update(names)
        wanted.append((item, names))
    return wanted


def register_need(actor: Principal, need: ServerNeed) -> McpServer:
    """Register one stdio server, list its tools, and say what is known of them. One that is there already is only
    listed, if it is this very program and never was. Raises 409 `demo.tools_not_read`."""
    found = McpServer.objects.filter(organisation_id=actor.organisation_id, slug=need.slug).first()
    if found is not None and (found.protocol_version or not _is_of(found, need)):
        return found
    server = found or servers.register_server(
        actor=actor,
        name=need.name,
        slug=need.slug,
        transport=Transport.STDIO,
        environment=need.environment,
        command=need.command,
        mounts=need.mounts,
    )
    _read_tools(actor, server)
    for tool in server.tools.filter(name__in=need.traits):
        servers.describe_tool(actor=actor, tool_id=tool.pk, traits=need.traits[tool.name])
    return server


def _is_of(server: McpServer, need: ServerNeed) -> bool:
    program = (server.environment, tuple(server.command))
    return server.state != ServerState.DISABLED and program == (need.environment, tuple(need.command))


def _read_tools(actor: Principal, server: McpServer) -> None:
    for pause in (*READ_AGAIN_SECONDS, None):
        with sample_folder(address_of(server)) as context:
            refreshed = servers.refresh_tools(actor=actor, server_id=server.pk, context=context)
        if not refreshed.fault:
            return
        log.warning("demo.server_not_listed", server=server.slug, fault=refreshed.fault)
        if pause is None:
            raise conflict(
                "demo.tools_not_read",
                f"The server is registered, its tools could not be read. {refreshed.fault}",
                "Press “Read its tools” on its page, under Servers.",
            )
        time.sleep(pause)


def start_first_mission(organisation: Organisation) -> Mission | None:
    """The Receivables mission, once per organisation."""
    if Mission.objects.filter(organisation=organisation).exists():
        return None
    actor = principal_of(NADIA, organisation)
    team = Team.objects.get(organisation=organisation, name=TEAM)
    mission = start_from_template(actor=actor, team_id=team.pk, code=FIRST, values={})
    submit_mission(actor=actor, mission_id=mission.pk)
    return mission


def principal_of(person: Person, organisation: Organisation) -> Principal:
    user = User.objects.get(email__iexact=person.email)
    principal = tenancy.principal_of_user(user=user, organisation_id=organisation.pk)
    if principal is None:
        raise LookupError(f"{person.email} is not a member of {organisation.name}")
    return principal
