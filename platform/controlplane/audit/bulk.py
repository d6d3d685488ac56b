"""Goes over a chain at speed: PostgreSQL writes each entry as the bytes that were hashed, Python hashes them. It
only ever passes entries; what it does not pass is read again in full and judged with care by `verification`."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, NamedTuple

import psycopg
from django.db import connection, transaction

from controlplane.audit.chain import COLUMNS, FORMAT, PERSONAL_FORMAT, Facts, payload_digest

_AT_A_TIME = 2000


class Doubt(NamedTuple):
    """A place the fast way does not pass: what is wrong there, if anything, is for the careful one to say."""

    sequence: int
    expected_sequence: int
    previous: str


@dataclass
class Stretch:
    """A stretch of the chain: how many seals it has, its last number and link, and its doubtful places in order."""

    sequence: int
    chain_sha256: str
    seals: int = 0
    doubts: list[Doubt] = field(default_factory=list)


class Sealed(NamedTuple):
    """A seal with its entry as it is now. `owner`: whose entry that is; None: there is no such entry."""

    sequence: int
    chain_sha256: str
    entry_id: uuid.UUID
    owner: uuid.UUID | None
    payload: str
    restated_sha256: str | None  # what its last erasure left of it
    facts: Facts


def check(*, organisation_id: uuid.UUID, after: int, previous: str, last: int) -> Stretch:
    """The seals after number `after`, whose link is `previous`, up to number `last`. One snapshot, streamed."""
    before, personally = _part(FORMAT), _part(PERSONAL_FORMAT)
    before += b"71:%b,16:" + organisation_id.bytes.replace(b"%", b"%%") + b",%d:%d,%b71:sha256:%b,"
    stretch = Stretch(after, previous)
    expected, link, doubts = after + 1, previous.encode(), stretch.doubts
    for sequence, stored, payload, payload_sha256, tail, personal in _written(organisation_id, after, last):
        holds = False
        if tail is not None and sequence == expected and payload_digest(payload) == payload_sha256:
            commitment = sha256(personally + personal).hexdigest().encode()
            written = before % (link, len(str(sequence)), sequence, tail, commitment)
            holds = "sha256:" + sha256(written).hexdigest() == stored
        if not holds:
            doubts.append(Doubt(sequence, expected, link.decode()))
        stretch.seals += 1
        expected, link = sequence + 1, stored.encode()
    stretch.sequence, stretch.chain_sha256 = expected - 1, link.decode()
    return stretch


def read(*, organisation_id: uuid.UUID, sequences: Sequence[int]) -> Iterator[Sealed]:
    """These seals in order, in full, each entry whoever it belongs to."""
    for start in range(0, len(sequences), _AT_A_TIME):
        with connection.cursor() as cursor:
            cursor.execute(  # the only thing put in is our own list of columns
                "SELECT s.sequence, s.chain_sha256, s.entry_id, e.organisation_id, e.payload::text,"  # noqa: S608
                " (SELECT restated_sha256 FROM audit_restatement r WHERE r.entry_id = e.id ORDER BY r.id DESC LIMIT 1),"
                f" {COLUMNS} FROM audit_seal s LEFT JOIN audit_entry e ON e.id = s.entry_id"
                " WHERE s.organisation_id = %s AND s.sequence = ANY(%s) ORDER BY s.sequence",
                [organisation_id, list(sequences[start : start + _AT_A_TIME])],
            )
            rows = cursor.fetchall()
        for sequence, stored, entry_id, owner, payload, left, *columns in rows:
            yield Sealed(sequence, stored, entry_id, owner, payload, left, Facts(*columns))


def _written(organisation_id: uuid.UUID, after: int, last: int) -> Iterator[tuple[Any, ...]]:
    """COPY, because the server goes on while we hash; with a cursor the two would take turns."""
    statement = _STATEMENT.format(organisation=organisation_id, after=int(after), last=int(last))
    with transaction.atomic(), connection.wrap_database_errors:
        connection.ensure_connection()
        with psycopg.Cursor(connection.connection) as cursor:
            cursor.execute(ALONG_THE_INDEX.format("off"))
            with cursor.copy(statement) as copy:
                copy.set_types(["int8", "text", "text", "text", "bytea", "bytea"])
                yield from copy.rows()
            cursor.execute(ALONG_THE_INDEX.format("DEFAULT"))


def _part(raw: bytes) -> bytes:
    return b"%d:%b," % (len(raw), raw)


def _text(name: str) -> str:
    return f"octet_length(e.{name}) || ':' || e.{name} || ','"


def _maybe_id(name: str) -> str:
    return f"CASE WHEN e.{name} IS NULL THEN '-,'::bytea ELSE '16:'::bytea || uuid_send(e.{name}) || ','::bytea END"


# Along the chain, entry by entry: the first row comes at once and the thousandth stretch costs what the first did. Left
# alone, the planner reads and sorts all entries for each stretch.
ALONG_THE_INDEX = "SET LOCAL enable_hashjoin = {0}; SET LOCAL enable_mergejoin = {0}; SET LOCAL enable_sort = {0}"
_AT = "(extract(epoch FROM e.at) * 1000000)::bigint::text"
# The parts of `chain.link` after the sequence number, up to the commitment; and those of `chain.commitment`.
_TAIL = (
    "'16:'::bytea || uuid_send(e.id)"
    f" || convert_to(',' || length({_AT}) || ':' || {_AT} || ',' || {_text('event')} || {_text('actor_kind')}"
    " || '16:', 'UTF8') || uuid_send(e.actor_id)"
    f" || convert_to(',' || {_text('subject_type')} || '16:', 'UTF8') || uuid_send(e.subject_id) || ','::bytea"
    f" || {_maybe_id('team_id')} || {_maybe_id('mission_id')} || convert_to({_text('trace_id')}, 'UTF8')"
)
_PERSONAL = (
    "'16:'::bytea || uuid_send(e.salt)"
    f" || convert_to(',' || {_text('actor_name')} || {_text('subject_name')} || {_text('payload_sha256')}, 'UTF8')"
)
_STATEMENT = (
    "COPY (SELECT s.sequence, s.chain_sha256, e.payload::text, e.payload_sha256,"  # noqa: S608 - an id, two numbers
    f" CASE WHEN e.salt IS NOT NULL AND e.commitment IS NULL THEN {_TAIL} END,"
    f" CASE WHEN e.salt IS NOT NULL AND e.commitment IS NULL THEN {_PERSONAL} END"
    " FROM audit_seal s LEFT JOIN audit_entry e ON e.id = s.entry_id AND e.organisation_id = s.organisation_id"
    " WHERE s.organisation_id = '{organisation}' AND s.sequence > {after} AND s.sequence <= {last}"
    " ORDER BY s.sequence) TO STDOUT (FORMAT binary)"
)
