"""One action: what was asked, how it was judged, what came of it."""

from __future__ import annotations

import re
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlencode

from django import forms
from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.http import require_GET, require_POST

from agents import selectors as agents
from agents.choices import ENDED_MISSION_STATES
from agents.grants import Grant, parse_grants
from agents.models import Mission
from controlplane.audit import selectors as audit
from controlplane.common.errors import RemitError, not_found
from controlplane.tenancy.types import Permission
from frontend.form_errors import show_error
from frontend.judged import Judged, judged_of
from frontend.pages import PersonRequest, page
from frontend.policy_words import anchor_of
from governance import selectors as governance
from governance import services
from governance.choices import ActionState, Verdict
from governance.models import Action, Decision

_GRANT = re.compile(r"grant/(\d{1,4})(?:/ask)?\Z")
_HELD = frozenset({ActionState.WAITING, ActionState.PERMITTED, ActionState.EXECUTING, ActionState.UNKNOWN})
STAGE_NAMES = {
    "intake": "Intake",
    "guards": "Guards",
    "policy": "Policy",
    "sequence": "Sequence",
    "judge": "Judge",
    "budget": "Budget",
}


class SettleForm(forms.Form):
    """What came of it, and how one knows."""

    outcome = forms.ChoiceField(
        label="What came of it",
        choices=[("success", "It happened"), ("failure", "It did not happen, or failed")],
        widget=forms.RadioSelect,
    )
    reason = forms.CharField(
        label="How you know",
        max_length=500,
        widget=forms.Textarea(attrs={"rows": 3}),
        help_text="One sentence; it stays in the audit trail.",
    )


@dataclass(frozen=True)
class Rung:
    """One stage of a decision, as components/rung.html takes it."""

    stage: str
    tone: str
    said: str
    saw: str
    took: float | None
    policy: str
    policy_url: str
    judged: Judged | None


@page
@require_GET
def detail(request: PersonRequest, action_id: uuid.UUID) -> HttpResponse:
    return _page(request, action_id)


@page
@require_POST
def settle(request: PersonRequest, action_id: uuid.UUID) -> HttpResponse:
    """A person who found out says what came of an action that nobody reported on."""
    action = governance.action(principal=request.principal, action_id=action_id)
    if not request.principal.has(Permission.MISSION_OPERATE, team_id=action.team_id):
        raise not_found("action")
    form = SettleForm(request.POST)
    error: RemitError | None = None
    if form.is_valid():
        try:
            settled = services.reconcile(actor=request.principal, action_id=action_id, **form.cleaned_data)
        except RemitError as refused:
            error = show_error(form, refused)
        else:
            messages.success(request, f"Settled: {ActionState(settled.state).label.lower()}. Its hold was charged.")
            return redirect("action", action_id=action_id)
    return _page(request, action_id, form=form, error=error, status=error.status if error else 422)


def _page(
    request: PersonRequest,
    action_id: uuid.UUID,
    *,
    form: SettleForm | None = None,
    error: RemitError | None = None,
    status: int = 200,
) -> HttpResponse:
    action = governance.action(principal=request.principal, action_id=action_id)
    grants = grants_in_force(request, action)
    decisions = [(decision, rungs_of(decision, action, grants)) for decision in action.decisions.all()]
    over, limits = compared_with_remit(action, grants)
    mission = _mission_of(request, action)
    context = {
        "action": action,
        "mission": mission,
        "change_url": _change_url(request, action, mission),
        "is_held": action.cost is None and action.state in _HELD,
        "decisions": decisions,
        "permit": next(iter(reversed(list(action.permits.all()))), None),
        "entries": audit.entries_about_action(request.principal, action_id=action.pk),
        "may_prove": request.principal.has(Permission.AUDIT_VIEW, team_id=action.team_id),
        "over": over,
        "limits": limits,
        "part": request.GET.get("part", ""),
        "settle_form": (form or SettleForm()) if _may_settle(request, action) else None,
        "error": error,
    }
    return render(request, "actions/detail.html", context, status=status)


def _may_settle(request: PersonRequest, action: Action) -> bool:
    return action.state == ActionState.UNKNOWN and request.principal.has(
        Permission.MISSION_OPERATE, team_id=action.team_id
    )


