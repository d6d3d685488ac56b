"""Approver groups and routes, set by administrators. Each change is audited; open questions keep their way."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from django.db import IntegrityError, transaction
from django.db.models import Max, Q, QuerySet

from controlplane.audit.events import Event
from controlplane.audit.services import Subject, record
from controlplane.common.canonical import digest
from controlplane.common.clock import now
from controlplane.common.errors import FieldError, RemitError, conflict, invalid, not_found
from controlplane.common.ids import new_id
from controlplane.common.written_amounts import written_amount
from controlplane.idempotency.services import one_at_a_time
from controlplane.tenancy.models import Membership, Team, User
from controlplane.tenancy.types import Permission, Principal
from governance.announcing import electorate_changed
from governance.approval_models import ApprovalRoute, ApproverGroup
from governance.registry import known_kinds

MOST_NEEDED: Final = 10
SHORTEST_SECONDS: Final = 60
LONGEST_SECONDS: Final = 14 * 24 * 3600
_MOST_MEMBERS: Final = 200


@dataclass(frozen=True)
class Route:
    """What a route says; what is empty fits everything. `group_id` None: anybody with the approver's role."""

    name: str
    kind: str = ""
    team_id: uuid.UUID | None = None
    amount_above: Decimal | None = None
    amount_argument: str = ""
    only_irreversible: bool = False
    group_id: uuid.UUID | None = None
    needed: int = 1
    answer_seconds: int | None = None
    next_group_id: uuid.UUID | None = None
    next_seconds: int | None = None


def save_group(
    *,
    actor: Principal,
    name: str,
    member_ids: Collection[uuid.UUID],
    team_id: uuid.UUID | None = None,
    group_id: uuid.UUID | None = None,
    expected: str | None = None,
) -> ApproverGroup:
    """Make a group, or change one. Members belong to the organisation. `expected`: the version that was read, where
    nothing newer may be overwritten. Raises 403, 404, 422 `group.invalid`, 409 `group.name_taken`, 412
    `group.changed_meanwhile`."""
    actor.require(Permission.ORGANISATION_WRITE)
    text, wanted = " ".join(name.split()), set(member_ids)
    errors = [] if 1 <= len(text) <= 80 else [FieldError("/name", "1 to 80 characters")]
    belongs = Membership.objects.standing().filter(organisation_id=actor.organisation_id)
    members = list(User.objects.filter(pk__in=wanted).filter(pk__in=belongs.values("user_id")).order_by("name"))
    if len(members) != len(wanted) or not 1 <= len(members) <= _MOST_MEMBERS:
        errors.append(FieldError("/member_ids", f"1 to {_MOST_MEMBERS} people of this organisation"))
    if team_id is not None and not Team.objects.filter(pk=team_id, organisation_id=actor.organisation_id).exists():
        errors.append(FieldError("/team_id", "a team of this organisation"))
    if errors:
        raise invalid("group.invalid", "The group can't be saved as it is.", *errors)
    try:
        with transaction.atomic():
            group = _group(actor, group_id) if group_id else ApproverGroup(organisation_id=actor.organisation_id)
            if group_id and expected not in (None, version_of_group(group)):
                raise _changed_meanwhile("group", group.name)
            group.name, group.team_id = text, team_id
            group.save()
            group.members.set(members)
            record(
                event=Event.APPROVER_GROUP_CHANGED,
                actor=actor,
                subject=Subject("approver_group", group.pk, group.name, team_id=team_id),
                payload={"members": ", ".join(person.name for person in members)[:1000]},
            )
            electorate_changed(actor.organisation_id)
    except IntegrityError as error:
        raise conflict("group.name_taken", f"There is a group “{text}” already.", "Choose another name.") from error
    return group


def retire_group(*, actor: Principal, group_id: uuid.UUID) -> ApproverGroup:
    """Ask it no more. Questions it was asked keep it. Raises 403, 404, 409 `group.in_use` while a route names it."""
    actor.require(Permission.ORGANISATION_WRITE)
    with transaction.atomic():
        _alone_with_routes(actor)
        group = _group(actor, group_id)
        route = ApprovalRoute.objects.filter(Q(group=group) | Q(next_group=group)).first()
        if route is not None:
            raise conflict("group.in_use", f"The route “{route.name}” asks it.", "Change that route first.")
        ApproverGroup.objects.filter(pk=group.pk, retired_at__isnull=True).update(retired_at=now())
        record(
            event=Event.APPROVER_GROUP_RETIRED,
            actor=actor,
            subject=Subject("approver_group", group.pk, group.name, team_id=group.team_id),
        )
    return group


