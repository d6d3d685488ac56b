"""Gives committed entries their place in the hash chain: a number without gaps, and a link that covers the one before.

Why nothing is skipped: an entry's INSERT also writes its row in `audit_unsealed` (trigger, migration 0003), so the row
becomes visible exactly when the entry does. A transaction that commits late simply appears in the list late and gets
the next number then; no watermark could have passed it. The row goes away only in the transaction that writes the seal.

Why the chain can't fork: one sealer per organisation at a time holds an advisory lock until its transaction ends, and
reads the head after it has the lock. Should the lock ever fail, the unique sequence and the unique entry refuse the
second writer.
"""

from __future__ import annotations

import time
import uuid

import structlog
from django.db import connection, transaction

from controlplane.audit.chain import COLUMNS, Facts, genesis, link

log = structlog.get_logger(__name__)

BATCH = 1000
HEAD_LOGGED_EVERY_SECONDS = 60.0
_head_logged: dict[uuid.UUID, float] = {}


def seal_all(*, seconds: float = 10.0) -> int:
    """Seal what waits, organisation by organisation in turn, until nothing does or the time is up. Returns how many."""
    deadline = time.monotonic() + seconds
    total = 0
    while time.monotonic() < deadline:
        done = sum(seal_batch(organisation_id=organisation_id) for organisation_id in _waiting_organisations())
        total += done
        if not done:
            break
    return total


def seal_batch(*, organisation_id: uuid.UUID, batch: int = BATCH) -> int:
    """Seal up to `batch` entries in one transaction; 0 when nothing waits or another sealer is at this organisation."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_xact_lock(hashtextextended(%s, 0))", [f"audit.seal:{organisation_id}"])
        if not cursor.fetchone()[0]:
            return 0
        # Each statement sees what was committed before it began, so the head is read after the lock is held.
        sequence, previous = _head(cursor, organisation_id)
        cursor.execute(
            f"SELECT {COLUMNS} FROM audit_unsealed u JOIN audit_entry e ON e.id = u.entry_id"  # noqa: S608 - our own columns
            " WHERE u.organisation_id = %s ORDER BY u.entry_id LIMIT %s",
            [organisation_id, batch],
        )
        waiting = [Facts(*row) for row in cursor.fetchall()]
        if not waiting:
            return 0
        first = sequence + 1
        links: list[str] = []
        for facts in waiting:
            sequence += 1
            previous = link(previous=previous, organisation_id=organisation_id, sequence=sequence, facts=facts)
            links.append(previous)
        entries = [facts.id for facts in waiting]
        cursor.execute(
            "INSERT INTO audit_seal (organisation_id, sequence, entry_id, chain_sha256, sealed_at)"
            " SELECT %s, %s + place - 1, entry, chain, now()"
            " FROM unnest(%s::uuid[], %s::text[]) WITH ORDINALITY AS row (entry, chain, place)",
            [organisation_id, first, entries, links],
        )
        cursor.execute(
            "DELETE FROM audit_unsealed WHERE organisation_id = %s AND entry_id = ANY(%s)", [organisation_id, entries]
        )
    _log_head(organisation_id, sequence, previous)
    return len(waiting)


def _waiting_organisations() -> list[uuid.UUID]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT DISTINCT organisation_id FROM audit_unsealed ORDER BY organisation_id")
        return [row[0] for row in cursor.fetchall()]


def _head(cursor: object, organisation_id: uuid.UUID) -> tuple[int, str]:
    cursor.execute(  # type: ignore[attr-defined]
        "SELECT sequence, chain_sha256 FROM audit_seal WHERE organisation_id = %s ORDER BY sequence DESC LIMIT 1",
        [organisation_id],
    )
    row = cursor.fetchone()  # type: ignore[attr-defined]
    return (row[0], row[1]) if row else (0, genesis(organisation_id))


def _log_head(organisation_id: uuid.UUID, sequence: int, chain_sha256: str) -> None:
    """Once a minute the head goes to the log: kept elsewhere, it is the anchor against a cut or rewritten chain."""
    moment = time.monotonic()
    if moment - _head_logged.get(organisation_id, -HEAD_LOGGED_EVERY_SECONDS) >= HEAD_LOGGED_EVERY_SECONDS:
        _head_logged[organisation_id] = moment
        log.info("audit.head", organisation=str(organisation_id), sequence=sequence, chain=chain_sha256)
