"""What a stop ends, what it leaves, who may, and what is refused while it holds. Proofs are read from the rows."""

from __future__ import annotations

import uuid
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from agents import services, stop_proofs, stops
from agents.choices import MissionState, RunState, StopScope, VersionState
from agents.models import Mission, Run, Stop
from budgets import services as budgets
from budgets.models import Account, Hold
from budgets.types import Limits, WindowKind
from controlplane.audit.events import Event
from controlplane.audit.models import Entry
from controlplane.audit.sentences import sentence
from controlplane.common.clock import now
from controlplane.common.errors import RemitError
from controlplane.tenancy import credentials
from controlplane.tenancy import services as tenancy
from controlplane.tenancy.credentials import AgentIdentity
from controlplane.tenancy.models import Token
from controlplane.tenancy.types import Principal
from governance import services as gate
from governance.choices import ActionState, EscalationState
from governance.models import Action, Escalation, Permit
from governance.types import Proposal

pytestmark = pytest.mark.django_db
SCOPES = list(StopScope)


def id_of(scope: StopScope, work: Any) -> uuid.UUID:
    mission = work.mission
    return {
        StopScope.RUN: work.run.pk,
        StopScope.MISSION: mission.pk,
        StopScope.AGENT: mission.agent_id,
        StopScope.TEAM: mission.team_id,
        StopScope.ORGANISATION: mission.organisation_id,
    }[scope]


def rungs(stop: Stop) -> dict[str, stops.Rung]:
    return {rung.name: rung for rung in stop_proofs.proofs(stop)}


@pytest.mark.parametrize("scope", SCOPES)
def test_a_stop_of_every_scope_leaves_nothing_that_could_still_happen(scope, work, person) -> None:
    clerk = work()
    permitted, asked, begun = clerk.read(), clerk.ask(), clerk.begin()
    assert (permitted.state, asked.state, begun.state) == ("permitted", "waiting", "executing")
    stop = services.stop(actor=person("Nadia"), scope=scope, scope_id=id_of(scope, clerk), reason="It went astray")
    states = dict(Action.objects.filter(kind="tool.call").values_list("pk", "state"))
    assert states == {
        permitted.action_id: ActionState.WITHDRAWN,
        asked.action_id: ActionState.WITHDRAWN,
        begun.action_id: ActionState.EXECUTING,  # it was sent, nobody can call it back
    }
    assert Escalation.objects.get(action_id=asked.action_id).state == EscalationState.WITHDRAWN
    assert not Permit.objects.filter(consumed_at__isnull=True, voided_at__isnull=True).exists()
    holds = dict(Hold.objects.values_list("action_id", "state"))
    assert (holds[permitted.action_id], holds[asked.action_id]) == ("voided", "voided")
    assert holds[begun.action_id] == "dispatched"
    with pytest.raises(RemitError, match="revoked"):
        clerk.principal()
    assert clerk.run.state == RunState.STOPPED
    assert all(rung.holds for rung in rungs(stop).values())
    assert [action.pk for action in stops.executing(stop)] == [begun.action_id]
    assert stop.counts["permits"] == stop.counts["questions"] == stop.counts["executing"] == 1
    assert stop.counts["holds"] == 2
    [entry] = Entry.objects.filter(event=Event.STOP_MADE)
    assert (entry.actor_name, entry.payload["reason"]) == ("Nadia", "It went astray")


def test_money_that_a_stop_counts_is_written_without_an_exponent(work, person) -> None:
    idle = work()
    stop = services.stop(actor=person("Nadia"), scope=StopScope.MISSION, scope_id=idle.mission.pk, reason="No need")
    [entry] = Entry.objects.filter(event=Event.STOP_MADE)
    assert stop.counts["held"] == entry.payload["counts"]["held"] == "0.00"


@pytest.mark.parametrize(
    ("scope", "state"),
    [
        (StopScope.RUN, MissionState.ACTIVE),
        (StopScope.MISSION, MissionState.STOPPED),
        (StopScope.AGENT, MissionState.PAUSED),
        (StopScope.TEAM, MissionState.PAUSED),
        (StopScope.ORGANISATION, MissionState.PAUSED),
    ],
)
def test_a_stop_ends_what_it_names_and_pauses_what_is_below(scope, state, work, person) -> None:
    clerk = work()
    services.stop(actor=person("Nadia"), scope=scope, scope_id=id_of(scope, clerk), reason="It went astray")
    clerk.mission.refresh_from_db()
    assert clerk.mission.state == state
    assert "It went astray" in clerk.mission.state_reason
    assert (clerk.mission.ended_at is not None) == (state == MissionState.STOPPED)


