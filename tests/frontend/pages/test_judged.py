"""The judge's rung of the ladder, on the action's page and beside a question: what a model was asked and answered."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.test import Client
from django.urls import reverse

from controlplane.tenancy.models import TokenKind, User
from governance.judging import endpoints
from tests.frontend.api.conftest import Api, api_of
from tests.governance.model_server import MODEL, ModelServer, Reply, completion, model_server, says

from .test_in_the_browser import Show, problems_of, show

__all__ = ["api_of", "show"]
pytestmark = pytest.mark.django_db
SignIn = Callable[..., Client]
HOSTILE = '<script>alert(1)</script>\u202e"onload=\x1b[31mred'


@pytest.fixture
def model(world: Any, settings: Any) -> Iterator[ModelServer]:
    with model_server() as script:
        wanted = {"judge_url": script.url, "judge_model": MODEL, "judge_key": "", "judge_seconds": 2.0}
        settings.CONFIG = django_settings.CONFIG.model_copy(update=wanted)
        endpoints._KNOWN.clear()
        yield script
    endpoints._KNOWN.clear()
    while endpoints._CLIENTS:
        endpoints._CLIENTS.pop().close()


def ladders(browser: Client, asked: Any) -> list[str]:
    """The judge's rung on the action's page and on the card, as text."""
    addresses = (reverse("action", args=[asked.action_id]), reverse("approval", args=[asked.pk]))
    pages = [browser.get(address).content.decode() for address in addresses]
    found = [re.search(r"<b>Judge</b>(.*?)</li>\s*(?=<li class=\"\w+\"><svg|</ol>)", page, re.DOTALL) for page in pages]
    return [match[1] if match else "" for match in found]


def words(fragment: str) -> str:
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", fragment)).split())


def agrees(request: dict[str, Any]) -> Reply:
    return says("aligned", clause="overdue", evidence=("/action/arguments/amount", "/action/tool"), summary="It fits.")


def test_the_ladder_shows_what_the_judge_answered_and_by_what(
    world: Any, model: ModelServer, bob: User, signed_in: SignIn
) -> None:
    model.play = agrees
    for shown in map(words, ladders(signed_in(bob), world.ask_credit("240.00"))):
        assert "judge-writes : Aligned: It fits. The mission, its remit, the exact action" in shown
        for part in (
            "What the judge answered Answer Aligned Clause “overdue”",
            "Evidence /action/arguments/amount 240.00 /action/tool books__apply_credit",
            f"Model {MODEL} Tokens 340 Prompt",
        ):
            assert part in shown, shown


def test_what_the_judge_was_shown_is_kept_letter_by_letter(
    world: Any, model: ModelServer, bob: User, signed_in: SignIn, api_of: Callable[..., Api]
) -> None:
    model.play = agrees
    asked = world.ask_credit("240.00", HOSTILE)
    sent = model.asked[-1]["messages"][1]["content"]
    assert json.loads(sent)["action"]["arguments"]["reason"] == HOSTILE
    answer = api_of(bob).get(f"decisions?action={asked.action_id}")
    assert answer.status_code == 200, answer.content
    (decision,) = answer.json()["items"]
    assert [stage["name"] for stage in decision["stages"]][-2:] == ["judge", "budget"]
    assert next(stage for stage in decision["stages"] if stage["name"] == "judge")["details"]["shown"] == sent
    for rung in ladders(signed_in(bob), asked):
        assert '"boundary": "' in words(rung)
        assert '"tool": "books__apply_credit"' in words(rung)
        assert not any(text in rung for text in ("<script", "\u202e", "\x1b"))


def test_agents_and_other_organisations_are_not_told_how_an_action_was_judged(
    world: Any, charlie: User, api_of: Callable[..., Api], issue_token: Callable[..., str]
) -> None:
    address = f"decisions?action={world.ask_credit('240.00').action_id}"
    agent = issue_token(TokenKind.AGENT, team_id=world.agent.team_id, agent_id=world.agent.pk)
    refused = Api(agent).get(address)
    assert (refused.status_code, refused.json()["code"]) == (403, "decisions.for_people")
    assert api_of(charlie).get(address).json()["items"] == []


def test_an_answer_that_is_none_is_shown_as_it_came(
    world: Any, model: ModelServer, bob: User, signed_in: SignIn
) -> None:
    model.play = lambda _: (200, HOSTILE.encode())
    for rung in ladders(signed_in(bob), world.ask_credit("240.00")):
        assert 'Not valid <script>alert(1)</script> ⟨U+202E⟩ "onload=red Model' in words(rung)
        assert "as held: how many it took is not known" in words(rung)
        assert not any(text in rung for text in ("<script", "\u202e", "\x1b"))


def test_what_a_model_writes_is_shown_and_never_acts(
    world: Any, model: ModelServer, bob: User, signed_in: SignIn
) -> None:
    model.play = lambda _: says("unsure", summary=HOSTILE.replace("\x1b[31m", ""))
    for rung in ladders(signed_in(bob), world.ask_credit("240.00")):
        assert 'judge-writes : Unsure: <script>alert(1)</script> ⟨U+202E⟩ "onload=red' in words(rung)
        assert not any(text in rung for text in ("<script", "\u202e"))


def test_without_a_model_that_was_asked_the_ladder_claims_nothing(world: Any, bob: User, signed_in: SignIn) -> None:
    for rung in ladders(signed_in(bob), world.ask_credit("240.00")):
        assert "Off: no judge is connected." in words(rung)
        assert "<details" not in rung


@pytest.mark.browser
@pytest.mark.slow
@pytest.mark.parametrize(("theme", "width"), [("light", 1600), ("dark", 360), ("dark", 1600), ("light", 360)])
def test_what_the_judge_answered_fits_and_axe_finds_nothing(
    world: Any, model: ModelServer, bob: User, show: Show, width: int, theme: str
) -> None:
    model.play = lambda _: says(
        "unsure",
        clause="overdue",
        evidence=("/action/arguments/reason", "/untrusted/tool_description"),
        summary="x" * 200 + " It may not be meant. " * 10,
    )
    asked, wrong = world.ask_credit("240.00", "w" * 200), []
    model.play = lambda _: completion("x" * 900)
    unread = world.ask_credit("150.00", key="other")
    page = show(bob, reverse("home"), width=width, theme=theme)
    for number, row in enumerate((asked, unread)):
        for name, key in (("action", row.action_id), ("approval", row.pk)):
            page.goto(reverse(name, args=[key]), wait_until="load")
            page.get_by_text("What the judge answered").click()
            page.get_by_text("What the judge was shown").click()
            page.locator(".ladder pre").wait_for()
            wrong += problems_of(page, f"judged-{name}-{number}", theme)
    assert not wrong, "\n".join(wrong)
