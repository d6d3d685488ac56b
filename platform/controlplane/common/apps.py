from celery import signals
from django.apps import AppConfig
from django.core import checks


class CommonConfig(AppConfig):
    name = "controlplane.common"
    label = "common"

    def ready(self) -> None:
        from django.conf import settings

        from controlplane.common import health, observability
        from controlplane.common.checks import check_deployment, refuse_to_serve_unconfigured

        observability.configure_tracing(endpoint=settings.CONFIG.otlp_endpoint)
        health.register_own_checks()
        checks.register(check_deployment, deploy=True)
        signals.celeryd_init.connect(refuse_to_serve_unconfigured, weak=False)
        signals.beat_init.connect(refuse_to_serve_unconfigured, weak=False)
        # Celery leaves logging alone when someone listens here: its lines take our form.
        signals.setup_logging.connect(_logging_is_set_up, weak=False)


def _logging_is_set_up(**_: object) -> None:
    """`configure_logging` has done it."""
