"""The page on which a remit is changed, as a browser without script fills it in."""

from __future__ import annotations

import html as entities
import re
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any

from django.test import Client
from django.urls import reverse

from agents.models import Mission, MissionVersion

SignIn = Callable[..., Client]


class _Fields(HTMLParser):
    """What a browser without script would send back from the form, without any button."""

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[str, str] = {}
        self._select = self._area = ""

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = dict(attributes)
        name = given.get("name") or ""
        if tag == "input" and name and given.get("type") not in ("checkbox", "radio", "submit"):
            self.found[name] = given.get("value") or ""
        if tag == "select":
            self._select = name
        if tag == "option" and self._select and ("selected" in given or self._select not in self.found):
            self.found[self._select] = given.get("value") or ""
        if tag == "textarea":
            self._area, self.found[name] = name, ""

    def handle_data(self, data: str) -> None:
        if self._area:
            self.found[self._area] += data

    def handle_endtag(self, tag: str) -> None:
        if tag == "select":
            self._select = ""
        if tag == "textarea":
            self.found[self._area] = self.found[self._area].removeprefix("\n")
            self._area = ""


def fields_of(html: str) -> dict[str, str]:
    parser = _Fields()
    parser.feed(html.split('id="remit-form"')[1].split("</form>")[0])
    return parser.found


def words_of(html: str) -> str:
    return " ".join(entities.unescape(re.sub(r"<[^>]+>", " ", html)).split())


class Page:
    """The change page of one mission in one person's browser."""

    def __init__(self, browser: Client, mission: Mission) -> None:
        self.browser, self.path = browser, reverse("mission-change", args=[mission.pk])
        self.fields: dict[str, str] = {}
        self.html = ""
        self.status = 0

    def open(self) -> Page:
        return self._read(self.browser.get(self.path))

    def press(self, button: str, **changes: str) -> Page:
        """`changes` of fields, by name; `__` stands for the dash in the names of grants."""
        typed = {name.replace("__", "-"): value for name, value in changes.items()}
        return self._read(self.browser.post(self.path, {**self.fields, **typed, "do": button}))

    def preview(self, **changes: str) -> Page:
        return self.press("preview", **changes)

    def send(self, **changes: str) -> Page:
        return self.press("send", **changes)

    def _read(self, response: Any) -> Page:
        self.status, self.html = response.status_code, response.content.decode()
        if 'id="remit-form"' in self.html:
            self.fields = fields_of(self.html)
        return self

    @property
    def words(self) -> str:
        return words_of(self.html)


def number_of_versions(world: Any) -> int:
    return MissionVersion.objects.filter(mission=world.mission).count()
