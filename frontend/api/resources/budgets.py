"""Budgets, holds and ledger lines: read by those who may see them, limits set and frozen by finance."""

from __future__ import annotations

import uuid
from collections.abc import Mapping

from django.http.response import HttpResponseBase
from rest_framework.request import Request
from rest_framework.response import Response

from budgets import listing, selectors, services
from budgets.changes import wording_of
from budgets.types import Balance, WindowKind
from controlplane.tenancy.types import Permission
from frontend.api.operations import Resource, digest_of, operation, stale_is_412
from frontend.api.shapes import budgets as shapes
from frontend.api.shapes.common import GivenReasonBody
from frontend.api.shapes.missions import amount_from


class BudgetResource(Resource):
    tag = "budgets"

    def budget(self, budget_id: uuid.UUID, permission: Permission | None = None) -> Balance:
        found = selectors.balance(self.principal, budget_id)
        if permission is not None:
            self.require(permission, found.team_id)
        return found

    def shown(self, budget_id: uuid.UUID) -> HttpResponseBase:
        found = self.budget(budget_id)
        return self.item(shapes.BudgetOut(found).data, version=version_of(found, self.waiting(budget_id)))

    def waiting(self, budget_id: uuid.UUID) -> dict[str, uuid.UUID]:
        """By window, what waits for a second person."""
        rows = selectors.changes_waiting(self.principal, account_id=budget_id)
        return {row.kind: row.pk for row in rows}


def version_of(balance: Balance, waiting: Mapping[str, uuid.UUID]) -> str:
    """What people set and ask for: the limits of every window, those that wait for a second person, and the freeze.
    Nothing that spending moves, not even an order."""
    windows = sorted((balance, *balance.also), key=lambda entry: entry.window.value)
    limits = ((entry.window.value, entry.limits) for entry in windows)
    return digest_of(balance.frozen_by_person, *limits, *sorted(waiting.items()))


class Budgets(BudgetResource):
    @operation(
        "budgets_list",
        "List budgets",
        permission=Permission.BUDGET_VIEW,
        query=shapes.BudgetQuery,
        answer=shapes.BudgetOut,
        listed=True,
        about="The tree as a list: `parent_id` says where each belongs.",
    )
    def get(self, request: Request) -> Response:
        found = listing.balances(
            self.principal,
            level=self.query.get("level"),
            cursor=self.query.get("cursor"),
            limit=self.query["limit"],
        )
        return Response({"items": shapes.BudgetOut(found.items, many=True).data, "next": found.next})


class BudgetItem(BudgetResource):
    @operation("budgets_get", "Read a budget", permission=Permission.BUDGET_VIEW, answer=shapes.BudgetOut)
    def get(self, request: Request, budget_id: uuid.UUID) -> HttpResponseBase:
        return self.shown(budget_id)


class BudgetSetLimit(BudgetResource):
    @operation(
        "budgets_set_limit",
        "Set a budget's limits in one window",
        permission=Permission.BUDGET_WRITE,
        body=shapes.SetLimitBody,
        answer=shapes.ChangedOut,
        if_match=True,
        about=(
            "What gives away more than one person may waits for a second one, as a limit change; raises of 24 hours "
            "add up. It takes the place of a change of this window that waits. Below what is held and spent, a limit "
            "takes hold at once and sinks as holds clear."
        ),
    )
    def post(self, request: Request, budget_id: uuid.UUID) -> HttpResponseBase:
        window = WindowKind(self.body["window"])
        # Before the ETag is compared: whoever changes it from now on makes the service refuse.
        seen = wording_of(selectors.limit_of(self.principal, budget_id, window))
        waiting = self.waiting(budget_id)
        found = self.budget(budget_id, Permission.BUDGET_WRITE)
        self.must_match(version_of(found, waiting))
        limits = self.body["limits"]
        money = limits.get("money")
        amount = amount_from(money, currency=found.currency, pointer="/limits/money") if money else None
        with stale_is_412("budget.changed"):
            changed = services.change_limit(
                actor=self.principal,
                account_id=budget_id,
                window=window,
                limits=shapes.limits_from(limits, amount),
                reason=self.body["reason"],
                seen=seen,
                replaces=waiting.get(window),
            )
        now_ = self.budget(budget_id)
        data = {
            "waits": changed.waits,
            "change_id": changed.change_id,
            "replaced_id": changed.replaced and changed.replaced.pk,
            "budget": now_,
        }
        return self.item(shapes.ChangedOut(data).data, version=version_of(now_, self.waiting(budget_id)))


