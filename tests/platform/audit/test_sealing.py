"""Every committed entry gets exactly one place, whoever seals, however late it commits, whatever dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from django.db import connection, connections, transaction

from controlplane.audit import sealing, selectors, services
from controlplane.audit.events import Event
from controlplane.audit.models import Entry, Seal, Unsealed
from controlplane.audit.sealing import seal_all, seal_batch
from controlplane.audit.services import Subject
from controlplane.audit.tasks import seal
from controlplane.audit.verification import verify_organisation
from controlplane.common.ids import new_id
from controlplane.tenancy.models import Organisation
from controlplane.tenancy.types import system_principal

ROOT = Path(__file__).resolve().parents[3]


def sequences(organisation: Organisation) -> list[int]:
    return list(Seal.objects.filter(organisation=organisation).order_by("sequence").values_list("sequence", flat=True))


def write(organisation: Organisation, count: int) -> None:
    for number in range(count):
        with transaction.atomic():
            services.record(
                event=Event.MISSION_PAUSED,
                actor=system_principal(organisation_id=organisation.pk),
                subject=Subject(type="mission", id=new_id(), name="Invoices"),
                payload={"reason": f"number {number}"},
            )


def test_entries_are_numbered_in_order_without_gaps(record, northwind) -> None:
    written = [record(reason=f"{number}").pk for number in range(5)]
    assert seal.run() == 5
    assert list(Seal.objects.order_by("sequence").values_list("entry_id", flat=True)) == written
    assert sequences(northwind) == [1, 2, 3, 4, 5]
    assert not Unsealed.objects.exists()
    assert verify_organisation(organisation_id=northwind.pk).intact


def test_nothing_to_do_costs_one_query(northwind, django_assert_num_queries) -> None:
    with django_assert_num_queries(1):
        assert seal_all() == 0


def test_more_than_a_batch_is_sealed_in_one_call(record, northwind, monkeypatch) -> None:
    for _ in range(7):
        record()
    monkeypatch.setattr(sealing.seal_batch, "__kwdefaults__", {"batch": 3})
    assert seal_all() == 7
    assert sequences(northwind) == list(range(1, 8))


def test_rows_written_in_bulk_are_sealed_too(northwind) -> None:
    actor = system_principal(organisation_id=northwind.pk)
    subject = Subject(type="mission", id=new_id(), name="Invoices")
    Entry.objects.bulk_create(
        [Entry(**services.row(event=Event.MISSION_STARTED, actor=actor, subject=subject)) for _ in range(4)]
    )
    assert seal_all() == 4
    assert verify_organisation(organisation_id=northwind.pk).intact


def test_each_organisation_has_its_own_chain(northwind, elsewhere) -> None:
    write(northwind, 3)
    write(elsewhere, 2)
    seal_all()
    assert sequences(northwind) == [1, 2, 3]
    assert sequences(elsewhere) == [1, 2]
    heads = {verify_organisation(organisation_id=item.pk).head for item in (northwind, elsewhere)}
    assert len(heads) == 2


@pytest.mark.django_db(transaction=True)
def test_an_entry_that_commits_late_is_sealed_late_and_not_lost(northwind) -> None:
    began, may_commit = threading.Event(), threading.Event()

    def slow_writer() -> None:
        try:
            with transaction.atomic():
                services.record(
                    event=Event.MISSION_STARTED,
                    actor=system_principal(organisation_id=northwind.pk),
                    subject=Subject(type="mission", id=new_id(), name="Slow"),
                )
                began.set()
                assert may_commit.wait(20)
        finally:
            connections.close_all()

    writer = threading.Thread(target=slow_writer)
    writer.start()
    assert began.wait(20)
    write(northwind, 2)
    assert seal_all() == 2
    may_commit.set()
    writer.join(20)
    assert seal_all() == 1
    late = Entry.objects.get(subject_name="Slow")
    assert late.pk == min(Entry.objects.values_list("pk", flat=True))
    assert Seal.objects.get(entry=late).sequence == 3
    assert verify_organisation(organisation_id=northwind.pk).intact


@pytest.mark.django_db(transaction=True)
def test_eight_sealers_and_four_writers_at_once_make_one_chain(northwind, elsewhere) -> None:
    failures: list[BaseException] = []
    writing = threading.Event()
    writing.set()

    def guarded(work) -> None:
        try:
            work()
        except BaseException as error:
            failures.append(error)
        finally:
            connections.close_all()

    def sealing_until_done() -> None:
        while writing.is_set():
            seal_batch(organisation_id=northwind.pk, batch=7)
            seal_batch(organisation_id=elsewhere.pk, batch=7)

    sealers = [threading.Thread(target=guarded, args=[sealing_until_done]) for _ in range(3)]
    writers = [
        threading.Thread(target=guarded, args=[lambda item=item: write(item, 40)])
        for item in (northwind, northwind, elsewhere)
    ]
    for thread in sealers + writers:
        thread.start()
    for thread in writers:
        thread.join(60)
    writing.clear()
    for thread in sealers:
        thread.join(60)
    seal_all()
    assert not failures
    assert sequences(northwind) == list(range(1, 81))
    assert sequences(elsewhere) == list(range(1, 41))
    assert verify_organisation(organisation_id=northwind.pk).intact
    assert verify_organisation(organisation_id=elsewhere.pk).intact


@pytest.mark.django_db(transaction=True)
def test_while_one_sealer_is_at_it_another_leaves_the_organisation_alone(northwind) -> None:
    write(northwind, 1)
    holding, done = threading.Event(), threading.Event()

    def hold() -> None:
        try:
            with transaction.atomic(), connection.cursor() as cursor:
                cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"audit.seal:{northwind.pk}"])
                holding.set()
                assert done.wait(20)
        finally:
            connections.close_all()

    other = threading.Thread(target=hold)
    other.start()
    assert holding.wait(20)
    assert seal_batch(organisation_id=northwind.pk) == 0
    done.set()
    other.join(20)
    assert seal_batch(organisation_id=northwind.pk) == 1


@pytest.mark.django_db(transaction=True)
def test_a_sealer_killed_mid_batch_leaves_nothing_half_done(northwind) -> None:
    write(northwind, 300)
    program = (
        "import django, uuid; django.setup()\n"
        "from controlplane.audit.sealing import seal_batch\n"
        "print('ready', flush=True)\n"
        f"while seal_batch(organisation_id=uuid.UUID('{northwind.pk}'), batch=2): pass\n"
    )
    settings = connection.settings_dict
    url = f"postgresql:///{settings['NAME']}?host={settings['HOST']}&user={settings['USER']}&port={settings['PORT']}"
    environment = {**os.environ, "DATABASE_URL": url, "PYTHONPATH": os.pathsep.join(sys.path)}
    child = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, env=environment, cwd=ROOT)
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        deadline = time.monotonic() + 30
        while not Seal.objects.exists() and time.monotonic() < deadline:
            time.sleep(0.002)
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait(20)
        child.stdout.close()
    before = Seal.objects.count()
    assert before > 0
    deadline = time.monotonic() + 30  # the server notices the dead client and lets its lock go
    while Unsealed.objects.exists() and time.monotonic() < deadline:
        seal_all()
    assert sequences(northwind) == list(range(1, 301))
    assert verify_organisation(organisation_id=northwind.pk).intact


def test_the_lag_is_the_age_of_the_oldest_entry_not_sealed(record, northwind, elsewhere) -> None:
    assert selectors.sealer_lag_seconds(northwind.pk) == 0
    record()
    assert selectors.sealer_lag_seconds(northwind.pk) > 0
    assert selectors.sealer_lag_seconds(elsewhere.pk) == 0
    seal_all()
    assert selectors.sealer_lag_seconds(northwind.pk) == 0
