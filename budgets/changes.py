"""Changing a limit by hand: at once, or, when it gives away more than one person may, once a second one confirms.

How much one person may give is the organisation's `sign_off_above`, as for missions, and small raises add up for a day:
else three of them were one large one. Lowering never waits.
"""

from __future__ import annotations

import hashlib
import uuid
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Final

from django.db import transaction
from django.db.models import Exists, OuterRef

from budgets import accounts
from budgets.holds import subject_of, tell_pages
from budgets.models import Account, AccountLimit, Allocation, LimitChange
from budgets.types import ChangeState, Limits, WindowKind
from controlplane.audit.events import Event
from controlplane.audit.services import record
from controlplane.common.clock import now
from controlplane.common.errors import FieldError, RemitError, conflict, forbidden, invalid, not_found
from controlplane.common.written_amounts import written_amount
from controlplane.tenancy.selectors import holders_of
from controlplane.tenancy.types import Permission, Principal
from governance import services as governance
from governance.choices import NoticeKind

RAISES_ADD_UP_FOR: Final = timedelta(hours=24)
NO_LIMIT = ""  # the wording of a window that has none yet
_WAITS: Final = "Waits for you"


@dataclass(frozen=True)
class Changed:
    """`waits`: nothing has changed yet, a second person is asked. `replaced`: whose request it took the place of."""

    waits: bool
    change_id: uuid.UUID | None = None
    replaced: LimitChange | None = None


def wording_of(limits: Limits | None) -> str:
    """What a form carries of the limits it was filled from; another wording now means somebody was faster."""
    if limits is None or limits == Limits():
        return NO_LIMIT
    money = "" if limits.money is None else written_amount(limits.money)
    return hashlib.sha256(f"{money}/{limits.tokens}/{limits.steps}".encode()).hexdigest()[:32]


def change_limit(
    *,
    actor: Principal,
    account_id: uuid.UUID,
    window: WindowKind,
    limits: Limits,
    reason: str,
    seen: str,
    replaces: uuid.UUID | None = None,
) -> Changed:
    """A person changes a limit, saying why. `seen`: the wording they started from; `replaces`: the request they saw
    waiting, whose place this one takes.

    Raises 404 `budget.not_found`, 403, 409 `budget.changed` (somebody was faster, or asked meanwhile),
    `budget.closed`, 422 `budget.limit_invalid`, `budget.limit_same`, `budget.reason_missing`.
    """
    accounts.require_reason(reason)
    accounts.check_limits(limits)
    with transaction.atomic():
        account = accounts.locked_for_writing(actor, account_id)
        if account.closed_at is not None:
            raise conflict("budget.closed", "What this budget was for is over.", "Open another mission.")
        current = _current(account, window)
        if wording_of(current) != seen:
            raise _changed(account, window)
        if (current or Limits()) == limits:
            raise invalid("budget.limit_same", "This is the limit already.", FieldError("/money", "another amount"))
        replaced = _supersede(actor, account, window, replaces)
        if not _needs_second_person(account, window, current, limits):
            accounts.apply(actor, account, accounts.NewLimit(window, limits, reason))
            return Changed(waits=False, replaced=replaced)
        change = LimitChange.objects.create(
            organisation_id=account.organisation_id,
            account=account,
            kind=window,
            money=limits.money,
            tokens=limits.tokens,
            steps=limits.steps,
            seen=seen,
            reason=reason.strip()[:300],
            proposer_id=actor.id,
            proposer_name=actor.name[:120],
            proposed_at=now(),
        )
        _tell(Event.BUDGET_CHANGE_PROPOSED, actor, account, change)
        _ask_for_second_person(actor, account, change)
    return Changed(waits=True, change_id=change.pk, replaced=replaced)


