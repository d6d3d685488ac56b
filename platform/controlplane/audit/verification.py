"""Recomputes every payload hash, every link, every signature of a chain, and says where the first thing is wrong. Reads
only. What a whole chain needs is done in slices, so that a page can show how far it is."""

from __future__ import annotations

import enum
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.db import connection

from controlplane.audit import bulk
from controlplane.audit.chain import Facts, facts_of, genesis, link, payload_digest, restated
from controlplane.audit.models import Entry, Restatement, Seal
from controlplane.audit.signatures import verify_checkpoints, verify_erasures
from controlplane.common.canonical import digest
from controlplane.common.clock import now

FLAWS_KEPT = 20
STRETCH = 50_000


class Flaw(enum.StrEnum):
    """What can be wrong, each with its sentence."""

    PAYLOAD_CHANGED = "payload_changed"
    ENTRY_CHANGED = "entry_changed"
    ENTRY_MISSING = "entry_missing"
    SEQUENCE_BROKEN = "sequence_broken"
    SEAL_MISSING = "seal_missing"
    FOREIGN_ENTRY = "foreign_entry"
    ANCHOR_MISSING = "anchor_missing"
    CHECKPOINT_CONTRADICTED = "checkpoint_contradicted"
    CHECKPOINT_FORGED = "checkpoint_forged"
    RESTATEMENT_CHANGED = "restatement_changed"
    ERASURE_UNPROVEN = "erasure_unproven"

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
    Flaw.CHECKPOINT_CONTRADICTED: "A signed checkpoint is not in the chain: it was cut, rewritten or restored.",
    Flaw.CHECKPOINT_FORGED: "A checkpoint is missing, changed or not signed by a key of Remit.",
    Flaw.RESTATEMENT_CHANGED: "The entry is not what the erasure of a person left of it.",
    Flaw.ERASURE_UNPROVEN: "What this erasure is said to have replaced is not what its entry says.",
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
    """What the check of one organisation found so far. `flaws` keeps the first twenty, `flaw_count` counts all."""

    organisation_id: uuid.UUID
    sealed: int = 0
    unsealed: int = 0
    restated: int = 0
    checkpoints: int = 0
    oldest_unsealed_at: datetime | None = None
    head: Anchor | None = None
    flaws: list[Finding] = field(default_factory=list)
    flaw_count: int = 0

    @property
    def intact(self) -> bool:
        return self.flaw_count == 0

    @property
    def position(self) -> int:
        """The last sequence number that was looked at."""
        return self.head.sequence if self.head else 0

    def note(self, flaw: Flaw, sequence: int | None, entry_id: uuid.UUID | None) -> None:
        self.flaw_count += 1
        if len(self.flaws) < FLAWS_KEPT:
            self.flaws.append(Finding(flaw, sequence, entry_id))

    def as_dict(self) -> dict[str, Any]:
        """As JSON, for the command and for the job that goes on with it."""
        return {
            "intact": self.intact,
            "sealed": self.sealed,
            "unsealed": self.unsealed,
            "restated": self.restated,
            "checkpoints": self.checkpoints,
            "oldest_unsealed_at": self.oldest_unsealed_at and self.oldest_unsealed_at.isoformat(),
            "head": self.head and {"sequence": self.head.sequence, "chain_sha256": self.head.chain_sha256},
            "flaw_count": self.flaw_count,
            "flaws": [
                {
                    "flaw": finding.flaw.value,
                    "sequence": finding.sequence,
                    "entry_id": finding.entry_id and str(finding.entry_id),
                    "message": finding.flaw.sentence,
                }
                for finding in self.flaws
            ],
        }

    @classmethod
    def from_dict(cls, organisation_id: uuid.UUID, known: Mapping[str, Any]) -> Report:
        if not known:
            return cls(organisation_id)
        oldest, head = known["oldest_unsealed_at"], known["head"]
        return cls(
            organisation_id,
            sealed=known["sealed"],
            unsealed=known["unsealed"],
            restated=known["restated"],
            checkpoints=known["checkpoints"],
            oldest_unsealed_at=datetime.fromisoformat(oldest) if oldest else None,
            head=Anchor(head["sequence"], head["chain_sha256"]) if head else None,
            flaws=[
                Finding(Flaw(flaw["flaw"]), flaw["sequence"], uuid.UUID(flaw["entry_id"]) if flaw["entry_id"] else None)
                for flaw in known["flaws"]
            ],
            flaw_count=known["flaw_count"],
        )


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
    is_restated: bool = False

    @property
    def holds(self) -> bool:
        return self.payload_holds and self.chain_holds