def rungs_of(decision: Decision, action: Action, grants: Sequence[Grant]) -> list[Rung]:
    """The stages of a decision. A grant that decided is named in the words of the remit."""
    rungs = []
    for stage in decision.stages:
        verdict = Verdict(stage["verdict"]) if stage.get("verdict") else None
        said = stage.get("said") or (verdict.label if verdict else "Not asked")
        policy = next(iter(stage.get("policies") or ()), "")
        grant = _grant(policy, grants)
        if grant is not None and verdict is Verdict.ALLOW:
            said = f"Permitted by the remit: {grant.in_words()}"
        rungs.append(
            Rung(
                stage=STAGE_NAMES.get(stage["name"], stage["name"]),
                tone=verdict.tone if verdict else "off",
                said=said,
                saw=stage.get("saw") or "",
                took=stage["microseconds"] / 1_000_000 if stage.get("microseconds") else None,
                policy=policy,
                policy_url=_policy_url(policy, action),
                judged=judged_of(stage.get("details") or {}, said=said),
            )
        )
    return rungs


def grants_in_force(request: PersonRequest, action: Action) -> list[Grant]:
    """The grants of the version of the mission that the action was judged by; none the viewer may not see."""
    if action.mission_id is None or action.mission_version is None:
        return []
    mission = agents.missions(request.principal).filter(pk=action.mission_id).first()
    version = mission.versions.filter(number=action.mission_version).first() if mission else None
    return parse_grants(version.grants) if version else []


def compared_with_remit(action: Action, grants: Sequence[Grant]) -> tuple[list[str], dict[str, str]]:
    """Arguments that no plain grant covers, and what the mission allows for each: (highlighted paths, words by
    path)."""
    if action.kind != "tool.call":
        return [], {}
    mine = [grant for grant in grants if grant.tool == action.tool]
    allowed = [grant for grant in mine if grant.effect == "allow"]
    asking = [grant for grant in mine if grant.effect != "allow"]
    alone, together = _limits(allowed), _limits(asking)
    words = {name: _in_words(alone.get(name, []), together.get(name, [])) for name in (*alone, *together)}
    over = {name for grant in allowed for name in grant.unmet(action.arguments)}
    return sorted(over), words


def _grant(policy: str, grants: Sequence[Grant]) -> Grant | None:
    found = _GRANT.match(policy)
    return grants[int(found[1])] if found and int(found[1]) < len(grants) else None


def _policy_url(policy: str, action: Action) -> str:
    """Where the rule can be read: a grant in the remit, any other among the policies."""
    if not policy:
        return ""
    if _GRANT.match(policy):
        return reverse("mission-tab", args=[action.mission_id, "remit"]) if action.mission_id else ""
    return f"{reverse('policies')}#{anchor_of(policy)}"


def _change_url(request: PersonRequest, action: Action, mission: Mission | None) -> str:
    """Where whoever may change the remit lets it permit what it did not; empty for others, and where it says nothing
    about it."""
    if mission is None or mission.state in ENDED_MISSION_STATES or not action.reason_code.startswith("grant."):
        return ""
    if action.verdict != Verdict.DENY or not request.principal.has(Permission.MISSION_OPERATE, team_id=mission.team_id):
        return ""
    return f"{reverse('mission-change', args=[mission.pk])}?{urlencode({'tool': action.tool})}#grants"


def _mission_of(request: PersonRequest, action: Action) -> Mission | None:
    return agents.missions(request.principal).filter(pk=action.mission_id).first() if action.mission_id else None


def _limits(grants: Sequence[Grant]) -> dict[str, list[str]]:
    limits: dict[str, list[str]] = {}
    for grant in grants:
        for name, words in grant.limits_in_words().items():
            if words not in limits.setdefault(name, []):
                limits[name].append(words)
    return limits


def _in_words(alone: Sequence[str], together: Sequence[str]) -> str:
    """ "0.01 to 100.00 alone; 0.01 to 500.00 with a person"; once where both are the same."""
    more = [words for words in together if words not in alone]
    if not more:
        return "; ".join(alone)
    return "; ".join([*(f"{words} alone" for words in alone), *(f"{words} with a person" for words in more)])
