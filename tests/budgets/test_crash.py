"""The database is killed twenty times under load: what was acknowledged is there, and every sum is right."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import TypeVar

import psycopg
import pytest
from django.db import DEFAULT_DB_ALIAS, InterfaceError, OperationalError, connection, connections
from django.db.backends.postgresql.base import DatabaseWrapper
from pytest_django import DjangoDbBlocker

from budgets import services
from budgets.types import Amounts
from controlplane.common.errors import RemitError
from controlplane.common.ids import new_id
from controlplane.embedded.child import Child
from controlplane.embedded.failures import StartError
from controlplane.embedded.postgres import COMMON, DATABASE, USER, Postgres
from controlplane.embedded.state import StateFolder

ROOT = Path(__file__).resolve().parents[2]
KILLS, CLIENTS, PRICE = 20, 6, Decimal("0.01")
T = TypeVar("T")
LIMIT = Decimal("1000000")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@dataclass
class Server:
    state: StateFolder
    postgres: Postgres
    child: Child

    def start(self) -> None:
        """Again and again while processes of the killed server still hold its shared memory."""
        deadline = time.monotonic() + 60
        while True:
            try:
                self.child.start()
                self.child.wait_ready(seconds=30)
            except StartError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
            else:
                return

    def kill(self) -> None:
        assert self.child.pid is not None
        assert self.child.process is not None
        os.kill(self.child.pid, signal.SIGKILL)
        self.child.process.wait()

    def connect(self) -> psycopg.Connection[tuple[object, ...]]:
        return psycopg.connect(self.postgres.url, autocommit=True, connect_timeout=5)


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    state = StateFolder(tmp_path_factory.mktemp("crash") / "state")
    state.open()
    # fsync matters when the machine dies, not when processes do; synchronous_commit stays on.
    postgres = Postgres(state, {**COMMON, "fsync": "off", "shared_buffers": "32MB"})
    found = Server(state, postgres, Child(postgres))
    postgres.initialise()
    try:
        found.start()
        yield found
    finally:
        found.child.stop()
        state.close()


@dataclass
class Truth:
    """What clients were told, by the only witness that counts: the answer they received."""

    organisation: uuid.UUID
    account: uuid.UUID
    held: set[uuid.UUID] = field(default_factory=set)
    settled: set[uuid.UUID] = field(default_factory=set)
    voided: set[uuid.UUID] = field(default_factory=set)
    stop: threading.Event = field(default_factory=threading.Event)
    surprises: list[BaseException] = field(default_factory=list)


@pytest.fixture
def _any_database(django_db_blocker: DjangoDbBlocker) -> Iterator[None]:
    with django_db_blocker.unblock():
        yield


@pytest.fixture
def truth(server: Server) -> Truth:
    environment = {**os.environ, "DATABASE_URL": server.postgres.url}
    subprocess.run(
        [sys.executable, "manage.py", "migrate", "--skip-checks", "--verbosity", "0"],
        cwd=ROOT,
        env=environment,
        check=True,
        capture_output=True,
    )
    organisation, parent, path = new_id(), None, []
    with server.connect() as connection:
        connection.execute(
            "INSERT INTO tenancy_organisation (id, name, slug, currency, time_zone, sign_off_above, created_at)"
            " VALUES (%s, 'Northwind', 'northwind', 'USD', 'UTC', 5, now())",
            [organisation],
        )
        for depth in range(5):
            identifier = new_id()
            path.append(identifier)
            connection.execute(
                "INSERT INTO budgets_account (id, organisation_id, parent_id, path, depth, level, name, subject_type,"
                " frozen, frozen_reason, guard_repeats, guard_ring_repeats, guard_ring, created_at)"
                " VALUES (%s, %s, %s, %s, %s, 'other', 'Level', '', false, '', 3, 10, 32, now())",
                [identifier, organisation, parent, path, depth],
            )
            connection.execute("SELECT budgets_set_limit(%s, 'total', %s, NULL, NULL)", [identifier, LIMIT])
            parent = identifier
    return Truth(organisation, path[-1])


@contextmanager
def _database_of(server: Server) -> Iterator[None]:
    """The product's own code, in this thread, on the server that is killed."""
    usual = connections[DEFAULT_DB_ALIAS]
    where = {"HOST": str(server.state.sockets), "NAME": DATABASE, "USER": USER, "OPTIONS": {}}
    connections[DEFAULT_DB_ALIAS] = DatabaseWrapper({**usual.settings_dict, **where}, DEFAULT_DB_ALIAS)
    try:
        yield
    finally:
        connection.close()
        connections[DEFAULT_DB_ALIAS] = usual


