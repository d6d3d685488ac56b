"""The audit page's proof: checking with progress, exporting, erasing; who may, and what a refusal leaves."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as configured
from django.db import connection
from django.test import Client
from django.urls import reverse

from agents.models import Agent
from controlplane.audit import jobs, selectors, tasks, verification
from controlplane.audit.checkpoints import sign_heads
from controlplane.audit.erasure import pseudonym_of
from controlplane.audit.models import Entry, Job, JobState
from controlplane.audit.sealing import seal_all
from controlplane.common.clock import now
from controlplane.common.errors import RemitError
from controlplane.tenancy import members
from controlplane.tenancy.models import User
from controlplane.tenancy.types import Role

SignIn = Callable[..., Client]


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, settings: Any) -> None:
    settings.CONFIG = settings.CONFIG.model_copy(update={"state_dir": tmp_path / "state"})


@pytest.fixture
def auditor(make_person: Callable[..., User], northwind: Any) -> User:
    return make_person("Petra", northwind, Role.AUDITOR)


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slices of one stretch of five entries: whatever takes long on a page."""
    monkeypatch.setattr(verification, "STRETCH", 5)
    monkeypatch.setattr(jobs.exporting, "PART_ENTRIES", 5)
    monkeypatch.setattr("frontend.views.audit_proof.AT_ONCE_SECONDS", 0.0)


def sentences(browser: Client, query: str) -> list[str]:
    return [line.sentence for line in browser.get(reverse("audit") + query).context["lines"]]


def test_filters_by_person_agent_mission_and_kind_stand_in_the_address(
    busy: Any, dana: User, bob: User, signed_in: SignIn
) -> None:
    browser = signed_in(dana)
    by_bob = sentences(browser, f"?person={bob.pk}")
    assert by_bob
    assert all("Bob" in said for said in by_bob)
    agent = Agent.objects.get(pk=busy.agent.pk)
    by_agent = sentences(browser, f"?agent={agent.pk}&event=action.*")
    assert by_agent
    assert all(agent.name in said or "succeeded" in said for said in by_agent)
    of_mission = browser.get(reverse("audit") + f"?mission={busy.mission.pk}&event=mission.*")
    assert {line.entry.event.split(".")[0] for line in of_mission.context["lines"]} == {"mission"}
    html = of_mission.content.decode()
    assert f'value="{busy.mission.pk}" selected' in html
    assert 'value="mission.*" selected' in html
    assert sentences(browser, "?person=nonsense&agent=nonsense&event=drop.*") == sentences(browser, "")
    csv = b"".join(browser.get(reverse("audit") + f"?person={bob.pk}&format=csv")).decode()
    assert len(csv.splitlines()) == len(by_bob) + 1


def test_a_search_denies_no_older_entry_that_it_has_not_looked_at(
    nadia: User, as_nadia: Any, signed_in: SignIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selectors, "SEARCHED", 3)
    for name in ("Rarities", "Two", "Three", "Four", "Five", "Six", "Seven"):
        members.add_team(principal=as_nadia, name=name)
    browser, path, pages = signed_in(nadia), reverse("audit") + "?q=rarities", []
    for _ in range(3):
        html = browser.get(path).content.decode()
        pages.append(html)
        links = re.findall(r'href="([^"]*cursor=[^"]+)"[^>]*>(?:Look further back|Older)', html)
        path = reverse("audit") + links[0].replace("&amp;", "&") if links else ""
    for html in pages[:2]:
        assert "Nothing so far" in html
        assert "Looked at 3 entries, back to" in html
        assert "No entry fits" not in html
    assert "Nadia" in pages[2]
    assert "Looked at" not in pages[2]
    assert not path
    csv = b"".join(browser.get(reverse("audit") + "?q=rarities&format=csv")).decode()
    assert "Rarities" in csv
    assert "No entry fits these filters" in browser.get(reverse("audit") + "?event=stop.made&q=two").content.decode()


