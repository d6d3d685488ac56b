"""What the scripts do, in Chromium behind the real policy: live parts, keys, theme, palette, toasts."""

# ruff: noqa: E501 lines of HTML

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from threading import Event
from typing import Any

import pytest
from django.http import HttpRequest
from playwright.sync_api import expect

from frontend.templatetags.amounts import relative_text

pytestmark = pytest.mark.browser
MOMENT = datetime(2026, 11, 23, 9, 41, tzinfo=UTC)

PAGE = """{% extends "base.html" %}{% block title %}Mission{% endblock %}
{% block content %}<div data-live="mission:7">PART<section id="quiet" data-live-part="holds" hx-get="/quiet" hx-trigger="live" hx-swap="outerHTML">quiet</section></div>
<form><input id="field" aria-label="Field"></form>
<button id="new" type="button" data-key="n">New</button><button id="ask" type="button" data-opens="sure">Stop</button>
<button id="copy" type="button" data-copy="sha256:abc" aria-label="Copy the digest">copy</button>
<button id="fails" type="button" hx-post="/gone" hx-swap="none">Do</button>
<ol class="inbox" data-rows><li data-row><a href="#one" id="one">One</a><button data-key="a" type="button" class="approve-1">Approve</button></li><li data-row><a href="#two" id="two">Two</a><button data-key="a" type="button" class="approve-2">Approve</button></li></ol>
{% include "components/confirm.html" with id="sure" title="Stop?" text="2 wait." url="/stop" action="Stop the mission" %}{% endblock %}"""


def part(text: str) -> str:
    return (
        '<section id="part" data-live-part="actions timeline" hx-get="/part" hx-trigger="live" hx-swap="outerHTML">'
        f'<p id="text">{text}</p><a href="#row" id="row-link">row</a><a href="#x">second</a><input id="inside" aria-label="Inside">'
        "<details><summary>more</summary>detail</details></section>"
    )


@dataclass
class Socket:
    """The far end of /live as the page meets it."""

    routes: list[Any] = field(default_factory=list)
    heard: list[Any] = field(default_factory=list)
    refuses: bool = False

    def accept(self, route: Any) -> None:
        if self.refuses:
            route.close(code=1013)
            return
        self.routes.append(route)
        route.on_message(lambda text: self.heard.append(json.loads(text)))

    def hint(self, what: str, topic: str = "mission:7") -> None:
        self.routes[-1].send(json.dumps({"topic": topic, "version": 1, "what": what}))


@dataclass
class Open:
    page: Any
    socket: Socket
    pages: dict[str, Any]
    asked: list[str]
    complaints: list[str]


@pytest.fixture
def opened(
    chromium: Any, served: Callable[..., str], rendered: Callable[..., str], a_request: Callable[..., HttpRequest]
) -> Iterator[Open]:
    asked: list[str] = []

    def counted(path: str, content: Callable[[], str]) -> Callable[[], str]:
        def answer() -> str:
            asked.append(path)
            return content()

        return answer

    pages: dict[str, Any] = {"part": "first"}
    pages["/"] = rendered(PAGE.replace("PART", part("first")))
    pages["/part"] = counted("/part", lambda: part(pages["part"]))
    pages["/budgets"] = "<title>Budgets</title>"
    pages["/quiet"] = counted("/quiet", lambda: "<section id='quiet' data-live-part='holds'>quiet</section>")
    context = chromium.new_context(
        viewport={"width": 1200, "height": 700}, permissions=["clipboard-read", "clipboard-write"]
    )
    page, socket, complaints = context.new_page(), Socket(), []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on(
        "console",
        lambda message: complaints.append(message.text) if "Content Security Policy" in message.text else None,
    )
    page.route_web_socket(re.compile("/live$"), socket.accept)
    page.goto(served(pages), wait_until="networkidle")
    yield Open(page, socket, pages, asked, complaints)
    assert complaints == []
    context.close()


def _shows(opened: Open, text: str) -> None:
    expect(opened.page.locator("#text")).to_have_text(text, timeout=15_000)


def test_the_page_subscribes_to_the_topics_it_declares(opened: Open) -> None:
    (message,) = opened.socket.heard
    assert "mission:7" in message["subscribe"]


def test_a_hint_refreshes_the_parts_it_names_and_no_others(opened: Open) -> None:
    opened.pages["part"] = "second"
    opened.socket.hint("timeline")
    _shows(opened, "second")
    assert opened.asked == ["/part"]


def test_a_hint_about_another_topic_changes_nothing(opened: Open) -> None:
    opened.socket.hint("timeline", topic="mission:8")
    opened.socket.hint("holds")
    opened.page.wait_for_timeout(1200)
    assert "/part" not in opened.asked


