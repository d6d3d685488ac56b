"""A mission's story on one axis: attempts, pauses, actions, waits for people and money, like neighbours grouped, gaps
folded."""

from __future__ import annotations

import enum
import json
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import accumulate, islice

from django.db.models import Count, Exists, OuterRef, Prefetch, Q, QuerySet, Sum

from agents.choices import ENDED_RUN_STATES, RunState
from agents.models import Mission, Run
from agents.result_words import in_words
from agents.waiting import NOBODY_KNOWN, waited_for
from budgets import selectors as budgets
from controlplane.audit import selectors as audit
from controlplane.audit.events import Event
from controlplane.common.choices import StatusChoices
from controlplane.common.plain import without_code
from controlplane.tenancy.types import Permission, Principal
from governance.choices import ActionState, EscalationState, Verdict
from governance.models import Action, Escalation, Vote
from governance.selectors import FIRST_ASKED

LENGTH = 200  # actions on one page of the timeline
GAP = timedelta(minutes=2)
GROUP_FROM = 3  # this many alike in a row become one line
LONGEST_ROUND = 3  # and so do rounds of up to so many different calls
_SHOWN_ARGUMENT = 60
_WHOLE = 160  # arguments longer than this are read on their own page before anybody answers
_SHORT_ARGUMENT = 16  # names and amounts, unlike texts
_ASKED = Q(verdict="escalate") | Q(asked=True)  # an approval turns the verdict into "allow"; it was asked all the same
_TOLD = ("tool.call", "budget.topup")
_HOLDING = frozenset({ActionState.WAITING, ActionState.PERMITTED, ActionState.EXECUTING})
_WITH_PEOPLE = frozenset(ActionState) - {ActionState.DENIED, ActionState.EXPIRED, ActionState.FAILED}
_NEVER_DONE = frozenset({ActionState.DENIED, ActionState.EXPIRED, ActionState.WITHDRAWN})


class ItemKind(enum.StrEnum):
    RUN = "run"
    STEP = "step"
    ACTION = "action"
    GROUP = "group"
    WAIT = "wait"
    RAN = "ran"
    GAP = "gap"


@dataclass(frozen=True)
class Item:
    """One line. `label` says what its icon means, `waits_for` who has to answer an open question. `money` is None
    where nothing was spent or held; `total` is what the mission had spent by then, where the story is whole. `members`
    are the other actions of a group, and `titles` the calls of one of its `rounds`."""

    kind: ItemKind
    at: datetime
    tone: str
    icon: str
    title: str
    detail: str = ""
    label: str = ""
    sub: str = ""
    action: Action | None = None
    escalation: Escalation | None = None
    money: Decimal | None = None
    total: Decimal | None = None
    held: bool = False
    seconds: float = 0
    members: Sequence[Item] = field(default=())
    titles: Sequence[str] = field(default=())
    rounds: int = 0
    waits_for: str = ""


@dataclass(frozen=True)
class Timeline:
    """Oldest first. `older` is the id to page back from, None at the beginning."""

    items: Sequence[Item]
    older: uuid.UUID | None
    counts: dict[str, int]


def timeline(principal: Principal, mission: Mission, *, verdict: str = "", before: uuid.UUID | None = None) -> Timeline:
    """Eight queries whatever the length. `mission.runs` must be prefetched. `verdict` shows only refused, waiting or
    allowed ones, without what was spent by then: the rest of it is not on the page."""
    everything = Action.objects.restrict(principal, Permission.ACTION_VIEW).filter(mission_id=mission.pk)
    everything = everything.alias(asked=Exists(Escalation.objects.filter(action_id=OuterRef("pk"))))
    actions = everything.filter(kind="tool.call")
    chosen = {"refused": Q(verdict="deny"), "asked": _ASKED, "allowed": Q(verdict="allow")}.get(verdict)
    shown = actions.filter(chosen) if chosen else everything.filter(kind__in=_TOLD)
    if before is not None:
        shown = shown.filter(pk__lt=before)
    questions = Escalation.objects.annotate(first_asked_at=FIRST_ASKED).prefetch_related("votes__user").order_by("pk")
    newest = list(shown.order_by("-pk").prefetch_related(Prefetch("escalations", questions))[: LENGTH + 1])
    page = newest[:LENGTH][::-1]
    older = page[0].pk if len(newest) > LENGTH else None
    open_ones = [row for action in page for row in action.escalations.all() if row.state == EscalationState.OPEN]
    events = sorted(_of_actions(page, waited_for(principal, open_ones)), key=_moment)
    if not chosen:
        beside = [*_of_runs(list(mission.runs.all())), *_of_pauses(mission)]
        earlier = [item for item in beside if older is not None and item.at < page[0].created_at]
        events = sorted([*events, *(item for item in beside if item not in earlier)], key=_moment)
        base = actions.filter(pk__lt=page[0].pk).aggregate(total=Sum("cost"))["total"] if page else None
        events = _with_totals(events, sum(map(_spent, earlier), base or Decimal(0)))
    return Timeline(_with_gaps(_grouped(events)), older, _counts(actions))


