"""Wake-ups of the reconciler."""

from __future__ import annotations

import uuid

from celery import shared_task

from controlplane.clusters.ending import end_unwanted
from controlplane.clusters.models import Cluster, Sandbox
from controlplane.clusters.reconciler import reconcile_cluster

_PASSES = 5


@shared_task  # type: ignore[untyped-decorator]
def reconcile(cluster_id: str) -> None:
    """Passes until nothing is left to do: what became dirty during a pass is not left to the next sweep."""
    key = uuid.UUID(cluster_id)
    end_unwanted(key)
    for _ in range(_PASSES):
        if not reconcile_cluster(key):
            return
        if not Sandbox.objects.filter(cluster_id=key, dirty=True).exists():
            return


@shared_task  # type: ignore[untyped-decorator]
def reconcile_all() -> None:
    for key in Cluster.objects.values_list("pk", flat=True):
        end_unwanted(key)
        reconcile_cluster(key)
