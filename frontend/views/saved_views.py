"""Saving and removing views of lists. Both lead back to the list."""

from __future__ import annotations

import uuid

from django.contrib import messages
from django.http import Http404, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.views.decorators.http import require_POST

from agents import saved_views
from controlplane.common.errors import RemitError
from frontend.pages import PersonRequest, id_of, page
from frontend.undoing import undoable


@page
@require_POST
def save(request: PersonRequest, list_name: str) -> HttpResponse:
    if list_name not in saved_views.LISTS:
        raise Http404
    query = saved_views.filters_of(request.POST.get("query", ""))
    try:
        row = saved_views.save_view(
            actor=request.principal,
            list_name=list_name,
            name=request.POST.get("name", ""),
            query=query,
            team_id=id_of(request.POST.get("team")),
        )
    except RemitError as error:
        if error.status not in (409, 422):
            raise
        details = "; ".join(f"{problem.pointer.strip('/')}: {problem.message}" for problem in error.errors)
        messages.error(request, " ".join(filter(None, (error.message, details, *error.remedies))))
    else:
        messages.success(request, f"Saved as “{row.name}”.")
    return redirect(f"{reverse(list_name)}?{query}")


@page
@require_POST
def remove(request: PersonRequest, view_id: uuid.UUID) -> HttpResponse:
    row = saved_views.remove_view(actor=request.principal, view_id=view_id)
    back = {"name": row.name, "query": row.query, "team": str(row.team_id or "")}
    undoable(request, f"The view “{row.name}” is removed.", url=reverse("view-save", args=[row.list]), fields=back)
    return redirect(row.list)
