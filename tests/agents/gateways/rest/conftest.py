"""Others who reach the same address: another agent, a person of the team, a person of another organisation."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import timedelta

import pytest

from agents import services
from agents.choices import Runtime
from agents.services.onboarding import Person, create_organisation
from budgets.types import Limits as Money
from controlplane.common.clock import now
from controlplane.tenancy import credentials, tokens
from controlplane.tenancy.models import Organisation, Team, TokenKind, User
from controlplane.tenancy.types import Principal, Role
from tests.agents.gateways.rest_client import Api


@pytest.fixture
def make_rival(address: str, company: Organisation, owner: Principal) -> Callable[[], Api]:
    """Another agent of the same team with a mission and a run token of its own."""

    def make() -> Api:
        team = Team.objects.get(organisation=company)
        agent = services.register_agent(
            actor=owner, team_id=team.pk, name=f"Rival {uuid.uuid4().hex[:6]}", runtime=Runtime.EXTERNAL
        )
        text = tokens.issue(
            kind=TokenKind.AGENT,
            organisation_id=company.pk,
            team_id=team.pk,
            agent_id=agent.pk,
            name=agent.name,
            expires_at=now() + timedelta(hours=1),
        )[1]
        return Api(address, text)

    return make


@pytest.fixture
def stranger(address: str) -> Api:
    """A person of another organisation, with every role there."""
    other = create_organisation(
        name="Elsewhere",
        currency="USD",
        monthly_limit=Money(),
        teams={"Sales": Money()},
        people=(Person("charlie@elsewhere.example", "Charlie", tuple(Role), None),),
    )
    user = User.objects.get(email="charlie@elsewhere.example")
    text = tokens.issue(
        kind=TokenKind.PERSON,
        organisation_id=other.pk,
        user_id=user.pk,
        name="Charlie",
        expires_at=now() + timedelta(hours=1),
    )[1]
    return Api(address, text)


@pytest.fixture
def person_token(owner: Principal) -> str:
    user = User.objects.get(pk=owner.user_id)
    return credentials.issue_personal_token(
        principal=owner, user=user, name="laptop", expires_at=now() + timedelta(days=1)
    )[1]
