"""What agents register with the layers below at start: action kinds, sandbox owners and live topics."""

from __future__ import annotations


def register() -> None:
    from agents.models import Agent, Mission
    from controlplane.common.ids import parse_id
    from controlplane.live.services import register_topic
    from controlplane.tenancy.types import Permission, Principal

    def may_see_mission(principal: Principal, identifier: str) -> bool:
        key = parse_id(identifier)
        return key is not None and Mission.objects.restrict(principal, Permission.MISSION_VIEW).filter(pk=key).exists()

    def may_see_agent(principal: Principal, identifier: str) -> bool:
        key = parse_id(identifier)
        return key is not None and Agent.objects.restrict(principal, Permission.AGENT_VIEW).filter(pk=key).exists()

    def may_see_organisation(principal: Principal, identifier: str) -> bool:
        return identifier == str(principal.organisation_id) and principal.has_anywhere(Permission.MISSION_VIEW)

    register_topic("mission", may_see_mission)
    register_topic("agent", may_see_agent)
    register_topic("organisation", may_see_organisation)
