"""Small pictures drawn on the server as SVG, without style attributes: the budget gauge and the sparkline."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from django.utils.html import format_html
from django.utils.safestring import SafeString

from frontend.templatetags.amounts import money_text

_NEARLY_USED = Decimal("0.9")


def gauge_svg(
    *, spent: Decimal, held: Decimal, limit: Decimal | None, forecast: Decimal | None, currency: str, height: int
) -> SafeString:
    """Spent is solid, held hatched, the forecast a tick, the limit the frame. Without a limit nothing is filled."""
    words = _words(spent=spent, held=held, limit=limit, forecast=forecast, currency=currency)
    used, waiting, tick = _share(spent, limit), _share(held, limit), _share(forecast, limit) if forecast else None
    end = min(used, Decimal(100))
    tone = "spent"
    if limit is not None and spent + held > limit:
        tone = "over"
    elif limit and spent + held >= limit * _NEARLY_USED:
        tone = "near"
    return format_html(
        '<svg class="gauge" height="{height}" role="img" aria-label="{words}"><title>{words}</title>'
        '<rect class="frame" width="100%" height="{height}"/><rect class="{tone}" width="{end}%" height="{height}"/>'
        '<rect class="held" x="{end}%" width="{held}%" height="{height}"/>{tick}</svg>',
        height=height,
        words=words,
        tone=tone,
        end=_percent(end),
        held=_percent(min(waiting, 100 - end)),
        tick=_tick(tick, height) if tick is not None else "",
    )


def sparkline_svg(values: Sequence[Decimal], *, label: str) -> SafeString:
    """One line over a soft area, scaled from zero, so that a small change looks small."""
    top = max([*values, Decimal(0)]) or Decimal(1)
    step = Decimal(100) / max(len(values) - 1, 1)
    points = [
        f"{index * step:.2f},{Decimal(27) - max(value, Decimal(0)) / top * 25:.2f}"
        for index, value in enumerate(values)
    ]
    line = " ".join(points)
    return format_html(
        '<svg class="spark" viewBox="0 0 100 28" preserveAspectRatio="none" role="img" aria-label="{}">{}</svg>',
        label,
        format_html('<polygon points="0,28 {} 100,28"/><polyline points="{}"/>', line, line) if len(points) > 1 else "",
    )


def _share(amount: Decimal | None, limit: Decimal | None) -> Decimal:
    if amount is None or limit is None:
        return Decimal(0)
    if limit <= 0:
        return Decimal(100) if amount > 0 else Decimal(0)
    return max(Decimal(0), amount / limit * 100)


def _percent(share: Decimal) -> str:
    return f"{max(share, Decimal(0)):.2f}".rstrip("0").rstrip(".")


def _tick(share: Decimal, height: int) -> SafeString:
    x = _percent(min(share, Decimal("99.5")))
    return format_html('<line class="tick" x1="{}%" x2="{}%" y1="0" y2="{}"/>', x, x, height)


def _words(*, spent: Decimal, held: Decimal, limit: Decimal | None, forecast: Decimal | None, currency: str) -> str:
    words = [f"spent {money_text(spent, currency)}"]
    if held:
        words.append(f"held {money_text(held, currency)}")
    if limit is None:
        words.append("no limit")
    else:
        words.append(f"limit {money_text(limit, currency)}")
        if spent + held > limit:
            words.append(f"over by {money_text(spent + held - limit, currency)}")
    if forecast:
        words.append(f"forecast {money_text(forecast, currency)}")
    return ", ".join(words)
