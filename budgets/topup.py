"""The action kind `budget.topup`: someone asks for more money; the limit rises once a person agreed."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Collection
from decimal import Decimal
from typing import Any, Final

from budgets.accounts import money_limit, raise_limit
from budgets.models import Account
from controlplane.common.errors import FieldError, forbidden, invalid, not_found
from controlplane.common.ids import parse_id
from controlplane.common.written_amounts import written_amount, written_money
from controlplane.tenancy.types import Permission, Principal, PrincipalKind
from governance import selectors as governance
from governance.choices import ActionState, Verdict
from governance.services import tell_answer
from governance.types import Finding, Prepared, Proposal

MICRO = 1_000_000
LONGEST_REASON = 300
_MONEY = re.compile(r"[0-9]{1,12}(\.[0-9]{1,6})?\Z")
_MACHINES = (PrincipalKind.RUN, PrincipalKind.AGENT)
ResponsibleFor = Callable[[str, uuid.UUID], Collection[uuid.UUID]]
_RESPONSIBLE: Final[list[ResponsibleFor]] = []


def register_responsible(lookup: ResponsibleFor) -> None:
    """`lookup(subject_type, subject_id)`: whom it belongs to, who hence may not give it more. Missions stand above
    budgets and register at start."""
    _RESPONSIBLE[:] = [lookup]


Objection = Callable[[uuid.UUID, uuid.UUID | None, str, uuid.UUID | None], Finding | None]
_OBJECTIONS: Final[list[Objection]] = []


def register_objection(lookup: Objection) -> None:
    """`lookup(organisation_id, team_id, subject_type, subject_id)`: why that budget may not grow now, or None."""
    _OBJECTIONS[:] = [lookup]


class TopUp:
    """Arguments: `money` ("5.00"), `reason`, and `account_id`, which a run may leave out: its own mission's budget."""

    code = "budget.topup"
    label = "Ask for more budget"
    cedar_action = "budget.topup"

    def prepare(self, *, proposer: Principal, proposal: Proposal) -> Prepared:
        money, reason, account_id = _arguments(proposal)
        account = _account(proposer, account_id)
        if account.team_id is None:
            raise invalid("budget.no_team", "The organisation's own budget is set by finance, not asked for.")
        limit = money_limit(account)
        where = (account.organisation_id, account.team_id, account.subject_type, account.subject_id)
        guards = [found for lookup in _OBJECTIONS if (found := lookup(*where)) is not None]
        if account.closed_at is not None:
            guards.append(Finding(Verdict.DENY, "budget.closed", "What this budget was for is over."))
        elif limit is None:
            guards.append(Finding(Verdict.DENY, "budget.unlimited", "This budget has no limit in money."))
        mission_id = account.subject_id if account.subject_type == "mission" else None
        return Prepared(
            team_id=account.team_id,
            title=f"{written_money(money, account.organisation.currency)} more for “{account.name}”"[:200],
            envelope={
                "kind": proposal.kind,
                "proposer": str(proposer.id),
                "account": str(account.pk),
                "money": str(money),
                "reason": reason,
            },
            principal_entity=_person_or_agent(proposer),
            resource_entity={
                "uid": {"type": "Budget", "id": str(account.pk)},
                "attrs": {"level": account.level},
                "parents": [],
            },
            context={"money_micros": int(money * MICRO)},
            guards=guards,
            guards_saw=f"Limit {written_amount(limit.money)} ({limit.kind})."
            if limit and limit.money is not None
            else "",
            agent_id=proposer.agent_id or _agent_of(account),
            mission_id=mission_id,
            run_id=proposer.run_id,
            subject_type="budget",
            subject_id=account.pk,
            excluded_user_ids=_excluded(proposer, account),
            currency=account.organisation.currency,
            amount=money,
        )

    def lock(self, *, subject_id: uuid.UUID | None) -> None:
        """An answer changes nothing but the budget, whose lock comes last."""

    def on_decided(self, *, action_id: uuid.UUID, state: ActionState, actor: Principal) -> None:
        action = governance.decided_action(action_id)
        if action.subject_id is None:
            raise not_found("budget")
        owners = _responsible(Account.objects.get(pk=action.subject_id))
        tell_answer(action=action, state=state, actor=actor, owners=owners)
        if state is not ActionState.PERMITTED:
            return
        raise_limit(
            actor=actor,
            account_id=action.subject_id,
            money=Decimal(action.arguments["money"]),
            action_id=action_id,
            reason=str(action.arguments.get("reason", "")),
        )


