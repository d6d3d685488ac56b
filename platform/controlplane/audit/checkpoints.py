"""Signed heads of the chain. Each checkpoint covers its organisation, number, sequence, link, time and the checkpoint
before it, so that one kept elsewhere shows a later cut, rewrite or rollback of the database."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import datetime

import structlog
from django.db import connection, transaction

from controlplane.audit.keys import Signer, signer, stamp
from controlplane.audit.models import Checkpoint, Seal
from controlplane.common.canonical import digest_of_bytes
from controlplane.common.clock import now

log = structlog.get_logger(__name__)

FORMAT = "remit-audit-checkpoint-1"
NONE_BEFORE = digest_of_bytes(FORMAT.encode())


@dataclass(frozen=True)
class Break:
    """Why a head is not signed: the last checkpoint is not in the chain any more."""

    number: int
    sequence: int


def sign_heads() -> int:
    """Sign every head that moved since its last checkpoint. Returns how many."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT o.id FROM tenancy_organisation o"
            " CROSS JOIN LATERAL (SELECT sequence FROM audit_seal WHERE organisation_id = o.id"
            "                     ORDER BY sequence DESC LIMIT 1) s"
            " LEFT JOIN LATERAL (SELECT sequence FROM audit_checkpoint WHERE organisation_id = o.id"
            "                    ORDER BY number DESC LIMIT 1) c ON true"
            " WHERE s.sequence <> coalesce(c.sequence, 0) ORDER BY o.id"
        )
        moved = [row[0] for row in cursor.fetchall()]
    return sum(sign_head(organisation_id=organisation_id) is not None for organisation_id in moved)


def sign_head(*, organisation_id: uuid.UUID) -> Checkpoint | None:
    """The checkpoint of the present head: a new one when it moved. None for an empty chain, and for one that its last
    checkpoint contradicts: Remit does not sign over a rewritten past."""
    key = signer()
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"audit.checkpoint:{organisation_id}"])
        last = last_checkpoint(organisation_id)
        head = Seal.objects.filter(organisation_id=organisation_id).order_by("-sequence").first()
        if last is not None and (found := contradiction(last)) is not None:
            log.error(
                "audit.checkpoint_refused",
                organisation=str(organisation_id),
                number=found.number,
                sequence=found.sequence,
            )
            return None
        if head is None:
            return None
        if last is not None and last.sequence == head.sequence:
            return last
        made = _signed(key, organisation_id, head, last, now())
        made.save(force_insert=True)
    log.info(
        "audit.checkpoint",
        organisation=str(organisation_id),
        number=made.number,
        sequence=made.sequence,
        chain=made.chain_sha256,
        at=stamp(made.at),
        previous=made.previous_sha256,
        key=made.key_id,
        signature=made.signature,
    )
    return made


def last_checkpoint(organisation_id: uuid.UUID) -> Checkpoint | None:
    return Checkpoint.objects.filter(organisation_id=organisation_id).order_by("-number").first()


def contradiction(checkpoint: Checkpoint) -> Break | None:
    """Whether the chain no longer has the checkpoint's link at its place."""
    stands = Seal.objects.filter(
        organisation_id=checkpoint.organisation_id,
        sequence=checkpoint.sequence,
        chain_sha256=checkpoint.chain_sha256,
    ).exists()
    return None if stands else Break(checkpoint.number, checkpoint.sequence)


def statement(checkpoint: Checkpoint) -> bytes:
    """What is signed: plain lines, so that anybody can write them again."""
    return (
        f"{FORMAT}\norganisation {checkpoint.organisation_id}\nnumber {checkpoint.number}\n"
        f"sequence {checkpoint.sequence}\nchain {checkpoint.chain_sha256}\nat {stamp(checkpoint.at)}\n"
        f"previous {checkpoint.previous_sha256}\n"
    ).encode()


def checkpoint_hash(checkpoint: Checkpoint) -> str:
    """What the next checkpoint covers of this one: the statement, who signed it and the signature."""
    signed = f"key {checkpoint.key_id}\nsignature {checkpoint.signature}\n".encode()
    return digest_of_bytes(statement(checkpoint) + signed)


def _signed(
    key: Signer, organisation_id: uuid.UUID, head: Seal, last: Checkpoint | None, moment: datetime
) -> Checkpoint:
    made = Checkpoint(
        organisation_id=organisation_id,
        number=last.number + 1 if last else 1,
        sequence=head.sequence,
        chain_sha256=head.chain_sha256,
        at=moment,
        previous_sha256=checkpoint_hash(last) if last else NONE_BEFORE,
        key_id=key.id,
    )
    made.signature = key.sign(statement(made))
    return made
