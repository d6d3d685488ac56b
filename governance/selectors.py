"""What people and agents may read of governance. Every query starts from a permission queryset."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from django.db.models import Case, Count, F, Prefetch, QuerySet, Value, When

from controlplane.common.cursors import foreign_cursor
from controlplane.common.errors import forbidden, not_found
from controlplane.common.ids import first_id, parse_id
from controlplane.tenancy.types import Permission, Principal
from governance.approval_models import EscalationMessage
from governance.choices import ActionState, EscalationState, Verdict
from governance.escalations.conversing import questions_of as questions_of
from governance.escalations.differences import Change as Change
from governance.escalations.differences import changes as changes
from governance.escalations.differences import in_words as in_words
from governance.escalations.first_asked import FIRST_ASKED as FIRST_ASKED
from governance.escalations.first_asked import first_asked as first_asked
from governance.escalations.foreseeing import Foreseen as Foreseen
from governance.escalations.foreseeing import whom_it_asks as whom_it_asks
from governance.escalations.foreseeing import whom_it_asks_by_amount as whom_it_asks_by_amount
from governance.escalations.health import ApproverHealth as ApproverHealth
from governance.escalations.health import Health as Health
from governance.escalations.health import approver_health as approver_health
from governance.escalations.notifying import count_unread as count_unread
from governance.escalations.notifying import notices_of as notices_of
from governance.escalations.notifying import read_link as read_link
from governance.escalations.reading import Answerers as Answerers
from governance.escalations.reading import InboxFilters as InboxFilters
from governance.escalations.reading import Left as Left
from governance.escalations.reading import answerers as answerers
from governance.escalations.reading import approval_route as approval_route
from governance.escalations.reading import approval_routes as approval_routes
from governance.escalations.reading import approver_groups as approver_groups
from governance.escalations.reading import asked_first as asked_first
from governance.escalations.reading import broken_glass as broken_glass
from governance.escalations.reading import delegations as delegations
from governance.escalations.reading import identical_to as identical_to
from governance.escalations.reading import in_place_of as in_place_of
from governance.escalations.reading import inbox, waiting_for
from governance.escalations.reading import left_to_answer as left_to_answer
from governance.escalations.reading import reviewers as reviewers
from governance.escalations.reading import routes_in_words as routes_in_words
from governance.escalations.reading import try_routes as try_routes
from governance.escalations.route_reach import never_settled as never_settled
from governance.models import Action, Decision, Escalation, Permit, PolicyBundle, Vote
from governance.registry import known_kinds as known_kinds
from governance.rejudging import changed_in_words as changed_in_words

MAX_PAGE: Final = 200
MOST_COUNTED: Final = 100
ACTIONS_SEARCHED: Final = 3000
QUESTIONS_SEARCHED: Final = 1000


@dataclass(frozen=True)
class ActionFilters:
    """None: not filtered by it."""

    mission_id: uuid.UUID | None = None
    agent_id: uuid.UUID | None = None
    run_id: uuid.UUID | None = None
    state: ActionState | None = None
    verdict: Verdict | None = None
    kind: str | None = None
    tool: str | None = None


@dataclass(frozen=True)
class ActionPage:
    """Newest first. `next` is the cursor of the following page, None on the last."""

    items: Sequence[Action]
    next: str | None


def actions(
    *, principal: Principal, filters: ActionFilters | None = None, limit: int = 50, cursor: str | None = None
) -> ActionPage:
    """Raises 422 `cursor.invalid`."""
    rows = Action.objects.restrict(principal, Permission.ACTION_VIEW)
    chosen = {name: value for name, value in vars(filters or ActionFilters()).items() if value is not None}
    rows = rows.filter(**chosen)
    if cursor is not None:
        before = parse_id(cursor)
        if before is None:
            raise foreign_cursor()
        rows = rows.filter(pk__lt=before)
    size = max(1, min(limit, MAX_PAGE))
    found = list(rows.order_by("-id")[: size + 1])
    return ActionPage(found[:size], str(found[size - 1].pk) if len(found) > size else None)


def action(*, principal: Principal, action_id: uuid.UUID) -> Action:
    """One action with its decisions, permits, escalations and votes already fetched, oldest first. Raises 404."""
    row = (
        Action.objects.restrict(principal, Permission.ACTION_VIEW)
        .filter(pk=action_id)
        .prefetch_related(
            Prefetch("decisions", Decision.objects.order_by("id")),
            Prefetch("permits", Permit.objects.order_by("id")),
            Prefetch(
                "escalations",
                Escalation.objects.order_by("id").prefetch_related(
                    Prefetch("votes", Vote.objects.order_by("id").select_related("user", "for_user"))
                ),
            ),
        )
        .first()
    )
    if row is None:
        raise not_found("action")
    return row


def decisions(*, principal: Principal, action_id: uuid.UUID) -> QuerySet[Decision]:
    """How an action was judged, oldest first; none of one that is not to be seen."""
    seen = Action.objects.restrict(principal, Permission.ACTION_VIEW).filter(pk=action_id)
    return Decision.objects.filter(action__in=seen).order_by("id")


def asked_of_people(
    *, principal: Principal, mission_id: uuid.UUID, kinds: Iterable[str], limit: int = 20
) -> list[Action]:
    """What of these kinds was asked about a mission, newest first, with questions and votes. Three queries."""
    rows = Action.objects.restrict(principal, Permission.ACTION_VIEW).filter(
        mission_id=mission_id, kind__in=list(kinds)
    )
    votes = Prefetch("votes", Vote.objects.order_by("id").select_related("user"))
    questions = Prefetch("escalations", Escalation.objects.order_by("id").prefetch_related(votes))
    return list(rows.order_by("-id").prefetch_related(questions)[: max(1, min(limit, MAX_PAGE))])


def open_beside(principal: Principal, action: Action) -> list[Escalation]:
    """Other open questions of the same kind about the same subject, the oldest first, with their actions."""
    rows = Escalation.objects.restrict(principal, Permission.ESCALATION_VIEW).filter(
        state=EscalationState.OPEN, kind=action.kind, action__subject_id=action.subject_id
    )
    return list(rows.exclude(action_id=action.pk).select_related("action").order_by("id")[:5])


def action_titles(principal: Principal, ids: Iterable[uuid.UUID]) -> dict[uuid.UUID, str]:
    """The titles of those of the actions that the principal may see. One query, none without ids."""
    wanted = set(ids)
    if not wanted:
        return {}
    rows = Action.objects.restrict(principal, Permission.ACTION_VIEW).filter(pk__in=wanted)
    return dict(rows.values_list("pk", "title"))


def action_state(*, principal: Principal, action_id: uuid.UUID) -> ActionState:
    """Only the state, for those who wait for it to change. Raises 404."""
    rows = Action.objects.restrict(principal, Permission.ACTION_VIEW).filter(pk=action_id)
    state = rows.values_list("state", flat=True).first()
    if state is None:
        raise not_found("action")
    return ActionState(state)


def find_actions(principal: Principal, *, text: str, limit: int = 5) -> list[Action]:
    """By whole id, else by title among the newest few thousand: a search must not read the whole history."""
    rows = Action.objects.restrict(principal, Permission.ACTION_VIEW)
    key = parse_id(text.lower())
    if key is not None:
        return list(rows.filter(pk=key))
    newest = rows.order_by("-id").values_list("pk", "title")[:ACTIONS_SEARCHED]
    wanted = text.lower()
    found = [pk for pk, title in newest if wanted in title.lower()]
    return list(Action.objects.filter(pk__in=found[:limit]).order_by("-id")) if found else []


def find_escalations(principal: Principal, *, text: str, limit: int = 5) -> list[Escalation]:
    """By whole id, else by the title or arguments of the newest thousand, open ones first."""
    rows = Escalation.objects.restrict(principal, Permission.ESCALATION_VIEW)
    key = parse_id(text.lower())
    if key is not None:
        return list(rows.filter(pk=key))
    newest = rows.order_by("-id").values_list("pk", "title", "action__arguments", "state")[:QUESTIONS_SEARCHED]
    wanted = text.lower()
    found = [
        (state != EscalationState.OPEN, place, pk)
        for place, (pk, title, arguments, state) in enumerate(newest)
        if wanted in title.lower() or any(wanted in str(value).lower() for value in arguments.values())
    ]
    chosen = [pk for _, _, pk in sorted(found)[:limit]]
    by_id = rows.select_related("action").in_bulk(chosen) if chosen else {}
    return [by_id[pk] for pk in chosen if pk in by_id]


def decided_action(action_id: uuid.UUID) -> Action:
    """For action kinds, inside `on_decided`: the action being decided. Whoever decided it has been checked."""
    return Action.objects.get(pk=action_id)


def escalation(*, principal: Principal, escalation_id: uuid.UUID) -> Escalation:
    """One escalation with its action, decision, votes and messages. Raises 404."""
    row = (
        Escalation.objects.restrict(principal, Permission.ESCALATION_VIEW)
        .filter(pk=escalation_id)
        .select_related("action__replaces", "decision", "group", "next_group", "claimed_by")
        .prefetch_related(
            Prefetch("votes", Vote.objects.order_by("id").select_related("user", "for_user")),
            Prefetch("messages", EscalationMessage.objects.order_by("id")),
        )
        .first()
    )
    if row is None:
        raise not_found("escalation")
    return row


def escalations(
    *, principal: Principal, state: EscalationState | None = None, mission_id: uuid.UUID | None = None, limit: int = 50
) -> list[Escalation]:
    """What the principal may see, newest first, whoever has to decide it."""
    rows = Escalation.objects.restrict(principal, Permission.ESCALATION_VIEW).select_related("action")
    if state is not None:
        rows = rows.filter(state=state)
    if mission_id is not None:
        rows = rows.filter(mission_id=mission_id)
    return list(rows.order_by("-id")[: max(1, min(limit, MAX_PAGE))])


def escalation_rows(
    principal: Principal,
    *,
    state: str | None = None,
    mission_id: uuid.UUID | None = None,
    waiting_for_me: bool = False,
    filters: InboxFilters | None = None,
) -> QuerySet[Escalation]:
    """What the principal may see, or has to decide, for a list that is paged."""
    rows = (
        waiting_for(principal) if waiting_for_me else Escalation.objects.restrict(principal, Permission.ESCALATION_VIEW)
    )
    wanted = {"state": state, "mission_id": mission_id, **(filters.chosen if filters else {})}
    return rows.filter(**{name: value for name, value in wanted.items() if value is not None})


def escalations_waiting_for(
    principal: Principal, *, filters: InboxFilters | None = None, limit: int = 100
) -> list[Escalation]:
    """What this person has to decide, the most urgent first, each with its action and decision."""
    rows = inbox(waiting_for(principal), filters).select_related("decision")
    return list(rows[: max(1, min(limit, MAX_PAGE))])


def count_waiting_for(*, principal: Principal) -> int:
    """One query: open, in time, and this person may decide it and has not voted yet. Not counted beyond MOST_COUNTED:
    every page shows it."""
    return waiting_for(principal)[:MOST_COUNTED].count()


def open_escalations(
    principal: Principal, *, filters: InboxFilters | None = None, limit: int = 100
) -> list[Escalation]:
    """Every open question the principal may see, the most urgent first, whoever has to decide it."""
    rows = Escalation.objects.restrict(principal, Permission.ESCALATION_VIEW).filter(state=EscalationState.OPEN)
    return list(inbox(rows, filters)[: max(1, min(limit, MAX_PAGE))])


def decided_escalations(principal: Principal, *, limit: int = 50) -> list[Escalation]:
    """Questions that are no longer open, the last closed first, each with its votes."""
    rows = Escalation.objects.restrict(principal, Permission.ESCALATION_VIEW).exclude(state=EscalationState.OPEN)
    return list(_with_votes(rows).order_by("-closed_at", "-id")[: max(1, min(limit, MAX_PAGE))])


def escalations_with_votes(principal: Principal, filters: InboxFilters | None = None) -> QuerySet[Escalation]:
    """All the principal may see, in whatever state, each with its action and votes: for reading page by page."""
    rows = Escalation.objects.restrict(principal, Permission.ESCALATION_VIEW)
    return _with_votes(rows.filter(**(filters or InboxFilters()).chosen))


def organisation_asking(escalation_id: uuid.UUID) -> uuid.UUID | None:
    """Whose question it is. For a link that was mailed to somebody of that organisation; it shows nothing of it."""
    return Escalation.objects.filter(pk=escalation_id).values_list("organisation_id", flat=True).first()


def similar_decisions(principal: Principal, escalation: Escalation, *, limit: int = 5) -> list[Escalation]:
    """What people said before to the same kind of question about the same tool, the last first, with their votes."""
    rows = Escalation.objects.restrict(principal, Permission.ESCALATION_VIEW).filter(
        kind=escalation.kind,
        action__tool=escalation.action.tool,
        state__in=[EscalationState.APPROVED, EscalationState.DENIED],
    )
    return list(_with_votes(rows.exclude(pk=escalation.pk)).order_by("-closed_at", "-id")[:limit])


def verdict_mix(principal: Principal, since: datetime) -> Mapping[Verdict, int]:
    """How many actions proposed since then were allowed, asked for and refused; all three are always there. What a
    person was asked about counts as that, whatever the answer was."""
    first = first_id(since)
    # One list for all actions, not a look for each of them.
    asked = Escalation.objects.filter(action_id__gte=first).order_by().values("action_id")
    counted = (
        Action.objects.restrict(principal, Permission.ACTION_VIEW)
        .filter(pk__gte=first)
        .annotate(first_verdict=Case(When(pk__in=asked, then=Value(Verdict.ESCALATE.value)), default=F("verdict")))
        .values_list("first_verdict")
        .annotate(number=Count("id"))
    )
    found = dict(counted)
    return {verdict: found.get(verdict.value, 0) for verdict in Verdict}


def bundles(*, principal: Principal) -> list[PolicyBundle]:
    """The organisation's own bundles, newest first; the baseline is not among them."""
    return list(PolicyBundle.objects.restrict(principal, Permission.POLICY_VIEW).order_by("-created_at"))


def bundle_in_force(principal: Principal) -> PolicyBundle | None:
    """The rules the principal's organisation is judged by: its own, else the baseline. None: everything is refused."""
    if not principal.has_anywhere(Permission.POLICY_VIEW):
        raise forbidden(Permission.POLICY_VIEW.value)
    return PolicyBundle.objects.in_force(principal.organisation_id)


def judged_by_other_rules(escalation: Escalation) -> bool:
    """Whether other rules are in force than those that asked. For who may see the question, which comes with its
    decision."""
    in_force = PolicyBundle.objects.in_force(escalation.organisation_id)
    return in_force is None or in_force.sha256 != escalation.decision.bundle_sha256


def _with_votes(rows: QuerySet[Escalation]) -> QuerySet[Escalation]:
    votes = Vote.objects.order_by("id").select_related("user")
    return rows.select_related("action").prefetch_related(Prefetch("votes", votes))