@pytest.mark.parametrize(
    ("scope", "frozen"),
    [
        (StopScope.RUN, None),
        (StopScope.MISSION, "mission"),
        (StopScope.AGENT, "agent"),
        (StopScope.TEAM, "team"),
        (StopScope.ORGANISATION, "organisation"),
    ],
)
def test_the_budget_of_exactly_what_was_stopped_is_frozen(scope, frozen, work, person) -> None:
    clerk = work()
    services.stop(actor=person("Nadia"), scope=scope, scope_id=id_of(scope, clerk))
    ours = Account.objects.filter(organisation=clerk.mission.organisation, frozen=True)
    assert list(ours.values_list("level", flat=True)) == ([frozen] if frozen else [])


@pytest.mark.parametrize("scope", [StopScope.RUN, StopScope.MISSION, StopScope.AGENT, StopScope.TEAM])
def test_the_neighbours_of_what_was_stopped_go_on(scope, work, person) -> None:
    clerk, other = work(), work("Packer", who="Lars", where="Logistics")
    sibling = work("Reader")
    services.stop(actor=person("Nadia"), scope=scope, scope_id=id_of(scope, clerk))
    assert other.read().state == ActionState.PERMITTED
    if scope is not StopScope.TEAM:
        assert sibling.read().state == ActionState.PERMITTED


def test_every_live_mission_of_the_agent_stops_and_those_paused_before_keep_their_reason(work, person) -> None:
    first = work()
    second = work(agent=first.agent)
    services.pause_mission(actor=person("Alice"), mission_id=second.mission.pk, reason="Lunch")
    stop = services.stop(actor=person("Alice"), scope=StopScope.AGENT, scope_id=first.agent.pk)
    reasons = {mission.pk: mission.state_reason for mission in Mission.objects.all()}
    assert reasons[second.mission.pk] == "Lunch"
    assert list(stop.paused_missions.all()) == [first.mission]
    assert not Run.objects.filter(state__in=stops.LIVE_RUNS).exists()


@pytest.mark.parametrize("scope", SCOPES)
def test_stopping_twice_is_one_stop(scope, work, person) -> None:
    clerk = work()
    target = id_of(scope, clerk)
    first = services.stop(actor=person("Nadia"), scope=scope, scope_id=target, reason="once")
    again = services.stop(actor=person("Nadia"), scope=scope, scope_id=target, reason="twice")
    assert (again.pk, again.reason) == (first.pk, "once")
    assert Entry.objects.filter(event=Event.STOP_MADE).count() == 1


MAY = {
    "Nadia": set(StopScope),
    "Alice": {StopScope.RUN, StopScope.MISSION, StopScope.AGENT, StopScope.TEAM},
    "Lars": set(),
    "Bob": set(),
    "Dana": set(),
    "Finn": set(),
    "Odile": set(),
    "Charlie": set(),
}


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("name", MAY)
def test_who_operates_all_of_it_may_stop_it_and_nobody_else_learns_that_it_exists(name, scope, work, person) -> None:
    clerk = work()
    target = id_of(scope, clerk)
    if scope in MAY[name]:
        assert services.stop(actor=person(name), scope=scope, scope_id=target).by.name == name
        return
    with pytest.raises(RemitError) as refused:
        services.stop(actor=person(name), scope=scope, scope_id=target)
    assert refused.value.status == 404
    assert not Stop.objects.exists()
    assert clerk.read().state == ActionState.PERMITTED
    assert not Account.objects.filter(frozen=True).exists()


def test_stops_are_seen_by_their_team_and_those_of_the_organisation_by_everyone_in_it(work, person) -> None:
    clerk = work()
    of_team = services.stop(actor=person("Nadia"), scope=StopScope.TEAM, scope_id=clerk.mission.team_id)
    of_all = services.stop(actor=person("Nadia"), scope=StopScope.ORGANISATION, scope_id=clerk.mission.organisation_id)
    seen = {name: {stop.pk for stop in stops.stops(person(name))} for name in ("Nadia", "Alice", "Lars", "Charlie")}
    assert seen == {
        "Nadia": {of_team.pk, of_all.pk},
        "Alice": {of_team.pk, of_all.pk},
        "Lars": {of_all.pk},
        "Charlie": set(),
    }


