"""Keeps the coming months of append-only tables ahead: by a task, and at every migrate."""

from __future__ import annotations

from typing import Any, Final

from django.apps import AppConfig
from django.db import connections, transaction
from django.db.models.signals import post_migrate

MONTHS_AHEAD: Final = 12


def keep_ahead(function: str, *, using: str = "default") -> int:
    """Calls `function(months)` of the database. Returns how many tables were made; safe to repeat and to race."""
    with transaction.atomic(using=using), connections[using].cursor() as cursor:
        cursor.execute(f"SELECT {function}(%s)", [MONTHS_AHEAD])
        return int(cursor.fetchone()[0])


def keep_ahead_at_migrate(function: str, *, app: AppConfig) -> None:
    """An installation that slept for a year wakes up with the month it needs."""

    def make(*, using: str = "default", **_: Any) -> None:
        with connections[using].cursor() as cursor:
            cursor.execute("SELECT to_regproc(%s) IS NOT NULL", [function])
            there = cursor.fetchone() == (True,)
        if there:
            keep_ahead(function, using=using)

    post_migrate.connect(make, sender=app, weak=False, dispatch_uid=f"keep_ahead {function}")
