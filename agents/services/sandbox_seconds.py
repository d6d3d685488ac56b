"""What the sandbox of a run costs: held at its dearest when it is asked for, charged by what it had when it ends."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from decimal import Decimal
from typing import Final

from agents.models import AgentVersion, Mission, Run
from budgets import prices
from budgets import services as budgets
from budgets.types import Amounts
from controlplane.clusters import selectors as clusters
from controlplane.clusters.models import Sandbox
from controlplane.clusters.types import Resources
from controlplane.common.errors import conflict
from controlplane.common.ids import new_id

# Between the end of its wall clock and the moment at which Remit has surely seen it end.
_GRACE_SECONDS = 600
# For the people who start or resize it.
_NO_ROOM: Final = "Ask finance to raise the limit of that budget, or ask for more on its page."


def hold(run: Run, mission: Mission, version: AgentVersion) -> None:
    """Hold the dearest case (the whole wall clock); the rest comes back when the run ends. Raises 409 `run.budget`."""
    resources = Resources(**version.resources) if version.resources else Resources()
    seconds = Decimal(version.wall_clock_seconds)
    _hold(run, mission, _price(mission.organisation_id, [(resources, seconds)]), seconds)


def hold_larger(run: Run, sandbox: Sandbox, wanted: Resources) -> None:
    """Hold another size until its wall clock ends, beside what it cost so far. For a cheaper one enough is held.

    Raises 409 `run.budget`."""
    before = Resources(**sandbox.desired_resources)
    so_far = clusters.sizes_in_time(sandbox)
    rest = sandbox.wall_clock_seconds - sum((seconds for _, seconds in so_far), Decimal(0))
    key = sandbox.organisation_id
    if _price(key, [(wanted, Decimal(1))]) <= _price(key, [(before, Decimal(1))]):
        return
    if run.hold_id is not None:
        budgets.void(hold_id=run.hold_id)  # comes back with the transaction when the larger one is refused
    _hold(run, run.mission, _price(key, [*so_far, (wanted, rest)]), rest)


def settle(run: Run) -> None:
    if run.hold_id is None:
        return
    charge = cost(run)
    if charge is None:
        budgets.void(hold_id=run.hold_id)
    else:
        budgets.settle(hold_id=run.hold_id, amounts=Amounts(money=charge))


def cost(run: Run) -> Decimal | None:
    """What its sandbox cost until now; None when it never started."""
    sandbox = run.sandbox
    if sandbox is None or sandbox.started_at is None:
        return None
    return _price(sandbox.organisation_id, clusters.sizes_in_time(sandbox))


def _hold(run: Run, mission: Mission, money: Decimal, seconds: Decimal) -> None:
    if money == 0 or mission.account_id is None:
        return
    hold_id = new_id()
    refused = budgets.reserve(
        hold_id=hold_id,
        account_id=mission.account_id,
        organisation_id=mission.organisation_id,
        amounts=Amounts(money=money),
        ttl_seconds=int(seconds) + _GRACE_SECONDS,
        mission_id=mission.pk,
        description=f"Sandbox of attempt {run.attempt}",
    )
    if refused is not None:
        message = f"{refused.message} It is held for the whole time that the sandbox may run."
        remedies = (_NO_ROOM,) if refused.reason_code == "budget.exhausted" else refused.remedies
        raise conflict("run.budget", message, *remedies)
    budgets.dispatch(hold_id=hold_id)
    run.hold_id = hold_id
    run.save(update_fields=["hold_id"])


def _price(organisation_id: uuid.UUID, sizes: Iterable[tuple[Resources, Decimal]]) -> Decimal:
    return sum(
        (
            prices.sandbox_price(organisation_id=organisation_id, resources=resources, seconds=seconds)
            for resources, seconds in sizes
        ),
        Decimal(0),
    )