def confirm_change(*, actor: Principal, change_id: uuid.UUID) -> None:
    """The second person agrees, and the limit is set. Raises 404 `change.not_found`, 403 `budget.second_person`, 409
    `budget.change_closed`, `budget.changed`, `budget.proposer_gone`."""
    with transaction.atomic():
        change, account = _open_change(actor, change_id)
        _require_second_person(actor, change)
        if change.proposer_id not in _who_may(account):
            raise _proposer_gone(change)
        window = WindowKind(change.kind)
        if wording_of(_current(account, window)) != change.seen:
            raise _changed(account, window)
        if account.closed_at is not None:
            raise conflict("budget.closed", "What this budget was for is over.", "Refuse the change.")
        _close(change, ChangeState.CONFIRMED, actor, account)
        _tell(Event.BUDGET_CHANGE_CONFIRMED, actor, account, change)
        limits = Limits(change.money, change.tokens, change.steps)
        reason = f"{change.proposer_name}: {change.reason}"[:300]
        accounts.apply(actor, account, accounts.NewLimit(window, limits, reason, change_id=change.pk))


def refuse_change(*, actor: Principal, change_id: uuid.UUID, reason: str) -> None:
    """Somebody else's change is not made. Raises as `confirm_change`, 422 `budget.reason_missing`."""
    accounts.require_reason(reason)
    with transaction.atomic():
        change, account = _open_change(actor, change_id)
        _require_second_person(actor, change)
        _close(change, ChangeState.REFUSED, actor, account)
        _tell(Event.BUDGET_CHANGE_REFUSED, actor, account, change, reason=reason.strip()[:300])


def withdraw_change(*, actor: Principal, change_id: uuid.UUID) -> None:
    """One's own change. Raises 404 `change.not_found`, 403 `budget.not_yours`, 409 `budget.change_closed`."""
    with transaction.atomic():
        change, account = _open_change(actor, change_id)
        if change.proposer_id != actor.id:
            raise RemitError("budget.not_yours", "Only who asked for it withdraws it.", 403, ("Refuse it instead.",))
        _close(change, ChangeState.WITHDRAWN, actor, account)
        _tell(Event.BUDGET_CHANGE_WITHDRAWN, actor, account, change)


def withdraw_all(*, actor: Principal, account: Account, reason: str) -> None:
    """Inside a transaction that holds the account, which ends: nobody could confirm what waits."""
    for change in LimitChange.objects.filter(account=account, state=ChangeState.OPEN).order_by("id"):
        _close(change, ChangeState.WITHDRAWN, actor, account)
        _tell(Event.BUDGET_CHANGE_WITHDRAWN, actor, account, change, reason=reason[:300])


def _open_change(actor: Principal, change_id: uuid.UUID) -> tuple[LimitChange, Account]:
    """The account first, as everybody who changes limits does, then the change."""
    found = LimitChange.objects.restrict(actor, Permission.BUDGET_VIEW).filter(pk=change_id).first()
    if found is None:
        raise not_found("change")
    account = accounts.locked_for_writing(actor, found.account_id)
    change = LimitChange.objects.select_for_update().get(pk=change_id)
    if change.state != ChangeState.OPEN:
        raise conflict(
            "budget.change_closed",
            f"This change is closed: {ChangeState(change.state).label.lower()}.",
            "Look at the limit as it is now.",
            state=change.state,
        )
    return change, account


def _require_second_person(actor: Principal, change: LimitChange) -> None:
    if not actor.is_person:
        raise forbidden(Permission.BUDGET_WRITE.value)
    if change.proposer_id == actor.id:
        raise RemitError(
            "budget.second_person",
            "You asked for this change, so somebody else confirms it.",
            403,
            (
                "Ask another person who may set budgets.",
                "Withdraw it and raise the limit by less: raises of a day add up.",
            ),
        )


def _proposer_gone(change: LimitChange) -> RemitError:
    """Two people agree to a limit, each of whom may set it when they do."""
    return conflict(
        "budget.proposer_gone",
        f"{change.proposer_name} may not set this budget any more, so what they asked for counts no more.",
        "Refuse it. If the limit is right, ask for it yourself.",
    )


def given_alone(account_id: uuid.UUID, window: WindowKind) -> Decimal:
    """How much nobody but who raised it agreed to in the last day: what the limit in money stands above the lowest one
    since, without what a second person or a decided action added."""
    agreed = Exists(LimitChange.objects.filter(pk=OuterRef("pk")))
    rows = Allocation.objects.filter(account_id=account_id, kind=window).annotate(agreed=agreed).order_by("at", "id")
    since = now() - RAISES_ADD_UP_FOR
    before, given = rows.filter(at__lt=since).last(), Decimal(0)
    for row in rows.filter(at__gte=since):
        if before is None or before.money is None or row.money is None:
            given = Decimal(0)
        elif not row.agreed and row.action_id is None:
            given = max(Decimal(0), given + row.money - before.money)
        before = row
    return given


