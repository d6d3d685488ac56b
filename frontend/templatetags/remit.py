"""The template library every page has without loading it: icons, badges, amounts, times, ids and arguments.

Each tag escapes what it is given. What strangers wrote (arguments, logs, names of tools) goes through `visible_text`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from django import template
from django.db import models
from django.template import RequestContext
from django.template.context import Context
from django.template.defaultfilters import stringfilter
from django.templatetags.static import static
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString, mark_safe

from agents.models import Mission
from agents.timeline import arguments_in_short as in_short
from controlplane.common.choices import StatusChoices
from controlplane.common.ids import new_id
from controlplane.common.plain import without_code
from frontend.templatetags import amounts, drawings, titles
from frontend.templatetags.arguments import ArgumentTable, argument_table
from frontend.templatetags.plain_text import mark_hidden, mark_shown, spell_hidden, without_ansi
from frontend.undoing import Undo, undo_of

register = template.Library()

TONES = frozenset({"allow", "deny", "ask", "wait", "neutral"})
_TONE_ICONS = {"allow": "allow", "deny": "deny", "ask": "ask", "wait": "wait", "neutral": "neutral"}
_LEVEL_TONES = {"success": "allow", "error": "deny", "warning": "ask"}
_TOAST_ICONS = {"allow": "allow", "deny": "warning", "ask": "warning", "wait": "wait"}
_SPOKEN_TONES = {
    "allow": "Yes:",
    "deny": "No:",
    "ask": "Needs a person:",
    "wait": "Waiting:",
    "off": "Open:",
    "neutral": "Open:",
}
_SHORT_ID_HEAD, _SHORT_ID_TAIL = 4, 6


@register.simple_tag
def icon(name: str, label: str = "", css: str = "") -> SafeString:
    """`{% icon "stop" %}`: a symbol of static/remit/icons.svg. Without a label it is decoration."""
    spoken = format_html('role="img" aria-label="{}"', label) if label else mark_safe('aria-hidden="true"')
    return format_html(
        '<svg class="icon{}" width="16" height="16" {}><use href="{}#i-{}"/></svg>',
        f" {css}" if css else "",
        spoken,
        static("remit/icons.svg"),
        name,
    )


@register.simple_tag
def form_key() -> SafeString:
    """`{% form_key %}` in a form of `shown_once.made_once`, not in a part that refreshes itself."""
    # Not to be filled in again by a browser that goes back: another form, another key.
    return format_html('<input type="hidden" name="key" value="{}" autocomplete="off">', new_id())


@register.simple_tag
def status(state: Any, text: str = "", bare: bool = False, tone: str = "", glyph: str = "") -> SafeString:
    """`{% status mission.state text="Running, 1 waiting" %}`: badge of an enum member (tone, icon, label).

    A plain text becomes a neutral badge; `tone` and `glyph` override what the member says.
    """
    shown_tone = tone or str(getattr(state, "tone", "neutral"))
    if shown_tone not in TONES:
        shown_tone = "neutral"
    shown_glyph = glyph or str(getattr(state, "icon", "")) or _TONE_ICONS[shown_tone]
    label = text or getattr(state, "label", None) or str(state).replace("_", " ").capitalize()
    return format_html(
        '<span class="status {}{}">{}{}</span>',
        shown_tone,
        " bare" if bare else "",
        icon(shown_glyph),
        mark_shown(str(label)),
    )


@register.simple_tag
def status_of(row: models.Model, field: str, text: str = "", bare: bool = False) -> SafeString:
    """`{% status_of mission "state" %}`: the badge of a model field, plain text once it was read from the database."""
    return status(
        _member(getattr(row._meta.get_field(field), "choices", ()), getattr(row, field)), text=text, bare=bare
    )


@register.simple_tag
def mission_state(mission: Mission, bare: bool = False) -> SafeString:
    """`{% mission_state mission %}`: its state, or that its program ended while it is open. `mission.runs` are read."""
    if mission.program_ended:
        return status("off", text="Program ended", bare=bare, tone="neutral", glyph="off")
    return status_of(mission, "state", bare=bare)


@register.simple_tag
def gauge(
    spent: Any, held: Any = 0, limit: Any = None, forecast: Any = None, currency: str = "USD", height: int = 8
) -> SafeString:
    """`{% gauge spent held limit forecast=… currency=… height=12 %}`: a budget as a bar; takes Decimals or Money."""
    return drawings.gauge_svg(
        spent=_decimal(spent),
        held=_decimal(held),
        limit=None if limit is None else _decimal(limit),
        forecast=None if forecast is None else _decimal(forecast),
        currency=_currency(spent, currency),
        height=int(height),
    )


@register.simple_tag
def progress(done: int, total: int, label: str) -> SafeString:
    """A bar that fills: `{% progress job.done job.total "Checked" %}`."""
    return drawings.progress_svg(done=done, total=total, label=label)


@register.simple_tag
def sparkline(values: Iterable[Any], label: str) -> SafeString:
    """`{% sparkline burn label="Spend a day, 30 days" %}`; the label carries what the line says."""
    return drawings.sparkline_svg([_decimal(value) for value in values], label=label)


@register.simple_tag
def mix(counts: Mapping[Any, int]) -> SafeString:
    """`{% mix verdicts %}`: how many of each enum member, as one stacked bar in their tones."""
    return drawings.mix_svg([(member.tone, str(member.label), number) for member, number in counts.items()])


@register.simple_tag
def money(amount: Any, currency: str = "", decimals: int | None = None) -> SafeString:
    """`{% money line.amount "EUR" %}` or `{% money budget.limit %}` (Money): to the cent, every digit in the title."""
    if amount is None:
        return format_html('<span class="muted">–</span>')
    code, exact = currency or _currency(amount, "USD"), _decimal(amount)
    return format_html(
        '<data class="money" value="{}" title="{}">{}</data>',
        f"{exact:f}",
        amounts.exact_money_text(exact, code),
        amounts.money_text(exact, code, decimals),
    )


@register.simple_tag
def decimals_that_add_up(currency: str, total: Any, *parts: Any) -> int | None:
    """`{% decimals_that_add_up currency sum one other as places %}`, then `{% money one currency places %}` for each:
    a sum that can be checked by reading it."""
    return amounts.decimals_that_add_up(_decimal(total), map(_decimal, parts), currency)


@register.filter
def number(value: Any) -> str:
    """1204 → "1,204"."""
    return "–" if value is None or value == "" else amounts.number_text(value)


@register.filter
def undo(message: Any) -> Undo | None:
    """What takes back what this message tells of, if it can be."""
    return undo_of(str(getattr(message, "extra_tags", "") or ""))


@register.filter
def up_to_99(value: int) -> str:
    """A count that is not taken any further: "99+"."""
    return "99+" if value > 99 else amounts.number_text(value)


@register.filter(name="bytes")
def bytes_(value: Any) -> str:
    """268435456 → "256 MiB"."""
    return "–" if value is None or value == "" else amounts.bytes_text(int(value))


@register.filter
def duration(value: timedelta | int | float | Decimal | None) -> str:
    """A timedelta or seconds → "4 min 12 s"."""
    return "–" if value is None or isinstance(value, str) else amounts.duration_text(value)


@register.simple_tag(takes_context=True)
def when(context: Context, moment: datetime | None, empty: str = "–", clock: bool = False) -> SafeString:
    """`{% when action.created_at %}`: "4 min ago", the viewer's own time in the title. `clock=True` shows 09:41:02."""
    if moment is None:
        return format_html('<span class="muted">{}</span>', empty)
    if timezone.is_naive(moment):
        raise ValueError("`when` takes aware moments only: a time without a zone is a guess")
    zone = viewer_zone(context)
    absolute = amounts.absolute_text(moment, zone)
    iso = moment.astimezone(ZoneInfo("UTC")).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    if clock:
        return format_html(
            '<time datetime="{}" title="{}">{}</time>', iso, absolute, f"{moment.astimezone(zone):%H:%M:%S}"
        )
    relative = amounts.relative_text(moment, now=timezone.now())
    return format_html('<time datetime="{}" title="{}" data-relative>{}</time>', iso, absolute, relative)


