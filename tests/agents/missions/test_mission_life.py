"""The life of a mission through the services, with the real gate and the real ledger under it."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime, timedelta
from decimal import Decimal

import pytest

from agents import selectors, services
from agents.choices import MissionState, Outcome, RunState, Runtime, StopScope, VersionState
from agents.grants import Grant
from agents.models import Agent, Mission, Run
from budgets import selectors as budgets
from budgets import services as ledger
from budgets.types import Limits, WindowKind
from controlplane.audit.events import Event
from controlplane.audit.models import Entry
from controlplane.audit.sentences import sentence
from controlplane.common.clock import now
from controlplane.common.errors import RemitError
from controlplane.tenancy import services as tenancy
from controlplane.tenancy.models import Organisation, Team, Token, User
from controlplane.tenancy.types import Principal
from governance import selectors as governance
from governance import services as gate
from governance.choices import Verdict
from governance.models import Escalation
from governance.types import Proposal

BOOK = Grant("books__apply_credit", constraints={"amount": {"max": "100.00"}})
ASK = Grant("books__apply_credit", effect="escalate", constraints={"amount": {"max": "500.00"}})

pytestmark = pytest.mark.django_db


@pytest.fixture
def bob(person: Callable[[str], Principal]) -> Principal:
    return person("bob")


@pytest.fixture
def clerk(company: Organisation, alice: Principal) -> Agent:
    team = Team.objects.get(organisation=company)
    return services.register_agent(actor=alice, team_id=team.pk, name="Clerk", runtime=Runtime.EXTERNAL)


def remit(*, budget: str = "1.00", grants: tuple[Grant, ...] = (BOOK,), **changes: object) -> services.Remit:
    values: dict[str, object] = {
        "goal": "Every overdue invoice has a reminder.",
        "criteria": ["Reminders are written", "Credits are explained"],
        "grants": grants,
        "budget_money": Decimal(budget),
        "deadline": now() + timedelta(hours=8),
        "budget_steps": 100,
    }
    return services.Remit(**{**values, **changes})  # type: ignore[arg-type]


@pytest.fixture
def started(alice: Principal, clerk: Agent) -> Mission:
    mission = services.draft_mission(actor=alice, agent_id=clerk.pk, title="Chase invoices", remit=remit())
    services.submit_mission(actor=alice, mission_id=mission.pk)
    mission.refresh_from_db()
    return mission


def run_principal(alice: Principal, mission: Mission) -> Principal:
    return tenancy.principal_of_token(services.issue_run_token(actor=alice, mission_id=mission.pk))


def events_of(mission: Mission) -> list[str]:
    return list(Entry.objects.filter(mission_id=mission.pk).order_by("id").values_list("event", flat=True))


def test_small_budget_starts_at_once_with_its_budget_and_first_attempt(started: Mission) -> None:
    assert started.state == MissionState.ACTIVE
    run = Run.objects.get(mission=started)
    assert (run.attempt, run.state) == (1, RunState.PENDING)
    balance = budgets.mission_spend(mission_ids=[started.pk])[started.pk]
    assert (balance.limits.money, balance.limits.steps, balance.spent.money) == (Decimal(1), 100, Decimal(0))
    assert Event.MISSION_STARTED in events_of(started)


def test_large_budget_waits_for_a_second_person_who_is_not_its_owner(
    alice: Principal, bob: Principal, clerk: Agent
) -> None:
    mission = services.draft_mission(actor=alice, agent_id=clerk.pk, title="Big", remit=remit(budget="20.00"))
    judgement = services.submit_mission(actor=alice, mission_id=mission.pk)
    mission.refresh_from_db()
    assert (judgement.verdict, mission.state) == (Verdict.ESCALATE, MissionState.AWAITING_SIGN_OFF)
    assert not Run.objects.filter(mission=mission).exists()

    [question] = governance.escalations_waiting_for(bob)
    gate.decide(approver=bob, escalation_id=question.pk, version=question.version, approve=True, reason="")
    mission.refresh_from_db()
    assert mission.state == MissionState.ACTIVE
    assert mission.versions.get().signed_off_by_id == bob.user_id
    assert Run.objects.filter(mission=mission).count() == 1


def test_a_sign_off_that_was_taken_back_was_refused_by_nobody(alice: Principal, clerk: Agent) -> None:
    mission = services.draft_mission(actor=alice, agent_id=clerk.pk, title="Big", remit=remit(budget="20.00"))
    asked = services.submit_mission(actor=alice, mission_id=mission.pk)
    gate.withdraw(actor=alice, action_id=asked.action_id, reason="Not this month")
    mission.refresh_from_db()
    assert (mission.state, mission.state_reason) == (MissionState.DRAFT, "Withdrawn: Not this month")
    assert events_of(mission).count(Event.MISSION_SIGN_OFF_WITHDRAWN) == 1
    assert Event.MISSION_SIGN_OFF_REFUSED not in events_of(mission)


def test_refused_sign_off_goes_back_to_a_draft_and_nothing_runs(alice: Principal, bob: Principal, clerk: Agent) -> None:
    mission = services.draft_mission(actor=alice, agent_id=clerk.pk, title="Big", remit=remit(budget="20.00"))
    services.submit_mission(actor=alice, mission_id=mission.pk)
    [question] = governance.escalations_waiting_for(bob)
    gate.decide(approver=bob, escalation_id=question.pk, version=question.version, approve=False, reason="Too much")
    mission.refresh_from_db()
    assert mission.state == MissionState.DRAFT
    assert mission.state_reason == "Not signed off: A person refused this: Too much"
    assert events_of(mission).count(Event.MISSION_SIGN_OFF_REFUSED) == 1
    assert not Run.objects.filter(mission=mission).exists()
    assert mission.account_id is None


@pytest.mark.parametrize("end", ["rules at once", "rules at the last approval", "silence"])
def test_a_sign_off_that_no_person_refused_is_told_with_the_reason_of_the_rules(
    alice: Principal, bob: Principal, clerk: Agent, end: str
) -> None:
    mission = services.draft_mission(actor=alice, agent_id=clerk.pk, title="Big", remit=remit(budget="20.00"))
    if end == "rules at once":
        services.stop(actor=alice, scope=StopScope.AGENT, scope_id=clerk.pk, reason="Look first")
        assert services.submit_mission(actor=alice, mission_id=mission.pk).verdict is Verdict.DENY
    else:
        services.submit_mission(actor=alice, mission_id=mission.pk)
        [question] = governance.escalations_waiting_for(bob)
        if end == "silence":
            Escalation.objects.update(expires_at=now() - timedelta(seconds=1))
            gate.sweep()
        else:
            User.objects.filter(pk=alice.user_id).update(is_active=False)
            gate.decide(approver=bob, escalation_id=question.pk, version=question.version, approve=True, reason="")
    mission.refresh_from_db()
    assert mission.state == MissionState.DRAFT
    assert mission.state_reason.startswith("Not signed off: ")
    assert Event.MISSION_SIGN_OFF_REFUSED not in events_of(mission)
    told = Entry.objects.get(mission_id=mission.pk, event=Event.MISSION_SIGN_OFF_WITHDRAWN)
    assert sentence(told) == f"Big is a draft again. {mission.state_reason}"
    assert not Run.objects.filter(mission=mission).exists()


SOON = timedelta(seconds=2)


def _wait_for(deadline: datetime) -> None:
    time.sleep(max(0.0, (deadline - now()).total_seconds()) + 0.01)


@pytest.mark.parametrize("budget", ["1.00", "20.00"])
def test_a_draft_whose_deadline_has_passed_is_not_started_to_end_at_once(
    alice: Principal, bob: Principal, clerk: Agent, budget: str
) -> None:
    old = remit(budget=budget, deadline=now() + SOON)
    mission = services.draft_mission(actor=alice, agent_id=clerk.pk, title="Old", remit=old)
    if budget == "1.00":  # it lay about before anybody started it
        _wait_for(old.deadline)
        judgement = services.submit_mission(actor=alice, mission_id=mission.pk)
        assert (judgement.verdict, judgement.reason_code) == (Verdict.DENY, "mission.deadline")
    else:  # it waited for somebody else's word
        services.submit_mission(actor=alice, mission_id=mission.pk)
        _wait_for(old.deadline)
        [question] = governance.escalations_waiting_for(bob)
        gate.decide(approver=bob, escalation_id=question.pk, version=question.version, approve=True, reason="")
    services.expire_missions()
    mission.refresh_from_db()
    assert (mission.state, mission.account_id) == (MissionState.DRAFT, None)
    assert mission.state_reason == "Not signed off: The deadline it names has passed."
    assert not Run.objects.filter(mission=mission).exists()

    services.change_mission(actor=alice, mission_id=mission.pk, remit=remit(), note="Later", expected_version=1)
    assert services.submit_mission(actor=alice, mission_id=mission.pk).verdict is Verdict.ALLOW


def test_a_change_that_waited_beyond_the_deadline_it_names_does_not_end_the_mission(
    alice: Principal, bob: Principal, started: Mission
) -> None:
    sooner = remit(budget="20.00", deadline=now() + SOON)
    services.change_mission(actor=alice, mission_id=started.pk, remit=sooner, note="", expected_version=1)
    _wait_for(sooner.deadline)
    [question] = governance.escalations_waiting_for(bob)
    gate.decide(approver=bob, escalation_id=question.pk, version=question.version, approve=True, reason="")
    services.expire_missions()
    started.refresh_from_db()
    assert (started.state, started.version) == (MissionState.ACTIVE, 1)


def test_what_was_reworded_after_it_was_submitted_does_not_start_on_the_old_question(
    alice: Principal, bob: Principal, clerk: Agent
) -> None:
    mission = services.draft_mission(actor=alice, agent_id=clerk.pk, title="Big", remit=remit(budget="20.00"))
    services.submit_mission(actor=alice, mission_id=mission.pk)
    [question] = governance.escalations_waiting_for(bob)
    larger = remit(budget="45000.00", grants=(BOOK, ASK))
    services.change_mission(actor=alice, mission_id=mission.pk, remit=larger, note="", expected_version=1)
    with pytest.raises(RemitError) as refused:
        gate.decide(approver=bob, escalation_id=question.pk, version=question.version, approve=True, reason="")
    assert refused.value.code == "escalation.closed"
    mission.refresh_from_db()
    assert (mission.state, mission.version) == (MissionState.DRAFT, 2)
    assert not Run.objects.filter(mission=mission).exists()

    services.submit_mission(actor=alice, mission_id=mission.pk)
    [question] = governance.escalations_waiting_for(bob)
    gate.decide(approver=bob, escalation_id=question.pk, version=question.version, approve=True, reason="")
    mission.refresh_from_db()
    assert mission.state == MissionState.ACTIVE


def test_a_small_first_wording_does_not_start_a_large_later_one(alice: Principal, clerk: Agent) -> None:
    mission = services.draft_mission(actor=alice, agent_id=clerk.pk, title="Small", remit=remit(budget="1.00"))
    larger = remit(budget="45000.00")
    services.change_mission(actor=alice, mission_id=mission.pk, remit=larger, note="", expected_version=1)
    first = {"mission_id": str(mission.pk), "version": 1}
    judgement = gate.propose(proposer=alice, proposal=Proposal("mission.sign_off", first, audience="remit"))
    assert (judgement.verdict, judgement.reason_code) == (Verdict.DENY, "mission.version_superseded")
    mission.refresh_from_db()
    assert (mission.state, mission.account_id) == (MissionState.DRAFT, None)
    assert not Run.objects.filter(mission=mission).exists()


def test_tighter_version_is_in_force_at_once_and_wider_one_waits(
    alice: Principal, bob: Principal, started: Mission
) -> None:
    tighter = remit(budget="0.50", deadline=started.deadline)
    services.change_mission(actor=alice, mission_id=started.pk, remit=tighter, note="less", expected_version=1)
    started.refresh_from_db()
    assert started.version == 2
    assert budgets.mission_spend(mission_ids=[started.pk])[started.pk].limits.money == Decimal("0.50")

    wider = remit(budget="0.50", deadline=started.deadline, grants=(BOOK, ASK))
    services.change_mission(actor=alice, mission_id=started.pk, remit=wider, note="credits", expected_version=2)
    started.refresh_from_db()
    assert started.version == 2
    assert started.versions.get(number=3).state == VersionState.AWAITING_SIGN_OFF

    [question] = governance.escalations_waiting_for(bob)
    gate.decide(approver=bob, escalation_id=question.pk, version=question.version, approve=True, reason="")
    started.refresh_from_db()
    assert started.version == 3


def test_token_of_the_attempt_under_way_ends_with_the_new_deadline(
    alice: Principal, bob: Principal, started: Mission
) -> None:
    text = services.issue_run_token(actor=alice, mission_id=started.pk)
    [token] = Token.objects.filter(mission_id=started.pk, revoked_at__isnull=True)
    assert token.expires_at == started.deadline
    later = remit(deadline=started.deadline + timedelta(days=2))
    services.change_mission(actor=alice, mission_id=started.pk, remit=later, note="more time", expected_version=1)
    token.refresh_from_db()
    assert token.expires_at == started.deadline  # nobody has agreed yet

    [question] = governance.escalations_waiting_for(bob)
    gate.decide(approver=bob, escalation_id=question.pk, version=question.version, approve=True, reason="")
    token.refresh_from_db()
    assert token.expires_at == later.deadline
    assert tenancy.principal_of_token(text).mission_id == started.pk

    sooner = remit(deadline=now() + timedelta(hours=1))
    services.change_mission(actor=alice, mission_id=started.pk, remit=sooner, note="less time", expected_version=2)
    token.refresh_from_db()
    assert token.expires_at == sooner.deadline


@pytest.mark.parametrize(("asked", "in_the_end"), [("1.00", "6.00"), ("2.00", "2.00")])
def test_more_that_was_granted_while_a_change_waited_is_not_taken_away_by_it(
    alice: Principal, bob: Principal, started: Mission, asked: str, in_the_end: str
) -> None:
    later = remit(budget=asked, deadline=started.deadline + timedelta(days=2))
    services.change_mission(actor=alice, mission_id=started.pk, remit=later, note="more time", expected_version=1)
    [question] = governance.escalations_waiting_for(bob)
    ledger.apply_limit(
        actor=bob,
        account_id=started.account_id,
        window=WindowKind.TOTAL,
        limits=Limits(money=Decimal(6), steps=100),
        reason="as a request for 5.00 more does it",
    )
    gate.decide(approver=bob, escalation_id=question.pk, version=question.version, approve=True, reason="")
    limits = budgets.mission_spend(mission_ids=[started.pk])[started.pk].limits
    assert (limits.money, limits.steps) == (Decimal(in_the_end), 100)


def test_token_that_was_revoked_is_not_touched_by_a_new_deadline(alice: Principal, started: Mission) -> None:
    dead = services.issue_run_token(actor=alice, mission_id=started.pk)
    services.issue_run_token(actor=alice, mission_id=started.pk)
    sooner = remit(deadline=now() + timedelta(hours=1))
    services.change_mission(actor=alice, mission_id=started.pk, remit=sooner, note="less time", expected_version=1)
    assert Token.objects.get(revoked_at__isnull=False, mission_id=started.pk).expires_at == started.deadline
    with pytest.raises(RemitError) as refused:
        tenancy.principal_of_token(dead)
    assert refused.value.code == "token.revoked"


def test_change_against_an_older_version_is_refused_and_changes_nothing(alice: Principal, started: Mission) -> None:
    services.change_mission(actor=alice, mission_id=started.pk, remit=remit(budget="0.50"), note="", expected_version=1)
    with pytest.raises(RemitError) as refused:
        services.change_mission(
            actor=alice, mission_id=started.pk, remit=remit(budget="0.20"), note="", expected_version=1
        )
    assert refused.value.status == 412
    assert started.versions.count() == 2


def test_call_that_is_not_granted_is_refused_with_what_is_allowed(alice: Principal, started: Mission) -> None:
    agent = run_principal(alice, started)
    judgement = gate.propose(proposer=agent, proposal=Proposal("tool.call", {"query": "x"}, tool="sqlite__write_query"))
    assert (judgement.verdict, judgement.reason_code) == (Verdict.DENY, "grant.missing")
    assert judgement.remedies


def test_paused_mission_allows_nothing_until_it_is_resumed(alice: Principal, started: Mission) -> None:
    agent = run_principal(alice, started)
    services.pause_mission(actor=alice, mission_id=started.pk, reason="lunch")
    judgement = gate.propose(proposer=agent, proposal=Proposal("tool.call", {}, tool="books__overdue"))
    assert (judgement.verdict, judgement.reason_code) == (Verdict.DENY, "mission.not_active")
    assert "lunch" in judgement.message
    services.resume_mission(actor=alice, mission_id=started.pk)
    started.refresh_from_db()
    assert started.state == MissionState.ACTIVE


def test_stop_kills_token_run_and_budget(alice: Principal, started: Mission) -> None:
    token = services.issue_run_token(actor=alice, mission_id=started.pk)
    services.stop_mission(actor=alice, mission_id=started.pk, reason="enough")
    started.refresh_from_db()
    assert (started.state, started.state_reason) == (MissionState.STOPPED, "enough")
    with pytest.raises(RemitError) as refused:
        tenancy.principal_of_token(token)
    assert refused.value.code == "token.revoked"
    assert Run.objects.get(mission=started).state == RunState.STOPPED
    assert budgets.mission_spend(mission_ids=[started.pk])[started.pk].frozen
    assert not Token.objects.filter(mission_id=started.pk, revoked_at__isnull=True).exists()


def claimed(agent: Principal, summary: str) -> str:
    """The time by which people name the claim that they have read."""
    claim = services.claim_outcome(principal=agent, summary=summary).claim
    assert claim is not None
    return str(claim["at"])


def test_accepted_claim_ends_the_mission_as_succeeded(
    alice: Principal, started: Mission, person: Callable[[str], Principal]
) -> None:
    agent = run_principal(alice, started)
    services.report_progress(principal=agent, position=0, state="claimed", evidence="31 of 31")
    claim = claimed(agent, "All reminders are written")
    mission = services.accept_outcome(actor=alice, mission_id=started.pk, claim=claim)
    assert (mission.state, mission.outcome) == (MissionState.SUCCEEDED, Outcome.ACCEPTED)
    assert [item.state for item in mission.checklist.order_by("position")] == ["accepted", "open"]
    with pytest.raises(RemitError) as refused:
        services.accept_outcome(actor=alice, mission_id=started.pk, claim=claim)
    assert refused.value.code == "mission.no_claim"
    assert refused.value.message == "You accepted this outcome already."
    with pytest.raises(RemitError, match="Alice accepted this outcome before you"):
        services.reject_outcome(actor=person("nadia"), mission_id=started.pk, claim=claim, reason="Not all of them")


def test_rejected_claim_needs_a_reason_and_fails_the_mission(alice: Principal, started: Mission) -> None:
    claim = claimed(run_principal(alice, started), "Done")
    with pytest.raises(RemitError) as refused:
        services.reject_outcome(actor=alice, mission_id=started.pk, claim=claim, reason="  ")
    assert refused.value.status == 422
    mission = services.reject_outcome(actor=alice, mission_id=started.pk, claim=claim, reason="Half is missing")
    assert (mission.state, mission.state_reason) == (MissionState.FAILED, "Half is missing")


@pytest.mark.parametrize("answer", ["accept", "reject"])
def test_a_claim_that_nobody_has_read_is_neither_accepted_nor_rejected(
    alice: Principal, started: Mission, answer: str
) -> None:
    agent = run_principal(alice, started)
    services.report_progress(principal=agent, position=0, state="claimed", evidence="31 of 31")
    read = claimed(agent, "All reminders are written")
    new = claimed(agent, "Some reminders are written")
    before = list(Entry.objects.values_list("id", flat=True))

    def judge(claim: str) -> Mission:
        if answer == "accept":
            return services.accept_outcome(actor=alice, mission_id=started.pk, claim=claim)
        return services.reject_outcome(actor=alice, mission_id=started.pk, claim=claim, reason="Half is missing")

    for other in (read, ""):
        with pytest.raises(RemitError) as refused:
            judge(other)
        assert (refused.value.status, refused.value.code) == (409, "mission.claim_changed")
        assert refused.value.data["claim"]["at"] == new
        assert "Some reminders are written" in refused.value.message
    started.refresh_from_db()
    assert (started.state, started.outcome) == (MissionState.ACTIVE, Outcome.CLAIMED)
    assert started.checklist.get(position=0).state == "claimed"
    assert list(Entry.objects.values_list("id", flat=True)) == before
    assert judge(new).ended_at is not None


def test_deadline_ends_a_mission_once(started: Mission) -> None:
    Mission.objects.filter(pk=started.pk).update(deadline=now() - timedelta(seconds=1))
    assert services.expire_missions() == 1
    assert services.expire_missions() == 0
    started.refresh_from_db()
    assert started.state == MissionState.EXPIRED
    assert events_of(started).count(Event.MISSION_EXPIRED) == 1


def test_first_call_of_an_external_run_turns_it_green(alice: Principal, started: Mission) -> None:
    agent = run_principal(alice, started)
    services.note_heartbeat(principal=agent)
    run = Run.objects.get(mission=started)
    assert run.state == RunState.RUNNING
    assert run.first_call_at is not None


def test_outsider_changes_nothing(as_charlie: Principal, started: Mission) -> None:
    before = list(Entry.objects.values_list("id", flat=True))
    for attempt in (
        lambda: services.pause_mission(actor=as_charlie, mission_id=started.pk),
        lambda: services.stop_mission(actor=as_charlie, mission_id=started.pk),
        lambda: services.accept_outcome(actor=as_charlie, mission_id=started.pk, claim="now"),
        lambda: services.issue_run_token(actor=as_charlie, mission_id=started.pk),
        lambda: services.change_mission(
            actor=as_charlie, mission_id=started.pk, remit=remit(), note="", expected_version=1
        ),
        lambda: selectors.mission(as_charlie, started.pk),
    ):
        with pytest.raises(RemitError) as refused:
            attempt()
        assert refused.value.status in (404, 409)
    started.refresh_from_db()
    assert started.state == MissionState.ACTIVE
    assert list(Entry.objects.values_list("id", flat=True)) == before


def test_reading_the_remit_of_a_run_says_what_is_left(alice: Principal, started: Mission) -> None:
    facts = selectors.remit_of_run(principal=run_principal(alice, started))
    assert facts["state"] == "active"
    assert facts["budget"]["money_left"] is not None
    assert [item["position"] for item in facts["criteria"]] == [0, 1]


def test_submitting_twice_starts_one_run(alice: Principal, started: Mission) -> None:
    with pytest.raises(RemitError) as refused:
        services.submit_mission(actor=alice, mission_id=started.pk)
    assert refused.value.code == "mission.not_draft"
    assert Run.objects.filter(mission=started).count() == 1
