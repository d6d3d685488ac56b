"""What governance registers with the layers below it at start."""

from __future__ import annotations


def register() -> None:
    """Live topics of governance."""
    from controlplane.common.ids import parse_id
    from controlplane.live.services import register_topic
    from controlplane.tenancy.types import Permission, Principal
    from governance.models import Action

    def may_see_action(principal: Principal, identifier: str) -> bool:
        key = parse_id(identifier)
        return key is not None and Action.objects.restrict(principal, Permission.ACTION_VIEW).filter(pk=key).exists()

    def may_see_approvals(principal: Principal, identifier: str) -> bool:
        return identifier == str(principal.organisation_id) and principal.has_anywhere(Permission.ESCALATION_VIEW)

    register_topic("action", may_see_action)
    register_topic("approvals", may_see_approvals)
