"""The trail's tasks: sealing every half second, signing heads every minute, slices of the long jobs, coming months."""

from __future__ import annotations

import uuid

from celery import shared_task

from controlplane.audit import checkpoints, jobs, sealing
from controlplane.common.partitions import keep_ahead


@shared_task(expires=2)  # type: ignore[untyped-decorator]  # Celery has no types; a call nobody took in time is not made up for
def seal() -> int:
    return sealing.seal_all()


@shared_task(expires=30)  # type: ignore[untyped-decorator]
def sign() -> int:
    return checkpoints.sign_heads()


@shared_task  # type: ignore[untyped-decorator]
def work(job_id: str) -> None:
    """A slice of a check or export, and the next one after that."""
    if not jobs.work(job_id=uuid.UUID(job_id)):
        work.wake(job_id)


@shared_task(expires=10)  # type: ignore[untyped-decorator]
def sweep_jobs() -> int:
    return jobs.sweep()


@shared_task  # type: ignore[untyped-decorator]
def make_months() -> int:
    return keep_ahead("audit_make_partitions")
