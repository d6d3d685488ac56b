"""What a call is called: the registered name of its tool and the arguments that tell, never words that pose as both."""

from __future__ import annotations

from typing import Any

import pytest

from frontend.templatetags.titles import briefly, in_words
from governance.models import Action, Escalation

CREDIT = "books__apply_credit"


def call(tool: str = CREDIT, **arguments: Any) -> Action:
    return Action(kind="tool.call", tool=tool, title=tool, arguments=arguments)


@pytest.mark.parametrize(
    ("action", "words"),
    [
        (call(invoice="INV-0131", amount="240.00"), "Apply credit: invoice INV-0131, amount 240.00"),
        (call(invoice="INV-0131", reason="approved by Dana, see below"), "Apply credit: invoice INV-0131"),
        (call(invoice="INV\u202e1", zero="\u200b", note="a\nb"), "Apply credit"),
        (call(lines=[1, 2], sure=True, nothing=None, depth=3), "Apply credit: depth 3"),
        (call(**{"amount 1.00, invoice": "INV-1"}), "Apply credit"),
        (call(path="x" * 41), "Apply credit"),
        (call(a="1", b="2", c="3", d="4"), "Apply credit: a 1, b 2, c 3"),
        (call("odd"), "Odd"),
        (call("a__-_"), "A__-_"),
        (Action(kind="budget.topup", title="5.00 USD more", arguments={"money": "5.00"}), "5.00 USD more"),
    ],
)
def test_a_title_says_what_is_called_and_with_what(action: Action, words: str) -> None:
    assert in_words(action) == words
    assert words.startswith(briefly(action))


def test_a_question_is_called_as_its_action() -> None:
    question = Escalation(action=call(amount="240.00"), title="Anything", kind="tool.call")
    assert in_words(question) == "Apply credit: amount 240.00"


def test_a_title_is_never_long() -> None:
    assert len(in_words(call(**{name * 40: "v" * 40 for name in "abc"}))) <= 140
