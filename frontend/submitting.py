"""A person asks to start a mission, and a message on the next page says what became of it."""

from __future__ import annotations

import uuid

from django.contrib import messages

from agents import selectors, services
from agents.choices import MissionState
from controlplane.common.errors import RemitError
from frontend.pages import PersonRequest
from governance.choices import Verdict


def submit(request: PersonRequest, mission_id: uuid.UUID) -> None:
    """Started, waiting, or refused with the reason: only what was allowed has started, and the draft stays."""
    try:
        judgement = services.submit_mission(actor=request.principal, mission_id=mission_id)
    except RemitError as error:
        if error.status == 404 or selectors.mission(request.principal, mission_id).state != MissionState.DRAFT:
            raise
        messages.error(request, " ".join(("Not started, and kept as a draft.", error.message, *error.remedies)))
        return
    match judgement.verdict:
        case Verdict.ALLOW:
            messages.success(request, "Started.")
        case Verdict.ESCALATE:
            messages.info(request, f"It waits for a second person's sign-off. {judgement.message}")
        case _:
            said = " ".join((judgement.message, *judgement.remedies))
            messages.error(request, f"Not started, and kept as a draft. {said}")
