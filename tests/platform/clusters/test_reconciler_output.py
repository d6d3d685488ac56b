"""The output of sandboxes is kept after the end, capped, and read on where an answer was lost."""

from __future__ import annotations

import pytest

from controlplane.clusters import selectors
from controlplane.clusters.models import SandboxLog

from .sandboxes import refreshed

pytestmark = pytest.mark.django_db


def test_output_is_kept_after_the_end_and_capped(sandbox, cluster, reconcile) -> None:
    reconcile()
    cluster.say(str(sandbox.pk), b"first line\n")
    reconcile()
    cluster.say(str(sandbox.pk), b"x" * (2 * 1024 * 1024))
    cluster.end(str(sandbox.pk))
    reconcile()
    assert cluster.known == {}
    kept = selectors.log_of(refreshed(sandbox), last_bytes=10 * 1024 * 1024)
    assert kept.text.startswith("first line\nxxx")
    assert (kept.total_bytes, kept.capped) == (1024 * 1024, True)


def test_output_is_read_on_where_a_lost_answer_left_off(sandbox, cluster, reconcile) -> None:
    reconcile()
    cluster.say(str(sandbox.pk), bytes(range(256)) * 1024)
    cluster.script = ["fine", "fine", "fine", "down"]
    reconcile()
    reconcile()
    pieces = SandboxLog.objects.filter(sandbox=sandbox).order_by("offset")
    assert b"".join(bytes(piece.data) for piece in pieces) == bytes(range(256)) * 1024
