"""What agents, tools and customers wrote can neither act in the page nor hide in it."""

# ruff: noqa: E501 lines of template source

from __future__ import annotations

from collections.abc import Callable

import pytest

from frontend.judged import Judged

Render = Callable[..., str]
SCRIPT = '<script>alert(1)</script><img src=x onerror="alert(1)">'


@pytest.mark.parametrize(
    "source",
    [
        "{{ text|visible_text }}",
        "{% status text %}",
        "{% status state text=text %}",
        "{% short_id text %}",
        "{% copy text text %}",
        "{% json_table arguments %}",
        "{% json_table arguments allows=allows %}",
        "{% icon 'allow' label=text %}",
        "{% sparkline numbers label=text %}",
        '{% sort_header "spent" text %}',
        '{% include "components/rung.html" with tone="deny" stage=text said=text policy=text policy_url="/x" saw=arguments %}',
        '{% include "components/rung.html" with judged=judged %}',
        '{% include "components/sentences.html" with sentences=sentences %}',
        '{% include "components/toast.html" with text=text tone=text %}',
        '{% include "components/state_empty.html" with title=text text=text action=text url="/x" %}',
        '{% include "components/state_error.html" with title=text text=text reference=text remedies=texts %}',
        '{% include "components/state_forbidden.html" with what=text who_may=text %}',
        '{% include "components/copy.html" with text=text label=text %}',
        '{% include "components/diff.html" with lines=lines label=text %}',
        '{% include "components/confirm.html" with id="stop" title=text text=text action=text url="/x" %}',
        '{% include "components/pager.html" with newer=text older=text words=text %}',
    ],
)
def test_markup_in_any_value_is_shown_and_never_made(rendered: Render, source: str) -> None:
    html = rendered(source, {
        "text": SCRIPT, "texts": [SCRIPT], "state": SCRIPT, "numbers": [1, 2], "allows": {"note": SCRIPT},
        "arguments": {"note": SCRIPT, SCRIPT: {"inner": [SCRIPT]}}, "sentences": [{"tone": SCRIPT, "text": SCRIPT, "note": SCRIPT}],
        "judged": Judged(SCRIPT, SCRIPT, SCRIPT, evidence=[(SCRIPT, SCRIPT)], prompt=SCRIPT, unreadable=SCRIPT, budget=SCRIPT),
        "lines": [{"kind": kind, "text": SCRIPT} for kind in ("added", "removed", "hunk", "same")],
    })  # fmt: skip
    assert "<script" not in html
    assert "<img" not in html
    assert 'onerror="' not in html


@pytest.mark.parametrize(
    ("hidden", "shown"),
    [
        ("\u202e", "U+202E"),  # right-to-left override: "exe.txt" reads backwards
        ("\u2066", "U+2066"),
        ("\u061c", "U+061C"),
        ("\u200b", "U+200B"),
        ("\u200d", "U+200D"),
        ("\ufeff", "U+FEFF"),
        ("\u00ad", "U+00AD"),
        ("\u2028", "U+2028"),
        ("\u3164", "U+3164"),
        ("\u2800", "U+2800"),
        ("\x00", "U+0000"),
        ("\x1b", "U+001B"),
        ("\r", "U+000D"),
        ("\x7f", "U+007F"),
        ("\x9b", "U+009B"),
        ("\ufe01", "U+FE01"),
        ("\U000e0041", "U+E0041"),  # a tag character: readable for models, invisible for people
        ("\U000e0101", "U+E0101"),
        ("\ue000", "U+E000"),
        ("\u2003", "U+2003"),
    ],
)
def test_a_hidden_character_in_an_argument_is_shown_by_its_number(rendered: Render, hidden: str, shown: str) -> None:
    html = rendered("{% json_table arguments %}", {"arguments": {"note": f"a{hidden}b", f"k{hidden}": 1}})
    assert html.count(f"⟨{shown}⟩") == 2
    assert hidden not in html


def test_ordinary_writing_stays_as_it_is(rendered: Render) -> None:
    pictures = "☀\ufe0f, 👩\u200d💻, 👩🏽\u200d🚀, ❤\ufe0f\u200d🔥"
    text = f"Größe, Ελλάδα, עברית, عربي, हिन्दी, 日本語, e\u0301, {pictures}, 1\u00a0000\tx\ny"
    assert rendered("{{ text|visible_text }}", {"text": text}) == text