class BudgetFreeze(BudgetResource):
    @operation(
        "budgets_freeze",
        "Freeze a budget",
        permission=Permission.BUDGET_WRITE,
        body=GivenReasonBody,
        answer=shapes.BudgetOut,
        about="Every further reserve here and below is refused; what is held may still be settled.",
    )
    def post(self, request: Request, budget_id: uuid.UUID) -> HttpResponseBase:
        self.budget(budget_id, Permission.BUDGET_WRITE)
        services.freeze(actor=self.principal, account_id=budget_id, reason=self.body["reason"])
        return self.shown(budget_id)


class BudgetUnfreeze(BudgetResource):
    @operation(
        "budgets_unfreeze",
        "Release a frozen budget",
        permission=Permission.BUDGET_WRITE,
        body=GivenReasonBody,
        answer=shapes.BudgetOut,
    )
    def post(self, request: Request, budget_id: uuid.UUID) -> HttpResponseBase:
        self.budget(budget_id, Permission.BUDGET_WRITE)
        services.unfreeze(actor=self.principal, account_id=budget_id, reason=self.body["reason"])
        return self.shown(budget_id)


class LimitChanges(Resource):
    tag = "limit-changes"

    @operation(
        "limit_changes_list",
        "List limits that wait for a second person",
        permission=Permission.BUDGET_VIEW,
        query=shapes.ChangeQuery,
        answer=shapes.LimitChangeOut,
        listed=True,
        about="The oldest first, all on one page.",
    )
    def get(self, request: Request) -> Response:
        rows = selectors.changes_waiting(self.principal, account_id=self.query.get("budget"))
        return self.whole([shapes.change_of(row) for row in rows])


class LimitChangeConfirm(Resource):
    tag = "limit-changes"

    @operation(
        "limit_changes_confirm",
        "Agree to somebody else's change of a limit",
        permission=Permission.BUDGET_WRITE,
        answer=None,
    )
    def post(self, request: Request, change_id: uuid.UUID) -> None:
        services.confirm_change(actor=self.principal, change_id=change_id)


class LimitChangeRefuse(Resource):
    tag = "limit-changes"

    @operation(
        "limit_changes_refuse",
        "Refuse somebody else's change of a limit",
        permission=Permission.BUDGET_WRITE,
        body=GivenReasonBody,
        answer=None,
    )
    def post(self, request: Request, change_id: uuid.UUID) -> None:
        services.refuse_change(actor=self.principal, change_id=change_id, reason=self.body["reason"])


class LimitChangeWithdraw(Resource):
    tag = "limit-changes"

    @operation(
        "limit_changes_withdraw",
        "Withdraw your own change of a limit",
        permission=Permission.BUDGET_WRITE,
        answer=None,
    )
    def post(self, request: Request, change_id: uuid.UUID) -> None:
        services.withdraw_change(actor=self.principal, change_id=change_id)


class Holds(Resource):
    tag = "holds"

    @operation(
        "holds_list",
        "List holds",
        permission=Permission.BUDGET_VIEW,
        query=shapes.HoldQuery,
        answer=shapes.HoldOut,
        listed=True,
    )
    def get(self, request: Request) -> Response:
        rows = listing.holds(
            self.principal,
            account_id=self.query.get("budget"),
            mission_id=self.query.get("mission"),
            state=self.query.get("state"),
        )
        return self.page(rows, lambda found: list(shapes.HoldOut(listing.held(found), many=True).data))


class HoldItem(Resource):
    tag = "holds"

    @operation("holds_get", "Read a hold", permission=Permission.BUDGET_VIEW, answer=shapes.HoldOut)
    def get(self, request: Request, hold_id: uuid.UUID) -> HttpResponseBase:
        found = listing.hold(self.principal, hold_id)
        return self.item(shapes.HoldOut(found).data, version=found.state)


class LedgerLines(Resource):
    tag = "ledger-lines"

    @operation(
        "ledger_lines_list",
        "List ledger lines",
        permission=Permission.BUDGET_VIEW,
        query=shapes.LineQuery,
        answer=shapes.LineOut,
        listed=True,
    )
    def get(self, request: Request) -> Response:
        found = listing.lines(
            self.principal,
            account_id=self.query.get("budget"),
            mission_id=self.query.get("mission"),
            cursor=self.query.get("cursor"),
            limit=self.query["limit"],
        )
        return Response({"items": shapes.LineOut(found.items, many=True).data, "next": found.next})
