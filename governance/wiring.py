"""What governance registers with the layers below it at start."""

from __future__ import annotations

from django.apps import AppConfig
from django.db import connections
from django.db.models.signals import post_migrate


def register() -> None:
    """Live topics, words that go with their author, readiness and metrics of governance."""
    from controlplane.audit.services import register_words
    from controlplane.common.ids import parse_id
    from controlplane.live.services import register_topic
    from controlplane.tenancy.types import Permission, Principal
    from governance import monitoring
    from governance.escalations.conversing import erase_words
    from governance.models import Action

    def may_see_action(principal: Principal, identifier: str) -> bool:
        key = parse_id(identifier)
        return key is not None and Action.objects.restrict(principal, Permission.ACTION_VIEW).filter(pk=key).exists()

    def may_see_approvals(principal: Principal, identifier: str) -> bool:
        return identifier == str(principal.organisation_id) and principal.has_anywhere(Permission.ESCALATION_VIEW)

    register_topic("action", may_see_action)
    register_topic("approvals", may_see_approvals)
    register_topic("person", lambda principal, identifier: identifier == str(principal.user_id))
    register_words(erase_words)
    monitoring.register()


def keep_baseline(config: AppConfig) -> None:
    """After each migration the shipped baseline is the active one: a database without rules refuses everything."""
    post_migrate.connect(_ensure_baseline, sender=config, dispatch_uid="governance.baseline")


def _ensure_baseline(using: str = "default", **_: object) -> None:
    from governance.bundles import ensure_baseline
    from governance.models import PolicyBundle

    with connections[using].cursor() as cursor:
        columns = (
            {
                column.name
                for column in connections[using].introspection.get_table_description(
                    cursor, PolicyBundle._meta.db_table
                )
            }
            if PolicyBundle._meta.db_table in connections[using].introspection.table_names(cursor)
            else set()
        )
    if "loaded_by_id" in columns:  # migrated backwards, the table may be older than its model
        ensure_baseline()
