"""What a site's monitoring sees of the gate: decisions, stages, open questions, and red without a policy."""

from __future__ import annotations

import pytest

from controlplane.common import health, metrics
from governance.choices import Verdict
from governance.models import PolicyBundle
from governance.monitoring import observe
from governance.types import Stage


def scraped() -> dict[str, float]:
    values: dict[str, float] = {}
    for line in metrics.render().decode().splitlines():
        if not line.startswith("#"):
            name, _, value = line.rpartition(" ")
            values[name] = float(value)
    return values


def test_a_decision_counts_its_verdict_and_the_stages_that_were_asked() -> None:
    before = scraped()
    stages = [
        Stage(name="policy", verdict=Verdict.DENY, saw="", said="", microseconds=1500),
        Stage(name="judge", verdict=None, saw="", said="", microseconds=0),
    ]
    observe(verdict="deny", stages=stages)
    after = scraped()

    def grown(name: str) -> float:
        return after.get(name, 0) - before.get(name, 0)

    assert grown('remit_decisions_total{verdict="deny"}') == 1
    assert grown('remit_gate_stage_seconds_count{stage="policy"}') == 1
    assert grown('remit_gate_stage_seconds_sum{stage="policy"}') == pytest.approx(0.0015)
    assert grown('remit_gate_stage_seconds_count{stage="judge"}') == 0


@pytest.mark.django_db(transaction=True)
def test_ready_with_the_baseline_and_red_without_any_bundle() -> None:
    from governance.bundles import ensure_baseline

    ensure_baseline()
    assert {result.name: result.problem for result in health.readiness()}["policy_loaded"] == ""
    PolicyBundle.objects.all().delete()
    red = {result.name: result.problem for result in health.readiness()}
    assert "No policy bundle is active" in red["policy_loaded"]


@pytest.mark.django_db(transaction=True)
def test_every_pillar_reports_its_gauges() -> None:
    values = scraped()
    assert values["remit_escalations_open"] == 0
    assert values['remit_holds_open{state="held"}'] == 0
    assert values['remit_sandboxes{phase="running"}'] == 0
    assert {value for name, value in values.items() if name.startswith("remit_gauges_failed")} == {0}
