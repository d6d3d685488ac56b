"""The budget tree: opening accounts, setting limits, freezing. What people decide, each with its audit entry.

A child's limit may exceed its parent's, and children together may be promised more than the parent has: every level is
checked at every reserve, so the tightest one wins.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from decimal import Decimal

from django.conf import settings
from django.db import IntegrityError, transaction

from budgets import alerts, calls
from budgets.holds import subject_of, tell_pages
from budgets.models import Account, AccountLimit, Allocation, JournalEntry
from budgets.types import Level, Limits, WindowKind
from controlplane.audit.events import Event
from controlplane.audit.services import record
from controlplane.common.clock import now
from controlplane.common.errors import FieldError, RemitError, conflict, forbidden, invalid, not_found
from controlplane.common.ids import new_id
from controlplane.common.written_amounts import written_amount
from controlplane.tenancy.models import Team
from controlplane.tenancy.types import Permission, Principal, system_principal

MAX_MONEY = Decimal(10) ** 15
MAX_COUNT = 10**15
JUDGE = "judge"
# Opened by the pillar that owns the subject, as part of a change it has judged itself (a sign-off, a registration).
_OPENED_WITH_THEIR_SUBJECT = frozenset({Level.AGENT, Level.MISSION})


@dataclass(frozen=True)
class NewLimit:
    """What a limit becomes, and why: also by which action, or by which change that a second person confirmed."""

    window: WindowKind
    limits: Limits
    reason: str
    action_id: uuid.UUID | None = None
    change_id: uuid.UUID | None = None


def open_account(
    *,
    actor: Principal,
    organisation_id: uuid.UUID,
    team_id: uuid.UUID | None,
    parent_id: uuid.UUID | None,
    level: Level,
    name: str,
    subject_type: str = "",
    subject_id: uuid.UUID | None = None,
    limits: Limits,
    window: WindowKind,
) -> uuid.UUID:
    """A new node of the tree. Organisation and team budgets need `budget.write`; agents' and missions' are opened by
    what made them. Raises 404 `budget.not_found` (parent), 409 `budget.exists`, 422 `budget.limit_invalid`."""
    _require_same_organisation(actor, organisation_id)
    if level not in _OPENED_WITH_THEIR_SUBJECT:
        actor.require(Permission.BUDGET_WRITE, team_id=team_id)
    check_limits(limits)
    if team_id is not None and not Team.objects.filter(pk=team_id, organisation_id=organisation_id).exists():
        raise not_found("team")
    parent = _parent(organisation_id, team_id, parent_id)
    identifier = new_id()
    try:
        with transaction.atomic():
            account = Account.objects.create(
                id=identifier,
                organisation_id=organisation_id,
                team_id=team_id,
                parent=parent,
                path=[*(parent.path if parent else []), identifier],
                depth=parent.depth + 1 if parent else 0,
                level=level.value,
                name=name[:160],
                subject_type=subject_type,
                subject_id=subject_id,
            )
            _allocate(actor, account, NewLimit(window, limits, "Opened"))
            record(
                event=Event.BUDGET_OPENED,
                actor=actor,
                subject=subject_of(account),
                payload={
                    "level": level.value,
                    "parent": str(parent_id) if parent_id else None,
                    **facts(window, limits),
                },
            )
    except IntegrityError as error:
        if "budget_subject_once" not in str(error):
            raise
        raise conflict(
            "budget.exists", f"This {subject_type} has a budget already.", "Set its limit instead."
        ) from error
    return identifier


def account_of(*, subject_type: str, subject_id: uuid.UUID) -> uuid.UUID | None:
    """The account opened for a team, an agent or a mission. For callers that have judged access to the subject."""
    found = Account.objects.filter(subject_type=subject_type, subject_id=subject_id)
    return found.values_list("pk", flat=True).first()


def judge_account(organisation_id: uuid.UUID) -> uuid.UUID:
    """The judge's own budget of an organisation: tokens a day, opened at the first question to it."""
    known = account_of(subject_type=JUDGE, subject_id=organisation_id)
    if known is not None:
        return known
    try:
        return open_account(
            actor=system_principal(organisation_id=organisation_id),
            organisation_id=organisation_id,
            team_id=None,
            parent_id=None,
            level=Level.OTHER,
            name="Judge",
            subject_type=JUDGE,
            subject_id=organisation_id,
            limits=Limits(tokens=settings.CONFIG.judge_daily_tokens),
            window=WindowKind.DAY,
        )
    except RemitError:
        known = account_of(subject_type=JUDGE, subject_id=organisation_id)
        if known is None:
            raise
        return known  # somebody else's first question came first