def test_marks_piled_on_one_letter_are_cut_off(rendered: Render) -> None:
    html = rendered("{{ text|visible_text }}", {"text": "a" + "\u0301" * 40})
    assert html.count("\u0301") == 4
    assert html.count("⟨U+0301⟩") == 36


@pytest.mark.parametrize(
    "sequence",
    [
        "\x1b[31;1m",
        "\x1b[2J",
        "\x1b]0;title\x07",
        "\x1b]8;;https://example.org\x1b\\",
        "\x1bPq\x1b\\",
        "\x1b(B",
        "\x9b1m",
        "\x1b]52;c;cm0gLXJm\x07",
    ],
)
def test_terminal_sequences_leave_logs(rendered: Render, sequence: str) -> None:
    assert rendered("{{ text|visible_text }}", {"text": f"be{sequence}fore\r\nafter"}) == "before\nafter"


def test_an_unfinished_terminal_sequence_cannot_swallow_what_follows_on_the_next_line(rendered: Render) -> None:
    html = rendered("{{ text|visible_text }}", {"text": "ok\x1b]0;evil\nDROP TABLE"})
    assert "DROP TABLE" in html


def test_arguments_keep_terminal_sequences_because_they_are_what_is_sent(rendered: Render) -> None:
    assert "⟨U+001B⟩</span>[31m" in rendered("{% json_table arguments %}", {"arguments": {"x": "\x1b[31m"}})


def test_arguments_show_every_leaf_with_its_path_and_type(rendered: Render) -> None:
    html = rendered(
        "{% json_table arguments %}",
        {"arguments": {"a": {"b": [1, {"c": None}]}, "t": True, "n": 0, "e": {}, "s": "", "l": []}},
    )
    for path in ("a.b[0]", "a.b[1].c", ">t<", ">n<", ">e<", ">s<", ">l<"):
        assert path in html
    assert "null" in html
    assert "true" in html
    assert "{}" in html
    assert "[]" in html


def test_a_long_value_is_folded_but_complete(rendered: Render) -> None:
    html = rendered("{% json_table arguments %}", {"arguments": {"body": "x" * 600 + "THE END"}})
    assert "7 more characters" in html
    assert "THE END" in html


def test_more_arguments_than_fit_are_counted_not_silently_dropped(rendered: Render) -> None:
    html = rendered("{% json_table arguments %}", {"arguments": {f"k{index}": index for index in range(205)}})
    assert "5 more values are not shown here" in html


def test_deeply_nested_arguments_are_shown_as_json_below_a_level(rendered: Render) -> None:
    value: object = "bottom"
    for _ in range(400):
        value = {"d": value}
    assert "bottom" in rendered("{% json_table arguments %}", {"arguments": value})


def test_limits_stand_beside_the_arguments_they_are_about(rendered: Render) -> None:
    html = rendered(
        "{% json_table arguments highlight=over allows=allows %}",
        {
            "arguments": {"lines": [{"amount": "240.00"}], "note": "x"},
            "over": ["lines[0].amount"],
            "allows": {"lines": "up to 100.00"},
        },
    )
    over, other = html.split("<tr")[2:4]
    assert 'class="over"' in over
    assert "up to 100.00" in over
    assert 'class="over"' not in other


@pytest.mark.parametrize("nothing", [{}, [], None])
def test_no_arguments_are_said_in_words(rendered: Render, nothing: object) -> None:
    html = rendered("{% json_table arguments %}", {"arguments": nothing})
    assert ("No arguments." in html) == (nothing is not None)


def test_a_word_as_long_as_a_line_may_break_and_ordinary_words_stay_whole(rendered: Render) -> None:
    assert rendered("{{ text|visible_text }}", {"text": f"Ask {'w' * 32} now"}) == f"Ask {'w' * 32} now"
    html = rendered("{{ text|visible_text }}", {"text": f"Ask <{'w' * 32}\u202e now"})
    mark = '<span class="mark" title="RIGHT-TO-LEFT OVERRIDE">⟨U+202E⟩</span>'
    assert html == f'Ask <span class="long">&lt;{"w" * 32}{mark}</span> now'
