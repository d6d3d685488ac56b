"""What pages and edges read of questions to people beyond the rows: the inbox, who may answer, what is identical."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from django.contrib.postgres.expressions import ArraySubquery
from django.contrib.postgres.fields import ArrayField
from django.db.models import Exists, ExpressionWrapper, F, OuterRef, Prefetch, Q, QuerySet, UUIDField

from controlplane.common.clock import now
from controlplane.common.errors import RemitError, forbidden, not_found
from controlplane.tenancy.models import Membership, Team, User
from controlplane.tenancy.types import Permission, Principal
from governance.approval_models import ApprovalRoute, ApproverGroup, BreakGlass, Delegation
from governance.choices import EscalationState
from governance.escalations.arranging import in_words
from governance.escalations.deciding import is_claimed, why_not_decide
from governance.escalations.electorate import DECIDING_ROLES, Electorate, electorate_of, electorates
from governance.escalations.ways import Asked, Way, chosen_way, why_not
from governance.models import DUE_AT, DUE_BUCKET, Action, Escalation, Vote
from governance.registry import kind_of


@dataclass(frozen=True)
class InboxFilters:
    """None: not filtered by it."""

    kind: str | None = None
    team_id: uuid.UUID | None = None
    group_id: uuid.UUID | None = None
    irreversible: bool | None = None

    @property
    def chosen(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if value is not None}


@dataclass(frozen=True)
class Answerers:
    """Who may answer a question, for its viewer. `counted`: approvals that count now; `missing`: still needed."""

    why_not: RemitError | None
    left: Sequence[User]
    counted: int
    missing: int
    in_reach: bool
    claimed_by_another: bool
    may_break_glass: bool
    nobody_reviews: bool  # what the viewer would pass over: nobody else may


@dataclass(frozen=True)
class Left:
    """Who may still answer a question, by name, and how many of them it still needs; nobody where all of them together
    could not settle it."""

    people: Sequence[User]
    missing: int


def waiting_for(principal: Principal) -> QuerySet[Escalation]:
    """Open, in time, and this person is asked, may decide it and has not voted yet. One query, whoever counts it, after
    one that asks whether they have ever stood in for somebody: what that means is dear to ask, and rarely needed."""
    rows = Escalation.objects.restrict(principal, Permission.ESCALATION_DECIDE)
    user_id = principal.user_id
    if user_id is None or not principal.is_person:
        return rows.none()
    moment = now()
    groups = ApproverGroup.members.through.objects.filter(user_id=user_id).values("approvergroup_id")
    asked = Q(group__isnull=True) | Q(group_id__in=groups)
    later = Q(next_group__isnull=True) | Q(next_group_id__in=groups)
    rows = (
        rows.filter(state=EscalationState.OPEN, expires_at__gt=moment)
        .exclude(excluded_user_ids__contains=[user_id])
        .exclude(action__proposer_id=user_id)
        .exclude(votes__user_id=user_id)
    )
    delegations = Delegation.objects.filter(
        organisation_id=principal.organisation_id, starts_at__lte=moment, starts_at__lt=F("ends_at")
    )
    lent = delegations.filter(to_user_id=user_id)
    if not lent.exists():
        return rows.filter(asked | (Q(tier__gt=1) & later))
    lenders = _lenders(delegations, user_id, moment)
    asked |= Q(Exists(_members_of("group_id", lenders)))
    later |= Q(Exists(_members_of("next_group_id", lenders)))
    concerned = lent.filter(ends_at__gt=OuterRef("opened_at")).values("from_user_id")
    return (
        rows.filter(asked | (Q(tier__gt=1) & later))
        .exclude(excluded_user_ids__overlap=ArraySubquery(concerned))
        .exclude(action__proposer_id__in=concerned)
    )


def _lenders(delegations: QuerySet[Delegation], user_id: uuid.UUID, moment: datetime) -> QuerySet[Delegation]:
    """Whose say this person could use in the question outside, as `Electorate` has it: who holds the role there, stands
    in for nobody who is too close, and has not answered, nor anybody else in their place."""
    question, lender = OuterRef(OuterRef("pk")), OuterRef("from_user_id")
    role = Membership.objects.standing().filter(user_id=lender, role__in=DECIDING_ROLES)
    role = role.filter(Q(team__isnull=True) | Q(team_id=OuterRef(OuterRef("team_id"))))
    role = role.filter(organisation_id=OuterRef("organisation_id"))
    concerned = delegations.filter(to_user_id=lender, ends_at__gt=OuterRef(OuterRef("opened_at")))
    excluded = ExpressionWrapper(OuterRef(OuterRef("excluded_user_ids")), ArrayField(UUIDField()))
    # Not by a join to the action: every open question would be joined to its own before any is looked at.
    asker = Action.objects.filter(pk=OuterRef(OuterRef(OuterRef("action_id")))).values("proposer_id")
    concerned = concerned.alias(excluded=excluded).filter(
        Q(excluded__contains=[F("from_user_id")]) | Q(from_user_id__in=asker)
    )
    stands_in = delegations.filter(
        from_user_id=OuterRef("for_user_id"), to_user_id=OuterRef("user_id"), ends_at__gt=moment
    )
    used = Vote.objects.filter(escalation_id=question)
    used = used.filter(Q(user_id=lender) | Q(Exists(stands_in), for_user_id=lender))
    in_force = delegations.filter(to_user_id=user_id, ends_at__gt=moment)
    return in_force.filter(Exists(role), ~Exists(concerned), ~Exists(used))


def _members_of(group: str, lenders: QuerySet[Delegation]) -> QuerySet[Delegation]:
    members = ApproverGroup.members.through.objects.filter(user_id=OuterRef("from_user_id"))
    return lenders.filter(Exists(members.filter(approvergroup_id=OuterRef(OuterRef(group)))))


def inbox(rows: QuerySet[Escalation], filters: InboxFilters | None = None) -> QuerySet[Escalation]:
    """By deadline, and of what is due within the same ten minutes first what can't be undone."""
    return (
        rows.filter(**(filters or InboxFilters()).chosen)
        .select_related("action", "group", "claimed_by", "team")
        .annotate(due_at=DUE_AT)
        .order_by(DUE_BUCKET, "-irreversible", "due_at", "id")
    )


