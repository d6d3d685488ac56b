"""Stock MCP servers from PyPI and npm, each in a sandbox of the local node, used through `/mcp` inside a mission."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from agents import services
from agents.catalogue import demo
from agents.catalogue.bring_your_own import TIME
from agents.choices import Runtime, ToolState, Transport
from agents.grants import Grant
from agents.models import McpServer, McpTool, Mission
from agents.servers import services as registry
from agents.servers.types import MountRequest
from controlplane.clusters.drivers.local import LocalDriver
from controlplane.clusters.node import node_command
from controlplane.clusters.types import DriverError, SandboxPhase
from controlplane.common.clock import now
from controlplane.common.errors import RemitError
from controlplane.common.ids import new_id
from controlplane.config import configuration
from controlplane.tenancy.models import Organisation, Team
from controlplane.tenancy.types import Principal
from governance.choices import ActionState
from governance.models import Action

pytestmark = pytest.mark.slow


@pytest.fixture
def node() -> Iterator[LocalDriver]:
    """The local node of this state folder, in whatever isolation this machine has."""
    places = configuration()
    command = node_command(
        socket=places.node_socket, state=places.state_dir / "node", gateway_socket=places.gateway_socket
    )
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    driver = LocalDriver(places.node_socket)
    deadline = time.monotonic() + 20
    while True:
        try:
            driver.observe()
            break
        except DriverError:
            assert process.poll() is None, process.stdout and process.stdout.read()
            assert time.monotonic() < deadline
            time.sleep(0.05)
    yield driver
    process.send_signal(signal.SIGTERM)
    process.wait(20)


@pytest.fixture
def make_mission(owner: Principal, company: Organisation) -> Callable[..., tuple[Mission, str]]:
    def make(*grants: Grant) -> tuple[Mission, str]:
        team = Team.objects.get(organisation=company)
        agent = services.register_agent(
            actor=owner, team_id=team.pk, name=f"Agent {new_id().hex[-6:]}", runtime=Runtime.EXTERNAL
        )
        remit = services.Remit(
            goal="Try the server.",
            criteria=["It answers"],
            grants=grants,
            budget_money=Decimal("1.00"),
            deadline=now() + timedelta(hours=1),
        )
        mission = services.draft_mission(actor=owner, agent_id=agent.pk, title="Try it", remit=remit)
        services.submit_mission(actor=owner, mission_id=mission.pk)
        return mission, services.issue_run_token(actor=owner, mission_id=mission.pk)

    return make


def folder_of(mission: Mission, name: str) -> Path:
    folder = configuration().state_dir / "missions" / str(mission.pk) / name
    folder.mkdir(parents=True)
    return folder


def register(
    owner: Principal, slug: str, environment: str, *command: str, mounts: tuple[MountRequest, ...] = ()
) -> Any:
    row = registry.register_server(
        actor=owner,
        name=slug,
        slug=slug,
        transport=Transport.STDIO,
        environment=environment,
        command=command,
        mounts=mounts,
    )
    refreshed = registry.refresh_tools(actor=owner, server_id=row.pk)
    assert refreshed.fault == "", refreshed.fault
    return row


def test_the_time_server(
    node: LocalDriver, owner: Principal, make_mission: Any, make_agent_client: Callable[..., Any]
) -> None:
    register(owner, "time", "time", "-m", "mcp_server_time", "--local-timezone", "Europe/Berlin")
    _, token = make_mission(Grant("time__get_current_time"))
    agent = make_agent_client(token)
    listed = agent.tools()
    assert "time__get_current_time" in listed
    assert "time__convert_time" not in listed
    result = agent.call("time__get_current_time", {"timezone": "Europe/Berlin"})
    assert "Europe/Berlin" in result.content[0].text
    convert = {"source_timezone": "UTC", "time": "12:00", "target_timezone": "Europe/Berlin"}
    assert agent.call("time__convert_time", convert).structured_content["reason_code"] == "grant.missing"


def test_the_sqlite_server_reads_the_missions_own_book_and_can_not_write_it(
    node: LocalDriver, owner: Principal, make_mission: Any, make_agent_client: Callable[..., Any]
) -> None:
    register(
        owner,
        "sqlite",
        "sqlite",
        "-c",
        "import mcp_server_sqlite; mcp_server_sqlite.main()",
        "--db-path",
        "/data/book.sqlite",
        mounts=(MountRequest("missions/{mission}/book", "/data"),),
    )
    mission, token = make_mission(Grant("sqlite__read_query"), Grant("sqlite__write_query"))
    book = folder_of(mission, "book") / "book.sqlite"
    with sqlite3.connect(book) as connection:
        connection.execute("CREATE TABLE invoices (id TEXT)")
        connection.execute("INSERT INTO invoices VALUES ('INV-0113')")
    agent = make_agent_client(token)
    result = agent.call("sqlite__read_query", {"query": "SELECT id FROM invoices"})
    assert "INV-0113" in result.content[0].text
    agent.call("sqlite__write_query", {"query": "DELETE FROM invoices"})
    with sqlite3.connect(book) as connection:
        assert connection.execute("SELECT count(*) FROM invoices").fetchone() == (1,)


def test_the_git_server_sees_its_repository_and_nothing_else(
    node: LocalDriver, owner: Principal, make_mission: Any, make_agent_client: Callable[..., Any]
) -> None:
    register(
        owner,
        "git",
        "git",
        "-m",
        "mcp_server_git",
        mounts=(MountRequest("missions/{mission}/repository", "/repository", writable=True),),
    )
    mission, token = make_mission(Grant("git__git_log"), Grant("git__git_status"))
    repository = folder_of(mission, "repository")
    environment = {**os.environ, "GIT_AUTHOR_NAME": "Alice", "GIT_AUTHOR_EMAIL": "alice@northwind.example"}
    environment |= {"GIT_COMMITTER_NAME": "Alice", "GIT_COMMITTER_EMAIL": "alice@northwind.example"}
    (repository / "README").write_text("Accounts\n")
    for command in (["init", "-q"], ["add", "README"], ["commit", "-qm", "Begin the accounts"]):
        subprocess.run(["git", *command], cwd=repository, env=environment, check=True)
    agent = make_agent_client(token)
    result = agent.call("git__git_log", {"repo_path": "/repository"})
    assert "Begin the accounts" in result.content[0].text
    outside = agent.call("git__git_status", {"repo_path": str(configuration().state_dir)})
    assert outside.is_error
    assert agent.call("git__git_reset", {"repo_path": "/repository"}).structured_content["verdict"] == "deny"


@pytest.mark.skipif(shutil.which("npm") is None, reason="needs Node and npm")
def test_the_filesystem_and_everything_servers_of_npm(
    node: LocalDriver, owner: Principal, make_mission: Any, make_agent_client: Callable[..., Any]
) -> None:
    register(
        owner,
        "files",
        "@modelcontextprotocol/server-filesystem",
        "/files",
        mounts=(MountRequest("missions/{mission}/files", "/files", writable=True),),
    )
    register(owner, "everything", "@modelcontextprotocol/server-everything")
    mission, token = make_mission(
        Grant("files__read_text_file", constraints={"path": {"starts_with": "/files/"}}), Grant("everything__echo")
    )
    (folder_of(mission, "files") / "note.txt").write_text("pay INV-0113")
    agent = make_agent_client(token)
    assert "pay INV-0113" in agent.call("files__read_text_file", {"path": "/files/note.txt"}).content[0].text
    assert agent.call("files__read_text_file", {"path": "/etc/passwd"}).structured_content["verdict"] == "deny"
    assert "hello" in agent.call("everything__echo", {"message": "hello"}).content[0].text
    listed = agent.tools()
    assert "files__write_file" not in listed
    assert "everything__printEnv" not in listed


def test_a_server_killed_between_calls_is_started_again_and_none_survives_its_run(
    node: LocalDriver, owner: Principal, make_mission: Any, make_agent_client: Callable[..., Any]
) -> None:
    register(owner, "time", "time", "-m", "mcp_server_time")
    assert not [status for status in node.observe() if status.phase is SandboxPhase.RUNNING]
    mission, token = make_mission(Grant("time__get_current_time"))
    agent = make_agent_client(token)
    assert not agent.call("time__get_current_time", {"timezone": "UTC"}).is_error
    (running,) = [status for status in node.observe() if status.phase is SandboxPhase.RUNNING]
    assert running.labels["mission"] == str(mission.pk)
    node.delete(running.name)
    deadline = time.monotonic() + 30
    while agent.call("time__get_current_time", {"timezone": "UTC"}).is_error:  # on its way before the end was heard of
        assert time.monotonic() < deadline
        time.sleep(0.5)
    services.stop_mission(actor=owner, mission_id=mission.pk, reason="Enough.")
    deadline = time.monotonic() + 30
    while any(status.phase is SandboxPhase.RUNNING for status in node.observe()):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert Action.objects.filter(kind="tool.call").latest("pk").state == ActionState.SUCCEEDED


def test_without_a_node_the_call_fails_with_its_reason_and_costs_nothing(
    node: LocalDriver, owner: Principal, make_mission: Any, make_agent_client: Callable[..., Any], monkeypatch: Any
) -> None:
    row = register(owner, "time", "time", "-m", "mcp_server_time")
    _, token = make_mission(Grant("time__get_current_time"))
    monkeypatch.setattr(type(configuration()), "node_socket", property(lambda _: Path("/nonexistent/node.sock")))
    result = make_agent_client(token).call("time__get_current_time", {"timezone": "UTC"})
    assert result.is_error
    assert result.structured_content["reason_code"] == "upstream.not_started"
    action = Action.objects.get(kind="tool.call")
    assert (action.state, action.cost) == (ActionState.FAILED, Decimal(0))
    assert McpTool.objects.filter(server=row, state="active").exists()


def test_a_sample_server_that_can_not_be_started_at_first_is_read_again(owner: Principal, node: LocalDriver) -> None:
    socket = configuration().node_socket
    away = socket.with_suffix(".away")
    socket.rename(away)
    back = threading.Timer(1, away.rename, [socket])
    back.start()
    server = demo.register_need(owner, TIME)
    back.join()
    tool = McpTool.objects.get(server=server, name="get_current_time")
    assert (tool.state, tool.read_only) == (ToolState.ACTIVE, True)


def test_a_sample_server_whose_tools_can_not_be_read_is_said_and_read_the_next_time(
    owner: Principal, node: LocalDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "READ_AGAIN_SECONDS", (0.1,))
    socket = configuration().node_socket
    away = socket.rename(socket.with_suffix(".away"))
    with pytest.raises(RemitError, match="its tools could not be read") as refused:
        demo.register_need(owner, TIME)
    assert refused.value.remedies == ("Press “Read its tools” on its page, under Servers.",)
    assert not McpTool.objects.exists()
    away.rename(socket)
    server = demo.register_need(owner, TIME)
    assert McpServer.objects.count() == 1
    assert server.tools.filter(state=ToolState.ACTIVE, read_only=True).count() == 2
