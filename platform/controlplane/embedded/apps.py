from django.apps import AppConfig


class EmbeddedConfig(AppConfig):
    """PostgreSQL, Valkey and the supervisor that `manage.py up` runs: nothing else in Remit imports this package."""

    name = "controlplane.embedded"
    label = "embedded"
