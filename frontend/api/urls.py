"""Addresses below `/api/v1/`. A state change is `<thing>:<verb>`."""

from __future__ import annotations

import re
import uuid
from typing import Final

from django.http import HttpRequest, HttpResponse
from django.urls import Resolver404, path, re_path, resolve
from django.views.decorators.csrf import csrf_exempt

from controlplane.common.errors import not_found
from controlplane.common.http import problem_response
from frontend.api import documentation, schema
from frontend.api.resources import (
    agents,
    arranging,
    budgets,
    costs,
    escalations,
    missions,
    people,
    records,
    servers,
    settings,
    stops,
)

_ID: Final = re.compile(r"(/api/v1/[a-z-]+/)([^/:]+)(.*)", re.DOTALL)
_ANY_ID: Final = uuid.UUID(int=0)
_SAID: Final = {"break_glass_id": "break-glass", "user_id": "member"}
_MISSION = "api/v1/missions/<uuid:mission_id>"
_AGENT = "api/v1/agents/<uuid:agent_id>"
_BUDGET = "api/v1/budgets/<uuid:budget_id>"
_QUESTION = "api/v1/escalations/<uuid:escalation_id>"
_SERVER = "api/v1/mcp-servers/<uuid:server_id>"
_CHANGE = "api/v1/limit-changes/<uuid:change_id>"
_MEMBER = "api/v1/members/<uuid:user_id>"
_TOOL = "api/v1/tools/<uuid:tool_id>"
_GROUP = "api/v1/approver-groups/<uuid:group_id>"
_ROUTE = "api/v1/approval-routes/<uuid:route_id>"

