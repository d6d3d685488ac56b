"""Recomputes every payload hash and every link of the chain, and says where the first thing is wrong. Reads only."""

from __future__ import annotations

import enum
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.db import connection, transaction

from controlplane.audit.chain import COLUMNS, Facts, facts_of, genesis, link, payload_digest
from controlplane.audit.models import Entry, Seal
from controlplane.common.canonical import digest
from controlplane.common.clock import now

FLAWS_KEPT = 20
_ROWS_AT_A_TIME = 5000


class Flaw(enum.StrEnum):
    """What can be wrong, each with its sentence."""

    PAYLOAD_CHANGED = "payload_changed"
    ENTRY_CHANGED = "entry_changed"
    ENTRY_MISSING = "entry_missing"
    SEQUENCE_BROKEN = "sequence_broken"
    SEAL_MISSING = "seal_missing"
    FOREIGN_ENTRY = "foreign_entry"
    ANCHOR_MISSING = "anchor_missing"

    @property
    def sentence(self) -> str:
        return _SENTENCES[self]


_SENTENCES = {
    Flaw.PAYLOAD_CHANGED: "The payload is not the one that was recorded.",
    Flaw.ENTRY_CHANGED: "The entry, its place or the chain itself was changed after sealing.",
    Flaw.ENTRY_MISSING: "The entry was deleted.",
    Flaw.SEQUENCE_BROKEN: "A sequence number is missing or out of order: seals were deleted.",
    Flaw.SEAL_MISSING: "The entry is neither sealed nor waiting to be: its seal or its place on the list was deleted.",
    Flaw.FOREIGN_ENTRY: "The sealed entry belongs to another organisation.",
    Flaw.ANCHOR_MISSING: "The head noted earlier is not in the chain: it was cut, rewritten or restored.",
}


@dataclass(frozen=True)
class Anchor:
    """A head noted earlier and kept elsewhere (`audit verify` prints it, the sealer logs it)."""

    sequence: int
    chain_sha256: str


@dataclass(frozen=True)
class Finding:
    """One broken place. `sequence` is None for entries outside the chain."""

    flaw: Flaw
    sequence: int | None
    entry_id: uuid.UUID | None


@dataclass
class Report:
    """What the check of one organisation found. `flaws` keeps the first twenty, `flaw_count` counts all."""

    organisation_id: uuid.UUID
    sealed: int = 0
    unsealed: int = 0
    oldest_unsealed_at: datetime | None = None
    head: Anchor | None = None
    flaws: list[Finding] = field(default_factory=list)
    flaw_count: int = 0

    @property
    def intact(self) -> bool:
        return self.flaw_count == 0

    def note(self, flaw: Flaw, sequence: int | None, entry_id: uuid.UUID | None) -> None:
        self.flaw_count += 1
        if len(self.flaws) < FLAWS_KEPT:
            self.flaws.append(Finding(flaw, sequence, entry_id))


@dataclass(frozen=True)
class Proof:
    """One entry's place and whether its payload and its link hold; None in `sequence`: not sealed yet."""

    sequence: int | None
    payload_sha256: str
    payload_holds: bool
    previous_chain_sha256: str
    chain_sha256: str
    chain_holds: bool
    sealed_at: datetime | None

    @property
    def holds(self) -> bool:
        return self.payload_holds and self.chain_holds


def verify_organisation(*, organisation_id: uuid.UUID, anchor: Anchor | None = None) -> Report:
    """Check the whole chain of one organisation, streaming; entries written meanwhile do no harm."""
    report = Report(organisation_id)
    _verify_chain(report, anchor)
    _verify_nothing_is_outside(report)
    return report


