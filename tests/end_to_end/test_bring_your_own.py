"""*Bring your own agent*: from sign-in to the first governed action of a client that knows nothing of Remit."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from typing import Any

import httpx2
import pytest
from mcp.client.session import ClientSession
from mcp.client.streamable_http import streamable_http_client

from tests.end_to_end.conftest import Installation, in_own_loop, wait_for

pytestmark = [pytest.mark.browser, pytest.mark.sandbox, pytest.mark.slow, pytest.mark.timeout(400)]


async def call_tools(url: str, token: str) -> tuple[list[str], Any, Any, Any]:
    """A stock client: what it sees, one granted call, one that asks a person, one that is not granted."""
    client = httpx2.AsyncClient(headers={"Authorization": f"Bearer {token}"}, timeout=60)
    async with (
        client,
        streamable_http_client(url, http_client=client) as (read, write, *_),
        ClientSession(read, write) as session,
    ):
        await session.initialize()
        names = [tool.name for tool in (await session.list_tools()).tools]
        now = await session.call_tool("time__get_current_time", {"timezone": "Europe/Helsinki"})
        asked = await session.call_tool(
            "time__convert_time", {"source_timezone": "UTC", "time": "12:00", "target_timezone": "Asia/Tokyo"}
        )
        refused = await session.call_tool("books__overdue", {"older_than_days": 30})
        return names, now, asked, refused


def test_the_terminal_names_the_people_and_says_when_the_samples_are_ready(remit: Installation) -> None:
    screen = (remit.state.parent / "up.log").read_text()
    for who in ("nadia", "dana", "finn"):
        assert f"{who}@northwind.example" in screen
    wait_for(lambda: "The samples are ready." in (remit.state.parent / "up.log").read_text(), 30)
    assert f"STATE_DIR={remit.state}" in screen


def test_own_agent_makes_its_first_governed_call_from_what_the_page_shows(
    remit: Installation, signed_in: Callable[[str], Any]
) -> None:
    page = signed_in("nadia")
    page.get_by_role("link", name="New mission").click()
    page.get_by_role("link", name="Bring your own agent").click()
    page.get_by_label("Name of your agent").fill("Weather watcher")
    page.get_by_role("button", name="Start mission").click()
    page.get_by_role("button", name="Show the token").click()
    token = page.locator("#mission-connect .secret code").inner_text().strip()
    assert token.startswith("rmt_run_")
    settings = json.loads(page.locator("#connect-mcp pre").inner_text())["mcpServers"]["remit"]
    assert settings["headers"]["Authorization"] == f"Bearer {token}"
    page.get_by_text("Waits for its first call").wait_for()

    names, now, asked, refused = in_own_loop(call_tools(settings["url"], token))
    page.get_by_text("Connected").wait_for(timeout=20_000)  # by itself: the page was not reloaded
    assert "time__get_current_time" in names
    assert "remit__mission" in names
    assert "books__overdue" not in names
    assert not now.is_error
    assert "Helsinki" in now.content[0].text
    assert asked.is_error
    assert asked.structured_content["verdict"] == "escalate"
    assert asked.structured_content["escalation"]["id"]
    assert refused.is_error
    assert refused.structured_content["reason_code"] == "grant.missing"

    command = page.locator("#connect-curl pre").inner_text()
    answer = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=30, check=True).stdout
    result = json.loads(answer)["result"]
    assert result["isError"] is False
    assert "Helsinki" in result["content"][0]["text"]
    state = remit.shell(
        f"from governance.models import Action; print(Action.objects.get(pk={result['_meta']['remit/action']!r}).state)"
    )
    assert state == "succeeded"

    page.reload()
    assert token not in page.content()  # shown once