def verify_organisation(*, organisation_id: uuid.UUID, anchor: Anchor | None = None) -> Report:
    """Check the whole chain of one organisation, streaming; entries written meanwhile do no harm."""
    report = Report(organisation_id)
    verify_slice(report)
    finish(report, anchor=anchor)
    return report


def verify_slice(report: Report, *, last: int | None = None, seconds: float | None = None) -> bool:
    """Go on from where the report stands, to number `last` or for about that long. Whether the end is reached."""
    deadline = None if seconds is None else time.monotonic() + seconds
    end = _head_sequence(report.organisation_id) if last is None else last
    while report.position < end:
        before = report.position
        _check_stretch(report, min(end, before + STRETCH))
        if report.position == before:  # nothing but holes; whatever is missing shows at the next seal or checkpoint
            report.head = Anchor(min(end, before + STRETCH), report.head.chain_sha256 if report.head else "")
        if deadline is not None and time.monotonic() >= deadline:
            break
    return report.position >= end


def finish(report: Report, *, anchor: Anchor | None = None) -> None:
    """What is checked once, when the chain itself is done: checkpoints, erasures, entries outside, the noted head."""
    if anchor is not None and not _has(report.organisation_id, anchor.sequence, anchor.chain_sha256):
        report.note(Flaw.ANCHOR_MISSING, anchor.sequence, None)
    checked = verify_checkpoints(organisation_id=report.organisation_id)
    report.checkpoints = checked.count
    for sequence in checked.forged:
        report.note(Flaw.CHECKPOINT_FORGED, sequence, None)
    for sequence in checked.contradicted:
        report.note(Flaw.CHECKPOINT_CONTRADICTED, sequence, None)
    for entry_id in verify_erasures(organisation_id=report.organisation_id):
        report.note(Flaw.ERASURE_UNPROVEN, None, entry_id)
    _verify_nothing_is_outside(report)


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
    facts = facts_of(entry)
    holds = not facts.is_linkable or seal.chain_sha256 == link(
        previous=previous, organisation_id=entry.organisation_id, sequence=seal.sequence, facts=facts
    )
    if facts.is_restated:
        holds = holds and _as_restated(entry.pk, seal.chain_sha256, facts)
    return Proof(
        sequence=seal.sequence,
        payload_sha256=entry.payload_sha256,
        payload_holds=payload_holds,
        previous_chain_sha256=previous,
        chain_sha256=seal.chain_sha256,
        chain_holds=holds,
        sealed_at=seal.sealed_at,
        is_restated=facts.is_restated,
    )


def _check_stretch(report: Report, last: int) -> None:
    organisation_id = report.organisation_id
    previous = report.head.chain_sha256 if report.head else genesis(organisation_id)
    stretch = bulk.check(organisation_id=organisation_id, after=report.position, previous=previous, last=last)
    doubts = {doubt.sequence: doubt for doubt in stretch.doubts}
    for sealed in bulk.read(organisation_id=organisation_id, sequences=list(doubts)):
        _judge(report, sealed, doubts[sealed.sequence])
    report.sealed += stretch.seals
    if stretch.seals:
        # From the stored link on, so that one change is one flaw and not one for every entry after it.
        report.head = Anchor(stretch.sequence, stretch.chain_sha256)


