"""Locks that end before the flush: nobody is told before the disk has it, and no other commit becomes less durable."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import psycopg
import pytest
from django.db import DataError, IntegrityError, OperationalError, connection, transaction

from controlplane.common.commits import early_unlock, run_alone
from controlplane.common.ids import new_id
from controlplane.tenancy.models import Organisation, Team

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _durable() -> Iterator[None]:
    """The server of the tests does not wait for its disk; this session does."""
    _run("SET synchronous_commit TO on")
    yield
    connection.close()


@pytest.fixture
def a_flush_that_never_ends() -> Iterator[Callable[[], None]]:
    """A commit waits for a standby that isn't there, until the returned function is called."""

    def end() -> None:
        _reload("ALTER SYSTEM RESET synchronous_standby_names")

    _reload("ALTER SYSTEM SET synchronous_standby_names TO 'nobody'")
    _until(lambda: _run("SHOW synchronous_standby_names") == "nobody")
    time.sleep(0.2)  # the checkpointer has to have seen it too
    try:
        yield end
    finally:
        end()


def _run(sql: str) -> object:
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchone()[0] if cursor.description else None


def _reload(setting: str) -> None:
    parameters = {**connection.get_connection_params(), "user": "postgres"}
    try:
        superuser = psycopg.connect(**{key: parameters[key] for key in ("dbname", "user", "host")}, autocommit=True)
    except psycopg.OperationalError:
        pytest.skip("the server of these tests has no superuser “postgres” that may connect")
    with superuser:
        superuser.execute(setting)
        superuser.execute("SELECT pg_reload_conf()")


def _until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _name(organisation: Organisation) -> str:
    return Organisation.objects.get(pk=organisation.pk).name


@pytest.mark.parametrize(("block", "free"), [(early_unlock, True), (transaction.atomic, False)])
def test_the_row_is_free_while_its_changer_still_waits_for_the_disk(
    block: Callable[[], AbstractContextManager[None]],
    free: bool,
    northwind: Organisation,
    a_flush_that_never_ends: Callable[[], None],
) -> None:
    told, returned = threading.Event(), threading.Event()

    def change() -> None:
        _run("SET synchronous_commit TO on")
        with block():
            Organisation.objects.filter(pk=northwind.pk).update(name="Changed")
            transaction.on_commit(told.set)
        returned.set()
        connection.close()

    changer = threading.Thread(target=change)
    changer.start()
    try:
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
        _until(lambda: _run(waiting) == 1)
        _run("SET synchronous_commit TO off")
        _run("SET lock_timeout TO '100ms'")
        if free:
            assert Organisation.objects.filter(pk=northwind.pk, name="Changed").update(slug="taken-over") == 1
        else:
            with pytest.raises(OperationalError):
                Organisation.objects.filter(pk=northwind.pk).update(slug="taken-over")
        assert not told.is_set()
        assert not returned.is_set()
    finally:
        a_flush_that_never_ends()
        changer.join(10)
    assert told.is_set()
    assert returned.is_set()


def test_who_is_told_after_the_commit_finds_it_on_disk(northwind: Organisation) -> None:
    on_disk: list[object] = []
    with early_unlock():
        Organisation.objects.filter(pk=northwind.pk).update(name="Changed")
        written = _run("SELECT pg_current_wal_insert_lsn()")
        transaction.on_commit(lambda: on_disk.append(_run(f"SELECT pg_current_wal_flush_lsn() > '{written}'")))
        assert on_disk == []
    assert on_disk == [True]


def test_a_replay_is_answered_only_when_what_it_repeats_is_on_disk(northwind: Organisation) -> None:
    _run("SET synchronous_commit TO off")
    Organisation.objects.filter(pk=northwind.pk).update(name="Changed")
    written = _run("SELECT pg_current_wal_insert_lsn()")
    _run("SET synchronous_commit TO on")
    with early_unlock():
        assert _name(northwind) == "Changed"
    assert _run(f"SELECT pg_current_wal_flush_lsn() >= '{written}'")


def test_inside_another_block_the_outer_commit_stays_as_it_was(northwind: Organisation) -> None:
    with transaction.atomic():
        with early_unlock():
            Organisation.objects.filter(pk=northwind.pk).update(name="Changed")
        assert connection.in_atomic_block
        assert _run("SHOW synchronous_commit") == "on"
        transaction.set_rollback(True)
    assert _name(northwind) == "Northwind"


