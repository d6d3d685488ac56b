"""Messages that offer to take back what was just done: a toast with a button, which posts what undoes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlencode, urlsplit

from django.contrib import messages
from django.http import HttpRequest

_MARK = "undo:"


@dataclass(frozen=True)
class Undo:
    url: str
    fields: tuple[tuple[str, str], ...]


def undoable(request: HttpRequest, text: str, *, url: str, fields: Mapping[str, str] | None = None) -> None:
    """Say that it is done, with a button that posts `fields` to `url`. Whoever presses it is judged as ever."""
    messages.success(request, text, extra_tags=f"{_MARK}{url}?{urlencode(fields or {})}")


def undo_of(extra_tags: str) -> Undo | None:
    if not extra_tags.startswith(_MARK):
        return None
    parts = urlsplit(extra_tags.removeprefix(_MARK))
    return Undo(parts.path, tuple(parse_qsl(parts.query)))
