"""Reads of sandboxes and their output."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from django.db.models import Q, QuerySet

from controlplane.clusters.models import Cluster, Sandbox, SandboxLog
from controlplane.clusters.quiet import LOG_CAP_BYTES
from controlplane.clusters.types import Resources
from controlplane.common.clock import now
from controlplane.common.errors import not_found
from controlplane.tenancy.types import Permission, Principal


@dataclass(frozen=True)
class Log:
    """The last part of a sandbox's output. `capped`: more was written than is kept."""

    text: str
    total_bytes: int
    capped: bool


def sandboxes(
    principal: Principal | None, *, mission_id: uuid.UUID | None = None, phase: str | None = None
) -> QuerySet[Sandbox]:
    rows = Sandbox.objects.restrict(principal, Permission.SANDBOX_VIEW).select_related("cluster", "team")
    wanted = {"mission_id": mission_id, "observed_phase": phase}
    return rows.filter(**{name: value for name, value in wanted.items() if value}).order_by("-id")


def sandbox(principal: Principal | None, sandbox_id: uuid.UUID) -> Sandbox:
    """Raises 404."""
    found = sandboxes(principal).filter(pk=sandbox_id).first()
    if found is None:
        raise not_found("sandbox")
    return found


def silent_clusters(since: datetime, *, started: datetime) -> list[str]:
    """Names of clusters that were reached once and not since then. Clusters are the installation's, not a tenant's.

    What was last reached before Remit `started` is silent once somebody has asked it in vain: the worker starts last.
    """
    asked = Q(seen_at__gte=started) | ~Q(error="")
    return list(Cluster.objects.filter(asked, seen_at__lt=since).order_by("name").values_list("name", flat=True))


def log_of(sandbox: Sandbox, *, last_bytes: int = 200_000) -> Log:
    """The caller has shown that it may see the sandbox."""
    pieces = list(SandboxLog.objects.filter(sandbox=sandbox).order_by("offset"))
    raw = b"".join(bytes(piece.data) for piece in pieces)
    total = (pieces[-1].offset + len(pieces[-1].data)) if pieces else 0
    return Log(raw[-last_bytes:].decode("utf-8", "replace"), total, total >= LOG_CAP_BYTES or len(raw) > last_bytes)


def sizes_in_time(sandbox: Sandbox) -> Sequence[tuple[Resources, Decimal]]:
    """The sizes its node really gave it, each with its seconds: until its end, or until now. Empty: it never started.

    At least a second in all and at most its wall clock, after which its node ends it: whatever clocks say.
    """
    if sandbox.started_at is None:
        return []
    latest = sandbox.started_at + timedelta(seconds=sandbox.wall_clock_seconds)
    end = min(max(sandbox.exited_at or now(), sandbox.started_at + timedelta(seconds=1)), latest)
    held, since = [], sandbox.started_at
    last = {"until": end.isoformat(), "resources": sandbox.observed_resources or sandbox.desired_resources}
    for size in (*sandbox.former_sizes, last):
        until = min(max(datetime.fromisoformat(size["until"]), since), end)
        held.append((Resources(**size["resources"]), Decimal(str((until - since).total_seconds()))))
        since = until
    return held