@register.simple_tag(takes_context=True)
def day(context: Context, moment: datetime) -> str:
    """`{% day item.at as day %}`: "Today", "Yesterday", "Monday 23 November 2026", in the viewer's zone."""
    return amounts.day_text(moment, now=timezone.now(), zone=viewer_zone(context))


@register.simple_tag
def copy(text: object, label: str = "Copy") -> SafeString:
    """`{% copy digest "Copy the digest" %}`: a button that puts `text` on the clipboard; absent without script."""
    return format_html(
        '<button class="copy needs-script" type="button" data-copy="{}" aria-label="{}" title="{}">{}{}</button>',
        text,
        label,
        label,
        icon("copy", css="todo"),
        icon("allow", css="done"),
    )


@register.simple_tag
def short_id(identifier: object, label: str = "Copy the id") -> SafeString:
    """`{% short_id action.id %}`: head and tail of an id or digest, the whole in the title and on the copy button."""
    full = str(identifier)
    prefix, colon, rest = full.rpartition(":")
    plain = rest.replace("-", "")
    shown = (
        plain
        if len(plain) <= _SHORT_ID_HEAD + _SHORT_ID_TAIL + 1
        else f"{plain[:_SHORT_ID_HEAD]}…{plain[-_SHORT_ID_TAIL:]}"
    )
    return format_html(
        '<span class="short-id"><span title="{}">{}</span>{}</span>',
        full,
        mark_hidden(prefix + colon + shown),
        copy(full, label),
    )


