"""Makes a cluster's sandboxes what the database wants: one pass under a lease, every write fenced by the lease's
epoch."""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import timedelta

import structlog
from django.db import transaction
from django.db.models import F, Q
from django.db.models.functions import Length

from controlplane.audit.events import Event
from controlplane.audit.services import Subject, record
from controlplane.clusters.models import Cluster, Sandbox, SandboxLog
from controlplane.clusters.reconcile import Command, Desired, next_command
from controlplane.clusters.services import driver_of, owner_of, spec_of
from controlplane.clusters.types import (
    ClusterDriver,
    DriverError,
    ExitReason,
    NodeInfo,
    Resources,
    SandboxPhase,
    SandboxStatus,
)
from controlplane.common.clock import now
from controlplane.live.services import announce
from controlplane.tenancy.types import system_principal

log = structlog.get_logger(__name__)

LEASE = timedelta(seconds=30)
LOG_CAP_BYTES = 1024 * 1024
_LOG_PIECE = 64 * 1024
_BACK_OFF_SECONDS = (1, 2, 5, 15, 60)
_ENDED = (SandboxPhase.EXITED, SandboxPhase.LOST, SandboxPhase.DELETED)


class LeaseLost(Exception):
    """Another worker took the cluster over; this pass writes nothing more."""


def reconcile_cluster(cluster_id: uuid.UUID) -> int:
    """One pass. Returns how many commands were carried out; 0 when another worker holds the lease."""
    with _lease(cluster_id) as epoch:
        if epoch is None:
            return 0
        cluster = Cluster.objects.get(pk=cluster_id)
        driver = driver_of(cluster)
        try:
            info = driver.info()
            observed = {status.name: status for status in driver.observe()}
        except DriverError as error:
            Cluster.objects.filter(pk=cluster_id, lease_epoch=epoch).update(error=error.message[:300])
            log.warning("cluster.unreachable", cluster=cluster.name, error=error.message)
            return 0
        _note_cluster(cluster, info, epoch)
        done = 0
        for sandbox in _worth_a_look(cluster_id):
            try:
                done += _reconcile_one(sandbox, observed.get(str(sandbox.pk)), driver, epoch)
            except LeaseLost:
                return done
        _remove_orphans(cluster_id, observed, driver)
        return done


def _worth_a_look(cluster_id: uuid.UUID) -> list[Sandbox]:
    live = Q(observed_phase__in=[SandboxPhase.PENDING, SandboxPhase.RUNNING])
    due = Q(dirty=True) & (Q(next_attempt_at__isnull=True) | Q(next_attempt_at__lte=now()))
    rows = Sandbox.objects.filter(due | (live & Q(dirty=False)), cluster_id=cluster_id)
    return list(rows.order_by("id").select_related("cluster"))


def _reconcile_one(sandbox: Sandbox, observed: SandboxStatus | None, driver: ClusterDriver, epoch: int) -> int:
    desired = Desired(
        running=sandbox.desired == "running",
        resources=Resources(**sandbox.desired_resources),
        resize_pending=sandbox.observed_generation < sandbox.desired_generation and not sandbox.resize_error,
        ever_applied=sandbox.started_at is not None,
        ended=sandbox.observed_phase in _ENDED,
    )
    command = next_command(desired=desired, observed=observed)
    try:
        match command:
            case Command.APPLY:
                observed = driver.apply(spec_of(sandbox, owner_of(sandbox).launch(sandbox=sandbox)))
            case Command.RESIZE:
                observed = driver.resize(str(sandbox.pk), desired.resources)
            case Command.DELETE:
                if observed is not None:
                    _keep_log(sandbox, observed, driver)
                driver.delete(str(sandbox.pk))
    except DriverError as error:
        _postpone(sandbox, error, epoch)
        return 0
    if command in (Command.DELETE, Command.MARK_DELETED):
        _write(sandbox, _deleted(sandbox, observed), epoch)
    elif command is Command.MARK_LOST:
        _write(sandbox, _lost(sandbox), epoch)
    elif observed is not None:
        if observed.log_bytes:
            _keep_log(sandbox, observed, driver)
        _write(sandbox, observed, epoch)
        if observed.phase is SandboxPhase.EXITED and sandbox.desired == "running":
            # Nothing of an ended sandbox stays behind on the node; what it was is in the database now.
            driver.delete(str(sandbox.pk))
    else:
        Sandbox.objects.filter(pk=sandbox.pk).update(dirty=False)
    return int(command is not Command.NOTHING)


def _write(sandbox: Sandbox, observed: SandboxStatus, epoch: int) -> None:
    """Store what was seen, fenced; tell the owner when the phase moved. An ended sandbox never comes back to life."""
    before = sandbox.observed_phase
    resources = asdict(observed.resources) if observed.resources else sandbox.observed_resources
    settled = resources == sandbox.desired_resources or bool(observed.resize_error)
    with transaction.atomic():
        rows = Sandbox.objects.filter(pk=sandbox.pk, cluster__lease_epoch=epoch).exclude(
            Q(observed_phase__in=_ENDED) & ~Q(observed_phase=SandboxPhase.EXITED)
        )
        changed = rows.filter(desired_generation=sandbox.desired_generation, desired=sandbox.desired).update(
            observed_phase=observed.phase,
            observed_resources=resources,
            observed_generation=sandbox.desired_generation if settled else sandbox.observed_generation,
            observed_at=now(),
            isolation=observed.isolation or sandbox.isolation,
            resize_error=observed.resize_error[:300],
            exit_code=observed.exit_code,
            exit_reason=observed.exit_reason or "",
            message=observed.message[:500],
            cpu_seconds=max(observed.cpu_seconds, sandbox.cpu_seconds),
            peak_memory_bytes=max(observed.peak_memory_bytes, sandbox.peak_memory_bytes),
            started_at=sandbox.started_at
            or observed.started_at
            or (now() if observed.phase != SandboxPhase.PENDING else None),
            exited_at=observed.exited_at or (now() if observed.phase in _ENDED else None),
            dirty=False,
            attempts=0,
            next_attempt_at=None,
        )
        if not changed:
            if Cluster.objects.filter(pk=sandbox.cluster_id).exclude(lease_epoch=epoch).exists():
                raise LeaseLost
            return  # desired state moved on meanwhile: the row is still dirty and the next pass looks again
        sandbox.refresh_from_db()
        if sandbox.observed_phase != before:
            if sandbox.observed_phase == SandboxPhase.LOST:
                _audit_loss(sandbox)
            owner_of(sandbox).on_change(sandbox=sandbox)
        if sandbox.mission_id:
            announce(f"mission:{sandbox.mission_id}", "sandbox")


