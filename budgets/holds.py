"""Holds: reserve, dispatch, settle, void, extend. The caller has judged who may.

Each is part of the caller's transaction, or has one of its own that gives the rows back before it waits for the disk.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from decimal import Decimal

from budgets import calls
from budgets.models import Account
from budgets.types import Amounts, HoldState, Refusal, Reservation, Reserve, Settlement, WindowKind
from controlplane.audit.events import Event
from controlplane.audit.services import Subject, record
from controlplane.common.commits import early_unlock
from controlplane.common.errors import conflict, invalid, not_found
from controlplane.common.written_amounts import written_amount
from controlplane.live.services import announce
from controlplane.tenancy.types import system_principal

MAX_BATCH = 500
_CLOSED = (HoldState.VOIDED, HoldState.EXPIRED)
_WITHIN = {
    WindowKind.TOTAL: "in total",
    WindowKind.DAY: "for today",
    WindowKind.WEEK: "for this week",
    WindowKind.MONTH: "for this month",
}


def reserve(
    *,
    hold_id: uuid.UUID,
    account_id: uuid.UUID,
    organisation_id: uuid.UUID,
    amounts: Amounts,
    ttl_seconds: int,
    currency: str | None = None,
    signature: bytes = b"",
    action_id: uuid.UUID | None = None,
    mission_id: uuid.UUID | None = None,
    description: str = "",
    dispatched: bool = False,
) -> Refusal | None:
    """Hold all of `amounts` at every level from the account to the root, or nothing. One statement.

    `hold_id` is the idempotency key: the same request again gets the stored answer. Returns the refusal or None.
    `dispatched`: what is held by this is dispatched at once.
    Raises 409 `ledger.hold_conflict` (same id, other request), 503 `ledger.busy`, 422 `ledger.amount_invalid`.
    """
    answer = calls.reserve(
        hold_id=hold_id,
        organisation_id=organisation_id,
        account_id=account_id,
        amounts=amounts,
        currency=currency,
        signature=signature,
        ttl_seconds=ttl_seconds,
        action_id=action_id,
        mission_id=mission_id,
        note=description,
        dispatched=dispatched,
    )
    reservation = _reservation(hold_id, answer, amounts)
    if dispatched and reservation.replayed and reservation.refusal is None:
        dispatch(hold_id=hold_id)
    return reservation.refusal


def reserve_batch(
    *, organisation_id: uuid.UUID, items: Sequence[Reserve], ttl_seconds: int, currency: str | None = None
) -> list[Reservation]:
    """Up to 500 reserves in one round trip, each with its own answer, in their order. Errors as `reserve`."""
    if len(items) > MAX_BATCH:
        raise invalid("ledger.batch_too_large", f"At most {MAX_BATCH} reserves go into one batch.")
    if not items:
        return []
    answers = calls.reserve_batch(
        organisation_id=organisation_id, currency=currency, items=items, ttl_seconds=ttl_seconds
    )
    return [_reservation(item.hold_id, answer, item.amounts) for item, answer in zip(items, answers, strict=True)]


def dispatch(*, hold_id: uuid.UUID) -> None:
    """The money may be spent from here on; its time starts anew. Raises 404, 409 `ledger.hold_closed`."""
    outcome, state = calls.dispatch(hold_id=hold_id)
    _require_open(outcome, state)


def extend(*, hold_id: uuid.UUID, ttl_seconds: int) -> None:
    """At least `ttl_seconds` from now. Raises 404 `hold.not_found`, 409 `ledger.hold_closed`."""
    outcome, state = calls.extend(hold_id=hold_id, ttl_seconds=ttl_seconds)
    _require_open(outcome, state)


def settle(*, hold_id: uuid.UUID, amounts: Amounts | None = None) -> Settlement:
    """Charge `amounts` (None: as held), once; a second report changes nothing.

    What goes beyond the hold takes what room is left; the rest is charged as overrun, and the budget is frozen and the
    audit trail told. Raises 404 `hold.not_found`, 409 `ledger.hold_closed` when it had been voided.
    """
    chosen: tuple[Decimal | None, int | None, int | None] = (None, None, None)
    if amounts is not None:
        chosen = (amounts.money, amounts.tokens, amounts.steps)
    return charge(hold_id=hold_id, money=chosen[0], tokens=chosen[1], steps=chosen[2])


def charge(*, hold_id: uuid.UUID, money: Decimal | None, tokens: int | None, steps: int | None) -> Settlement:
    """`settle`, with each unit on its own: None is as held."""
    # No savepoint of its own: rows touched under one are queued for twice (see budgets_reserve).
    with early_unlock(savepoint=False):
        outcome, charged, overran, beyond = calls.settle(hold_id=hold_id, money=money, tokens=tokens, steps=steps)
        if overran:
            tell_overrun(overran, beyond, hold_id)
    if outcome == "unknown":
        raise not_found("hold")
    if outcome == "voided":
        raise conflict("ledger.hold_closed", "This hold was released: nothing can be charged to it.", "Reserve again.")
    return Settlement(hold_id=hold_id, charged=charged, replayed=outcome == "replayed", overrun=tuple(overran))


def void(*, hold_id: uuid.UUID) -> None:
    """Nothing was spent: give it back. Twice is once. Raises 404 `hold.not_found`, 409 `ledger.hold_settled`."""
    outcome = calls.void(hold_id=hold_id)
    if outcome == "unknown":
        raise not_found("hold")
    if outcome == "settled":
        raise conflict("ledger.hold_settled", "This hold was charged already; it can't be released any more.")


def _require_open(outcome: str, state: str | None) -> None:
    if outcome == "unknown":
        raise not_found("hold")
    if outcome == "closed":
        raise conflict("ledger.hold_closed", "This hold is closed.", "Reserve again.", state=state)


def tell_overrun(account_ids: Sequence[uuid.UUID], beyond: Decimal, hold_id: uuid.UUID) -> None:
    for account in Account.objects.filter(pk__in=account_ids).select_related("organisation"):
        record(
            event=Event.BUDGET_OVERRUN,
            actor=system_principal(organisation_id=account.organisation_id),
            subject=subject_of(account),
            payload={"amount": f"{written_amount(beyond)} {account.organisation.currency}", "hold": str(hold_id)},
        )
        tell_pages(account)


def tell_pages(account: Account) -> None:
    """That of the budget, and those that show it among others. Holds and charges come of actions, which are told."""
    announce(f"budget:{account.pk}", "balance")
    announce(f"organisation:{account.organisation_id}", "budgets")


def subject_of(account: Account) -> Subject:
    mission_id = account.subject_id if account.subject_type == "mission" else None
    return Subject("budget", account.pk, account.name, account.team_id, mission_id)


def _reservation(hold_id: uuid.UUID, answer: calls.Answer, wanted: Amounts) -> Reservation:
    state = HoldState(answer.state) if answer.state else None
    if answer.outcome == "held":
        return Reservation(hold_id, state)
    if answer.outcome == "replayed" and state not in _CLOSED:
        return Reservation(hold_id, state, replayed=True)
    if answer.outcome == "conflict":
        raise conflict(
            "ledger.hold_conflict", "This id was used for another hold.", "Use a fresh id for another request."
        )
    return Reservation(hold_id, state, _refusal(answer, wanted), replayed=answer.outcome == "replayed")


def _refusal(answer: calls.Answer, wanted: Amounts) -> Refusal:
    ask = "Ask for more with the action budget.topup, or ask finance."
    match answer.outcome:
        case "exhausted":
            needed = f"{getattr(wanted, answer.unit or 'money')}"
            left = f"{answer.remaining:f}"
            noun = answer.unit or ""
            if answer.unit == "money":
                noun = answer.currency or ""
                needed, left = f"{written_amount(wanted.money)} {noun}", written_amount(answer.remaining or Decimal(0))
            code = "budget.exhausted"
            message = (
                f"The budget “{answer.name}” ({answer.level}) has {left} {noun} left "
                f"{_WITHIN[WindowKind(answer.kind or 'total')]}; this needs {needed}."
            )
            remedies: tuple[str, ...] = ("Do something that costs less, or wait for a running call to end.", ask)
        case "frozen":
            code, message = "budget.frozen", f"The budget “{answer.name}” ({answer.level}) is frozen."
            remedies = ("Ask finance to look at it and release it.",)
        case "no_progress":
            code = "guard.no_progress"
            message = "This call gave the same result again and again; nothing new has come of it."
            remedies = ("Do something else: other calls go on.", "Change the arguments, or finish with what you have.")
        case "replayed":
            code, message = "budget.hold_closed", "This hold was released meanwhile."
            remedies = ("Reserve again with a fresh id.",)
        case "currency":
            code, message = "budget.currency", f"This organisation counts in {answer.currency}."
            remedies = (f"Give amounts in {answer.currency}.",)
        case "changed":
            code, message = "budget.exhausted", f"The budget “{answer.name}” ({answer.level}) had no room a moment ago."
            remedies = ("Send it again: something was released meanwhile.", ask)
        case _:
            code, message = "budget.unknown_account", "There is no such budget in this organisation."
            remedies = ("Check which mission this belongs to.",)
    return Refusal(code, message, remedies, answer.account_id, answer.level or "", answer.unit or "", answer.remaining)
