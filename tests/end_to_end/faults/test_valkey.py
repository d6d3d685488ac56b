"""Valkey dead, wiped or silent: it carries wake-ups and hints only, so nothing that counts waits for it."""

from __future__ import annotations

import json
import shutil
import time

import pytest
import redis
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from tests.end_to_end.faults.site import Agent, Mission, Site, wait_until

pytestmark = [pytest.mark.sandbox, pytest.mark.slow, pytest.mark.timeout(300)]


def open_live(site: Site, mission: Mission) -> ClientConnection:
    """A program's socket, subscribed to the mission."""
    socket = connect(
        f"ws://localhost:{site.port}/live",
        additional_headers={"Authorization": f"Bearer {mission.token}"},
        open_timeout=10,
    )
    socket.send(json.dumps({"subscribe": [f"mission:{mission.id}"]}))
    return socket


def hears_of(site: Site, agent: Agent, mission: Mission, line: str) -> bool:
    """Whether a socket opened now hears that the mission changes."""
    try:
        with open_live(site, mission) as socket:
            time.sleep(0.3)
            agent.write(line)
            for _ in range(20):
                if json.loads(socket.recv(timeout=2)).get("topic") == f"mission:{mission.id}":
                    return True
    except (ConnectionClosed, TimeoutError, OSError):
        pass
    return False


def test_valkey_killed_and_wiped_costs_no_decision_and_no_page_and_everything_catches_up(
    site: Site, agent: Agent, mission: Mission
) -> None:
    assert agent.write("before").carried_out
    nadia = site.person("nadia")
    with site.away("valkey-server"):
        assert agent.write("during").carried_out
        page = nadia.get(f"/missions/{mission.id}")
        assert page.status_code == 200
        assert page.text.count("diary__write") >= 2
        shutil.rmtree(site.state / "valkey" / "appendonlydir")
    with redis.Redis.from_url(site.variables()["REDIS_URL"]) as client:
        wait_until(lambda: _answers(client), "Valkey")
    nadia.close()
    site.wait_recovered()
    # The worker finds it again: sweeps go on. Pages find it again: hints arrive.
    wait_until(lambda: site.unsealed() == 0, "the sweeps to go on")
    lines = iter(range(100))
    wait_until(lambda: hears_of(site, agent, mission, f"after-{next(lines)}"), "a live hint")
    assert site.states(mission)["succeeded"] == site.value(
        "SELECT count(*) FROM governance_action WHERE mission_id = %s", mission.id
    )
    assert set(site.diary(mission).values()) == {1}
    assert site.open_holds(mission) == 0


def _answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False


def test_a_valkey_that_is_silent_holds_no_decision_up(site: Site, agent: Agent, mission: Mission) -> None:
    agent.write("before")
    with site.silent("valkey-server"):
        for number in range(5):
            assert agent.call("diary__write", {"line": f"during-{number}"}, seconds=15).carried_out
    assert site.states(mission)["succeeded"] >= 6
    wait_until(lambda: site.unsealed() == 0, "the sweeps to go on")
    assert site.open_holds(mission) == 0
