"""Who may change a cluster's sandboxes: one worker at a time, for as long as it says that it lives."""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Final

from django.db.models import F, Q

from controlplane.clusters.models import Cluster
from controlplane.common.clock import now

LEASE: Final = timedelta(seconds=30)
# Later than any moment of a lease or another try could be: it was noted before the clock was set back, and is over.
TOO_FAR_AHEAD: Final = timedelta(seconds=120)


class LeaseLost(Exception):
    """Another worker took the cluster over; this pass writes nothing more."""


@contextmanager
def lease_of(cluster_id: uuid.UUID) -> Iterator[int | None]:
    """Take the cluster by compare-and-set; the raised epoch fences out whoever held it before."""
    owner = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
    moment = now()
    free = Q(lease_until__isnull=True) | Q(lease_until__lte=moment) | Q(lease_until__gt=moment + TOO_FAR_AHEAD)
    taken = Cluster.objects.filter(free, pk=cluster_id).update(
        lease_owner=owner, lease_until=moment + LEASE, lease_epoch=F("lease_epoch") + 1
    )
    if not taken:
        yield None
        return
    # Asked for by name: whoever took the lease since then has another epoch, which is not ours to write under.
    epoch = Cluster.objects.filter(pk=cluster_id, lease_owner=owner).values_list("lease_epoch", flat=True).first()
    try:
        yield epoch
    finally:
        Cluster.objects.filter(pk=cluster_id, lease_owner=owner).update(lease_owner="", lease_until=None)


def renew(cluster_id: uuid.UUID, epoch: int) -> None:
    """Before anything is done to a sandbox: still ours, and for another while. Raises LeaseLost."""
    if not Cluster.objects.filter(pk=cluster_id, lease_epoch=epoch).update(lease_until=now() + LEASE):
        raise LeaseLost
