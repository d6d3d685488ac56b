"""Icons exist, badges agree with the enums, headers sort, pagers keep filters, states say what next."""

# ruff: noqa: E501 lines of template source

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from django import forms
from django.http import HttpRequest

import governance.choices
from controlplane.common.choices import StatusChoices
from frontend.templatetags.remit import TONES
from governance.choices import ActionState, Verdict

Render = Callable[..., str]
FRONTEND = Path(__file__).parents[3] / "frontend"
SPRITE = set(re.findall(r'<symbol id="i-([a-z-]+)"', (FRONTEND / "static/remit/icons.svg").read_text()))


def _statuses(parent: type[StatusChoices] = StatusChoices) -> Iterator[type[StatusChoices]]:
    for child in parent.__subclasses__():
        yield child
        yield from _statuses(child)


def test_every_state_has_a_tone_and_an_icon_that_exist() -> None:
    assert governance.choices.Verdict in set(_statuses())
    members = [member for enumeration in _statuses() for member in enumeration]
    assert {member.tone for member in members} <= TONES
    assert {member.icon for member in members} <= SPRITE


def test_every_icon_a_template_names_exists() -> None:
    named = {
        name
        for file in [*(FRONTEND / "templates").rglob("*.html"), *(FRONTEND / "templates").rglob("*.svg")]
        for name in re.findall(r'{% icon "([a-z-]+)"', file.read_text())
    }
    assert len(named) > 20
    assert named <= SPRITE


def test_no_template_carries_a_style_or_a_script_of_its_own() -> None:
    for file in (FRONTEND / "templates").rglob("*.html"):
        source = file.read_text()
        assert not re.search(r"\sstyle=|<style|\son[a-z]+=|javascript:|hx-on", source), file
        assert re.findall(r"<script(?![^>]*\ssrc=)", source) == [], file


def test_a_badge_says_its_state_in_words_icon_and_colour(rendered: Render) -> None:
    html = rendered("{% status verdict %}", {"verdict": Verdict.DENY})
    assert 'class="status deny"' in html
    assert "#i-deny" in html
    assert "Refused" in html


def test_a_badge_of_a_plain_text_is_neutral(rendered: Render) -> None:
    html = rendered("{% status state %}", {"state": "not_started"})
    assert 'class="status neutral"' in html
    assert "Not started" in html


def test_a_state_read_from_a_row_gets_the_badge_of_its_enum(rendered: Render) -> None:
    class Field:
        choices = ActionState.choices

    class Meta:
        @staticmethod
        def get_field(name: str) -> type[Field]:
            return {"state": Field}[name]

    class Row:
        _meta = Meta
        state = "waiting"

    html = rendered('{% status_of row "state" %}', {"row": Row()})
    assert 'class="status wait"' in html
    assert "Waits for a person" in html


def test_an_icon_is_decoration_unless_it_is_named(rendered: Render) -> None:
    assert 'aria-hidden="true"' in rendered('{% icon "stop" %}')
    assert 'role="img" aria-label="Stopped"' in rendered('{% icon "stop" label="Stopped" %}')


def test_a_short_id_shows_the_end_where_ids_differ_and_copies_the_whole(rendered: Render) -> None:
    html = rendered("{% short_id id %}", {"id": "0198f2c1-7b1a-7000-8000-00000041abcd"})
    assert ">0198…41abcd<" in html
    assert 'data-copy="0198f2c1-7b1a-7000-8000-00000041abcd"' in html


def test_a_digest_keeps_its_algorithm(rendered: Render) -> None:
    assert ">sha256:9f2c…00a41b<" in rendered("{% short_id id %}", {"id": "sha256:9f2c" + "0" * 56 + "a41b"})


@pytest.mark.parametrize(
    ("query", "direction", "link"),
    [
        ("", None, "?sort=spent"),
        ("?sort=spent", "ascending", "?sort=-spent"),
        ("?sort=-spent", "descending", "?sort=spent"),
        ("?sort=goal", None, "?sort=spent"),
    ],
)
def test_a_header_sorts_and_says_how(
    rendered: Render, a_request: Callable[..., HttpRequest], query: str, direction: str | None, link: str
) -> None:
    html = rendered('{% sort_header "spent" "Spent" %}', {}, a_request(f"/missions{query}"))
    assert f'href="{link}"' in html
    assert ("aria-sort" in html) == (direction is not None)
    assert direction is None or f'aria-sort="{direction}"' in html


def test_sorting_keeps_filters_and_starts_at_the_first_page(
    rendered: Render, a_request: Callable[..., HttpRequest]
) -> None:
    html = rendered(
        '{% sort_header "spent" "Spent" %}', {}, a_request("/missions?state=running&cursor=abc&team=a&team=b")
    )
    assert 'href="?state=running&amp;team=a&amp;team=b&amp;sort=spent"' in html


def test_a_pager_keeps_the_filters(rendered: Render, a_request: Callable[..., HttpRequest]) -> None:
    html = rendered(
        '{% include "components/pager.html" with older="c2" %}', {}, a_request("/missions?state=running&cursor=c1")
    )
    assert 'href="?state=running&amp;cursor=c2"' in html
    assert "Newer" not in html


def test_a_field_with_an_error_is_tied_to_its_words(rendered: Render) -> None:
    class BudgetForm(forms.Form):
        budget = forms.DecimalField(help_text="Per mission")

    html = rendered(
        '{% include "components/field.html" with field=form.budget %}', {"form": BudgetForm({"budget": "many"})}
    )
    assert 'aria-invalid="true"' in html
    described = set(re.findall(r'aria-describedby="([^"]+)"', html)[0].split())
    assert described <= set(re.findall(r' id="([^"]+)"', html))
    assert 'for="id_budget"' in html


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (
            '{% include "components/state_empty.html" with title="No missions yet" url="/missions/new" action="Start one" %}',
            ["No missions yet", "Start one"],
        ),
        (
            '{% include "components/state_error.html" with text="The database did not answer." reference="abc" %}',
            ["did not answer", "abc", "Try again"],
        ),
        (
            '{% include "components/state_forbidden.html" with what="Costs" who_may="finance" url="/settings/members" %}',
            ["Costs is for finance of Northwind", "See who can give you access"],
        ),
        (
            '{% include "components/state_loading.html" with label="Loading the ledger" %}',
            ["aria-busy", "Loading the ledger"],
        ),
    ],
)
def test_each_state_of_a_list_says_why_and_what_next(rendered: Render, source: str, words: list[str]) -> None:
    html = rendered(source)
    for word in words:
        assert word in html


def test_a_destructive_action_is_a_plain_post_with_its_token(rendered: Render) -> None:
    html = rendered(
        '{% include "components/confirm.html" with id="stop" title="Stop?" text="2 wait" url="/missions/1/stop" action="Stop" %}'
    )
    assert '<form method="post" action="/missions/1/stop" data-busy>' in html
    assert "csrfmiddlewaretoken" in html
