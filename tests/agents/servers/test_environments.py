"""Environments of stdio servers: built once, hashed, apart from Remit's own; and every stock server really answers."""

from __future__ import annotations

import asyncio
import fcntl
import multiprocessing
import re
import shutil
import subprocess
import sys
from datetime import UTC, date, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest
from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client

from agents.choices import Transport
from agents.samples.receivables.book import build
from agents.samples.terms import PROGRAMS
from agents.servers import environments
from agents.servers.environments import EnvironmentUnavailable, environment, names, node_environment
from agents.servers.sandboxes import start
from agents.servers.types import NO_RUN, ServerAddress
from controlplane.common.ids import new_id
from controlplane.config import configuration

needs_node = pytest.mark.skipif(
    not (shutil.which("node") and shutil.which("npm")), reason="node and npm are not on the PATH"
)
FILESYSTEM, EVERYTHING = environments.NODE_PACKAGES


@pytest.fixture(scope="module")
def state():
    """The test run's own state folder, so that other tests find what was built here."""
    return configuration().state_dir


async def listed_and_called(command, tool, arguments, **options):
    """Tool names and the text of one call, through the SDK's plain stdio client and handshake."""
    parameters = StdioServerParameters(command=command[0], args=list(command[1:]), **options)
    async with stdio_client(parameters) as streams, ClientSession(*streams) as session:
        await session.initialize()
        tools = {item.name for item in (await session.list_tools()).tools}
        result = await session.call_tool(tool, arguments)
        assert not result.is_error, result
        return tools, result.content[0].text


@pytest.mark.slow
async def test_the_stock_sqlite_server_starts_and_answers(state, tmp_path):
    book = build(tmp_path / "book", today=date(2026, 11, 23))
    start = ("-c", "import mcp_server_sqlite; mcp_server_sqlite.main()", "--db-path", str(book.database))
    command = environment("sqlite", state_dir=state).command(*start)
    query = {"query": "SELECT count(*) AS invoices FROM invoices"}
    tools, text = await listed_and_called(command, "read_query", query)
    assert {"read_query", "write_query", "list_tables"} <= tools
    assert text == "[{'invoices': 240}]"


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("git") is None, reason="git is not on the PATH")
async def test_the_stock_git_server_starts_and_answers(state, tmp_path):
    subprocess.run(["git", "init", "--quiet", "--initial-branch=main", str(tmp_path)], check=True)
    command = environment("git", state_dir=state).command("-m", "mcp_server_git", "--repository", str(tmp_path))
    tools, text = await listed_and_called(command, "git_status", {"repo_path": str(tmp_path)})
    assert {"git_log", "git_commit", "git_reset"} <= tools
    assert "On branch main" in text


@pytest.mark.slow
async def test_the_stock_time_server_starts_and_answers(state):
    command = environment("time", state_dir=state).command("-m", "mcp_server_time", "--local-timezone", "UTC")
    tools, text = await listed_and_called(command, "get_current_time", {"timezone": "UTC"})
    assert tools == {"get_current_time", "convert_time"}
    assert str(datetime.now(UTC).year) in text


@pytest.mark.slow
async def test_the_books_server_starts_from_its_folder_alone_and_answers(state, tmp_path):
    book = build(tmp_path / "book", today=date(2026, 11, 23))
    # A copy elsewhere: nothing but this folder can be what it imports.
    programs = shutil.copytree(PROGRAMS, tmp_path / "programs", ignore=shutil.ignore_patterns("__pycache__"))
    start = (str(programs), "books", "--database", str(book.database), "--documents", str(book.documents))
    command = environment("books", state_dir=state).command(*start)
    tools, text = await listed_and_called(command, "customer", {"id": "CUS-0001"}, cwd="/")
    assert tools == {"overdue", "customer", "search", "apply_credit", "write_reminder", "outbox", "attachment"}
    assert "Aldergate" in text


