"""The story of a mission: what stands together, where time is folded, what it had cost by then, how many queries."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from agents import timeline as timelines
from agents.choices import RunState
from agents.models import Mission, Run
from agents.timeline import Item, ItemKind, Timeline, timeline
from budgets.models import Account, Hold
from controlplane.common.ids import new_id
from controlplane.tenancy.models import User
from controlplane.tenancy.types import Principal
from governance.choices import ActionState, EscalationState, Verdict
from governance.models import Action, Decision, Escalation, Vote

pytestmark = pytest.mark.django_db

START = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)


@pytest.fixture
def act(mission: Mission) -> Callable[..., Action]:
    """`act(30, "books__overdue", cost="0.01")`: an action so many seconds after the start."""

    def make(seconds: float, tool: str = "books__overdue", *, cost: str | None = "0.01", **changes: object) -> Action:
        values: dict[str, object] = {
            "id": new_id(),
            "organisation_id": mission.organisation_id,
            "team_id": mission.team_id,
            "kind": "tool.call",
            "tool": tool,
            "title": tool,
            "arguments": {"invoice": "INV-0113", "amount": "40.00"},
            "envelope": {},
            "digest": "sha256:00",
            "proposer_kind": "run",
            "proposer_id": mission.agent_id,
            "proposer_name": "Clerk",
            "agent_id": mission.agent_id,
            "mission_id": mission.pk,
            "request_sha256": "00",
            "state": ActionState.SUCCEEDED,
            "verdict": Verdict.ALLOW,
            "price": Decimal("0.01"),
            "cost": None if cost is None else Decimal(cost),
            "currency": "USD",
            "created_at": START + timedelta(seconds=seconds),
        }
        return Action.objects.create(**{**values, **changes})

    return make


@pytest.fixture
def ask(dana: User) -> Callable[..., Escalation]:
    """The question of an action; closed after `waited` seconds by Dana when given."""

    def make(action: Action, *, waited: float | None = None, approved: bool = True, **changes: object) -> Escalation:
        decision = Decision.objects.create(
            id=new_id(),
            organisation_id=action.organisation_id,
            action=action,
            verdict=Verdict.ESCALATE,
            reason_code="policy.approval_needed",
            message="A person has to agree.",
            digest=action.digest,
            stages=[],
            duration_microseconds=900,
            created_at=action.created_at,
        )
        closed = None if waited is None else action.created_at + timedelta(seconds=waited)
        state = EscalationState.APPROVED if approved else EscalationState.DENIED
        escalation = Escalation.objects.create(
            id=new_id(),
            organisation_id=action.organisation_id,
            team_id=action.team_id,
            action=action,
            decision=decision,
            kind=action.kind,
            title=action.title,
            mission_id=action.mission_id,
            agent_id=action.agent_id,
            state=EscalationState.OPEN if closed is None else state,
            opened_at=action.created_at,
            expires_at=action.created_at + timedelta(hours=1),
            closed_at=closed,
            reason="as agreed" if closed else "A person has to agree.",
            **changes,
        )
        if closed is not None:
            Vote.objects.create(
                organisation_id=action.organisation_id,
                escalation=escalation,
                user=dana,
                approve=approved,
                reason="as agreed",
                created_at=closed,
            )
        return escalation

    return make


@pytest.fixture
def tell(as_alice: Principal, mission: Mission) -> Callable[..., Timeline]:
    def of(principal: Principal | None = None, **options: object) -> Timeline:
        loaded = Mission.objects.prefetch_related("runs__sandbox").get(pk=mission.pk)
        return timeline(principal or as_alice, loaded, **options)  # type: ignore[arg-type]

    return of


def kinds(story: Timeline) -> list[str]:
    return [item.kind.value for item in story.items]


def of_kind(story: Timeline, kind: ItemKind) -> list[Item]:
    return [item for item in story.items if item.kind is kind]


def test_three_alike_in_a_row_become_one_line_with_their_sum(act, tell) -> None:
    for seconds in range(4):
        act(seconds)
    [group] = tell().items
    assert (group.kind, group.title) == (ItemKind.GROUP, "books__overdue")
    assert len(group.members) == 3
    assert (group.money, group.total) == (Decimal("0.04"), Decimal("0.04"))


def test_two_alike_stand_apart_and_so_do_others_between_them(act, tell) -> None:
    for seconds, tool in enumerate(["a__x", "a__x", "b__y", "a__x", "a__x"]):
        act(seconds, tool)
    assert kinds(tell()) == ["action"] * 5


def test_a_round_of_calls_walked_again_and_again_becomes_one_line(act, tell) -> None:
    for seconds, tool in enumerate(["a__list", *["b__read", "b__write"] * 4, "a__list"]):
        act(seconds, tool)
    first, rounds, last = tell().items
    assert (first.title, last.title) == ("a__list", "a__list")
    assert (rounds.kind, list(rounds.titles), rounds.rounds) == (ItemKind.GROUP, ["b__read", "b__write"], 4)
    assert len(rounds.members) == 8  # every call stays within reach, the first as well
    assert (rounds.money, rounds.total) == (Decimal("0.08"), Decimal("0.09"))


def test_a_refusal_in_a_round_stands_on_its_own(act, tell) -> None:
    for seconds, tool in enumerate(["b__read", "b__write"] * 6):
        refused = {"state": ActionState.DENIED, "verdict": Verdict.DENY, "cost": None} if seconds == 5 else {}
        act(seconds, tool, **refused)
    story = tell()
    assert [item.action.verdict for item in of_kind(story, ItemKind.ACTION) if item.action][-1] == Verdict.DENY
    assert [item.rounds for item in of_kind(story, ItemKind.GROUP)] == [3]


@pytest.mark.parametrize(
    "odd",
    [
        {"state": ActionState.DENIED, "verdict": Verdict.DENY, "cost": None},
        {"state": ActionState.FAILED, "outcome": {"outcome": "failure", "error": "no such invoice"}},
        {"state": ActionState.EXECUTING, "cost": None},
        {"state": ActionState.UNKNOWN, "cost": None},
    ],
)
def test_what_went_otherwise_is_never_hidden_in_a_group(odd, act, tell) -> None:
    for seconds in range(7):
        act(seconds, **(odd if seconds == 3 else {}))
    assert kinds(tell()) == ["group", "action", "group"]


def test_silence_is_folded_into_its_length(act, tell) -> None:
    for seconds in (0, 1, 2, 62, 302, 303):
        act(seconds, f"a__t{seconds}")
    story = tell()
    assert kinds(story) == ["action"] * 4 + ["gap"] + ["action"] * 2
    [gap] = of_kind(story, ItemKind.GAP)
    assert gap.seconds == 240


def test_gap_after_a_group_begins_at_its_last_member(act, tell) -> None:
    for seconds in (0, 60, 119, 300):
        act(seconds, "a__x" if seconds < 300 else "b__y")
    [gap] = of_kind(tell(), ItemKind.GAP)
    assert gap.seconds == 181


def test_total_runs_along_and_counts_only_what_was_charged(act, tell) -> None:
    act(0, "a__a", cost="0.10")
    act(1, "a__b", cost=None, state=ActionState.DENIED, verdict=Verdict.DENY)
    act(2, "a__c", cost="0.25")
    act(3, "a__d", cost=None, state=ActionState.PERMITTED)
    first, refused, third, held = tell().items
    assert [item.total for item in (first, refused, third, held)] == [
        Decimal(text) for text in ("0.1", "0.1", "0.35", "0.35")
    ]
    assert (refused.held, held.held) == (False, True)
    assert held.money == Decimal("0.01")


def test_open_question_is_a_wait_and_a_closed_one_says_who_and_how_long(act, ask, tell) -> None:
    waiting = act(0, "a__a", cost=None, state=ActionState.WAITING, verdict=Verdict.ESCALATE)
    ask(waiting)
    agreed = act(10, "a__b", verdict=Verdict.ESCALATE)
    ask(agreed, waited=90)
    refused = act(20, "a__c", cost=None, state=ActionState.DENIED, verdict=Verdict.ESCALATE)
    ask(refused, waited=95, approved=False)
    story = tell()
    still, approval, denial = of_kind(story, ItemKind.WAIT)
    assert (still.title, still.waits_for, still.seconds) == ("Waits for Dana", "Dana", 0)
    assert approval.title == f"{EscalationState.APPROVED.label} by Dana"
    assert (approval.seconds, approval.sub) == (90, "as agreed")
    assert denial.title == f"{EscalationState.DENIED.label} by Dana"
    assert story.items.index(still) == 1
    assert [item.at for item in story.items] == sorted(item.at for item in story.items)


def test_a_question_names_those_who_may_still_answer(act, ask, tell, bob: User, dana: User) -> None:
    """Not who answered already, nor whom four eyes leave out; without anybody left, no name is made up."""

    def question(seconds: float, **changes: object) -> Escalation:
        return ask(
            act(seconds, f"a__{seconds}", cost=None, state=ActionState.WAITING, verdict=Verdict.ESCALATE), **changes
        )

    def waits_for() -> list[str]:
        return [item.title.removeprefix("Waits for ") for item in of_kind(tell(), ItemKind.WAIT)]

    question(0)
    question(1, excluded_user_ids=[dana.pk])
    answered = question(2, excluded_user_ids=[dana.pk])
    Vote.objects.create(
        organisation_id=answered.organisation_id, escalation=answered, user=bob, approve=True, created_at=START
    )
    assert waits_for() == ["Bob or Dana", "Bob", "approvers who are missing"]


def test_what_a_person_agreed_to_is_never_hidden_in_a_group(act, ask, tell) -> None:
    """An approved action is allowed like its neighbours; that somebody was asked still shows, and counts."""
    for seconds in range(7):
        action = act(seconds, "b__credit")
        if seconds == 3:
            ask(action, waited=0.5)
    assert kinds(tell()) == ["group", "action", "wait", "group"]
    assert tell().counts["asked_people"] == 1
    assert kinds(tell(verdict="asked")) == ["action", "wait"]


def test_attempts_begin_and_end_in_their_place(act, run: Run, tell) -> None:
    Run.objects.filter(pk=run.pk).update(
        started_at=START, ended_at=START + timedelta(seconds=5), state=RunState.LOST, reason="The node was lost"
    )
    act(2)
    begin, action, end = tell().items
    assert (begin.title, action.kind, end.title) == ("Attempt 1 started", ItemKind.ACTION, "Attempt 1 ended")
    assert end.sub == "The node was lost"


def test_the_seconds_of_a_sandbox_count_when_its_attempt_has_ended(act, run: Run, tell, monkeypatch) -> None:
    held = hold_of(run, charged="0.05")
    Run.objects.filter(pk=run.pk).update(
        started_at=START, ended_at=START + timedelta(seconds=5), state=RunState.LOST, hold_id=held
    )
    for seconds in (1, 2, 10, 11):
        act(seconds, f"a__t{seconds}", cost="0.01")
    *_, end, third, last = tell().items
    assert (end.title, end.money, end.total) == ("Attempt 1 ended", Decimal("0.05"), Decimal("0.07"))
    assert (third.total, last.total) == (Decimal("0.08"), Decimal("0.09"))
    monkeypatch.setattr(timelines, "LENGTH", 1)
    assert [item.total for item in tell().items] == [Decimal("0.09")]


def hold_of(run: Run, *, charged: str) -> uuid.UUID:
    """A settled hold for the run's sandbox seconds."""
    mission = run.mission
    account = Account.objects.create(
        organisation_id=mission.organisation_id, level="mission", name="m", path=[], depth=0, subject_id=mission.pk
    )
    return Hold.objects.create(
        id=new_id(), organisation_id=mission.organisation_id, account=account, request_hash=b"", window_ids=[],
        money=Decimal(1), tokens=0, steps=0, actual_money=Decimal(charged), state="settled", ttl_seconds=60,
        created_at=START, expires_at=START, closed_at=START,
    ).pk  # fmt: skip


