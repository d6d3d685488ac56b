"""Audit: the log in sentences, narrowed by filters that stand in the address, and one entry with its proof."""

from __future__ import annotations

import functools
import uuid
from collections.abc import Iterator, Sequence
from datetime import datetime, time, timedelta
from zoneinfo import ZoneInfo

from django.http import Http404, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import render
from django.utils.dateparse import parse_date
from django.views.decorators.http import require_GET

from agents import selectors as agents
from controlplane.audit import erasure, selectors, verification
from controlplane.audit.events import Event
from controlplane.common.ids import parse_id
from controlplane.tenancy import selectors as tenancy
from controlplane.tenancy.types import Permission, Principal
from frontend.audit_folds import Fold, Line, folded, last_of, line_of
from frontend.exports import csv_response, every_page
from frontend.pages import PersonRequest, page, require_anywhere
from frontend.saved import saved_views
from frontend.templatetags.amounts import absolute_text

MISSIONS_OFFERED = 100
SUBJECT_TYPES = (
    "mission",
    "action",
    "escalation",
    "agent",
    "run",
    "budget",
    "server",
    "tool",
    "bundle",
    "person",
    "team",
    "organisation",
    "stop",
)
_CSV_HEADER = (
    "sequence",
    "at",
    "what",
    "actor_kind",
    "actor",
    "subject_type",
    "subject_id",
    "subject",
    "payload_sha256",
)


@page
@require_GET
def listing(request: PersonRequest) -> HttpResponseBase:
    require_anywhere(request.principal, Permission.AUDIT_VIEW, "Audit entries")
    filters = _filters(request)
    if request.GET.get("format") == "csv":
        return csv_response("audit", _CSV_HEADER, _csv_rows(request.principal, filters))
    each = bool(request.GET.get("each")) or _picks_entries(filters)
    cursor = parse_id(request.GET.get("cursor"))
    lines, older, looked_to = _page(request.principal, filters, cursor, each=each)
    context = {
        "lines": lines,
        "next": older,
        "looked": _looked(request.principal, looked_to),
        "none_fits": "No older entry fits these filters." if cursor else "No entry fits these filters.",
        "each": each,
        "may_fold": not _picks_entries(filters),
        "filters": filters,
        "kinds": [(kind, kind.replace("_", " ").capitalize(), names) for kind, names in EVENT_KINDS],
        "event": f"{filters.event_kind}.*" if filters.event_kind else filters.event,
        "subject_types": SUBJECT_TYPES,
        "people": tenancy.people_of(request.principal),
        "agents": agents.agent_names(request.principal),
        "missions": _missions(request.principal, filters.mission_id),
        "given": {name: request.GET.get(name, "") for name in ("since", "until")},
        **saved_views(request, "audit"),
        "filtered": filters != selectors.Filters(),
        "may_verify": request.principal.has(Permission.AUDIT_VIEW),
        "may_export": request.principal.has(Permission.AUDIT_EXPORT),
    }
    return render(request, "audit/list.html", context)


@page
@require_GET
def detail(request: PersonRequest, entry_id: uuid.UUID) -> HttpResponse:
    entry = selectors.entry(principal=request.principal, entry_id=entry_id)
    if entry is None:
        raise Http404
    context = {
        "line": line_of(entry, request.principal),
        "entry": entry,
        "proof": verification.verify_entry(entry),
        "may_erase": entry.subject_type == "person"
        and request.principal.has(Permission.MEMBER_WRITE)
        and not erasure.is_erased(entry.subject_id),
    }
    return render(request, "audit/entry.html", context)


def _kinds() -> list[tuple[str, list[tuple[str, str]]]]:
    """The events by the word before their dot, for a list of choices: "Second factor: failed"."""
    kinds: dict[str, list[tuple[str, str]]] = {}
    for event in Event:
        kind, _, name = event.value.partition(".")
        kinds.setdefault(kind, []).append((event.value, name.replace("_", " ")))
    return sorted(kinds.items())


