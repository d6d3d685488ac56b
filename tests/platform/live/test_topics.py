"""Pages hear of what they may see, and of nothing else."""

from __future__ import annotations

import pytest
from django.db import transaction

from agents.models import Stop
from budgets import services as budgets
from budgets.types import Level, Limits, WindowKind
from controlplane.common.clock import now
from controlplane.common.ids import new_id
from controlplane.live.services import _CHECKS, announce
from controlplane.tenancy.models import TokenKind
from controlplane.tenancy.types import system_principal
from governance.models import Action

from .listening import topic_of

pytestmark = pytest.mark.django_db(transaction=True)


def test_charlie_is_refused_a_foreign_topic_and_hears_nothing_of_it(open_page, alice, charlie, mission) -> None:
    page, owner = open_page(charlie), open_page(alice)
    organisation = f"organisation:{mission.organisation_id}"
    page.say({"subscribe": [topic_of(mission), organisation]})
    assert page.hear() == {"refused": [topic_of(mission), organisation]}
    owner.say({"subscribe": [topic_of(mission)]})
    owner.hear()
    announce(topic_of(mission), "actions")
    assert owner.hear()["what"] == "actions"
    with pytest.raises(TimeoutError):
        page.hear(0.5)


@pytest.mark.parametrize(
    "topic", ["mission:nothing", "moon:1", "mission:00000000-0000-0000-0000-000000000000", "mission:MISSION"]
)
def test_topics_of_nothing_are_refused_alike(topic, open_page, alice) -> None:
    page = open_page(alice)
    page.say({"subscribe": [topic]})
    assert page.hear() == {"refused": [topic]}


def test_a_run_hears_of_its_own_mission_only(open_page, run_token, mission, make_mission) -> None:
    other = make_mission("Another")
    page = open_page(token=run_token)
    page.say({"subscribe": [topic_of(mission), topic_of(other)]})
    assert page.hear() == {"subscribed": [topic_of(mission)]}
    assert page.hear() == {"refused": [topic_of(other)]}


def test_a_token_kind_without_live_topics_is_simply_refused(open_page, issue_token, mission) -> None:
    page = open_page(token=issue_token(TokenKind.SERVICE))
    page.say({"subscribe": [topic_of(mission), "approvals:nothing"]})
    assert page.hear() == {"subscribed": [topic_of(mission)]}
    assert page.hear() == {"refused": ["approvals:nothing"]}


def rows_of(mission) -> dict[str, object]:
    """For each kind of topic what a stranger would name in it."""
    common = {"organisation_id": mission.organisation_id, "team_id": mission.team_id}
    action = Action.objects.create(
        **common,
        kind="tool.call",
        title="Call",
        proposer_kind="run",
        proposer_id=new_id(),
        proposer_name="Run",
        state="waiting",
        verdict="escalate",
        digest="sha256:1",
        mission_id=mission.pk,
        created_at=now(),
    )
    stop = Stop.objects.create(
        **common, scope="agent", scope_id=mission.agent_id, name="the agent", by=mission.owner, at=now()
    )
    budget = budgets.open_account(
        actor=system_principal(organisation_id=mission.organisation_id),
        organisation_id=mission.organisation_id,
        team_id=mission.team_id,
        parent_id=None,
        level=Level.TEAM,
        name="Receivables",
        subject_type="team",
        subject_id=mission.team_id,
        limits=Limits(),
        window=WindowKind.MONTH,
    )
    return {
        "mission": mission.pk,
        "agent": mission.agent_id,
        "action": action.pk,
        "stop": stop.pk,
        "budget": budget,
        "organisation": mission.organisation_id,
        "approvals": mission.organisation_id,
        "warnings": mission.organisation_id,
        "person": mission.owner_id,
    }


def test_nobody_hears_of_a_row_of_another_organisation(open_page, charlie, nadia, alice, mission) -> None:
    rows = rows_of(mission)
    assert set(rows) == set(_CHECKS), "say in rows_of which row of Northwind a stranger would name"
    topics = [f"{kind}:{identifier}" for kind, identifier in rows.items()]
    page = open_page(charlie)
    page.say({"subscribe": topics})
    assert page.hear() == {"refused": topics}
    with transaction.atomic():
        for topic in topics:
            announce(topic, "everything")
    with pytest.raises(TimeoutError):
        page.hear(1)
    own = open_page(nadia)
    own.say({"subscribe": topics})
    assert own.hear() == {"subscribed": [topic for topic in topics if not topic.startswith("person:")]}
