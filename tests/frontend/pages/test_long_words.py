"""Names without a space, as long as they may be: no page becomes wider than the screen."""

from __future__ import annotations

from typing import Any

import pytest
from django.urls import reverse

from agents.models import Agent, McpServer, Mission
from controlplane.tenancy.models import Team, User
from governance.models import Escalation

from .test_in_the_browser import Show, show

__all__ = ["show"]

# Elements that stick out of the screen and can't be scrolled to by themselves.
BEYOND = """() => {
  const width = document.documentElement.clientWidth;
  const scrolls = (element) => element.closest("main, header") !== element
    && getComputedStyle(element).overflowX !== "visible";
  const held = (element) => {
    for (let at = element; at && !at.matches("main, header"); at = at.parentElement) if (scrolls(at)) return true;
    return false;
  };
  return [...document.querySelectorAll("body *")].filter((element) => {
    const box = element.getBoundingClientRect();
    return box.width > 0 && Math.max(box.right, box.left + element.scrollWidth) > width + 1 && !held(element);
  }).slice(-3).map((element) => {
    const path = [];
    for (let at = element; at && path.length < 4; at = at.parentElement) path.unshift(`${at.tagName}.${at.className}`);
    return `${path.join(" > ")} “${element.textContent.slice(0, 30)}”`;
  });
}"""


@pytest.mark.browser
@pytest.mark.slow
@pytest.mark.parametrize("width", [360, 1280])
def test_names_of_one_long_word_widen_no_page(world: Any, dana: User, nadia: User, show: Show, width: int) -> None:
    long = "Overdue" * 22
    asked = world.ask_credit("240.00", "w" * 200)
    Mission.objects.update(title=long)
    Agent.objects.update(name=long[:100])
    McpServer.objects.update(name=long[:100])
    Team.objects.update(name=long[:80])
    User.objects.filter(pk=nadia.pk).update(name=long[:100])
    Escalation.objects.update(title=long)
    mission, agent = world.mission.pk, world.agent.pk
    addresses = {
        "home": reverse("home"),
        "missions": reverse("missions"),
        "mission": reverse("mission", args=[mission]),
        **{tab: reverse("mission", args=[mission]) + f"/{tab}" for tab in ("remit", "budget", "checklist", "runs")},
        "agents": reverse("agents"),
        "agent": reverse("agent", args=[agent]),
        "approvals": reverse("approvals"),
        "approval": reverse("approval", args=[asked.pk]),
        "action": reverse("action", args=[asked.action_id]),
        "budgets": reverse("budgets"),
        "costs": reverse("costs"),
        "servers": reverse("servers"),
        "stops": reverse("stops"),
        "search": reverse("search") + "?q=Overdue",
        "members": reverse("members"),
        "teams": reverse("teams"),
        "new": reverse("mission-new"),
        "notices": reverse("notices"),
        "audit": reverse("audit"),
        "audit of one": reverse("audit") + f"?actor={nadia.pk}&mission={mission}",
    }
    wrong = []
    for person in (dana, nadia):
        page = show(person, reverse("home"), width=width)
        for name, address in addresses.items():
            response = page.goto(address, wait_until="load")
            if response is not None and response.status == 404:
                continue
            if page.evaluate("document.documentElement.scrollWidth") > width or page.evaluate(BEYOND):
                wrong.append(f"{name} ({person.name[:10]}): {page.evaluate(BEYOND)}")
    assert not wrong, "\n".join(wrong)