def test_a_long_check_shows_its_progress_and_goes_on_in_the_worker(
    busy: Any, dana: User, signed_in: SignIn, slow: None
) -> None:
    seal_all()
    browser = signed_in(dana)
    seal_all()
    html = browser.post(reverse("audit-verify")).content.decode()
    job = Job.objects.get()
    assert f"5 of {job.total} entries checked" in html
    assert reverse("audit-job", args=[job.pk]) in html
    browser.post(reverse("audit-verify"))
    assert Job.objects.count() == 1, "a second click joins the check that runs"
    while not jobs.work(job_id=job.pk, seconds=0.0):
        assert "entries checked" in browser.get(reverse("audit-job", args=[job.pk])).content.decode()
    html = browser.get(reverse("audit-job", args=[job.pk])).content.decode()
    assert "Intact" in html
    assert "hx-trigger" not in html.split('id="verification"')[1].split(">")[0]
    job.refresh_from_db()
    assert (job.state, job.position) == (JobState.READY, job.last)


def test_a_job_whose_worker_died_is_taken_up_by_the_sweep(busy: Any, dana: User, signed_in: SignIn, slow: None) -> None:
    seal_all()
    signed_in(dana).post(reverse("audit-verify"))
    job = Job.objects.get()
    Job.objects.update(lease_until=now() + timedelta(seconds=30))
    assert jobs.work(job_id=job.pk), "somebody else holds it"
    assert tasks.sweep_jobs.run() == 0
    Job.objects.update(lease_until=now() - timedelta(seconds=1))
    assert tasks.sweep_jobs.run() == 1
    assert Job.objects.get().state == JobState.READY


def test_an_auditor_exports_downloads_and_anybody_can_check_it(
    busy: Any, auditor: User, signed_in: SignIn, tmp_path: Path, slow: None
) -> None:
    browser = signed_in(auditor)
    seal_all()
    sign_heads()
    assert browser.post(reverse("audit-exports")).status_code == 302
    job = Job.objects.get()
    html = browser.get(reverse("audit-exports")).content.decode()
    assert f"5 of {job.total}" in html
    assert browser.get(reverse("audit-download", args=[job.pk])).status_code == 404, "not before it is whole"
    while not jobs.work(job_id=job.pk, seconds=0.0):
        pass
    html = browser.get(reverse("audit-exports")).content.decode()
    assert reverse("audit-download", args=[job.pk]) in html
    response = browser.get(reverse("audit-download", args=[job.pk]))
    assert response["Content-Disposition"].startswith("attachment")
    assert "no-store" in response["Cache-Control"]
    archive = zipfile.ZipFile(io.BytesIO(b"".join(response)))
    assert len([name for name in archive.namelist() if name.startswith("entries-")]) > 2
    archive.extractall(tmp_path / "export")
    done = subprocess.run(
        [sys.executable, "-I", "verify.py", ".", "--json"], capture_output=True, text=True, cwd=tmp_path / "export"
    )
    found = json.loads(done.stdout)
    assert (found["intact"], found["entries"]) == (True, job.total), found
    assert found["keys"][0] in html
    told = list(Entry.objects.filter(event__startswith="audit.").order_by("pk").values_list("event", "actor_name"))
    assert told == [("audit.export_asked", "Petra"), ("audit.export_downloaded", "Petra")]


def test_an_export_begun_by_a_worker_that_died_is_begun_again(
    busy: Any, auditor: User, signed_in: SignIn, slow: None
) -> None:
    seal_all()
    signed_in(auditor).post(reverse("audit-exports"))
    job = Job.objects.get()
    unfinished = configured.CONFIG.state_dir / "audit_exports" / f"{job.pk}.unfinished"
    unfinished.write_bytes(unfinished.read_bytes()[:-40])
    while not jobs.work(job_id=job.pk, seconds=0.0):
        pass
    assert Job.objects.get().state == JobState.READY
    assert not unfinished.exists()


