"""The audit log as it is read: routine entries that follow each other are one line, which opens. None is left out."""

from __future__ import annotations

import itertools
import uuid
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from controlplane.audit import selectors
from controlplane.audit.events import Event
from controlplane.audit.models import Entry
from controlplane.tenancy.types import Permission, Principal, PrincipalKind

FOLD_FROM = 4  # this many in a row become one line
# What happens by itself all day. What a person decided, and what was refused or failed, always has its own line.
_ROUTINE: dict[str, tuple[str, str, str]] = {
    Event.ACTION_ALLOWED: ("calls", "call allowed", "calls allowed"),
    Event.PERMIT_CONSUMED: ("calls", "permit used", "permits used"),
    Event.ACTION_SUCCEEDED: ("calls", "call succeeded", "calls succeeded"),
    Event.TOOL_DISCOVERED: ("tools", "tool found", "tools found"),
    Event.PERSON_SIGNED_IN: ("sign-ins", "sign-in", "sign-ins"),
    Event.PERSON_SIGNED_OUT: ("sign-ins", "sign-out", "sign-outs"),
}
_SUBJECT_PAGES = {
    "mission": "mission",
    "agent": "agent",
    "action": "action",
    "escalation": "approval",
    "server": "server",
    "budget": "budget",
    "stop": "stop",
}
# Whoever reads the trail sees the other subjects of the same team as well.
_NEEDED = {"escalation": Permission.ESCALATION_VIEW}


@dataclass(frozen=True)
class Line:
    """One entry as a line of the log. `page` names the page of its subject, if the reader may see that."""

    entry: Entry
    sentence: str
    page: str

    @property
    def sequence(self) -> int | None:
        return self.entry.seal.sequence if hasattr(self.entry, "seal") else None


@dataclass(frozen=True)
class Fold:
    """Routine lines in a row, the newest first."""

    lines: Sequence[Line]

    @property
    def pk(self) -> uuid.UUID:
        return self.lines[-1].entry.pk

    @property
    def sentence(self) -> str:
        """ "Clerk: 12 calls allowed, 12 permits used, 12 calls succeeded"."""
        counts = Counter(line.entry.event for line in self.lines)
        found = [(counts[event], one, many) for event, (_, one, many) in _ROUTINE.items() if counts[event]]
        words = [f"{number} {one if number == 1 else many}" for number, one, many in found]
        names = list(dict.fromkeys(line.entry.actor_name for line in self.lines))
        who = names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
        return f"{who}: {', '.join(words)}"

    @property
    def numbers(self) -> tuple[int | None, int | None]:
        """Of the oldest and the newest in the chain."""
        return self.lines[-1].sequence, self.lines[0].sequence


def line_of(entry: Entry, reader: Principal) -> Line:
    needed = _NEEDED.get(entry.subject_type)
    opens = needed is None or reader.has(needed, team_id=entry.team_id)
    return Line(entry, selectors.sentence(entry), _SUBJECT_PAGES.get(entry.subject_type, "") if opens else "")


def folded(entries: Iterable[Entry], reader: Principal) -> list[Line | Fold]:
    """The log, newest first, with what is routine folded."""
    result: list[Line | Fold] = []
    for family, members in itertools.groupby((line_of(entry, reader) for entry in entries), key=_family):
        lines = list(members)
        result += [Fold(lines)] if family and len(lines) >= FOLD_FROM else lines
    return result


def last_of(line: Line | Fold) -> uuid.UUID:
    """The oldest entry in it: where the next page goes on."""
    return line.pk if isinstance(line, Fold) else line.entry.pk


def _family(line: Line) -> str:
    by_person = line.entry.event == Event.ACTION_ALLOWED and line.entry.actor_kind == PrincipalKind.USER
    return "" if by_person else _ROUTINE.get(line.entry.event, ("",))[0]
