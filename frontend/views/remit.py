"""Changing a mission's remit: a form made from the version in force, a preview that says what widens, then sending."""

from __future__ import annotations

import uuid
from typing import Any

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods

from agents import selectors, services
from agents.choices import ENDED_MISSION_STATES, VersionState
from agents.grants import Grant
from agents.models import Mission, MissionVersion
from agents.remits import remit_in_force
from agents.rewording import preview_change
from agents.servers import selectors as servers
from controlplane.common.errors import RemitError, conflict
from controlplane.tenancy.types import Permission
from frontend import trying
from frontend.approving import diff_lines
from frontend.form_errors import show_error
from frontend.grants_editor import (
    MOST_GRANTS,
    MOST_RULES,
    RULES,
    GrantRow,
    RuleRow,
    grants_of_rows,
    rows_of_grants,
    rows_of_post,
)
from frontend.pages import PersonRequest, page, require_in_team, zone_of
from frontend.remit_form import RemitForm, initial_of, mark_of
from frontend.remit_history import comparison
from frontend.remit_merge import CARRIED, merged

_LONGEST_TOOL = 200
_LOST_RACE = "mission.changed_meanwhile"


@page
@never_cache
@require_http_methods(["GET", "POST"])
def change(request: PersonRequest, mission_id: uuid.UUID) -> HttpResponse:
    """Nothing is sent before it was previewed as it stands, and nothing typed is lost, whatever happened meanwhile."""
    mission = _changeable(request, mission_id)
    current = selectors.version_in_force(mission)
    zone = zone_of(request.principal)
    before = remit_in_force(mission, current)
    if request.method == "GET":
        form = RemitForm(current=before, zone=zone)
        rows = rows_of_grants(before.grants)
        if tool := request.GET.get("tool", "").strip()[:_LONGEST_TOOL]:
            _open_for(rows, tool)
        return _show(request, mission, form, rows)
    return _posted(request, mission)


def _posted(request: PersonRequest, mission: Mission) -> HttpResponse:
    """What nobody touched in the form follows what is in force, whichever button was pressed."""
    current, zone = selectors.version_in_force(mission), zone_of(request.principal)
    before = remit_in_force(mission, current)
    rows = rows_of_post(request.POST)
    todo = request.POST.get("do", "preview")
    if todo.startswith("add-"):
        _add(rows, todo)
    opened = _version(mission, _number(request.POST.get("opened")))
    mine = merged(request.POST, rows, opened=opened, now=before, zone=zone)
    form = RemitForm(mine.data, current=before, zone=zone)
    base = _number(request.POST.get("base"))
    happened: dict[str, Any] = {
        "moved_on": base != _latest(mission).number or (opened is not None and opened != current),
        "opened": opened or _version(mission, base),
        "both": mine.both,
    }
    if todo.startswith("add-"):
        return _show(request, mission, form, mine.rows, quiet=True, **happened)
    if todo == "try":
        return _try(request, mission, form, mine.rows, happened)
    return _preview_or_send(request, mission, form, mine.rows, happened, send=todo == "send")


def _try(
    request: PersonRequest, mission: Mission, form: RemitForm, rows: list[GrantRow], happened: dict[str, Any]
) -> HttpResponse:
    grants, wrong = _grants(rows)
    if wrong is not None:
        return _show(request, mission, form, rows, error=wrong, status=422, **happened)
    importance = trying.importance_of(form.data)
    trial = trying.asked(request.principal, mission, trying.typed(request.POST), grants, importance)
    return _show(request, mission, form, rows, trial=trial, status=422 if trial.problem else 200, **happened)


