"""The Receivables mission watched in a browser: live verdicts of all kinds, one approval, outcome accepted, audit
verified."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe

from tests.end_to_end import pictures
from tests.end_to_end.conftest import Installation

pytestmark = [pytest.mark.browser, pytest.mark.sandbox, pytest.mark.slow, pytest.mark.timeout(600)]

RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}
ALL_LOOKS = ("light", "dark", "phone")


def examine(page: Any, remit: Installation, name: str, *looks: str) -> None:
    """No axe violation in either theme; pictures in these looks where they are asked for."""
    for theme in ("light", "dark"):
        page.context.add_cookies([{"name": "remit_theme", "value": theme, "url": remit.url}])
        page.reload()
        page.wait_for_load_state("networkidle")
        found = Axe().run(page, options=RULES)
        assert found.violations_count == 0, f"{name}, {theme}: {found.generate_report()}"
    if pictures.FOLDER:
        pictures.take_in(page, remit.url, name, *looks)


def test_a_newcomer_sees_every_verdict_and_the_mission_ends_accepted(
    remit: Installation, signed_in: Callable[[str], Any]
) -> None:
    nadia = signed_in("nadia")
    nadia.get_by_role("link", name="Chase overdue invoices").first.click()
    timeline = nadia.locator("#mission-timeline")
    nadia.evaluate("window.untouched = true")

    # Everything below appears by itself: the page is never reloaded.
    timeline.get_by_text("sqlite__write_query").first.wait_for(timeout=120_000)
    timeline.get_by_text("This mission may not use sqlite__write_query").first.wait_for()
    timeline.get_by_text("books__attachment is allowed only within limits").first.wait_for()
    timeline.get_by_text("the same result again and again").first.wait_for(timeout=120_000)
    timeline.get_by_text("Waits for Dana").first.wait_for(timeout=120_000)

    dana = signed_in("dana")
    dana.get_by_role("link", name="Approvals").first.click()
    card = dana.locator("#approval-card")
    card.get_by_text("240.00", exact=True).first.wait_for()
    examine(dana, remit, "approvals", *ALL_LOOKS)
    card.get_by_role("button", name="Approve once").click()
    dana.get_by_text(re.compile("Approved", re.IGNORECASE)).first.wait_for()

    timeline.get_by_text("Approved by Dana").first.wait_for(timeout=60_000)
    nadia.get_by_role("button", name="Accept outcome").wait_for(timeout=120_000)
    assert nadia.evaluate("window.untouched") is True

    for page, path, name, looks in (
        (nadia, "/", "home", ALL_LOOKS),
        (nadia, "/missions", "missions", ("light",)),
        (nadia, nadia.url.removeprefix(remit.url), "mission", ALL_LOOKS),
        (nadia, "/missions/new", "new-mission", ("light",)),
        (nadia, "/agents", "agents", ("light",)),
        (nadia, "/budgets", "budgets", ("light",)),
        (dana, "/approvals?tab=decided", "approvals-decided", ()),
        (dana, "/audit", "audit", ("light",)),
        (dana, "/servers", "servers", ("light",)),
    ):
        page.goto(remit.url + path)
        examine(page, remit, name, *looks)

    nadia.goto(f"{remit.url}/missions")
    nadia.get_by_role("link", name="Chase overdue invoices").first.click()
    nadia.locator("#mission-timeline").get_by_role("link", name="sqlite__write_query").first.click()
    nadia.get_by_role("heading", name="How it was judged").wait_for()
    examine(nadia, remit, "action", *ALL_LOOKS)
    nadia.go_back()
    nadia.goto(f"{remit.url}/missions")
    nadia.get_by_role("link", name="Chase overdue invoices").first.click()
    nadia.get_by_role("button", name="Accept outcome").click()
    nadia.get_by_role("button", name="Accept for good").click()
    nadia.get_by_text("Outcome accepted").first.wait_for()
    nadia.get_by_text("Succeeded").first.wait_for()

    verified = remit.manage("audit", "verify", "--json")
    assert json.loads(verified.splitlines()[-1])["intact"] is True
    credits = remit.shell(
        "from governance.models import Action; print(sorted(a.arguments['amount'] for a in "
        "Action.objects.filter(tool='books__apply_credit', state='succeeded')))"
    )
    assert credits.count("240.00") == 1


@pytest.mark.skipif(not pictures.FOLDER, reason="only for the pictures of the documentation")
def test_pictures_of_costs_stops_and_settings(remit: Installation, signed_in: Callable[[str], Any]) -> None:
    nadia, dana = signed_in("nadia"), signed_in("dana")
    nadia.goto(f"{remit.url}/missions/new")
    nadia.get_by_role("button", name="Start mission").click()
    nadia.locator("#mission-timeline").get_by_text("books__overdue").first.wait_for(timeout=120_000)
    nadia.locator("#mission-stop").get_by_role("link", name="Stop").click()
    nadia.get_by_role("button", name="Stop it now").click()
    nadia.get_by_role("heading", level=1).get_by_text("Chase overdue").wait_for()
    nadia.wait_for_load_state("networkidle")
    pictures.take_in(nadia, remit.url, "stop", "light", "dark")
    for path, name, looks in (
        ("/costs", "costs", ("light", "dark")),
        ("/settings/members", "members", ("light",)),
        ("/settings/tokens/new", "tokens", ("light",)),
    ):
        dana.goto(remit.url + path)
        pictures.take_in(dana, remit.url, name, *looks)