def _judge(report: Report, sealed: bulk.Sealed, doubt: bulk.Doubt) -> None:
    facts, place = sealed.facts, (sealed.sequence, sealed.entry_id)
    if sealed.sequence != doubt.expected_sequence:
        report.note(Flaw.SEQUENCE_BROKEN, *place)
    if facts.id is None:
        report.note(Flaw.ENTRY_MISSING, *place)
        return
    if sealed.owner != report.organisation_id:
        report.note(Flaw.FOREIGN_ENTRY, *place)
        return
    if payload_digest(sealed.payload) != facts.payload_sha256:
        report.note(Flaw.PAYLOAD_CHANGED, *place)
    if facts.is_linkable and sealed.sequence == doubt.expected_sequence:
        expected = link(
            previous=doubt.previous, organisation_id=report.organisation_id, sequence=sealed.sequence, facts=facts
        )
        if expected != sealed.chain_sha256:
            report.note(Flaw.ENTRY_CHANGED, *place)
    if facts.is_restated:
        report.restated += 1
        if sealed.restated_sha256 != restated(chain_sha256=sealed.chain_sha256, facts=facts):
            report.note(Flaw.RESTATEMENT_CHANGED, *place)


def _as_restated(entry_id: uuid.UUID, chain_sha256: str, facts: Facts) -> bool:
    """Whether the entry is what its last erasure left of it."""
    said = Restatement.objects.filter(entry_id=entry_id).order_by("-pk").values_list("restated_sha256", flat=True)
    return said.first() == restated(chain_sha256=chain_sha256, facts=facts)


def _head_sequence(organisation_id: uuid.UUID) -> int:
    found = (
        Seal.objects.filter(organisation_id=organisation_id).order_by("-sequence").values_list("sequence", flat=True)
    )
    return found.first() or 0


def _has(organisation_id: uuid.UUID, sequence: int, chain_sha256: str) -> bool:
    return Seal.objects.filter(organisation_id=organisation_id, sequence=sequence, chain_sha256=chain_sha256).exists()


def _verify_nothing_is_outside(report: Report) -> None:
    """An entry of the organisation is sealed or on the work list, never neither. When the numbers agree and nothing
    else is wrong, that is so; else every entry is looked at. Each is one statement, so one snapshot."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT (SELECT count(*) FROM audit_entry WHERE organisation_id = %(o)s)"
            " - (SELECT count(*) FROM audit_seal WHERE organisation_id = %(o)s), count(*), count(e.id), count(s.id),"
            " min(e.at) FROM audit_unsealed u LEFT JOIN audit_entry e ON e.id = u.entry_id"
            " LEFT JOIN audit_seal s ON s.entry_id = u.entry_id WHERE u.organisation_id = %(o)s",
            {"o": report.organisation_id},
        )
        not_sealed, listed, known, sealed, oldest = cursor.fetchone()
        if report.intact and not_sealed == listed == known and not sealed:
            report.unsealed, report.oldest_unsealed_at = listed, oldest
            return
        cursor.execute(
            "SELECT e.id, e.at, u.entry_id FROM audit_entry e"
            " LEFT JOIN audit_unsealed u ON u.organisation_id = e.organisation_id AND u.entry_id = e.id"
            " WHERE e.organisation_id = %(o)s AND NOT EXISTS (SELECT FROM audit_seal s WHERE s.entry_id = e.id)"
            " UNION ALL SELECT NULL, NULL, u.entry_id FROM audit_unsealed u WHERE u.organisation_id = %(o)s"
            " AND NOT EXISTS (SELECT FROM audit_entry e WHERE e.id = u.entry_id) ORDER BY 1",
            {"o": report.organisation_id},
        )
        for entry_id, at, waiting in cursor.fetchall():
            if entry_id is None:
                report.note(Flaw.ENTRY_MISSING, None, waiting)
            elif waiting is None:
                report.note(Flaw.SEAL_MISSING, None, entry_id)
            else:
                report.unsealed += 1
                report.oldest_unsealed_at = min(report.oldest_unsealed_at or now(), at)
