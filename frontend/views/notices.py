"""What a person was told: the bell of the frame, and the page behind it. Only POST marks as read."""

from __future__ import annotations

from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_POST

from frontend.pages import PersonRequest, id_of, page
from governance import selectors as governance
from governance import services

_IN_BELL = 8
_OPENS = {"question": "approval", "mission": "mission", "budget": "budget", "stop": "stop"}


@page
@never_cache
@require_GET
def listing(request: PersonRequest) -> HttpResponse:
    return render(request, "notices/page.html", {"notices": governance.notices_of(request.principal, limit=100)})


@page
@never_cache
@require_GET
def bell(request: PersonRequest) -> HttpResponse:
    """The sheet of the bell, fetched when it is opened."""
    return render(request, "notices/sheet.html", {"notices": governance.notices_of(request.principal, limit=_IN_BELL)})


@page
@never_cache
@require_GET
def count(request: PersonRequest) -> HttpResponse:
    """The bell with its count, as the frame has it."""
    return render(request, "frame/bell.html")


@page
@require_POST
def read(request: PersonRequest) -> HttpResponse:
    """All of them, or one that is opened with it."""
    notice = id_of(request.POST.get("notice"))
    services.mark_read(principal=request.principal, notice_ids=[notice] if notice else None)
    for subject, address in _OPENS.items():
        if (about := id_of(request.POST.get(subject))) is not None:
            return redirect(address, about)
    return redirect("notices")
