"""Identifiers: UUIDv7 for everything that leaves the system, so that ids sort by creation."""

from __future__ import annotations

import re
import uuid

from uuid_utils.compat import uuid7

__all__ = ["new_id", "parse_id", "short"]

_CANONICAL = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z")


def new_id() -> uuid.UUID:
    """A fresh UUIDv7."""
    return uuid7()


def parse_id(text: object) -> uuid.UUID | None:
    """The id in canonical lower-case text form, or None: braces, URN and other spellings of `uuid.UUID` are refused."""
    return uuid.UUID(text) if isinstance(text, str) and _CANONICAL.match(text) else None


def short(identifier: uuid.UUID) -> str:
    """The last eight digits: the random end of a UUIDv7, for people to tell objects apart."""
    return identifier.hex[-8:]
