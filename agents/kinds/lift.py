"""The action kind `stop.lift`: end a stop of an agent, a team or an organisation."""

from __future__ import annotations

import functools
import uuid
from decimal import ROUND_UP, Decimal
from typing import Any

from agents import stops
from agents.models import Stop
from agents.services import lifting
from controlplane.common.errors import FieldError, invalid, not_found
from controlplane.common.ids import parse_id
from controlplane.common.written_amounts import written_amount
from controlplane.live.services import announce
from controlplane.tenancy.types import Principal
from governance import selectors as governance
from governance.choices import ActionState, Verdict
from governance.types import Finding, Prepared, Proposal

_MICRO = 1_000_000
_CENT = Decimal("0.01")


class Lift:
    """Arguments: `stop_id`, and whether to `resume` what the stop paused."""

    code = stops.LIFT
    label = "Lift a stop"
    cedar_action = stops.LIFT

    def prepare(self, *, proposer: Principal, proposal: Proposal) -> Prepared:
        made, resume = _named(proposer, proposal)
        guards = []
        if made.is_final:
            guards.append(
                Finding(Verdict.DENY, "stop.final", "A stopped attempt or mission is over; start another one.")
            )
        elif made.lifted_at is not None:
            guards.append(Finding(Verdict.DENY, "stop.lifted", "This stop was lifted meanwhile."))
        money, currency = stops.at_stake(made)
        attributes: dict[str, Any] = {"scope": made.scope}
        return Prepared(
            team_id=made.team_id or lifting.any_team(made.organisation_id),
            title=f"Lift the stop of {made.name}"[:200],
            envelope={"kind": proposal.kind, "proposer": str(proposer.id), "stop": str(made.pk), "resume": resume},
            principal_entity={
                "uid": {"type": "Person", "id": str(proposer.id)},
                "attrs": {"roles": sorted(role.value for role in proposer.roles)},
                "parents": [],
            },
            resource_entity={"uid": {"type": "Stop", "id": str(made.pk)}, "attrs": attributes, "parents": []},
            context={
                "money_micros": int(money * _MICRO),
                "sign_off_above_micros": int(made.organisation.sign_off_above * _MICRO),
                "resume": resume,
            },
            guards=guards,
            guards_saw=f"{made.scope}, {'lifted' if made.lifted_at else 'in force'}, "
            f"{written_amount(money.quantize(_CENT, ROUND_UP))} {currency} at stake",
            subject_type="stop",
            subject_id=made.pk,
            excluded_user_ids=[proposer.user_id] if proposer.user_id else [],
            escalation_ttl_seconds=lifting.QUESTION_SECONDS,
            currency=currency,
            amount=money,
            still=functools.partial(_still, made),
        )

    def lock(self, *, subject_id: uuid.UUID | None) -> None:
        """An answer changes nothing but the stop it lifts, and then `still` was asked."""

    def on_decided(self, *, action_id: uuid.UUID, state: ActionState, actor: Principal) -> None:
        action = governance.decided_action(action_id)
        stop_id = uuid.UUID(action.arguments["stop_id"])
        announce(f"stop:{stop_id}", "proofs")  # its page says who asked, and whether it waits
        if state is ActionState.PERMITTED:
            resume = bool(action.arguments["resume"])
            lifting.lift(actor=actor, stop_id=stop_id, action_id=action_id, resume=resume)


def _named(proposer: Principal, proposal: Proposal) -> tuple[Stop, bool]:
    stop_id, resume = parse_id(proposal.arguments.get("stop_id")), proposal.arguments.get("resume")
    if stop_id is None or not isinstance(resume, bool) or set(proposal.arguments) != {"stop_id", "resume"}:
        raise invalid("action.arguments", "It names a stop.", FieldError("/arguments", "stop_id, resume"))
    made = stops.stops(proposer).select_related("organisation").filter(pk=stop_id).first()
    if made is None:
        raise not_found("stop")
    # Who may not stop it may not ask for its end either.
    stops.target(proposer, made.kind_of_scope, made.scope_id)
    return made, resume


def _still(made: Stop) -> bool:
    """Whether it holds; no other stop begins or ends until this is decided, and its row stays as it is."""
    stops.exclusive_lock(made.organisation_id)
    rows = Stop.objects.select_for_update(no_key=True).filter(pk=made.pk)
    return rows.values_list("lifted_at", flat=True).first() == made.lifted_at