@pytest.mark.slow
def test_a_sample_agent_starts_in_its_own_environment(state):
    command = environment("agent", state_dir=state).command(str(PROGRAMS), "receivables")
    done = subprocess.run(command, env={}, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "REMIT_TOKEN is not set" in done.stdout


@pytest.mark.slow
@needs_node
async def test_the_stock_filesystem_server_starts_and_answers(state, tmp_path):
    (tmp_path / "hello.txt").write_text("good morning")
    command = node_environment(FILESYSTEM, state_dir=state).command(str(tmp_path))
    tools, text = await listed_and_called(command, "read_text_file", {"path": str(tmp_path / "hello.txt")})
    assert {"read_text_file", "write_file", "list_directory"} <= tools
    assert text == "good morning"


@pytest.mark.slow
@needs_node
async def test_the_stock_everything_server_starts_and_answers(state):
    command = node_environment(EVERYTHING, state_dir=state).command("stdio")
    tools, text = await listed_and_called(command, "get-sum", {"a": 2, "b": 40})
    assert {"echo", "get-sum"} <= tools
    assert "42" in text


@pytest.mark.slow
def test_a_second_request_builds_nothing_and_says_nothing(state):
    said: list[str] = []
    first = environment("time", state_dir=state)
    before = first.path.stat().st_ino
    assert environment("time", state_dir=state, progress=said.append) == first
    assert first.path.stat().st_ino == before
    assert said == []


def ask(state: Path, answers: multiprocessing.Queue) -> None:
    said: list[str] = []
    built = environment("time", state_dir=state, progress=said.append)
    answers.put((str(built.path), len(said), built.python.exists()))


@pytest.mark.slow
def test_two_processes_at_once_build_it_once(tmp_path):
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    processes = [context.Process(target=ask, args=(tmp_path, answers)) for _ in range(2)]
    for process in processes:
        process.start()
    (one, said_one, there_one), (other, said_other, there_other) = (answers.get(timeout=120) for _ in processes)
    for process in processes:
        process.join(timeout=30)
    assert one == other
    assert there_one
    assert there_other
    assert said_one + said_other == 1
    assert [entry.name for entry in (tmp_path / "environments").glob(".*draft*")] == []


@pytest.mark.slow
def test_a_build_that_was_killed_is_cleared_away_and_begun_again(tmp_path):
    finished = environment("time", state_dir=tmp_path).path
    leftover = finished.parent / f".{finished.name}.draft-killed"
    finished.rename(leftover)
    assert environment("time", state_dir=tmp_path).python.exists()
    assert not leftover.exists()


@pytest.mark.slow
def test_an_environment_whose_interpreter_is_gone_is_built_again(tmp_path):
    built = environment("time", state_dir=tmp_path)
    built.python.unlink()
    built.python.symlink_to("/nowhere/python3")
    again = environment("time", state_dir=tmp_path)
    assert subprocess.run(again.command("-c", "import mcp_server_time"), check=False).returncode == 0


@pytest.mark.slow
def test_it_sees_neither_remits_packages_nor_the_callers_python_variables(state, monkeypatch, tmp_path):
    (tmp_path / "smuggled.py").write_text("")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    command = environment("books", state_dir=state).command
    for module in ("django", "smuggled"):
        done = subprocess.run(command("-c", f"import {module}"), capture_output=True, text=True, check=False)
        assert "ModuleNotFoundError" in done.stderr


def test_a_tampered_requirement_is_refused_and_leaves_nothing(tmp_path, monkeypatch):
    requirements = tmp_path / "requirements"
    requirements.mkdir()
    text = (environments.REQUIREMENTS / "time.txt").read_text()
    wrong = re.sub(r"sha256:[0-9a-f]{64}", "sha256:" + "0" * 64, text)
    (requirements / "time.txt").write_text(wrong)
    monkeypatch.setattr(environments, "REQUIREMENTS", requirements)
    with pytest.raises(EnvironmentUnavailable, match="uv ended with code"):
        environment("time", state_dir=tmp_path)
    left = [entry.name for entry in (tmp_path / "environments").iterdir() if not entry.name.endswith(".lock")]
    assert left == []


@needs_node
def test_a_tampered_npm_lock_is_refused_and_leaves_nothing(tmp_path, monkeypatch):
    shipped = tmp_path / "node"
    shutil.copytree(environments.NODE_REQUIREMENTS, shipped)
    lock = shipped / "everything" / "package-lock.json"
    lock.write_text(re.sub(r"sha512-[^\"]+", "sha512-" + "A" * 86 + "==", lock.read_text()))
    monkeypatch.setattr(environments, "NODE_REQUIREMENTS", shipped)
    # A cache of its own: npm would otherwise take what it already has and trusts.
    monkeypatch.setenv("npm_config_cache", str(tmp_path / "cache"))
    with pytest.raises(EnvironmentUnavailable, match="npm ended with code"):
        node_environment(EVERYTHING, state_dir=tmp_path)
    left = [entry.name for entry in (tmp_path / "environments").iterdir() if not entry.name.endswith(".lock")]
    assert left == []


@pytest.mark.parametrize("name", ["", "..", "../../etc/passwd", "unknown", "sqlite.txt"])
def test_unknown_names_are_refused(name, tmp_path):
    with pytest.raises(EnvironmentUnavailable, match="Known:"):
        environment(name, state_dir=tmp_path)


async def test_sessions_that_wait_for_an_installation_take_no_thread_from_anybody(tmp_path, monkeypatch):
    monkeypatch.setattr(environments, "configuration", lambda: SimpleNamespace(state_dir=tmp_path))
    requirements = (environments.REQUIREMENTS / "time.txt").read_bytes()
    fingerprint = environments._fingerprint(requirements, sys.version.encode(), sys.base_prefix.encode())
    (tmp_path / "environments").mkdir()
    server = ServerAddress(new_id(), new_id(), "time", Transport.STDIO, environment="time", command=("-m", "time"))
    with (tmp_path / "environments" / f".time-{fingerprint}.lock").open("w") as somebody_installs:
        fcntl.flock(somebody_installs, fcntl.LOCK_EX)
        waiting = [asyncio.create_task(start(server, NO_RUN)) for _ in range(40)]
        await asyncio.sleep(0.2)
        await asyncio.wait_for(asyncio.to_thread(int), 5)
        assert not any(task.done() for task in waiting)
        for task in waiting:
            task.cancel()
        await asyncio.wait(waiting, timeout=10)
        assert all(task.cancelled() for task in waiting)


def test_unknown_npm_packages_are_refused(tmp_path):
    with pytest.raises(EnvironmentUnavailable, match="no lock file"):
        node_environment("left-pad", state_dir=tmp_path)


def test_without_node_it_says_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EnvironmentUnavailable, match="Install Node"):
        node_environment(FILESYSTEM, state_dir=tmp_path)


