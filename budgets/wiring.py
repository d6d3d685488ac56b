"""What budgets registers with the gate at start: the ledger and the kind `budget.topup`."""

from __future__ import annotations


def register() -> None:
    """Filled by the ledger."""
