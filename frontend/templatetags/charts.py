"""Bars of money, drawn on the server: places in per cent, so that text keeps its size at every width. A table with the
same numbers belongs beside each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal

from django import template
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from frontend.templatetags.amounts import money_text
from frontend.templatetags.plain_text import spell_hidden, without_ansi

register = template.Library()

ROW = 42
HEIGHT, TOP, BOTTOM = 190, 16, 166
GUTTER = Decimal(11)  # per cent, for the amounts at the lines
MOST_LABELS = 6
LAST_LABEL = 94  # per cent: what is written around a place further right does not fit on a phone
LONGEST_NAME = 34


@dataclass(frozen=True)
class Bar:
    """One bar; its parts one after the other: (class of the colour, word, amount)."""

    name: str
    parts: Sequence[tuple[str, str, Decimal]]

    @property
    def total(self) -> Decimal:
        return sum((amount for _, _, amount in self.parts), Decimal(0))

    def words(self, currency: str) -> str:
        parts = ", ".join(f"{word} {money_text(amount, currency)}" for _, word, amount in self.parts if amount)
        return f"{self.shown_name}: {parts or 'nothing'}"

    @property
    def shown_name(self) -> str:
        """Of strangers, and in places that take no markup."""
        return spell_hidden(without_ansi(self.name))


@register.simple_tag
def lying_bars(bars: Sequence[Bar], currency: str, label: str) -> SafeString:
    """`{% lying_bars bars currency label %}`: one row a name, its total at the end, as long as its share of the
    largest."""
    top = max((bar.total for bar in bars), default=Decimal(0)) or Decimal(1)
    rows = []
    for index, bar in enumerate(bars):
        y, x = index * ROW, Decimal(0)
        whole = bar.shown_name
        name = whole if len(whole) <= LONGEST_NAME else whole[: LONGEST_NAME - 1] + "…"
        rects = []
        for css, _, amount in bar.parts:
            width = max(amount, Decimal(0)) / top * 100
            if width > 0:
                rects.append((css, _number(x), y + 20, _number(max(width, Decimal("0.2")))))
            x += width
        rows.append(
            format_html(
                '<text class="name" x="0" y="{y}">{name}</text>'
                '<text x="100%" y="{y}" text-anchor="end">{total}</text>{rects}',
                y=y + 13,
                name=name,
                total=money_text(bar.total, currency),
                rects=format_html_join("", '<rect class="{}" x="{}%" y="{}" width="{}%" height="14"/>', rects),
            )
        )
    return format_html(
        '<svg class="bars" width="100%" height="{}" role="img" aria-label="{}">{}</svg>',
        max(len(bars), 1) * ROW,
        f"{label}. " + "; ".join(bar.words(currency) for bar in bars),
        format_html_join("", "{}", ((row,) for row in rows)),
    )


@register.simple_tag
def standing_bars(bars: Sequence[Bar], currency: str, label: str) -> SafeString:
    """`{% standing_bars bars currency label %}`: one column a day, week or month, oldest first."""
    top = _round_up(max((bar.total for bar in bars), default=Decimal(0)))
    span, slot = BOTTOM - TOP, (100 - GUTTER) / max(len(bars), 1)
    lines = [(part, BOTTOM - span * part / 2) for part in range(3)]
    every = -(-len(bars) // MOST_LABELS)
    rects, names = [], []
    for index, bar in enumerate(bars):
        x, y = GUTTER + slot * index, Decimal(BOTTOM)
        for css, _, amount in bar.parts:
            height = max(amount, Decimal(0)) / top * span
            y -= height
            if height > 0:
                rects.append((css, _number(x + slot / 8), _number(y), _number(slot * 3 / 4), _number(height)))
        middle = x + slot / 2
        if index % every == 0 and middle <= LAST_LABEL:
            names.append((_number(middle), HEIGHT - 6, bar.name))
    return format_html(
        '<svg class="bars" width="100%" height="{}" role="img" aria-label="{}">{}{}{}{}</svg>',
        HEIGHT,
        f"{label}. " + "; ".join(bar.words(currency) for bar in bars),
        format_html_join("", '<line x1="0" x2="100%" y1="{0}" y2="{0}"/>', ((y,) for _, y in lines)),
        format_html_join(
            "", '<text x="0" y="{}">{}</text>', ((y - 4, money_text(top * part / 2, currency)) for part, y in lines)
        ),
        format_html_join("", '<rect class="{}" x="{}%" y="{}" width="{}%" height="{}"/>', rects),
        format_html_join("", '<text x="{}%" y="{}" text-anchor="middle">{}</text>', names),
    )


def _round_up(amount: Decimal) -> Decimal:
    """The next of 1, 2, 4, 5 and 10 times a power of ten, so that half of it is a round amount too."""
    if amount <= 0:
        return Decimal(1)
    unit = Decimal(1).scaleb(amount.adjusted())
    ratio = (amount / unit).quantize(Decimal("0.0001"), ROUND_CEILING)
    return next(step for step in (1, 2, 4, 5, 10) if ratio <= step) * unit


def _number(value: Decimal) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")
