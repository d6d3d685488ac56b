"""The command palette, and its page without script."""

from __future__ import annotations

from django.http import HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET

from frontend import finding
from frontend.pages import PersonRequest, is_part, page


@page
@require_GET
def search(request: PersonRequest) -> HttpResponse:
    """Options for the palette, or a page of them without script. Only what the viewer may see."""
    text = request.GET.get("q", "").strip()[: finding.LONGEST].replace("\x00", "")
    template = "search/options.html" if is_part(request) else "search/page.html"
    return render(
        request, template, {"hits": finding.find(request.principal, text), "text": text, "reach": finding.REACH}
    )
