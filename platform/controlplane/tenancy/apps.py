from django.apps import AppConfig


class TenancyConfig(AppConfig):
    name = "controlplane.tenancy"
    label = "tenancy"

    def ready(self) -> None:
        from controlplane.tenancy import second_factor, sign_in_events

        sign_in_events.register()
        second_factor.register()
