"""Servers: which MCP servers are registered, whether their tools may be trusted, and who uses them."""

from __future__ import annotations

import json
import shlex
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django import forms
from django.contrib import messages
from django.http import HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from agents.catalogue import samples_installing
from agents.choices import ServerState, ToolState, Transport
from agents.models import McpServer, McpTool, ServerTest
from agents.servers import selectors, services
from agents.servers.environments import NODE_PACKAGES, names
from agents.servers.health import Health, health_of
from agents.servers.types import ToolTraits
from controlplane.common.clock import now
from controlplane.common.errors import FieldError, RemitError, invalid
from controlplane.tenancy.types import Permission, Principal
from frontend.approving import DiffLine, diff_lines
from frontend.exports import csv_response
from frontend.form_errors import show_error
from frontend.pages import PersonRequest, page, require_anywhere
from frontend.server_forms import TeamFields, offer_teams, teams_chosen
from frontend.undoing import undoable


@dataclass(frozen=True)
class ServerRow:
    """One server of the list with how many of its tools are in which state."""

    server: McpServer
    approved: int
    quarantined: int
    health: Health

    @property
    def words(self) -> str:
        return f"{self.quarantined} quarantined"


@dataclass(frozen=True)
class Quarantine:
    """A tool that can't be called until a person approves `sha256`, which is what the diff shows."""

    tool: McpTool
    sha256: str
    is_new: bool
    lines: list[DiffLine]

    @property
    def words(self) -> str:
        return "New, not approved" if self.is_new else "Changed, quarantined"


@page
@require_GET
def listing(request: PersonRequest) -> HttpResponseBase:
    require_anywhere(request.principal, Permission.SERVER_VIEW, "Servers")
    found = list(selectors.server_list(request.principal))
    healths = health_of([server.pk for server in found])
    rows = [
        ServerRow(server, server.approved, server.quarantined, healths.get(server.pk, Health()))  # type: ignore[attr-defined]
        for server in found
    ]
    rows = _sorted(rows, request.GET.get("sort", ""))
    if request.GET.get("format") == "csv":
        return csv_response("servers", _CSV_HEADER, map(_csv_row, rows))
    context = {"rows": rows, "may_write": _may_write(request), "installing": samples_installing(request.principal)}
    return render(request, "servers/list.html", context)


@page
@require_GET
def detail(request: PersonRequest, server_id: uuid.UUID) -> HttpResponse:
    server = selectors.server(request.principal, server_id)
    tools = list(server.tools.all())
    context = {
        "server": server,
        "tools": [tool for tool in tools if tool.state != ToolState.QUARANTINED],
        "quarantined": [_quarantine(tool) for tool in tools if tool.state == ToolState.QUARANTINED],
        "usages": selectors.missions_using(request.principal, [tool.qualified_name for tool in tools]),
        "command": shlex.join(server.command),
        "off": server.state == ServerState.DISABLED,
        "may_write": _may_write(request),
        "may_change": selectors.may_change(request.principal, server),
        "teams": selectors.team_names(request.principal, server),
        "health": health_of([server.pk]).get(server.pk, Health()),
        "of_a_mission": selectors.needs_a_mission(server),
        "test": _shown_test(selectors.newest_test(request.principal, server.pk)),
        "callable": any(map(selectors.may_be_tried, tools)),
        "credential": getattr(server, "credential", None),
    }
    return render(request, "servers/detail.html", context)


@page
@require_http_methods(["GET", "POST"])
def new(request: PersonRequest) -> HttpResponse:
    require_anywhere(request.principal, Permission.SERVER_WRITE, "New servers")
    form = ServerForm(request.principal, request.POST or None)
    error: RemitError | None = None
    if request.method == "POST" and form.is_valid():
        try:
            server = _register(request, form.cleaned_data)
        except RemitError as refused:
            error = show_error(form, refused)
        else:
            messages.success(request, "Registered. Read its tools next: what it offers first is what you approve.")
            return redirect("server", server_id=server.pk)
    status = 422 if error is not None or form.errors else 200
    return render(request, "servers/new.html", {"form": form, "error": error}, status=status)


@page
@require_POST
def switch(request: PersonRequest, server_id: uuid.UUID) -> HttpResponse:
    on = request.POST.get("on") == "1"
    row = selectors.server(request.principal, server_id)
    services.switch_server(actor=request.principal, server_id=row.pk, on=on)
    if on:
        messages.success(request, "Switched on.")
    else:
        undoable(
            request,
            "Switched off. None of its tools can be called.",
            url=reverse("server-switch", args=[row.pk]),
            fields={"on": "1"},
        )
    return redirect("server", server_id=server_id)


@page
@require_POST
def approve(request: PersonRequest, tool_id: uuid.UUID) -> HttpResponse:
    """Put the definition with the hash the person read in force, or nothing."""
    tool = selectors.tool(request.principal, tool_id)
    try:
        services.approve_definition(actor=request.principal, tool_id=tool_id, sha256=request.POST.get("sha256", ""))
    except RemitError as error:
        if error.status not in (409, 422):
            raise
        messages.error(request, f"{error.message} {' '.join(error.remedies)}")
    else:
        messages.success(request, f"{tool.qualified_name} is approved and can be called again.")
    return redirect("server", server_id=tool.server_id)