def _deleted(sandbox: Sandbox, observed: SandboxStatus | None) -> SandboxStatus:
    ended = sandbox.observed_phase == SandboxPhase.EXITED
    seen = observed or SandboxStatus(name=str(sandbox.pk), phase=SandboxPhase.DELETED)
    return SandboxStatus(
        name=str(sandbox.pk),
        phase=SandboxPhase.DELETED,
        exit_code=sandbox.exit_code if ended else seen.exit_code,
        exit_reason=ExitReason(sandbox.exit_reason) if ended and sandbox.exit_reason else ExitReason.STOPPED,
        exited_at=sandbox.exited_at,
        cpu_seconds=seen.cpu_seconds,
        peak_memory_bytes=seen.peak_memory_bytes,
        message=sandbox.message if ended else "Stopped on request.",
    )


def _lost(sandbox: Sandbox) -> SandboxStatus:
    return SandboxStatus(
        name=str(sandbox.pk),
        phase=SandboxPhase.LOST,
        exit_reason=ExitReason.NODE_LOST,
        message="The node no longer knows this sandbox: it was restarted, and its processes ended with it.",
    )


def _postpone(sandbox: Sandbox, error: DriverError, epoch: int) -> None:
    if error.permanent:
        failed = SandboxStatus(
            name=str(sandbox.pk), phase=SandboxPhase.EXITED, exit_reason=ExitReason.START_FAILED, message=error.message
        )
        _write(sandbox, failed, epoch)
        return
    wait = _BACK_OFF_SECONDS[min(sandbox.attempts, len(_BACK_OFF_SECONDS) - 1)]
    Sandbox.objects.filter(pk=sandbox.pk, cluster__lease_epoch=epoch).update(
        attempts=F("attempts") + 1,
        next_attempt_at=now() + timedelta(seconds=wait),
        message=error.message[:500],
        dirty=True,
    )


def _keep_log(sandbox: Sandbox, observed: SandboxStatus, driver: ClusterDriver) -> None:
    """Copy new output into the database, up to the cap; a node may die at any time and its log with it."""
    last = (
        SandboxLog.objects.filter(sandbox=sandbox)
        .order_by("-offset")
        .annotate(size=Length("data"))
        .values_list("offset", "size")
        .first()
    )
    offset = last[0] + last[1] if last else 0
    while offset < min(observed.log_bytes, LOG_CAP_BYTES):
        try:
            chunk = driver.logs(str(sandbox.pk), offset=offset, limit=_LOG_PIECE)
        except DriverError:
            return  # read again on the next pass
        if not chunk.data:
            return
        SandboxLog.objects.get_or_create(sandbox=sandbox, offset=chunk.offset, defaults={"data": chunk.data})
        offset = chunk.offset + len(chunk.data)


def _remove_orphans(cluster_id: uuid.UUID, observed: dict[str, SandboxStatus], driver: ClusterDriver) -> None:
    """Sandboxes of runs that the database does not want. Those of other purposes belong to whoever made them."""
    ours = {name for name, status in observed.items() if status.labels.get("purpose") == "run"}
    wanted = {
        str(key) for key in Sandbox.objects.filter(cluster_id=cluster_id, pk__in=ours).values_list("pk", flat=True)
    }
    for name in ours - wanted:
        log.warning("sandbox.orphan_removed", sandbox=name)
        driver.delete(name)


def _note_cluster(cluster: Cluster, info: NodeInfo, epoch: int) -> None:
    Cluster.objects.filter(pk=cluster.pk, lease_epoch=epoch).update(
        seen_at=now(), error="", node_epoch=info.epoch, info={**asdict(info), "limits": list(info.limits)}
    )


def _audit_loss(sandbox: Sandbox) -> None:
    record(
        event=Event.SANDBOX_LOST,
        actor=system_principal(organisation_id=sandbox.organisation_id),
        subject=Subject("sandbox", sandbox.pk, sandbox.name, sandbox.team_id, sandbox.mission_id),
        payload={"reason": sandbox.message},
    )


@contextmanager
def _lease(cluster_id: uuid.UUID) -> Iterator[int | None]:
    """Take the cluster by compare-and-set; the raised epoch fences out whoever held it before."""
    owner = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
    moment = now()
    free = Q(lease_until__isnull=True) | Q(lease_until__lte=moment)
    taken = Cluster.objects.filter(free, pk=cluster_id).update(
        lease_owner=owner, lease_until=moment + LEASE, lease_epoch=F("lease_epoch") + 1
    )
    if not taken:
        yield None
        return
    epoch = Cluster.objects.values_list("lease_epoch", flat=True).get(pk=cluster_id)
    try:
        yield epoch
    finally:
        Cluster.objects.filter(pk=cluster_id, lease_owner=owner).update(lease_owner="", lease_until=None)
