"""Permits: used once, by their holder, for what was judged, while it still holds."""

from __future__ import annotations

import base64
import json
from datetime import timedelta
from typing import Any

import pytest
from django.db import IntegrityError, transaction

from controlplane.audit.models import Entry
from controlplane.common.clock import now
from controlplane.common.errors import RemitError
from controlplane.tenancy.models import Organisation
from controlplane.tenancy.types import Principal
from governance import permits, services
from governance.bundles import BundleSource, baseline_source, forget
from governance.choices import ActionState, BundleState, Verdict
from governance.models import Action, Decision, Permit, PolicyBundle
from governance.types import Finding

from .gate import Gate
from .scene import Scene, make_run

pytestmark = pytest.mark.django_db


def refusal(gate: Gate, judgement: Any, **fields: Any) -> RemitError:
    with pytest.raises(RemitError) as caught:
        gate.redeem(judgement, **fields)
    return caught.value


def test_a_permit_starts_its_action_and_uses_its_hold(gate: Gate) -> None:
    judgement = gate.propose(10)
    action = gate.redeem(judgement)
    assert action.state == ActionState.EXECUTING
    assert gate.action(judgement).executing_at is not None
    assert gate.ledger.states == ["dispatched"]
    assert gate.events(judgement) == ["action.allowed", "permit.consumed"]


def test_without_a_token_the_holder_is_enough_inside_the_product(gate: Gate) -> None:
    assert gate.redeem(gate.propose(10), permit_token=None).state == ActionState.EXECUTING


def test_a_permit_works_once(gate: Gate) -> None:
    judgement = gate.propose(10)
    gate.redeem(judgement)
    error = refusal(gate, judgement)
    assert (error.code, error.status) == ("permit.consumed", 409)
    assert gate.events(judgement).count("permit.consumed") == 1


