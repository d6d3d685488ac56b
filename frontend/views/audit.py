"""Audit: the log in sentences, one entry with its proof, and checking the whole chain."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from zoneinfo import ZoneInfo

from django.http import Http404, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import render
from django.utils.dateparse import parse_date
from django.views.decorators.http import require_GET, require_POST

from controlplane.audit import selectors, verification
from controlplane.audit.events import Event
from controlplane.audit.models import Entry
from controlplane.common.errors import RemitError
from controlplane.common.ids import parse_id
from controlplane.tenancy.types import Permission, Principal
from frontend.exports import csv_response
from frontend.pages import PersonRequest, page, require_anywhere

LONGEST_EXPORT = 5000
MOST_TO_VERIFY = 200_000
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
)
_SUBJECT_PAGES = {
    "mission": "mission",
    "agent": "agent",
    "action": "action",
    "escalation": "approval",
    "server": "server",
    "budget": "budget",
}
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


@dataclass(frozen=True)
class Line:
    """One entry as a line of the log. `page` names the page of its subject, where it has one."""

    entry: Entry
    sentence: str
    page: str

    @property
    def sequence(self) -> int | None:
        return self.entry.seal.sequence if hasattr(self.entry, "seal") else None


@page
@require_GET
def listing(request: PersonRequest) -> HttpResponseBase:
    require_anywhere(request.principal, Permission.AUDIT_VIEW, "Audit entries")
    filters = _filters(request)
    if request.GET.get("format") == "csv":
        return csv_response("audit", _CSV_HEADER, _csv_rows(request.principal, filters))
    found = selectors.entries(principal=request.principal, filters=filters, cursor=parse_id(request.GET.get("cursor")))
    context = {
        "lines": [_line(entry) for entry in found.items],
        "next": found.next,
        "filters": filters,
        "events": [(event.value, event.value) for event in Event],
        "subject_types": SUBJECT_TYPES,
        "given": {name: request.GET.get(name, "") for name in ("since", "until")},
        "filtered": filters != selectors.Filters(),
        "may_verify": _may_verify(request.principal),
    }
    return render(request, "audit/list.html", context)


@page
@require_GET
def detail(request: PersonRequest, entry_id: uuid.UUID) -> HttpResponse:
    entry = selectors.entry(principal=request.principal, entry_id=entry_id)
    if entry is None:
        raise Http404
    context = {"line": _line(entry), "entry": entry, "proof": verification.verify_entry(entry)}
    return render(request, "audit/entry.html", context)


@page
@require_POST
def verify(request: PersonRequest) -> HttpResponse:
    """Check the organisation's whole chain now. Reads only; very long trails are checked with the command."""
    if not _may_verify(request.principal):
        raise RemitError("permission.denied", "The chain covers the whole organisation, and your role one team.", 403)
    sealed = selectors.sealed_entries(request.principal.organisation_id)
    report = None
    if sealed <= MOST_TO_VERIFY:
        report = verification.verify_organisation(organisation_id=request.principal.organisation_id)
    context = {"report": report, "sealed": sealed, "most": MOST_TO_VERIFY}
    return render(request, "audit/verified.html", context)


def _may_verify(principal: Principal) -> bool:
    return principal.has(Permission.AUDIT_VIEW)


def _line(entry: Entry) -> Line:
    return Line(entry, selectors.sentence(entry), _SUBJECT_PAGES.get(entry.subject_type, ""))


def _filters(request: PersonRequest) -> selectors.Filters:
    given = request.GET
    zone = ZoneInfo(request.principal.time_zone)
    until = _day(given.get("until"), zone)
    return selectors.Filters(
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
    cursor: uuid.UUID | None = None
    for _ in range(LONGEST_EXPORT // selectors.LARGEST_PAGE):
        found = selectors.entries(principal=principal, filters=filters, cursor=cursor, limit=selectors.LARGEST_PAGE)
        for line in map(_line, found.items):
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
        cursor = found.next
        if cursor is None:
            return
