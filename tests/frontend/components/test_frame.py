"""The frame shows a person what they may open, what waits for them and what is wrong; cheaply."""

from __future__ import annotations

import hashlib
import re
import sys
import types
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from django.core.cache import cache
from django.http import HttpRequest
from django.template.loader import get_template

from controlplane.tenancy.types import ALL_TEAMS, Principal, Role
from frontend import context
from frontend.context import Frame, NavItem, Strip

STATIC = Path(__file__).parents[3] / "frontend" / "static"
PAGE = '{% extends "base.html" %}{% block title %}Costs{% endblock %}{% block content %}<p>Here</p>{% endblock %}'
Render = Callable[..., str]
Requests = Callable[..., HttpRequest]


@pytest.fixture(autouse=True)
def _fresh_cache() -> Iterator[None]:
    cache.clear()
    yield
    cache.clear()


def _rail(html: str) -> list[str]:
    return re.findall(
        r'<a class="item" href="([^"]+)"', html.split('<nav class="rail"')[1].split('<span class="spacer">')[0]
    )


def test_the_rail_shows_only_what_the_person_may_open(rendered: Render) -> None:
    paths = _rail(rendered(PAGE))
    assert "/budgets" in paths
    assert "/audit" in paths
    assert "/approvals" not in paths  # finance neither sees nor decides escalations


def test_a_builder_sees_no_audit_log(rendered: Render, a_request: Requests, finn: Principal) -> None:
    paths = _rail(rendered(PAGE, {}, a_request(principal=replace(finn, roles={Role.BUILDER: ALL_TEAMS}))))
    assert "/approvals" in paths
    assert "/audit" not in paths


def test_nobody_sees_no_navigation_and_no_sign_out(rendered: Render, a_request: Requests) -> None:
    html = rendered(PAGE, {}, a_request(principal=None))
    assert _rail(html) == []
    assert "Sign out" not in html


@pytest.mark.parametrize(
    ("path", "current"),
    [
        ("/", ["/"]),
        ("/budgets", ["/budgets"]),
        ("/missions/7", ["/missions"]),
        ("/actions/7", ["/missions"]),
        ("/tools/7/approve", []),
        ("/missionsx", []),
        ("/me", []),
    ],
)
def test_one_place_at_most_is_the_current_one(
    rendered: Render, a_request: Requests, path: str, current: list[str]
) -> None:
    rail = rendered(PAGE, {}, a_request(path)).split('<span class="spacer">')[0]
    assert re.findall(r'href="([^"]+)"[^>]* aria-current="page"', rail) == current


def test_every_path_of_the_rail_is_a_page_that_is_promised() -> None:
    items: tuple[NavItem, ...] = (*context.WORK, *context.ARRANGEMENTS)
    promised = {
        "/",
        "/missions",
        "/agents",
        "/approvals",
        "/budgets",
        "/costs",
        "/audit",
        "/servers",
        "/policies",
        "/stops",
        "/settings",
    }
    assert {item.path for item in items} == promised


def test_sign_out_is_a_post_with_its_token(rendered: Render) -> None:
    form = rendered(PAGE).split('action="/accounts/logout/"')
    assert len(form) == 2
    assert form[0].endswith('<form method="post" ')
    assert "csrfmiddlewaretoken" in form[1].split("</form>")[0]


def test_the_viewer_sees_whose_time_the_times_are_in(rendered: Render) -> None:
    assert "Times in Europe/Berlin" in rendered(PAGE)


@pytest.mark.parametrize(
    ("cookie", "attribute"),
    [("dark", ' data-theme="dark"'), ("light", ' data-theme="light"'), ('x" onload="', ""), ("", "")],
)
def test_the_theme_is_in_the_first_byte_of_the_page(
    rendered: Render, a_request: Requests, cookie: str, attribute: str
) -> None:
    html = rendered(PAGE, {}, a_request(cookies={"remit_theme": cookie}))
    assert f'<html lang="en"{attribute}>' in html


