"""What the tests of the reconciler share: a sandbox as its row says it is now, and sizes."""

from __future__ import annotations

from controlplane.clusters.models import Sandbox
from controlplane.clusters.types import MIB, Resources

LARGE = Resources(cpu_millicores=1000, memory_bytes=512 * MIB)
SMALL = Resources(cpu_millicores=100, memory_bytes=64 * MIB)


def refreshed(sandbox: Sandbox) -> Sandbox:
    sandbox.refresh_from_db()
    return sandbox


def make_due() -> None:
    Sandbox.objects.update(next_attempt_at=None)