@page
@require_POST
def describe(request: PersonRequest, tool_id: uuid.UUID) -> HttpResponse:
    """What people say of a tool: whether it only reads, and whether it can be undone. Its effects stay as they are."""
    tool = selectors.tool(request.principal, tool_id)
    traits = ToolTraits(
        read_only="read_only" in request.POST, reversible="reversible" in request.POST, effects=tuple(tool.effects)
    )
    services.describe_tool(actor=request.principal, tool_id=tool_id, traits=traits)
    messages.success(request, f"{tool.qualified_name} is described.")
    return redirect("server", server_id=tool.server_id)


class ServerForm(TeamFields):
    """A program in our sandbox, or an address."""

    name = forms.CharField(label="Name", max_length=120, widget=forms.TextInput(attrs={"autocomplete": "off"}))
    slug = forms.CharField(
        label="Short name",
        max_length=40,
        help_text="Its tools are called <short name>__<tool>. Lower-case letters and digits.",
        widget=forms.TextInput(attrs={"autocomplete": "off", "spellcheck": "false", "class": "code"}),
    )
    transport = forms.ChoiceField(
        label="Where it runs",
        choices=[(Transport.STDIO.value, "A program in our sandbox"), (Transport.HTTP.value, "At an address (HTTP)")],
        widget=forms.RadioSelect,
        initial=Transport.STDIO.value,
    )
    environment = forms.ChoiceField(
        label="Environment", required=False, help_text="For a program: what it is run with."
    )
    command = forms.CharField(
        label="Arguments",
        required=False,
        max_length=2000,
        help_text="For a program: what follows its interpreter, as in a shell.",
        widget=forms.TextInput(attrs={"autocomplete": "off", "spellcheck": "false", "class": "code"}),
    )
    url = forms.CharField(
        label="Address",
        required=False,
        max_length=400,
        help_text="For HTTP: https:// and the path of its MCP end.",
        widget=forms.TextInput(attrs={"inputmode": "url", "autocomplete": "off", "spellcheck": "false"}),
    )

    def __init__(self, principal: Principal, data: Any = None) -> None:
        super().__init__(data)
        offer_teams(self, principal)
        choices = [("", "None: it is at an address"), *((name, name) for name in (*names(), *NODE_PACKAGES))]
        self.fields["environment"].choices = choices  # type: ignore[attr-defined]


_SORTS: dict[str, Callable[[ServerRow], Any]] = {
    "name": lambda row: row.server.name.lower(),
    "health": lambda row: (row.server.state, -(row.health.error_percent or 0)),
    "tools": lambda row: row.approved,
    "checked": lambda row: row.server.checked_at.timestamp() if row.server.checked_at else 0,
}
_CSV_HEADER = (
    *("id", "name", "short_name", "runs", "address", "state", "error", "tools_approved", "tools_quarantined"),
    *("calls_24h", "failed_calls_24h", "latency_ms", "checked_at"),
)


def _sorted(rows: list[ServerRow], by: str) -> list[ServerRow]:
    key = _SORTS.get(by.removeprefix("-"))
    return rows if key is None else sorted(rows, key=key, reverse=by.startswith("-"))


def _csv_row(row: ServerRow) -> tuple[object, ...]:
    server = row.server
    return (
        *(server.pk, server.name, server.slug, server.transport, server.url, server.state, server.error),
        *(row.approved, row.quarantined, row.health.calls, row.health.failed_calls, server.latency_milliseconds),
        server.checked_at.isoformat() if server.checked_at else "",
    )


def _register(request: PersonRequest, data: dict[str, Any]) -> McpServer:
    transport = Transport(data["transport"])
    try:
        command = shlex.split(data["command"])
    except ValueError as error:
        raise invalid("server.invalid", "Not registered.", FieldError("/command", "a quote is not closed")) from error
    return services.register_server(
        actor=request.principal,
        name=data["name"],
        slug=data["slug"],
        transport=transport,
        environment=data["environment"],
        command=command,
        url=data["url"].strip(),
        team_ids=teams_chosen(data),
    )


def _may_write(request: PersonRequest) -> bool:
    """Whether the form is of use to them."""
    return request.principal.has_anywhere(Permission.SERVER_WRITE)


def _shown_test(test: ServerTest | None) -> ServerTest | None:
    """One that is under way, or has ended within the hour; older ones are history."""
    recent = test is not None and (test.ended_at is None or now() - test.ended_at < timedelta(hours=1))
    return test if recent else None


def _quarantine(tool: McpTool) -> Quarantine:
    """A tool that was never in force has nothing to compare with: all of it is new."""
    is_new = tool.pending_definition is None
    offered = tool.definition if tool.pending_definition is None else tool.pending_definition
    old = "" if is_new else _as_text(tool.definition)
    return Quarantine(tool, tool.pending_sha256 or tool.definition_sha256, is_new, diff_lines(old, _as_text(offered)))


def _as_text(definition: Any) -> str:
    return json.dumps(definition, indent=2, sort_keys=True, ensure_ascii=False)
