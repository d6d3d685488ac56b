"""Identifiers: UUIDv7 for everything that leaves the system, so that ids sort by creation."""

from __future__ import annotations

import re
import uuid
from datetime import datetime

from uuid_utils.compat import uuid7

__all__ = ["first_id", "new_id", "parse_id", "short"]

_CANONICAL = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z")


def new_id() -> uuid.UUID:
    """A fresh UUIDv7."""
    return uuid7()


def first_id(moment: datetime) -> uuid.UUID:
    """The smallest UUIDv7 of that millisecond: rows made since then are found by their ids."""
    return uuid.UUID(int=(int(moment.timestamp() * 1000) << 80) | (7 << 76) | (2 << 62))


def parse_id(text: object) -> uuid.UUID | None:
    """The id in canonical lower-case text form, or None: braces, URN and other spellings of `uuid.UUID` are refused."""
    return uuid.UUID(text) if isinstance(text, str) and _CANONICAL.match(text) else None


def short(identifier: uuid.UUID) -> str:
    """The last eight digits: the random end of a UUIDv7, for people to tell objects apart."""
    return identifier.hex[-8:]
