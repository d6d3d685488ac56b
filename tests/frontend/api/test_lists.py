"""Every list costs the same number of queries whatever its length, and shows nothing of another organisation."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from agents.models import Agent, AgentVersion, McpServer, McpTool, Mission, Run, Stop
from budgets import services as budgets
from budgets.types import Level, Limits, WindowKind
from controlplane.audit.events import Event
from controlplane.audit.services import Subject, record
from controlplane.clusters.models import Sandbox
from controlplane.clusters.services import local_cluster
from controlplane.common.clock import now
from controlplane.common.ids import new_id
from controlplane.tenancy.models import Organisation, Team, User
from controlplane.tenancy.types import Role, system_principal
from frontend.api.urls import documented
from governance.approval_models import ApprovalRoute, ApproverGroup
from governance.models import Action, Decision, Escalation
from tests.frontend.api.conftest import Api

LISTS = sorted(
    str(route.pattern)
    for route in documented
    if "<" not in str(route.pattern) and "get" in vars(route.callback.view_class) and ":" not in str(route.pattern)  # type: ignore[union-attr]
)
# A report, and what comes whole because it is short by its nature.
WHOLE = {
    *("api/v1/costs", "api/v1/templates", "api/v1/invitations", "api/v1/delegations", "api/v1/limit-changes"),
    *("api/v1/approver-groups", "api/v1/approval-routes", "api/v1/approver-health", "api/v1/broken-glass"),
    *(
        "api/v1/notices",
        "api/v1/audit-exports",
        "api/v1/policy-bundles",
        "api/v1/policy-bundles/active",
        "api/v1/sessions",
        "api/v1/me",
    ),
    *("api/v1/organisation", "api/v1/saved-views?list=missions", "api/v1/search?q=Mission"),
    f"api/v1/decisions?action={uuid.UUID(int=0)}",
}
_NEEDS = {
    "api/v1/saved-views": "?list=missions",
    "api/v1/search": "?q=Mission",
    "api/v1/decisions": f"?action={uuid.UUID(int=0)}",
}
LISTS = [path + _NEEDS.get(path, "") for path in LISTS]


@pytest.fixture
def more(
    northwind: Organisation,
    team: Team,
    make_agent: Callable[..., Agent],
    make_mission: Callable[..., Mission],
    make_person: Callable[..., User],
    nadia: User,
    api_of: Callable[..., Api],
) -> Callable[[int], None]:
    """`more(3)`: three more of everything that has a list."""

    def one(number: int) -> None:
        system = system_principal(organisation_id=northwind.pk)
        agent = make_agent(f"Agent{number}")
        mission = make_mission(f"Mission {number}")
        _run(mission, agent)
        account = budgets.open_account(
            actor=system,
            organisation_id=northwind.pk,
            team_id=team.pk,
            parent_id=None,
            level=Level.MISSION,
            name=f"Budget {number}",
            subject_type="mission",
            subject_id=mission.pk,
            limits=Limits(),
            window=WindowKind.TOTAL,
        )
        budgets.reserve(
            organisation_id=northwind.pk, hold_id=new_id(), account_id=account, amounts=_amounts(), ttl_seconds=60
        )
        Team.objects.create(organisation=northwind, name=f"Team {number}", slug=f"team-{number}")
        person = make_person(f"Person{number}", northwind, Role.AUDITOR)
        api_of(person)
        server = McpServer.objects.create(
            organisation=northwind, name=f"Server {number}", slug=f"s{number}", transport="http", created_by=nadia
        )
        McpTool.objects.create(
            server=server, name="read", qualified_name=f"s{number}__read", definition={}, definition_sha256="sha256:1"
        )
        Sandbox.objects.create(
            organisation=northwind,
            team=team,
            cluster=local_cluster(),
            purpose="run",
            owner_id=new_id(),
            name=f"sandbox-{number}",
            program="",
            wall_clock_seconds=1,
        )
        _question(northwind, team, mission)
        group = ApproverGroup.objects.create(organisation=northwind, name=f"Group {number}")
        group.members.add(nadia)
        ApprovalRoute.objects.create(organisation=northwind, position=number, name=f"Route {number}", group=group)
        Stop.objects.create(
            organisation=northwind, scope="agent", scope_id=agent.pk, name=agent.name, reason="", by=nadia, at=now()
        )
        record(event=Event.AGENT_RETIRED, actor=system, subject=Subject("agent", agent.pk, agent.name, team.pk))

    numbers = iter(range(1000))
    return lambda count: [one(next(numbers)) for _ in range(count)] and None


def _amounts() -> Any:
    from budgets.types import Amounts

    return Amounts(steps=1)


def _run(mission: Mission, agent: Agent) -> None:
    version = AgentVersion.objects.filter(agent=agent).get()
    Run.objects.create(mission=mission, attempt=1, agent_version=version, started_at=now())


def _question(organisation: Organisation, team: Team, mission: Mission) -> None:
    common = {"organisation": organisation, "verdict": "escalate", "digest": "sha256:1", "created_at": now()}
    action = Action.objects.create(
        **common,
        team=team,
        kind="tool.call",
        title="Call",
        proposer_kind="run",
        proposer_id=new_id(),
        proposer_name="Run",
        state="waiting",
        mission_id=mission.pk,
    )
    decision = Decision.objects.create(**common, action=action, stages=[], duration_microseconds=1)
    Escalation.objects.create(
        organisation=organisation,
        team=team,
        action=action,
        decision=decision,
        kind="tool.call",
        title="Call",
        opened_at=now(),
        expires_at=now(),
        mission_id=mission.pk,
    )


@pytest.mark.parametrize("path", LISTS)
def test_a_list_costs_the_same_whatever_its_length(nadia_api: Api, more: Callable[[int], None], path: str) -> None:
    path = path.removeprefix("api/v1/")
    more(1)
    nadia_api.get(path)  # notes when the token was last used
    with CaptureQueriesContext(connection) as few:
        first = nadia_api.get(path)
    more(4)
    with CaptureQueriesContext(connection) as many:
        second = nadia_api.get(path)
    assert len(few) == len(many), [query["sql"][:120] for query in many]
    if f"api/v1/{path}" not in WHOLE:
        assert len(second.json()["items"]) >= len(first.json()["items"]) + 4


@pytest.mark.parametrize("path", LISTS)
def test_a_list_shows_nothing_of_another_organisation(
    charlie_api: Api, more: Callable[[int], None], path: str, northwind: Organisation
) -> None:
    more(1)
    text = charlie_api.get(path.removeprefix("api/v1/")).content.decode()
    for name in ("Agent0", "Mission 0", "Budget 0", "Team 0", "Person0", "Server 0", "sandbox-0", str(northwind.pk)):
        assert name not in text


def test_a_page_holds_no_more_than_was_asked_for(nadia_api: Api, more: Callable[[int], None]) -> None:
    more(3)
    for path in LISTS:
        if path in WHOLE:
            continue
        answer = nadia_api.get(f"{path.removeprefix('api/v1/')}?limit=1")
        assert len(answer.json()["items"]) == 1, path
        assert answer.json()["next"], path
