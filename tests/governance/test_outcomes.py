"""Outcomes: settled once, unknown kept, reconciled by people."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.conf import settings

from controlplane.audit.models import Entry
from controlplane.common.errors import RemitError
from controlplane.tenancy.models import Organisation
from controlplane.tenancy.types import Principal, system_principal
from governance import services
from governance.choices import ActionState
from governance.models import Action

from .gate import Gate
from .scene import Scene, make_run

pytestmark = pytest.mark.django_db


@pytest.fixture
def running(gate: Gate) -> Action:
    return gate.redeem(gate.propose(10))


def report(gate: Gate, action: Action, outcome: str = "success", **fields: Any) -> Action:
    values: dict[str, Any] = {
        "holder": gate.run,
        "action_id": action.pk,
        "audience": "mcp",
        "outcome": outcome,
        "result_sha256": "sha256:" + "0" * 64,
        "summary": "credited",
        "error": "",
        "effects": [],
    }
    return services.record_outcome(**{**values, **fields})


def test_success_settles_the_hold_at_its_price(gate: Gate, running: Action) -> None:
    action = report(gate, running, effects=["invoice.credited"])
    assert (action.state, action.cost) == (ActionState.SUCCEEDED, Decimal("0.25"))
    stored = Action.objects.get(pk=running.pk)
    assert (stored.state, stored.cost, stored.effects) == ("succeeded", Decimal("0.25"), ["invoice.credited"])
    assert gate.ledger.states == ["settled"]
    assert gate.ledger.results[0][0] == b"signature"


def test_failure_settles_too_at_what_it_cost(gate: Gate, running: Action) -> None:
    action = report(gate, running, "failure", error="server went away", money=Decimal("0.10"))
    assert (action.state, action.cost) == (ActionState.FAILED, Decimal("0.10"))
    assert gate.ledger.states == ["settled"]


def test_the_trail_tells_a_tiny_cost_without_an_exponent(gate: Gate, running: Action) -> None:
    report(gate, running, money=Decimal("0.0000001"))
    assert Entry.objects.get(event="action.succeeded").payload["cost"] == "0.0000001"


def test_unknown_keeps_the_hold_until_a_person_says_what_happened(
    gate: Gate, running: Action, as_alice: Principal
) -> None:
    report(gate, running, "unknown", error="the connection broke")
    assert gate.ledger.states == ["dispatched"]
    action = services.reconcile(actor=as_alice, action_id=running.pk, outcome="failure", reason="I looked: nothing.")
    assert action.state == ActionState.FAILED
    assert gate.ledger.states == ["settled"]
    with pytest.raises(RemitError, match=r"action\.not_unknown"):
        services.reconcile(actor=as_alice, action_id=running.pk, outcome="success", reason="or was it?")


def test_only_people_who_operate_missions_reconcile(
    gate: Gate, running: Action, as_bob: Principal, as_charlie: Principal
) -> None:
    report(gate, running, "unknown")
    for actor in (as_bob, as_charlie, gate.run, system_principal(organisation_id=gate.run.organisation_id)):
        with pytest.raises(RemitError, match=r"action\.not_found"):
            services.reconcile(actor=actor, action_id=running.pk, outcome="success", reason="because")
    assert Action.objects.get(pk=running.pk).state == ActionState.UNKNOWN


def test_the_same_report_twice_is_one_report_and_another_is_an_error(gate: Gate, running: Action) -> None:
    report(gate, running)
    assert report(gate, running).state == ActionState.SUCCEEDED
    with pytest.raises(RemitError, match=r"outcome\.already_recorded"):
        report(gate, running, "failure")
    assert gate.ledger.states == ["settled"]
    assert len(gate.ledger.results) == 1


def test_an_outcome_needs_an_action_that_ran(gate: Gate) -> None:
    for amount in (10, 60, 101):
        judgement = gate.propose(amount)
        with pytest.raises(RemitError, match=r"outcome\.never_started"):
            report(gate, gate.action(judgement))


def test_only_who_ran_it_reports(gate: Gate, running: Action, scene: Scene, northwind: Organisation) -> None:
    with pytest.raises(RemitError, match=r"outcome\.other_holder"):
        report(gate, running, holder=make_run(scene, northwind))
    assert Action.objects.get(pk=running.pk).state == ActionState.EXECUTING


@pytest.mark.parametrize(
    "fields",
    [
        {"outcome": "done"},
        {"effects": ["x" * 61]},
        {"effects": ["a"] * 51},
        {"money": Decimal(-1)},
        {"money": Decimal("NaN")},
        {"result_sha256": "x" * 72},
    ],
)
def test_a_malformed_report_changes_nothing(gate: Gate, running: Action, fields: dict[str, Any]) -> None:
    with pytest.raises(RemitError, match=r"outcome\.malformed"):
        report(gate, running, **fields)
    assert Action.objects.get(pk=running.pk).state == ActionState.EXECUTING


def test_text_that_postgresql_can_not_store_is_stored_readably(gate: Gate, running: Action) -> None:
    action = report(gate, running, summary="a\x00b\ud800" + "x" * 5000)
    assert action.state == ActionState.SUCCEEDED
    outcome = Action.objects.get(pk=running.pk).outcome
    assert outcome is not None
    assert "\x00" not in outcome["summary"]
    assert len(outcome["summary"]) <= 2000


def give_up(action: Action) -> None:
    long_ago = action.executing_at - timedelta(seconds=settings.CONFIG.executing_limit_seconds + 1)  # type: ignore[operator]
    Action.objects.filter(pk=action.pk).update(executing_at=long_ago)
    assert services.sweep().outcomes_lost == 1


def test_a_first_report_after_the_sweep_gave_up_is_taken_once(gate: Gate, running: Action) -> None:
    give_up(running)
    assert report(gate, running, result_sha256="sha256:late").state == ActionState.SUCCEEDED
    assert gate.ledger.states == ["settled"]
    assert report(gate, running, result_sha256="sha256:late").state == ActionState.SUCCEEDED
    with pytest.raises(RemitError, match=r"outcome\.already_recorded"):
        report(gate, running, "failure")
    assert gate.ledger.states == ["settled"]


def test_what_a_person_settled_stays_settled_whatever_is_reported_later(
    gate: Gate, running: Action, as_alice: Principal
) -> None:
    give_up(running)
    services.reconcile(actor=as_alice, action_id=running.pk, outcome="failure", reason="The file is not there.")
    with pytest.raises(RemitError, match=r"outcome\.already_recorded"):
        report(gate, running)
    assert Action.objects.get(pk=running.pk).state == ActionState.FAILED


def test_an_executor_that_said_unknown_can_not_say_otherwise_later(gate: Gate, running: Action) -> None:
    report(gate, running, "unknown")
    with pytest.raises(RemitError, match=r"outcome\.already_recorded"):
        report(gate, running)
    assert Action.objects.get(pk=running.pk).state == ActionState.UNKNOWN


def test_a_run_that_says_nothing_becomes_unknown_and_is_not_run_again(gate: Gate, running: Action) -> None:
    long_ago = running.executing_at - timedelta(seconds=settings.CONFIG.executing_limit_seconds + 1)  # type: ignore[operator]
    Action.objects.filter(pk=running.pk).update(executing_at=long_ago)
    assert services.sweep().outcomes_lost == 1
    assert services.sweep().outcomes_lost == 0
    assert Action.objects.get(pk=running.pk).state == ActionState.UNKNOWN
    assert gate.ledger.states == ["dispatched"]
    with pytest.raises(RemitError, match=r"permit\.consumed"):
        services.redeem(holder=gate.run, action_id=running.pk, audience="mcp")
