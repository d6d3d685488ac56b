"""Canonical JSON arguments flattened to rows of path and value, for people who must judge every one of them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from django.utils.safestring import SafeString

from frontend.templatetags.plain_text import mark_hidden

MOST_ROWS = 200
MOST_LEVELS = 24
LONG_TEXT = 600


@dataclass(frozen=True)
class ArgumentRow:
    """One leaf: `path` as people write it ("lines[0].amount"), `kind` the JSON type, `rest` how a long text goes on."""

    path: SafeString
    key: str
    kind: str
    value: SafeString
    rest: SafeString
    rest_length: int
    highlighted: bool = False
    allows: str = ""


@dataclass(frozen=True)
class ArgumentTable:
    rows: tuple[ArgumentRow, ...]
    left_out: int
    has_limits: bool


def argument_table(arguments: object, *, highlight: frozenset[str], allows: Mapping[str, str]) -> ArgumentTable:
    """At most MOST_ROWS leaves, in their order; `highlight` and `allows` name paths, a parent counts for its leaves."""
    leaves = list(_leaves(arguments, ""))
    rows = tuple(_row(path, value, highlight=highlight, allows=allows) for path, value in leaves[:MOST_ROWS])
    return ArgumentTable(rows=rows, left_out=max(0, len(leaves) - MOST_ROWS), has_limits=bool(allows))


def _leaves(value: object, path: str, level: int = 0) -> Iterator[tuple[str, object]]:
    nested = isinstance(value, (Mapping, list, tuple))
    if nested and not value:
        if path:  # an empty object inside is a value; no arguments at all are no rows
            yield path, value
    elif nested and level == MOST_LEVELS:
        yield path, json.dumps(value, ensure_ascii=False, default=str)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _leaves(item, f"{path}.{key}" if path else str(key), level + 1)
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from _leaves(item, f"{path}[{index}]", level + 1)
    else:
        yield path or "value", value


def _row(path: str, value: object, *, highlight: frozenset[str], allows: Mapping[str, str]) -> ArgumentRow:
    kind, text = _kind_and_text(value)
    return ArgumentRow(
        path=mark_hidden(path),
        key=path,
        kind=kind,
        value=mark_hidden(text[:LONG_TEXT]),
        rest=mark_hidden(text[LONG_TEXT:]),
        rest_length=max(0, len(text) - LONG_TEXT),
        highlighted=any(parent in highlight for parent in _with_parents(path)),
        allows=next((allows[parent] for parent in _with_parents(path) if parent in allows), ""),
    )


def _kind_and_text(value: Any) -> tuple[str, str]:
    if isinstance(value, str):
        return "text", value
    if value is None:
        return "empty", "null"
    if isinstance(value, bool):
        return "yes or no", json.dumps(value)
    if isinstance(value, (int, float)):
        return "number", json.dumps(value)
    if isinstance(value, (Mapping, list, tuple)):
        return "empty", "{}" if isinstance(value, Mapping) else "[]"
    return "text", str(value)


def _with_parents(path: str) -> list[str]:
    """ "lines[0].amount" → itself, "lines[0]", "lines"."""
    cuts = [index for index, character in enumerate(path) if character in ".["]
    return [path, *(path[:cut] for cut in reversed(cuts))]
