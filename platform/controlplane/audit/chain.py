"""The hash chain itself: how one entry is written as bytes, and how each link covers the one before. No queries here.

link(n) = SHA-256( "remit-audit-2" | link(n-1) | organisation | n | every fact that names nobody | commitment )
commitment = SHA-256( "remit-audit-personal-1" | salt | actor's name | subject's name | SHA-256 of the payload )

The salt is random: once an erasure has replaced it, the commitment still holds the chain together and tells nothing.
Entries from before there were salts are linked in the first form, over every field in the order of `Facts`. Each part
is written as its length, a colon, its bytes and a comma, so that no two different entries share one form.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import msgspec

from controlplane.audit.models import Entry
from controlplane.common.canonical import digest, digest_of_bytes

FIRST_FORMAT = b"remit-audit-1"
FORMAT = b"remit-audit-2"
PERSONAL_FORMAT = b"remit-audit-personal-1"
RESTATED_FORMAT = b"remit-audit-restated-1"
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
    salt: uuid.UUID | None = None
    commitment: str | None = None

    @property
    def is_restated(self) -> bool:
        """An erasure replaced its names or payload."""
        return self.commitment is not None

    @property
    def is_linkable(self) -> bool:
        """Its link can be computed again. Not so for a restated entry from before there were salts."""
        return self.commitment != ""


COLUMNS = ", ".join(f"e.{name}" for name in Facts._fields)
_OF_THE_FIRST_FORMAT = 13
Part = str | uuid.UUID | datetime | None


def facts_of(entry: Entry) -> Facts:
    return Facts(*(getattr(entry, name) for name in Facts._fields))


def genesis(organisation_id: uuid.UUID) -> str:
    """What the first link covers in place of a link before it."""
    return digest_of_bytes(FIRST_FORMAT + organisation_id.bytes)


def link(*, previous: str, organisation_id: uuid.UUID, sequence: int, facts: Facts) -> str:
    """The chain hash, `sha256:<hex>`, of the entry at `sequence` after the link `previous`."""
    before = [previous.encode(), organisation_id.bytes, b"%d" % sequence]
    if facts.salt is None and facts.commitment is None:
        return _hash([FIRST_FORMAT, *before], facts[:_OF_THE_FIRST_FORMAT])
    anonymous = (
        *(facts.id, facts.at, facts.event, facts.actor_kind, facts.actor_id, facts.subject_type, facts.subject_id),
        *(facts.team_id, facts.mission_id, facts.trace_id),
    )
    return _hash([FORMAT, *before], (*anonymous, facts.commitment or commitment(facts)))


def commitment(facts: Facts) -> str:
    """What a link covers in place of names and payload."""
    return _hash([PERSONAL_FORMAT], (facts.salt, facts.actor_name, facts.subject_name, facts.payload_sha256))


def restated(*, chain_sha256: str, facts: Facts) -> str:
    """The hash of an entry as an erasure left it, tied to its link."""
    return _hash([RESTATED_FORMAT, chain_sha256.encode()], facts)


def _hash(written: list[bytes], values: Iterable[Part]) -> str:
    parts = written
    for value in values:
        if isinstance(value, str):
            parts.append(value.encode())
        elif isinstance(value, uuid.UUID):
            parts.append(value.bytes)
        elif value is None:
            parts.append(_ABSENT)
        else:
            parts.append(b"%d" % ((value - _EPOCH) // _MICROSECOND))
    joined = b"".join([part if part is _ABSENT else b"%d:%b," % (len(part), part) for part in parts])
    return "sha256:" + hashlib.sha256(joined).hexdigest()


def payload_digest(stored: str) -> str:
    """The digest of a payload from its text in the database.

    jsonb writes 1e+22 out in full and RFC 8785 knows only doubles, so numbers beyond 2^53 are read back as the doubles
    they were.
    """
    if "\\" not in stored and stored.isascii():
        value = msgspec.json.decode(stored)
        if _is_plain(value):
            return digest_of_bytes(_PLAIN.encode(value))
    return digest(_STORED.decode(stored))


def _is_plain(value: Any) -> bool:
    """Whether every writer of JSON writes this the same way: no fractions and no numbers beyond 2^53."""
    kind = type(value)
    if kind is dict:
        return all(type(item) is str or _is_plain(item) for item in value.values())
    if kind is list:
        return all(type(item) is str or _is_plain(item) for item in value)
    return kind is str or kind is bool or value is None or (kind is int and -_EXACT < value < _EXACT)


def _whole(text: str) -> int | float:
    number = int(text)
    return number if -_EXACT < number < _EXACT else float(text)


_STORED = json.JSONDecoder(parse_int=_whole)
_PLAIN = msgspec.json.Encoder(order="sorted")
