"""Ending every unwanted sandbox of a cluster at once. Needs no lease: what is wanted gone may be killed by anyone,
twice or late, and a sandbox that is dead never lives again. The reconciler clears away what is left of them."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Sequence
from typing import Final

import structlog
from django.db import connection, transaction

from controlplane.clusters.models import Cluster, Sandbox
from controlplane.clusters.services import driver_of, owner_of_purpose
from controlplane.clusters.types import DriverError, ExitReason, SandboxPhase, SandboxStatus
from controlplane.common.clock import now
from controlplane.live.services import announce

log = structlog.get_logger(__name__)

_BATCH: Final = 200
_LIVE: Final = (SandboxPhase.PENDING, SandboxPhase.RUNNING)
# Only while it is unwanted and was last seen alive: whoever was faster keeps what they saw.
_NOTE = """
UPDATE clusters_sandbox AS sandbox SET
    observed_phase = 'exited', observed_at = %(at)s, exited_at = coalesce(seen.exited_at, %(at)s),
    started_at = coalesce(sandbox.started_at, seen.started_at), exit_code = seen.exit_code,
    exit_reason = seen.exit_reason, message = seen.message,
    cpu_seconds = greatest(sandbox.cpu_seconds, seen.cpu_seconds),
    peak_memory_bytes = greatest(sandbox.peak_memory_bytes, seen.peak_memory_bytes)
FROM unnest(%(id)s::uuid[], %(exited_at)s::timestamptz[], %(started_at)s::timestamptz[], %(exit_code)s::integer[],
    %(exit_reason)s::text[], %(message)s::text[], %(cpu_seconds)s::float8[], %(peak_memory_bytes)s::bigint[])
    AS seen (id, exited_at, started_at, exit_code, exit_reason, message, cpu_seconds, peak_memory_bytes)
WHERE sandbox.id = seen.id AND sandbox.desired = 'deleted' AND sandbox.observed_phase IN ('pending', 'running')
RETURNING sandbox.id, sandbox.purpose, sandbox.mission_id
"""


def end_unwanted(cluster_id: uuid.UUID) -> int:
    """Kill whatever should be gone and was last seen alive, and note it as ended. Returns how many that were.

    A cluster that does not answer is tried again by the reconciler's sweep."""
    cluster = Cluster.objects.get(pk=cluster_id)
    rows = Sandbox.objects.filter(cluster_id=cluster_id, desired="deleted", observed_phase__in=_LIVE)
    unwanted = list(rows.order_by("id").values_list("pk", "owner_id"))
    ended = 0
    for start in range(0, len(unwanted), _BATCH):
        batch = unwanted[start : start + _BATCH]
        try:
            dead = driver_of(cluster).kill([str(pk) for pk, _ in batch], guests_of=[str(owner) for _, owner in batch])
        except DriverError as error:
            log.warning("sandboxes.not_ended", cluster=cluster.name, error=error.message)
            return ended
        ended += _note(dead)
    return ended


def end_guests(run_ids: Collection[uuid.UUID]) -> None:
    """Kill the programs of MCP servers that serve runs without a sandbox of their own. In no row: where a cluster does
    not answer, their sessions end them, or their node does when these are gone."""
    for cluster in Cluster.objects.order_by("name"):
        try:
            driver_of(cluster).kill([], guests_of=sorted(map(str, run_ids)))
        except DriverError as error:
            log.warning("guests.not_ended", cluster=cluster.name, error=error.message)


def _note(dead: Sequence[SandboxStatus]) -> int:
    columns = _columns(dead)
    with transaction.atomic(), connection.cursor() as cursor:
        # By id, as a stop takes them: two that note the same deaths wait for each other, not in a circle.
        cursor.execute(
            "SELECT 1 FROM clusters_sandbox WHERE id = ANY(%s::uuid[]) ORDER BY id FOR NO KEY UPDATE", [columns["id"]]
        )
        cursor.execute(_NOTE, {"at": now(), **columns})
        noted = cursor.fetchall()
        for mission_id in {row[2] for row in noted if row[2]}:
            announce(f"mission:{mission_id}", "sandbox")
    by_purpose: dict[str, list[uuid.UUID]] = {}
    for pk, purpose, _ in noted:
        by_purpose.setdefault(purpose, []).append(pk)
    for purpose, ids in by_purpose.items():
        owner_of_purpose(purpose).on_ended(sandbox_ids=ids)
    return len(noted)


def _columns(dead: Sequence[SandboxStatus]) -> dict[str, list[object]]:
    """One list a column. A name its cluster did not know had not been started, and will not be."""
    return {
        "id": [status.name for status in dead],
        "exited_at": [status.exited_at for status in dead],
        "started_at": [status.started_at for status in dead],
        "exit_code": [status.exit_code for status in dead],
        "exit_reason": [(status.exit_reason or ExitReason.STOPPED).value for status in dead],
        "message": [
            status.message or ("Stopped on request." if status.started_at else "Stopped before it started.")
            for status in dead
        ],
        "cpu_seconds": [status.cpu_seconds for status in dead],
        "peak_memory_bytes": [status.peak_memory_bytes for status in dead],
    }
