"""What an entry of the trail says to people: its event's sentence, or that of the case in which it came about."""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from typing import Any, Final

from controlplane.audit.events import Event
from controlplane.audit.models import Entry
from controlplane.audit.reasons import IN_WORDS
from controlplane.common.plain import without_code
from controlplane.tenancy.types import PrincipalKind

_LONGEST_VALUE: Final = 200
_NOT_RECORDED: Final = "(not recorded)"
_WHY: Final = ": {reason}"
# Whoever answered is the actor of what followed from their answer, and did not ask for it.
AFTER_AN_ANSWER: Final = {
    Event.ACTION_ALLOWED: "{subject} was allowed, as {actor} approved it",
    Event.ACTION_DENIED: "{subject} was refused, though {actor} approved it: {reason_code}",
}
GLASS_BROKEN: Final = "{subject} was allowed, as {actor} broke the glass for it"
UNANSWERED: Final = {
    "escalation.denied": "{subject} was refused, as {actor} said no",
    "escalation.expired": "{subject} was refused: {reason_code}",
}
# Whoever answered used the say of somebody they stood in for.
IN_THE_PLACE_OF: Final = {
    Event.ESCALATION_APPROVED: "{actor} approved {subject} in the place of {stood_in_for}",
    Event.ESCALATION_DENIED: "{actor} refused {subject} in the place of {stood_in_for}: {reason}",
}
# What a stop did besides; it names itself as `stop`.
BY_A_STOP: Final = {
    Event.MISSION_PAUSED: "The stop of {stop} paused {subject}",
    Event.BUDGET_FROZEN: "The stop of {stop} froze the budget {subject}",
    Event.ESCALATION_WITHDRAWN: "The stop of {stop} withdrew the request {subject}",
    Event.ACTION_WITHDRAWN: "The stop of {stop} withdrew {subject}",
}


def sentence(entry: Entry) -> str:
    """What happened, for people. Plain text: the page escapes it like any other."""
    payload = entry.payload if isinstance(entry.payload, dict) else {}
    values = {**payload, "actor": entry.actor_name, "subject": entry.subject_name}  # a payload can't pose as either
    if (code := values.get("reason_code")) in IN_WORDS:
        values["reason_code"] = IN_WORDS[code]
    if isinstance(values.get("reason"), str):
        values["reason"] = without_code(values["reason"])
    return _SENTENCES.vformat(_template(entry, payload), (), values)


class _SafeFormatter(string.Formatter):
    """Plain names only, and a word in place of what the payload lacks: reading the trail never fails on an entry."""

    def get_field(self, field_name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:  # noqa: ARG002
        value = kwargs.get(field_name)
        return (_NOT_RECORDED if value is None or value == "" else str(value)[:_LONGEST_VALUE], field_name)


_SENTENCES: Final = _SafeFormatter()


def _template(entry: Entry, payload: Mapping[str, Any]) -> str:
    try:
        event = Event(entry.event)
    except ValueError:  # written by a newer version than this one
        return "{actor}: " + entry.event.replace("{", "").replace("}", "") + " {subject}"
    said = _special(event, entry, payload) or str(event.label)
    return said.removesuffix(_WHY) if payload.get("reason") == "" else said


def _special(event: Event, entry: Entry, payload: Mapping[str, Any]) -> str:
    if payload.get("stop") and event in BY_A_STOP:
        return BY_A_STOP[event]
    if payload.get("stood_in_for") and event in IN_THE_PLACE_OF:
        return IN_THE_PLACE_OF[event]
    if event is Event.ACTION_ALLOWED and payload.get("glass_broken"):
        return GLASS_BROKEN
    if event is Event.ACTION_DENIED and payload.get("reason_code") in UNANSWERED:
        return UNANSWERED[payload["reason_code"]]
    by_person = entry.actor_kind == PrincipalKind.USER and payload.get("approved")
    return AFTER_AN_ANSWER.get(event, "") if by_person else ""