def answerers(principal: Principal, escalation: Escalation) -> Answerers:
    """Constant queries. `escalation` comes with its action and its votes."""
    electorate = electorate_of(escalation)
    reviewers = [user_id for user_id in _not_too_close(electorate) if user_id != principal.user_id]
    votes = list(escalation.votes.all())
    counted = len(electorate.taken(votes))
    why = None
    if principal.has(Permission.ESCALATION_DECIDE, team_id=escalation.team_id):
        why = why_not_decide(principal, escalation, electorate, votes)
    return Answerers(
        why_not=why,
        left=list(User.objects.filter(pk__in=_left(electorate, votes)).order_by("name")),
        counted=counted,
        missing=max(0, escalation.needed - counted),
        in_reach=electorate.reachable(votes) >= escalation.needed,
        claimed_by_another=is_claimed(escalation) and escalation.claimed_by_id != principal.user_id,
        may_break_glass=escalation.state == EscalationState.OPEN
        and escalation.expires_at > now()
        and principal.user_id is not None
        and principal.is_person
        and principal.has(Permission.ESCALATION_BREAK_GLASS, team_id=escalation.team_id)
        and not electorate.too_close(principal.user_id),
        nobody_reviews=not reviewers,
    )


def identical_to(principal: Principal, escalation: Escalation, *, limit: int = 50) -> list[Escalation]:
    """Open questions that wait for this person about the very same action, besides this one."""
    rows = waiting_for(principal).filter(action__digest=escalation.action.digest).exclude(pk=escalation.pk)
    return list(rows.select_related("action").order_by("id")[:limit])


def in_place_of(action: Action) -> Action | None:
    """What stands in the place of an action that people edited, however often; None for one that nobody edited."""
    found = None
    while (following := Action.objects.filter(replaces_id=(found or action).pk).first()) is not None:
        found = following
    return found


def asked_first(action: Action) -> list[Action]:
    """What was asked for before people edited it, the latest first."""
    before: list[Action] = []
    while action.replaces is not None:
        action = action.replaces
        before.append(action)
    return before


def approver_groups(principal: Principal) -> list[ApproverGroup]:
    """Those in use, by name, each with its members."""
    if not principal.has_anywhere(Permission.ESCALATION_VIEW):
        raise forbidden(Permission.ESCALATION_VIEW.value)
    rows = ApproverGroup.objects.filter(organisation_id=principal.organisation_id, retired_at__isnull=True)
    people = Prefetch("members", User.objects.order_by("name"))
    return list(rows.select_related("team").prefetch_related(people).order_by("name"))


def approval_routes(principal: Principal) -> list[ApprovalRoute]:
    """In the order they are tried."""
    if not principal.has_anywhere(Permission.ESCALATION_VIEW):
        raise forbidden(Permission.ESCALATION_VIEW.value)
    rows = ApprovalRoute.objects.filter(organisation_id=principal.organisation_id)
    return list(rows.select_related("organisation", "team", "group", "next_group").order_by("position"))


def routes_in_words(principal: Principal) -> list[tuple[ApprovalRoute, str]]:
    """Each with its sentence."""
    return [(row, in_words(row)) for row in approval_routes(principal)]


