"""How many questions one mission may put to people: whoever is asked too often stops reading."""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import Final

from django.db.models import Count, Q

from controlplane.common.clock import now
from governance.choices import EscalationState, Verdict
from governance.models import Escalation
from governance.types import Finding, Prepared

MOST_OPEN: Final = 50
MOST_AN_HOUR: Final = 150


def check(*, prepared: Prepared, organisation_id: uuid.UUID, besides: uuid.UUID) -> Finding | None:
    """Inside the decision's transaction, only for what would ask people. Calls at once may pass the limit by as many as
    there are."""
    if prepared.mission_id is None:
        return None
    counted = (
        Escalation.objects.filter(organisation_id=organisation_id, mission_id=prepared.mission_id)
        .exclude(action_id=besides)
        .aggregate(
            open=Count("id", filter=Q(state=EscalationState.OPEN, expires_at__gt=now())),
            recent=Count("id", filter=Q(opened_at__gt=now() - timedelta(hours=1))),
        )
    )
    if counted["open"] >= MOST_OPEN:
        return Finding(
            Verdict.DENY,
            "escalation.too_many_open",
            f"{counted['open']} questions of this mission wait for people already; no more are put to them.",
            ("Wait for the answers, or withdraw questions that no longer matter.", "Go on with other work."),
        )
    if counted["recent"] >= MOST_AN_HOUR:
        return Finding(
            Verdict.DENY,
            "escalation.too_many",
            f"{counted['recent']} questions of this mission were put to people within an hour.",
            ("Go on with other work, and ask again later.", "Ask for a wider remit instead of each call."),
        )
    return None
