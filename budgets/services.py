"""What may be done to budgets: the tree (permission-checked, audited) and the holds (called by whoever has judged)."""

from budgets.accounts import (
    account_of,
    apply_limit,
    freeze,
    open_account,
    set_guard,
    set_limit,
    unfreeze,
)
from budgets.changes import change_limit, confirm_change, refuse_change, withdraw_change
from budgets.closing import close_account
from budgets.costs.facts import register_missions
from budgets.holds import charge, dispatch, extend, reserve, reserve_batch, settle, void
from budgets.port import LedgerPort
from budgets.stopping import Charge, Halted, halt, is_frozen, release_halted, unstarted_holds
from budgets.topup import register_objection, register_responsible

__all__ = [
    "Charge",
    "Halted",
    "LedgerPort",
    "account_of",
    "apply_limit",
    "change_limit",
    "charge",
    "close_account",
    "confirm_change",
    "dispatch",
    "extend",
    "freeze",
    "halt",
    "is_frozen",
    "open_account",
    "refuse_change",
    "register_missions",
    "register_objection",
    "register_responsible",
    "release_halted",
    "reserve",
    "reserve_batch",
    "set_guard",
    "set_limit",
    "settle",
    "unfreeze",
    "unstarted_holds",
    "void",
    "withdraw_change",
]