@pytest.mark.parametrize("scope", [StopScope.AGENT, StopScope.TEAM, StopScope.ORGANISATION])
def test_while_it_holds_nothing_new_starts(scope, work, person, make_remit) -> None:
    clerk = work()
    alice = person("Alice")
    waiting = services.draft_mission(actor=alice, agent_id=clerk.agent.pk, title="Later", remit=make_remit())
    services.stop(actor=person("Nadia"), scope=scope, scope_id=id_of(scope, clerk), reason="It went astray")
    judgement = services.submit_mission(actor=alice, mission_id=waiting.pk)
    assert (judgement.reason_code, judgement.state) == ("stop.in_force", ActionState.DENIED)
    assert "It went astray" in judgement.message
    for refused in (
        lambda: services.resume_mission(actor=alice, mission_id=clerk.mission.pk),
        lambda: services.restart_run(actor=alice, mission_id=clerk.mission.pk),
        lambda: services.issue_run_token(actor=alice, mission_id=clerk.mission.pk),
    ):
        with pytest.raises(RemitError) as error:
            refused()
        assert error.value.status == 409
    more = services.ask_for_budget(
        actor=alice, mission_id=clerk.mission.pk, money="1.00", reason="More", key=uuid.uuid4()
    )
    assert more.reason_code == "stop.in_force"
    waiting.refresh_from_db()
    clerk.mission.refresh_from_db()
    assert (waiting.state, clerk.mission.state) == (MissionState.DRAFT, MissionState.PAUSED)
    assert not Run.objects.filter(state__in=stops.LIVE_RUNS).exists()


def test_a_call_of_a_principal_known_from_before_is_refused_by_name(work, person) -> None:
    clerk = work()
    before = clerk.principal()
    services.stop(actor=person("Alice"), scope=StopScope.AGENT, scope_id=clerk.agent.pk, reason="It went astray")
    judgement = clerk.read(principal=before)
    assert (judgement.state, judgement.reason_code) == (ActionState.DENIED, "stop.in_force")
    assert "It went astray" in judgement.message


@pytest.mark.parametrize("scope", [StopScope.AGENT, StopScope.TEAM, StopScope.ORGANISATION])
def test_an_agents_own_credential_opens_nothing_while_the_stop_holds_and_works_again_after_it(
    scope, work, person
) -> None:
    clerk, other = work(), work("Packer", who="Lars", where="Logistics")
    texts = [_credential(person("Nadia"), item.agent) for item in (clerk, other)]
    stop = services.stop(actor=person("Nadia"), scope=scope, scope_id=id_of(scope, clerk), reason="It went astray")
    with pytest.raises(RemitError) as refused:
        tenancy.principal_of_token(texts[0])
    assert (refused.value.status, refused.value.code) == (401, "agent.stopped")
    assert refused.value.remedies
    if scope is not StopScope.ORGANISATION:
        assert tenancy.principal_of_token(texts[1]).agent_id == other.agent.pk
    assert rungs(stop)["tokens"].holds
    Stop.objects.filter(pk=stop.pk).update(lifted_at=now())
    assert tenancy.principal_of_token(texts[0]).agent_id == clerk.agent.pk
    assert Token.objects.filter(kind="agt", revoked_at__isnull=True).count() == 2


def _credential(actor: Principal, agent: Any) -> str:
    identity = AgentIdentity(agent.pk, agent.team_id, agent.name)
    return credentials.issue_agent_token(
        principal=actor, agent=identity, name="Laptop", expires_at=now() + timedelta(days=1)
    )[1]


def test_a_sign_off_that_waited_is_withdrawn_and_its_mission_is_a_draft_again(work, person, make_remit) -> None:
    clerk = work()
    alice = person("Alice")
    large = services.draft_mission(actor=alice, agent_id=clerk.agent.pk, title="Large", remit=make_remit("20"))
    asked = services.submit_mission(actor=alice, mission_id=large.pk)
    services.stop(actor=alice, scope=StopScope.AGENT, scope_id=clerk.agent.pk, reason="drill")
    large.refresh_from_db()
    assert large.state == MissionState.DRAFT
    assert large.state_reason == "Withdrawn: Stopped with the agent Clerk: drill"
    assert large.versions.get().state == VersionState.DRAFT
    told = Entry.objects.filter(subject_type="mission", subject_id=large.pk).latest("id")
    assert sentence(told) == "Large is a draft again. Withdrawn: Stopped with the agent Clerk: drill"
    assert not Entry.objects.filter(event=Event.MISSION_SIGN_OFF_REFUSED).exists()
    assert asked.escalation is not None
    with pytest.raises(RemitError, match="settled before you"):
        gate.decide(approver=person("Bob"), escalation_id=asked.escalation.id, version=1, approve=True, reason="")


@pytest.mark.parametrize("of", ["mission", "agent"])
@pytest.mark.parametrize("scope", [StopScope.AGENT, StopScope.TEAM, StopScope.ORGANISATION])
def test_what_a_person_asked_for_its_budget_waits_for_nobody_any_more(scope, of, work, person) -> None:
    clerk = work()
    account_id = {"mission": clerk.mission, "agent": clerk.agent}[of].account_id
    arguments = {"account_id": str(account_id), "money": "2.00", "reason": "More invoices"}
    budgets.set_limit(
        actor=person("Finn"), account_id=account_id, window=WindowKind.TOTAL, limits=Limits(money=Decimal(5))
    )
    asked = gate.propose(proposer=person("Alice"), proposal=Proposal("budget.topup", arguments, audience="remit"))
    assert asked.state is ActionState.WAITING
    made = services.stop(actor=person("Nadia"), scope=scope, scope_id=id_of(scope, clerk), reason="drill")
    assert Action.objects.get(pk=asked.action_id).state == ActionState.WITHDRAWN
    assert made.counts["questions"] == 1
    again = gate.propose(proposer=person("Alice"), proposal=Proposal("budget.topup", arguments, audience="remit"))
    assert again.reason_code == "stop.in_force"


