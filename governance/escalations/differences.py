"""What is different between two sets of arguments, value by value: for people, for agents and for the audit trail."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

_ABSENT: Final = object()
_LONGEST: Final = 80


@dataclass(frozen=True)
class Change:
    """One value. `before` or `after` None: it was not, or is no longer, there. Texts as JSON, so that "1" is not 1."""

    path: str
    before: str | None
    after: str | None

    def in_words(self) -> str:
        if self.before is None:
            return f"{self.path} added: {_short(self.after)}"
        if self.after is None:
            return f"{self.path} left out, was {_short(self.before)}"
        return f"{self.path} {_short(self.before)} → {_short(self.after)}"


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Change]:
    """In the order of the names; nothing for what is equal, whatever order its keys have."""
    return list(_walk("", before, after))


def in_words(found: Sequence[Change], *, most: int = 4) -> str:
    """In one line."""
    shown = "; ".join(change.in_words() for change in found[:most])
    return shown if len(found) <= most else f"{shown}; and {len(found) - most} more"


def _walk(path: str, before: Any, after: Any) -> Iterator[Change]:
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for name in sorted({*before, *after}):
            yield from _walk(
                f"{path}.{name}" if path else str(name), before.get(name, _ABSENT), after.get(name, _ABSENT)
            )
    elif _is_list(before) and _is_list(after):
        for number in range(max(len(before), len(after))):
            yield from _walk(f"{path}[{number}]", _at(before, number), _at(after, number))
    elif (
        before is _ABSENT or after is _ABSENT or json.dumps(before, sort_keys=True) != json.dumps(after, sort_keys=True)
    ):
        yield Change(path, _text(before), _text(after))


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple)


def _at(values: Sequence[Any], number: int) -> Any:
    return values[number] if number < len(values) else _ABSENT


def _text(value: Any) -> str | None:
    return None if value is _ABSENT else json.dumps(value, ensure_ascii=False, sort_keys=True)


def _short(text: str | None) -> str:
    shown = text or ""
    return shown if len(shown) <= _LONGEST else f"{shown[:_LONGEST]}…"