def test_many_hints_at_once_cost_few_requests(opened: Open) -> None:
    opened.pages["part"] = "second"
    for _ in range(50):
        opened.socket.hint("actions")
    _shows(opened, "second")
    opened.page.wait_for_timeout(800)
    assert opened.asked.count("/part") <= 5  # one, and one for what came while an answer was on its way


def test_what_changes_while_an_answer_is_on_its_way_is_shown_after_it(opened: Open) -> None:
    asked, answer = Event(), Event()

    def slow() -> str:
        shown = part(opened.pages["part"])
        asked.set()
        answer.wait(10)
        return shown

    opened.pages["/part"] = slow
    opened.pages["part"] = "second"
    opened.socket.hint("actions")
    for _ in range(500):
        if asked.is_set():
            break
        opened.page.wait_for_timeout(20)
    assert asked.is_set()
    opened.pages["part"] = "third"
    opened.socket.hint("actions")
    opened.page.wait_for_timeout(500)  # its turn has come, and the first answer is still on its way
    answer.set()
    _shows(opened, "third")


def test_a_message_that_is_not_a_hint_is_ignored(opened: Open) -> None:
    for text in ("", "not json", "[]", "{}", '{"topic": 7}', "null"):
        opened.socket.routes[-1].send(text)
    opened.pages["part"] = "second"
    opened.socket.hint("actions")
    _shows(opened, "second")


def test_a_refresh_keeps_focus_and_open_details(opened: Open) -> None:
    opened.page.click("summary:text('more')")
    opened.page.focus("#row-link")
    opened.pages["part"] = "second"
    opened.socket.hint("actions")
    _shows(opened, "second")
    assert opened.page.evaluate("document.activeElement.id") == "row-link"
    assert opened.page.evaluate("document.querySelector('#part details').open") is True


def test_a_refresh_waits_while_someone_types_in_the_part(opened: Open) -> None:
    opened.page.fill("#inside", "half a sent")
    opened.pages["part"] = "second"
    opened.socket.hint("actions")
    opened.page.wait_for_timeout(1200)
    assert opened.page.input_value("#inside") == "half a sent"
    assert opened.page.text_content("#text") == "first"
    opened.page.focus("#field")
    _shows(opened, "second")


def test_a_refresh_waits_while_text_in_the_part_is_selected(opened: Open) -> None:
    opened.page.evaluate("getSelection().selectAllChildren(document.getElementById('text'))")
    opened.pages["part"] = "second"
    opened.socket.hint("actions")
    opened.page.wait_for_timeout(1200)
    assert opened.page.evaluate("getSelection().toString()") == "first"
    opened.page.evaluate("getSelection().removeAllRanges()")
    _shows(opened, "second")


def test_a_lost_socket_is_said_and_everything_is_read_again_after_reconnecting(opened: Open) -> None:
    opened.socket.refuses = True
    opened.socket.routes[-1].close()
    opened.page.wait_for_selector("#live-strip:not([hidden])", timeout=15_000)
    assert re.search(r"Reconnecting, as of \d\d:\d\d:\d\d", opened.page.text_content("#live-strip"))
    opened.pages["part"] = "while away"
    opened.socket.refuses = False
    _wait_until_connected(opened)
    _shows(opened, "while away")
    assert "mission:7" in opened.socket.heard[-1]["subscribe"]


def test_a_person_can_refresh_by_hand_while_the_socket_is_gone(opened: Open) -> None:
    opened.socket.refuses = True
    opened.socket.routes[-1].close()
    opened.page.wait_for_selector("#live-strip:not([hidden])", timeout=15_000)
    opened.pages["part"] = "by hand"
    opened.page.click("[data-live-now]")
    _shows(opened, "by hand")


def test_a_refused_topic_lets_the_part_say_so_itself(opened: Open) -> None:
    opened.pages["part"] = "not for your role"
    opened.socket.routes[-1].send(json.dumps({"refused": ["mission:7"]}))
    _shows(opened, "not for your role")


def test_keys_move_through_rows_and_act_on_the_row_they_are_on(opened: Open) -> None:
    opened.page.evaluate("document.addEventListener('click', (event) => { window.pressed = event.target.className; })")
    opened.page.keyboard.press("a")
    assert opened.page.evaluate("window.pressed ?? null") is None  # no row chosen: nothing is approved
    opened.page.keyboard.press("j")
    opened.page.keyboard.press("j")
    assert opened.page.evaluate("document.activeElement.id") == "two"
    opened.page.keyboard.press("a")
    assert opened.page.evaluate("window.pressed") == "approve-2"
    opened.page.keyboard.press("k")
    assert opened.page.evaluate("document.activeElement.id") == "one"