@register.filter
def visible_text(value: object) -> SafeString:
    """Escaped, without terminal sequences, hidden characters shown as ⟨U+202E⟩, words too long for a column breakable.
    For logs and words of strangers."""
    return mark_shown(without_ansi("" if value is None else str(value)))


register.filter(stringfilter(without_code))


@register.filter
def with_code(value: object) -> SafeString:
    """Remit's own sentences as they are written in code: what stands between backticks is set as code. Names of
    strangers may stand in them."""
    parts = str(value).split("`")
    if len(parts) % 2 == 0:  # a backtick too many is no mark
        return visible_text(value)
    shown = (visible_text(part) for part in parts)
    return format_html_join(
        "", "{}", ((format_html("<code>{}</code>", part) if index % 2 else part,) for index, part in enumerate(shown))
    )


@register.filter(is_safe=True)
@stringfilter
def as_sentence(value: str) -> str:
    """ "an amount such as 5.00" → "An amount such as 5.00.": what a form says of a field, as Django's own words are."""
    text = value.strip()
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?", "…", ":")) else ".")


@register.filter
def of(values: Mapping[Any, Any], key: Any) -> Any:
    """`{{ agent_names|of:item.agent_id }}`: what a mapping has for a key; empty when it has nothing."""
    return values.get(key, "")


@register.filter
def soon(moment: datetime | None) -> bool:
    """Less than a quarter of an hour away."""
    return moment is not None and moment - timezone.now() < timedelta(minutes=15)


@register.filter
def spelt_text(value: object) -> str:
    """The same without markup, for the options of a list. Escaped by the template like any text."""
    return spell_hidden(without_ansi("" if value is None else str(value)))


@register.filter
def ahead(moment: datetime | None) -> bool:
    """Whether it is still to come."""
    return moment is not None and moment > timezone.now()


@register.filter
def arguments_in_short(action: Any) -> str:
    """ "INV-0131 · 240.00": the values of a call, to recognise it by. Show them as visible_text."""
    return in_short(action)