def _moment(item: Item) -> datetime:
    return item.at


def _spent(item: Item) -> Decimal:
    """What the mission's budget was charged for it."""
    return (item.action.cost if item.action else item.money) or Decimal(0) if item.money is not None else Decimal(0)


def _counts(actions: QuerySet[Action]) -> dict[str, int]:
    result: dict[str, int] = actions.aggregate(
        all=Count("pk"),
        allowed=Count("pk", filter=Q(verdict="allow")),
        refused=Count("pk", filter=Q(verdict="deny")),
        asked_people=Count("pk", filter=_ASKED),
        waiting=Count("pk", filter=Q(state=ActionState.WAITING)),
    )
    return result


def _with_totals(items: Sequence[Item], total: Decimal) -> list[Item]:
    """The same, each with what was spent by then, from `total` on."""
    totals = accumulate(map(_spent, items), initial=total)
    return [replace(item, total=spent) for item, spent in zip(items, islice(totals, 1, None), strict=True)]


def _of_runs(runs: Sequence[Run]) -> Iterable[Item]:
    """Where each began and ended. The seconds of its sandbox are charged when it has ended."""
    charged = budgets.charged(hold_ids=[run.hold_id for run in runs if run.hold_id])
    for run in runs:
        sandbox = run.sandbox
        where = (
            f"{sandbox.isolation}, {_size(sandbox.observed_resources or sandbox.desired_resources)}"
            if sandbox and sandbox.isolation
            else ""
        )
        name = sandbox.name if sandbox else ""
        yield Item(
            ItemKind.RUN,
            run.started_at or run.created_at,
            "neutral",
            "start",
            f"Attempt {run.attempt} started",
            name,
            sub=where,
        )
        if run.ended_at is not None and run.state in ENDED_RUN_STATES:
            state = RunState(run.state)
            yield Item(
                ItemKind.RUN,
                run.ended_at,
                state.tone,
                state.icon,
                f"Attempt {run.attempt} ended",
                sub=run.reason,
                money=charged.get(run.hold_id) if run.hold_id else None,
            )


def _of_pauses(mission: Mission) -> Iterable[Item]:
    """By whom or by which stop, and why."""
    for entry in audit.entries_about(mission.pk, Event.MISSION_PAUSED, Event.MISSION_RESUMED):
        paused, stop = entry.event == Event.MISSION_PAUSED, entry.payload.get("stop")
        by = f"By the stop of {stop}" if stop else f"By {entry.actor_name}"
        reason = entry.payload.get("reason")
        tone, icon, title = ("ask", "pause", "Paused") if paused else ("neutral", "start", "Resumed")
        yield Item(ItemKind.STEP, entry.at, tone, icon, title, sub=f"{by}: {reason}" if reason else by)


def _of_actions(actions: Iterable[Action], waits: Mapping[uuid.UUID, str]) -> Iterable[Item]:
    for action in actions:
        asked = action.verdict == "escalate" or bool(action.escalations.all())
        ran = asked and action.executing_at is not None and action.kind == "tool.call"
        later = ran or action.approved_unused
        yield _request(action, asked=asked) if action.kind != "tool.call" else _call(action, asked=asked, later=later)
        for escalation in action.escalations.all():
            yield _wait(action, escalation, waits.get(escalation.pk, NOBODY_KNOWN))
        if ran:
            yield _ran(action)
        elif action.approved_unused:
            yield _unused(action)


