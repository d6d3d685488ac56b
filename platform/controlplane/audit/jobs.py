"""Checks and exports of a whole trail that people ask for on a page: done in slices, so that the page shows how
far they are and a worker that dies costs one slice. The row is the truth; tasks only wake up whoever works on it."""

from __future__ import annotations

import uuid
from dataclasses import asdict
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import structlog
from django.conf import settings
from django.db import transaction
from django.db.models import Q

from controlplane.audit import exporting, verification
from controlplane.audit.events import Event
from controlplane.audit.exporting import Part, Range
from controlplane.audit.models import Job, JobKind, JobState
from controlplane.audit.selectors import sealed_entries
from controlplane.audit.services import Subject, record
from controlplane.common.clock import now
from controlplane.common.errors import RemitError, not_found
from controlplane.tenancy.types import Permission, Principal

log = structlog.get_logger(__name__)

SLICE_SECONDS = 5.0
LEASE = timedelta(seconds=60)
KEPT = timedelta(hours=24)
FORGOTTEN = timedelta(days=30)
_NEEDED = {JobKind.VERIFY: Permission.AUDIT_VIEW, JobKind.EXPORT: Permission.AUDIT_EXPORT}


def ask_verification(*, principal: Principal) -> Job:
    """A check of the whole chain of the principal's organisation. One that is running already is joined. Raises 403."""
    principal.require(Permission.AUDIT_VIEW)
    last = sealed_entries(principal.organisation_id)
    return _open(principal, JobKind.VERIFY, Range(1, last))


def ask_export(*, principal: Principal, start: int | datetime | None = None, end: int | datetime | None = None) -> Job:
    """An export of the trail between two numbers or times. Raises 403, 409 `audit.nothing_to_export`, 422
    `audit.range_invalid`."""
    principal.require(Permission.AUDIT_EXPORT)
    wanted = exporting.range_of(organisation_id=principal.organisation_id, start=start, end=end)
    return _open(principal, JobKind.EXPORT, wanted)


def file_of(*, principal: Principal, job_id: uuid.UUID) -> Path:
    """The finished export, for a download that is recorded. Raises 404, and 410 `audit.export_gone` after its time."""
    principal.require(Permission.AUDIT_EXPORT)
    job = (
        Job.objects.restrict(principal, Permission.AUDIT_EXPORT)
        .filter(pk=job_id, kind=JobKind.EXPORT, state__in=[JobState.READY, JobState.EXPIRED])
        .first()
    )
    if job is None:
        raise not_found("export")
    path = _path(job.pk)
    if job.state == JobState.EXPIRED or (job.expires_at or now()) <= now() or not path.exists():
        raise RemitError(
            "audit.export_gone",
            "This export was kept for a day and is gone.",
            410,
            remedies=("Ask for a new one on the audit page.",),
        )
    with transaction.atomic():
        record(
            event=Event.AUDIT_EXPORT_DOWNLOADED,
            actor=principal,
            subject=_subject(principal, job),
            payload={"first": job.first, "last": job.last, "sha256": job.progress.get("sha256", "")},
        )
    return path


def begin(*, job: Job, seconds: float) -> Job:
    """The first slice at once, so that what is short is done when the page comes; the rest is the worker's."""
    work(job_id=job.pk, seconds=seconds)
    job.refresh_from_db()
    if job.state == JobState.RUNNING:
        from controlplane.audit import tasks  # it imports this module

        tasks.work.wake(str(job.pk))
    return job


def seen_by(*, principal: Principal, job_id: uuid.UUID) -> Job:
    """A check or export of the principal's organisation. Raises 404."""
    job = Job.objects.restrict(principal, Permission.AUDIT_VIEW).filter(pk=job_id).first()
    if job is None or not principal.has(_NEEDED[JobKind(job.kind)]):
        raise not_found("job")
    return job


def exports_of(*, principal: Principal, limit: int = 20) -> list[Job]:
    """The organisation's latest exports."""
    principal.require(Permission.AUDIT_EXPORT)
    rows = Job.objects.restrict(principal, Permission.AUDIT_EXPORT).filter(kind=JobKind.EXPORT)
    return list(rows.order_by("-pk")[:limit])


def report_of(job: Job) -> verification.Report:
    """What a check found so far."""
    return verification.Report.from_dict(job.organisation_id, job.progress)


def work(*, job_id: uuid.UUID, seconds: float = SLICE_SECONDS) -> bool:
    """One slice of a running job; whether there is nothing left to do. Whoever holds the lease works, others leave."""
    free = Q(lease_until__isnull=True) | Q(lease_until__lt=now())
    if not Job.objects.filter(free, pk=job_id, state=JobState.RUNNING).update(lease_until=now() + LEASE):
        return True
    job = Job.objects.get(pk=job_id)
    try:
        done = _verify(job, seconds) if job.kind == JobKind.VERIFY else _export(job, seconds)
    except Exception as error:
        said = error.message if isinstance(error, RemitError) else "Remit could not finish it; its log says why."
        log.exception("audit.job_failed", job=str(job_id), kind=job.kind)
        _save(job, state=JobState.FAILED, error=said[:300], ended_at=now())
        _remove_unfinished(job.pk)
        return True
    ended = {"state": JobState.READY, "ended_at": now(), "expires_at": now() + KEPT} if done else {}
    if not _save(job, **ended):
        _remove_unfinished(job.pk)  # given up while it was written
        return True
    return done


