"""Lifting a stop is a decision of its own: judged by the gate, by a second person where much is at stake."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from agents import services, stops
from agents.choices import MissionState, RunState, StopScope
from agents.models import Stop
from agents.services.runs import end_run
from budgets import services as budgets
from budgets.models import Account, Window
from budgets.types import Limits, WindowKind
from controlplane.audit.events import Event
from controlplane.audit.models import Entry
from controlplane.common.errors import RemitError
from controlplane.tenancy.models import Membership, Organisation, User
from governance import services as gate
from governance.choices import ActionState, EscalationState
from governance.models import Escalation

pytestmark = pytest.mark.django_db


def in_force(stop: Stop) -> bool:
    stop.refresh_from_db()
    return stop.in_force


@pytest.fixture
def stopped(work: Any, person: Any) -> Any:
    def make(scope: StopScope, money: str = "1") -> tuple[Any, Stop]:
        clerk = work(money=money)
        keys = {
            StopScope.AGENT: clerk.agent.pk,
            StopScope.TEAM: clerk.mission.team_id,
            StopScope.ORGANISATION: clerk.mission.organisation_id,
        }
        stop = services.stop(actor=person("Nadia"), scope=scope, scope_id=keys[scope], reason="Look first")
        return clerk, stop

    return make


def approve(judgement: Any, approver: Any) -> Escalation:
    return gate.decide(
        approver=approver, escalation_id=judgement.escalation.id, version=1, approve=True, reason="It is safe now"
    )


def test_one_person_lifts_the_stop_of_an_agent_over_little_money(stopped, person) -> None:
    clerk, stop = stopped(StopScope.AGENT)
    judgement = services.ask_to_lift(actor=person("Alice"), stop_id=stop.pk, resume=False)
    assert judgement.state == ActionState.SUCCEEDED
    assert not in_force(stop)
    assert stop.lifted_by.name == "Alice"
    assert not Account.objects.filter(frozen=True).exists()
    clerk.mission.refresh_from_db()
    assert clerk.mission.state == MissionState.PAUSED
    assert "was lifted" in clerk.mission.state_reason
    services.resume_mission(actor=person("Alice"), mission_id=clerk.mission.pk)
    assert services.restart_run(actor=person("Alice"), mission_id=clerk.mission.pk).attempt == 2
    assert Entry.objects.filter(event=Event.STOP_LIFTED).count() == 1


def test_over_more_money_than_one_may_sign_off_a_second_person_is_asked(stopped, person) -> None:
    Organisation.objects.update(sign_off_above="0.50")
    _, stop = stopped(StopScope.AGENT, "0.40")
    assert stops.at_stake(stop)[0] < 1
    Organisation.objects.update(sign_off_above="0.30")
    judgement = services.ask_to_lift(actor=person("Alice"), stop_id=stop.pk, resume=False)
    assert (judgement.state, judgement.reason_code) == (ActionState.WAITING, "stop.lift_needs_approval")
    assert in_force(stop)
    approve(judgement, person("Bob"))
    assert not in_force(stop)
    assert stop.lifted_by.name == "Bob"


def test_money_of_a_mission_that_was_paused_before_the_stop_is_at_stake_too(company, person, work) -> None:
    clerk = work("Clerk")
    Organisation.objects.update(sign_off_above="0.50")
    services.pause_mission(actor=person("Alice"), mission_id=clerk.mission.pk)
    stop = services.stop(actor=person("Nadia"), scope=StopScope.AGENT, scope_id=clerk.agent.pk, reason="Look first")
    judgement = services.ask_to_lift(actor=person("Alice"), stop_id=stop.pk, resume=False)
    assert (judgement.state, judgement.reason_code) == (ActionState.WAITING, "stop.lift_needs_approval")
    assert in_force(stop)


@pytest.mark.parametrize("scope", [StopScope.TEAM, StopScope.ORGANISATION])
def test_the_stop_of_a_team_or_the_organisation_is_lifted_by_someone_else_than_who_asks(scope, stopped, person) -> None:
    _, stop = stopped(scope)
    judgement = services.ask_to_lift(actor=person("Nadia"), stop_id=stop.pk, resume=False)
    assert judgement.state == ActionState.WAITING
    with pytest.raises(RemitError) as refused:
        approve(judgement, person("Nadia"))
    assert refused.value.code == "escalation.four_eyes"
    assert in_force(stop)
    approve(judgement, person("Dana"))
    assert not in_force(stop)


def test_the_stop_of_the_organisation_is_not_lifted_by_an_approver_of_one_team(stopped, person) -> None:
    _, stop = stopped(StopScope.ORGANISATION)
    judgement = services.ask_to_lift(actor=person("Nadia"), stop_id=stop.pk, resume=False)
    with pytest.raises(RemitError) as refused:
        approve(judgement, person("Bob"))
    assert refused.value.status == 403
    assert in_force(stop)
    assert Escalation.objects.get(pk=judgement.escalation.id).state == EscalationState.OPEN


def test_a_refused_lifting_leaves_the_stop_as_it_is(stopped, person) -> None:
    _, stop = stopped(StopScope.TEAM)
    judgement = services.ask_to_lift(actor=person("Alice"), stop_id=stop.pk, resume=True)
    gate.decide(
        approver=person("Dana"), escalation_id=judgement.escalation.id, version=1, approve=False, reason="Not yet"
    )
    assert in_force(stop)
    assert Account.objects.filter(frozen=True).count() == 1
    assert services.resume_lifted() == 0


@pytest.mark.parametrize("name", ["Bob", "Dana", "Finn", "Lars", "Odile", "Charlie"])
def test_who_may_not_stop_it_may_not_ask_for_its_end(name, stopped, person) -> None:
    _, stop = stopped(StopScope.TEAM)
    with pytest.raises(RemitError) as refused:
        services.ask_to_lift(actor=person(name), stop_id=stop.pk, resume=True)
    assert refused.value.status == 404
    assert in_force(stop)
    assert not Escalation.objects.exists()


def test_a_stop_is_lifted_once(stopped, person) -> None:
    _, stop = stopped(StopScope.AGENT)
    services.ask_to_lift(actor=person("Alice"), stop_id=stop.pk, resume=False)
    again = services.ask_to_lift(actor=person("Nadia"), stop_id=stop.pk, resume=True)
    assert (again.verdict, again.reason_code) == ("deny", "stop.lifted")
    stop.refresh_from_db()
    assert stop.lifted_by.name == "Alice"
    assert not stop.resume


def test_a_stopped_mission_is_over_and_can_not_be_lifted(work, person) -> None:
    clerk = work()
    stop = services.stop(actor=person("Alice"), scope=StopScope.MISSION, scope_id=clerk.mission.pk)
    assert services.ask_to_lift(actor=person("Alice"), stop_id=stop.pk, resume=True).reason_code == "stop.final"


def test_missions_go_on_by_themselves_only_when_whoever_lifts_asks_for_it(work, person) -> None:
    clerk = work()
    idle = work(agent=clerk.agent)
    services.pause_mission(actor=person("Alice"), mission_id=idle.mission.pk, reason="Lunch")
    stop = services.stop(actor=person("Alice"), scope=StopScope.AGENT, scope_id=clerk.agent.pk)
    services.ask_to_lift(actor=person("Alice"), stop_id=stop.pk, resume=True)
    assert services.resume_lifted() == 1
    assert services.resume_lifted() == 0
    states = {}
    for item in (clerk, idle):
        item.mission.refresh_from_db()
        states[item.mission.pk] = (item.mission.state, item.run.attempt, item.run.state)
    assert states == {
        clerk.mission.pk: (MissionState.ACTIVE, 2, RunState.PENDING),
        idle.mission.pk: (MissionState.PAUSED, 1, RunState.STOPPED),
    }


def test_work_that_was_done_when_it_was_stopped_is_not_done_and_paid_for_again(work, person) -> None:
    clerk = work()
    claimed, ended = work(agent=clerk.agent), work(agent=clerk.agent)
    services.claim_outcome(principal=claimed.principal(), summary="All reminders are written")
    end_run(actor=person("Alice"), run=ended.run, state=RunState.SUCCEEDED, reason="Its program ended")
    stop = services.stop(actor=person("Alice"), scope=StopScope.AGENT, scope_id=clerk.agent.pk)
    services.ask_to_lift(actor=person("Alice"), stop_id=stop.pk, resume=True)
    assert services.resume_lifted() == 3
    states = []
    for item in (clerk, claimed, ended):
        item.mission.refresh_from_db()
        states.append((item.mission.state, item.run.attempt, item.run.state))
    assert states == [
        (MissionState.ACTIVE, 2, RunState.PENDING),
        (MissionState.ACTIVE, 1, RunState.STOPPED),
        (MissionState.ACTIVE, 1, RunState.SUCCEEDED),
    ]


def test_what_was_frozen_for_another_reason_stays_frozen(stopped, work, person) -> None:
    before = work("Reader")
    budgets.freeze(actor=person("Finn"), account_id=before.agent.account_id, reason="Audit")
    known = services.stop(actor=person("Alice"), scope=StopScope.AGENT, scope_id=before.agent.pk)
    clerk, stop = stopped(StopScope.AGENT)
    budgets.freeze(actor=person("Finn"), account_id=clerk.agent.account_id, reason="Looks odd")
    for each in (known, stop):
        services.ask_to_lift(actor=person("Nadia"), stop_id=each.pk, resume=False)
        assert not in_force(each)
    frozen = Account.objects.filter(frozen=True)
    assert set(frozen.values_list("frozen_reason", flat=True)) == {"Audit", "Looks odd"}


def test_a_window_that_was_overrun_stays_frozen(work, person) -> None:
    clerk = work()
    account_id, limits = clerk.agent.account_id, Limits(money=Decimal(1))
    budgets.set_limit(actor=person("Finn"), account_id=account_id, window=WindowKind.MONTH, limits=limits)
    stop = services.stop(actor=person("Alice"), scope=StopScope.AGENT, scope_id=clerk.agent.pk)
    Window.objects.filter(account_id=account_id).update(overrun_money=3)
    services.ask_to_lift(actor=person("Alice"), stop_id=stop.pk, resume=False)
    assert not Account.objects.get(pk=account_id).frozen
    assert set(Window.objects.filter(account_id=account_id).values_list("frozen", flat=True)) == {True}


def test_under_a_wider_stop_the_lifting_of_a_narrow_one_starts_nothing(work, person) -> None:
    clerk = work()
    narrow = services.stop(actor=person("Alice"), scope=StopScope.AGENT, scope_id=clerk.agent.pk, reason="One")
    wide = services.stop(actor=person("Nadia"), scope=StopScope.TEAM, scope_id=clerk.mission.team_id, reason="All")
    services.ask_to_lift(actor=person("Alice"), stop_id=narrow.pk, resume=True)
    assert not in_force(narrow)
    assert services.resume_lifted() == 0
    clerk.mission.refresh_from_db()
    assert (clerk.mission.state, clerk.mission.paused_by_id) == (MissionState.PAUSED, wide.pk)
    assert "All" in clerk.mission.state_reason
    asked = services.ask_to_lift(actor=person("Nadia"), stop_id=wide.pk, resume=True)
    approve(asked, person("Dana"))
    assert services.resume_lifted() == 1


def test_a_lifting_that_waits_survives_another_stop(stopped, person) -> None:
    _, stop = stopped(StopScope.TEAM)
    judgement = services.ask_to_lift(actor=person("Alice"), stop_id=stop.pk, resume=False)
    services.stop(actor=person("Nadia"), scope=StopScope.ORGANISATION, scope_id=stop.organisation_id)
    approve(judgement, person("Dana"))
    assert not in_force(stop)


def test_who_lost_their_role_meanwhile_lifts_nothing(stopped, person) -> None:
    _, stop = stopped(StopScope.TEAM)
    judgement = services.ask_to_lift(actor=person("Alice"), stop_id=stop.pk, resume=False)
    dana = person("Dana")
    Membership.objects.filter(user=User.objects.get(name="Alice")).delete()
    decided = approve(judgement, dana)
    assert decided.state == EscalationState.SUPERSEDED
    assert in_force(stop)
