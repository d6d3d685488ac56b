"""The cast every test shares: Northwind with its people, and Charlie of another organisation, who must see nothing."""

from __future__ import annotations

import functools
import itertools
import os
import uuid
from collections.abc import Callable, Iterator
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.contrib.auth.hashers import make_password
from django.db import connection
from django.test import TransactionTestCase
from xdist.scheduler import LoadScopeScheduling

from agents.choices import MissionState, RunState, Runtime, VersionState
from agents.models import Agent, AgentVersion, Mission, MissionVersion, Run
from controlplane.celery import app as celery
from controlplane.common.clock import now
from controlplane.tenancy import services, tokens
from controlplane.tenancy.models import Membership, Organisation, Team, TokenKind, User
from controlplane.tenancy.types import Permission, Principal, Role
from governance.bundles import ensure_baseline

END_TO_END = "tests/end_to_end/"
CHROMIUM = Path("/usr/bin/chromium")
PASSWORD = "correct-horse-battery-staple"
_NUMBERS = itertools.count(1)


class _Together(LoadScopeScheduling):
    """A file's tests stay on one worker, and those that start a whole Remit share one."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.split("::", 1)[0]
        return file.rpartition("/")[0] if file.startswith(END_TO_END) else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    return _Together(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest begins first: whoever began it last would be waited for."""
    items.sort(key=lambda item: not item.nodeid.startswith(END_TO_END))


@pytest.fixture(scope="session", autouse=True)
def _own_queue(worker_id: str) -> None:
    """The workers of a test run share one Valkey: none may be handed what the tests of another one woke."""
    celery.conf.broker_transport_options |= {"global_keyprefix": f"{worker_id}:"}


@pytest.fixture(scope="session", autouse=True)
def _tests_with_threads_empty_what_they_filled() -> Iterator[None]:
    """Django would truncate every table, which the audit trail refuses, and fill those it makes itself once more: more
    than half a second after each such test. Only the baseline of the policies has to be there again."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TransactionTestCase, "_fixture_teardown", lambda _: _empty_tables())
        yield


def _empty_tables() -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT oid::regclass::text FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
            " AND pg_relation_size(oid) > 0 AND relname <> ALL (%s)",
            [["django_migrations", "django_content_type", "auth_permission"]],
        )
        tables = [name for (name,) in cursor.fetchall()]
        # As a replica does: without triggers, neither those that keep the trail nor those of foreign keys.
        cursor.execute("SET session_replication_role = replica")
        for name in tables:
            cursor.execute(f"DELETE FROM {name}")
        cursor.execute("RESET session_replication_role")
    ensure_baseline()


@functools.cache
def _password_hash() -> str:
    """Made once: the hasher is slow on purpose."""
    return make_password(PASSWORD)


@pytest.fixture(scope="session", autouse=True)
def _folder_of_static_files() -> None:
    """WhiteNoise warns when it is missing, and warnings are errors here."""
    Path(settings.STATIC_ROOT).mkdir(parents=True, exist_ok=True)


@pytest.fixture
def northwind(db: None) -> Organisation:
    return Organisation.objects.create(name="Northwind", slug="northwind")


@pytest.fixture
def team(northwind: Organisation) -> Team:
    """Where Alice and Bob work."""
    return Team.objects.create(organisation=northwind, name="Receivables", slug="receivables")


@pytest.fixture
def other_team(northwind: Organisation) -> Team:
    """A team of Northwind that neither Alice nor Bob is in."""
    return Team.objects.create(organisation=northwind, name="Logistics", slug="logistics")


@pytest.fixture
def make_person(db: None) -> Callable[..., User]:
    """`make_person("Alice", organisation, Role.BUILDER, team=team)`: a person who can sign in with PASSWORD."""

    def make(name: str, organisation: Organisation, *roles: Role, team: Team | None = None) -> User:
        email = f"{name.lower()}@{organisation.slug}.example"
        user = User.objects.create(email=email, name=name, password=_password_hash())
        for role in roles:
            Membership.objects.create(organisation=organisation, team=team, user=user, role=role.value)
        return user

    return make


@pytest.fixture
def nadia(make_person: Callable[..., User], northwind: Organisation) -> User:
    """Administers Northwind."""
    return make_person("Nadia", northwind, Role.ADMIN)


@pytest.fixture
def alice(make_person: Callable[..., User], northwind: Organisation, team: Team) -> User:
    """Owns the agent and the mission; a builder in the team."""
    return make_person("Alice", northwind, Role.BUILDER, team=team)


@pytest.fixture
def bob(make_person: Callable[..., User], northwind: Organisation, team: Team) -> User:
    """On the team, approver."""
    return make_person("Bob", northwind, Role.APPROVER, team=team)


@pytest.fixture
def dana(make_person: Callable[..., User], northwind: Organisation) -> User:
    """Approver for the whole organisation."""
    return make_person("Dana", northwind, Role.APPROVER)


@pytest.fixture
def finn(make_person: Callable[..., User], northwind: Organisation) -> User:
    """Finance, for the whole organisation."""
    return make_person("Finn", northwind, Role.FINANCE)


@pytest.fixture
def elsewhere(db: None) -> Organisation:
    """Charlie's organisation."""
    return Organisation.objects.create(name="Elsewhere", slug="elsewhere")


@pytest.fixture
def charlie(make_person: Callable[..., User], elsewhere: Organisation) -> User:
    """Every role, in another organisation: sees nothing of Northwind."""
    return make_person("Charlie", elsewhere, *Role)


