"""Beat calls it every ten minutes."""

from __future__ import annotations

from celery import shared_task

from controlplane.idempotency import services


@shared_task  # type: ignore[untyped-decorator]  # Celery has no types
def sweep() -> int:
    return services.sweep()
