"""What time does to holds: unused ones are given back, used and silent ones charged as held, provisionally."""

from __future__ import annotations

import time
from dataclasses import dataclass

from django.db import transaction

from budgets import calls
from controlplane.common.commits import early_unlock

BATCH = 200
MOST_BATCHES = 50
MONTHS_AHEAD = 12
PARTITIONS_EVERY_SECONDS = 3600.0
_partitions_checked_at = -PARTITIONS_EVERY_SECONDS


@dataclass(frozen=True)
class Swept:
    expired: int
    provisional: int


def sweep_all() -> Swept:
    """Every hold that is due, in short transactions; several workers share the work. Raises 503 `ledger.busy`."""
    _keep_partitions_ahead()
    expired = provisional = 0
    for _ in range(MOST_BATCHES):
        with early_unlock():
            given_back, charged = calls.sweep(limit=BATCH)
        expired += given_back
        provisional += charged
        if given_back + charged < BATCH:
            break
    return Swept(expired, provisional)


def make_partitions() -> int:
    """The journal's tables for this month and the next twelve. Returns how many were made."""
    with transaction.atomic():
        return calls.make_partitions(months=MONTHS_AHEAD)


def _keep_partitions_ahead() -> None:
    global _partitions_checked_at
    if time.monotonic() - _partitions_checked_at >= PARTITIONS_EVERY_SECONDS:
        make_partitions()
        _partitions_checked_at = time.monotonic()
