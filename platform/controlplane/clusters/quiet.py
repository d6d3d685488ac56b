"""Sandboxes that run as they ran at the last look: noted together in two statements, whatever their number."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from typing import Final

from django.db import connection, transaction
from django.db.models import F, Max
from django.db.models.functions import Length

from controlplane.clusters.models import Sandbox, SandboxLog
from controlplane.clusters.types import SandboxPhase, SandboxStatus
from controlplane.common.clock import now
from controlplane.live.services import announce

LOG_CAP_BYTES: Final = 1024 * 1024
# Rows that somebody else holds are left for the next pass: a pass that waits here could wait in a circle with a stop.
_NOTE = """
WITH free AS (
    SELECT sandbox.id
    FROM clusters_sandbox AS sandbox JOIN clusters_cluster AS cluster ON cluster.id = sandbox.cluster_id
    WHERE sandbox.id = ANY(%(id)s::uuid[]) AND cluster.id = %(cluster)s AND cluster.lease_epoch = %(epoch)s
        AND sandbox.desired = 'running' AND sandbox.observed_phase = 'running' AND NOT sandbox.dirty
    ORDER BY sandbox.id FOR NO KEY UPDATE OF sandbox SKIP LOCKED
)
UPDATE clusters_sandbox AS sandbox SET
    observed_at = %(at)s, cpu_seconds = greatest(sandbox.cpu_seconds, seen.cpu_seconds),
    peak_memory_bytes = greatest(sandbox.peak_memory_bytes, seen.peak_memory_bytes)
FROM free
JOIN unnest(%(id)s::uuid[], %(cpu)s::float8[], %(peak)s::bigint[]) AS seen (id, cpu_seconds, peak_memory_bytes)
    ON seen.id = free.id
WHERE sandbox.id = free.id
"""


def note_quiet(
    rows: Sequence[Sandbox], observed: Mapping[str, SandboxStatus], *, cluster_id: uuid.UUID, lease_epoch: int
) -> Collection[uuid.UUID]:
    """Those of `rows` about which there is nothing to do and nothing to tell but their use; fenced like every write."""
    quiet = [
        (sandbox, status)
        for sandbox in rows
        if (status := observed.get(str(sandbox.pk))) is not None and _runs_on(sandbox, status)
    ]
    quiet = _without_new_output(quiet)
    if not quiet:
        return frozenset()
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(
            _NOTE,
            {
                "id": [sandbox.pk for sandbox, _ in quiet],
                "cpu": [status.cpu_seconds for _, status in quiet],
                "peak": [status.peak_memory_bytes for _, status in quiet],
                "cluster": cluster_id,
                "epoch": lease_epoch,
                "at": now(),
            },
        )
        for mission_id in {sandbox.mission_id for sandbox, _ in quiet if sandbox.mission_id}:
            announce(f"mission:{mission_id}", "sandbox")
    return frozenset(sandbox.pk for sandbox, _ in quiet)


def _runs_on(sandbox: Sandbox, status: SandboxStatus) -> bool:
    return (
        not sandbox.dirty
        and sandbox.desired == "running"
        and status.phase is SandboxPhase.RUNNING
        and sandbox.observed_phase == SandboxPhase.RUNNING
        and status.resources is not None
        and asdict(status.resources) == sandbox.observed_resources == sandbox.desired_resources
        and sandbox.observed_generation == sandbox.desired_generation
        and status.resize_error == sandbox.resize_error
        and status.message == sandbox.message
    )


def _without_new_output(quiet: list[tuple[Sandbox, SandboxStatus]]) -> list[tuple[Sandbox, SandboxStatus]]:
    talking = [sandbox.pk for sandbox, status in quiet if status.log_bytes]
    if not talking:
        return quiet
    ends = SandboxLog.objects.filter(sandbox_id__in=talking).values("sandbox_id")
    kept = dict(ends.annotate(end=Max(F("offset") + Length("data"))).values_list("sandbox_id", "end"))
    return [
        (sandbox, status)
        for sandbox, status in quiet
        if min(status.log_bytes, LOG_CAP_BYTES) <= kept.get(sandbox.pk, 0)
    ]
