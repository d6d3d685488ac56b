"""An approver's day by keyboard alone: claimed, asked, edited, decided by two, stood in for, passed over and reviewed.

The agent is a program of the test's own which calls over HTTP, in a team that no other test uses."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import pytest

from tests.end_to_end import keys
from tests.end_to_end.conftest import Installation
from tests.end_to_end.looking import look

pytestmark = [pytest.mark.browser, pytest.mark.sandbox, pytest.mark.slow, pytest.mark.timeout(400)]

TEAM = "Platform"
SEATS = {"Nadia": f"Builder, {TEAM}", "Finn": f"Approver, {TEAM}"}


class Agent:
    """What a stock HTTP client does with the token that the mission's page shows."""

    def __init__(self, remit: Installation, token: str) -> None:
        self._http = httpx2.Client(
            base_url=f"{remit.url}/api/v1", headers={"Authorization": f"Bearer {token}"}, timeout=40
        )

    def ask(self, time: str) -> str:
        arguments = {"source_timezone": "UTC", "time": time, "target_timezone": "Asia/Tokyo"}
        body = {"kind": "tool.call", "tool": "time__convert_time", "arguments": arguments}
        answer = self._http.post("/actions", json=body, headers={"Idempotency-Key": str(uuid.uuid4())}).json()
        assert answer["state"] == "waiting", answer
        return str(answer["id"])

    def read(self, action: str) -> Any:
        return self._http.get(f"/actions/{action}").json()

    def answer(self, action: str, text: str) -> None:
        self._http.post(f"/actions/{action}:answer", json={"text": text}).raise_for_status()

    def carry_out(self, action: str) -> Any:
        return self._http.post(f"/actions/{action}:execute", json={}).json()


@pytest.fixture
def seats(remit: Installation, signed_in: Callable[[str], Any]) -> Iterator[None]:
    """The clock, a second approver and a builder for the team; the two until the day is over. Dana sees to it."""
    admin = signed_in("dana")
    lend_the_clock(admin, remit)
    for name, seat in SEATS.items():
        set_seat(admin, remit, name, seat, held=True)
    yield
    for name, seat in SEATS.items():
        set_seat(admin, remit, name, seat, held=False)


def lend_the_clock(admin: Any, remit: Installation) -> None:
    admin.goto(f"{remit.url}/servers")
    admin.get_by_role("link", name="Time", exact=True).click()
    admin.goto(f"{admin.url}/teams")
    admin.get_by_label(TEAM).check()
    admin.get_by_role("button", name="Save").click()
    admin.get_by_role("heading", name="Time", level=1).wait_for()


def set_seat(admin: Any, remit: Installation, name: str, seat: str, *, held: bool) -> None:
    admin.goto(f"{remit.url}/settings/members")
    admin.get_by_role("link", name=name).first.click()
    admin.get_by_label(seat, exact=True).set_checked(held)
    admin.get_by_role("button", name="Save roles").click()
    admin.get_by_role("status").filter(has_text="oles").first.wait_for()


@pytest.fixture
def agent(seats: None, remit: Installation, signed_in: Callable[[str], Any]) -> Agent:
    page = signed_in("nadia")
    page.goto(f"{remit.url}/missions/new?template=bring-your-own")
    page.get_by_label("Team").select_option(TEAM)
    page.get_by_label("Name of your agent").fill("Clock watcher")
    page.get_by_role("button", name="Start mission").click()
    page.get_by_role("button", name="Show the token").click()
    token = page.locator("#mission-connect .secret code").inner_text().strip()
    page.close()  # it would go on asking for a mission that is no longer hers to see when the day is over
    return Agent(remit, token)


def test_an_approvers_whole_day_needs_no_mouse(
    agent: Agent, remit: Installation, signed_in: Callable[[str], Any]
) -> None:
    dana, finn = signed_in("dana"), signed_in("finn")
    action = claim_and_ask(dana, agent)
    edit_and_approve(dana, agent, action)
    need_two_approvers(dana)
    decide_by_two(dana, finn, agent)
    break_glass(dana, agent)
    review(finn, dana)
    ask_dana_alone(dana)
    stand_in(dana, finn, agent)
    finn.close()  # it would go on asking for an inbox that is no longer his to see when the day is over