def test_a_permit_does_not_outlive_its_time(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    assert permits.TTL_SECONDS <= 60
    monkeypatch.setattr(permits, "TTL_SECONDS", -1)
    judgement = gate.propose(10)
    assert refusal(gate, judgement).code == "permit.expired"
    assert refusal(gate, judgement, permit_token=None).code == "permit.expired"
    assert gate.action(judgement).state == ActionState.PERMITTED
    assert gate.ledger.states == ["held"]


def test_another_run_of_the_same_mission_can_not_use_it(gate: Gate, scene: Scene, northwind: Organisation) -> None:
    judgement = gate.propose(10)
    other = make_run(scene, northwind)
    error = refusal(gate, judgement, holder=other)
    assert (error.code, error.status) == ("permit.other_holder", 403)
    assert gate.action(judgement).state == ActionState.PERMITTED
    assert Entry.objects.filter(event="permit.refused", actor_id=other.id).count() == 1


def test_another_mission_or_organisation_does_not_even_see_it(gate: Gate, as_charlie: Principal, scene: Scene) -> None:
    judgement = gate.propose(10)
    stranger = Principal(**{**gate.run.__dict__, "mission_id": scene.team_id})
    for holder in (as_charlie, stranger):
        error = refusal(gate, judgement, holder=holder)
        assert (error.code, error.status) == ("action.not_found", 404)


def test_a_permit_is_for_one_audience(gate: Gate) -> None:
    judgement = gate.propose(10)
    assert refusal(gate, judgement, audience="api").code == "permit.other_action"
    assert refusal(gate, judgement, audience="api", permit_token=None).code == "permit.other_audience"
    assert gate.redeem(judgement).state == ActionState.EXECUTING


def test_a_permit_of_one_action_does_not_start_another(gate: Gate) -> None:
    first, second = gate.propose(10), gate.propose(20)
    assert second.permit is not None
    assert refusal(gate, first, permit_token=second.permit.token).code == "permit.other_action"


@pytest.mark.parametrize("how", ["flip", "none", "payload", "prefix", "empty", "swap", "padding"])
def test_a_forged_token_is_refused_before_the_database_is_asked(
    gate: Gate, how: str, django_assert_num_queries: Any
) -> None:
    judgement = gate.propose(10)
    assert judgement.permit is not None
    token = judgement.permit.token
    body, _, mac = token.removeprefix("rmp_").partition(".")
    later = json.loads(base64.urlsafe_b64decode(body + "=="))
    later[5] += 3600
    payload = base64.urlsafe_b64encode(json.dumps(later, separators=(",", ":")).encode()).rstrip(b"=").decode()
    header = base64.urlsafe_b64encode(b'{"alg":"none"}').rstrip(b"=").decode()
    forged = {
        "flip": token[:-2] + ("A" if token[-2] != "A" else "B") + token[-1],
        "none": f"{header}.{body}.",
        "payload": f"rmp_{payload}.{mac}",
        "prefix": f"{body}.{mac}",
        "empty": "rmp_.",
        "swap": f"rmp_{mac}.{body}",
        "padding": f"{token}=",
    }[how]
    with django_assert_num_queries(0):
        assert refusal(gate, judgement, permit_token=forged).code == "permit.forged"
    assert gate.action(judgement).state == ActionState.PERMITTED


def test_a_token_signed_with_another_key_is_forged(gate: Gate, settings: Any) -> None:
    judgement = gate.propose(10)
    settings.SECRET_KEY = "another-secret-key-of-enough-length-00"
    assert refusal(gate, judgement).code == "permit.forged"


@pytest.mark.parametrize("change", ["mission_version", "tool_sha256"])
def test_a_new_mission_version_or_tool_definition_means_it_is_not_executed(gate: Gate, change: str) -> None:
    judgement = gate.propose(10)
    setattr(gate.scene, change, {"mission_version": 2, "tool_sha256": "sha256:bb"}[change])
    error = refusal(gate, judgement)
    assert (error.code, error.status) == ("action.changed", 409)
    action = gate.action(judgement)
    assert (action.state, action.verdict, action.reason_code) == (ActionState.DENIED, Verdict.DENY, "action.changed")
    assert gate.ledger.states == ["voided"]
    assert Permit.objects.get(action=action).voided_at is not None
    assert gate.events(judgement) == ["action.allowed", "action.denied"]
    gate.scene.mission_version, gate.scene.tool_sha256 = 1, "sha256:aa"
    assert refusal(gate, judgement).code == "permit.none"


def test_a_mission_stopped_after_the_verdict_means_it_is_not_executed(gate: Gate) -> None:
    judgement = gate.propose(10)
    gate.scene.mission_active = False
    assert refusal(gate, judgement).code == "mission.not_active"
    assert gate.action(judgement).state == ActionState.DENIED
    assert gate.ledger.states == ["voided"]


def test_a_guard_that_objects_now_means_it_is_not_executed(gate: Gate) -> None:
    judgement = gate.propose(10)
    gate.scene.guards = [Finding(Verdict.DENY, "stop.everything", "Everything is stopped.")]
    assert refusal(gate, judgement).code == "stop.everything"
    assert Decision.objects.filter(action_id=judgement.action_id).count() == 2


def test_grants_narrowed_after_the_verdict_are_asked_again(gate: Gate) -> None:
    judgement = gate.propose(10)
    gate.scene.grants = None
    gate.scene.context = {"args": {}}
    assert refusal(gate, judgement).code == "grant.missing"


def test_when_a_person_is_needed_now_the_action_waits_for_one(gate: Gate, as_dana: Principal) -> None:
    judgement = gate.propose(10)
    gate.scene.guards = [Finding(Verdict.ESCALATE, "change.freeze", "A change freeze began.", policy="freeze")]
    error = refusal(gate, judgement)
    assert error.code == "change.freeze"
    action = gate.action(judgement)
    assert action.state == ActionState.WAITING
    escalation = action.escalations.get()
    assert escalation.policies == ["freeze"]
    services.decide(approver=as_dana, escalation_id=escalation.pk, version=escalation.version, approve=True, reason="")
    assert gate.redeem(judgement, permit_token=None).state == ActionState.EXECUTING


def activate(organisation: Organisation, source: BundleSource, name: str) -> None:
    PolicyBundle.objects.filter(organisation=organisation, state=BundleState.ACTIVE).update(state=BundleState.RETIRED)
    PolicyBundle.objects.create(
        organisation=organisation,
        name=name,
        sha256=f"sha256:{name}",
        policies=source.policies,
        schema=source.schema,
        golden_cases=list(source.golden_cases),
        state=BundleState.ACTIVE,
    )


def stricter() -> BundleSource:
    source = baseline_source()
    more = """
@id("freeze")
@code("change.freeze")
@message("Frozen.")
forbid (principal, action == Action::"tool.call", resource);"""
    return BundleSource(source.policies + more, source.schema, source.golden_cases)


def test_policies_changed_between_verdict_and_run_are_asked_again(gate: Gate, northwind: Organisation) -> None:
    judgement = gate.propose(10)
    activate(northwind, stricter(), "stricter")
    assert refusal(gate, judgement).code == "change.freeze"
    assert refusal(gate, judgement).code == "permit.none"
    assert gate.action(judgement).state == ActionState.DENIED


@pytest.mark.parametrize("told", [True, False], ids=["here", "in another process"])
def test_a_changed_bundle_that_still_allows_lets_it_run_under_a_new_decision(
    gate: Gate, northwind: Organisation, told: bool
) -> None:
    judgement = gate.propose(10)
    activate(northwind, baseline_source(), "same-rules")
    if told:
        forget()
    assert gate.redeem(judgement).state == ActionState.EXECUTING
    decisions = Decision.objects.filter(action_id=judgement.action_id).order_by("id")
    assert [d.bundle_sha256 == "sha256:same-rules" for d in decisions] == [False, True]
    assert Permit.objects.filter(action_id=judgement.action_id, consumed_at__isnull=False).count() == 1


def test_a_worker_with_an_old_bundle_does_not_decide_by_it(gate: Gate, northwind: Organisation) -> None:
    gate.propose(10)  # this process now remembers the baseline
    activate(northwind, stricter(), "stricter")
    assert gate.propose(10).reason_code == "change.freeze"


def test_a_voided_permit_is_dead(gate: Gate, as_nadia: Principal) -> None:
    judgement = gate.propose(10)
    services.void_open(mission_id=gate.scene.mission_id, actor=as_nadia, reason="stopped")
    error = refusal(gate, judgement)
    assert error.code == "permit.none"
    assert error.data["state"] == "withdrawn"


def test_denied_and_waiting_actions_have_nothing_to_redeem(gate: Gate) -> None:
    for amount in (60, 101):
        assert refusal(gate, gate.propose(amount)).code == "permit.none"


def test_the_database_itself_keeps_permits_and_decisions_from_being_changed(gate: Gate) -> None:
    judgement = gate.propose(10)
    gate.redeem(judgement)
    permit = Permit.objects.filter(action_id=judgement.action_id)
    attempts = [
        lambda: permit.update(consumed_at=None),
        lambda: permit.update(expires_at=now() + timedelta(days=1)),
        lambda: permit.delete(),
        lambda: Decision.objects.filter(action_id=judgement.action_id).update(verdict="allow"),
        lambda: Decision.objects.filter(action_id=judgement.action_id).delete(),
        lambda: Action.objects.filter(pk=judgement.action_id).update(state="permitted"),
        lambda: Action.objects.filter(pk=judgement.action_id).update(digest="sha256:other"),
        lambda: Action.objects.filter(pk=judgement.action_id).update(arguments={}),
    ]
    for attempt in attempts:
        with pytest.raises(IntegrityError), transaction.atomic():
            attempt()


@pytest.mark.parametrize("state", ["permitted", "executing", "succeeded", "waiting", "proposed"])
def test_a_refused_action_stays_refused(gate: Gate, state: str) -> None:
    judgement = gate.propose(101)
    with pytest.raises(IntegrityError, match="can not go from denied"), transaction.atomic():
        Action.objects.filter(pk=judgement.action_id).update(state=state)
