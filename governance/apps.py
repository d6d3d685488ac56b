from django.apps import AppConfig


class GovernanceConfig(AppConfig):
    name = "governance"

    def ready(self) -> None:
        from governance import wiring

        wiring.register()
        wiring.keep_baseline(self)