def test_installers_are_not_given_what_opens_the_database_or_signs_permits(tmp_path, monkeypatch):
    seen = tmp_path / "seen"
    spy = tmp_path / "uv"
    spy.write_text(f"#!/bin/sh\nenv > {seen}\nexit 7\n")
    spy.chmod(0o755)
    monkeypatch.setattr(environments, "find_uv_bin", lambda: str(spy))
    for name in ("SECRET_KEY", "DATABASE_URL", "JUDGE_KEY", "OIDC_CLIENT_SECRET"):
        monkeypatch.setenv(name, "do-not-show")
    monkeypatch.setenv("UV_OFFLINE", "1")
    with pytest.raises(EnvironmentUnavailable, match="uv ended with code 7"):
        environment("time", state_dir=tmp_path / "state")
    assert "do-not-show" not in seen.read_text()
    assert "UV_OFFLINE=1" in seen.read_text()


def test_lock_files_name_hashes_for_everything_and_no_address():
    for name in names():
        text = (environments.REQUIREMENTS / f"{name}.txt").read_text()
        pins = re.findall(r"^([A-Za-z0-9._-]+)==", text, re.MULTILINE)
        assert len(pins) > 10
        assert len(re.findall(r"==[^\n]*\\\n\s+--hash=sha256:", text)) == len(pins)
        assert "://" not in text
    for folder in environments.NODE_PACKAGES.values():
        text = (environments.NODE_REQUIREMENTS / folder / "package-lock.json").read_text()
        assert '"resolved"' not in text
        assert text.count('"integrity"') > 50
