"""Another size for a mission's running sandbox: the form on its Runs tab, and what is wrong with what was typed."""

from __future__ import annotations

import uuid

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_POST

from agents import selectors
from agents.models import Run
from controlplane.clusters import services as clusters
from controlplane.clusters.types import MIB, Resources
from controlplane.common.errors import RemitError, conflict, not_found
from controlplane.tenancy.types import Permission
from frontend.form_errors import show_error
from frontend.pages import PersonRequest, page
from frontend.resize_form import ResizeForm
from frontend.templatetags.amounts import bytes_text
from frontend.views import missions


@page
@require_POST
def resize(request: PersonRequest, mission_id: uuid.UUID) -> HttpResponse:
    """Ask for another size; the page shows when it has taken hold, or why it was refused."""
    mission = selectors.mission(request.principal, mission_id)
    if not request.principal.has(Permission.MISSION_OPERATE, team_id=mission.team_id):
        raise not_found("sandbox")
    run: Run | None = next((run for run in mission.runs.all() if run.sandbox_id), None)
    if run is None or run.sandbox is None:
        raise conflict("sandbox.none", "This mission runs in no sandbox of Remit's.", "Look at its attempts.")
    sandbox = run.sandbox
    form = ResizeForm(sandbox, request.POST)
    error: RemitError | None = None
    if form.is_valid():
        now = Resources(**sandbox.desired_resources)
        wanted = Resources(
            cpu_millicores=form.cleaned_data["cpu_millicores"],
            memory_bytes=form.cleaned_data["memory_mib"] * MIB,
            pids=now.pids,
            disk_bytes=now.disk_bytes,
        )
        try:
            clusters.resize_sandbox(actor=request.principal, sandbox_id=sandbox.pk, resources=wanted)
        except RemitError as refused:
            error = show_error(form, refused)
        else:
            messages.success(request, _asked_for(wanted, sandbox.peak_memory_bytes))
            return redirect("mission-tab", mission_id=mission_id, tab="runs")
    context = {**missions.context_of(request, mission, "runs", ""), "resize_form": form, "error": error}
    return render(request, "missions/detail.html", context, status=error.status if error else 422)


def _asked_for(wanted: Resources, peak_bytes: int) -> str:
    if wanted.memory_bytes >= peak_bytes:
        return "Asked for the new size. The row says when it has taken hold."
    return (
        f"Asked for the new size, which is below the peak of {bytes_text(peak_bytes)}. "
        "What is in use now can't be taken away: then the row says so and the old size stays."
    )
