"""Asking for more on a mission's behalf. What is asked waits for a person who did not ask."""

from __future__ import annotations

import hashlib
import uuid

from agents.choices import MissionState
from agents.models import Mission
from controlplane.common.errors import FieldError, RemitError, conflict, invalid, not_found
from controlplane.tenancy.types import Permission, Principal
from governance import selectors as governance_reads
from governance import services as governance
from governance.types import Judgement, Proposal

_POSSIBLE = (MissionState.ACTIVE, MissionState.PAUSED)


def ask_for_budget(*, actor: Principal, mission_id: uuid.UUID, money: str, reason: str, key: uuid.UUID) -> Judgement:
    """Propose more money for a mission under way, as text such as "5.00". The same request under the same `key` is
    made once, however often it is sent.

    Raises 404, 409 `mission.not_under_way`, 422 with `/money` and `/reason`.
    """
    mission = Mission.objects.restrict(actor, Permission.MISSION_OPERATE).filter(pk=mission_id).first()
    if mission is None:
        raise not_found("mission")
    if mission.state not in _POSSIBLE or mission.account_id is None:
        raise conflict(
            "mission.not_under_way",
            f"This mission is {mission.get_state_display().lower()}, so more budget would do nothing.",
            "A draft's budget is part of its remit; after its end, start another mission.",
        )
    arguments = {"money": money, "reason": reason, "account_id": str(mission.account_id)}
    same = hashlib.sha256(f"{key}:{mission.pk}:{money}:{reason}".encode()).hexdigest()
    proposal = Proposal(kind="budget.topup", arguments=arguments, idempotency_key=f"ask:{same}", audience="remit")
    try:
        return governance.propose(proposer=actor, proposal=proposal)
    except RemitError as error:
        if error.code != "action.arguments":
            raise
        fields = [FieldError(item.pointer.removeprefix("/arguments"), item.message) for item in error.errors]
        raise invalid("mission.request_invalid", "This can't be asked for as it is.", *fields) from error


def whom_a_request_asks(*, actor: Principal, mission: Mission) -> list[governance_reads.Foreseen]:
    """Who would decide a request for more budget, by its amount; empty for a mission without a budget of its own."""
    if mission.account_id is None:
        return []
    arguments = {"money": "1", "reason": "", "account_id": str(mission.account_id)}
    proposal = Proposal(kind="budget.topup", arguments=arguments, audience="remit")
    return governance_reads.whom_it_asks_by_amount(proposer=actor, proposal=proposal, argument="money")
