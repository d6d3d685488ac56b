"""What became of a mission that a person asked to start, as a message on the next page."""

from __future__ import annotations

from django.contrib import messages
from django.http import HttpRequest

from governance.choices import Verdict
from governance.types import Judgement


def tell_submitted(request: HttpRequest, judgement: Judgement) -> None:
    """Started, waiting, or refused with the gate's own reason: only what was allowed has started."""
    match judgement.verdict:
        case Verdict.ALLOW:
            messages.success(request, "Started.")
        case Verdict.ESCALATE:
            messages.info(request, f"It waits for a second person's sign-off. {judgement.message}")
        case _:
            said = " ".join((judgement.message, *judgement.remedies))
            messages.error(request, f"Not started. {said}")
