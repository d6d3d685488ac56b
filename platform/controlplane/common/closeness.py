"""How near a name is to what was searched: whoever types a whole name wants that thing first."""

from __future__ import annotations

from django.db.models import Case, IntegerField, Value, When

WHOLE, BEGINS, WITHIN = range(3)


def closeness(name: str, text: str) -> int:
    """The least for a name that is the text."""
    name, text = name.casefold(), text.casefold()
    return WHOLE if name == text else BEGINS if name.startswith(text) else WITHIN


def by_closeness(text: str, *, field: str = "name") -> Case:
    """The same for rows, to order by: `field` is what they are called by."""
    return Case(
        When(**{f"{field}__iexact": text}, then=Value(WHOLE)),
        When(**{f"{field}__istartswith": text}, then=Value(BEGINS)),
        default=Value(WITHIN),
        output_field=IntegerField(),
    )
