"""Cursor pages over rows ordered by id, newest first: the same cost on the first page and the thousandth."""

from __future__ import annotations

import base64
import binascii
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from django.db import models

from controlplane.common.errors import FieldError, RemitError, invalid

M = TypeVar("M", bound=models.Model)

LARGEST = 200


@dataclass(frozen=True)
class Page(Generic[M]):
    """Items, and the cursors of the pages beside it: `older` further down, `newer` back up; None at an end."""

    items: Sequence[M]
    older: str | None
    newer: str | None


def page(rows: models.QuerySet[M], *, cursor: str | None = None, limit: int = 50) -> Page[M]:
    """One page of `rows` (any order is replaced by newest id first). Raises 422 `cursor.invalid`."""
    limit = max(1, min(limit, LARGEST))
    direction, key = _decode(cursor) if cursor else ("older", None)
    if direction == "newer":
        found = list(rows.filter(pk__gt=key).order_by("pk")[: limit + 1])
        more = len(found) > limit
        items = found[:limit][::-1]
        return Page(items, _encode("older", items[-1]) if items else None, _encode("newer", items[0]) if more else None)
    if key is not None:
        rows = rows.filter(pk__lt=key)
    found = list(rows.order_by("-pk")[: limit + 1])
    items = found[:limit]
    older = _encode("older", items[-1]) if len(found) > limit else None
    newer = _encode("newer", items[0]) if cursor and items else None
    return Page(items, older, newer)


def foreign_cursor() -> RemitError:
    """For whoever sends a cursor that no page of ours has given."""
    problem = FieldError("/cursor", "a cursor from an earlier answer")
    return invalid("cursor.invalid", "This page address is not one of ours.", problem)


def _encode(direction: str, row: models.Model) -> str:
    return base64.urlsafe_b64encode(f"{direction[0]}u".encode() + row.pk.bytes).decode().rstrip("=")


def _decode(cursor: str) -> tuple[str, uuid.UUID]:
    try:
        raw = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        direction = {b"ou": "older", b"nu": "newer"}[raw[:2]]
        key = uuid.UUID(bytes=raw[2:])
    except (KeyError, ValueError, binascii.Error) as error:
        raise foreign_cursor() from error
    return direction, key