def _needs_second_person(account: Account, window: WindowKind, current: Limits | None, limits: Limits) -> bool:
    if current is None or current.money is None:
        return False  # a limit where there was none takes, it does not give
    if limits.money is None:
        return True
    more = limits.money - current.money
    if more <= 0:
        return False
    threshold: Decimal = account.organisation.sign_off_above
    return more > threshold or given_alone(account.pk, window) + more > threshold


def _current(account: Account, window: WindowKind) -> Limits | None:
    row = AccountLimit.objects.filter(account=account, kind=window).first()
    return None if row is None else Limits(row.money, row.tokens, row.steps)


def _changed(account: Account, window: WindowKind) -> RemitError:
    last = Allocation.objects.filter(account=account, kind=window).order_by("-at").first()
    who = f"{last.actor_name} changed this limit" if last else "This limit was changed"
    return conflict(
        "budget.changed", f"{who} meanwhile. Nothing was overwritten.", "Look at it as it is now, and decide anew."
    )


def _supersede(
    actor: Principal, account: Account, window: WindowKind, replaces: uuid.UUID | None
) -> LimitChange | None:
    """Nobody takes the place of a request that they have not seen. Raises 409 `budget.changed`."""
    waiting = LimitChange.objects.filter(account=account, kind=window, state=ChangeState.OPEN).first()
    if waiting is None:
        return None
    if waiting.pk != replaces:
        raise conflict(
            "budget.changed",
            f"{waiting.proposer_name} asked for {_asked_for(waiting, account)} meanwhile, which waits for a second "
            "person. Nothing was overwritten.",
            "Let it be decided first, or change the limit anyway: yours takes its place.",
        )
    _close(waiting, ChangeState.SUPERSEDED, actor, account)
    _tell(Event.BUDGET_CHANGE_SUPERSEDED, actor, account, waiting, proposer=waiting.proposer_name)
    return waiting


def _asked_for(change: LimitChange, account: Account) -> str:
    money = "no limit" if change.money is None else f"{written_amount(change.money)} {account.organisation.currency}"
    return f"{money} {WindowKind(change.kind).label.lower()}"


def _close(change: LimitChange, state: ChangeState, actor: Principal, account: Account) -> None:
    LimitChange.objects.filter(pk=change.pk).update(state=state, decider_name=actor.name[:120], decided_at=now())
    said = ChangeState(state).label
    governance.settle_notices(kind=NoticeKind.CONFIRM, about_ids=[change.pk], was=_WAITS, by_now=said)
    if change.proposer_id != actor.id and change.proposer_id in _who_may(account):
        governance.tell_people([_news(account, change, change.proposer_id, NoticeKind.REQUEST, said)])


def _ask_for_second_person(actor: Principal, account: Account, change: LimitChange) -> None:
    """In the bell of everybody who may confirm it."""
    others = [user_id for user_id in _who_may(account) if user_id != actor.id]
    governance.tell_people(_news(account, change, user_id, NoticeKind.CONFIRM, _WAITS) for user_id in others)


def _who_may(account: Account) -> list[uuid.UUID]:
    return holders_of(Permission.BUDGET_WRITE, organisation_id=account.organisation_id, team_id=account.team_id)


def _news(account: Account, change: LimitChange, user_id: uuid.UUID, kind: NoticeKind, said: str) -> governance.News:
    return governance.News(
        user_id=user_id,
        organisation_id=account.organisation_id,
        team_id=account.team_id,
        kind=kind,
        subject_type="budget",
        subject_id=account.pk,
        about_id=change.pk,
        text=f"{said}: {account.name}, {_asked_for(change, account)}",
    )


def _tell(
    event: Event, actor: Principal, account: Account, change: LimitChange, *, reason: str = "", **told: str
) -> None:
    limits = Limits(change.money, change.tokens, change.steps)
    payload = {
        **accounts.facts(WindowKind(change.kind), limits),
        "change": str(change.pk),
        "reason": reason or change.reason,
        **told,
    }
    record(event=event, actor=actor, subject=subject_of(account), payload=payload)
    tell_pages(account)
