"""Writing the audit trail. `record` belongs inside the transaction of the change it tells about."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from django.db import connection

from controlplane.audit.events import Event
from controlplane.audit.models import Entry
from controlplane.common.canonical import canonical_bytes, digest_of_bytes
from controlplane.common.clock import now
from controlplane.common.ids import new_id
from controlplane.common.observability import trace_id
from controlplane.common.redaction import may_hold_secret, redact, redact_value
from controlplane.tenancy.types import Principal


@dataclass(frozen=True)
class Subject:
    """What an entry is about. `type` is the field's noun ("mission", "action", "escalation", …)."""

    type: str
    id: uuid.UUID
    name: str
    team_id: uuid.UUID | None = None
    mission_id: uuid.UUID | None = None


def row(
    *, event: Event, actor: Principal, subject: Subject, payload: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """An entry as its columns, for callers that write many rows in one statement."""
    facts, raw = _without_secrets(payload or {})
    return {
        "id": new_id(),
        "organisation_id": actor.organisation_id,
        "team_id": subject.team_id,
        "at": now(),
        "event": event.value,
        "actor_kind": actor.kind.value,
        "actor_id": actor.id,
        "actor_name": redact(actor.name)[:120],
        "subject_type": subject.type,
        "subject_id": subject.id,
        "subject_name": redact(subject.name)[:200],
        "mission_id": subject.mission_id,
        "payload": facts,
        "payload_sha256": digest_of_bytes(raw),
        "trace_id": trace_id(),
        "salt": uuid.uuid4(),
    }


def _without_secrets(payload: Mapping[str, Any]) -> tuple[dict[str, Any], bytes]:
    """The payload as it is kept and its canonical form. Credentials never get as far as the table."""
    facts = dict(payload)
    raw = canonical_bytes(facts)
    if not may_hold_secret(raw.decode()):
        return facts, raw
    kept = redact_value(facts)
    return kept, canonical_bytes(kept)


def record(*, event: Event, actor: Principal, subject: Subject, payload: Mapping[str, Any] | None = None) -> Entry:
    """Write one entry, inside the caller's atomic block: no change without its entry, no entry without its change."""
    if not connection.in_atomic_block:
        raise RuntimeError("audit.record outside a transaction")
    entry = Entry(**row(event=event, actor=actor, subject=subject, payload=payload))
    entry.save(force_insert=True)
    return entry


def record_many(rows: Sequence[Mapping[str, Any]]) -> None:
    """Write the entries that `row` made in few statements, inside the caller's atomic block."""
    if not connection.in_atomic_block:
        raise RuntimeError("audit.record_many outside a transaction")
    Entry.objects.bulk_create((Entry(**columns) for columns in rows), batch_size=500)


class ErasesWords(Protocol):
    """Inside an erasure: take out what a person wrote, leave that they did. Returns how many rows changed."""

    def __call__(self, *, user_id: uuid.UUID, organisation_ids: Collection[uuid.UUID], pseudonym: str) -> int: ...


_ERASE_WORDS: Final[list[ErasesWords]] = []


def register_words(erases: ErasesWords) -> None:
    """Texts that go with the person who wrote them; called by `AppConfig.ready()`."""
    if erases not in _ERASE_WORDS:
        _ERASE_WORDS.append(erases)


def erase_words(*, user_id: uuid.UUID, organisation_ids: Collection[uuid.UUID], pseudonym: str) -> int:
    """In every app that keeps such texts. Inside the erasure's transaction."""
    return sum(
        erases(user_id=user_id, organisation_ids=organisation_ids, pseudonym=pseudonym) for erases in _ERASE_WORDS
    )
