"""What a sandbox costs its mission: the sizes it really had, for as long as it had them, held before they are given."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import pytest

from agents import services
from agents.choices import MissionState, RunState
from agents.models import Mission
from budgets import selectors as budgets
from budgets import services as ledger
from budgets.models import Account, Hold, Window
from budgets.types import Limits, WindowKind
from controlplane.audit.models import Entry
from controlplane.clusters import services as clusters
from controlplane.clusters.models import Sandbox
from controlplane.clusters.types import GIB, MIB, Resources
from controlplane.common.clock import now
from controlplane.common.errors import RemitError
from controlplane.tenancy.types import Principal, system_principal
from tests.agents.test_runs_on_a_node import (
    WAITS,
    LocalNode,
    alice,
    company,
    last_run,
    local_node,
    node,
    one_pass,
    run_is,
    start,
    until,
)

__all__ = ["alice", "company", "local_node", "node", "start"]
pytestmark = pytest.mark.django_db

HALF = Resources(cpu_millicores=500, memory_bytes=256 * MIB)
WHOLE = Resources(cpu_millicores=1000, memory_bytes=512 * MIB)


def price(resources: Resources, seconds: Decimal) -> Decimal:
    """By the shipped price book."""
    vcpu = Decimal("0.000012") * resources.cpu_millicores / 1000
    return (vcpu + Decimal("0.0000016") * resources.memory_bytes / GIB) * seconds


def spent(mission: Mission) -> Decimal:
    money = budgets.mission_spend(mission_ids=[mission.pk])[mission.pk].spent.money
    assert money is not None
    return money


def held(mission: Mission) -> Decimal:
    money = budgets.mission_spend(mission_ids=[mission.pk])[mission.pk].held.money
    assert money is not None
    return money


def started_ago(mission: Mission, seconds: int) -> None:
    Sandbox.objects.filter(mission_id=mission.pk).update(started_at=now() - timedelta(seconds=seconds))


def test_size_that_was_refused_is_not_paid_for(start, alice: Principal, node: LocalNode) -> None:
    mission = start(WAITS)
    until(run_is(mission, RunState.RUNNING))
    account = Account.objects.get(pk=mission.account_id)
    ledger.set_limit(
        actor=system_principal(organisation_id=alice.organisation_id),
        account_id=account.pk,
        window=WindowKind.TOTAL,
        limits=Limits(money=Decimal(500)),
    )
    far_too_large = Resources(cpu_millicores=64_000, memory_bytes=512 * GIB)
    clusters.resize_sandbox(actor=alice, sandbox_id=last_run(mission).sandbox_id, resources=far_too_large)
    one_pass()
    assert "This machine has" in last_run(mission).sandbox.resize_error
    started_ago(mission, 600)
    services.stop_mission(actor=alice, mission_id=mission.pk, reason="enough")
    assert spent(mission) == pytest.approx(price(HALF, Decimal(600)), rel=Decimal("0.05"))
    assert held(mission) == 0


def test_each_size_is_paid_for_as_long_as_it_was_had(start, alice: Principal, node: LocalNode) -> None:
    mission = start(WAITS)
    until(run_is(mission, RunState.RUNNING))
    started_ago(mission, 600)
    clusters.resize_sandbox(actor=alice, sandbox_id=last_run(mission).sandbox_id, resources=WHOLE)
    one_pass()
    box = last_run(mission).sandbox
    assert box.observed_resources["cpu_millicores"] == 1000, box.resize_error
    assert [size["resources"]["cpu_millicores"] for size in box.former_sizes] == [500]
    # The change itself, 400 s ago.
    former = [{**box.former_sizes[0], "until": (now() - timedelta(seconds=400)).isoformat()}]
    Sandbox.objects.filter(pk=box.pk).update(former_sizes=former)
    services.stop_mission(actor=alice, mission_id=mission.pk, reason="enough")
    right = price(HALF, Decimal(200)) + price(WHOLE, Decimal(400))
    assert spent(mission) == pytest.approx(right, rel=Decimal("0.02"))
    assert not Window.objects.filter(overrun_money__gt=0).exists()


def test_larger_size_is_held_before_it_is_given(start, alice: Principal, node: LocalNode) -> None:
    mission = start(WAITS, wall_clock_seconds=3600)
    until(run_is(mission, RunState.RUNNING))
    before = held(mission)
    assert before == price(HALF, Decimal(3600))
    clusters.resize_sandbox(actor=alice, sandbox_id=last_run(mission).sandbox_id, resources=WHOLE)
    assert held(mission) == pytest.approx(price(WHOLE, Decimal(3600)), rel=Decimal("0.02"))
    assert Hold.objects.filter(mission_id=mission.pk, closed_at__isnull=True).count() == 1
    clusters.resize_sandbox(actor=alice, sandbox_id=last_run(mission).sandbox_id, resources=HALF)
    assert held(mission) > before


@pytest.mark.parametrize("frozen", [False, True])
def test_size_that_the_budget_cannot_pay_is_refused_and_nothing_changes(
    start, alice: Principal, node: LocalNode, frozen: bool
) -> None:
    mission = start(WAITS, wall_clock_seconds=3600)
    until(run_is(mission, RunState.RUNNING))
    wanted = WHOLE if frozen else Resources(cpu_millicores=64_000, memory_bytes=512 * GIB)
    if frozen:
        ledger.freeze(
            actor=system_principal(organisation_id=alice.organisation_id),
            account_id=mission.account_id,
            reason="look first",
        )
    before = (last_run(mission).hold_id, held(mission), Entry.objects.count())
    with pytest.raises(RemitError) as refused:
        clusters.resize_sandbox(actor=alice, sandbox_id=last_run(mission).sandbox_id, resources=wanted)
    assert (refused.value.status, refused.value.code) == (409, "run.budget")
    box = last_run(mission).sandbox
    assert (box.desired_generation, box.desired_resources["cpu_millicores"]) == (1, 500)
    assert (last_run(mission).hold_id, held(mission), Entry.objects.count()) == before
    smaller = Resources(cpu_millicores=250, memory_bytes=128 * MIB)
    clusters.resize_sandbox(actor=alice, sandbox_id=box.pk, resources=smaller)


def test_night_in_which_nothing_ran_costs_nothing_and_the_next_attempt_starts(start, node: LocalNode) -> None:
    mission = start(WAITS, wall_clock_seconds=3600)
    until(run_is(mission, RunState.RUNNING))
    evening = now() - timedelta(hours=200)
    Sandbox.objects.filter(mission_id=mission.pk).update(
        started_at=evening - timedelta(minutes=10), observed_at=evening
    )
    node.stop_and_start()
    until(run_is(mission, RunState.RUNNING, 2))
    assert spent(mission) == price(HALF, Decimal(600))
    mission.refresh_from_db()
    assert mission.state == MissionState.ACTIVE
    assert not Window.objects.filter(frozen=True).exists()


def test_nothing_is_charged_beyond_the_wall_clock_whatever_the_clock_says(
    start, alice: Principal, node: LocalNode
) -> None:
    mission = start(WAITS, wall_clock_seconds=3600)
    until(run_is(mission, RunState.RUNNING))
    started_ago(mission, 7 * 24 * 3600)
    services.stop_mission(actor=alice, mission_id=mission.pk, reason="enough")
    assert spent(mission) == price(HALF, Decimal(3600))
    assert not Window.objects.filter(overrun_money__gt=0).exists()