def claim_and_ask(page: Any, agent: Agent) -> str:
    action = agent.ask("08:15")
    keys.go_to(page, "Approvals")
    keys.open_row(page, "08:15")
    page.keyboard.press("?")
    keyboard = page.locator("#keyboard")
    for word in ("Approve or accept", "Approve with edits", "Deny or reject", "Claim, take over or give back"):
        keyboard.get_by_text(word).wait_for()
    look(page, "approver-keys")
    page.keyboard.press("Escape")

    page.keyboard.press("c")
    page.get_by_text("You are at work on this").wait_for()
    keys.press(page, page.locator("#conversation summary"))
    keys.write(page, page.get_by_label("Your words"), "Who needs this time, and for which day?")
    keys.press(page, page.get_by_role("button", name="Ask the agent"))
    page.locator("#conversation .said").get_by_text("Who needs this time").wait_for()
    question = agent.read(action)["questions"][0]
    assert question["text"] == "Who needs this time, and for which day?"
    agent.answer(action, "The Tokyo desk, for tomorrow.")
    page.locator("#conversation .said").get_by_text("The Tokyo desk, for tomorrow.").wait_for()  # by itself
    look(page, "approver-question")
    return action


def edit_and_approve(page: Any, agent: Agent, action: str) -> None:
    """One argument is changed; the page says what from and what to before anything is sent."""
    page.keyboard.press("e")
    page.get_by_role("heading", name="Approve with edits").wait_for()
    keys.write(page, page.get_by_label("time", exact=True), "09:45")
    keys.press(page, page.get_by_role("button", name="See the verdict"))
    changed = page.locator("#preview tbody tr")
    changed.first.wait_for()
    assert changed.count() == 1
    said = changed.first.locator("th, td").all_inner_texts()
    assert said == ["time", '"08:15"', '"09:45"'], said  # as JSON: text is not a number
    look(page, "approver-edit")
    keys.press(page, page.get_by_role("button", name="Approve as edited"))
    page.get_by_text("Approved as edited, once").wait_for()
    look(page, "approver-edited")
    replaced = agent.read(action)
    assert replaced["state"] == "withdrawn"
    done = agent.carry_out(replaced["replaced_by"]["id"])
    assert done["state"] == "succeeded"
    assert "09:45" in str(done["result"])


def need_two_approvers(page: Any) -> None:
    """From now on the team's calls ask two people: a route, made where the approvals page leads."""
    keys.go_to(page, "Approvals")
    keys.press(page, page.get_by_role("link", name="Who is asked"))
    keys.press(page, page.locator("#routes summary", has_text="New route"))
    form = page.locator("#routes details[open]")
    keys.write(page, form.get_by_label("Name"), "Two for the platform")
    keys.choose(page, form.get_by_label("Team"), TEAM)
    keys.write(page, form.get_by_label("Approvals needed"), "2")
    look(page, "approver-new-route")
    page.keyboard.press("Enter")
    page.get_by_text("Saved: Two for the platform.").wait_for()
    look(page, "approver-routes")


def decide_by_two(first: Any, second: Any, agent: Agent) -> None:
    keys.go_to(second, "Home")
    told = unread(second)
    action = agent.ask("10:30")
    second.get_by_label(f"Notices: {told + 1} unread").wait_for()  # by itself
    keys.go_to(first, "Approvals")
    keys.open_row(first, "10:30")
    first.get_by_text("0 of 2 approvals count so far").wait_for()
    first.keyboard.press("a")
    first.get_by_text("Your approval counts. It waits for another approver.").wait_for()
    assert agent.read(action)["state"] == "waiting"

    keys.go_to(second, "Approvals")
    keys.open_row(second, "10:30")
    second.get_by_text("1 of 2 approvals count so far").wait_for()
    look(second, "approver-second")
    second.keyboard.press("a")
    second.get_by_text("Approved once").wait_for()
    look(second, "approver-inbox-afterwards")
    assert agent.carry_out(action)["state"] == "succeeded"


def unread(page: Any) -> int:
    """What the bell says."""
    return int("0" + "".join(filter(str.isdigit, page.locator("#bell summary").get_attribute("aria-label"))))


def break_glass(page: Any, agent: Agent) -> None:
    action = agent.ask("11:55")
    keys.go_to(page, "Approvals")
    keys.open_row(page, "11:55")
    page.keyboard.press("?")
    page.locator("#keyboard").get_by_text("Break-glass: asks for the reason first").wait_for()
    page.keyboard.press("Escape")
    page.keyboard.press("b")
    dialog = page.locator("#glass-dialog")
    keys.write(page, dialog.get_by_label("What is the emergency"), "Finn is not in, and the market opens at noon.")
    look(page, "approver-break-glass")
    keys.press(page, dialog.get_by_role("button", name="Break the glass"))
    page.get_by_text("You broke this glass, so somebody else reviews it.").wait_for()
    look(page, "approver-broken-glass")
    assert agent.carry_out(action)["state"] == "succeeded"


