"""The hash chain itself: how one entry is written as bytes, and how each link covers the one before. No queries here.

link(n) = SHA-256( "remit-audit-1" | link(n-1) | organisation | n | every field of the entry | SHA-256 of its payload )

Each part is written as its length, a colon and its bytes, so that no two different entries share one form.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from controlplane.audit.models import Entry
from controlplane.common.canonical import digest, digest_of_bytes

FORMAT = b"remit-audit-1"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_ABSENT = b"-,"
_EXACT = 2**53


class Facts(NamedTuple):
    """The columns a link covers, in the order of `COLUMNS`. All of an entry; its payload by its hash."""

    id: uuid.UUID
    at: datetime
    event: str
    actor_kind: str
    actor_id: uuid.UUID
    actor_name: str
    subject_type: str
    subject_id: uuid.UUID
    subject_name: str
    team_id: uuid.UUID | None
    mission_id: uuid.UUID | None
    payload_sha256: str
    trace_id: str


COLUMNS = ", ".join(f"e.{name}" for name in Facts._fields)


def facts_of(entry: Entry) -> Facts:
    return Facts(*(getattr(entry, name) for name in Facts._fields))


def genesis(organisation_id: uuid.UUID) -> str:
    """What the first link covers in place of a link before it."""
    return digest_of_bytes(FORMAT + organisation_id.bytes)


def link(*, previous: str, organisation_id: uuid.UUID, sequence: int, facts: Facts) -> str:
    """The chain hash, `sha256:<hex>`, of the entry at `sequence` after the link `previous`."""
    parts = [FORMAT, previous.encode(), organisation_id.bytes, b"%d" % sequence]
    for value in facts:
        if isinstance(value, str):
            parts.append(value.encode())
        elif isinstance(value, uuid.UUID):
            parts.append(value.bytes)
        elif value is None:
            parts.append(_ABSENT)
        else:
            parts.append(b"%d" % ((value - _EPOCH) // _MICROSECOND))
    written = b"".join([part if part is _ABSENT else b"%d:%b," % (len(part), part) for part in parts])
    return "sha256:" + hashlib.sha256(written).hexdigest()


def payload_digest(stored: str) -> str:
    """The digest of a payload from its text in the database.

    jsonb writes 1e+22 out in full and RFC 8785 knows only doubles, so numbers beyond 2^53 are read back as the doubles
    they were.
    """
    return digest(_STORED.decode(stored))


def _whole(text: str) -> int | float:
    number = int(text)
    return number if -_EXACT < number < _EXACT else float(text)


_STORED = json.JSONDecoder(parse_int=_whole)
