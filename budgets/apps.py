"""The app: registers with the gate, and makes the journal's coming months at every migrate."""

from django.apps import AppConfig


class BudgetsConfig(AppConfig):
    name = "budgets"

    def ready(self) -> None:
        from budgets import wiring
        from controlplane.common.partitions import keep_ahead_at_migrate

        wiring.register()
        keep_ahead_at_migrate("budgets_make_partitions", app=self)