def test_keys_never_act_while_someone_types(opened: Open) -> None:
    opened.page.evaluate("document.getElementById('new').addEventListener('click', () => { window.pressed = true; })")
    opened.page.focus("#field")
    opened.page.keyboard.type("n?/j")
    assert opened.page.evaluate("window.pressed ?? null") is None
    assert opened.page.input_value("#field") == "n?/j"
    opened.page.evaluate("document.activeElement.blur()")
    opened.page.keyboard.press("n")
    assert opened.page.evaluate("window.pressed") is True


def test_the_list_of_keys_names_only_what_works_on_the_page(opened: Open) -> None:
    opened.page.keyboard.press("?")
    shown = [term.inner_text() for term in opened.page.locator("#keyboard dt").all() if term.is_visible()]
    assert "a" in shown
    assert "n" in shown
    assert "x" not in shown  # no row of this page can be selected
    assert "e" not in shown
    opened.page.keyboard.press("Escape")


def test_single_keys_can_be_turned_off_and_stay_off(opened: Open) -> None:
    opened.page.keyboard.press("?")
    opened.page.click("#keyboard .switch")
    opened.page.keyboard.press("Escape")
    opened.page.keyboard.press("?")
    assert opened.page.locator("#keyboard").is_visible() is False
    assert "remit_shortcuts=off" in opened.page.evaluate("document.cookie")
    opened.page.keyboard.press("Control+k")
    assert opened.page.locator("#palette").is_visible()


def test_the_palette_finds_a_page_by_a_part_of_its_name(opened: Open) -> None:
    opened.page.keyboard.press("/")
    opened.page.keyboard.type("bud")
    chosen = opened.page.locator('#palette [aria-selected="true"]')
    assert chosen.text_content() == "Budgets"
    assert opened.page.locator("#palette-input").get_attribute("aria-activedescendant") == chosen.get_attribute("id")
    opened.page.keyboard.press("Enter")
    opened.page.wait_for_url("**/budgets")


def test_the_theme_changes_at_once_and_is_remembered(opened: Open) -> None:
    before = opened.page.evaluate("getComputedStyle(document.body).backgroundColor")
    opened.page.click("details.who summary")
    opened.page.click('[data-set-theme="dark"]')
    assert opened.page.evaluate("document.documentElement.dataset.theme") == "dark"
    assert opened.page.evaluate("getComputedStyle(document.body).backgroundColor") != before
    assert "remit_theme=dark" in opened.page.evaluate("document.cookie")


def test_a_dangerous_button_asks_first_and_escape_keeps_it(opened: Open) -> None:
    opened.page.click("#ask")
    assert opened.page.locator("#sure").is_visible()
    opened.page.keyboard.press("Escape")
    assert not opened.page.locator("#sure").is_visible()
    assert opened.page.evaluate("document.activeElement.id") == "ask"


def test_copying_puts_the_whole_text_on_the_clipboard(opened: Open) -> None:
    opened.page.click("#copy")
    opened.page.wait_for_selector("#copy[data-copied]", state="attached")
    assert opened.page.evaluate("navigator.clipboard.readText()") == "sha256:abc"


def test_an_action_the_server_could_not_answer_is_said_and_nothing_is_swapped(opened: Open) -> None:
    opened.page.click("#fails")
    assert "Not done" in opened.page.locator(".toast.deny p").text_content()


def test_relative_times_keep_going(opened: Open) -> None:
    opened.page.evaluate(
        """() => { const time = document.createElement('time'); time.id = 'old'; time.dataset.relative = '';
        time.dateTime = new Date(Date.now() - 7300000).toISOString(); document.querySelector('main').append(time); }"""
    )
    expect(opened.page.locator("#old")).to_have_text("2 h ago", timeout=15_000)


def test_the_script_says_times_to_come_as_the_server_does(opened: Open) -> None:
    seconds = [6, 59, 75, 100, 3599, 5400, 7170, 86000, 97200, 500_000, 604_797, 2_591_990]
    said = opened.page.evaluate(
        "async (all) => { const { relative } = await import('/static/remit/js/times.js');"
        " return all.map((each) => relative(each * 1000, 0)); }",
        seconds,
    )
    assert said == [relative_text(MOMENT + timedelta(seconds=each), now=MOMENT) for each in seconds]


def _wait_until_connected(opened: Open) -> None:
    expect(opened.page.locator("#live-strip")).to_be_hidden(timeout=60_000)
