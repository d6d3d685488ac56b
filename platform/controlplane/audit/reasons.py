"""Reason codes as a sentence of the trail says them. A code without words stands as it is."""

from __future__ import annotations

IN_WORDS = {
    "grant.missing": "its remit does not have it",
    "grant.argument_outside": "outside the limits of its remit",
    "grant.argument_above_limit": "above the limit of its remit",
    "grant.calls_used_up": "its remit allows no more of it",
    "guard.no_progress": "it gave the same result again and again",
    "rate.exceeded": "too many calls in a short time",
    "budget.exhausted": "the budget does not have that much left",
    "budget.frozen": "the budget is frozen",
    "mission.not_active": "the mission does not run",
    "mission.ended": "the mission is over",
    "mission.deadline": "the mission's time is over",
    "run.ended": "the attempt is over",
    "stop.in_force": "a stop is in force",
    "tool.quarantined": "the tool waits for somebody to look at it",
    "tool.unknown": "there is no such tool",
    "server.unread": "the tools of its server could not be read yet",
    "policy.not_permitted": "no policy permits it",
    "policy.forbidden": "a policy forbids it",
    "sequence.too_many_deletes": "too many deletions",
    "sequence.egress_after_secret": "it would send something out after a secret was read",
    "sequence.blast_radius": "it would touch too many objects",
    "escalation.expired": "nobody decided in time",
}
