"""The live parts of a page, and what an open page gets for one after a hint."""

from __future__ import annotations

from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any

import pytest
from django.test import Client

_VOID = frozenset({"br", "col", "hr", "img", "input", "link", "meta", "wbr"})


class _Parts(HTMLParser):
    """Where each live part begins and ends, and its attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self._lines = [0, *(at + 1 for at, letter in enumerate(page) if letter == "\n")]
        self._open: list[tuple[str, str, str]] = []
        self._begun: dict[str, int] = {}
        self.found: dict[str, tuple[dict[str, str], str]] = {}
        self._given: dict[str, dict[str, str]] = {}
        self._page = page
        self.feed(page)

    def _at(self) -> int:
        line, column = self.getpos()
        return self._lines[line - 1] + column

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag in _VOID:
            return
        given = {name: value or "" for name, value in attributes}
        name = given.get("id", "") if "data-live-part" in given else ""
        topics = given.get("data-live") or (self._open[-1][2] if self._open else "")
        if name:
            self._begun[name], self._given[name] = self._at(), {**given, "data-live": topics}
        self._open.append((tag, name, topics))

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        while self._open:
            opened, name, _ = self._open.pop()
            if name:
                self.found[name] = (self._given[name], self._page[self._begun[name] : self._at()])
            if opened == tag:
                return


def parts_of(page: str) -> dict[str, str]:
    """The text of each live part of a page."""
    return {name: text for name, (_, text) in _Parts(page).found.items()}


def again(browser: Client, page: str, name: str) -> str:
    """The part as an open page gets it after a hint."""
    given = _Parts(page).found[name][0]
    response = browser.get(given["hx-get"], headers={"HX-Request": "true"})
    assert response.status_code == 200, given["hx-get"]
    return parts_of(response.content.decode())[name]


def heard(page: str, name: str, hints: set[tuple[str, str]]) -> bool:
    """Whether the part follows one of the hints, as `isMeant` of live.js has it."""
    given = _Parts(page).found[name][0]
    topics = given["data-live"].split()
    return any(topic in topics and what in given["data-live-part"].split() for topic, what in hints)


Hints = Callable[[Callable[[], Any]], set[tuple[str, str]]]


@pytest.fixture
def hints(monkeypatch: pytest.MonkeyPatch, django_capture_on_commit_callbacks: Any) -> Hints:
    """What pages are told of while something is done."""

    def told(act: Callable[[], Any]) -> set[tuple[str, str]]:
        sent: set[tuple[str, str]] = set()

        class Sender:
            def send(self, *, topic: str, what: str) -> None:
                sent.add((topic, what))

        monkeypatch.setattr("controlplane.live.services.sender", Sender)
        with django_capture_on_commit_callbacks() as callbacks:
            act()
        for callback in callbacks:
            if callback.__module__ == "controlplane.live.services":
                callback()
        return sent

    return told
