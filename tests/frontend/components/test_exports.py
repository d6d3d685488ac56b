"""Cells of strangers in CSV files: what a spreadsheet would run is text, wherever it divides the line."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator

import pytest

from frontend.exports import csv_response


def cells(*row: object) -> list[str]:
    response = csv_response("x", ["head"], [row])
    text = b"".join(response).decode()  # type: ignore[arg-type]
    return list(csv.reader(io.StringIO(text, newline="")))[1]


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\uff1d", "\u00a0=", "  @"])
def test_a_cell_that_begins_like_a_formula_is_text(start: str) -> None:
    assert cells(f"{start}HYPERLINK(1)") == [f"'{start}HYPERLINK(1)"]


@pytest.mark.parametrize("divider", [";", "; ", "\t", "\n", ";\u00a0"])
@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\uff1d"])
def test_what_would_begin_a_cell_where_semicolons_or_tabs_divide_is_text_too(divider: str, start: str) -> None:
    assert cells(f'Pay{divider}{start}HYPERLINK("//x")') == [f'Pay{divider}\'{start}HYPERLINK("//x")']


@pytest.mark.parametrize("text", ["-1.50", "amount=-5; count=3", "a; -2; +3", "Mail a@b.example; c", "10:00-11:00"])
def test_numbers_and_ordinary_words_stay_as_they_are(text: str) -> None:
    assert cells(text) == [text]


def test_many_short_lines_go_out_in_few_pieces_and_not_before_they_are_asked_for() -> None:
    read = 0

    def rows() -> Iterator[tuple[object, ...]]:
        nonlocal read
        for number in range(50_000):
            read += 1
            yield number, "a line"

    pieces = iter(csv_response("x", ["number", "text"], rows()))
    assert read == 0
    first = next(pieces)
    assert 0 < read < 5000
    whole = b"".join([first, *pieces]).decode()  # type: ignore[list-item]
    assert whole.count("\r\n") == 50_001
    assert len(whole) / 16_384 > 10