def test_shortcuts_and_the_collapsed_rail_are_remembered(rendered: Render, a_request: Requests) -> None:
    html = rendered(PAGE, {}, a_request(cookies={"remit_rail": "narrow", "remit_shortcuts": "off"}))
    assert '<html lang="en" data-rail="narrow" data-shortcuts="off">' in html


def test_warnings_stay_with_their_remedy_and_are_asked_for_once(
    rendered: Render, a_request: Requests, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def source(principal: Principal) -> list[Strip]:
        asked.append(principal.name)
        return [Strip("No worker runs.", "Missions wait.", "Start one", "/settings/organisation", tone="deny")]

    monkeypatch.setattr(context, "_strip_sources", [source])
    for _ in range(3):
        html = rendered(PAGE)
        assert "No worker runs." in html
        assert '<a href="/settings/organisation">Start one</a>' in html
    assert asked == ["Finn"]


def test_one_persons_warnings_are_not_shown_to_another(
    a_request: Requests, finn: Principal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(context, "_strip_sources", [lambda principal: [Strip(principal.name, "")]])
    import uuid

    other = replace(finn, id=uuid.uuid4(), name="Nadia")
    assert [strip.title for strip in Frame(a_request()).strips] == ["Finn"]
    assert [strip.title for strip in Frame(a_request(principal=other)).strips] == ["Nadia"]


def test_what_waits_is_counted_once_a_page_and_only_for_people_who_decide(
    a_request: Requests, finn: Principal, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[str] = []

    def count_waiting_for(*, principal: Principal) -> int:
        counted.append(principal.name)
        return 3

    monkeypatch.setitem(sys.modules, "governance.selectors", types.SimpleNamespace(count_waiting_for=count_waiting_for))
    assert Frame(a_request()).approvals_waiting == 0
    assert counted == []
    frame = Frame(a_request(principal=replace(finn, name="Dana", roles={Role.APPROVER: ALL_TEAMS})))
    assert [link.count for link in frame.nav if link.item.counts_approvals] == [3]
    assert frame.approvals_waiting == 3
    assert counted == ["Dana"]


def test_a_fragment_asks_for_nothing_of_the_frame(rendered: Render, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise AssertionError("a fragment read the frame")

    for part in ("nav", "strips", "approvals_waiting"):
        monkeypatch.setattr(Frame, part, property(fail))
    assert rendered("<p>{{ 1|number }}</p>") == "<p>1</p>"


def test_every_template_of_the_foundation_compiles() -> None:
    root = STATIC.parent / "templates"
    for folder in ("frame", "components", "errors", "account", "allauth"):
        for file in (root / folder).rglob("*.html"):
            get_template(str(file.relative_to(root)))


def test_vendored_files_are_what_their_hashes_say() -> None:
    lines = (STATIC / "vendor/SHA256SUMS").read_text().splitlines()
    listed = dict(reversed(line.split("  ")) for line in lines)
    present = {file.name for file in (STATIC / "vendor").glob("*.js")}
    assert set(listed) == present
    for name, expected in listed.items():
        assert hashlib.sha256((STATIC / "vendor" / name).read_bytes()).hexdigest() == expected


def test_htmx_may_neither_evaluate_nor_leave_the_origin(rendered: Render) -> None:
    import html
    import json

    raw = re.findall(r'<meta name="htmx-config" content=\'([^\']+)\'', rendered(PAGE))[0]
    settings = json.loads(html.unescape(raw))
    assert (settings["allowEval"], settings["selfRequestsOnly"], settings["includeIndicatorStyles"]) == (
        False,
        True,
        False,
    )
    assert settings["allowScriptTags"] is False
    assert settings["historyCacheSize"] == 0


def test_scripts_and_styles_stay_small() -> None:
    for file in (STATIC / "remit/js").glob("*.js"):
        assert len(file.read_text().splitlines()) <= 200, file.name
    for file in (STATIC / "remit/css").glob("*.css"):
        assert len(file.read_text().splitlines()) <= 400, file.name