def save_route(
    *, actor: Principal, route: Route, route_id: uuid.UUID | None = None, expected: str | None = None
) -> ApprovalRoute:
    """Make a route, as the last, or change one where it stands; `expected` as in `save_group`. Raises 403, 404, 422
    `route.invalid`, 412 `route.changed_meanwhile`."""
    actor.require(Permission.ORGANISATION_WRITE)
    with transaction.atomic():
        _alone_with_routes(actor)  # from here on nobody retires a group that it names
        errors = _wrong(actor, route)
        if errors:
            raise invalid("route.invalid", "The route can't be saved as it is.", *errors)
        row = _route(actor, route_id) if route_id else _last(actor)
        if route_id and expected not in (None, version_of_route(row)):
            raise _changed_meanwhile("route", row.name)
        for name, value in vars(route).items():
            setattr(row, name, value)
        row.name = " ".join(route.name.split())
        row.save()
        record(
            event=Event.APPROVAL_ROUTE_CHANGED,
            actor=actor,
            subject=Subject("approval_route", row.pk, row.name, team_id=row.team_id),
            payload={"route": in_words(row)},
        )
    return row


def remove_route(*, actor: Principal, route_id: uuid.UUID) -> None:
    """Raises 403, 404. Questions that took it keep their way."""
    actor.require(Permission.ORGANISATION_WRITE)
    with transaction.atomic():
        _alone_with_routes(actor)
        row = _route(actor, route_id)
        record(
            event=Event.APPROVAL_ROUTE_REMOVED,
            actor=actor,
            subject=Subject("approval_route", row.pk, row.name, team_id=row.team_id),
            payload={"route": in_words(row)},
        )
        row.delete()


def move_route(*, actor: Principal, route_id: uuid.UUID, up: bool) -> None:
    """Let it change places with the one before or after it. Raises 403, 404."""
    actor.require(Permission.ORGANISATION_WRITE)
    with transaction.atomic():
        _alone_with_routes(actor)
        row = _route(actor, route_id)
        rows = list(ApprovalRoute.objects.filter(organisation_id=actor.organisation_id).order_by("position"))
        at = next(number for number, other in enumerate(rows) if other.pk == row.pk)
        with_ = at - 1 if up else at + 1
        if not 0 <= with_ < len(rows):
            return
        first, second = rows[at].position, rows[with_].position
        ApprovalRoute.objects.filter(pk=rows[at].pk).update(position=second)
        ApprovalRoute.objects.filter(pk=rows[with_].pk).update(position=first)
        record(
            event=Event.APPROVAL_ROUTE_CHANGED,
            actor=actor,
            subject=Subject("approval_route", row.pk, row.name, team_id=row.team_id),
            payload={"route": f"now {'before' if up else 'after'} “{rows[with_].name}”"},
        )


def version_of_group(row: ApproverGroup) -> str:
    """What a change of a group would overwrite."""
    members = sorted(str(person.pk) for person in row.members.all())
    return _version(row.name, row.team_id, *members)


def version_of_route(row: ApprovalRoute) -> str:
    """What a change of a route would overwrite. Its place is no part of it: that is moved, never written."""
    return _version(*(getattr(row, name) for name in Route.__dataclass_fields__))


def in_words(row: ApprovalRoute) -> str:
    """A route as one sentence."""
    what = [f"“{known_kinds().get(row.kind, row.kind)}”" if row.kind else "Every action"]
    if row.team:
        what.append(f"of {row.team.name}")
    if row.amount_above is not None:
        above = written_amount(row.amount_above)
        own = f"with an amount above {above} {row.organisation.currency}"  # an argument is in a currency of its tool
        what.append(f"with “{row.amount_argument}” above {above}" if row.amount_argument else own)
    if row.only_irreversible:
        what.append("that can't be undone")
    asks = row.group.name if row.group else "any approver of the team"
    if row.needed > 1:
        asks = f"{row.group.name} for {row.needed} approvals" if row.group else f"{row.needed} approvers of the team"
    then = ""
    if row.next_seconds is not None:
        then = f"; then also {row.next_group.name if row.next_group else 'any approver of the team'}"
    return f"{' '.join(what)} asks {asks}{then}"


