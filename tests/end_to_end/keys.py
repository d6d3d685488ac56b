"""A person without a mouse: whatever is used has to be reached with Tab, or has a key that `?` names."""

from __future__ import annotations

import re
from datetime import date
from typing import Any

FOCUSED = "element => element === document.activeElement"
MOST_STEPS = 250
ORDERS_OF_A_DAY = ("%m%d%Y", "%d%m%Y", "%Y%m%d")


def reach(page: Any, target: Any) -> None:
    """Tab until it has the focus. Fails where Tab never gets there."""
    target.wait_for()
    for _ in range(MOST_STEPS):
        if target.evaluate(FOCUSED):
            return
        page.keyboard.press("Tab")
    raise AssertionError(f"Tab never reaches {target} on {page.url}")


def press(page: Any, target: Any) -> None:
    """A button, a link or a fold."""
    reach(page, target)
    page.keyboard.press("Enter")


def write(page: Any, target: Any, text: str) -> None:
    """In place of what stands in the field."""
    reach(page, target)
    page.keyboard.press("Control+a")
    page.keyboard.type(text)


def write_day(page: Any, target: Any, day: date) -> None:
    """Part by part, in the order the field wants them: the machine's own, which a person sees. Here it is the one after
    which the field holds the day."""
    reach(page, target)
    for order in ORDERS_OF_A_DAY:
        for _ in range(2):
            page.keyboard.press("ArrowLeft")  # back to the first part, from wherever the last attempt ended
        page.keyboard.type(day.strftime(order))
        if target.input_value() == day.isoformat():
            return
    raise AssertionError(f"typing {day} left {target.input_value()!r} in {target}")


def choose(page: Any, target: Any, option: str) -> None:
    """By typing what the option is called."""
    reach(page, target)
    page.keyboard.type(option)
    chosen = target.evaluate("select => select.selectedOptions[0].textContent")
    assert chosen.startswith(option), f"typing {option} chose {chosen}"


def go_to(page: Any, place: str) -> None:
    """Through the palette."""
    page.keyboard.press("Control+k")
    page.locator("dialog:modal input").wait_for()
    page.keyboard.type(place)
    page.locator("dialog:modal").get_by_role("option", name=place).first.wait_for()
    with page.expect_navigation():  # also where the page is the one that is shown
        page.keyboard.press("Enter")
    page.locator(".rail [aria-current=page]").filter(has_text=place).wait_for()


def open_row(page: Any, text: str) -> None:
    """Down the list with j until the row under the cursor says so."""
    row = page.locator('[data-rows] [data-row][aria-current="true"]')
    for _ in range(50):
        if row.count() and text in row.inner_text() and row.locator("a").first.evaluate(FOCUSED):
            page.keyboard.press("Enter")
            # The inbox shows the card of its first row as well: until the page is that question's, a key would be lost.
            page.wait_for_url(re.compile(r"/approvals/[0-9a-f-]{36}"))
            page.locator("#approval-card").get_by_text(text).first.wait_for()
            return
        page.keyboard.press("j")
    raise AssertionError(f"no row says {text}: {page.locator('[data-rows]').first.inner_text()}")


def reload_until(page: Any, target: Any, *, shown: bool) -> None:
    """For what pages keep for some seconds."""
    for _ in range(30):
        if (target.count() > 0) is shown:
            return
        page.wait_for_timeout(1000)
        page.reload()
    raise AssertionError(f"{target} is {'not ' if shown else 'still '}shown on {page.url}")
