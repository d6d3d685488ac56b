"""Audit, provable: checking the whole chain and exporting it, both with progress; the keys that sign."""

from __future__ import annotations

import uuid
from datetime import datetime, time, timedelta
from zoneinfo import ZoneInfo

from django.http import FileResponse, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect, render
from django.utils.dateparse import parse_date
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from controlplane.audit import jobs, selectors
from controlplane.audit.models import Job, JobKind
from controlplane.common.errors import FieldError, RemitError, invalid
from controlplane.tenancy.types import Permission
from frontend.pages import PersonRequest, page, require_anywhere

# A chain of two hundred thousand entries is done when the page comes.
AT_ONCE_SECONDS = 2.0
# What the service calls a field, and what the form does.
_FIELDS = {"/start": "from", "/end": "to", "/from": "from", "/to": "to"}


@page
@require_POST
def verify(request: PersonRequest) -> HttpResponse:
    """Check the organisation's whole chain. Reads only."""
    if not request.principal.has(Permission.AUDIT_VIEW):
        raise RemitError("permission.denied", "The chain covers the whole organisation, and your role one team.", 403)
    job = jobs.begin(job=jobs.ask_verification(principal=request.principal), seconds=AT_ONCE_SECONDS)
    return _verification(request, job)


@page
@require_GET
def job(request: PersonRequest, job_id: uuid.UUID) -> HttpResponseBase:
    """How far a check is, and its result; an export's row is on the page of exports."""
    found = jobs.seen_by(principal=request.principal, job_id=job_id)
    return _verification(request, found) if found.kind == JobKind.VERIFY else redirect("audit-exports")


@page
@require_http_methods(["GET", "POST"])
def exports(request: PersonRequest) -> HttpResponseBase:
    """The organisation's exports, and asking for one."""
    require_anywhere(request.principal, Permission.AUDIT_EXPORT, "Exports of the audit trail")
    error: RemitError | None = None
    given = {name: request.POST.get(name, "") for name in ("from", "to")}
    if request.method == "POST":
        try:
            start, end = (_bound(request, name) for name in ("from", "to"))
            asked = jobs.ask_export(principal=request.principal, start=start, end=end and end + timedelta(days=1))
        except RemitError as refused:
            error = refused
        else:
            jobs.begin(job=asked, seconds=AT_ONCE_SECONDS)
            return redirect("audit-exports")
    rows = jobs.exports_of(principal=request.principal)
    context = {
        "rows": rows,
        "running": any(row.state == "running" for row in rows),
        "keys": selectors.signing_keys(),
        "last": selectors.last_checkpoint(principal=request.principal),
        "sealed": selectors.sealed_entries(request.principal.organisation_id),
        "given": given,
        "error": error,
        "wrong": {_FIELDS[item.pointer]: item.message for item in error.errors} if error else {},
    }
    return render(request, "audit/exports.html", context, status=error.status if error else 200)


@page
@require_GET
def download(request: PersonRequest, job_id: uuid.UUID) -> HttpResponseBase:
    """The file of an export. Each download is recorded."""
    path = jobs.file_of(principal=request.principal, job_id=job_id)
    response = FileResponse(path.open("rb"), as_attachment=True, filename=f"remit-audit-{job_id}.zip")
    response["Cache-Control"] = "private, no-store"
    return response


def _verification(request: PersonRequest, found: Job) -> HttpResponse:
    context = {"job": found, "report": jobs.report_of(found)}
    return render(request, "audit/verified.html", context)


def _bound(request: PersonRequest, name: str) -> datetime | None:
    """The beginning of that day where the viewer is. Raises 422 `audit.range_invalid` for what is no day."""
    text = request.POST.get(name, "").strip()
    try:
        day = parse_date(text)
    except ValueError:
        day = None
    if text and (day is None or not 1970 <= day.year <= 9000):
        raise invalid("audit.range_invalid", "That is no day.", FieldError(f"/{name}", "a day, or nothing"))
    return datetime.combine(day, time.min, ZoneInfo(request.principal.time_zone)) if day else None
