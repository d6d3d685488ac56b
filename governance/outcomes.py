"""What came of an action: recorded by whoever ran it, or settled by a person when nobody knows."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from django.db import transaction

from controlplane.audit import services as audit
from controlplane.audit.events import Event
from controlplane.common.clock import now
from controlplane.common.commits import early_unlock
from controlplane.common.errors import FieldError, RemitError, conflict, invalid, not_found
from controlplane.common.written_amounts import written_amount
from controlplane.tenancy.types import Permission, Principal, PrincipalKind
from governance.announcing import action_changed
from governance.choices import ActionState
from governance.models import Action, Permit
from governance.registry import ledger
from governance.rows import end, ending, lock, locking, subject_of
from governance.transitions import settle_hold
from governance.types import Statement

STATES: Final = {
    "success": ActionState.SUCCEEDED,
    "failure": ActionState.FAILED,
    "unknown": ActionState.UNKNOWN,
}
_EVENTS: Final = {
    ActionState.SUCCEEDED: Event.ACTION_SUCCEEDED,
    ActionState.FAILED: Event.ACTION_FAILED,
    ActionState.UNKNOWN: Event.ACTION_UNKNOWN,
}
_LONGEST: Final = 2000
# In the outcome of what the sweep gave up: its executor never said anything.
_UNREPORTED: Final = "unreported"


@dataclass(frozen=True)
class Report:
    """What an executor says. Untrusted text: shown as text, never read as instructions."""

    outcome: str
    result_sha256: str
    summary: str
    error: str
    effects: tuple[str, ...]

    @property
    def state(self) -> ActionState:
        return STATES[self.outcome]


def record_outcome(
    *,
    holder: Principal,
    action_id: uuid.UUID,
    audience: str,
    outcome: str,
    result_sha256: str = "",
    summary: str = "",
    error: str = "",
    effects: Sequence[str] = (),
    money: Decimal | None = None,
) -> Action:
    """End an executing action: success and failure settle its hold (at `money`, else the held price), unknown keeps it.

    Only from the audience its permit was used for: of a call that Remit makes itself, its agent says nothing. Reported
    twice alike is one report. What the sweep gave up in the meantime takes its first report all the same, as long as no
    person has settled it. Raises 404, 403, 409 `outcome.*`, 422 `outcome.malformed`.
    """
    report = _report(outcome, result_sha256, summary, error, effects, money)
    action = Action.objects.restrict(holder, Permission.ACTION_VIEW).filter(pk=action_id).first()
    if action is None:
        raise not_found("action")
    if holder.kind is not PrincipalKind.SYSTEM and not action.was_asked_for_by(holder):
        raise RemitError("outcome.other_holder", "Only who ran this action can say what came of it.", 403)
    used = Permit.objects.filter(action=action, consumed_at__isnull=False).order_by("id").last()
    if used is None:
        raise _never_started(action)
    if used.audience != audience:
        raise RemitError(
            "outcome.other_executor",
            "Remit makes this call itself, and says itself what came of it.",
            403,
            remedies=("Ask for the action: its outcome stands there once the call has ended.",),
        )
    return _record(holder, action, report, money)


def record_outcome_of(
    *,
    holder: Principal,
    started: Action,
    outcome: str,
    result_sha256: str = "",
    summary: str = "",
    error: str = "",
    money: Decimal | None = None,
) -> Action:
    """`record_outcome` by the edge that started this action for the holder and still has it in hand."""
    return _record(holder, started, _report(outcome, result_sha256, summary, error, (), money), money)


def _record(holder: Principal, action: Action, report: Report, money: Decimal | None) -> Action:
    event, also = _EVENTS[report.state], _for_loop_guard(action, report)
    if _end_at_once(action, report, event=event, actor=holder, money=money, also=also):
        return action
    with early_unlock():
        ended = _end(
            action, report, source=ActionState.EXECUTING, event=event, actor=holder, money=money, also=also
        ) or _end_late(action, report, event=event, actor=holder, money=money, also=also)
    return action if ended else _reported_before(action, report)


def check_outcome(
    *, outcome: str, result_sha256: str = "", summary: str = "", error: str = "", effects: Sequence[str] = ()
) -> None:
    """Whether `record_outcome` would take this report, for edges that start an action and report on it in one request.

    Raises 422 `outcome.malformed`.
    """
    _report(outcome, result_sha256, summary, error, effects, None)


def reconcile(*, actor: Principal, action_id: uuid.UUID, outcome: str, reason: str) -> Action:
    """A person found out what came of an unknown action. Raises 404, 422, 409 `action.not_unknown`."""
    if outcome not in ("success", "failure"):
        raise invalid("outcome.malformed", "Say what came of it.", FieldError("/outcome", "success or failure"))
    if not reason.strip():
        raise invalid("reason.missing", "Say how you know.", FieldError("/reason", "a sentence"))
    action = Action.objects.restrict(actor, Permission.MISSION_OPERATE).filter(pk=action_id).first()
    if action is None or not actor.is_person:
        raise not_found("action")
    before = action.outcome or {}
    known = _text(reason.strip())
    error = "" if outcome == "success" else str(before.get("error", ""))
    report = Report(outcome, before.get("result_sha256", ""), before.get("summary", ""), error, ())
    with transaction.atomic():
        ended = _end(
            action,
            report,
            source=ActionState.UNKNOWN,
            event=Event.ACTION_RECONCILED,
            actor=actor,
            payload={"outcome": outcome, "reason": known, "digest": action.digest},
            more={"settled": {"by": actor.name, "reason": known}},
        )
    if not ended:
        raise conflict("action.not_unknown", "What came of this action is known already.", "Reload the page.")
    return action


def lose_track(action: Action, *, actor: Principal, reason: str) -> bool:
    """Inside a transaction: nobody said what came of it in time. The hold stays until a person reconciles it."""
    return _end(
        action,
        Report("unknown", "", "", reason, ()),
        source=ActionState.EXECUTING,
        event=Event.ACTION_UNKNOWN,
        actor=actor,
        payload={"reason": reason, "digest": action.digest},
        more={_UNREPORTED: True},
    )


def _end_at_once(
    action: Action, report: Report, *, event: Event, actor: Principal, money: Decimal | None, also: Statement | None
) -> bool:
    """The way of nearly every call, which cost no more than was held: one round trip. False: nothing was done."""
    if report.state is ActionState.UNKNOWN or action.executing_at is None or action.hold_id is None:
        return False
    action.cost = action.price if money is None else money
    entry = _write(action, report, event=event, actor=actor)
    if not ledger().settle_between(
        money=action.cost,
        locked=locking(action.pk, state=ActionState.EXECUTING),
        then=ending(action, entry, also=also),
    ):
        return False
    action_changed(action)
    return True


def _end(
    action: Action,
    report: Report,
    *,
    source: ActionState,
    event: Event,
    actor: Principal,
    money: Decimal | None = None,
    payload: Mapping[str, Any] | None = None,
    more: Mapping[str, Any] | None = None,
    also: Statement | None = None,
) -> bool:
    """Lock first, settle after: whoever finds the action in another state settles nothing."""
    if not lock(action.pk, state=source):
        return False
    if report.state is not ActionState.UNKNOWN:
        action.cost = settle_hold(action, money=money)
    end(action, _write(action, report, event=event, actor=actor, payload=payload, more=more), also=also)
    action_changed(action)
    return True


def _write(
    action: Action,
    report: Report,
    *,
    event: Event,
    actor: Principal,
    payload: Mapping[str, Any] | None = None,
    more: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """On the instance, whose cost is known: how it ended. Returns the entry that tells it."""
    action.state, action.ended_at = report.state, now()
    action.effects = sorted({*action.effects, *report.effects})
    action.outcome = {
        "outcome": report.outcome,
        "result_sha256": report.result_sha256,
        "summary": report.summary,
        "effects": list(report.effects),
        "error": report.error,
        **(more or {}),
    }
    facts = payload if payload is not None else _facts(action, report)
    return audit.row(event=event, actor=actor, subject=subject_of(action), payload=facts)


def _facts(action: Action, report: Report) -> dict[str, str]:
    return {
        "digest": action.digest,
        "result_sha256": report.result_sha256,
        "reason": report.error,
        "cost": written_amount(action.cost) if action.cost is not None else "",
        "currency": action.currency,
    }


def _end_late(
    action: Action, report: Report, *, event: Event, actor: Principal, money: Decimal | None, also: Statement | None
) -> bool:
    """Its executor's first word, after the sweep gave it up. While it is unknown that mark can't change."""
    action.refresh_from_db()
    if action.state != ActionState.UNKNOWN or not (action.outcome or {}).get(_UNREPORTED):
        return False
    return report.state is not ActionState.UNKNOWN and _end(
        action, report, source=ActionState.UNKNOWN, event=event, actor=actor, money=money, also=also
    )


def _for_loop_guard(action: Action, report: Report) -> Statement | None:
    if action.account_id is None or not action.signature:
        return None
    result = report.result_sha256 or f"{report.outcome}:{report.error}"
    return ledger().noting(
        account_id=action.account_id,
        signature=bytes(action.signature),
        result=hashlib.sha256(result.encode()).digest(),
    )


def _reported_before(action: Action, report: Report) -> Action:
    """Saying so promises that the earlier report is kept, so it is read in a transaction that waits for the disk."""
    with early_unlock():
        action.refresh_from_db()
    known = action.outcome or {}
    if action.state == report.state and known.get("result_sha256") == report.result_sha256:
        return action
    if action.executing_at is None:
        raise _never_started(action)
    raise conflict(
        "outcome.already_recorded",
        f"What came of this action is recorded: {ActionState(action.state).label.lower()}.",
        "A person can settle an unknown outcome on the action's page.",
        state=action.state,
    )


def _never_started(action: Action) -> RemitError:
    return conflict(
        "outcome.never_started",
        "This action was never started, so nothing can have come of it.",
        "Redeem its permit first.",
        state=action.state,
    )


def _report(
    outcome: str, result_sha256: str, summary: str, error: str, effects: Sequence[str], money: Decimal | None
) -> Report:
    errors: list[FieldError] = []
    if outcome not in STATES:
        errors.append(FieldError("/outcome", f"one of: {', '.join(STATES)}"))
    if len(result_sha256) > 71:
        errors.append(FieldError("/result_sha256", "sha256:<hex>"))
    if len(effects) > 50 or any(not isinstance(effect, str) or not 0 < len(effect) <= 60 for effect in effects):
        errors.append(FieldError("/effects", "at most 50 labels of at most 60 characters"))
    if money is not None and (not money.is_finite() or money < 0):
        errors.append(FieldError("/usage/money", "an amount of zero or more"))
    if errors:
        raise invalid("outcome.malformed", "This report can't be used.", *errors)
    return Report(outcome, result_sha256, _text(summary), _text(error), tuple(effects))


def _text(value: str) -> str:
    """Text that PostgreSQL and every reader can take."""
    return value[:_LONGEST].replace("\x00", "�").encode("utf-8", "replace").decode()
