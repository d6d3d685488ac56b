"""Exports of the audit trail over REST: asked for, waited for, downloaded, and kept from everybody else."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from controlplane.audit.models import Entry, Job
from controlplane.audit.sealing import seal_all
from controlplane.common.clock import now
from controlplane.tenancy.models import Organisation, User
from controlplane.tenancy.types import Role
from tests.frontend.api.conftest import Api
from tests.frontend.pages.foreign import contents

ApiOf = Callable[..., Api]


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Any, settings: Any) -> None:
    settings.CONFIG = settings.CONFIG.model_copy(update={"state_dir": tmp_path / "state"})


@pytest.fixture
def auditor(make_person: Callable[..., User], northwind: Organisation) -> User:
    return make_person("Petra", northwind, Role.AUDITOR)


@pytest.fixture
def sealed(alice_api: Api, mission: Any) -> None:
    """A trail of two entries."""
    alice_api.post(f"missions/{mission.pk}:pause", {"reason": "Quarter end"})
    alice_api.post(f"missions/{mission.pk}:resume")
    seal_all()


def whole(answer: Any) -> bytes:
    return b"".join(answer)


@pytest.mark.usefixtures("sealed")
def test_an_export_is_asked_for_once_and_every_download_is_recorded(api_of: ApiOf, auditor: User) -> None:
    api = api_of(auditor)
    asked = api.post("audit-entries:export", key="one")
    assert (asked.status_code, asked.json()["state"]) == (202, "ready"), asked.content
    assert api.post("audit-entries:export", key="one").json() == asked.json()
    job = asked.json()["id"]
    assert (asked.json()["first"], asked.json()["last"], asked.json()["intact"]) == (1, 2, None)
    assert [item["id"] for item in api.get("audit-exports").json()["items"]] == [job]
    assert api.get(f"audit-jobs/{job}").json() == asked.json()
    file = api.get(f"audit-jobs/{job}/file")
    assert (file.status_code, file["Content-Type"]) == (200, "application/zip")
    assert f"remit-audit-{job}.zip" in file["Content-Disposition"]
    assert file["Cache-Control"] == "no-store"
    with zipfile.ZipFile(io.BytesIO(whole(file))) as archive:
        assert archive.testzip() is None
        assert "manifest.json" in archive.namelist()
    whole(api.get(f"audit-jobs/{job}/file"))
    events = Entry.objects.filter(event__startswith="audit.export").order_by("id").values_list("event", "actor_id")
    assert list(events) == [
        ("audit.export_asked", auditor.pk),
        ("audit.export_downloaded", auditor.pk),
        ("audit.export_downloaded", auditor.pk),
    ]


@pytest.mark.usefixtures("sealed")
def test_part_of_the_trail_is_exported_between_two_moments(api_of: ApiOf, auditor: User) -> None:
    api = api_of(auditor)
    second = Entry.objects.order_by("id")[1].at.isoformat()
    part = api.post("audit-entries:export", {"start": second})
    assert (part.json()["first"], part.json()["last"]) == (2, 2)
    before = contents()
    for body, pointer in (
        ({"start": (now() + timedelta(days=1)).isoformat()}, "/start"),
        ({"start": "yesterday"}, "/start"),
        ({"end": 7}, "/end"),
    ):
        answer = api.post("audit-entries:export", body)
        assert answer.status_code == 422, body
        assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]
    assert contents() == before


@pytest.mark.usefixtures("sealed")
def test_nobody_else_asks_for_an_export_or_gets_its_file(
    api_of: ApiOf, auditor: User, alice_api: Api, charlie_api: Api, finn: User, dana: User
) -> None:
    job = api_of(auditor).post("audit-entries:export").json()["id"]
    readers = {"finance": api_of(finn), "approver": api_of(dana)}
    for api in (alice_api, charlie_api, *readers.values()):
        api.get("me")
    before = contents()
    for who, api in readers.items():  # they read the trail, and take no copy of it away
        assert api.get(f"audit-jobs/{job}").status_code == 404, who
        for answer in (api.get(f"audit-jobs/{job}/file"), api.get("audit-exports"), api.post("audit-entries:export")):
            assert (answer.status_code, answer.json()["code"]) == (403, "permission.denied"), who
    assert alice_api.get(f"audit-jobs/{job}/file").status_code == 403
    for path in (f"audit-jobs/{job}", f"audit-jobs/{job}/file"):
        assert charlie_api.get(path).status_code == 404
    assert charlie_api.get("audit-exports").json()["items"] == []
    assert contents() == before


@pytest.mark.usefixtures("sealed")
def test_a_check_has_no_file_and_an_export_none_after_its_time(api_of: ApiOf, auditor: User) -> None:
    api = api_of(auditor)
    check = api.post("audit-entries:verify").json()["id"]
    assert api.get(f"audit-jobs/{check}/file").status_code == 404
    job = api.post("audit-entries:export").json()["id"]
    Job.objects.filter(pk=job).update(expires_at=now() - timedelta(seconds=1))
    before = contents()
    gone = api.get(f"audit-jobs/{job}/file")
    assert (gone.status_code, gone.json()["code"]) == (410, "audit.export_gone")
    assert gone.json()["remedies"]
    assert contents() == before


def test_a_trail_without_sealed_entries_says_when_to_come_back(api_of: ApiOf, auditor: User) -> None:
    api = api_of(auditor)
    api.get("me")
    before = contents()
    answer = api.post("audit-entries:export")
    assert (answer.status_code, answer.json()["code"]) == (409, "audit.nothing_to_export")
    assert contents() == before
