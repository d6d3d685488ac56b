"""Lists cost the same with 3 rows as with 30, and strangers' text is only ever text."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.core.cache import cache
from django.test import Client
from django.urls import reverse

from agents import services as agents
from agents.choices import Runtime
from agents.models import Mission
from controlplane.tenancy.models import User
from governance.models import Escalation

SignIn = Callable[..., Client]
HOSTILE = "<script>alert(1)</script>\u202egnp.exe\u200b\x1b[31m{{ 7|add:7 }}"


def more(world: Any, make_server: Any, number: int, start: int) -> None:
    """So many more agents, missions, servers, questions and settled calls."""
    for index in range(start, start + number):
        agent = agents.register_agent(
            actor=world.owner, team_id=world.team.pk, name=f"Agent {index}", runtime=Runtime.EXTERNAL
        )
        mission = agents.draft_mission(
            actor=world.owner, agent_id=agent.pk, title=f"Mission {index}", remit=world.plain_remit()
        )
        agents.submit_mission(actor=world.owner, mission_id=mission.pk)
        make_server(f"server{index}", ("one", "two"))
        world.ask_credit(f"{200 + index}.00")
        world.act("books__customer", invoice=f"INV-{index}")


@pytest.mark.parametrize(
    "name",
    ["home", "missions", "approvals", "agents", "budgets", "audit", "servers", "decided", "mission", "agent", "budget"],
)
def test_a_page_costs_no_more_queries_with_thirty_rows_than_with_three(
    world: Any, make_server: Any, nadia: User, signed_in: SignIn, queries: Callable[..., int], name: str
) -> None:
    browser = signed_in(nadia)
    path = {
        "decided": reverse("approvals") + "?tab=open",
        "mission": reverse("mission", args=[world.mission.pk]),
        "agent": reverse("agent", args=[world.agent.pk]),
        "budget": reverse("budget", args=[world.account_of("team", world.team.pk)]),
    }.get(name) or reverse(name)
    more(world, make_server, 3, 0)
    cache.clear()
    few = queries(browser, path)
    more(world, make_server, 27, 3)
    cache.clear()
    assert queries(browser, path) <= few  # fewer when the newest rows need no further look
    assert few <= 37


@pytest.mark.parametrize(
    ("tab", "part", "most"),
    [("", "stop", 7), ("", "head", 19), ("", "spend", 10), ("", "timeline", 17), ("checklist", "checks", 7)],
)
def test_a_part_that_an_open_page_asks_for_reads_only_what_it_shows(
    world: Any, nadia: User, signed_in: SignIn, queries: Callable[..., int], tab: str, part: str, most: int
) -> None:
    world.ask_credit("200.00")
    mission = [world.mission.pk]
    path = reverse("mission-tab", args=[*mission, tab]) if tab else reverse("mission", args=mission)
    assert queries(signed_in(nadia), f"{path}?part={part}") <= most


def test_strangers_text_is_shown_and_never_run(world: Any, nadia: User, bob: User, signed_in: SignIn) -> None:
    Mission.objects.filter(pk=world.mission.pk).update(title=HOSTILE[:160])
    escalation = world.ask_credit(reason=HOSTILE)
    Escalation.objects.filter(pk=escalation.pk).update(title=HOSTILE[:200])
    signed_in(bob).post(
        reverse("approval-decide", args=[escalation.pk]), {"answer": "deny", "version": "1", "reason": HOSTILE}
    )
    other = world.ask_credit("222.00", HOSTILE)
    browser = signed_in(nadia)
    for path in (
        reverse("home"),
        reverse("missions"),
        reverse("mission", args=[world.mission.pk]),
        reverse("approvals"),
        reverse("approvals") + "?tab=decided",
        reverse("approval", args=[escalation.pk]),
        reverse("approval", args=[other.pk]),
        reverse("action", args=[other.action_id]),
        reverse("agent", args=[world.agent.pk]),
        reverse("audit"),
        reverse("search") + "?q=script",
        reverse("server", args=[world.server.pk]),
    ):
        html = browser.get(path).content.decode()
        assert "<script>alert" not in html, path
        body = html.split("<body")[1]
        assert "\u202e" not in body, path
        assert "\x1b" not in body, path
        whole = html.replace('<span class="long">', "").replace("</span>", "")
        assert "{{ 7|add:7 }}" in whole or "7|add:7" not in whole, path