def _arguments(proposal: Proposal) -> tuple[Decimal, str, uuid.UUID | None]:
    given = dict(proposal.arguments)
    money, reason, account = given.pop("money", None), given.pop("reason", ""), given.pop("account_id", None)
    account_id = parse_id(account)
    errors = [FieldError(f"/arguments/{name}", "not an argument of this action") for name in given]
    if not isinstance(money, str) or not _MONEY.match(money) or Decimal(money) <= 0:
        errors.append(FieldError("/arguments/money", 'text such as "5.00", more than nothing, at most six decimals'))
    if not isinstance(reason, str) or len(reason) > LONGEST_REASON:
        errors.append(FieldError("/arguments/reason", f"text of at most {LONGEST_REASON} characters"))
    if account is not None and account_id is None:
        errors.append(FieldError("/arguments/account_id", "an id"))
    if errors:
        raise invalid("action.arguments", "It names an amount, as `money`, and a reason.", *errors)
    return Decimal(str(money)), str(reason), account_id


def _account(proposer: Principal, account_id: uuid.UUID | None) -> Account:
    """A machine's own mission's budget, or one a person may see and spends from. Raises 403, 404 `budget.not_found`."""
    accounts = Account.objects.select_related("organisation")
    if proposer.kind in _MACHINES:
        if not proposer.has_anywhere(Permission.ACTION_PROPOSE):
            raise forbidden(Permission.ACTION_PROPOSE.value)
        own = accounts.filter(
            organisation_id=proposer.organisation_id, subject_type="mission", subject_id=proposer.mission_id
        )
        found = own.first() if proposer.mission_id is not None else None
        if found is not None and account_id not in (None, found.pk):
            raise not_found("budget")
    else:
        if account_id is None:
            raise invalid("action.arguments", "Which budget?", FieldError("/arguments/account_id", "an id"))
        found = accounts.restrict(proposer, Permission.BUDGET_VIEW).filter(pk=account_id).first()
        if found is not None and not _may_ask(proposer, found):
            raise forbidden(Permission.MISSION_OPERATE.value)
    if found is None:
        raise not_found("budget")
    return found


def _agent_of(account: Account) -> uuid.UUID | None:
    """Whose budget it is or stands beneath: a stop of that agent ends the question too."""
    above = Account.objects.filter(pk__in=account.path, subject_type="agent")
    return above.values_list("subject_id", flat=True).first()


def _may_ask(person: Principal, account: Account) -> bool:
    """Who runs missions in its team, or sets budgets; others only look."""
    wanted = (Permission.MISSION_OPERATE, Permission.BUDGET_WRITE)
    return any(person.has(permission, team_id=account.team_id) for permission in wanted)


def _excluded(proposer: Principal, account: Account) -> list[uuid.UUID]:
    """Four eyes: neither who asks nor whom the budget's subject belongs to."""
    return sorted({*_responsible(account), *([proposer.user_id] if proposer.user_id else [])})


def _responsible(account: Account) -> set[uuid.UUID]:
    if account.subject_id is None:
        return set()
    return {user for lookup in _RESPONSIBLE for user in lookup(account.subject_type, account.subject_id)}


def _person_or_agent(proposer: Principal) -> dict[str, Any]:
    if proposer.kind in _MACHINES:
        return {
            "uid": {"type": "Agent", "id": str(proposer.agent_id or proposer.id)},
            "attrs": {"team": str(proposer.team_id), "runtime": ""},
            "parents": [],
        }
    return {
        "uid": {"type": "Person", "id": str(proposer.id)},
        "attrs": {"roles": sorted(role.value for role in proposer.roles)},
        "parents": [],
    }
