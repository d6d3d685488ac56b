"""A stock MCP client with a run token uses stock servers through `/mcp`, inside a mission and not an inch beyond it."""

from __future__ import annotations

import json
import shutil
from typing import Any

import httpx2
import pytest
from mcp.client.session import ClientSession
from mcp.client.streamable_http import streamable_http_client

from tests.end_to_end.conftest import Installation, in_own_loop

pytestmark = [pytest.mark.sandbox, pytest.mark.slow, pytest.mark.timeout(400)]

# Registers servers as Nadia would, starts an external mission that may use some of their tools, prints token and server
# faults.
ARRANGE = """
import json, shutil, uuid
from datetime import timedelta
from decimal import Decimal
from django.conf import settings
from agents import services
from agents.catalogue import demo
from agents.catalogue.templates import folder_of
from agents.choices import Runtime, Transport
from agents.grants import Grant
from agents.models import McpServer
from agents.samples.receivables.book import build as book
from agents.samples.caretaker.repository import build as repository
from agents.servers import services as servers
from agents.servers.types import MountRequest, RunContext
from controlplane.common.clock import now
from controlplane.tenancy.models import Organisation, Team
organisation = Organisation.objects.get(slug='northwind')
nadia = demo.principal_of(demo.NADIA, organisation)
team = Team.objects.get(organisation=organisation, name=demo.TEAM)
faults = {}
node = NODE
if node:
    folder = MountRequest('missions/{mission}/files', '/data', True)
    wanted = (('files', '@modelcontextprotocol/server-filesystem', ('/data',), (folder,)),
              ('everything', '@modelcontextprotocol/server-everything', (), ()))
    for slug, environment, command, mounts in wanted:
        if McpServer.objects.filter(organisation=organisation, slug=slug).exists():
            continue
        server = servers.register_server(actor=nadia, name=slug, slug=slug, transport=Transport.STDIO,
                                         environment=environment, command=command, mounts=mounts)
        faults[slug] = servers.refresh_tools(actor=nadia, server_id=server.pk).fault
name = 'Stock ' + uuid.uuid4().hex[:6]
agent = services.register_agent(actor=nadia, team_id=team.pk, name=name, runtime=Runtime.EXTERNAL)
grants = [Grant('sqlite__read_query', constraints={'query': {'like': 'SELECT *'}}), Grant('sqlite__list_tables'),
          Grant('git__git_status', constraints={'repo_path': {'equals': '/data/repository'}}),
          Grant('time__get_current_time'), Grant('files__write_file', constraints={'path': {'starts_with': '/data/'}}),
          Grant('files__read_text_file', constraints={'path': {'starts_with': '/data/'}}), Grant('everything__echo')]
mission = services.draft_mission(actor=nadia, agent_id=agent.pk, title='Stock servers', remit=services.Remit(
    goal='Use stock servers.', criteria=['Used'], grants=grants, budget_money=Decimal('2'), budget_steps=200,
    deadline=now() + timedelta(hours=1)))
book(folder_of(mission.pk) / 'book', today=now().date())
repository(folder_of(mission.pk) / 'repository', today=now().date())
(folder_of(mission.pk) / 'files').mkdir()
services.submit_mission(actor=nadia, mission_id=mission.pk)
print(json.dumps({'token': services.issue_run_token(actor=nadia, mission_id=mission.pk), 'faults': faults}))
"""

CALLS = {
    "sqlite__read_query": {"query": "SELECT count(*) AS invoices FROM invoices"},
    "sqlite__list_tables": {},
    "git__git_status": {"repo_path": "/data/repository"},
    "time__get_current_time": {"timezone": "UTC"},
}
NODE_CALLS = {
    "files__write_file": {"path": "/data/note.txt", "content": "kept"},
    "files__read_text_file": {"path": "/data/note.txt"},
    "everything__echo": {"message": "hello"},
}
REFUSED = {
    "sqlite__write_query": ({"query": "DELETE FROM invoices"}, "grant.missing"),
    "sqlite__read_query": ({"query": "PRAGMA table_info(invoices)"}, "grant.argument_outside"),
    "git__git_reset": ({"repo_path": "/data/repository"}, "grant.missing"),
    "git__git_status": ({"repo_path": "/etc"}, "grant.argument_outside"),
}


async def use(
    url: str, token: str, calls: dict[str, dict[str, Any]]
) -> tuple[set[str], dict[str, Any], dict[str, Any]]:
    client = httpx2.AsyncClient(headers={"Authorization": f"Bearer {token}"}, timeout=90)
    async with (
        client,
        streamable_http_client(url, http_client=client) as (read, write, *_),
        ClientSession(read, write) as session,
    ):
        await session.initialize()
        names = {tool.name for tool in (await session.list_tools()).tools}
        results = {name: await session.call_tool(name, arguments) for name, arguments in calls.items()}
        refused = {name: await session.call_tool(name, arguments) for name, (arguments, _) in REFUSED.items()}
        return names, results, refused


def test_stock_servers_work_through_the_gateway_and_what_is_not_granted_is_invisible_and_refused(
    remit: Installation,
) -> None:
    node = shutil.which("node") is not None and shutil.which("npm") is not None
    arranged = json.loads(remit.shell(ARRANGE.replace("NODE", str(node))))
    assert not any(arranged["faults"].values()), arranged["faults"]
    calls = {**CALLS, **(NODE_CALLS if node else {})}
    names, results, refused = in_own_loop(use(f"{remit.url}/mcp", arranged["token"], calls))

    assert set(calls) <= names
    assert not {"sqlite__write_query", "git__git_reset", "files__move_file", "books__apply_credit"} & names
    for name, result in results.items():
        assert not result.is_error, f"{name}: {result.content}"
        assert result.meta["remit/source"]["trust"] == "untrusted"
    assert "240" in results["sqlite__read_query"].content[0].text
    if node:
        assert "kept" in results["files__read_text_file"].content[0].text
    for name, (_, code) in REFUSED.items():
        assert refused[name].is_error
        assert refused[name].structured_content["reason_code"] == code
