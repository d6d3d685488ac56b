"""What may be done to budgets: the tree (permission-checked, audited) and the holds (called by whoever has judged)."""

from budgets.accounts import (
    account_of,
    apply_limit,
    close_account,
    freeze,
    open_account,
    set_guard,
    set_limit,
    unfreeze,
)
from budgets.holds import charge, dispatch, extend, note_result, reserve, reserve_batch, settle, void
from budgets.port import LedgerPort
from budgets.topup import register_responsible

__all__ = [
    "LedgerPort",
    "account_of",
    "apply_limit",
    "charge",
    "close_account",
    "dispatch",
    "extend",
    "freeze",
    "note_result",
    "open_account",
    "register_responsible",
    "reserve",
    "reserve_batch",
    "set_guard",
    "set_limit",
    "settle",
    "unfreeze",
    "void",
]
