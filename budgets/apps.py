"""The app: registers with the gate, and makes the journal's coming months at every migrate."""

from typing import Any

from django.apps import AppConfig
from django.db import connections
from django.db.models.signals import post_migrate


class BudgetsConfig(AppConfig):
    name = "budgets"

    def ready(self) -> None:
        from budgets import wiring

        wiring.register()
        post_migrate.connect(_make_partitions, sender=self)


def _make_partitions(*, using: str = "default", **_: Any) -> None:
    """An installation that slept for a year wakes up with the month it needs."""
    with connections[using].cursor() as cursor:
        cursor.execute("SELECT to_regproc('budgets_make_partitions') IS NOT NULL")
        if cursor.fetchone() == (True,):
            cursor.execute("SELECT budgets_make_partitions(12)")
