"""The installation's Ed25519 key, which signs checkpoints and exports: read, made on first use, replaced. Old public
keys stay in the table, each new one endorsed by the one before it."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from django.conf import settings
from django.db import transaction

from controlplane.audit.events import Event
from controlplane.audit.models import SigningKey
from controlplane.audit.services import Subject, record
from controlplane.common.clock import now
from controlplane.common.errors import RemitError
from controlplane.config import Configuration
from controlplane.tenancy.models import Organisation
from controlplane.tenancy.types import system_principal

log = structlog.get_logger(__name__)

FILE = "audit_signing_key"
KEY_FORMAT = "remit-audit-key-1"


@dataclass(frozen=True)
class Signer:
    """A key that signs. Its id is the first half of the SHA-256 of its public key."""

    id: str
    public_key: str
    private: Ed25519PrivateKey = field(repr=False)

    def sign(self, statement: bytes) -> str:
        return self.private.sign(statement).hex()


def signer() -> Signer:
    """The present key, read anew so that every process follows a rotation. Made and noted when there is none yet."""
    found = _signer(_seed())
    if not SigningKey.objects.filter(pk=found.id).exists():
        if SigningKey.objects.exists():
            log.warning("audit.key_not_endorsed", key=found.id)
        moment = now()
        said = key_statement(key_id=found.id, public_key=found.public_key, at=moment, before="")
        made = SigningKey(pk=found.id, public_key=found.public_key, created_at=moment, acceptance=found.sign(said))
        SigningKey.objects.bulk_create([made], ignore_conflicts=True)
    return found


def present() -> str | None:
    """The id of the present key, without making one: for those who only look."""
    if not _configuration().audit_key and not _path().exists():
        return None
    return _signer(_seed()).id


def rotate() -> tuple[Signer, str]:
    """Replace the key: the old one endorses the new one, and every organisation's trail says so. Returns the new key
    and, where configuration holds the key, what REMIT_AUDIT_KEY has to be set to; else empty."""
    old, seed, moment = signer(), secrets.token_bytes(32), now()
    new = _signer(seed)
    said = key_statement(key_id=new.id, public_key=new.public_key, at=moment, before=old.id)
    with transaction.atomic():
        SigningKey.objects.create(
            pk=new.id,
            public_key=new.public_key,
            created_at=moment,
            endorsed_by=old.id,
            endorsement=old.sign(said),
            acceptance=new.sign(said),
        )
        for organisation in Organisation.objects.order_by("pk"):
            record(
                event=Event.AUDIT_KEY_ROTATED,
                actor=system_principal(organisation_id=organisation.pk),
                subject=Subject("organisation", organisation.pk, organisation.name),
                payload={"key": new.id, "before": old.id},
            )
    # Only when the endorsement stands: a key without one is a key that verifiers refuse.
    if _configuration().audit_key:
        return new, seed.hex()
    _write(_path(), seed, replace=True)
    return new, ""


def key_statement(*, key_id: str, public_key: str, at: datetime, before: str) -> bytes:
    """What a new key and the one before it (`before` empty: none) both sign."""
    return f"{KEY_FORMAT}\nkey {key_id}\npublic {public_key}\nat {stamp(at)}\nbefore {before or 'none'}\n".encode()


def stamp(moment: datetime) -> str:
    """A time as signed statements and exports write it."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _signer(seed: bytes) -> Signer:
    private = Ed25519PrivateKey.from_private_bytes(seed)
    public = private.public_key().public_bytes_raw()
    return Signer(hashlib.sha256(public).hexdigest()[:16], public.hex(), private)


def _seed() -> bytes:
    configured = _configuration().audit_key
    if configured:
        return bytes.fromhex(configured)
    path = _path()
    try:
        if not path.exists():
            _write(path, secrets.token_bytes(32), replace=False)
        return _of_text(path.read_text())
    except (OSError, ValueError) as error:
        raise RemitError(
            "audit.key_unusable",
            f"The key that signs the audit trail can't be read from {path}.",
            503,
            remedies=("Restore the file from your backup, or set REMIT_AUDIT_KEY.",),
        ) from error


def _of_text(text: str) -> bytes:
    seed = bytes.fromhex(text.strip())
    if len(seed) != 32:
        raise ValueError("an Ed25519 seed has 32 bytes")
    return seed


def _write(path: Path, seed: bytes, *, replace: bool) -> None:
    """For this user alone, whole or not at all; without `replace` the first of two processes wins."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(seed.hex() + "\n")
            file.flush()
            os.fsync(file.fileno())
        if replace:
            unfinished.replace(path)
        else:
            with contextlib.suppress(FileExistsError):
                path.hardlink_to(unfinished)
    finally:
        unfinished.unlink(missing_ok=True)


def _path() -> Path:
    return _configuration().state_dir / FILE


def _configuration() -> Configuration:
    found: Configuration = settings.CONFIG
    return found
