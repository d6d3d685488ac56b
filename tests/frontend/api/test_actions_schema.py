"""What the schema says of `/api/v1/actions`, which it does not make, against what that end serves and answers."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import jsonschema

from agents.gateways import rest, rest_forms
from agents.models import Mission
from controlplane.common.clock import now
from controlplane.common.ids import new_id
from frontend.api.schema import document
from governance.approval_models import EscalationMessage
from governance.choices import ActionState, Verdict
from governance.models import Action, Decision, Escalation
from governance.types import EscalationRef, Judgement, PermitToken


def _check(value: Any, component: str) -> None:
    """Every field that is answered is described, and as it is."""
    whole = document()
    jsonschema.validate(value, {"$ref": f"#/components/schemas/{component}", "components": whole["components"]})
    assert set(value) <= set(whole["components"]["schemas"][component]["properties"])


def test_every_verb_that_is_served_is_described() -> None:
    paths = [path for path in document()["paths"] if path.startswith(rest.PREFIX)]
    verbs = {path.rpartition(":")[2] for path in paths if "{action_id}:" in path}
    assert verbs == set(rest._VERBS)
    assert {rest.PREFIX, f"{rest.PREFIX}:batch", f"{rest.PREFIX}/{{action_id}}"} <= set(paths)


def test_filters_that_are_served_are_described() -> None:
    described = document()["paths"][rest.PREFIX]["get"]["parameters"]
    assert {item["name"] for item in described} == set(rest_forms.LIST_QUERY)


def test_an_action_is_answered_as_it_is_described(mission: Mission) -> None:
    common: dict[str, Any] = {
        "organisation_id": mission.organisation_id,
        "verdict": "escalate",
        "digest": "sha256:1",
        "created_at": now(),
    }
    action = Action.objects.create(
        **common,
        team_id=mission.team_id,
        kind="tool.call",
        title="Call",
        proposer_kind="run",
        proposer_id=new_id(),
        proposer_name="Run",
        state="waiting",
        mission_id=mission.pk,
    )
    decision = Decision.objects.create(**common, action=action, stages=[], duration_microseconds=1)
    question = Escalation.objects.create(
        organisation_id=mission.organisation_id,
        team_id=mission.team_id,
        action=action,
        decision=decision,
        kind="tool.call",
        title="Call",
        opened_at=now(),
        expires_at=now() + timedelta(hours=1),
    )
    EscalationMessage.objects.create(
        organisation_id=mission.organisation_id,
        escalation=question,
        kind="question",
        author_id=new_id(),
        author_name="Bob",
        text="Why?",
    )
    _check(rest_forms.item_of(action), "Action")
    detail = rest_forms.detail_of(Action.objects.prefetch_related("escalations").get())
    assert detail["questions"]
    _check(detail, "Action")


def test_the_gates_answer_is_as_it_is_described() -> None:
    moment = now()
    for permit, escalation in ((PermitToken("t", moment), None), (None, EscalationRef(new_id(), moment))):
        judgement = Judgement(
            new_id(), ActionState.PERMITTED, Verdict.ALLOW, "", "", [], "sha256:1", permit=permit, escalation=escalation
        )
        _check(rest_forms.answer_of(judgement), "ActionAnswer")