def _call(action: Action, *, asked: bool, later: bool) -> Item:
    """Where it was proposed. `later`: what came of it once a person had agreed has a line of its own, and what it cost
    stands there."""
    state = ActionState(action.state)
    shown: StatusChoices = Verdict.ESCALATE if later else state
    look = Verdict.ESCALATE if later or (asked and state in _WITH_PEOPLE) else state
    return Item(
        ItemKind.ACTION,
        action.created_at,
        look.tone,
        look.icon,
        action.title,
        arguments_in_short(action),
        str(shown.label),
        "" if action.approved_unused else action.message if later else _said(action),
        action=action,
        money=None if later else _money(action, state),
        held=not later and _holds(action, state),
    )


def _ran(action: Action) -> Item:
    state = ActionState(action.state)
    return Item(
        ItemKind.RAN,
        (action.executing_at or action.created_at) + timedelta(microseconds=1),
        state.tone,
        state.icon,
        action.title,
        "runs" if state == ActionState.EXECUTING else "ran",
        str(state.label),
        "" if state == ActionState.EXECUTING else _said(action),
        action=action,
        money=_money(action, state),
        held=_holds(action, state),
    )


def _unused(action: Action) -> Item:
    """Somebody said yes to it: that nothing came of it is told as plainly."""
    state = ActionState(action.state)
    said = action.message
    if action.hold_id:
        said = f"{said.rstrip('.')}. What was held for it was released."
    return Item(
        ItemKind.RAN,
        action.ended_at or action.created_at,
        "ask",
        state.icon,
        action.title,
        "was approved and never carried out",
        str(state.label),
        said,
        action=action,
        money=Decimal(0),
    )


def _request(action: Action, *, asked: bool) -> Item:
    """More budget, as somebody asked for it. Raising a limit spends nothing."""
    reason = str(action.arguments.get("reason", ""))
    by = f"asked for by {action.proposer_name}"
    look: StatusChoices = Verdict.ESCALATE if asked else ActionState(action.state)
    said = f"{by}: {reason}" if reason else by
    return Item(
        ItemKind.ACTION, action.created_at, look.tone, look.icon, action.title, "", str(look.label), said, action=action
    )


def _wait(action: Action, escalation: Escalation, waits_for: str) -> Item:
    moment = escalation.opened_at + timedelta(microseconds=1)
    if escalation.state == EscalationState.OPEN:
        return Item(
            ItemKind.WAIT,
            moment,
            "wait",
            "wait",
            f"Waits for {waits_for}",
            action=action,
            escalation=escalation,
            waits_for=waits_for,
        )
    state = EscalationState(escalation.state)
    deciding = _deciding_votes(escalation)
    names = ", ".join(vote.user.name for vote in deciding)
    title = f"{state.label} by {names}" if names else str(state.label)
    first_asked_at: datetime = escalation.first_asked_at  # type: ignore[attr-defined]  # annotated above
    waited = ((escalation.closed_at or moment) - first_asked_at).total_seconds()
    return Item(
        ItemKind.WAIT,
        escalation.closed_at or moment,
        state.tone,
        state.icon,
        title,
        action.title,
        sub="; ".join(vote.reason for vote in deciding if vote.reason) or escalation.reason,
        action=action,
        escalation=escalation,
        seconds=waited,
    )


def _deciding_votes(escalation: Escalation) -> list[Vote]:
    """Of those whose answer it became. Who said otherwise stands on the question's own page."""
    approved, denied = escalation.state == EscalationState.APPROVED, escalation.state == EscalationState.DENIED
    return [vote for vote in escalation.votes.all() if (approved and vote.approve) or (denied and not vote.approve)]


def _money(action: Action, state: ActionState) -> Decimal:
    """What it cost, or holds; nothing for what was never done."""
    if action.cost is not None:
        return action.cost
    return Decimal(0) if state in _NEVER_DONE else action.price


