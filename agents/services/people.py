"""What people change about themselves. It is here because it is audited, which tenancy lies below."""

from __future__ import annotations

from zoneinfo import ZoneInfo, available_timezones

from django.db import transaction

from controlplane.audit.events import Event
from controlplane.audit.services import Subject, record
from controlplane.common.errors import FieldError, invalid, not_found
from controlplane.tenancy.models import User
from controlplane.tenancy.types import Principal

LONGEST_NAME = 120


def update_profile(*, actor: Principal, name: str, time_zone: str, single_key_shortcuts: bool) -> User:
    """The actor's own name, time zone and preferences. Raises 422 `profile.invalid` naming every bad field."""
    name = " ".join(name.split())
    errors = []
    if not 1 <= len(name) <= LONGEST_NAME:
        errors.append(FieldError("/name", f"1 to {LONGEST_NAME} characters"))
    if time_zone not in available_timezones():
        errors.append(FieldError("/time_zone", "a time zone such as Europe/Berlin"))
    if errors:
        raise invalid("profile.invalid", "Your profile can't be saved as it is.", *errors)
    with transaction.atomic():
        user = User.objects.select_for_update().filter(pk=actor.id, is_active=True).first()
        if user is None or not actor.is_person:
            raise not_found("person")
        before = {"name": user.name, "time_zone": user.time_zone, **user.preferences}
        user.name, user.time_zone = name, ZoneInfo(time_zone).key
        user.preferences = {**user.preferences, "single_key_shortcuts": single_key_shortcuts}
        user.save(update_fields=["name", "time_zone", "preferences"])
        after = {"name": user.name, "time_zone": user.time_zone, **user.preferences}
        changed = sorted(key for key in after if after[key] != before.get(key))
        if changed:
            record(
                event=Event.PERSON_CHANGED,
                actor=actor,
                subject=Subject("person", user.pk, user.name),
                payload={"changed": changed},
            )
    return user
