"""What a tool answered becomes words, whatever the tool and wherever its answer was cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.result_words import LONGEST, in_words


@pytest.mark.parametrize(
    ("summary", "words"),
    [
        ('{"invoice": "INV-0113", "amount": "40.00", "open": 95}', "invoice INV-0113, amount 40.00, open 95"),
        ('[{"days_overdue": 239, "paid": false}, {"days_overdue": 7}]', "days overdue 239, paid false, days overdue 7"),
        (
            "[{'id': 'TIC-0013', 'state': 'credit agreed', 'summary': 'Delivered 4 da",
            "id TIC-0013, state credit agreed",
        ),
        ('{"a": 1, "b": 2, "c": 3, "d": 4, "e": 5}', "a 1, b 2, c 3, d 4"),
        ("[]", "an empty result"),
        (" {} ", "an empty result"),
        ("Reminder written\n to the outbox", "Reminder written to the outbox"),
        ("", ""),
        ("[1, 2, 3]", "[1, 2, 3]"),
    ],
)
def test_facts_are_said_without_their_punctuation(summary: str, words: str) -> None:
    assert in_words(summary) == words


@given(st.text(max_size=600))
def test_any_answer_is_a_short_line(summary: str) -> None:
    assert len(in_words(summary)) <= LONGEST
    assert "\n" not in in_words(summary)


@pytest.mark.parametrize("hostile", ['{"a": "' + "\\\\" * 50_000, "{" * 100_000, "['" + "a" * 100_000])
def test_a_hostile_answer_takes_no_time(hostile: str) -> None:
    assert len(in_words(hostile)) <= LONGEST