def test_filter_shows_one_kind_of_verdict_and_counts_all(act, ask, run: Run, tell) -> None:
    act(0)
    act(1, state=ActionState.DENIED, verdict=Verdict.DENY, cost=None)
    ask(act(2, state=ActionState.WAITING, verdict=Verdict.ESCALATE, cost=None))
    assert kinds(tell(verdict="refused")) == ["action"]
    assert kinds(tell(verdict="asked")) == ["action", "wait"]
    assert kinds(tell(verdict="allowed")) == ["action"]
    for verdict in ("", "refused"):
        assert {item.total is None for item in of_kind(tell(verdict=verdict), ItemKind.ACTION)} == {bool(verdict)}
        assert tell(verdict=verdict).counts == {"all": 3, "allowed": 1, "refused": 1, "asked_people": 1, "waiting": 1}


def test_pages_meet_without_a_hole_and_totals_go_on(act, tell, monkeypatch) -> None:
    monkeypatch.setattr(timelines, "LENGTH", 4)
    made = [act(seconds, f"a__t{seconds}") for seconds in range(10)]
    seen: list[Item] = []
    before = None
    while True:
        page = tell(before=before)
        seen = [*page.items, *seen]
        if page.older is None:
            break
        before = page.older
    assert [item.action.pk for item in seen if item.action] == [action.pk for action in made]
    assert [item.total for item in seen] == [Decimal("0.01") * number for number in range(1, 11)]