documented = [
    path("api/v1/missions", missions.Missions.as_view(), name="api-missions"),
    path(_MISSION, missions.MissionItem.as_view(), name="api-mission"),
    path(f"{_MISSION}/versions", missions.MissionVersions.as_view()),
    path(f"{_MISSION}:submit", missions.MissionSubmit.as_view()),
    path(f"{_MISSION}:change", missions.MissionChange.as_view()),
    path(f"{_MISSION}:preview-change", missions.MissionPreviewChange.as_view()),
    path(f"{_MISSION}:try-call", missions.MissionTryCall.as_view()),
    path(f"{_MISSION}:ask-for-budget", missions.MissionMoreBudget.as_view()),
    path(f"{_MISSION}:pause", missions.MissionPause.as_view()),
    path(f"{_MISSION}:resume", missions.MissionResume.as_view()),
    path(f"{_MISSION}:stop", missions.MissionStop.as_view()),
    path(f"{_MISSION}:accept", missions.MissionAccept.as_view()),
    path(f"{_MISSION}:reject", missions.MissionReject.as_view()),
    path(f"{_MISSION}:issue-run-token", missions.MissionRunToken.as_view()),
    path("api/v1/runs", missions.Runs.as_view()),
    path("api/v1/runs/<uuid:run_id>", missions.RunItem.as_view()),
    path("api/v1/agents", agents.Agents.as_view()),
    path(_AGENT, agents.AgentItem.as_view()),
    path(f"{_AGENT}:retire", agents.AgentRetire.as_view()),
    path(f"{_AGENT}:reinstate", agents.AgentReinstate.as_view()),
    path("api/v1/agent-versions", agents.AgentVersions.as_view()),
    path("api/v1/agent-versions/<uuid:version_id>", agents.AgentVersionItem.as_view()),
    path("api/v1/escalations", escalations.Escalations.as_view()),
    path(_QUESTION, escalations.EscalationItem.as_view()),
    path("api/v1/escalations:decide", escalations.EscalationsDecide.as_view()),
    path(f"{_QUESTION}:decide", escalations.EscalationDecide.as_view()),
    path(f"{_QUESTION}:claim", escalations.EscalationClaim.as_view()),
    path(f"{_QUESTION}:release", escalations.EscalationRelease.as_view()),
    path(f"{_QUESTION}:comment", escalations.EscalationComment.as_view()),
    path(f"{_QUESTION}:ask-agent", escalations.EscalationAskAgent.as_view()),
    path(f"{_QUESTION}:edit", escalations.EscalationEdit.as_view()),
    path(f"{_QUESTION}:preview-edit", escalations.EscalationPreviewEdit.as_view()),
    path(f"{_QUESTION}:break-glass", escalations.EscalationBreakGlass.as_view()),
    path("api/v1/delegations", escalations.Delegations.as_view()),
    path("api/v1/delegations/<uuid:delegation_id>:end", escalations.DelegationEnd.as_view()),
    path("api/v1/approver-groups", arranging.Groups.as_view()),
    path(_GROUP, arranging.GroupItem.as_view()),
    path(f"{_GROUP}:change", arranging.GroupChange.as_view()),
    path(f"{_GROUP}:retire", arranging.GroupRetire.as_view()),
    path("api/v1/approval-routes", arranging.Routes.as_view()),
    path("api/v1/approval-routes:try", arranging.RoutesTry.as_view()),
    path(_ROUTE, arranging.RouteItem.as_view()),
    path(f"{_ROUTE}:change", arranging.RouteChange.as_view()),
    path(f"{_ROUTE}:move", arranging.RouteMove.as_view()),
    path(f"{_ROUTE}:remove", arranging.RouteRemove.as_view()),
    path("api/v1/approver-health", arranging.ApproverHealth.as_view()),
    path("api/v1/broken-glass", arranging.BrokenGlass.as_view()),
    path("api/v1/broken-glass/<uuid:break_glass_id>:review", arranging.BreakGlassReview.as_view()),
    path("api/v1/notices", arranging.Notices.as_view()),
    path("api/v1/notices:read", arranging.NoticesRead.as_view()),
    path("api/v1/budgets", budgets.Budgets.as_view()),
    path(_BUDGET, budgets.BudgetItem.as_view()),
    path(f"{_BUDGET}:set-limit", budgets.BudgetSetLimit.as_view()),
    path(f"{_BUDGET}:freeze", budgets.BudgetFreeze.as_view()),
    path(f"{_BUDGET}:unfreeze", budgets.BudgetUnfreeze.as_view()),
    path("api/v1/limit-changes", budgets.LimitChanges.as_view()),
    path(f"{_CHANGE}:confirm", budgets.LimitChangeConfirm.as_view()),
    path(f"{_CHANGE}:refuse", budgets.LimitChangeRefuse.as_view()),
    path(f"{_CHANGE}:withdraw", budgets.LimitChangeWithdraw.as_view()),
    path("api/v1/costs", costs.Costs.as_view()),
    path("api/v1/costs/missions/<uuid:mission_id>", costs.CostOfMission.as_view()),
    path("api/v1/costs/goals/<str:goal>/missions", costs.CostsOfGoal.as_view()),
    path("api/v1/holds", budgets.Holds.as_view()),
    path("api/v1/holds/<uuid:hold_id>", budgets.HoldItem.as_view()),
    path("api/v1/ledger-lines", budgets.LedgerLines.as_view()),
    path("api/v1/audit-entries", records.AuditEntries.as_view()),
    path("api/v1/audit-entries/<uuid:entry_id>", records.AuditEntryItem.as_view()),
    path("api/v1/audit-entries:verify", records.AuditVerify.as_view()),
    path("api/v1/audit-entries:export", records.AuditExport.as_view()),
    path("api/v1/audit-exports", records.AuditExports.as_view()),
    path("api/v1/audit-jobs/<uuid:job_id>", records.AuditJobItem.as_view()),
    path("api/v1/audit-jobs/<uuid:job_id>/file", records.AuditJobFile.as_view()),
    path("api/v1/mcp-servers", servers.Servers.as_view()),
    path(_SERVER, servers.ServerItem.as_view()),
    path(f"{_SERVER}:refresh", servers.ServerRefresh.as_view()),
    path(f"{_SERVER}:switch-on", servers.ServerSwitchOn.as_view()),
    path(f"{_SERVER}:switch-off", servers.ServerSwitchOff.as_view()),
    path(f"{_SERVER}:set-teams", servers.ServerSetTeams.as_view()),
    path(f"{_SERVER}:set-credential", servers.ServerSetCredential.as_view()),
    path(f"{_SERVER}:remove-credential", servers.ServerRemoveCredential.as_view()),
    path(f"{_SERVER}/test", servers.ServerTestItem.as_view()),
    path(f"{_SERVER}:test", servers.ServerTestAsk.as_view()),
    path("api/v1/tools", servers.Tools.as_view()),
    path(_TOOL, servers.ToolItem.as_view()),
    path(f"{_TOOL}:approve", servers.ToolApprove.as_view()),
    path(f"{_TOOL}:describe", servers.ToolDescribe.as_view()),
    path("api/v1/templates", servers.Templates.as_view()),
    path("api/v1/templates/<slug:code>", servers.TemplateItem.as_view()),
    path("api/v1/members", people.Members.as_view()),
    path(_MEMBER, people.MemberItem.as_view()),
    path(f"{_MEMBER}:set-roles", people.MemberSetRoles.as_view()),
    path(f"{_MEMBER}:deactivate", people.MemberDeactivate.as_view()),
    path(f"{_MEMBER}:reactivate", people.MemberReactivate.as_view()),
    path(f"{_MEMBER}:reset-second-factor", people.MemberResetSecondFactor.as_view()),
    path(f"{_MEMBER}/erasure", settings.MemberErasure.as_view()),
    path(f"{_MEMBER}:erase", settings.MemberErase.as_view()),
    path("api/v1/invitations", people.Invitations.as_view()),
    path("api/v1/invitations/<uuid:invitation_id>:renew", people.InvitationRenew.as_view()),
    path("api/v1/invitations/<uuid:invitation_id>:revoke", people.InvitationRevoke.as_view()),
    path("api/v1/stops", stops.Stops.as_view()),
    path("api/v1/stops/<uuid:stop_id>", stops.StopItem.as_view()),
    path("api/v1/stops/<uuid:stop_id>:lift", stops.StopLift.as_view()),
    path("api/v1/teams", people.Teams.as_view()),
    path("api/v1/teams/<uuid:team_id>", people.TeamItem.as_view()),
    path("api/v1/tokens", people.Tokens.as_view()),
    path("api/v1/tokens/<uuid:token_id>:rotate", people.TokenRotate.as_view()),
    path("api/v1/tokens/<uuid:token_id>:revoke", people.TokenRevoke.as_view()),
    path("api/v1/me", settings.Profile.as_view()),
    path("api/v1/me:change", settings.ProfileChange.as_view()),
    path("api/v1/organisation", settings.OrganisationItem.as_view()),
    path("api/v1/organisation:change", settings.OrganisationChange.as_view()),
    path("api/v1/policy-bundles", settings.PolicyBundles.as_view()),
    path("api/v1/policy-bundles/active", settings.PolicyBundleActive.as_view()),
    path("api/v1/saved-views", settings.SavedViews.as_view()),
    path("api/v1/saved-views/<uuid:view_id>:remove", settings.SavedViewRemove.as_view()),
    path("api/v1/search", settings.Search.as_view()),
    path("api/v1/sessions", settings.Sessions.as_view()),
    path("api/v1/sessions/<int:session_id>:end", settings.SessionEnd.as_view()),
    path("api/v1/sessions:end-others", settings.SessionsEndOthers.as_view()),
    path("api/v1/decisions", records.Decisions.as_view()),
    path("api/v1/sandboxes", records.Sandboxes.as_view()),
    path("api/v1/sandboxes/<uuid:sandbox_id>", records.SandboxItem.as_view()),
    path("api/v1/sandboxes/<uuid:sandbox_id>/log", records.SandboxLog.as_view()),
    path("api/v1/sandboxes/<uuid:sandbox_id>:resize", records.SandboxResize.as_view()),
]


@csrf_exempt
def nothing_here(request: HttpRequest) -> HttpResponse:
    return problem_response(not_found(_meant(request.path_info)))


def _meant(address: str) -> str:
    """What an address names whose id is none: “mission” of `/api/v1/missions/7:pause`; “address” of any other."""
    named = _ID.match(address)
    if named is None:
        return "page"
    try:
        found = resolve(f"{named[1]}{_ANY_ID}{named[3]}")
    except Resolver404:
        return "page"
    return next((_SAID.get(name, name.removesuffix("_id")) for name in found.kwargs), "page")


urlpatterns = [
    *documented,
    path("api/v1/schema", schema.schema, name="api-schema"),
    path("api/v1/docs", documentation.reference, name="api-docs"),
    re_path(r"^api(?:/|\Z)", nothing_here),
]
