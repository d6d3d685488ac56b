"""What the tests of the judge share: the mission it reads, connecting it, and its rung of the ladder."""

from __future__ import annotations

from typing import Any

from django.conf import settings as django_settings

from governance.judging import endpoints
from governance.models import Decision

from .gate import Gate
from .model_server import MODEL

GOAL = "Credit what customers were promised in writing."
BRIEF = {
    "mission": {"goal": GOAL, "criteria": ["Every promised credit is given"]},
    "action": {"tool": "books__apply_credit", "arguments": {"amount": 10}},
    "untrusted": {"tool_description": "Applies a credit."},
}


def connect(settings: Any, url: str, **more: Any) -> None:
    wanted = {
        "judge_url": url,
        "judge_model": MODEL,
        "judge_key": "secret-key-of-the-judge",
        "judge_seconds": 2.0,
        **more,
    }
    settings.CONFIG = django_settings.CONFIG.model_copy(update=wanted)
    endpoints._KNOWN.clear()  # each test has a breaker of its own


def rung(gate: Gate, judgement: Any) -> dict[str, Any]:
    decision = Decision.objects.filter(action_id=judgement.action_id).latest("id")
    return dict(next(stage for stage in decision.stages if stage["name"] == "judge"))
