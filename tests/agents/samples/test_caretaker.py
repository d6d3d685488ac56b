"""The Repository caretaker as a real process, with the stock git server behind a server that enforces its grants."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from datetime import date

import pytest
from mcp import Client, StdioServerParameters

from agents.samples.caretaker import mission
from agents.samples.caretaker.repository import GitUnavailable, build
from agents.servers.environments import environment

pytestmark = [
    pytest.mark.skipif(shutil.which("git") is None, reason="git is not on the PATH"),
    pytest.mark.slow,
]
TODAY = date(2026, 11, 23)


class KeptServer:
    """One stdio process for a whole test. Its client lives in one task, on the loop of whoever calls first."""

    def __init__(self, parameters):
        self.parameters = parameters
        self.calls = None

    async def call(self, name, arguments):
        if self.calls is None:
            self.calls = asyncio.Queue()
            self.task = asyncio.create_task(self.serve())
        answer = asyncio.get_running_loop().create_future()
        await self.calls.put((name, arguments, answer))
        return await asyncio.wait_for(answer, 60)

    async def serve(self):
        async with Client(self.parameters) as client:
            while True:
                name, arguments, answer = await self.calls.get()
                answer.set_result(await client.call_tool(name, arguments))


def git(repository, *arguments):
    command = ["git", "-c", "safe.directory=*", *arguments]
    return subprocess.run(command, cwd=repository, capture_output=True, text=True, check=True).stdout


@pytest.fixture
def repository(tmp_path):
    return build(tmp_path / "data" / "repository", today=TODAY)


@pytest.fixture
def server(repository, governing):
    """Calls go through the stock server in its own environment, as a stdio process."""
    command = environment("git").command(*mission.server_arguments(str(repository)))

    stdio = KeptServer(StdioServerParameters(command=command[0], args=list(command[1:])))

    def through(name):
        return lambda arguments: stdio.call(name, arguments)

    governing = governing(mission, {f"git__{name}": through(name) for name in tools_of(mission.GRANTS)})
    governing.grants = mission.grants(str(repository))
    return governing


def tools_of(grants):
    return sorted({grant.tool.removeprefix("git__") for grant in grants})


@pytest.fixture
def start(start_agent, server, repository):
    return lambda: start_agent("caretaker", url=server.url, REMIT_SAMPLE_REPOSITORY=str(repository))


def test_it_puts_uncommitted_work_on_a_branch_and_leaves_main_alone(server, repository, start):
    main_before = git(repository, "rev-parse", "main")
    code, log = start().wait(120)
    assert code == 0, log
    assert git(repository, "rev-parse", "main") == main_before
    assert git(repository, "rev-parse", "care/uncommitted-work~1") == main_before
    assert git(repository, "status", "--porcelain") == ""
    assert "left <= lowest" in git(repository, "show", "care/uncommitted-work:depot/stock.py")
    assert git(repository, "log", "-1", "--format=%an", "care/uncommitted-work").strip() == "Repository caretaker"
    refused = {(call.tool, call.reason) for call in server.calls if call.verdict == "deny"}
    assert refused == {
        ("git__git_reset", "grant.tool_not_granted"),
        ("git__git_status", "grant.argument_outside"),
    }
    assert sorted(server.progress) == [0, 1, 2, 3]
    assert len(server.finished) == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to somebody else")
def test_the_server_accepts_its_repository_whoever_owns_it(server, repository, start):
    for folder, _, names in os.walk(repository):
        for name in (".", *names):
            os.chown(os.path.join(folder, name), 65534, 65534)
    code, log = start().wait(120)
    assert code == 0, log
    assert "dubious" not in log


def test_a_second_run_commits_nothing_twice(server, repository, start):
    assert start().wait(120)[0] == 0
    head = git(repository, "rev-parse", "care/uncommitted-work")
    code, log = start().wait(120)
    assert code == 0, log
    assert git(repository, "rev-parse", "care/uncommitted-work") == head
    assert head.strip() in server.progress[2]


def test_without_the_right_to_commit_it_claims_nothing(server, repository, start):
    server.grants = [grant for grant in server.grants if grant.tool != "git__git_commit"]
    code, log = start().wait(120)
    assert code == 1, log
    assert server.finished == []
    assert 2 not in server.progress


def test_two_builds_for_one_day_are_the_same_commits(tmp_path):
    one, other = build(tmp_path / "one", today=TODAY), build(tmp_path / "other", today=TODAY)
    assert git(one, "rev-parse", "HEAD") == git(other, "rev-parse", "HEAD")
    assert git(one, "rev-list", "--count", "HEAD").strip() == "5"


def test_a_repository_that_is_there_is_left_alone(repository):
    (repository / "mine.txt").write_text("kept")
    assert build(repository, today=date(2030, 1, 1)) == repository
    assert (repository / "mine.txt").read_text() == "kept"


def test_without_git_it_says_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(GitUnavailable, match="Install git"):
        build(tmp_path / "repository", today=TODAY)
    assert not (tmp_path / "repository").exists()