def test_after_its_time_an_export_is_gone_and_says_so(busy: Any, auditor: User, signed_in: SignIn) -> None:
    browser = signed_in(auditor)
    seal_all()
    browser.post(reverse("audit-exports"))
    job = Job.objects.get()
    assert job.state == JobState.READY
    Job.objects.update(expires_at=now() - timedelta(seconds=1))
    assert browser.get(reverse("audit-download", args=[job.pk])).status_code == 410
    tasks.sweep_jobs.run()
    assert not list((configured.CONFIG.state_dir / "audit_exports").iterdir())
    assert "Removed" in browser.get(reverse("audit-exports")).content.decode()
    assert browser.get(reverse("audit-download", args=[job.pk])).status_code == 410


@pytest.mark.parametrize(
    "body",
    [{"from": "2020-02-31"}, {"from": "x" * 5000}, {"from": "2999-01-01"}, {"from": "2026-01-02", "to": "2020-01-01"}],
)
def test_an_odd_range_is_refused_by_name_and_nothing_starts(
    body: dict[str, str], busy: Any, auditor: User, signed_in: SignIn
) -> None:
    seal_all()
    response = signed_in(auditor).post(reverse("audit-exports"), body)
    assert response.status_code == 422
    assert b'role="alert"' in response.content
    assert not Job.objects.exists()


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"from": "2998-12-20"}, "from 20 December 2998 on"),
        ({"from": "2998-12-20", "to": "2998-12-24"}, "from 20 December 2998 on"),
        ({"to": "2020-02-29"}, "until 29 February 2020"),
        ({"from": "2020-03-01", "to": "2020-02-29"}, "from 1 March 2020 to 29 February 2020"),
    ],
)
def test_days_without_entries_are_named_as_the_days_that_were_given(
    body: dict[str, str], said: str, busy: Any, auditor: User, signed_in: SignIn
) -> None:
    seal_all()
    html = signed_in(auditor).post(reverse("audit-exports"), body).content.decode()
    day = f"{now().day} {now():%B %Y}"
    assert f"There are no entries {said}; the trail goes from {day} to {day}." in html
    field = "export-from-error" if "from" in body else "export-to-error"
    assert "Within the trail, the end not before the start." in html.split(field)[2]
    assert not Job.objects.exists()


def test_only_auditors_and_administrators_export(
    busy: Any,
    auditor: User,
    nadia: User,
    alice: User,
    bob: User,
    dana: User,
    finn: User,
    charlie: User,
    signed_in: SignIn,
) -> None:
    seal_all()
    signed_in(auditor).post(reverse("audit-exports"))
    job = Job.objects.get()
    before = Entry.objects.count()
    for person in (alice, bob, dana, finn):
        browser = signed_in(person)
        assert browser.post(reverse("audit-exports")).status_code == 403
        assert browser.get(reverse("audit-exports")).status_code == 403
        assert browser.get(reverse("audit-download", args=[job.pk])).status_code == 403
        assert "Export with proof" not in signed_in(dana).get(reverse("audit")).content.decode()
    stranger = signed_in(charlie)
    assert stranger.get(reverse("audit-download", args=[job.pk])).status_code == 404
    assert stranger.get(reverse("audit-job", args=[job.pk])).status_code == 404
    assert str(job.pk) not in stranger.get(reverse("audit-exports")).content.decode()
    assert Job.objects.count() == 1
    assert not Entry.objects.filter(event="audit.export_downloaded").exists()
    assert Entry.objects.filter(organisation=busy.organisation).count() >= before
    assert signed_in(nadia).get(reverse("audit-download", args=[job.pk])).status_code == 200


