"""Standing in: for a time one person answers in another's place. It gives no role, only that person's say."""

from __future__ import annotations

import uuid
from datetime import datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from django.db import transaction
from django.db.models import F, Q

from controlplane.audit.events import Event
from controlplane.audit.services import Subject, record
from controlplane.common.clock import now
from controlplane.common.errors import FieldError, conflict, forbidden, invalid, not_found
from controlplane.tenancy.models import Membership, User
from controlplane.tenancy.types import Permission, Principal
from governance.announcing import electorate_changed
from governance.approval_models import Delegation
from governance.escalations.electorate import DECIDING_ROLES

LONGEST: Final = timedelta(days=90)
_LONGEST_REASON: Final = 200


def delegate(
    *,
    actor: Principal,
    from_user_id: uuid.UUID,
    to_user_id: uuid.UUID,
    starts_at: datetime,
    ends_at: datetime,
    reason: str = "",
) -> Delegation:
    """From then until then `to` stands in for `from`. For oneself, or for anybody by an administrator.

    Raises 403, 404, 422 `delegation.invalid`, 409 `delegation.exists`.
    """
    if from_user_id != actor.user_id and not actor.has(Permission.ORGANISATION_WRITE):
        raise forbidden(Permission.ORGANISATION_WRITE.value)
    if not actor.is_person:
        raise forbidden(Permission.ESCALATION_DECIDE.value)
    errors = _wrong_times(starts_at, ends_at)
    if from_user_id == to_user_id:
        errors.append(FieldError("/to_user_id", "somebody else"))
    from_user = _approver(actor, from_user_id)
    to_user = _approver(actor, to_user_id)
    if from_user is None:
        errors.append(FieldError("/from_user_id", "a person with the approver's role"))
    if to_user is None:
        errors.append(FieldError("/to_user_id", "a person with the approver's role: standing in gives no role"))
    if errors or from_user is None or to_user is None:
        raise invalid("delegation.invalid", "This can't be set as it is.", *errors)
    with transaction.atomic():
        # Two forms sent at once come one after the other.
        User.objects.select_for_update(no_key=True).get(pk=from_user.pk)
        _refuse_twice(actor, from_user, to_user, starts_at, ends_at)
        made = Delegation.objects.create(
            organisation_id=actor.organisation_id,
            from_user=from_user,
            to_user=to_user,
            starts_at=starts_at,
            ends_at=ends_at,
            reason=reason.strip()[:_LONGEST_REASON],
        )
        record(
            event=Event.DELEGATION_SET,
            actor=actor,
            subject=Subject("person", from_user.pk, from_user.name),
            payload={
                "stand_in": to_user.name,
                "from": starts_at.isoformat(),
                "until": ends_at.isoformat(),
                "reason": made.reason,
            },
        )
        electorate_changed(actor.organisation_id)
    return made


def end_delegation(*, actor: Principal, delegation_id: uuid.UUID) -> Delegation:
    """End it now, by either of the two or an administrator, but not with a token that leaves deciding out. Raises 403,
    404, 409 `delegation.over`."""
    if actor.is_narrowed and not actor.has_anywhere(Permission.ESCALATION_DECIDE):
        raise forbidden(Permission.ESCALATION_DECIDE.value)
    rows = Delegation.objects.filter(organisation_id=actor.organisation_id).select_related("from_user", "to_user")
    if not actor.has(Permission.ORGANISATION_WRITE):
        rows = rows.filter(Q(from_user_id=actor.user_id) | Q(to_user_id=actor.user_id))
    found = rows.filter(pk=delegation_id).first()
    if found is None:
        raise not_found("delegation")
    moment = now()
    with transaction.atomic():
        # One that has not begun yet never holds: it ends where it would have begun.
        ended = Delegation.objects.filter(pk=found.pk, ends_at__gt=moment, starts_at__lte=moment).update(ends_at=moment)
        ended += Delegation.objects.filter(pk=found.pk, starts_at__gt=moment, ends_at__gt=F("starts_at")).update(
            ends_at=F("starts_at")
        )
        if not ended:
            raise conflict("delegation.over", "It has ended already.", "Reload the page.")
        record(
            event=Event.DELEGATION_ENDED,
            actor=actor,
            subject=Subject("person", found.from_user_id, found.from_user.name),
            payload={"stand_in": found.to_user.name},
        )
        electorate_changed(actor.organisation_id)
    found.refresh_from_db()
    return found


def _refuse_twice(actor: Principal, from_user: User, to_user: User, starts_at: datetime, ends_at: datetime) -> None:
    """Of two for the same days, ending one would leave the other."""
    standing = Delegation.objects.filter(
        organisation_id=actor.organisation_id,
        from_user=from_user,
        to_user=to_user,
        starts_at__lt=ends_at,
        ends_at__gt=max(starts_at, now()),
    )
    found = standing.filter(starts_at__lt=F("ends_at")).order_by("starts_at").first()
    if found is None:
        return
    zone = ZoneInfo(actor.time_zone)
    first, last = (
        f"{day.day} {day:%B %Y}" for day in (found.starts_at.astimezone(zone), found.ends_at.astimezone(zone))
    )
    raise conflict(
        "delegation.exists",
        f"{to_user.name} stands in for {from_user.name} already, from {first} until {last}.",
        "End that first, or choose other days.",
    )


def _wrong_times(starts_at: datetime, ends_at: datetime) -> list[FieldError]:
    if ends_at <= starts_at or ends_at <= now():
        return [FieldError("/ends_at", "after it starts, and not in the past")]
    if ends_at - max(starts_at, now()) > LONGEST:
        return [FieldError("/ends_at", f"at most {LONGEST.days} days later")]
    return []


def _approver(actor: Principal, user_id: uuid.UUID) -> User | None:
    held = Membership.objects.standing().filter(
        organisation_id=actor.organisation_id, user_id=user_id, role__in=DECIDING_ROLES
    )
    return User.objects.filter(pk__in=held.values("user_id")).first()