def set_limit(*, actor: Principal, account_id: uuid.UUID, window: WindowKind, limits: Limits, reason: str = "") -> None:
    """A person sets a limit. One below what is held and spent takes hold at once and sinks as holds clear.

    Room for what had overrun lifts the freeze that the overrun caused. Raises 404 `budget.not_found`, 403, 422.
    """
    with transaction.atomic():
        account = locked_for_writing(actor, account_id)
        apply(actor, account, NewLimit(window, limits, reason))


def apply_limit(
    *,
    actor: Principal,
    account_id: uuid.UUID,
    window: WindowKind,
    limits: Limits,
    action_id: uuid.UUID | None = None,
    reason: str = "",
) -> None:
    """`set_limit` as the consequence of something decided elsewhere (a mission version, a permitted action): the
    decision is the leave, `actor` is who made it. Raises 404 `budget.not_found`, 422."""
    with transaction.atomic():
        account = locked(actor, account_id)
        apply(actor, account, NewLimit(window, limits, reason, action_id))


def raise_limit(
    *, actor: Principal, account_id: uuid.UUID, money: Decimal, action_id: uuid.UUID, reason: str = ""
) -> None:
    """Add money to an account's limit, because an action that asked for it was permitted."""
    with transaction.atomic():
        account = locked(actor, account_id)
        current = money_limit(account)
        if current is None or current.money is None:
            raise conflict("budget.unlimited", "This budget has no limit in money that could be raised.")
        limits = Limits(current.money + money, current.tokens, current.steps)
        apply(actor, account, NewLimit(WindowKind(current.kind), limits, reason, action_id))


def freeze(*, actor: Principal, account_id: uuid.UUID, reason: str) -> None:
    """Refuse every further reserve here and below, in every window, until a person releases it. Open holds settle.
    Raises 422 `budget.reason_missing`."""
    require_reason(reason)
    with transaction.atomic():
        account = locked_for_writing(actor, account_id)
        record_freeze(actor, account, reason)


def unfreeze(*, actor: Principal, account_id: uuid.UUID, reason: str = "") -> None:
    """Also lifts a freeze that an overrun caused. Raises 409 `budget.closed`."""
    with transaction.atomic():
        account = locked_for_writing(actor, account_id)
        if account.closed_at is not None:
            raise conflict("budget.closed", "What this budget was for is over.", "Open another mission.")
        record_release(actor, account, reason)


def set_guard(*, actor: Principal, account_id: uuid.UUID, repeats: int, ring_repeats: int = 10, ring: int = 32) -> None:
    """Thresholds of the loop guard; `repeats` 0 switches it off. Raises 422 `budget.guard_invalid`."""
    if not (0 <= repeats <= 100 and 2 <= ring_repeats <= 256 and 4 <= ring <= 256):
        raise invalid("budget.guard_invalid", "Repeats 0–100, in the ring 2–256, ring 4–256.")
    with transaction.atomic():
        account = locked_for_writing(actor, account_id)
        Account.objects.filter(pk=account.pk).update(
            guard_repeats=repeats, guard_ring_repeats=ring_repeats, guard_ring=ring
        )
        facts = {"guard_repeats": repeats, "guard_ring_repeats": ring_repeats, "guard_ring": ring}
        _journal(account, "guard", f"Loop guard: {repeats} repeats, {ring_repeats} of {ring}")
        record(event=Event.BUDGET_LIMIT_SET, actor=actor, subject=subject_of(account), payload=facts)


def money_limit(account: Account) -> AccountLimit | None:
    """The limit a top-up raises: the longest window that limits money."""
    limits = {limit.kind: limit for limit in account.limits.all() if limit.money is not None}
    order = (WindowKind.TOTAL, WindowKind.MONTH, WindowKind.WEEK, WindowKind.DAY)
    return next((limits[kind] for kind in order if kind in limits), None)


def apply(actor: Principal, account: Account, new: NewLimit) -> None:
    check_limits(new.limits)
    _allocate(actor, account, new)
    record(
        event=Event.BUDGET_LIMIT_SET,
        actor=actor,
        subject=subject_of(account),
        payload={
            **facts(new.window, new.limits),
            "reason": new.reason,
            "action": str(new.action_id) if new.action_id else None,
        },
    )
    alerts.limit_changed(account)
    tell_pages(account)


