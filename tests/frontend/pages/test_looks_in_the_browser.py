"""Where things stand on the screen, as a person sees them: in line with each other, and whole."""

from __future__ import annotations

from typing import Any

import pytest
from django.urls import reverse

from controlplane.tenancy.models import User

from .test_costs import spent
from .test_in_the_browser import Show, show

__all__ = ["show", "spent"]
pytestmark = [pytest.mark.browser, pytest.mark.slow]
WRITTEN = """element => { const text = document.createRange(); text.selectNodeContents(element);
    return text.getBoundingClientRect().bottom; }"""


def test_the_search_keeps_its_distance_and_what_a_strip_offers_stands_on_one_line(
    world: Any, nadia: User, show: Show
) -> None:
    page = show(nadia, reverse("budgets"))
    field, card = (
        page.locator(path).first.bounding_box() for path in ("[type=search][name=q][aria-label^=Name]", ".card")
    )
    assert field["x"] - card["x"] >= 14
    link, button = (page.locator(f"#strip-judge-off {each}").evaluate(WRITTEN) for each in ("a", "button"))
    assert abs(link - button) < 0.5


def test_the_filters_of_the_trail_are_folded_on_a_phone_until_one_is_set(world: Any, nadia: User, show: Show) -> None:
    page = show(nadia, reverse("audit"), width=360)
    form, person, more = page.locator("form.filters"), page.locator("select[name=person]"), "More filters"
    assert not person.is_visible()
    assert form.bounding_box()["height"] < 140
    page.get_by_label(more).check()
    person.select_option("Alice")
    form.get_by_role("button", name="Filter").click()
    page.wait_for_url("**person=**")
    assert person.is_visible()
    wide = show(nadia, reverse("audit"), width=1600)
    assert wide.locator("select[name=person]").is_visible()
    assert not wide.get_by_label(more).is_visible()


def test_every_label_of_the_days_is_whole_on_a_phone(spent: Any, finn: User, show: Show) -> None:
    page = show(finn, f"{reverse('costs')}?by=time", width=360)
    bars = page.locator("svg.bars:has(line)").first
    assert bars.locator("text[text-anchor=middle]").count() > 2
    assert bars.evaluate(
        """svg => [...svg.querySelectorAll("text")].every(text =>
        text.getBoundingClientRect().right <= svg.getBoundingClientRect().right)"""
    )
