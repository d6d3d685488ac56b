"""The card that connects an agent of one's own: getting its token, and not losing it by a press."""

from __future__ import annotations

from typing import Any

import pytest
from django.urls import reverse

from agents.catalogue import start_from_template
from agents.models import Mission, Run
from agents.services import stop_mission, submit_mission
from controlplane.common.clock import now
from controlplane.tenancy.models import Token, User

from .browsing import SignIn, page
from .test_in_the_browser import Show, problems_of, show

__all__ = ["show"]


@pytest.fixture
def own(world: Any, make_server: Any) -> Mission:
    """A mission of *Bring your own agent* that waits for its first call."""
    make_server("time", ("get_current_time", "convert_time"))
    mission = start_from_template(actor=world.owner, team_id=world.team.pk, code="bring-your-own", values={})
    submit_mission(actor=world.owner, mission_id=mission.pk)
    return mission


def live_tokens(mission: Mission) -> set[Any]:
    return set(Token.objects.filter(mission_id=mission.pk, revoked_at=None).values_list("pk", flat=True))


def test_a_token_that_works_is_replaced_only_once_that_is_confirmed(
    own: Mission, alice: User, signed_in: SignIn
) -> None:
    browser, address = signed_in(alice), reverse("mission", args=[own.pk])
    show_it = reverse("mission-operate", args=[own.pk, "token"])
    assert "Show the token" in page(browser, f"{address}?part=token")
    browser.post(show_it)
    assert "rmt_run_" in page(browser, address)
    working = live_tokens(own)
    Run.objects.filter(mission=own).update(first_call_at=now())
    part = page(browser, f"{address}?part=token")
    assert "Show the token" not in part
    assert 'data-opens="replace-token"' in part
    browser.post(show_it)  # from a page that does not know of the call yet
    html = page(browser, address)
    assert live_tokens(own) == working
    assert "Your agent has called with its token meanwhile." in html
    assert "rmt_run_" not in html
    browser.post(reverse("mission-operate", args=[own.pk, "replace-token"]))
    assert "rmt_run_" in page(browser, address)
    assert not live_tokens(own) & working


def test_a_draft_and_a_stopped_mission_wait_for_no_call_and_say_where_the_token_is(
    world: Any, make_server: Any, alice: User, signed_in: SignIn
) -> None:
    make_server("time", ("get_current_time", "convert_time"))
    mission = start_from_template(actor=world.owner, team_id=world.team.pk, code="bring-your-own", values={})
    browser, address = signed_in(alice), reverse("mission", args=[mission.pk])
    draft = page(browser, address)
    assert "Waits for its first call" not in draft
    assert "There is one once the mission has started." in draft
    submit_mission(actor=world.owner, mission_id=mission.pk)
    assert "Waits for its first call" in page(browser, address)
    stop_mission(actor=world.owner, mission_id=mission.pk, reason="Enough")
    over = page(browser, address)
    assert "Waits for its first call" not in over
    assert "It died with the mission" in over


@pytest.mark.browser
@pytest.mark.slow
@pytest.mark.parametrize(("theme", "width"), [("light", 1600), ("dark", 360)])
def test_the_first_call_changes_the_button_and_nothing_covers_the_command(
    own: Mission, alice: User, show: Show, theme: str, width: int
) -> None:
    opened = show(alice, reverse("mission", args=[own.pk]), theme=theme, width=width)
    opened.click("#connect-curl > summary")
    assert opened.locator("#connect-curl .code-block").evaluate(
        """block => { const text = document.createRange(); text.selectNodeContents(block.querySelector("code"));
        const button = block.querySelector(".copy").getBoundingClientRect();
        return [...text.getClientRects()].every(line => line.right <= button.left || line.top >= button.bottom); }"""
    )
    label, button = (
        opened.locator(f"#mission-connect {part}") for part in ("dt:nth-of-type(2)", "#mission-token button")
    )
    if width > 420:  # side by side
        middle = [box["y"] + box["height"] / 2 for box in (label.bounding_box(), button.bounding_box())]
        assert abs(middle[0] - middle[1]) <= 2
    wrong = problems_of(opened, "connect-waits", theme)
    Run.objects.filter(mission=own).update(first_call_at=now())
    opened.evaluate("htmx.trigger('#mission-token', 'live')")
    opened.click("text=Replace the token")
    opened.wait_for_selector("text=stops working at once")
    assert [*wrong, *problems_of(opened, "connect-replace", theme)] == []
