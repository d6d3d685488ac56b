"""The list of missions, and a mission's page: its tabs and parts, its timeline, and what its buttons do."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.urls import reverse

from agents.models import Mission
from controlplane.tenancy.models import User

from .browsing import SignIn, page


def test_a_mission_that_never_started_has_every_tab(world: Any, alice: User, signed_in: SignIn) -> None:
    draft = world.draft("Later")
    for tab in ("remit", "budget", "output", "checklist", "runs"):
        page(signed_in(alice), reverse("mission-tab", args=[draft.pk, tab]))
    assert "Not started" in page(signed_in(alice), reverse("mission", args=[draft.pk]))


def test_unknown_tabs_parts_and_operations_do_not_exist(world: Any, alice: User, signed_in: SignIn) -> None:
    browser, path = signed_in(alice), reverse("mission", args=[world.mission.pk])
    page(browser, path + "/nonsense", 404)
    page(browser, path + "?part=../../base", 404)
    page(browser, path + "/remit?part=timeline", 404)
    assert browser.post(path + "/do/explode").status_code == 404


def test_pausing_resuming_and_stopping_from_the_page(world: Any, alice: User, signed_in: SignIn) -> None:
    browser = signed_in(alice)
    for what, state in (("pause", "paused"), ("resume", "active"), ("stop", "stopped")):
        browser.post(reverse("mission-operate", args=[world.mission.pk, what]))
        assert Mission.objects.get(pk=world.mission.pk).state == state
    assert browser.post(reverse("mission-operate", args=[world.mission.pk, "pause"])).status_code == 409


def test_the_list_of_missions_says_whom_each_waits_for_and_keeps_views(
    world: Any, alice: User, bob: User, signed_in: SignIn
) -> None:
    world.draft("Still a draft")
    browser = signed_in(alice)
    asking = reverse("missions") + "?asking=1"
    assert "Nothing matches" in page(browser, asking)
    world.ask_credit("150.00")
    world.ask_credit("160.00")
    html = page(browser, asking)
    assert "Chase overdue invoices" in html
    assert "Still a draft" not in html
    assert re.search(r"Waits for Bob; 1 more question", html)
    assert str(world.mission.versions.get().goal)[:40] in html
    assert "Chase overdue invoices" not in page(browser, reverse("missions") + "?outcome=claimed")
    assert page(browser, reverse("missions") + "?outcome=nonsense").count("data-row ") == 2


def test_a_view_of_several_states_stays_while_its_list_is_narrowed_further(
    world: Any, alice: User, signed_in: SignIn
) -> None:
    browser = signed_in(alice)
    shown = browser.get(reverse("missions") + f"?state=active,paused&agent={world.agent.pk}").content.decode()
    assert '<option value="active,paused" selected>' in shown
    assert f'<input type="hidden" name="agent" value="{world.agent.pk}">' in shown
    for query in ("state=active,paused", "state=active&state=paused"):
        assert (
            world.mission.title in browser.get(reverse("missions") + f"?q={world.agent.name}&{query}").content.decode()
        )
    assert "Nothing matches" in browser.get(reverse("missions") + "?state=paused,failed").content.decode()


def test_an_earlier_page_of_the_timeline_is_not_refreshed_away(
    busy: Any, alice: User, signed_in: SignIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agents.timeline.LENGTH", 5)
    browser, path = signed_in(alice), reverse("mission", args=[busy.mission.pk])
    older = re.search(r"\?before=([0-9a-f-]{36})", page(browser, path))
    assert older
    html = page(browser, f"{path}?before={older[1]}")
    timeline = html[html.index('id="mission-timeline"') :].split(">", 1)[0]
    assert "data-live-part" not in timeline
    assert "Latest" in html


def test_refused_calls_cost_nothing_on_the_timeline(world: Any, alice: User, signed_in: SignIn) -> None:
    world.act("sqlite__write_query", query="DROP TABLE invoices")
    html = page(signed_in(alice), reverse("mission", args=[world.mission.pk]) + "?part=timeline")
    line = next(item for item in html.split("<li") if "sqlite__write_query" in item)
    assert "$0.00" in line
    assert "$0.01" not in line