@pytest.fixture
def acting() -> Callable[[User], Principal]:
    """The principal of a person, as the product makes it."""

    def of(user: User) -> Principal:
        principal = services.principal_of_user(user=user)
        assert principal is not None
        return principal

    return of


@pytest.fixture
def as_nadia(acting: Callable[[User], Principal], nadia: User) -> Principal:
    return acting(nadia)


@pytest.fixture
def as_alice(acting: Callable[[User], Principal], alice: User) -> Principal:
    return acting(alice)


@pytest.fixture
def as_bob(acting: Callable[[User], Principal], bob: User) -> Principal:
    return acting(bob)


@pytest.fixture
def as_dana(acting: Callable[[User], Principal], dana: User) -> Principal:
    return acting(dana)


@pytest.fixture
def as_finn(acting: Callable[[User], Principal], finn: User) -> Principal:
    return acting(finn)


@pytest.fixture
def as_charlie(acting: Callable[[User], Principal], charlie: User) -> Principal:
    return acting(charlie)


@pytest.fixture
def make_agent(team: Team, alice: User) -> Callable[..., Agent]:
    """An external agent of Alice's in the team, with its first version."""

    def make(name: str = "Clerk", **fields: object) -> Agent:
        values: dict[str, object] = {
            "organisation_id": team.organisation_id,
            "team": team,
            "owner": alice,
            "name": name,
            "slug": f"{name.lower()}-{next(_NUMBERS)}",
            "runtime": Runtime.EXTERNAL,
        }
        agent = Agent.objects.create(**{**values, **fields})
        AgentVersion.objects.create(agent=agent, number=1, label="1.0", created_by=agent.owner)
        return agent

    return make


@pytest.fixture
def agent(make_agent: Callable[..., Agent]) -> Agent:
    return make_agent()


@pytest.fixture
def make_mission(agent: Agent) -> Callable[..., Mission]:
    """An active mission with its version in force: rows only, no budget account and no policies."""

    def make(
        title: str = "Chase overdue invoices", *, grants: list[dict[str, object]] | None = None, **fields: object
    ) -> Mission:
        deadline = now() + timedelta(days=1)
        values: dict[str, object] = {
            "organisation_id": agent.organisation_id,
            "team_id": agent.team_id,
            "agent": agent,
            "owner": agent.owner,
            "title": title,
            "state": MissionState.ACTIVE,
            "created_by": agent.owner,
            "started_at": now(),
            "deadline": deadline,
        }
        mission = Mission.objects.create(**{**values, **fields})
        MissionVersion.objects.create(
            mission=mission,
            number=1,
            state=VersionState.ACTIVE,
            goal="Every overdue invoice has a reminder.",
            criteria=["Every overdue invoice has a reminder"],
            grants=grants or [],
            budget_money=Decimal(5),
            deadline=deadline,
            created_by=mission.created_by,
        )
        return mission

    return make


@pytest.fixture
def mission(make_mission: Callable[..., Mission]) -> Mission:
    return make_mission()


@pytest.fixture
def run(mission: Mission) -> Run:
    version = AgentVersion.objects.get(agent=mission.agent, number=1)
    return Run.objects.create(
        mission=mission, attempt=1, agent_version=version, state=RunState.RUNNING, started_at=now()
    )


@pytest.fixture
def issue_token(northwind: Organisation) -> Callable[..., str]:
    """The plain text of a fresh token of Northwind, valid for an hour."""

    def issue(kind: TokenKind, *, scopes: set[Permission] | None = None, **bound: object) -> str:
        fields: dict[str, object] = {
            "organisation_id": northwind.pk,
            "name": f"{kind.label} token",
            "expires_at": now() + timedelta(hours=1),
        }
        return tokens.issue(kind=kind, scopes=scopes, **{**fields, **bound})[1]  # type: ignore[arg-type]

    return issue


@pytest.fixture
def agent_token(issue_token: Callable[..., str], agent: Agent) -> str:
    return issue_token(TokenKind.AGENT, name=agent.name, team_id=agent.team_id, agent_id=agent.pk)


@pytest.fixture
def run_token(issue_token: Callable[..., str], run: Run) -> str:
    mission: Mission = run.mission
    return issue_token(
        TokenKind.RUN,
        name=mission.agent.name,
        team_id=mission.team_id,
        agent_id=mission.agent_id,
        mission_id=mission.pk,
        run_id=run.pk,
    )


@pytest.fixture
def as_agent(agent_token: str) -> Principal:
    return services.principal_of_token(agent_token)


@pytest.fixture
def as_run(run_token: str) -> Principal:
    return services.principal_of_token(run_token)


@pytest.fixture
def nobody() -> uuid.UUID:
    """A well-formed id of nothing."""
    return uuid.UUID("0190a000-0000-7000-8000-000000000000")


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup: None, django_db_blocker: Any) -> Iterator[None]:
    """The gateway's threads keep their connections as long as the process lives; the database can't be dropped under
    them."""
    yield
    with django_db_blocker.unblock(), connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """One browser a module: while it is open, this thread has a running loop, which other tests must not meet."""
    if not CHROMIUM.exists():
        if os.environ.get("REMIT_REQUIRE_BROWSER") == "1":
            pytest.fail(f"{CHROMIUM} is missing")
        pytest.skip(f"{CHROMIUM} is missing")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright, pytest.MonkeyPatch.context() as patch:
        # Playwright's loop lives in this thread between its calls; Django would refuse to read the database beside it.
        patch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "true")
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield browser
        browser.close()