def _preview_or_send(
    request: PersonRequest,
    mission: Mission,
    form: RemitForm,
    rows: list[GrantRow],
    happened: dict[str, Any],
    *,
    send: bool,
) -> HttpResponse:
    grants, wrong = _grants(rows)
    if not form.is_valid() or wrong is not None:
        return _show(request, mission, form, rows, error=wrong, status=422, **happened)
    latest = _latest(mission).number
    remit, note = form.remit(grants), form.cleaned_data["note"]
    current = selectors.version_in_force(mission)
    preview = preview_change(
        actor=request.principal, mission=mission, current=current, remit=remit, zone=zone_of(request.principal)
    )
    mark = mark_of(remit, note, latest)
    context: dict[str, Any] = {
        "preview": preview,
        "mark": mark,
        "goal_lines": diff_lines(current.goal, remit.goal) if current.goal != remit.goal else [],
        **happened,
    }
    if happened["moved_on"] or happened["both"]:
        return _show(request, mission, form, rows, status=412, **context)
    if not send or not preview.changes:
        return _show(request, mission, form, rows, **context)
    if request.POST.get("mark") != mark:
        return _show(request, mission, form, rows, moved=True, status=409, **context)
    try:
        judgement = services.change_mission(
            actor=request.principal, mission_id=mission.pk, remit=remit, note=note, expected_version=latest
        )
    except RemitError as refused:
        if refused.code == _LOST_RACE:
            return _posted(request, _changeable(request, mission.pk))
        shown = show_error(form, refused)
        return _show(request, mission, form, rows, error=shown, status=refused.status)
    if judgement is not None and judgement.state == "waiting":
        messages.info(request, f"It waits for a second person. Until then version {current.number} stays in force.")
    elif judgement is not None and judgement.state == "denied":
        messages.error(request, f"Refused: {judgement.message}")
    else:
        messages.success(request, f"Version {latest + 1} is in force.")
    return redirect("mission-tab", mission_id=mission.pk, tab="remit")


def _show(
    request: PersonRequest,
    mission: Mission,
    form: RemitForm,
    rows: list[GrantRow],
    *,
    moved_on: bool = False,
    opened: MissionVersion | None = None,
    status: int = 200,
    **more: Any,
) -> HttpResponse:
    latest, version, zone = _latest(mission), selectors.version_in_force(mission), zone_of(request.principal)
    before = remit_in_force(mission, version)
    waits = latest.state == VersionState.AWAITING_SIGN_OFF and latest.number > mission.version
    named = {row.tool for row in rows if row.counts}
    context = {
        "mission": mission,
        "row": selectors.mission_rows(request.principal, [mission])[0],
        "may_operate": True,  # or the form is not shown
        "version": version,
        "form": form,
        "rows": rows,
        "rules": RULES,
        "base": latest.number,
        "waiting": latest if waits else None,
        "tools": servers.tool_names(request.principal, team_id=mission.team_id),
        "unknown": servers.unknown_tools(request.principal, named, team_id=mission.team_id),
        "zone": zone,
        "stale": _what_happened(request, opened, latest) if moved_on else None,
        "was": {name: text for name, text in initial_of(before, zone).items() if name in CARRIED},
        "action": reverse("mission-change", args=[mission.pk]),
        "trial": trying.typed(request.POST),
        **more,
    }
    return render(request, "missions/change/page.html", context, status=status)


def _what_happened(request: PersonRequest, opened: MissionVersion | None, latest: MissionVersion) -> dict[str, Any]:
    """Who was faster, and what they changed, beside what the form would change now."""
    return {"version": latest, "theirs": comparison(request.principal, opened, latest) if opened else None}


def _version(mission: Mission, number: int) -> MissionVersion | None:
    return next((version for version in mission.versions.all() if version.number == number), None)


def _changeable(request: PersonRequest, mission_id: uuid.UUID) -> Mission:
    """Raises 404, 403, 409 `mission.ended`."""
    mission = selectors.mission(request.principal, mission_id)
    require_in_team(request.principal, Permission.MISSION_OPERATE, mission.team_id, "Changes of a remit")
    if mission.state in ENDED_MISSION_STATES:
        raise conflict("mission.ended", "This mission is over, so its remit stays as it is.", "Start a new one.")
    return mission


def _latest(mission: Mission) -> MissionVersion:
    return max(mission.versions.all(), key=lambda version: version.number)


def _grants(rows: list[GrantRow]) -> tuple[list[Grant], RemitError | None]:
    try:
        return grants_of_rows(rows), None
    except RemitError as refused:
        return [], refused


def _open_for(rows: list[GrantRow], tool: str) -> None:
    """The grants about the tool that somebody comes for, else a new one with its name."""
    about = [row for row in rows if row.tool == tool]
    if not about and len(rows) < MOST_GRANTS:
        about = [GrantRow(tool=tool, effect="escalate", rules=[RuleRow()])]
        rows.extend(about)
    for row in about:
        row.fresh = True


def _add(rows: list[GrantRow], todo: str) -> None:
    """“add-grant” or “add-limit-3”: another row to fill in."""
    if todo == "add-grant" and len(rows) < MOST_GRANTS:
        rows.append(GrantRow(rules=[RuleRow()], fresh=True))
        return
    index = _number(todo.removeprefix("add-limit-"))
    if index < len(rows) and len(rows[index].rules) < MOST_RULES:
        rows[index].rules.append(RuleRow())
        rows[index].fresh = True


def _number(text: str | None) -> int:
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 9 else 0
