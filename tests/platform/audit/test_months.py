"""The trail by month: made of the table there was, kept ahead, found whole, and guarded in each of its parts."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
from django.db import DatabaseError, connection, connections, transaction

from controlplane.audit import tasks
from controlplane.audit.models import Entry, Seal
from controlplane.audit.sealing import seal_all
from controlplane.audit.verification import verify_organisation
from controlplane.common.ids import first_id, new_id
from controlplane.tenancy.models import Organisation

ROOT = Path(__file__).resolve().parents[3]
AHEAD = 5 * 366
ENTRY = """
INSERT INTO audit_entry (id, organisation_id, at, event, actor_kind, actor_id, actor_name, subject_type, subject_id,
    subject_name, payload, payload_sha256, trace_id)
VALUES (%(id)s, %(organisation)s, now(), 'mission.paused', 'system', %(id)s, 'Remit', 'mission', %(id)s, 'One', '{}',
    '', '')
"""
SEAL = """
INSERT INTO audit_seal (organisation_id, sequence, entry_id, chain_sha256, sealed_at)
SELECT %s, count(*) + 1, %s, '', now() FROM audit_seal
"""
COLUMNS = """
SELECT attname, atttypid::regtype::text, attnotnull, pg_get_expr(adbin, adrelid) FROM pg_attribute
LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
WHERE attrelid = 'audit_entry'::regclass AND attnum > 0 ORDER BY attnum
"""


def months() -> set[str]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'audit_entry'::regclass")
        return {name for (name,) in cursor.fetchall()}


def month_of(entry: Entry) -> str:
    with connection.cursor() as cursor:
        cursor.execute("SELECT tableoid::regclass::text FROM audit_entry WHERE id = %s", [entry.pk])
        return str(cursor.fetchone()[0])


def month_name(moment: datetime) -> str:
    return f"audit_entry_{moment:%Y_%m}"


def made_at(entry: Entry, moment: datetime) -> Entry:
    """The same entry, written by a clock that shows this moment."""
    identifier = first_id(moment)
    with transaction.atomic():
        Entry.objects.bulk_create([Entry(**{**values_of(entry), "id": identifier, "at": moment})])
    return Entry.objects.get(pk=identifier)


def values_of(entry: Entry) -> dict[str, Any]:
    return {field.attname: getattr(entry, field.attname) for field in Entry._meta.concrete_fields}


@pytest.mark.django_db
def test_an_entry_is_written_into_its_month_and_the_chain_over_all_of_them_verifies(
    record: Callable[..., Entry], northwind: Organisation
) -> None:
    today = datetime.now(UTC)
    next_month = (today.replace(day=1) + timedelta(days=40)).replace(day=3)
    first, later = record(reason="lunch"), made_at(record(reason="tea"), next_month)
    beyond = made_at(first, today + timedelta(days=AHEAD))
    assert (month_of(first), month_of(later)) == (month_name(today), month_name(next_month))
    assert month_of(beyond) == "audit_entry_default"
    seal_all()
    assert Seal.objects.count() == Entry.objects.count()
    assert verify_organisation(organisation_id=northwind.pk).intact
    listed = Entry.objects.filter(organisation=northwind).order_by("-id").values_list("pk", flat=True)
    assert [listed[0], listed[1]] == [beyond.pk, later.pk]


@pytest.mark.django_db
def test_months_are_made_ahead_and_again_changes_nothing(record: Callable[..., Entry]) -> None:
    assert {month_name(datetime.now(UTC)), "audit_entry_default"} < months()
    assert tasks.make_months() == 0
    far = datetime.now(UTC) + timedelta(days=AHEAD)
    made_at(record(), far)
    with connection.cursor() as cursor:
        cursor.execute("SELECT audit_make_partitions(1, %s)", [far])
        assert cursor.fetchone() == (1,)  # what was written before its month had a table stays where it is
    assert month_name(far) not in months()
    assert Entry.objects.filter(pk=first_id(far)).exists()


@pytest.mark.django_db(transaction=True)
def test_workers_may_race_to_make_a_month() -> None:
    made: list[int] = []
    gate = threading.Barrier(4)

    def make() -> None:
        gate.wait()
        with connection.cursor() as cursor:
            cursor.execute("SELECT audit_make_partitions(2, '2199-01-15')")
            made.append(cursor.fetchone()[0])
        connections.close_all()

    threads = [threading.Thread(target=make) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    try:
        assert sorted(made) == [0, 0, 0, 3]
    finally:
        with connection.cursor() as cursor:
            for name in ("audit_entry_2199_01", "audit_entry_2199_02", "audit_entry_2199_03"):
                cursor.execute(f"ALTER TABLE audit_entry DETACH PARTITION {name}")
                cursor.execute(f"DROP TABLE {name}")


@pytest.mark.parametrize("statement", ["UPDATE {} SET actor_name = 'x'", "DELETE FROM {}", "TRUNCATE {} CASCADE"])
def test_a_month_is_as_append_only_as_the_whole(statement: str, record: Callable[..., Entry]) -> None:
    kept = record(reason="lunch")
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
    for name in (month_of(kept), "audit_entry_default", month_name(datetime.now(UTC) + timedelta(days=60))):
        if name != month_of(kept) and not statement.startswith("TRUNCATE"):
            continue  # an empty month has no row to refuse
        with pytest.raises(DatabaseError, match="append-only"), transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(statement.format(name))
    assert Entry.objects.get().payload == {"reason": "lunch"}


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("make", "table"), [("audit_make_partitions", "audit_entry"), ("budgets_make_partitions", "budgets_journal")]
)
def test_a_role_that_owns_no_table_keeps_months_ahead_and_reaches_none_of_them(make: str, table: str) -> None:
    parameters = {**connection.get_connection_params(), "user": "postgres"}
    try:
        superuser = psycopg.connect(**{key: parameters[key] for key in ("dbname", "user", "host")})
    except psycopg.OperationalError:
        pytest.skip("the server of these tests has no superuser “postgres” that may connect")
    with superuser:
        owner = connection.get_connection_params()["user"]
        superuser.execute("CREATE ROLE remit_application")
        superuser.execute("GRANT USAGE ON SCHEMA public TO remit_application")
        superuser.execute(
            f"ALTER DEFAULT PRIVILEGES FOR ROLE {owner} IN SCHEMA public"
            " GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO remit_application"
        )
        superuser.execute("SET ROLE remit_application")
        assert superuser.execute(f"SELECT {make}(0, '2199-01-15')").fetchone() == (1,)
        for statement in (
            f"DELETE FROM {table}_2199_01",
            f"SELECT 1 FROM {table}_2199_01",
            f"SELECT make_months('{table}', true, 'audit_refuse', 1, now())",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege), superuser.transaction():
                superuser.execute(statement)
        superuser.rollback()


@pytest.fixture
def before() -> Iterator[str]:
    """The address of a database of its own, as it was before entries went by month."""
    name = f"months_{new_id().hex}"
    address = urlsplit(os.environ["DATABASE_URL"])
    with psycopg.connect(address.geturl(), autocommit=True) as maintenance:
        maintenance.execute(f"CREATE DATABASE {name}")
        try:
            url = address._replace(path=f"/{name}").geturl()
            migrate(url, "audit", "0005")
            yield url
        finally:
            maintenance.execute(f"DROP DATABASE {name} WITH (FORCE)")


def migrate(url: str, *target: str) -> None:
    subprocess.run(
        [sys.executable, "manage.py", "migrate", *target, "--skip-checks", "--verbosity", "0"],
        cwd=ROOT,
        env={**os.environ, "DATABASE_URL": url},
        check=True,
        capture_output=True,
    )


def test_the_table_there_was_becomes_the_first_part_with_every_row_and_guard(before: str) -> None:
    today = datetime.now(UTC)
    organisation, ids = new_id(), [first_id(today - timedelta(days=days)) for days in (400, 40, 0)]
    with psycopg.connect(before, autocommit=True) as old:
        old.execute(
            "INSERT INTO tenancy_organisation (id, name, slug, currency, time_zone, sign_off_above, created_at)"
            " VALUES (%s, 'Northwind', 'northwind', 'USD', 'UTC', 5, now())",
            [organisation],
        )
        for identifier in ids:
            old.execute(ENTRY, {"id": identifier, "organisation": organisation})
        old.execute(SEAL, [organisation, ids[0]])
        old.execute("DELETE FROM audit_unsealed WHERE entry_id = %s", [ids[0]])
        rows = old.execute("SELECT * FROM audit_entry ORDER BY id").fetchall()
        table = one(old, "SELECT 'audit_entry'::regclass::oid")
        columns = old.execute(COLUMNS).fetchall()
    migrate(before)
    with psycopg.connect(before, autocommit=True) as new:
        assert new.execute("SELECT * FROM audit_entry ORDER BY id").fetchall() == rows
        assert new.execute(COLUMNS).fetchall() == columns
        assert one(new, "SELECT %s::oid::regclass::text", table) == month_name(today)  # not a row was copied
        for statement in (
            "DELETE FROM audit_entry",
            f"UPDATE {month_name(today)} SET actor_name = 'x'",
            f"TRUNCATE {month_name(today)} CASCADE",
        ):
            with pytest.raises(psycopg.DatabaseError, match="append-only"):
                new.execute(statement)
        with pytest.raises(psycopg.errors.ForeignKeyViolation):
            new.execute(SEAL, [organisation, new_id()])
        with pytest.raises(psycopg.errors.UniqueViolation):
            new.execute(ENTRY, {"id": ids[0], "organisation": organisation})
        later = new_id()
        new.execute(ENTRY, {"id": later, "organisation": organisation})
        unsealed = new.execute("SELECT entry_id FROM audit_unsealed ORDER BY entry_id").fetchall()
        assert unsealed == [(ids[1],), (ids[2],), (later,)]


def one(database: psycopg.Connection[Any], statement: str, *parameters: object) -> object:
    row = database.execute(statement, parameters).fetchone()
    assert row is not None
    return row[0]
