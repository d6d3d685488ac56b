"""The Django application of the HTML pages."""

from django.apps import AppConfig


class FrontendConfig(AppConfig):
    name = "frontend"
    verbose_name = "Pages"

    def ready(self) -> None:
        from controlplane.live.services import register_topic
        from frontend import strips

        strips.register()
        register_topic("warnings", lambda principal, identifier: identifier == str(principal.organisation_id))