def _client(server: Server, truth: Truth) -> None:
    turn = 0
    try:
        with _database_of(server):
            while not truth.stop.is_set():
                turn += 1
                _one_call(truth, new_id(), void=turn % 5 == 0)
    except BaseException as error:
        truth.surprises.append(error)


def _one_call(truth: Truth, hold_id: uuid.UUID, *, void: bool) -> None:
    refusal = _until_told(
        partial(
            services.reserve,
            hold_id=hold_id,
            account_id=truth.account,
            organisation_id=truth.organisation,
            amounts=Amounts(PRICE, 0, 1),
            ttl_seconds=600,
        )
    )
    assert refusal is None
    truth.held.add(hold_id)
    if void:
        _until_told(partial(services.void, hold_id=hold_id))
        truth.voided.add(hold_id)
        return
    _until_told(partial(services.dispatch, hold_id=hold_id))
    _until_told(partial(services.settle, hold_id=hold_id))
    truth.settled.add(hold_id)


def _until_told(ask: Callable[[], T]) -> T:
    """The server was killed under us, so nobody said what came of it: the same again, until somebody does."""
    while True:
        try:
            return ask()
        except (OperationalError, InterfaceError):
            connection.close()
            time.sleep(0.05)
        except RemitError as error:
            if error.code != "ledger.busy":
                raise


@pytest.mark.usefixtures("_any_database")
def test_twenty_kills_under_load_lose_nothing_and_charge_nothing_twice(server: Server, truth: Truth) -> None:
    clients = [threading.Thread(target=_client, args=(server, truth)) for _ in range(CLIENTS)]
    for client in clients:
        client.start()
    try:
        for _ in range(KILLS):
            enough, deadline = len(truth.settled) + 20, time.monotonic() + 30
            while len(truth.settled) < enough and time.monotonic() < deadline and not truth.surprises:
                time.sleep(0.02)
            server.kill()
            server.start()
    finally:
        truth.stop.set()
        for client in clients:
            client.join()
    assert truth.surprises == []
    assert len(truth.settled) >= KILLS * 10

    with server.connect() as connection:
        states = dict(connection.execute("SELECT id, state FROM budgets_hold").fetchall())
        assert truth.held <= set(states)
        assert {states[hold_id] for hold_id in truth.settled} == {"settled"}
        assert {states[hold_id] for hold_id in truth.voided} == {"voided"}
        held = sum(state in ("held", "dispatched") for state in states.values()) * PRICE
        spent = sum(state == "settled" for state in states.values()) * PRICE
        sums = set(connection.execute("SELECT held_money, spent_money, overrun_money FROM budgets_window").fetchall())
        assert sums == {(held, spent, Decimal(0))}
        journal = dict(connection.execute("SELECT kind, sum(money) FROM budgets_journal GROUP BY kind").fetchall())
        assert journal["settle"] == spent
        assert journal["reserve"] + journal["void"] == held + spent
        unbalanced = connection.execute(
            "SELECT journal_id FROM budgets_posting GROUP BY journal_id HAVING sum(money) <> 0"
        ).fetchall()
        assert unbalanced == []
        # What was in flight when the server died is given back, or charged as held, by the sweep.
        connection.execute("UPDATE budgets_hold SET expires_at = '2020-01-01' WHERE closed_at IS NULL")
        while connection.execute("SELECT expired + provisional FROM budgets_sweep(100)").fetchone() != (0,):
            pass
        assert set(connection.execute("SELECT held_money FROM budgets_window").fetchall()) == {(Decimal(0),)}
