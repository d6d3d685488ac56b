"""The tables refuse to be changed, by raw SQL and as their owner."""

from __future__ import annotations

import pytest
from django.db import DatabaseError, connection, transaction
from psycopg.errors import InsufficientPrivilege, OperationalError

from controlplane.audit import services
from controlplane.audit.events import Event
from controlplane.audit.models import Entry, Seal
from controlplane.audit.sealing import seal_all
from controlplane.audit.services import Subject
from controlplane.common.ids import new_id
from controlplane.tenancy.types import system_principal


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit_entry SET actor_name = 'Somebody else'",
        "UPDATE audit_entry SET payload = '{}'",
        "DELETE FROM audit_entry",
        "TRUNCATE audit_entry CASCADE",
        "UPDATE audit_seal SET sequence = sequence + 1",
        "DELETE FROM audit_seal",
        "TRUNCATE audit_seal",
        "INSERT INTO audit_entry SELECT * FROM audit_entry ON CONFLICT (id) DO UPDATE SET actor_name = 'x'",
        "MERGE INTO audit_entry e USING audit_seal s ON s.entry_id = e.id WHEN MATCHED THEN DELETE",
    ],
)
def test_the_database_refuses(statement: str, record) -> None:
    entry = record(reason="lunch")
    seal_all()
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")  # else TRUNCATE is refused for this test's own pending checks
    with pytest.raises(DatabaseError, match="append-only"), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(statement)
    kept = Entry.objects.get()
    assert (kept.actor_name, kept.payload) == (entry.actor_name, {"reason": "lunch"})
    assert Seal.objects.get().sequence == 1


@pytest.mark.django_db
@pytest.mark.parametrize("statement", ["UPDATE audit_entry SET payload = '{}'", "DELETE FROM audit_entry"])
def test_the_database_refuses_also_on_a_connection_that_erased_before(statement: str, record) -> None:
    record(reason="lunch")
    with connection.cursor() as cursor:
        cursor.execute("SELECT set_config('remit.erasure', '', false)")
    with pytest.raises(DatabaseError, match="append-only"), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(statement)
    assert Entry.objects.get().payload == {"reason": "lunch"}


@pytest.mark.django_db
def test_an_application_role_that_does_not_own_the_tables_cannot_switch_the_triggers_off() -> None:
    """The grants of docs/audit.md, made and tried by a superuser inside a transaction that is rolled back."""
    parameters = {**connection.get_connection_params(), "user": "postgres"}
    try:
        superuser = connection.Database.connect(**{key: parameters[key] for key in ("dbname", "user", "host")})
    except OperationalError:
        pytest.skip("the server of these tests has no superuser “postgres” that may connect")
    with superuser:
        superuser.execute("CREATE ROLE remit_application")
        superuser.execute("GRANT USAGE ON SCHEMA public TO remit_application")
        superuser.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO remit_application")
        superuser.execute(
            "REVOKE UPDATE, DELETE, TRUNCATE ON audit_entry, audit_seal, audit_checkpoint, audit_restatement"
            " FROM remit_application"
        )
        superuser.execute("SET ROLE remit_application")
        for statement in (
            "ALTER TABLE audit_entry DISABLE TRIGGER ALL",
            "DROP TRIGGER audit_seal_append_only ON audit_seal",
            "SET session_replication_role = 'replica'",
            "DELETE FROM audit_entry",
            "UPDATE audit_seal SET sequence = 1",
            "TRUNCATE audit_entry CASCADE",
            "UPDATE audit_checkpoint SET sequence = 1",
            "DELETE FROM audit_restatement",
            "CREATE OR REPLACE FUNCTION audit_entry_guard() RETURNS trigger LANGUAGE plpgsql AS ''",
        ):
            with pytest.raises(InsufficientPrivilege), superuser.transaction():
                superuser.execute(statement)
        superuser.execute("SELECT 1 FROM audit_entry")
        superuser.rollback()


@pytest.mark.django_db(transaction=True)
def test_an_entry_outside_a_transaction_is_refused(northwind) -> None:
    with pytest.raises(RuntimeError, match="outside a transaction"):
        services.record(
            event=Event.MISSION_STARTED,
            actor=system_principal(organisation_id=northwind.pk),
            subject=Subject(type="mission", id=new_id(), name="Invoices"),
        )
    assert not Entry.objects.exists()
