"""A form of a remit that changed since it was opened: what its sender left alone follows what is in force; of what both
changed, the sender chooses.

The form's rows of grants begin with those it was made from, in their order; whatever was added stands after them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import tzinfo
from typing import Any, Final

from django.http import QueryDict

from agents.choices import Importance
from agents.grants import Grant
from agents.models import MissionVersion
from agents.remits import Remit, remit_of
from frontend.grants_editor import GrantRow, rows_of_grants
from frontend.remit_form import RemitForm, initial_of

# Their limits move without a version: the form carries what it was made from.
CARRIED: Final = ("budget", "steps", "tokens")
_LONG: Final = frozenset({"goal", "criteria"})
_GRANT: Final = "grant-"


@dataclass(frozen=True)
class Both:
    """What the sender and somebody else changed. `name`: sent back in `theirs` by who takes what is in force."""

    name: str
    label: str
    mine: str = ""
    theirs: str = ""


@dataclass(frozen=True)
class Merged:
    data: QueryDict
    rows: list[GrantRow]
    both: list[Both]


def merged(
    posted: QueryDict, rows: list[GrantRow], *, opened: MissionVersion | None, now: Remit, zone: tzinfo
) -> Merged:
    """`opened`: the version in force when the form was made; None when it does not say."""
    data = posted.copy()
    if opened is None:
        return Merged(data, rows, [])
    then = initial_of(remit_of(opened), zone)
    then |= {name: data.get(f"was-{name}", then[name]) for name in CARRIED}
    grants = remit_of(opened).grants
    chosen = set(data.getlist("theirs"))
    for name in chosen & set(then):
        data[name] = then[name]
    rows = _with_theirs(rows, rows_of_grants(grants), chosen)
    both = _merge_fields(data, then, initial_of(now, zone))
    rows, both_grants = _merge_rows(rows, grants, now.grants)
    return Merged(data, rows, both + both_grants)


def _merge_fields(data: QueryDict, then: dict[str, str], now: dict[str, str]) -> list[Both]:
    both = []
    for name, today in now.items():
        mine = _plain(data.get(name, ""))
        if mine == _plain(then[name]):
            data[name] = today
        elif _plain(today) not in (mine, _plain(then[name])):
            both.append(_both_changed(name, mine, today))
    return both


def _merge_rows(
    rows: Sequence[GrantRow], then: Sequence[Grant], now: Sequence[Grant]
) -> tuple[list[GrantRow], list[Both]]:
    was, today, became = rows_of_grants(then), rows_of_grants(now), _pairs(then, now)
    found, further, both = list(today), list(rows[len(was) :]), []
    for index, (row, before) in enumerate(zip(rows, was, strict=False)):
        place = became.get(index)
        if _facts(row) == _facts(before):
            if place is not None:  # lines that were added and wait to be filled in stay
                found[place].rules += [rule for rule in row.rules if rule.is_empty]
                found[place].fresh = row.fresh
        elif place is not None:
            if then[index] != now[place] and _facts(row) != _facts(today[place]):
                mine = "Taken away" if row.removed else row.in_words
                both.append(Both(f"{_GRANT}{place}", before.tool, mine, today[place].in_words))
            found[place] = row
        elif not row.removed:
            both.append(Both(f"{_GRANT}{len(now) + len(further)}", before.tool, row.in_words, "Taken away"))
            further.append(row)
    return found + further, both


def _pairs(then: Sequence[Grant], now: Sequence[Grant]) -> dict[int, int]:
    """What became of each grant: the same one, else the first that is left about its tool."""
    pairs: dict[int, int] = {}
    left = list(range(len(now)))
    for exactly in (True, False):
        for index, grant in enumerate(then):
            alike = (place for place in left if (now[place] == grant if exactly else now[place].tool == grant.tool))
            if index not in pairs and (place := next(alike, None)) is not None:
                pairs[index] = place
                left.remove(place)
    return pairs


def _with_theirs(rows: Sequence[GrantRow], was: Sequence[GrantRow], chosen: set[str]) -> list[GrantRow]:
    """The rows with what is in force where that was chosen; what stands in none of it is taken away."""
    found = list(rows)
    for index, row in enumerate(rows):
        if f"{_GRANT}{index}" in chosen:
            if index < len(was):
                found[index] = was[index]
            else:
                row.removed = True
    return found


def _both_changed(name: str, mine: str, theirs: str) -> Both:
    label = str(RemitForm.base_fields[name].label)
    if name in _LONG:  # what they made of it stands line by line in what their version changed
        return Both(name, label)
    return Both(name, label, _shown(name, mine), _shown(name, theirs))


def _shown(name: str, text: str) -> str:
    if name == "importance" and text in Importance.values:
        return str(Importance(text).label)
    return (text.replace("T", " ") if name == "deadline" else text) or "none"


def _facts(row: GrantRow) -> tuple[Any, ...]:
    rules = [(rule.argument, rule.code, rule.value) for rule in row.rules if not rule.is_empty]
    return row.tool, row.effect, row.calls, " ".join(row.sentence.split()), rules, row.removed


def _plain(text: str) -> str:
    return text.replace("\r\n", "\n").strip()
