"""The embedded PostgreSQL keeps what it acknowledged, whatever happens to its process or its files."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from controlplane.embedded.child import Child
from controlplane.embedded.failures import StartError
from controlplane.embedded.postgres import DURABLE, THROWAWAY, Postgres
from controlplane.embedded.state import StateFolder

from .conftest import ROOT, wait_until

Start = Callable[[object], Child]


def _ready(postgres: Postgres, child: Child) -> bool:
    child.heal()
    return child.pid is not None and postgres.is_ready(child.pid)


@pytest.mark.usefixtures("postgres")
def test_acknowledged_rows_survive_a_kill_under_load(state: StateFolder, start: Start) -> None:
    postgres = Postgres(state, DURABLE)
    child = start(postgres)
    with psycopg.connect(postgres.url) as connection:
        connection.execute("CREATE TABLE load (id bigint PRIMARY KEY)")
    acknowledged: list[int] = []

    def insert() -> None:
        with psycopg.connect(postgres.url, autocommit=True) as connection:
            number = 0
            while True:
                connection.execute("INSERT INTO load VALUES (%s)", [number])
                acknowledged.append(number)
                number += 1

    def insert_until_killed() -> None:
        with pytest.raises(psycopg.OperationalError):
            insert()

    load = threading.Thread(target=insert_until_killed)
    load.start()
    wait_until(lambda: len(acknowledged) > 200, "200 rows")
    os.kill(child.pid, signal.SIGKILL)
    child.process.wait()
    load.join(timeout=30)
    assert not load.is_alive()
    wait_until(lambda: _ready(postgres, child), "the restart")
    with psycopg.connect(postgres.url) as connection:
        kept = {row[0] for row in connection.execute("SELECT id FROM load")}
    assert set(acknowledged) <= kept


def test_data_survives_an_orderly_stop_and_nothing_keeps_running(
    postgres: Postgres, state: StateFolder, start: Start
) -> None:
    child = start(postgres)
    pid = child.pid
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
        child.stop()
    assert not Path(f"/proc/{pid}").exists()
    assert not (state.root / "postgres" / "postmaster.pid").exists()
    start(postgres)
    with psycopg.connect(postgres.url) as connection:
        assert connection.execute("SELECT answer FROM kept").fetchone() == (42,)


def test_a_pid_file_that_names_a_living_stranger_is_stale(postgres: Postgres, state: StateFolder, start: Start) -> None:
    stranger = subprocess.Popen(["sleep", "60"])
    try:
        data = state.root / "postgres"
        (data / "postmaster.pid").write_text(f"{stranger.pid}\n{data}\n1\n5432\n{state.sockets}\n\n0 0\nready   \n")
        (state.sockets / ".s.PGSQL.5432.lock").write_text(f"{stranger.pid}\n")
        start(postgres)
        with psycopg.connect(postgres.url) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_a_server_left_over_on_the_same_data_is_stopped_before_the_next_starts(
    postgres: Postgres, state: StateFolder, start: Start
) -> None:
    left_over = start(postgres)
    successor = start(Postgres(state, THROWAWAY))
    assert left_over.process.wait(timeout=10) == 0
    assert successor.process.poll() is None
    with psycopg.connect(postgres.url) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_a_busy_process_of_a_killed_server_does_not_keep_the_next_from_starting(
    postgres: Postgres, state: StateFolder, start: Start
) -> None:
    killed = start(postgres)
    connection = psycopg.connect(postgres.url, autocommit=True)
    busy = connection.info.backend_pid

    def count_for_minutes() -> None:
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT count(*) FROM generate_series(1, 100000000000)")

    work = threading.Thread(target=count_for_minutes)
    work.start()
    wait_until(lambda: Path(f"/proc/{busy}/stat").read_text().split()[2] == "R", "the query")
    os.kill(killed.pid, signal.SIGKILL)
    killed.process.wait()
    assert Path(f"/proc/{busy}").exists()
    start(Postgres(state, THROWAWAY))
    work.join(timeout=30)
    assert not work.is_alive()


def test_a_half_made_cluster_is_made_again(state: StateFolder, start: Start) -> None:
    unfinished = state.root / "postgres.unfinished"
    unfinished.mkdir()
    (unfinished / "PG_VERSION").write_text("18\n")
    postgres = Postgres(state, THROWAWAY)
    assert postgres.initialise() is True
    assert not unfinished.exists()
    start(postgres)
    assert postgres.initialise() is False


def test_data_of_another_major_version_is_refused_with_a_remedy(state: StateFolder) -> None:
    data = state.root / "postgres"
    data.mkdir()
    (data / "PG_VERSION").write_text("15\n")
    with pytest.raises(StartError, match="data of PostgreSQL 15") as caught:
        Postgres(state).initialise()
    assert "pg_dump" in caught.value.remedy


def test_the_applications_role_can_neither_run_programs_nor_read_files(postgres: Postgres, start: Start) -> None:
    start(postgres)
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        assert connection.execute("SELECT rolsuper FROM pg_roles WHERE rolname = current_user").fetchone() == (False,)
        for statement in ("COPY (SELECT 1) TO PROGRAM 'true'", "SELECT pg_read_file('/etc/hostname')"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(statement)
        connection.execute("CREATE EXTENSION IF NOT EXISTS vector")


def test_the_server_listens_on_its_private_socket_alone(postgres: Postgres, state: StateFolder, start: Start) -> None:
    start(postgres)
    with psycopg.connect(postgres.url) as connection:
        assert connection.execute("SHOW listen_addresses").fetchone() == ("",)
    for folder in (state.root, state.sockets, state.root / "postgres"):
        assert folder.stat().st_mode & 0o077 == 0, folder


def test_a_state_folder_too_deep_for_a_socket_still_works(tmp_path: Path, fresh_cluster: Path, start: Start) -> None:
    deep = StateFolder(tmp_path / ("d" * 60) / ("e" * 60))
    deep.open()
    assert deep.sockets.parent != deep.root
    shutil.copytree(fresh_cluster, deep.root / "postgres")
    postgres = Postgres(deep, THROWAWAY)
    start(postgres)
    with psycopg.connect(postgres.url) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    deep.close()
    assert not deep.sockets.exists()


def test_a_server_dies_with_the_process_that_started_it(postgres: Postgres, state: StateFolder) -> None:
    program = (
        "import time, os, signal;"
        "from pathlib import Path;"
        "from controlplane.embedded.child import Child;"
        "from controlplane.embedded.postgres import Postgres, THROWAWAY;"
        "from controlplane.embedded.state import StateFolder;"
        f"child = Child(Postgres(StateFolder(Path({str(state.root)!r})), THROWAWAY));"
        "child.start(); child.wait_ready(seconds=30); print(child.pid, flush=True);"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'platform'}"}
    started = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, env=environment, check=False
    )
    pid = int(started.stdout)
    assert started.returncode == -signal.SIGKILL

    def gone() -> bool:
        status = Path(f"/proc/{pid}/stat")
        try:
            return status.read_text().rpartition(")")[2].split()[0] == "Z"
        except FileNotFoundError:
            return True

    wait_until(gone, "the end of the orphan", 15)


def test_a_server_that_keeps_dying_is_started_with_growing_pauses(state: StateFolder) -> None:
    """Its data folder is gone: every start fails, and none of them spins."""
    postgres = Postgres(state, THROWAWAY)
    child = Child(postgres)
    child.start()
    deaths = []
    deadline = time.monotonic() + 2.5
    while time.monotonic() < deadline:
        if "ended (code" in child.heal():
            deaths.append(time.monotonic())
        time.sleep(0.02)
    child.stop()
    assert 2 <= len(deaths) <= 6
    pauses = [later - earlier for earlier, later in itertools.pairwise(deaths)]
    assert pauses == sorted(pauses)
