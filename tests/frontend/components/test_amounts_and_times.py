"""Money is never rounded to a false zero, floats never become money, times stand in the viewer's zone."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.http import HttpRequest
from django.utils import timezone
from hypothesis import given
from hypothesis import strategies as st
from moneyed import Money

from frontend.templatetags import amounts

Render = Callable[..., str]
MOMENT = datetime(2026, 11, 23, 8, 41, 2, 123000, tzinfo=UTC)


@pytest.mark.parametrize(
    ("amount", "currency", "text"),
    [
        ("0.42", "USD", "$0.42"),
        ("0", "USD", "$0.00"),
        ("0.0004", "USD", "$0.0004"),
        ("0.00112345", "USD", "$0.0011"),
        ("0.0001", "USD", "$0.0001"),
        ("0.0000123456", "USD", "<$0.0001"),
        ("0.000000000001", "EUR", "<0.0001 EUR"),
        ("-0.00001", "USD", "−<$0.0001"),
        ("0.01", "USD", "$0.01"),
        ("1234567.891", "USD", "$1,234,567.89"),
        ("-3.5", "USD", "−$3.50"),
        ("240", "EUR", "240.00 EUR"),
        ("1234.5", "JPY", "1,234 JPY"),
        ("0.2", "JPY", "0.2000 JPY"),
        ("1.2345", "KWD", "1.234 KWD"),
        ("1", "ZZZ", "1.00 ZZZ"),
    ],
)
def test_money_reads_as_people_write_it(amount: str, currency: str, text: str) -> None:
    assert amounts.money_text(Decimal(amount), currency) == text


@given(st.decimals(min_value="0.000000000001", max_value="9999999999999999.999999999999", places=12))
def test_an_amount_that_is_not_zero_never_looks_like_zero(amount: Decimal) -> None:
    text = amounts.money_text(amount, "USD")
    shown = Decimal(re.sub(r"[^0-9.]", "", text))
    assert shown > 0
    assert len(text.partition(".")[2]) <= 4
    assert amount < shown if text.startswith("<") else abs(shown - amount) <= Decimal("0.005")


def test_every_digit_of_an_amount_is_in_the_title(rendered: Render) -> None:
    html = rendered('{% money amount "USD" %}', {"amount": Decimal("0.420000700000")})
    assert 'title="0.4200007 USD"' in html
    assert ">$0.42<" in html


def test_money_objects_bring_their_own_currency(rendered: Render) -> None:
    assert "12.30 EUR" in rendered("{% money amount %}", {"amount": Money("12.3", "EUR")})


def test_no_amount_is_a_dash_and_not_zero(rendered: Render) -> None:
    assert "–" in rendered("{% money amount %}", {"amount": None})
    assert "0" not in rendered("{% money amount %}", {"amount": None})


def test_a_float_is_refused_as_money(rendered: Render) -> None:
    with pytest.raises(TypeError, match="float"):
        rendered("{% money amount %}", {"amount": 0.1})


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{{ 1204|number }}", "1,204"),
        ("{{ 268435456|bytes }}", "256 MiB"),
        ("{{ 0|bytes }}", "0 B"),
        ("{{ 1536|bytes }}", "1.5 KiB"),
        ("{{ 0.0002|duration }}", "200 µs"),
        ("{{ 0.0011|duration }}", "1.1 ms"),
        ("{{ 252|duration }}", "4 min 12 s"),
        ("{{ 7500|duration }}", "2 h 5 min"),
        ("{{ 273600|duration }}", "3 d 4 h"),
        ("{{ nothing|duration }}", "–"),
        ("{{ nothing|number }}", "–"),
    ],
)
def test_quantities_carry_their_unit(rendered: Render, source: str, text: str) -> None:
    assert rendered(source, {"nothing": None}) == text


@given(st.timedeltas(min_value=timedelta(days=-4000), max_value=timedelta(days=4000)))
def test_every_span_of_time_can_be_said(span: timedelta) -> None:
    assert re.fullmatch(r"−?[\d.e+-]+ (µs|ms|s|min|h|d)( \d+ (s|min|h))?", amounts.duration_text(span))


@pytest.mark.parametrize(
    ("offset", "text"),
    [
        (-2, "now"),
        (-20, "20 s ago"),
        (-59, "59 s ago"),
        (-60, "1 min ago"),
        (-7300, "2 h ago"),
        (-200000, "2 d ago"),
        (240, "in 4 min"),
        (7 * 86400 - 3, "in 7 d"),
        (6 * 86400 + 11 * 3600, "in 6 d"),
        (86400 - 60, "in 1 d"),
        (27 * 3600, "in 1 d 3 h"),
        (23 * 3600 + 60, "in 23 h"),
        (8 * 3600 - 20, "in 8 h"),
        (90 * 60, "in 1 h 30 min"),
        (3599, "in 1 h"),
        (75, "in 1 min 15 s"),
        (59, "in 59 s"),
        (0, "now"),
    ],
)
def test_times_are_relative(offset: int, text: str) -> None:
    assert amounts.relative_text(MOMENT + timedelta(seconds=offset), now=MOMENT) == text


def test_the_title_of_a_time_is_in_the_viewers_zone(rendered: Render) -> None:
    html = rendered("{% when moment %}", {"moment": MOMENT})
    assert "Monday 23 November 2026, 09:41:02 Europe/Berlin" in html
    assert 'datetime="2026-11-23T08:41:02.123Z"' in html


def test_the_clock_of_a_time_is_in_the_viewers_zone(rendered: Render) -> None:
    assert ">09:41:02<" in rendered("{% when moment clock=True %}", {"moment": MOMENT})


def test_without_a_viewer_times_are_in_utc(rendered: Render, a_request: Callable[..., HttpRequest]) -> None:
    assert "08:41:02 UTC" in rendered("{% when moment %}", {"moment": MOMENT}, a_request(principal=None))


def test_a_zone_nobody_knows_falls_back_to_utc(rendered: Render, a_request: Callable[..., Any], finn: Any) -> None:
    from dataclasses import replace

    request = a_request(principal=replace(finn, time_zone="Mars/Olympus"))
    assert "08:41:02 UTC" in rendered("{% when moment %}", {"moment": MOMENT}, request)


def test_a_moment_without_a_zone_is_refused(rendered: Render) -> None:
    with pytest.raises(ValueError, match="zone"):
        rendered("{% when moment %}", {"moment": timezone.make_naive(MOMENT, UTC)})


def test_the_gauge_says_in_words_what_it_draws(rendered: Render) -> None:
    html = rendered('{% gauge "0.42" "0.09" "1.00" forecast="0.78" %}')
    assert 'aria-label="spent $0.42, held $0.09, limit $1.00, forecast $0.78"' in html
    assert 'class="spent" width="42%"' in html
    assert 'x="42%" width="9%"' in html
    assert 'x1="78%"' in html
    assert "style=" not in html


@pytest.mark.parametrize(
    ("spent", "held", "limit", "tone"),
    [
        ("0.1", 0, "1", "spent"),
        ("0.85", "0.05", "1", "near"),
        ("1.2", 0, "1", "over"),
        ("0.9", "0.2", "1", "over"),
        ("1", 0, "0", "over"),
        ("0", 0, "0", "spent"),
        ("5", 0, None, "spent"),
    ],
)
def test_the_gauge_never_leaves_its_frame(
    rendered: Render, spent: str, held: Any, limit: str | None, tone: str
) -> None:
    html = rendered("{% gauge spent held limit %}", {"spent": spent, "held": held, "limit": limit})
    assert f'<rect class="{tone}"' in html
    widths = [Decimal(width) for width in re.findall(r'width="([\d.]+)%"', html)]
    assert widths[0] == 100
    assert sum(widths[1:]) <= 100


def test_a_budget_that_is_exceeded_says_by_how_much(rendered: Render) -> None:
    assert "over by $0.20" in rendered('{% gauge "1.20" 0 "1.00" %}')


@pytest.mark.parametrize("values", [[], [1], [0, 0], [3, 1, 2]])
def test_a_sparkline_can_be_drawn_from_any_number_of_values(rendered: Render, values: list[int]) -> None:
    html = rendered("{% sparkline values label='Spend' %}", {"values": values})
    assert 'aria-label="Spend"' in html
    assert "NaN" not in html


@pytest.mark.parametrize(
    ("total", "parts", "decimals"),
    [
        ("4.04", ["1.61", "0.81", "0", "1.62"], 2),
        ("4.0380", ["1.6149", "0.8082", "0", "1.6149"], 3),
        ("0.000001", ["0.000001"], 6),
        ("2.000000000001", ["1", "1.000000000001"], 2),
        ("2", ["1", "1.5"], None),
    ],
)
def test_a_sum_has_as_many_decimals_as_it_takes_to_add_up_when_it_is_read(
    total: str, parts: list[str], decimals: int | None
) -> None:
    assert amounts.decimals_that_add_up(Decimal(total), map(Decimal, parts), "USD") == decimals
    if decimals is not None:
        shown = [amounts.money_text(Decimal(part), "USD", decimals) for part in parts]
        whole = amounts.money_text(Decimal(total), "USD", decimals)
        assert sum(Decimal(text.lstrip("$")) for text in shown) == Decimal(whole.lstrip("$"))