def _allocate(actor: Principal, account: Account, new: NewLimit) -> None:
    limits = new.limits
    calls.set_limit(
        account_id=account.pk, kind=new.window.value, money=limits.money, tokens=limits.tokens, steps=limits.steps
    )
    Allocation.objects.create(
        id=new.change_id or new_id(),  # what a second person confirmed bears the id of the change
        organisation_id=account.organisation_id,
        account=account,
        kind=new.window,
        money=limits.money,
        tokens=limits.tokens,
        steps=limits.steps,
        actor_kind=actor.kind.value,
        actor_id=actor.id,
        actor_name=actor.name[:120],
        action_id=new.action_id,
        reason=new.reason[:300],
    )
    JournalEntry.objects.create(
        at=now(),
        organisation_id=account.organisation_id,
        account=account,
        kind="allocation",
        action_id=new.action_id,
        mission_id=account.subject_id if account.subject_type == "mission" else None,
        money=limits.money or 0,
        tokens=limits.tokens or 0,
        steps=limits.steps or 0,
        note=new.reason,
    )


def record_release(actor: Principal, account: Account, reason: str) -> None:
    """Inside a transaction that holds the account, by whoever has judged who may."""
    calls.set_frozen(account_id=account.pk, frozen=False, reason="")
    _journal(account, "unfreeze", reason)
    record(event=Event.BUDGET_UNFROZEN, actor=actor, subject=subject_of(account), payload={"reason": reason})
    tell_pages(account)


def record_freeze(actor: Principal, account: Account, reason: str, **told: str) -> None:
    """Inside a transaction that holds the account, by whoever has judged who may. `told`: more for the trail."""
    calls.set_frozen(account_id=account.pk, frozen=True, reason=reason[:300])
    _journal(account, "freeze", reason)
    record(event=Event.BUDGET_FROZEN, actor=actor, subject=subject_of(account), payload={"reason": reason, **told})
    tell_pages(account)


def _journal(account: Account, kind: str, note: str) -> None:
    JournalEntry.objects.create(
        at=now(),
        organisation_id=account.organisation_id,
        account=account,
        kind=kind,
        money=0,
        tokens=0,
        steps=0,
        note=note,
    )


def locked_for_writing(actor: Principal, account_id: uuid.UUID) -> Account:
    account = Account.objects.restrict(actor, Permission.BUDGET_WRITE).select_for_update().filter(pk=account_id).first()
    if account is not None:
        return account
    if Account.objects.restrict(actor, Permission.BUDGET_VIEW).filter(pk=account_id).exists():
        raise forbidden(Permission.BUDGET_WRITE.value)
    raise not_found("budget")


def locked(actor: Principal, account_id: uuid.UUID) -> Account:
    account = Account.objects.select_for_update().filter(pk=account_id, organisation_id=actor.organisation_id).first()
    if account is None:
        raise not_found("budget")
    return account


def _parent(organisation_id: uuid.UUID, team_id: uuid.UUID | None, parent_id: uuid.UUID | None) -> Account | None:
    if parent_id is None:
        return None
    parent = Account.objects.filter(pk=parent_id, organisation_id=organisation_id).first()
    if parent is None or (parent.team_id is not None and parent.team_id != team_id):
        raise not_found("budget")
    if parent.closed_at is not None:
        raise conflict("budget.closed", f"The budget “{parent.name}” is closed.", "Choose another one.")
    return parent


def _require_same_organisation(actor: Principal, organisation_id: uuid.UUID) -> None:
    if actor.organisation_id != organisation_id:
        raise not_found("organisation")


def check_limits(limits: Limits) -> None:
    errors = []
    money = limits.money
    if money is not None and not (money.is_finite() and 0 <= money < MAX_MONEY and _decimals(money) <= 12):
        errors.append(FieldError("/money", "not negative, below 10^15, at most twelve decimals"))
    for name, count in (("tokens", limits.tokens), ("steps", limits.steps)):
        if count is not None and not 0 <= count < MAX_COUNT:
            errors.append(FieldError(f"/{name}", "a whole number, not negative, below 10^15"))
    if errors:
        raise invalid("budget.limit_invalid", "This can't be a limit.", *errors)


def require_reason(reason: str) -> None:
    if not reason.strip():
        raise invalid(
            "budget.reason_missing",
            "Say why: others read it on the budget and in the trail.",
            FieldError("/reason", "a reason"),
        )


def _decimals(amount: Decimal) -> int:
    exponent = amount.normalize().as_tuple().exponent
    return -exponent if isinstance(exponent, int) and exponent < 0 else 0


def facts(window: WindowKind, limits: Limits) -> dict[str, object]:
    return {
        "window": window.value,
        "money": None if limits.money is None else written_amount(limits.money),
        "tokens": limits.tokens,
        "steps": limits.steps,
    }
