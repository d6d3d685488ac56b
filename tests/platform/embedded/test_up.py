"""`manage.py up` end to end: what it starts, heals and leaves behind. One start serves most of these tests."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import psutil
import psycopg
import pytest
import redis
from celery import Celery

from .conftest import ROOT, Up, plain_environment, wait_until

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("up") / "state"


@pytest.fixture(scope="module")
def up(folder: Path) -> Iterator[Up]:
    running = Up(folder, "--no-demo", REMIT_DEMO_JUDGE="1")
    running.wait_ready()
    yield running
    running.close()


def _environment(state: Path) -> dict[str, str]:
    lines = (state / "environment").read_text().splitlines()
    return {name: value.strip('"') for name, _, value in (line.partition("=") for line in lines)}


def _kill(up: Up, word: str) -> psutil.Process:
    victim = up.find(word)
    assert victim is not None, f"no child {word}: {up.screen}"
    victim.kill()
    wait_until(lambda: (found := up.find(word)) and found.pid != victim.pid, f"{word} to be started again")
    return victim


def _worker_answers(state: Path) -> bool:
    broker = _environment(state)["REDIS_URL"].replace("unix://", "redis+socket://", 1)
    with Celery("probe", broker=broker, set_as_current=False) as probe:
        try:
            return bool(probe.control.inspect(timeout=2).ping())
        except Exception:  # a broker that is just coming back is "not yet"
            return False


def _database_answers(state: Path) -> bool:
    try:
        with psycopg.connect(_environment(state)["DATABASE_URL"], connect_timeout=2) as connection:
            return connection.execute("SELECT 1").fetchone() == (1,)
    except psycopg.OperationalError:
        return False


def test_it_serves_and_works(up: Up, folder: Path) -> None:
    assert up.get("/healthz") == 200
    wait_until(lambda: _worker_answers(folder), "the worker")
    assert (folder / "run" / "node.sock").is_socket()
    assert f"http://localhost:{up.port}" in up.screen


def test_the_greeting_prints_a_command_that_works_for_this_very_installation(up: Up, folder: Path) -> None:
    line = next(line for line in up.screen.splitlines() if "signin --user E-MAIL" in line)
    command = line.partition(": ")[2].replace("E-MAIL", "nobody@example.com")
    assert f"STATE_DIR={folder} " in command
    done = subprocess.run(
        ["bash", "-c", command], env=plain_environment(), capture_output=True, text=True, check=False, timeout=60
    )
    assert "Nobody active has the address nobody@example.com." in done.stderr


def test_everything_is_for_this_user_alone(up: Up, folder: Path) -> None:
    for path in (folder, folder / "run", folder / "logs", folder / "postgres", folder / "environment"):
        assert path.stat().st_mode & 0o077 == 0, path
    listening = {
        connection.laddr[:2]
        for process in (psutil.Process(up.process.pid), *up.descendants())
        for connection in process.net_connections(kind="inet")
        if connection.status == psutil.CONN_LISTEN
    }
    judge = urlsplit(_environment(folder)["JUDGE_URL"]).port
    assert listening == {("127.0.0.1", up.port), ("127.0.0.1", judge)}


def test_the_node_that_runs_other_peoples_programs_holds_no_secrets(up: Up, folder: Path) -> None:
    node = up.find("node")
    assert node is not None
    secrets = [value for name, value in _environment(folder).items() if name in ("SECRET_KEY", "DATABASE_URL")]
    assert len(secrets) == 2
    for secret in secrets:
        assert secret not in node.environ().values()


def test_commands_in_another_terminal_find_the_running_installation(up: Up, folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "manage.py"), "signin", "--user", "nobody@example.com"],
        env=plain_environment(STATE_DIR=str(folder)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Nobody active has the address nobody@example.com." in done.stderr


def test_a_second_start_is_refused_and_the_first_goes_on(up: Up, folder: Path) -> None:
    second = Up(folder)
    assert second.ended() == 1
    assert f"(process {up.process.pid})" in second.screen
    assert up.get("/healthz") == 200


def test_a_killed_web_process_is_healed_and_callers_only_wait(up: Up) -> None:
    victim = up.find("web")
    assert victim is not None
    victim.kill()
    assert up.get("/healthz") == 200
    assert "web ended (signal 9); starting it again" in up.screen


def test_a_killed_worker_is_healed(up: Up, folder: Path) -> None:
    _kill(up, "worker")
    wait_until(lambda: _worker_answers(folder), "the worker's answer")


def test_a_worker_makes_missing_months_when_it_starts_and_not_an_hour_later(up: Up, folder: Path) -> None:
    def months() -> list[str]:
        rows = database.execute(
            "SELECT inhrelid::regclass::text FROM pg_inherits"
            " WHERE inhparent IN ('audit_entry'::regclass, 'budgets_journal'::regclass) ORDER BY 1"
        )
        return [name for (name,) in rows]

    with psycopg.connect(_environment(folder)["DATABASE_URL"], autocommit=True) as database:
        before = months()
        for table in ("audit_entry", "budgets_journal"):
            last = max(name for name in before if name.startswith(f"{table}_2"))
            database.execute(f"ALTER TABLE {table} DETACH PARTITION {last}")
            database.execute(f"DROP TABLE {last}")
        assert len(months()) == len(before) - 2
        _kill(up, "worker")
        wait_until(lambda: months() == before, "the months")


def _judges_model(folder: Path) -> str:
    """Which model answers a question to the judge, asked over a connection of its own; none where nobody does."""
    mission, action = {"goal": "Credit", "criteria": []}, {"tool": "apply_credit", "arguments": {}}
    question = json.dumps({"mission": mission, "action": action})
    body = {"messages": [{"role": "system", "content": ""}, {"role": "user", "content": question}]}
    try:
        answer = httpx2.post(f"{_environment(folder)['JUDGE_URL']}/chat/completions", json=body, trust_env=False)
    except httpx2.HTTPError:
        return ""
    return str(answer.json()["model"]) if answer.status_code == 200 else f"{answer.status_code}"


def test_the_judge_of_the_demo_answers_every_question_itself_and_is_healed(up: Up, folder: Path) -> None:
    assert {_judges_model(folder) for _ in range(20)} == {"demo-word-rules"}
    _kill(up, "demo_judge.py")
    wait_until(lambda: _judges_model(folder) == "demo-word-rules", "the judge to answer again")


def test_a_killed_node_is_healed(up: Up) -> None:
    _kill(up, "node")


def test_a_killed_broker_is_healed_and_the_worker_finds_it_again(up: Up, folder: Path) -> None:
    with redis.Redis.from_url(_environment(folder)["REDIS_URL"]) as client:
        client.set("remit-test", "kept")
    _kill(up, "valkey-server")
    wait_until(lambda: _worker_answers(folder), "the worker's answer")
    with redis.Redis.from_url(_environment(folder)["REDIS_URL"]) as client:
        assert client.get("remit-test") == b"kept"


def test_a_killed_database_is_healed_and_kept(up: Up, folder: Path) -> None:
    with psycopg.connect(_environment(folder)["DATABASE_URL"]) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
    _kill(up, "postgres")
    wait_until(lambda: _database_answers(folder), "the database")
    with psycopg.connect(_environment(folder)["DATABASE_URL"]) as connection:
        assert connection.execute("SELECT answer FROM kept").fetchone() == (42,)
    assert up.get("/healthz") == 200


def test_ctrl_c_stops_everything_in_order_and_the_state_is_kept(up: Up, folder: Path) -> None:
    everyone = up.descendants()
    assert len(everyone) > 5
    up.process.send_signal(signal.SIGINT)
    assert up.ended() == 0
    assert not up.descendants()
    assert "Traceback" not in up.screen
    log = (folder / "logs" / "postgres.log").read_text()
    assert "database system is shut down" in log.splitlines()[-1]


def test_a_killed_supervisor_takes_everything_with_it_and_the_next_start_works(up: Up, folder: Path) -> None:
    """After the orderly stop above: a warm start on the same state, killed, and started once more."""
    up.close()
    killed = Up(folder, "--no-demo")
    killed.wait_ready()
    wait_until(lambda: killed.find("worker"), "the worker")
    assert len(killed.descendants()) > 5
    killed.process.kill()
    killed.process.wait()
    wait_until(lambda: not killed.descendants(), "the end of every process", 20)

    again = Up(folder, "--no-demo")
    try:
        again.wait_ready()
        with psycopg.connect(_environment(folder)["DATABASE_URL"]) as connection:
            assert connection.execute("SELECT answer FROM kept").fetchone() == (42,)
    finally:
        again.close()
    assert not again.descendants()


def test_servers_named_in_the_environment_are_used_and_none_is_started(tmp_path: Path) -> None:
    """The throw-away servers of this test run play the part of somebody's own."""
    given = {name: os.environ[name] for name in ("DATABASE_URL", "REDIS_URL")}
    database = psycopg.conninfo.conninfo_to_dict(given["DATABASE_URL"])
    with psycopg.connect(given["DATABASE_URL"], autocommit=True) as connection:
        connection.execute("CREATE DATABASE somebodys_own")
    given["DATABASE_URL"] = given["DATABASE_URL"].replace(f"/{database['dbname']}?", "/somebodys_own?")
    up = Up(tmp_path / "state", "--no-demo", REMIT_DEMO_JUDGE="0", **given)
    try:
        up.wait_ready()
        assert up.find("demo_judge.py") is None
        assert "JUDGE_URL" not in _environment(tmp_path / "state")
        assert up.find("postgres") is None
        assert up.find("valkey-server") is None
        assert not (tmp_path / "state" / "postgres").exists()
        assert "DATABASE_URL" not in _environment(tmp_path / "state")
        with psycopg.connect(given["DATABASE_URL"]) as connection:
            assert connection.execute("SELECT count(*) > 0 FROM django_migrations").fetchone() == (True,)
    finally:
        up.close()


def test_a_database_that_does_not_answer_is_named(tmp_path: Path) -> None:
    up = Up(tmp_path / "state", DATABASE_URL="postgresql://nobody@127.0.0.1:1/none")
    assert up.ended() == 1
    assert "The database does not answer" in up.screen
    assert "Check DATABASE_URL" in up.screen
    assert not up.descendants()
