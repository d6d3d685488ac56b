"""Whether checkpoints are signed, follow each other and are in the chain, and whether erasures did what they say."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from django.db import connection

from controlplane.audit.checkpoints import NONE_BEFORE, checkpoint_hash, statement
from controlplane.audit.events import Event
from controlplane.audit.keys import key_statement, present
from controlplane.audit.models import Checkpoint, Entry, Restatement, SigningKey
from controlplane.common.canonical import digest_of_bytes


@dataclass
class Checked:
    """`forged` and `contradicted`: the sequence numbers of checkpoints that don't hold."""

    count: int = 0
    forged: list[int] = field(default_factory=list)
    contradicted: list[int] = field(default_factory=list)


def verify_checkpoints(*, organisation_id: uuid.UUID) -> Checked:
    """Every signature, every hash of the one before, and every link at its place in the chain."""
    checked = Checked()
    keys = trusted_keys()
    number, previous = 1, NONE_BEFORE
    for checkpoint in Checkpoint.objects.filter(organisation_id=organisation_id).order_by("number").iterator():
        checked.count += 1
        key = keys.get(checkpoint.key_id)
        follows = checkpoint.number == number and checkpoint.previous_sha256 == previous
        if key is None or not follows or not _is_signed(key, checkpoint.signature, statement(checkpoint)):
            checked.forged.append(checkpoint.sequence)
        number, previous = checkpoint.number + 1, checkpoint_hash(checkpoint)
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT c.sequence FROM audit_checkpoint c LEFT JOIN audit_seal s"
            " ON s.organisation_id = c.organisation_id AND s.sequence = c.sequence AND s.chain_sha256 = c.chain_sha256"
            " WHERE c.organisation_id = %s AND s.id IS NULL ORDER BY c.number",
            [organisation_id],
        )
        checked.contradicted = [row[0] for row in cursor.fetchall()]
    return checked


def trusted_keys() -> dict[str, Ed25519PublicKey]:
    """The present key, which is not in the database, and those before it: each key names its predecessor, and both have
    signed that. A key that somebody only wrote into the table is on no such line. Where the present key can't be read
    (a check on another machine), the newest of the table has to do."""
    known = SigningKey.objects.in_bulk()
    newest = max(known.values(), key=lambda key: key.created_at, default=None)
    trusted: dict[str, Ed25519PublicKey] = {}
    here = present()
    key = newest if here is None else known.get(here)
    while key is not None and key.pk not in trusted:
        public = Ed25519PublicKey.from_public_bytes(bytes.fromhex(key.public_key))
        said = key_statement(key_id=key.pk, public_key=key.public_key, at=key.created_at, before=key.endorsed_by)
        trusted[key.pk] = public
        before = known.get(key.endorsed_by) if _is_signed(public, key.acceptance, said) else None
        if before is None:
            break
        endorser = Ed25519PublicKey.from_public_bytes(bytes.fromhex(before.public_key))
        key = before if _is_signed(endorser, key.endorsement, said) else None
    return trusted


def verify_erasures(*, organisation_id: uuid.UUID) -> list[uuid.UUID]:
    """The erasures whose entry in the trail does not cover exactly what they restated."""
    stated: dict[uuid.UUID, list[str]] = {}
    for erasure_id, sequence, sha256 in (
        Restatement.objects.filter(organisation_id=organisation_id)
        .order_by("sequence")
        .values_list("erasure_id", "sequence", "restated_sha256")
    ):
        stated.setdefault(erasure_id, []).append(f"{sequence}:{sha256}\n")
    said = dict(
        Entry.objects.filter(organisation_id=organisation_id, event=Event.PERSON_ERASED.value).values_list(
            "pk", "payload"
        )
    )
    return [
        erasure_id
        for erasure_id in {**stated, **said}
        if (said.get(erasure_id) or {}).get("restated_sha256") != summary(stated.get(erasure_id, []))
    ]


def summary(lines: list[str]) -> str:
    """One hash over all restatements of an erasure, `sequence:hash` each on its line, in order."""
    return digest_of_bytes("".join(lines).encode())


def _is_signed(key: Ed25519PublicKey, signature: str, said: bytes) -> bool:
    try:
        key.verify(bytes.fromhex(signature), said)
    except (InvalidSignature, ValueError):
        return False
    return True