EVENT_KINDS = _kinds()


def _missions(principal: Principal, chosen: uuid.UUID | None) -> list[tuple[uuid.UUID, str]]:
    """The newest, and the one that is chosen whatever its age."""
    rows = agents.missions(principal)
    newest = list(rows.values_list("pk", "title")[:MISSIONS_OFFERED])
    if chosen and chosen not in dict(newest):
        newest += list(rows.filter(pk=chosen).values_list("pk", "title"))
    return newest


def _picks_entries(filters: selectors.Filters) -> bool:
    """Whoever asks for kinds of entries, words or one thing wants to see each."""
    return bool(filters.event or filters.event_kind or filters.subject_type or filters.subject_id or filters.text)


def _page(
    principal: Principal, filters: selectors.Filters, cursor: uuid.UUID | None, *, each: bool
) -> tuple[list[Line | Fold], uuid.UUID | None, datetime | None]:
    """The lines of one page, the cursor of the next, and how far back a search for words went if not to the end.
    Folded, a page takes in more entries for as many lines."""
    if each:
        found = selectors.entries(principal=principal, filters=filters, cursor=cursor)
        return [line_of(entry, principal) for entry in found.items], found.next, found.looked_to
    found = selectors.entries(principal=principal, filters=filters, cursor=cursor, limit=selectors.LARGEST_PAGE)
    lines = folded(found.items, principal)
    if len(lines) <= selectors.PAGE:
        return lines, found.next, None
    return lines[: selectors.PAGE], last_of(lines[selectors.PAGE - 1]), None


def _looked(principal: Principal, looked_to: datetime | None) -> str:
    """What a search for words has not read is not denied."""
    if looked_to is None:
        return ""
    back_to = absolute_text(looked_to, ZoneInfo(principal.time_zone))
    return f"Looked at {selectors.SEARCHED:,} entries, back to {back_to}. Older ones were not looked at yet."


def _filters(request: PersonRequest) -> selectors.Filters:
    given = request.GET
    zone = ZoneInfo(request.principal.time_zone)
    until = _day(given.get("until"), zone)
    agent_id = parse_id(given.get("agent"))
    kind = given.get("event", "").removesuffix(".*")
    return selectors.Filters(
        person_id=parse_id(given.get("person")),
        agent_id=agent_id,
        run_ids=tuple(agents.run_ids_of(request.principal, agent_id)) if agent_id else (),
        event_kind=kind if given.get("event", "").endswith(".*") and kind in dict(EVENT_KINDS) else "",
        event=given.get("event", "") if given.get("event", "") in Event.values else "",
        subject_type=given.get("subject", "") if given.get("subject", "") in SUBJECT_TYPES else "",
        subject_id=parse_id(given.get("id")),
        actor_id=parse_id(given.get("actor")),
        mission_id=parse_id(given.get("mission")),
        since=_day(given.get("since"), zone),
        until=until + timedelta(days=1) if until else None,
        text=given.get("q", "").strip()[:100],
    )


def _day(text: str | None, zone: ZoneInfo) -> datetime | None:
    """The beginning of that day where the viewer is; None for anything that is no date."""
    try:
        day = parse_date(text or "")
    except ValueError:
        return None
    return datetime.combine(day, time.min, zone) if day and 1970 <= day.year <= 9000 else None


def _csv_rows(principal: Principal, filters: selectors.Filters) -> Iterator[Sequence[object]]:
    read = functools.partial(selectors.entries, principal=principal, filters=filters, limit=selectors.LARGEST_PAGE)
    for found in every_page(lambda cursor: read(cursor=cursor)):
        for line in (line_of(entry, principal) for entry in found.items):
            entry = line.entry
            yield (
                line.sequence,
                entry.at.isoformat(),
                line.sentence,
                entry.actor_kind,
                entry.actor_name,
                entry.subject_type,
                entry.subject_id,
                entry.subject_name,
                entry.payload_sha256,
            )
