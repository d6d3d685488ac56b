"""What time does to holds: unused ones are given back, used and silent ones charged as held, provisionally."""

from __future__ import annotations

from dataclasses import dataclass

from budgets import calls
from controlplane.common.commits import early_unlock

BATCH = 200
MOST_BATCHES = 50


@dataclass(frozen=True)
class Swept:
    expired: int
    provisional: int


def sweep_all() -> Swept:
    """Every hold that is due, in short transactions; several workers share the work. Raises 503 `ledger.busy`."""
    expired = provisional = 0
    for _ in range(MOST_BATCHES):
        with early_unlock():
            given_back, charged = calls.sweep(limit=BATCH)
        expired += given_back
        provisional += charged
        if given_back + charged < BATCH:
            break
    return Swept(expired, provisional)