def verify_entry(entry: Entry) -> Proof:
    """Recompute one entry's payload hash and link. The caller has read the entry through its permission queryset."""
    payload_holds = digest(entry.payload) == entry.payload_sha256
    seal = Seal.objects.filter(entry_id=entry.pk, organisation_id=entry.organisation_id).first()
    if seal is None:
        return Proof(None, entry.payload_sha256, payload_holds, "", "", False, None)
    previous = genesis(entry.organisation_id)
    if seal.sequence > 1:
        before = Seal.objects.filter(organisation_id=entry.organisation_id, sequence=seal.sequence - 1).first()
        previous = before.chain_sha256 if before else ""
    expected = link(
        previous=previous, organisation_id=entry.organisation_id, sequence=seal.sequence, facts=facts_of(entry)
    )
    return Proof(
        sequence=seal.sequence,
        payload_sha256=entry.payload_sha256,
        payload_holds=payload_holds,
        previous_chain_sha256=previous,
        chain_sha256=seal.chain_sha256,
        chain_holds=expected == seal.chain_sha256,
        sealed_at=seal.sealed_at,
    )


def _verify_chain(report: Report, anchor: Anchor | None) -> None:
    expected_sequence = 1
    previous = genesis(report.organisation_id)
    anchored = anchor is None
    for sequence, stored, sealed_entry, owner, payload, *columns in _sealed(report.organisation_id):
        report.sealed += 1
        if sequence != expected_sequence:
            report.note(Flaw.SEQUENCE_BROKEN, sequence, sealed_entry)
        facts = Facts(*columns)
        if facts.id is None:
            report.note(Flaw.ENTRY_MISSING, sequence, sealed_entry)
        elif owner != report.organisation_id:
            report.note(Flaw.FOREIGN_ENTRY, sequence, sealed_entry)
        else:
            if payload_digest(payload) != facts.payload_sha256:
                report.note(Flaw.PAYLOAD_CHANGED, sequence, sealed_entry)
            expected = link(previous=previous, organisation_id=report.organisation_id, sequence=sequence, facts=facts)
            if expected != stored and sequence == expected_sequence:
                report.note(Flaw.ENTRY_CHANGED, sequence, sealed_entry)
        # From the stored link on, so that one change is one flaw and not one for every entry after it.
        previous, expected_sequence = stored, sequence + 1
        report.head = Anchor(sequence, stored)
        anchored = anchored or report.head == anchor
    if not anchored and anchor is not None:
        report.note(Flaw.ANCHOR_MISSING, anchor.sequence, None)


def _sealed(organisation_id: uuid.UUID) -> Iterator[tuple[Any, ...]]:
    """Rows of the chain in order through a server-side cursor, which needs a transaction around it."""
    with transaction.atomic(), connection.chunked_cursor() as cursor:
        cursor.execute(  # the only thing put in is our own list of columns
            "SELECT s.sequence, s.chain_sha256, s.entry_id, e.organisation_id, e.payload::text,"  # noqa: S608
            f" {COLUMNS} FROM audit_seal s LEFT JOIN audit_entry e ON e.id = s.entry_id"
            " WHERE s.organisation_id = %s ORDER BY s.sequence",
            [organisation_id],
        )
        while rows := cursor.fetchmany(_ROWS_AT_A_TIME):
            yield from rows


def _verify_nothing_is_outside(report: Report) -> None:
    """One statement, so one snapshot: an entry of the organisation is sealed or on the work list, never neither."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT e.id, e.at, u.entry_id FROM audit_entry e"
            " LEFT JOIN audit_unsealed u ON u.organisation_id = e.organisation_id AND u.entry_id = e.id"
            " WHERE e.organisation_id = %s AND NOT EXISTS (SELECT FROM audit_seal s WHERE s.entry_id = e.id)"
            " UNION ALL SELECT NULL, NULL, u.entry_id FROM audit_unsealed u WHERE u.organisation_id = %s"
            " AND NOT EXISTS (SELECT FROM audit_entry e WHERE e.id = u.entry_id) ORDER BY 1",
            [report.organisation_id, report.organisation_id],
        )
        for entry_id, at, listed in cursor.fetchall():
            if entry_id is None:
                report.note(Flaw.ENTRY_MISSING, None, listed)
            elif listed is None:
                report.note(Flaw.SEAL_MISSING, None, entry_id)
            else:
                report.unsealed += 1
                report.oldest_unsealed_at = min(report.oldest_unsealed_at or now(), at)
