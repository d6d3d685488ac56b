"""Workers at an export: what one whose lease ran out may not undo."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from controlplane.audit import exporting, jobs
from controlplane.audit.models import Entry, Job
from controlplane.audit.sealing import seal_all
from controlplane.common.clock import now
from controlplane.tenancy.types import Principal


def test_a_worker_that_fails_late_leaves_the_file_of_the_one_that_took_over(
    trail: list[Entry], as_nadia: Principal, monkeypatch: pytest.MonkeyPatch
) -> None:
    seal_all()
    job = jobs.ask_export(principal=as_nadia)
    write = exporting.write_part

    def taken_over(*_: Any, **__: Any) -> Any:
        monkeypatch.setattr(exporting, "write_part", write)
        Job.objects.filter(pk=job.pk).update(lease_until=now() - timedelta(seconds=1))
        assert jobs.work(job_id=job.pk, seconds=60)
        raise OSError("No space left on device")

    monkeypatch.setattr(exporting, "write_part", taken_over)
    assert jobs.work(job_id=job.pk, seconds=60)
    job.refresh_from_db()
    assert job.state == "ready"
    assert jobs.file_of(principal=as_nadia, job_id=job.pk).is_file()
