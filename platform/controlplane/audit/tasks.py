"""The trail's tasks: sealing every half second, signing heads every minute, and slices of the long jobs."""

from __future__ import annotations

from celery import shared_task

from controlplane.audit import checkpoints, sealing


@shared_task(expires=2)  # type: ignore[untyped-decorator]  # Celery has no types; a call nobody took in time is not made up for
def seal() -> int:
    return sealing.seal_all()


@shared_task(expires=30)  # type: ignore[untyped-decorator]
def sign() -> int:
    return checkpoints.sign_heads()
