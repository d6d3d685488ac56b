"""Names without a space, as long as they may be: no page becomes wider than the screen."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.urls import reverse

from agents.models import Agent, McpServer, Mission
from budgets.costs.models import CostMission
from budgets.models import Account
from controlplane.common.clock import now
from controlplane.tenancy.credentials import issue_personal_token
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
    mission = reverse("mission", args=[world.mission.pk])
    lists = (
        "home",
        "missions",
        "agents",
        "budgets",
        "costs",
        "servers",
        "stops",
        "members",
        "teams",
        "notices",
        "audit",
    )
    looked_at = {
        dana: ["/", reverse("approvals"), reverse("approval", args=[asked.pk])],
        nadia: [
            *map(reverse, (*lists, "audit", "mission-new")),
            *(f"{mission}{tab}" for tab in ("", "/remit", "/budget", "/checklist", "/runs")),
            reverse("agent", args=[world.agent.pk]),
            reverse("action", args=[asked.action_id]),
            f"{reverse('search')}?q=Overdue",
            f"{reverse('audit')}?actor={nadia.pk}&mission={world.mission.pk}",
        ],
    }
    wrong = []
    for person, addresses in looked_at.items():
        page = show(person, addresses[0], width=width)
        for address in addresses:
            assert page.goto(address, wait_until="load").status == 200, address
            beyond = page.evaluate(BEYOND)
            if beyond or page.evaluate("document.documentElement.scrollWidth") > width:
                wrong.append(f"{address}: {beyond}")
    assert not wrong, "\n".join(wrong)


# Regions that hold more to the side than they show.
SIDEWAYS = """() => [...document.querySelectorAll("main .scroll")].filter(
  (region) => region.scrollWidth > region.clientWidth + 1 && region.querySelector("table") && !region.closest("td")
).map((region) => `${region.getAttribute("aria-label")}: ${region.scrollWidth} in ${region.clientWidth}`)"""


@pytest.mark.browser
@pytest.mark.slow
@pytest.mark.parametrize("width", [1280, 1600])
def test_long_words_push_no_column_of_a_table_out_of_sight(
    busy: Any, dana: User, nadia: User, as_nadia: Any, show: Show, width: int
) -> None:
    word = "Overdue" * 100
    asked = busy.ask_credit("240.00", word[:200])
    Mission.objects.update(title=word[:160], state_reason=word[:300])
    Agent.objects.update(name=word[:120], description=word[:500])
    McpServer.objects.update(name=word[:120], error=word[:300])
    Team.objects.update(name=word[:120])
    User.objects.update(name=word[:120])
    Account.objects.update(name=word[:160], frozen_reason=word[:300])
    Escalation.objects.filter(pk=asked.pk).update(title=word[:160])
    issue_personal_token(principal=as_nadia, user=nadia, name=word[:120], expires_at=now() + timedelta(days=30))
    mission = reverse("mission", args=[busy.mission.pk])
    lists = (
        *("missions", "agents", "budgets", "costs", "servers", "stops", "members", "teams", "tokens", "audit"),
        *("approval-health", "settings-approvals", "policies"),
    )
    addresses = [
        *map(reverse, lists),
        *(f"{mission}{tab}" for tab in ("", "/remit", "/budget", "/checklist", "/runs")),
        *(reverse("budget", args=[pk]) for pk in Account.objects.values_list("pk", flat=True)),
        reverse("agent", args=[busy.agent.pk]),
        reverse("server", args=[busy.server.pk]),
        *(reverse("cost-goal", args=[goal]) for goal in CostMission.objects.values_list("goal", flat=True)),
    ]
    page, wrong = show(nadia, "/", width=width), []
    for address in addresses:
        assert page.goto(address, wait_until="load").status == 200, address
        wrong += [f"{address}: {each}" for each in page.evaluate(SIDEWAYS)]
    assert not wrong, "\n".join(wrong)
