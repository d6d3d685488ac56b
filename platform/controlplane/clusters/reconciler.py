"""Makes a cluster's sandboxes what the database wants: one pass under a lease, every write fenced by the lease's
epoch."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import timedelta

import structlog
from django.db import transaction
from django.db.models import Exists, F, Q, QuerySet
from django.db.models.functions import Length

from controlplane.audit.events import Event
from controlplane.audit.services import Subject, record
from controlplane.clusters.lease import TOO_FAR_AHEAD, LeaseLost, lease_of, renew
from controlplane.clusters.models import Cluster, Sandbox, SandboxLog
from controlplane.clusters.quiet import LOG_CAP_BYTES, note_quiet
from controlplane.clusters.reconcile import Command, Desired, next_command
from controlplane.clusters.services import Launch, driver_of, owner_of, spec_of
from controlplane.clusters.types import (
    LAUNCH_WAITS,
    ClusterDriver,
    DriverError,
    ExitReason,
    NodeInfo,
    Resources,
    SandboxPhase,
    SandboxStatus,
)
from controlplane.common.clock import now
from controlplane.common.ids import parse_id
from controlplane.live.services import announce
from controlplane.tenancy.types import system_principal

log = structlog.get_logger(__name__)

_LOG_PIECE = 64 * 1024
_BACK_OFF_SECONDS = (1, 2, 5, 15, 60)
_ENDED = (SandboxPhase.EXITED, SandboxPhase.LOST, SandboxPhase.DELETED)
_LIVE = (SandboxPhase.PENDING, SandboxPhase.RUNNING)
_MOST_ATTEMPTS = 10  # some six minutes: after that its owner had better know


@dataclass(frozen=True)
class _Pass:
    """One look at a cluster under one lease."""

    cluster_id: uuid.UUID
    lease_epoch: int
    driver: ClusterDriver
    node_epoch: str
    stopped_epochs: Collection[str]
    observed: Mapping[str, SandboxStatus]


def reconcile_cluster(cluster_id: uuid.UUID) -> int:
    """One pass. Returns how many commands were carried out; 0 when another worker holds the lease."""
    with lease_of(cluster_id) as epoch:
        if epoch is None:
            return 0
        cluster = Cluster.objects.get(pk=cluster_id)
        driver = driver_of(cluster)
        try:
            # Seen first, named after: what an older node life showed then never counts for a newer one.
            observed = {status.name: status for status in driver.observe()}
            info = driver.info()
        except DriverError as error:
            Cluster.objects.filter(pk=cluster_id, lease_epoch=epoch).update(error=error.message[:300])
            log.warning("cluster.unreachable", cluster=cluster.name, error=error.message)
            return 0
        _note_cluster(cluster, info, epoch)
        look = _Pass(cluster_id, epoch, driver, info.epoch, info.stopped_epochs, observed)
        done = 0
        rows = _worth_a_look(look)
        quiet = note_quiet(rows, observed, cluster_id=cluster_id, lease_epoch=epoch)
        for sandbox in rows:
            if sandbox.pk in quiet:
                continue
            try:
                done += _reconcile_one(sandbox, look)
            except LeaseLost:
                return done
            except Exception as error:
                # One sandbox that can't be dealt with must not keep the others from it.
                log.exception("sandbox.not_reconciled", sandbox=str(sandbox.pk))
                _wait(sandbox, look, f"Remit failed: {type(error).__name__}")
        _remove_orphans(look)
        return done


def _worth_a_look(look: _Pass) -> list[Sandbox]:
    """What changed and is due, what lives, and whatever the cluster still knows of."""
    known = [key for name in look.observed if (key := parse_id(name))]
    moment = now()
    waits = Q(next_attempt_at__gt=moment, next_attempt_at__lte=moment + TOO_FAR_AHEAD)
    rows = Sandbox.objects.filter(
        Q(dirty=True) & ~waits | Q(observed_phase__in=_LIVE) | Q(pk__in=known), cluster_id=look.cluster_id
    )
    # Starting may take minutes, where something has to be installed first: what else there is to see comes before it.
    return sorted(rows.order_by("id").select_related("cluster"), key=lambda row: row.applied_under == "")


def _reconcile_one(sandbox: Sandbox, look: _Pass) -> int:
    observed = look.observed.get(str(sandbox.pk))
    command = next_command(desired=_desired(sandbox, look), observed=observed)
    if command is Command.NOTHING or (command in _RETRIED and _waits(sandbox)):
        if command is Command.RESIZE and observed is not None:
            observed = replace(observed, resize_error="")  # said of an earlier size
        _see(sandbox, observed, look)
        return 0
    renew(look.cluster_id, look.lease_epoch)
    try:
        match command:
            case Command.APPLY:
                _apply(sandbox, look)
            case Command.RESIZE:
                _see(sandbox, look.driver.resize(str(sandbox.pk), Resources(**sandbox.desired_resources)), look)
            case Command.DELETE:
                _keep_log(sandbox, observed, look)
                look.driver.delete(str(sandbox.pk))
                _write(sandbox, _deleted(sandbox, observed), look)
            case Command.MARK_DELETED:
                look.driver.delete(str(sandbox.pk))  # a start asked for earlier may still be on its way
                _write(sandbox, _deleted(sandbox, None), look)
            case Command.MARK_LOST:
                _write(sandbox, _gone(sandbox, look), look)
            case Command.CLEAN_UP:
                look.driver.delete(str(sandbox.pk))
    except DriverError as error:
        _postpone(sandbox, command, error, look)
        return 0
    return 1


_RETRIED = (Command.APPLY, Command.RESIZE, Command.DELETE, Command.MARK_DELETED)


def _desired(sandbox: Sandbox, look: _Pass) -> Desired:
    return Desired(
        running=sandbox.desired == "running",
        resources=Resources(**sandbox.desired_resources),
        resize_pending=sandbox.observed_generation < sandbox.desired_generation and not sandbox.resize_error,
        may_have_run=sandbox.started_at is not None or sandbox.applied_under not in ("", look.node_epoch),
        ended=sandbox.observed_phase in _ENDED,
        deleted=sandbox.observed_phase == SandboxPhase.DELETED,
    )


def _apply(sandbox: Sandbox, look: _Pass) -> None:
    """Start it, at most once: that it was asked for, and of which life of the node, is on record before it happens."""
    launch = _launch(sandbox)
    renew(look.cluster_id, look.lease_epoch)
    asked = _fenced(sandbox, look).filter(desired="running", observed_phase__in=_LIVE)
    if not asked.filter(applied_under__in=["", look.node_epoch]).update(applied_under=look.node_epoch):
        return  # unwanted or asked for elsewhere meanwhile: the next pass sees
    _see(sandbox, look.driver.apply(spec_of(sandbox, launch, node_epoch=look.node_epoch)), look)


def _launch(sandbox: Sandbox) -> Launch:
    try:
        return owner_of(sandbox).launch(sandbox=sandbox)
    except DriverError:
        raise
    except Exception as error:
        log.exception("sandbox.not_launched", sandbox=str(sandbox.pk))
        raise DriverError(f"What it starts could not be made ready: {error}", code="launch.failed") from error


def _see(sandbox: Sandbox, observed: SandboxStatus | None, look: _Pass) -> None:
    """Store what was seen; nothing of an ended sandbox stays behind on the node once it is in the database."""
    if observed is None:
        _fenced(sandbox, look).filter(desired=sandbox.desired).exclude(observed_phase__in=_LIVE).update(dirty=False)
        return
    _keep_log(sandbox, observed, look)
    if _write(sandbox, observed, look) and observed.phase is SandboxPhase.EXITED:
        try:
            look.driver.delete(str(sandbox.pk))
        except DriverError as error:
            log.warning("sandbox.not_cleaned_up", sandbox=str(sandbox.pk), error=error.message)


def _write(sandbox: Sandbox, observed: SandboxStatus, look: _Pass) -> bool:
    """Store a status, fenced; tell the owner when the phase moved. An ended sandbox never comes back to life.

    False: the desired state moved on meanwhile, the row is still dirty and the next pass looks again.
    """
    before = sandbox.observed_phase
    resources = asdict(observed.resources) if observed.resources else sandbox.observed_resources
    agreed = resources == sandbox.desired_resources
    settled = {} if _waits(sandbox) else {"dirty": False, "attempts": 0, "next_attempt_at": None}
    former = sandbox.former_sizes
    if sandbox.started_at and sandbox.observed_resources and resources != sandbox.observed_resources:
        until = observed.exited_at or now()
        former = [*former, {"until": until.isoformat(), "resources": sandbox.observed_resources}]
    with transaction.atomic():
        if observed.phase != before:
            owner_of(sandbox).lock(sandbox=sandbox)
        rows = _fenced(sandbox, look)
        if observed.phase is SandboxPhase.DELETED:
            rows = rows.exclude(observed_phase=SandboxPhase.DELETED)
        else:
            rows = rows.filter(observed_phase__in=_LIVE)
        changed = rows.filter(desired_generation=sandbox.desired_generation, desired=sandbox.desired).update(
            observed_phase=observed.phase,
            observed_resources=resources,
            former_sizes=former,
            observed_generation=sandbox.desired_generation
            if agreed or observed.resize_error
            else sandbox.observed_generation,
            observed_at=now(),
            isolation=observed.isolation or sandbox.isolation,
            resize_error="" if agreed else observed.resize_error[:300],
            exit_code=observed.exit_code,
            exit_reason=observed.exit_reason or "",
            message=observed.message[:500],
            cpu_seconds=max(observed.cpu_seconds, sandbox.cpu_seconds),
            peak_memory_bytes=max(observed.peak_memory_bytes, sandbox.peak_memory_bytes),
            started_at=sandbox.started_at
            or observed.started_at
            or (now() if observed.phase is SandboxPhase.RUNNING else None),
            exited_at=observed.exited_at or (now() if observed.phase in _ENDED else None),
            **settled,
        )
        if not changed:
            if Cluster.objects.filter(pk=look.cluster_id).exclude(lease_epoch=look.lease_epoch).exists():
                raise LeaseLost
            return False
        sandbox.refresh_from_db()
        if sandbox.observed_phase != before:
            if sandbox.observed_phase == SandboxPhase.LOST:
                _audit_loss(sandbox)
            owner_of(sandbox).on_change(sandbox=sandbox)
        if sandbox.mission_id:
            announce(f"mission:{sandbox.mission_id}", "sandbox")
    return True


def _fenced(sandbox: Sandbox, look: _Pass) -> QuerySet[Sandbox]:
    """The row, for a writer that still holds the lease: every change of a sandbox by this module goes through here.

    EXISTS, not a join: of a join Django makes a subquery with all conditions in it, and PostgreSQL does not ask that
    anew for a row that somebody else (a stop) has just changed.
    """
    held = Cluster.objects.filter(pk=look.cluster_id, lease_epoch=look.lease_epoch)
    return Sandbox.objects.filter(Exists(held), pk=sandbox.pk)


def _waits(sandbox: Sandbox) -> bool:
    """Whether its last command failed a moment ago."""
    moment = now()
    return sandbox.next_attempt_at is not None and moment < sandbox.next_attempt_at <= moment + TOO_FAR_AHEAD


def _deleted(sandbox: Sandbox, observed: SandboxStatus | None) -> SandboxStatus:
    seen = observed or SandboxStatus(name=str(sandbox.pk), phase=SandboxPhase.DELETED)
    if sandbox.observed_phase in _ENDED:
        reason = ExitReason(sandbox.exit_reason) if sandbox.exit_reason else ExitReason.STOPPED
        code, message = sandbox.exit_code, sandbox.message
    elif seen.phase is SandboxPhase.EXITED:
        reason, code, message = seen.exit_reason or ExitReason.STOPPED, seen.exit_code, seen.message
    else:
        reason, code, message = ExitReason.STOPPED, None, "Stopped on request."
    return SandboxStatus(
        name=str(sandbox.pk),
        phase=SandboxPhase.DELETED,
        exit_code=code,
        exit_reason=reason,
        started_at=seen.started_at,
        exited_at=sandbox.exited_at or seen.exited_at,
        cpu_seconds=seen.cpu_seconds,
        peak_memory_bytes=seen.peak_memory_bytes,
        message=message,
    )


def _gone(sandbox: Sandbox, look: _Pass) -> SandboxStatus:
    # Nobody saw it end, perhaps in a night without anything of Remit: it lived when it was last seen.
    exited_at = sandbox.observed_at if sandbox.started_at else None
    if sandbox.applied_under in look.stopped_epochs:
        return SandboxStatus(
            name=str(sandbox.pk),
            phase=SandboxPhase.EXITED,
            exited_at=exited_at,
            exit_reason=ExitReason.NODE_STOPPED,
            message="Its node was told to stop, and ended it first.",
        )
    return SandboxStatus(
        name=str(sandbox.pk),
        phase=SandboxPhase.LOST,
        exited_at=exited_at,
        exit_reason=ExitReason.NODE_LOST,
        message="The node no longer knows this sandbox: it was restarted, and its processes ended with it.",
    )


def _postpone(sandbox: Sandbox, command: Command, error: DriverError, look: _Pass) -> None:
    """A command that failed: tried again later, or known to be in vain."""
    in_vain = error.permanent or sandbox.attempts + 1 >= _MOST_ATTEMPTS
    if error.code == LAUNCH_WAITS:
        _wait(sandbox, look, error.message, failed=False)
    elif command is Command.APPLY and in_vain:
        failed = SandboxStatus(
            name=str(sandbox.pk), phase=SandboxPhase.EXITED, exit_reason=ExitReason.START_FAILED, message=error.message
        )
        _write(sandbox, failed, look)
    elif command is Command.RESIZE and error.permanent and error.code != "sandbox.unknown":
        rows = _fenced(sandbox, look).filter(desired_generation=sandbox.desired_generation)
        rows.update(resize_error=error.message[:300], observed_generation=sandbox.desired_generation, dirty=False)
    elif command is Command.CLEAN_UP:
        log.warning("sandbox.not_cleaned_up", sandbox=str(sandbox.pk), error=error.message)
    else:
        _wait(sandbox, look, error.message)


def _wait(sandbox: Sandbox, look: _Pass, message: str, *, failed: bool = True) -> None:
    seconds = _BACK_OFF_SECONDS[min(sandbox.attempts, len(_BACK_OFF_SECONDS) - 1)]
    _fenced(sandbox, look).update(
        attempts=F("attempts") + int(failed),
        next_attempt_at=now() + timedelta(seconds=seconds),
        message=message[:500],
        dirty=True,
    )


def _keep_log(sandbox: Sandbox, observed: SandboxStatus | None, look: _Pass) -> None:
    """Copy new output into the database, up to the cap; a node may die at any time and its log with it."""
    if observed is None or not observed.log_bytes:
        return
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
            chunk = look.driver.logs(str(sandbox.pk), offset=offset, limit=min(_LOG_PIECE, LOG_CAP_BYTES - offset))
        except DriverError:
            return  # read again on the next pass
        if not chunk.data:
            return
        with transaction.atomic():
            # The lease's row is held while a piece is added, so that two workers never add overlapping ones.
            held = Cluster.objects.select_for_update().filter(pk=look.cluster_id, lease_epoch=look.lease_epoch)
            if not held.exists():
                raise LeaseLost
            SandboxLog.objects.get_or_create(sandbox=sandbox, offset=chunk.offset, defaults={"data": chunk.data})
        offset = chunk.offset + len(chunk.data)


def _remove_orphans(look: _Pass) -> None:
    """Sandboxes of runs that the database knows nothing of. Those of other purposes belong to whoever made them."""
    ours = {name: parse_id(name) for name, status in look.observed.items() if status.labels.get("purpose") == "run"}
    known = set(Sandbox.objects.filter(pk__in=[key for key in ours.values() if key]).values_list("pk", flat=True))
    for name, key in ours.items():
        if key in known:
            continue
        log.warning("sandbox.orphan_removed", sandbox=name)
        try:
            look.driver.delete(name)
        except DriverError as error:
            log.warning("sandbox.not_cleaned_up", sandbox=name, error=error.message)


def _note_cluster(cluster: Cluster, info: NodeInfo, epoch: int) -> None:
    Cluster.objects.filter(pk=cluster.pk, lease_epoch=epoch).update(
        seen_at=now(), error="", node_epoch=info.epoch, info=asdict(info)
    )


def _audit_loss(sandbox: Sandbox) -> None:
    record(
        event=Event.SANDBOX_LOST,
        actor=system_principal(organisation_id=sandbox.organisation_id),
        subject=Subject("sandbox", sandbox.pk, sandbox.name, sandbox.team_id, sandbox.mission_id),
        payload={"reason": sandbox.message},
    )