def test_every_page_warns_when_the_trail_is_not_the_signed_one(busy: Any, dana: User, signed_in: SignIn) -> None:
    seal_all()
    sign_heads()
    browser = signed_in(dana)
    assert "not the one Remit signed" not in browser.get(reverse("audit")).content.decode()
    from django.core.cache import cache

    cache.clear()
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        cursor.execute("ALTER TABLE audit_seal DISABLE TRIGGER USER")
        cursor.execute("DELETE FROM audit_seal WHERE sequence > 3")
        cursor.execute("ALTER TABLE audit_seal ENABLE TRIGGER USER")
    assert "not the one Remit signed" in browser.get(reverse("audit")).content.decode()
    html = browser.post(reverse("audit-verify")).content.decode()
    assert "A signed checkpoint is not in the chain" in html


def test_an_administrator_erases_a_person_after_reading_what_stays(
    busy: Any, bob: User, nadia: User, signed_in: SignIn
) -> None:
    browser, path = signed_in(nadia), reverse("person-erase", args=[bob.pk])
    html = browser.get(path).content.decode()
    assert "What stays" in html
    assert "exports and backups" in html
    response = browser.post(path, {})
    assert (response.status_code, User.objects.get(pk=bob.pk).name) == (422, "Bob")
    html = browser.post(path, {"sure": "yes"}).content.decode()
    assert "Erased" in html
    assert User.objects.get(pk=bob.pk).name.startswith("Erased person")
    entry = Entry.objects.get(event="person.erased")
    assert "Erase this person" not in browser.get(reverse("audit-entry", args=[entry.pk])).content.decode()
    log = browser.get(reverse("audit")).content.decode()
    assert "erased the personal data of Erased person" in log
    assert "Bob refused" not in log
    seal_all()
    assert "Intact" in browser.post(reverse("audit-verify")).content.decode()


def test_who_calls_themselves_what_an_erasure_would_call_them_is_erased_as_well(
    busy: Any, bob: User, nadia: User, signed_in: SignIn
) -> None:
    User.objects.filter(pk=bob.pk).update(name=pseudonym_of(bob.pk))
    browser, path = signed_in(nadia), reverse("person-erase", args=[bob.pk])
    assert "What stays" in browser.get(path).content.decode()
    browser.post(path, {"sure": "yes"})
    assert browser.get(path).status_code == 302
    assert not User.objects.get(pk=bob.pk).is_active


def test_others_cannot_erase_and_nothing_changes(
    busy: Any, alice: User, bob: User, dana: User, finn: User, charlie: User, nadia: User, signed_in: SignIn
) -> None:
    path = reverse("person-erase", args=[bob.pk])
    for person in (alice, dana, finn):
        assert signed_in(person).post(path, {"sure": "yes"}).status_code == 403
    assert signed_in(charlie).post(path, {"sure": "yes"}).status_code == 404
    assert signed_in(nadia).post(reverse("person-erase", args=[nadia.pk]), {"sure": "yes"}).status_code == 409
    assert signed_in(nadia, enforce_csrf=True).post(path, {"sure": "yes"}).status_code == 403
    assert User.objects.get(pk=bob.pk).name == "Bob"


def test_a_credential_an_agent_sends_reaches_the_tool_and_never_the_trail(busy: Any) -> None:
    secret = "Hunter2-Zk3vQ9sPw2xLr7Yt"
    busy.act(
        "books__write_reminder",
        f"done; token={secret}",
        "failure",
        invoice="INV-0118",
        subject=f"password: {secret}",
        body=f"Authorization: Bearer {secret}",
    )
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM audit_entry e WHERE e::text LIKE %s", [f"%{secret}%"])
        assert cursor.fetchone()[0] == 0


def test_a_job_of_another_kind_or_nobodys_is_not_found(as_dana: Any, nobody: Any) -> None:
    with pytest.raises(RemitError):
        jobs.seen_by(principal=as_dana, job_id=nobody)
    with pytest.raises(RemitError):
        jobs.file_of(principal=as_dana, job_id=nobody)
