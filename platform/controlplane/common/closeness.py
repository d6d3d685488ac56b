"""How near a name is to what was searched: whoever types a whole name wants that thing first."""

from __future__ import annotations

from django.db.models import Case, IntegerField, Value, When

WHOLE, BEGINS, WITHIN = range(3)


def closeness(name: str, text: str) -> int:
    """The least for a name that is the text."""
    name, text = name.casefold(), text.casefold()
    return WHOLE if name == text else BEGINS if name.startswith(text) else WITHIN


def by_closeness(text: str) -> Case:
    """The same for rows with a `name`, to order by."""
    return Case(
        When(name__iexact=text, then=Value(WHOLE)),
        When(name__istartswith=text, then=Value(BEGINS)),
        default=Value(WITHIN),
        output_field=IntegerField(),
    )