@register.filter
def field_in_words(pointer: str) -> str:
    """ "/grants/0/max_calls" → “Grants 1, max calls”: which field an error is about."""
    words = ""
    for part in pointer.split("/"):
        if part.isdigit():
            words += f" {int(part) + 1}"
        elif part:
            words += (", " if words else "") + part.replace("_", " ")
    return words[:1].upper() + words[1:] if words else "All of it"


@register.filter
def title_in_words(item: Any) -> str:
    """ "Apply credit: amount 240.00": an action, or a question about one. Show it as visible_text."""
    return titles.in_words(item)


@register.filter
def title_briefly(item: Any) -> str:
    """ "Apply credit". Show it as visible_text."""
    return titles.briefly(item)


@register.inclusion_tag("components/json_table.html")
def json_table(
    arguments: object, highlight: Iterable[str] = (), allows: Mapping[str, str] | None = None, label: str = "Arguments"
) -> dict[str, ArgumentTable | str]:
    """`{% json_table action.arguments highlight=over allows=limits %}`: a row a leaf, nothing stripped or hidden.

    `highlight` names paths ("amount", "lines[0].amount"), `allows` says per path what the mission allows.
    """
    table = argument_table(arguments, highlight=frozenset(highlight or ()), allows=allows or {})
    return {"table": table, "label": label, "named": "Argument" if "rguments" in label else "Field"}


@register.inclusion_tag("components/sort_header.html", takes_context=True)
def sort_header(context: Context, key: str, label: str, numeric: bool = False) -> dict[str, object]:
    """`{% sort_header "spent" "Spent" numeric=True %}`: a <th> that sorts by `?sort=spent`, then `?sort=-spent`."""
    parameters = _parameters(context)
    chosen = parameters.get("sort", "")
    direction = {"": "", key: "ascending", f"-{key}": "descending"}.get(chosen, "")
    following = parameters.copy()
    following["sort"] = f"-{key}" if chosen == key else key
    following.pop("cursor", None)
    return {"label": label, "numeric": numeric, "direction": direction, "query": following.urlencode()}


@register.filter
def tone_of_level(level: str) -> str:
    """A Django message level (or one of our tones) as a tone."""
    return _LEVEL_TONES.get(level, level if level in TONES else "neutral")


@register.filter
def icon_of_tone(tone: str) -> str:
    return _TOAST_ICONS.get(tone, "info")


@register.filter
def spoken_tone(tone: str) -> str:
    """What the icon of a sentence says to people who do not see it."""
    return _SPOKEN_TONES.get(tone, "")


def viewer_zone(context: Context) -> ZoneInfo:
    """The signed-in person's time zone, else the one Django has active."""
    request = context.get("request") if isinstance(context, RequestContext) or "request" in context else None
    name = getattr(getattr(request, "principal", None), "time_zone", "")
    try:
        return ZoneInfo(name) if name else ZoneInfo(timezone.get_current_timezone_name())
    except (ZoneInfoNotFoundError, ValueError):
        return ZoneInfo("UTC")


def _member(choices: Any, value: str) -> StatusChoices | str:
    """The enum member behind a field's choices: its class is the one that lists the same values and labels."""
    pairs = list(choices or ())
    for enumeration in _subclasses(StatusChoices):
        if enumeration.choices == pairs:
            return enumeration(value)
    return value


def _subclasses(parent: type[StatusChoices]) -> Iterable[type[StatusChoices]]:
    for child in parent.__subclasses__():
        yield child
        yield from _subclasses(child)


def _parameters(context: Context) -> Any:
    return context["request"].GET


def _decimal(value: Any) -> Decimal:
    """Decimals, Money (its amount) and whole numbers; floats never hold money."""
    exact = getattr(value, "amount", value)
    if isinstance(exact, float):
        raise TypeError("amounts are Decimals: a float has already lost digits")
    return exact if isinstance(exact, Decimal) else Decimal(str(exact or 0))


def _currency(value: Any, otherwise: str) -> str:
    return str(getattr(value, "currency", otherwise))
