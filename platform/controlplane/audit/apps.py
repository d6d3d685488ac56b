from django.apps import AppConfig


class AuditConfig(AppConfig):
    name = "controlplane.audit"
    label = "audit"

    def ready(self) -> None:
        from controlplane.audit import wiring
        from controlplane.common.partitions import keep_ahead_at_migrate

        wiring.register()
        keep_ahead_at_migrate("audit_make_partitions", app=self)
