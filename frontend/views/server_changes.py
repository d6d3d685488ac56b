"""What is changed or asked of one server: its teams, its credential, a test."""

from __future__ import annotations

import uuid

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_http_methods, require_POST

from agents.choices import CredentialKind
from agents.servers import checking, credentials, selectors, services
from agents.servers.credentials import Credential
from controlplane.common.errors import RemitError
from controlplane.tenancy.types import Permission
from frontend.form_errors import show_error
from frontend.pages import PersonRequest, page, require_anywhere
from frontend.server_forms import CredentialForm, TeamFields, TryForm, offer_teams, teams_chosen


@page
@require_http_methods(["GET", "POST"])
def teams(request: PersonRequest, server_id: uuid.UUID) -> HttpResponse:
    require_anywhere(request.principal, Permission.SERVER_WRITE, "Servers' teams")
    server = selectors.server(request.principal, server_id)
    form = TeamFields(request.POST or None)
    offer_teams(form, request.principal, server)
    error: RemitError | None = None
    if request.method == "POST" and form.is_valid():
        try:
            services.set_teams(actor=request.principal, server_id=server.pk, team_ids=_kept(form, server.team_ids))
        except RemitError as refused:
            error = show_error(form, refused)
        else:
            messages.success(request, "Changed. It counts from the next call on.")
            still_seen = selectors.servers(request.principal).filter(pk=server.pk).exists()
            return redirect("server", server_id=server.pk) if still_seen else redirect("servers")
    status = 422 if error is not None or form.errors else 200
    return render(request, "servers/teams.html", {"server": server, "form": form, "error": error}, status=status)


@page
@never_cache
@sensitive_post_parameters("secret")
@require_http_methods(["GET", "POST"])
def credential(request: PersonRequest, server_id: uuid.UUID) -> HttpResponse:
    require_anywhere(request.principal, Permission.SERVER_WRITE, "Servers' credentials")
    server = selectors.server(request.principal, server_id)
    selectors.require_change(request.principal, server)
    form = CredentialForm(request.POST or None)
    error: RemitError | None = None
    if request.method == "POST" and form.is_valid():
        data = form.cleaned_data
        try:
            credentials.set_credential(
                actor=request.principal,
                server_id=server.pk,
                credential=Credential(
                    kind=CredentialKind(data["kind"]),
                    secret=data["secret"],
                    header=data["header"],
                    token_url=data["token_url"],
                    client_id=data["client_id"],
                    scope=data["scope"],
                ),
            )
        except RemitError as refused:
            error = show_error(form, refused)
        else:
            messages.success(request, "Set. Test the server to see that it is taken.")
            return redirect("server", server_id=server.pk)
    status = 422 if error is not None or form.errors else 200
    return render(request, "servers/credential.html", {"server": server, "form": form, "error": error}, status=status)


@page
@require_POST
def remove_credential(request: PersonRequest, server_id: uuid.UUID) -> HttpResponse:
    server = selectors.server(request.principal, server_id)
    if credentials.remove_credential(actor=request.principal, server_id=server.pk):
        messages.success(request, "Taken away. Connections made from now on show none.")
    return redirect("server", server_id=server.pk)


@page
@require_POST
def test(request: PersonRequest, server_id: uuid.UUID) -> HttpResponse:
    """A worker connects and lists; the page shows how far it is. Nothing is waited for here."""
    server = selectors.server(request.principal, server_id)
    checking.ask_for_test(actor=request.principal, server_id=server.pk)
    return redirect("server", server_id=server.pk)


@page
@require_http_methods(["GET", "POST"])
def try_tool(request: PersonRequest, server_id: uuid.UUID) -> HttpResponse:
    require_anywhere(request.principal, Permission.SERVER_WRITE, "Tests of servers")
    server = selectors.server(request.principal, server_id)
    tools = [tool for tool in server.tools.all() if selectors.may_be_tried(tool)]
    form = TryForm(tools, request.POST or None)
    error: RemitError | None = None
    if request.method == "POST" and form.is_valid():
        try:
            checking.ask_for_test(
                actor=request.principal,
                server_id=server.pk,
                tool_id=uuid.UUID(form.cleaned_data["tool"]),
                arguments=form.cleaned_data["arguments"],
            )
        except RemitError as refused:
            error = show_error(form, refused)
        else:
            return redirect("server", server_id=server.pk)
    status = 422 if error is not None or form.errors else 200
    context = {"server": server, "form": form, "error": error, "tools": tools}
    return render(request, "servers/try.html", context, status=status)


def _kept(form: TeamFields, before: list[uuid.UUID] | None) -> list[uuid.UUID] | None:
    """What was chosen, and the teams that the person is not offered: leaving those out would take it from them."""
    chosen = teams_chosen(form.cleaned_data)
    if chosen is None and "visibility" in form.fields:
        return None
    offered = {uuid.UUID(pk) for pk, _ in form.fields["teams"].choices}  # type: ignore[attr-defined]
    return [*(chosen or []), *(pk for pk in before or () if pk not in offered)]
