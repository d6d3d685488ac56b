"""Whose mission it is hears what others did to it, and what waits for their word; who did it themselves does not."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal

import pytest

from agents import services
from agents.choices import MissionState, StopScope
from agents.models import Mission
from controlplane.common.clock import now
from controlplane.common.ids import new_id
from controlplane.tenancy import services as tenancy
from controlplane.tenancy.models import Membership, Organisation, Team
from controlplane.tenancy.types import Principal
from governance import selectors as governance
from governance import services as gate
from governance.choices import ActionState
from governance.models import Escalation

pytestmark = pytest.mark.django_db


@pytest.fixture
def nadia(person: Callable[[str], Principal]) -> Principal:
    return person("nadia")


@pytest.fixture
def mission(start: Callable[..., Mission]) -> Mission:
    made = start()
    assert made.state == MissionState.ACTIVE
    return made


def told(person: Principal) -> list[str]:
    return [f"{notice.kind} {notice.text}" for notice in reversed(governance.notices_of(person))]


def ask(actor: Principal, mission: Mission, money: str = "5.00") -> Escalation:
    asked = services.ask_for_budget(
        actor=actor, mission_id=mission.pk, money=money, reason="More invoices", key=new_id()
    )
    assert asked.state is ActionState.WAITING
    return Escalation.objects.get(action_id=asked.action_id)


def test_a_claimed_outcome_is_told_once_to_the_owner(alice: Principal, nadia: Principal, mission: Mission) -> None:
    run = tenancy.principal_of_token(services.issue_run_token(actor=alice, mission_id=mission.pk))
    for summary in ("Done", "Done, truly"):
        services.claim_outcome(principal=run, summary=summary)
    assert told(alice) == ["mission Outcome to accept: Clerk"]
    assert governance.count_unread(alice) == 1
    assert told(nadia) == []
    assert gate.mark_read(principal=alice) == 1
    assert governance.count_unread(alice) == 0


@pytest.mark.parametrize("word", ["accepted", "rejected", "stopped", "expired"])
@pytest.mark.parametrize("by_owner", [True, False])
def test_a_claim_that_was_judged_or_ended_asks_its_owner_no_more(
    alice: Principal, nadia: Principal, mission: Mission, start: Callable[..., Mission], word: str, by_owner: bool
) -> None:
    other, judge = start("Other"), alice if by_owner else nadia
    for one in (mission, other):
        run = tenancy.principal_of_token(services.issue_run_token(actor=alice, mission_id=one.pk))
        services.claim_outcome(principal=run, summary="Done")
    mission.refresh_from_db()
    claim = str((mission.claim or {})["at"])
    match word:
        case "accepted":
            services.accept_outcome(actor=judge, mission_id=mission.pk, claim=claim)
        case "rejected":
            services.reject_outcome(actor=judge, mission_id=mission.pk, claim=claim, reason="Not so")
        case "stopped":
            services.stop_mission(actor=judge, mission_id=mission.pk, reason="Enough")
        case "expired":
            Mission.objects.filter(pk=mission.pk).update(deadline=now() - timedelta(seconds=1))
            assert services.expire_missions() == 1
    news = {"stopped": ["mission Stopped: Clerk"], "expired": ["mission Expired: Clerk"]}
    heard = news.get(word, [f"mission Outcome {word}: Clerk"]) if not by_owner or word == "expired" else []
    assert told(alice) == ["mission Outcome claimed: Clerk", "mission Outcome to accept: Other", *heard]
    unread = [notice.text for notice in governance.notices_of(alice) if notice.read_at is None]
    assert governance.count_unread(alice) == len(unread) == 1 + len(heard)
    assert "Outcome claimed: Clerk" not in unread


@pytest.mark.parametrize("scope", [StopScope.MISSION, StopScope.AGENT, StopScope.TEAM])
def test_a_change_that_waits_is_told_to_who_asked_for_it_when_a_stop_withdraws_it(
    alice: Principal, nadia: Principal, person: Callable[[str], Principal], mission: Mission, scope: StopScope
) -> None:
    remit = services.Remit(
        goal="Every overdue invoice has a reminder.",
        criteria=["Reminders are written"],
        grants=[],
        budget_money=Decimal("90.00"),
        deadline=now() + timedelta(hours=8),
    )
    services.change_mission(actor=alice, mission_id=mission.pk, remit=remit, note="More", expected_version=1)
    where = {StopScope.MISSION: mission.pk, StopScope.AGENT: mission.agent_id, StopScope.TEAM: mission.team_id}
    services.stop(actor=nadia, scope=scope, scope_id=where[scope], reason="Look first")
    assert Escalation.objects.get().state == "withdrawn"
    assert "request Withdrawn: Change “Clerk” to version 2" in told(alice)


def test_pausing_and_stopping_are_told_to_the_owner_unless_it_was_them(
    alice: Principal, nadia: Principal, mission: Mission, start: Callable[..., Mission]
) -> None:
    services.pause_mission(actor=alice, mission_id=mission.pk)
    services.resume_mission(actor=alice, mission_id=mission.pk)
    services.stop_mission(actor=alice, mission_id=start("Own").pk, reason="Enough")
    assert told(alice) == []
    services.pause_mission(actor=nadia, mission_id=mission.pk)
    services.resume_mission(actor=nadia, mission_id=mission.pk)
    other = start("Other")
    services.stop(actor=nadia, scope=StopScope.TEAM, scope_id=mission.team_id, reason="Look first")
    services.stop_mission(actor=nadia, mission_id=other.pk, reason="Wrong")
    assert sorted(told(alice)) == [
        "mission Paused: Clerk",
        "mission Paused: Clerk",
        "mission Paused: Other",
        "mission Stopped: Other",
    ]
    assert told(nadia) == []


def test_a_deadline_that_passed_is_told(alice: Principal, mission: Mission) -> None:
    Mission.objects.filter(pk=mission.pk).update(deadline=now() - timedelta(seconds=1))
    assert services.expire_missions() == 1
    assert told(alice) == ["mission Expired: Clerk"]


@pytest.mark.parametrize(("approve", "word"), [(True, "Approved"), (False, "Refused")])
def test_an_answered_request_for_budget_is_told_to_who_asked_and_to_the_owner(
    alice: Principal, nadia: Principal, person: Callable[[str], Principal], mission: Mission, approve: bool, word: str
) -> None:
    question = ask(nadia, mission)
    gate.decide(
        approver=person("bob"), escalation_id=question.pk, version=question.version, approve=approve, reason="So"
    )
    expected = [f"request {word}: $5.00 more for “Clerk”"]
    assert (told(alice), told(nadia), told(person("bob"))) == (expected, expected, [])
    notice = governance.notices_of(alice)[0]
    assert (notice.subject_type, notice.subject_id, notice.mail) == ("mission", mission.pk, False)


def test_a_request_withdrawn_by_a_stop_is_told_and_one_taken_back_by_who_asked_is_not(
    alice: Principal, nadia: Principal, mission: Mission
) -> None:
    gate.withdraw(actor=alice, action_id=ask(alice, mission).action_id)
    assert told(alice) == []
    ask(alice, mission, "6.00")
    services.stop_mission(actor=nadia, mission_id=mission.pk, reason="Wrong")
    assert sorted(told(alice)) == ["mission Stopped: Clerk", "request Withdrawn: $6.00 more for “Clerk”"]


def test_a_lapsed_request_is_told(alice: Principal, mission: Mission) -> None:
    Escalation.objects.filter(pk=ask(alice, mission).pk).update(expires_at=now() - timedelta(seconds=1))
    gate.sweep()
    assert told(alice) == ["request Not answered in time: $5.00 more for “Clerk”"]


@pytest.mark.parametrize(("approve", "word"), [(True, "Approved"), (False, "Refused")])
def test_an_answered_sign_off_and_widening_are_told(
    alice: Principal, person: Callable[[str], Principal], mission: Mission, approve: bool, word: str
) -> None:
    remit = services.Remit(
        goal="Every overdue invoice has a reminder.",
        criteria=["Reminders are written"],
        grants=(),
        budget_money=Decimal(20),
        deadline=now() + timedelta(hours=8),
    )
    large = services.draft_mission(actor=alice, agent_id=mission.agent_id, title="Large", remit=remit)
    services.submit_mission(actor=alice, mission_id=large.pk)
    services.change_mission(actor=alice, mission_id=mission.pk, remit=remit, note="More", expected_version=1)
    for question in Escalation.objects.order_by("id"):
        gate.decide(
            approver=person("bob"), escalation_id=question.pk, version=question.version, approve=approve, reason="So"
        )
    assert told(alice) == [f"request {word}: Start “Large”", f"request {word}: Change “Clerk” to version 2"]


def test_who_may_no_longer_see_the_team_reads_nothing_of_it(
    alice: Principal, nadia: Principal, person: Callable[[str], Principal], mission: Mission, company: Organisation
) -> None:
    services.pause_mission(actor=nadia, mission_id=mission.pk)
    assert told(alice) == ["mission Paused: Clerk"]
    elsewhere = Team.objects.create(organisation=company, name="Sales", slug="sales")
    Membership.objects.filter(user_id=alice.user_id).update(team=elsewhere)
    assert told(person("alice")) == []