def test_what_waited_or_was_permitted_tells_its_agent_that_it_was_stopped(work, person) -> None:
    clerk = work()
    ended = [clerk.ask().action_id, clerk.read().action_id]
    services.stop(actor=person("Alice"), scope=StopScope.AGENT, scope_id=clerk.agent.pk, reason="It went astray")
    for action in Action.objects.filter(pk__in=ended):
        assert (action.state, action.reason_code) == (ActionState.WITHDRAWN, "action.withdrawn")
        assert action.message == "Withdrawn: Stopped with the agent Clerk: It went astray"
        assert action.remedies == ["Go on with other work; ask again only if it is still needed."]


def test_the_proofs_look_at_the_rows_not_at_what_the_stop_counted(work, person) -> None:
    clerk = work()
    stop = services.stop(actor=person("Alice"), scope=StopScope.AGENT, scope_id=clerk.agent.pk)
    assert services.note_proofs(stop_id=stop.pk)
    stop.refresh_from_db()
    assert set(stop.proofs) == {"missions", "permits", "questions", "tokens", "processes", "holds", "budget"}
    Token.objects.filter(mission_id=clerk.mission.pk).update(revoked_at=None)
    Account.objects.filter(pk=stop.account_id).update(frozen=False)
    Mission.objects.filter(pk=clerk.mission.pk).update(state=MissionState.ACTIVE)
    broken = {name for name, rung in rungs(stop).items() if not rung.holds}
    assert broken == {"missions", "tokens", "budget"}
    assert rungs(stop)["tokens"].since is not None


def test_each_proof_keeps_the_time_it_was_first_seen_to_hold(work, person) -> None:
    clerk = work()
    stop = services.stop(actor=person("Alice"), scope=StopScope.AGENT, scope_id=clerk.agent.pk)
    services.note_proofs(stop_id=stop.pk)
    stop.refresh_from_db()
    first = dict(stop.proofs)
    services.note_proofs(stop_id=stop.pk)
    assert services.note_open_proofs() == 0
    stop.refresh_from_db()
    assert stop.proofs == first
    assert Entry.objects.filter(event=Event.STOP_PROVEN).count() == 1


def test_what_is_over_can_not_be_stopped(work, person) -> None:
    clerk = work()
    run = clerk.run
    services.stop_mission(actor=person("Alice"), mission_id=clerk.mission.pk)
    for scope, key, code in (
        (StopScope.RUN, run.pk, "run.ended"),
        (StopScope.MISSION, work("Reader").mission.pk, "mission.state"),
    ):
        if scope is StopScope.MISSION:
            Mission.objects.filter(pk=key).update(state=MissionState.SUCCEEDED)
        with pytest.raises(RemitError) as refused:
            services.stop(actor=person("Alice"), scope=scope, scope_id=key)
        assert refused.value.code == code


def test_after_an_attempt_was_stopped_a_person_may_start_another(work, person) -> None:
    clerk = work()
    services.stop(actor=person("Alice"), scope=StopScope.RUN, scope_id=clerk.run.pk)
    again = services.restart_run(actor=person("Alice"), mission_id=clerk.mission.pk)
    assert again.attempt == 2


def test_a_run_token_may_not_stop_anything(work) -> None:
    clerk = work()
    with pytest.raises(RemitError):
        services.stop(actor=clerk.principal(), scope=StopScope.MISSION, scope_id=clerk.mission.pk)
    assert not Stop.objects.exists()


def test_a_widening_under_a_stop_is_refused_and_a_narrowing_is_not(work, person, make_remit) -> None:
    clerk = work()
    alice = person("Alice")
    services.stop(actor=alice, scope=StopScope.AGENT, scope_id=clerk.agent.pk)
    base = make_remit()
    wider = services.change_mission(
        actor=alice,
        mission_id=clerk.mission.pk,
        remit=replace(base, budget_money=Decimal(2)),
        note="",
        expected_version=1,
    )
    assert wider is not None
    assert wider.reason_code == "stop.in_force"
    current = clerk.mission.versions.get(number=1)
    narrower = services.change_mission(
        actor=alice,
        mission_id=clerk.mission.pk,
        remit=replace(base, budget_money=Decimal("0.50"), deadline=current.deadline),
        note="",
        expected_version=2,
    )
    assert narrower is not None
    assert narrower.verdict == "allow"
