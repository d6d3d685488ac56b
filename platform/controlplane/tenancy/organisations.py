"""The settings of an organisation, changed by who may; every change is audited with what it was before."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from decimal import Decimal
from typing import Any, Final
from zoneinfo import ZoneInfo, available_timezones

from django.db import transaction

from controlplane.common.errors import FieldError, RemitError, conflict, invalid
from controlplane.tenancy import second_factor, trail
from controlplane.tenancy.models import Membership, Organisation
from controlplane.tenancy.types import Permission, Principal
from controlplane.tenancy.watching import access_changed

LARGEST_SIGN_OFF = Decimal(10) ** 12
LONGEST_TOKEN_DAYS = 366
ZoneWatcher = Callable[[uuid.UUID, str], None]
_ZONE_WATCHERS: Final[list[ZoneWatcher]] = []
_FIELDS = ("name", "time_zone", "sign_off_above", "token_days_max", "second_factor_required")


def register_zone_watcher(watcher: ZoneWatcher) -> None:
    """What keeps days of the organisation stands above tenancy and registers here; `watcher(organisation_id, before)`
    acts inside the transaction that changed the zone."""
    _ZONE_WATCHERS[:] = [watcher]


def settings_of(principal: Principal) -> Organisation:
    return Organisation.objects.get(pk=principal.organisation_id)


def version_of(organisation: Organisation) -> str:
    """Of the settings, for a form to say what it was made from."""
    return "|".join(_text(getattr(organisation, field)) for field in _FIELDS)


def change_settings(
    *,
    principal: Principal,
    name: str,
    time_zone: str,
    sign_off_above: Decimal,
    token_days_max: int,
    second_factor_required: bool,
    seen: str,
) -> Organisation:
    """Raises 403, 422 `organisation.invalid` naming every bad field, 409 `organisation.changed` where somebody was
    faster, 409 `organisation.own_second_factor` to an administrator who has none, 503 `ledger.busy`."""
    principal.require(Permission.ORGANISATION_WRITE)
    name = " ".join(name.split())
    errors = []
    if not 1 <= len(name) <= 120:
        errors.append(FieldError("/name", "1 to 120 characters"))
    if time_zone not in available_timezones():
        errors.append(FieldError("/time_zone", "a time zone such as Europe/Berlin"))
    if not sign_off_above.is_finite() or not 0 <= sign_off_above <= LARGEST_SIGN_OFF:
        errors.append(FieldError("/sign_off_above", "an amount of 0 or more"))
    if not 1 <= token_days_max <= LONGEST_TOKEN_DAYS:
        errors.append(FieldError("/token_days_max", f"1 to {LONGEST_TOKEN_DAYS} days"))
    if errors:
        raise invalid("organisation.invalid", "The settings can't be saved like this.", *errors)
    with transaction.atomic():
        organisation = Organisation.objects.select_for_update(no_key=True).get(pk=principal.organisation_id)
        if version_of(organisation) != seen:
            raise conflict(
                "organisation.changed", "Somebody changed the settings meanwhile.", "Look at them, then change them."
            )
        starts = second_factor_required and not organisation.second_factor_required
        if starts and principal.is_person and not second_factor.is_on(principal.id):
            raise RemitError(
                "organisation.own_second_factor",
                "Set up your own second factor before you ask everybody for one.",
                409,
                remedies=("It is on your own page.",),
            )
        before = {field: getattr(organisation, field) for field in _FIELDS}
        organisation.name, organisation.time_zone = name, ZoneInfo(time_zone).key
        organisation.sign_off_above, organisation.token_days_max = sign_off_above, token_days_max
        organisation.second_factor_required = second_factor_required
        organisation.save(update_fields=_FIELDS)
        if organisation.time_zone != before["time_zone"]:
            for watcher in _ZONE_WATCHERS:
                watcher(organisation.pk, before["time_zone"])
        changed = {
            field: {"before": _text(before[field]), "after": _text(getattr(organisation, field))}
            for field in _FIELDS
            if before[field] != getattr(organisation, field)
        }
        if changed:
            trail.record(
                event="organisation.changed",
                actor=principal,
                subject_type="organisation",
                subject_id=organisation.pk,
                subject_name=organisation.name,
                payload={"changed": ", ".join(sorted(changed)).replace("_", " "), "values": changed},
            )
        if starts:
            people = Membership.objects.standing().filter(organisation=organisation).values_list("user_id", flat=True)
            for user_id in people.distinct():
                access_changed(user_id)
    return organisation


def _text(value: Any) -> str:
    return f"{value:f}" if isinstance(value, Decimal) else str(value)