def sweep() -> int:
    """Take up what nobody works on, remove files after their time, forget old jobs. Returns how many were taken up."""
    moment = now()
    over = Job.objects.filter(kind=JobKind.EXPORT, state__in=[JobState.READY, JobState.FAILED], expires_at__lte=moment)
    for job in over:
        _remove_files(job.pk)
        gone = {"state": JobState.EXPIRED} if job.state == JobState.READY else {"expires_at": None}
        Job.objects.filter(pk=job.pk, state=job.state).update(**gone)
    Job.objects.filter(created_at__lt=moment - FORGOTTEN).exclude(state=JobState.RUNNING).delete()
    idle = Job.objects.filter(state=JobState.RUNNING).filter(
        Q(lease_until__lt=moment) | Q(lease_until__isnull=True, created_at__lt=moment - timedelta(seconds=10))
    )
    waiting = list(idle.values_list("pk", flat=True)[:20])
    for job_id in waiting:
        work(job_id=job_id)
    return len(waiting)


def _open(principal: Principal, kind: JobKind, wanted: Range) -> Job:
    """The rows of one organisation's jobs are few; two people who ask for the same at once get the same."""
    with transaction.atomic():
        running = Job.objects.filter(
            organisation_id=principal.organisation_id, kind=kind, state=JobState.RUNNING, first=wanted.first
        )
        same = running if kind == JobKind.VERIFY else running.filter(last=wanted.last)
        if (found := same.first()) is not None:
            return found
        job = Job.objects.create(
            organisation_id=principal.organisation_id,
            kind=kind,
            asked_by_id=principal.id,
            first=wanted.first,
            last=wanted.last,
            position=wanted.first - 1,
            created_at=now(),
        )
        if kind == JobKind.EXPORT:
            record(
                event=Event.AUDIT_EXPORT_ASKED,
                actor=principal,
                subject=_subject(principal, job),
                payload={"first": job.first, "last": job.last},
            )
    return job


def _verify(job: Job, seconds: float) -> bool:
    report = verification.Report.from_dict(job.organisation_id, job.progress)
    done = verification.verify_slice(report, last=job.last, seconds=seconds)
    if done:
        verification.finish(report)
    job.position, job.progress = report.position, report.as_dict()
    return done


def _export(job: Job, seconds: float) -> bool:
    """As many parts as fit into the time. A file that does not hold what the row says is begun again."""
    unfinished, wanted = _path(job.pk).with_suffix(".unfinished"), Range(job.first, job.last)
    unfinished.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    parts = [Part(**part) for part in job.progress.get("parts", [])]
    if not parts or exporting.parts_in(unfinished) != [part.name for part in parts]:
        unfinished.unlink(missing_ok=True)
        parts = []
    position = parts[-1].last if parts else wanted.first - 1
    deadline = now() + timedelta(seconds=seconds)
    while position < wanted.last:
        parts.append(
            exporting.write_part(unfinished, organisation_id=job.organisation_id, wanted=wanted, after=position)
        )
        position = parts[-1].last
        if now() >= deadline:
            break
    job.position, job.progress = position, {"parts": [asdict(part) for part in parts]}
    if position < wanted.last:
        return False
    exporting.complete(unfinished, organisation_id=job.organisation_id, wanted=wanted, parts=parts)
    path = unfinished.replace(_path(job.pk))
    job.progress = {"bytes": path.stat().st_size, "sha256": exporting.file_digest(path)}
    return True


def _save(job: Job, **changes: Any) -> bool:
    """Whether it was: a job that was given up meanwhile stays so."""
    values = {"position": job.position, "progress": job.progress, "lease_until": None, **changes}
    return bool(Job.objects.filter(pk=job.pk, state=JobState.RUNNING).update(**values))


def _remove_unfinished(job_id: uuid.UUID) -> None:
    """Not the file of a worker that took over from one whose lease had run out, and finished first."""
    if not Job.objects.filter(pk=job_id, state=JobState.READY).exists():
        _remove_files(job_id)


def _remove_files(job_id: uuid.UUID) -> None:
    for path in (_path(job_id), _path(job_id).with_suffix(".unfinished")):
        path.unlink(missing_ok=True)


def _path(job_id: uuid.UUID) -> Path:
    folder: Path = settings.CONFIG.state_dir / "audit_exports"
    return folder / f"{job_id}.zip"


def _subject(principal: Principal, job: Job) -> Subject:
    return Subject("organisation", job.organisation_id, principal.organisation_name)