def test_later_pages_do_not_repeat_the_attempts(act, run: Run, tell, monkeypatch) -> None:
    monkeypatch.setattr(timelines, "LENGTH", 2)
    Run.objects.filter(pk=run.pk).update(started_at=START)
    for seconds in range(1, 5):
        act(seconds, f"a__t{seconds}")
    newest = tell()
    assert of_kind(newest, ItemKind.RUN) == []
    assert len(of_kind(tell(before=newest.older), ItemKind.RUN)) == 1


def test_number_of_queries_does_not_grow(act, ask, tell) -> None:
    def queries() -> int:
        with CaptureQueriesContext(
            connection,
        ) as captured:
            tell()
        return len(captured)

    ask(act(0, "a__a", state=ActionState.WAITING, verdict=Verdict.ESCALATE, cost=None))
    few = queries()
    for seconds in range(1, 40):
        ask(act(seconds, f"a__{seconds}", verdict=Verdict.ESCALATE), waited=5)
    assert queries() <= few + 2  # votes and their users, once there are any


def test_mission_without_a_past_has_an_empty_story(tell) -> None:
    story = tell()
    assert (list(story.items), story.older, story.counts["all"]) == ([], None, 0)


def test_outsider_is_told_nothing(act, tell, as_charlie: Principal) -> None:
    act(0)
    story = tell(as_charlie)
    assert story.counts["all"] == 0
    assert of_kind(story, ItemKind.ACTION) == []


def test_arguments_are_shortened_to_what_one_recognises_them_by(act) -> None:
    action = act(0, arguments={"invoice": "INV-1", "note": "x" * 100, "lines": [1, 2], "deep": {"é": True}})
    short = timelines.arguments_in_short(action)
    assert short.startswith("INV-1 · [1, 2] · {")
    assert "…" in short
    assert '{"é": true}' in short
    assert len(timelines.arguments_in_short(act(1, arguments={str(n): "y" * 50 for n in range(20)}))) <= 160