def _holds(action: Action, state: ActionState) -> bool:
    return action.cost is None and state in _HOLDING


def _said(action: Action) -> str:
    if action.state == ActionState.SUCCEEDED and action.outcome:
        return in_words(str(action.outcome.get("summary", "")))
    if action.state in (ActionState.FAILED, ActionState.UNKNOWN) and action.outcome:
        said = in_words(without_code(str(action.outcome.get("error") or action.outcome.get("summary") or "")))
        label = str(ActionState(action.state).label)
        return f"{label}: {said}" if said else label
    return action.message


def arguments_in_short(action: Action) -> str:
    """`INV-0131 · 240.00`: the values of a call, enough to recognise it by. Long ones stand last."""
    shown = []
    for value in action.arguments.values():
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        shown.append(text if len(text) <= _SHOWN_ARGUMENT else text[: _SHOWN_ARGUMENT - 1] + "…")
    return " · ".join(sorted(shown, key=lambda text: len(text) > _SHORT_ARGUMENT))[:160]


def arguments_in_words(action: Action) -> tuple[str, bool]:
    """ "amount 240.00, invoice INV-0131", and whether that is every argument, whole and on one line."""
    parts = []
    for name, value in action.arguments.items():
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        parts.append(f"{name} {text}")
    words = ", ".join(sorted(parts, key=lambda part: len(part) > 2 * _SHORT_ARGUMENT))
    whole = len(words) <= _WHOLE and words.isprintable()
    return words if whole else words[: _WHOLE - 1] + "…", whole


def _grouped(items: Sequence[Item]) -> list[Item]:
    result: list[Item] = []
    run: list[Item] = []
    for item in items:
        if item.kind is ItemKind.ACTION and item.tone == "allow" and not item.held:
            run.append(item)
            continue
        result += [*_folded(run), item]
        run = []
    return result + _folded(run)


def _folded(run: Sequence[Item]) -> list[Item]:
    """Calls that went well, with what repeats made one line: the same call, or a round of a few calls, again and
    again."""
    result: list[Item] = []
    titles = [item.title for item in run]
    at = 0
    while at < len(run):
        length, rounds = _repeats(titles, at)
        if rounds < GROUP_FROM:
            result.append(run[at])
            at += 1
            continue
        result.append(_group(run[at : at + length * rounds], length, rounds))
        at += length * rounds
    return result


def _repeats(titles: Sequence[str], at: int) -> tuple[int, int]:
    """The round that covers most from here on, and how often it is walked; the shortest of equals."""
    best, best_rounds = 1, 1
    for length in range(1, LONGEST_ROUND + 1):
        one, rounds = titles[at : at + length], 1
        while titles[at + rounds * length : at + (rounds + 1) * length] == one:
            rounds += 1
        if rounds >= GROUP_FROM and rounds * length > best * best_rounds:
            best, best_rounds = length, rounds
    return best, best_rounds


def _group(members: Sequence[Item], length: int, rounds: int) -> Item:
    first, last = members[0], members[-1]
    return Item(
        ItemKind.GROUP,
        first.at,
        first.tone,
        first.icon,
        ", ".join(item.title for item in members[:length]),
        first.detail if length == 1 else "",
        first.label,
        first.sub if length == 1 else "",
        action=first.action,
        money=sum((item.money or Decimal(0) for item in members), Decimal(0)),
        total=last.total,
        members=members[1:] if length == 1 else members,
        titles=[item.title for item in members[:length]],
        rounds=rounds,
    )


def _with_gaps(items: Sequence[Item]) -> list[Item]:
    result: list[Item] = []
    for item in items:
        if result:
            end = result[-1].members[-1].at if result[-1].members else result[-1].at
            if item.at - end > GAP:
                result.append(Item(ItemKind.GAP, end, "neutral", "off", "", seconds=(item.at - end).total_seconds()))
        result.append(item)
    return result


def _size(resources: dict[str, int]) -> str:
    cores = Decimal(resources.get("cpu_millicores", 0)) / 1000
    return f"no network, {cores.normalize():f} CPU, {resources.get('memory_bytes', 0) // 1024**2} MiB"