def test_an_inner_failure_undoes_the_inner_block_only(northwind: Organisation) -> None:
    with transaction.atomic():
        with pytest.raises(ValueError, match="no"), early_unlock():  # noqa: PT012
            Organisation.objects.filter(pk=northwind.pk).update(name="Changed")
            raise ValueError("no")
        Organisation.objects.filter(pk=northwind.pk).update(slug="kept")
    assert _name(northwind) == "Northwind"
    assert Organisation.objects.get(pk=northwind.pk).slug == "kept"


def test_the_next_commit_of_the_session_waits_again(northwind: Organisation) -> None:
    with early_unlock():
        Organisation.objects.filter(pk=northwind.pk).update(name="Changed")
    assert _run("SHOW synchronous_commit") == "on"
    assert connection.get_autocommit()
    assert _name(northwind) == "Changed"


def test_an_error_in_the_block_changes_nothing(northwind: Organisation) -> None:
    told: list[bool] = []
    with pytest.raises(ValueError, match="no"), early_unlock():  # noqa: PT012
        Organisation.objects.filter(pk=northwind.pk).update(name="Changed")
        transaction.on_commit(lambda: told.append(True))
        raise ValueError("no")
    assert _name(northwind) == "Northwind"
    assert told == []


def test_a_rollback_that_was_asked_for_changes_nothing(northwind: Organisation) -> None:
    with early_unlock():
        Organisation.objects.filter(pk=northwind.pk).update(name="Changed")
        transaction.set_rollback(True)
    assert _name(northwind) == "Northwind"


def test_a_constraint_that_fails_at_the_commit_is_raised_and_nobody_is_told(northwind: Organisation) -> None:
    told: list[bool] = []
    with pytest.raises(IntegrityError), early_unlock():  # noqa: PT012
        Organisation.objects.filter(pk=northwind.pk).update(name="Changed")
        Team.objects.create(organisation_id=new_id(), name="Nowhere", slug="nowhere")
        transaction.on_commit(lambda: told.append(True))
    assert told == []
    assert _name(northwind) == "Northwind"
    assert _run("SHOW synchronous_commit") == "on"


def test_a_connection_lost_before_the_end_is_an_error_and_nobody_is_told(northwind: Organisation) -> None:
    told: list[bool] = []
    with pytest.raises(OperationalError), early_unlock():  # noqa: PT012
        Organisation.objects.filter(pk=northwind.pk).update(name="Changed")
        transaction.on_commit(lambda: told.append(True))
        process = _run("SELECT pg_backend_pid()")
        killer = threading.Thread(
            target=lambda: (_run(f"SELECT pg_terminate_backend({process}, 5000)"), connection.close())
        )
        killer.start()
        killer.join()
    assert told == []
    connection.close()
    assert _name(northwind) == "Northwind"


def test_a_block_without_a_statement_does_nothing() -> None:
    with early_unlock():
        pass
    assert connection.get_autocommit()


def test_a_statement_alone_is_committed_and_on_disk_in_one_round_trip(
    northwind: Organisation, django_assert_num_queries: Callable[[int], AbstractContextManager[None]]
) -> None:
    with django_assert_num_queries(1):
        ((name, written),) = run_alone(
            "UPDATE tenancy_organisation SET name = %s WHERE id = %s RETURNING name, pg_current_wal_insert_lsn()::text",
            ["Δ", northwind.pk],
        )
    assert name == "Δ"
    # Of this statement alone: others write to the same log meanwhile.
    assert _run(f"SELECT pg_current_wal_flush_lsn() >= '{written}'::pg_lsn")
    assert _run("SHOW synchronous_commit") == "on"
    assert _name(northwind) == "Δ"


@pytest.mark.usefixtures("team")
def test_a_statement_alone_that_fails_leaves_the_connection_as_it_was(northwind: Organisation) -> None:
    with pytest.raises(DataError):
        run_alone("UPDATE tenancy_organisation SET name = 'Changed' WHERE 1 / %s = 1 RETURNING 1", [0])
    with pytest.raises(IntegrityError):
        run_alone("UPDATE tenancy_team SET organisation_id = %s RETURNING 1", [None])
    assert connection.get_autocommit()
    assert _name(northwind) == "Northwind"


def test_a_statement_alone_inside_a_block_ends_with_the_block(northwind: Organisation) -> None:
    with transaction.atomic():
        run_alone("UPDATE tenancy_organisation SET name = 'Changed' WHERE id = %s RETURNING 1", [northwind.pk])
        assert _run("SHOW synchronous_commit") == "on"
        transaction.set_rollback(True)
    assert _name(northwind) == "Northwind"
