"""The states of actions, escalations and bundles."""

from __future__ import annotations

from typing import Final

from controlplane.common.choices import StatusChoices


class Verdict(StatusChoices):
    """Ordered by severity: a later stage never lowers an earlier one (deny > escalate > allow)."""

    ALLOW = "allow", "allow", "allow", "Allowed"
    ESCALATE = "escalate", "ask", "ask", "Asks a person"
    DENY = "deny", "deny", "deny", "Refused"

    @property
    def severity(self) -> int:
        return _SEVERITY[self]


_SEVERITY: Final = {verdict: position for position, verdict in enumerate(Verdict)}


class ActionState(StatusChoices):
    """proposed → denied | waiting | permitted → executing → succeeded | failed | unknown; waiting → permitted | denied
    | expired | withdrawn. Guarded by a trigger (migration 0004)."""

    PROPOSED = "proposed", "neutral", "wait", "Proposed"
    DENIED = "denied", "deny", "deny", "Refused"
    WAITING = "waiting", "wait", "wait", "Waits for a person"
    PERMITTED = "permitted", "allow", "allow", "Permitted"
    EXECUTING = "executing", "allow", "start", "Running"
    SUCCEEDED = "succeeded", "allow", "allow", "Done"
    FAILED = "failed", "ask", "warning", "Failed"  # allowed, and it went wrong: no refusal
    UNKNOWN = "unknown", "ask", "question", "Outcome unknown"
    EXPIRED = "expired", "neutral", "off", "Expired"
    WITHDRAWN = "withdrawn", "neutral", "off", "Withdrawn"


TERMINAL_ACTION_STATES = frozenset(
    {
        ActionState.DENIED,
        ActionState.SUCCEEDED,
        ActionState.FAILED,
        ActionState.UNKNOWN,
        ActionState.EXPIRED,
        ActionState.WITHDRAWN,
    }
)


class EscalationState(StatusChoices):
    OPEN = "open", "wait", "wait", "Open"
    APPROVED = "approved", "allow", "allow", "Approved"
    DENIED = "denied", "deny", "deny", "Refused"
    EXPIRED = "expired", "neutral", "off", "Expired"
    WITHDRAWN = "withdrawn", "neutral", "off", "Withdrawn"
    SUPERSEDED = "superseded", "neutral", "off", "Superseded"


class BundleState(StatusChoices):
    DRAFT = "draft", "neutral", "off", "Draft"
    ACTIVE = "active", "allow", "allow", "Active"
    RETIRED = "retired", "neutral", "off", "Retired"


class MessageKind(StatusChoices):
    COMMENT = "comment", "neutral", "message", "Comment"
    QUESTION = "question", "ask", "question", "Question to the agent"
    ANSWER = "answer", "neutral", "agent", "The agent’s own words"


class NoticeKind(StatusChoices):
    ASKED = "asked", "wait", "approve", "Waits for you"
    NEXT_TIER = "next_tier", "ask", "approve", "Waits for you now"
    ANSWERED = "answered", "neutral", "agent", "The agent answered"
    BREAK_GLASS = "break_glass", "deny", "warning", "Broken glass"
    MISSION = "mission", "neutral", "mission", "Your mission"
    REQUEST = "request", "neutral", "approve", "Answer to a request"
    BUDGET = "budget", "ask", "budget", "Budget alert"
    CONFIRM = "confirm", "ask", "approve", "Waits for a second person"


ASKING: Final = (NoticeKind.ASKED, NoticeKind.NEXT_TIER)  # until the question is settled


class ReviewVerdict(StatusChoices):
    JUSTIFIED = "justified", "allow", "allow", "Justified"
    NOT_JUSTIFIED = "not_justified", "deny", "deny", "Not justified"


GLASS_NOT_JUSTIFIED: Final = "break_glass.not_justified"  # the reason of an action that a review withdrew
CHANGED_SINCE: Final = "action.changed"  # the reason of an action whose mission or tool is not what was judged any more
REFUSED_BY_PERSON: Final = "escalation.denied"  # the reason of an action that people refused
