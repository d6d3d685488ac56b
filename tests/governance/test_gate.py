"""The pipeline's one law: no stage lowers what an earlier one said. And what it says when there are no rules at all."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from controlplane.common.ids import new_id
from governance import gate as pipeline
from governance.bundles import forget
from governance.choices import BundleState, Verdict
from governance.gate import STAGES, Ladder
from governance.models import Decision, PolicyBundle
from governance.services import policy_loaded
from governance.types import Finding, Grants, HoldRefused

from .gate import Gate

verdicts = st.sampled_from(list(Verdict))
findings = st.builds(Finding, verdict=verdicts, reason_code=st.text("abc", min_size=1), message=st.just("because"))


@given(st.lists(st.lists(findings, max_size=3), max_size=6))
def test_a_verdict_is_never_lowered_by_a_later_stage(stages: list[list[Finding]]) -> None:
    ladder = Ladder()
    severest = 0
    for number, found in enumerate(stages):
        ladder.rung(str(number), since_ns=0, saw="", findings=found)
        severest = max([severest, *(finding.verdict.severity for finding in found)])
        assert ladder.verdict.severity == severest
    if severest:
        first = next(
            finding for found in stages for finding in _worst_first(found) if finding.verdict.severity == severest
        )
        assert ladder.finding.reason_code == first.reason_code


def _worst_first(found: list[Finding]) -> list[Finding]:
    return sorted(found, key=lambda finding: -finding.verdict.severity)


@pytest.mark.django_db
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    amount=st.integers(0, 130),
    guards=st.lists(findings, max_size=2),
    approved_tool=st.booleans(),
    active=st.booleans(),
    effects=st.lists(st.sampled_from(["egress", "secret.read", "delete", "blast:60"]), max_size=2),
    full=st.booleans(),
)
def test_the_answer_is_as_severe_as_its_severest_stage(
    gate: Gate,
    amount: int,
    guards: list[Finding],
    approved_tool: bool,
    active: bool,
    effects: list[str],
    full: bool,
) -> None:
    scene = gate.scene
    scene.guards, scene.tool_approved, scene.mission_active, scene.effects = guards, approved_tool, active, effects
    gate.ledger.refusal = HoldRefused("budget.exhausted", "Nothing is left.") if full else None
    # Another invoice each time: the same call again would join the question that is open.
    judgement = gate.propose(arguments={"amount": amount, "invoice": f"INV-{new_id()}"})
    decision = Decision.objects.get(action_id=judgement.action_id)
    said = [Verdict(stage["verdict"]) for stage in decision.stages if stage["verdict"]]
    assert judgement.verdict is max(said, key=lambda verdict: verdict.severity)
    assert [stage["name"] for stage in decision.stages] == list(STAGES)
    forbidden = not approved_tool or not active or amount > 100 or full
    if forbidden or any(finding.verdict is Verdict.DENY for finding in guards):
        assert judgement.verdict is Verdict.DENY
    if judgement.verdict is Verdict.ALLOW:
        assert amount <= 50
        assert judgement.permit is not None
    else:
        assert judgement.permit is None


@pytest.mark.django_db
def test_without_any_bundle_everything_is_refused_and_the_process_is_not_ready(gate: Gate) -> None:
    assert policy_loaded()
    PolicyBundle.objects.update(state=BundleState.RETIRED)
    forget()
    assert not policy_loaded()
    judgement = gate.propose(10)
    assert (judgement.verdict, judgement.reason_code) == (Verdict.DENY, "policy.missing")
    assert gate.ledger.states == []


@pytest.mark.django_db
def test_a_bundle_retired_behind_a_workers_back_no_longer_decides(gate: Gate) -> None:
    assert gate.propose(10).verdict is Verdict.ALLOW
    PolicyBundle.objects.update(state=BundleState.RETIRED)
    assert gate.propose(10).reason_code == "policy.missing"


@pytest.mark.django_db
def test_grants_that_do_not_compile_refuse(gate: Gate) -> None:
    gate.scene.grants = Grants(key="broken", policies="permit (principal, action, resource) when { context.oops };")
    judgement = gate.propose(10)
    assert (judgement.verdict, judgement.reason_code) == (Verdict.DENY, "policy.invalid")


@pytest.mark.django_db
def test_facts_that_do_not_fit_refuse(gate: Gate) -> None:
    gate.scene.context = {"calls": "many"}
    assert gate.propose(10).reason_code == "policy.facts_do_not_fit"


@pytest.mark.django_db
def test_each_stage_is_a_span_when_tracing_is_on(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = provider.get_tracer("test")
    monkeypatch.setattr(pipeline, "tracer", tracer)
    gate.propose(10)
    assert not exporter.get_finished_spans()
    with tracer.start_as_current_span("request"):
        judgement = gate.propose(10)
        trace_id = f"{trace.get_current_span().get_span_context().trace_id:032x}"
    spans = {span.name: span for span in exporter.get_finished_spans()}
    assert set(spans) == {"request", *(f"gate.{name}" for name in STAGES)}
    assert spans["gate.policy"].attributes is not None
    assert spans["gate.policy"].attributes["remit.verdict"] == "allow"
    assert gate.action(judgement).trace_id == trace_id