def _version(*facts: object) -> str:
    return digest([str(fact) for fact in facts]).removeprefix("sha256:")[:16]


def _changed_meanwhile(what: str, name: str) -> RemitError:
    return RemitError(
        f"{what}.changed_meanwhile",
        f"Somebody changed the {what} “{name}” since you read it. Nothing was saved.",
        412,
        remedies=("Look at it as it is now. Saving again puts yours in its place.",),
    )


def _wrong(actor: Principal, route: Route) -> list[FieldError]:
    errors = []
    if not 1 <= len(" ".join(route.name.split())) <= 80:
        errors.append(FieldError("/name", "1 to 80 characters"))
    if route.kind and route.kind not in known_kinds():
        errors.append(FieldError("/kind", "a kind of action that Remit knows"))
    if route.team_id and not Team.objects.filter(pk=route.team_id, organisation_id=actor.organisation_id).exists():
        errors.append(FieldError("/team_id", "a team of this organisation"))
    if route.amount_above is not None and not (route.amount_above.is_finite() and 0 <= route.amount_above < 10**12):
        errors.append(FieldError("/amount_above", "an amount, 0 or more"))
    if len(route.amount_argument) > 80:
        errors.append(FieldError("/amount_argument", "at most 80 characters"))
    if route.amount_argument and route.amount_above is None:
        errors.append(FieldError("/amount_above", "say above which amount"))
    if not 1 <= route.needed <= MOST_NEEDED:
        errors.append(FieldError("/needed", f"1 to {MOST_NEEDED}"))
    for name, seconds in (("answer_seconds", route.answer_seconds), ("next_seconds", route.next_seconds)):
        if seconds is not None and not SHORTEST_SECONDS <= seconds <= LONGEST_SECONDS:
            errors.append(FieldError(f"/{name}", "between one minute and 14 days"))
    for name, group_id in (("group_id", route.group_id), ("next_group_id", route.next_group_id)):
        if group_id and not _groups(actor).filter(pk=group_id).exists():
            errors.append(FieldError(f"/{name}", "a group of this organisation"))
    if route.next_group_id and route.next_seconds is None:
        errors.append(FieldError("/next_seconds", "how long the next tier has"))
    errors += _too_few(route)
    return errors


def _too_few(route: Route) -> Sequence[FieldError]:
    """A quorum the first group can never reach would be asked of its next tier at once, or never answered."""
    if route.group_id is None or route.needed <= 1:
        return []
    number = ApproverGroup.members.through.objects.filter(approvergroup_id=route.group_id).count()
    return [FieldError("/needed", f"the group has {number}")] if number < route.needed else []


def _groups(actor: Principal) -> QuerySet[ApproverGroup]:
    return ApproverGroup.objects.filter(organisation_id=actor.organisation_id, retired_at__isnull=True)


def _group(actor: Principal, group_id: uuid.UUID) -> ApproverGroup:
    group: ApproverGroup | None = _groups(actor).select_for_update().filter(pk=group_id).first()
    if group is None:
        raise not_found("group")
    return group


def _alone_with_routes(actor: Principal) -> None:
    """Their places are one order: whoever changes any of an organisation's routes is alone with all of them."""
    one_at_a_time(f"approval routes:{actor.organisation_id}")


def _route(actor: Principal, route_id: uuid.UUID) -> ApprovalRoute:
    rows = ApprovalRoute.objects.select_related("team", "group", "next_group")
    row = rows.filter(pk=route_id, organisation_id=actor.organisation_id).first()
    if row is None:
        raise not_found("route")
    return row


def _last(actor: Principal) -> ApprovalRoute:
    rows = ApprovalRoute.objects.filter(organisation_id=actor.organisation_id)
    last = rows.aggregate(last=Max("position"))["last"]
    return ApprovalRoute(id=new_id(), organisation_id=actor.organisation_id, position=0 if last is None else last + 1)