def approval_route(principal: Principal, route_id: uuid.UUID) -> tuple[ApprovalRoute, str]:
    """One route with its sentence. Raises 403, 404."""
    found = next((pair for pair in routes_in_words(principal) if pair[0].pk == route_id), None)
    if found is None:
        raise not_found("route")
    return found


def try_routes(
    principal: Principal, *, kind: str, team_id: uuid.UUID, amount: Decimal | None, irreversible: bool
) -> tuple[list[tuple[ApprovalRoute, str]], Way]:
    """Each route with why it does not fit (empty: it does), and the way a question with these facts would take. An
    amount stands for the kind's own and for any argument a route names. Raises 403, 404 `team.not_found`, 422
    `action.unknown_kind`: of what there is not, no way would be true."""
    routes = approval_routes(principal)
    kind_of(kind)
    if not Team.objects.filter(pk=team_id, organisation_id=principal.organisation_id).exists():
        raise not_found("team")
    named = {row.amount_argument: str(amount) for row in routes if row.amount_argument and amount is not None}
    asked = Asked(kind=kind, team_id=team_id, arguments=named, amount=amount, irreversible=irreversible)
    return [(row, why_not(row, asked)) for row in routes], chosen_way(routes, asked, seconds=3600)


def delegations(principal: Principal) -> list[Delegation]:
    """In force or to come: all for administrators, otherwise those one gave or was given."""
    rows = Delegation.objects.filter(
        organisation_id=principal.organisation_id, ends_at__gt=now(), starts_at__lt=F("ends_at")
    )
    if not principal.has(Permission.ORGANISATION_WRITE):
        rows = rows.filter(Q(from_user_id=principal.user_id) | Q(to_user_id=principal.user_id))
    return list(rows.select_related("from_user", "to_user").order_by("starts_at", "id"))


def broken_glass(
    principal: Principal,
    *,
    only_open: bool = False,
    permission: Permission = Permission.ESCALATION_VIEW,
    limit: int = 50,
) -> list[BreakGlass]:
    """The newest first; what nobody has reviewed before all else."""
    rows = BreakGlass.objects.restrict(principal, permission)
    if only_open:
        rows = rows.filter(reviewed_at__isnull=True)
    rows = rows.select_related("action", "escalation__action", "by", "reviewed_by")
    return list(rows.order_by(F("reviewed_at").desc(nulls_first=True), "-at")[:limit])


def reviewers(broken: Sequence[BreakGlass]) -> dict[uuid.UUID, list[User]]:
    """Who may review each broken glass that nobody has reviewed, by name. Four queries however many there are, none
    without one."""
    rows = [row for row in broken if row.reviewed_at is None]
    found = electorates([row.escalation for row in rows])
    return _by_name({row.pk: _may_review(row, found[row.escalation_id]) for row in rows})


def left_to_answer(questions: Sequence[Escalation]) -> dict[uuid.UUID, Left]:
    """Of questions of one organisation, with action and votes fetched. Four queries however many they are, none without
    questions."""
    found = electorates(questions)
    people = _by_name({row.pk: _who_can_settle(row, found[row.pk]) for row in questions})
    return {row.pk: Left(people[row.pk], _missing(row, found[row.pk])) for row in questions}


def _by_name(found: Mapping[uuid.UUID, Sequence[uuid.UUID]]) -> dict[uuid.UUID, list[User]]:
    users = User.objects.in_bulk({user_id for people in found.values() for user_id in people}) if found else {}
    return {
        key: sorted((users[user_id] for user_id in people), key=lambda user: (user.name, user.pk))
        for key, people in found.items()
    }


def _may_review(broken: BreakGlass, electorate: Electorate) -> list[uuid.UUID]:
    return [user for user in _not_too_close(electorate) if user != broken.by_id]


def _not_too_close(electorate: Electorate) -> list[uuid.UUID]:
    return [user for user in electorate.deciders if not electorate.too_close(user)]


def _who_can_settle(question: Escalation, electorate: Electorate) -> list[uuid.UUID]:
    votes = list(question.votes.all())
    return _left(electorate, votes) if electorate.reachable(votes) >= question.needed else []


def _missing(question: Escalation, electorate: Electorate) -> int:
    """One at least: whatever counts by now, an open question is settled by the next answer."""
    return max(1, question.needed - len(electorate.taken(question.votes.all())))


def _left(electorate: Electorate, votes: Sequence[Vote]) -> list[uuid.UUID]:
    voted = {vote.user_id for vote in votes}
    return [
        user_id
        for user_id in electorate.people
        if user_id not in voted and electorate.seat_for(user_id, votes) is not None
    ]