def review(page: Any, breaker: Any) -> None:
    """Every page says that a glass is broken, until somebody else has said whether that was right."""
    keys.go_to(page, "Home")
    strip = page.locator(".strips .strip").filter(has_text="glass")
    keys.reload_until(page, strip, shown=True)
    keys.press(page, strip.get_by_role("link"))
    page.get_by_role("heading", name="Break-glass", level=1).wait_for()
    card = page.locator("section.card").filter(has_text="the market opens at noon")
    keys.reach(page, card.get_by_role("radio").first)
    page.keyboard.press("Space")
    keys.write(page, card.get_by_label("Why"), "The desk did need it, and it only reads.")
    look(page, "approver-review")
    keys.press(page, card.get_by_role("button", name="Record the review"))
    page.get_by_text("Reviewed.").wait_for()
    card.get_by_text("The desk did need it, and it only reads.").wait_for()
    keys.reload_until(page, strip, shown=False)
    look(page, "approver-reviewed")
    keys.go_to(breaker, "Home")
    keys.reload_until(breaker, breaker.locator(".strips .strip").filter(has_text="glass"), shown=False)


def ask_dana_alone(page: Any) -> None:
    """From now on the team's calls ask a group of one, by a route that is tried before the other."""
    keys.go_to(page, "Approvals")
    keys.press(page, page.get_by_role("link", name="Who is asked"))
    keys.press(page, page.locator("#groups summary", has_text="New group"))
    group = page.locator("#groups details[open]").filter(has_text="New group")
    keys.write(page, group.get_by_label("Name"), "Night desk")
    keys.reach(page, group.get_by_role("checkbox", name="Dana"))
    page.keyboard.press("Space")
    page.keyboard.press("Enter")
    page.get_by_text("Saved: Night desk.").wait_for()
    keys.press(page, page.locator("#routes summary", has_text="New route"))
    route = page.locator("#routes details[open]").filter(has_text="New route")
    keys.write(page, route.get_by_label("Name"), "The desk decides")
    keys.choose(page, route.get_by_label("Team"), TEAM)
    keys.choose(page, route.get_by_label("Asks"), "Night desk")
    keys.press(page, route.get_by_role("button", name="Save the route"))
    page.get_by_text("Saved: The desk decides.").wait_for()
    keys.press(page, page.get_by_role("button", name="Try The desk decides earlier"))
    page.locator("#routes li").first.get_by_text("The desk decides").wait_for()


def stand_in(away: Any, there: Any, agent: Agent) -> None:
    """Out of office until tomorrow: what waits for the one waits for the other too, who answers it. Then back."""
    action = agent.ask("13:05")
    keys.go_to(there, "Approvals")
    there.get_by_text("Nothing waits for you").first.wait_for()
    tomorrow = datetime.now(UTC).date() + timedelta(days=1)
    keys.press(away, away.locator("#delegations summary", has_text="Let somebody stand in"))
    form = away.locator("#delegations details[open]")
    keys.choose(away, form.get_by_label("Who"), "Finn")
    keys.write_day(away, form.get_by_label("Last day"), tomorrow)
    keys.write(away, form.get_by_label("Why"), "On leave")
    look(away, "approver-out-of-office")
    away.keyboard.press("Enter")
    away.get_by_text(f"Finn stands in until {tomorrow:%Y-%m-%d}.").wait_for()
    look(away, "approver-stand-in")

    keys.go_to(there, "Approvals")
    keys.open_row(there, "13:05")
    there.keyboard.press("a")
    there.get_by_text("Approved once").wait_for()
    assert agent.carry_out(action)["state"] == "succeeded"

    later = agent.ask("14:25")
    keys.press(away, away.locator("#delegations").get_by_role("button", name="End it").first)
    away.get_by_text("Ended.").wait_for()
    keys.go_to(there, "Approvals")
    there.get_by_text("Nothing waits for you").first.wait_for()
    keys.go_to(away, "Approvals")
    keys.open_row(away, "14:25")
    away.keyboard.press("a")
    away.get_by_text("Approved once").wait_for()
    assert agent.carry_out(later)["state"] == "succeeded"
