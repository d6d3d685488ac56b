"""Small pictures drawn on the server as SVG, without style attributes: the budget gauge, the sparkline, the mix."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from frontend.templatetags.amounts import money_text, number_text

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


def progress_svg(*, done: int, total: int, label: str) -> SafeString:
    """How far something is that will be whole: in the gauge's look, without its colours of warning."""
    share = Decimal(100) if total <= 0 else min(Decimal(100), Decimal(done) / Decimal(total) * 100)
    return format_html(
        '<svg class="gauge" height="12" role="img" aria-label="{words}"><title>{words}</title>'
        '<rect class="frame" width="100%" height="12"/><rect class="spent" width="{end}%" height="12"/></svg>',
        words=f"{label}: {share:.0f} %",
        end=_percent(share),
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


def mix_svg(parts: Sequence[tuple[str, str, int]], *, height: int = 12) -> SafeString:
    """(tone, label, number) side by side, in proportion; of what there is at least a sliver. An empty frame without
    any."""
    total = sum(number for _, _, number in parts)
    words = ", ".join(f"{label} {number_text(number)}" for _, label, number in parts) if total else "none yet"
    shares = [(tone, max(Decimal(number) / total * 100, Decimal(1))) for tone, _, number in parts if number]
    scale = Decimal(100) / sum(share for _, share in shares) if shares else Decimal(1)
    rects, x = [], Decimal(0)
    for tone, share in shares:
        width = share * scale
        rects.append((tone, _percent(x), _percent(width), height))
        x += width
    return format_html(
        '<svg class="mix" height="{height}" role="img" aria-label="{words}"><title>{words}</title>'
        '<rect class="frame" width="100%" height="{height}"/>{rects}</svg>',
        height=height,
        words=words,
        rects=format_html_join("", '<rect class="{}" x="{}%" width="{}%" height="{}"/>', rects),
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
