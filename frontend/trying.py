"""“What would the gate say?” beside the grants of a remit that is being written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from agents.catalogue.trying import try_call
from agents.choices import Importance
from agents.grants import Grant
from agents.models import Mission
from controlplane.common.canonical import parse_strict
from controlplane.common.errors import RemitError
from controlplane.tenancy.types import Principal
from governance.types import Finding


@dataclass(frozen=True)
class Try:
    """One call as typed. Asked, it has the gate's finding, or what keeps the gate from being asked."""

    tool: str = ""
    arguments: str = ""
    finding: Finding | None = None
    problem: str = ""


def typed(data: Mapping[str, str]) -> Try:
    """The call that stands in the form, which nobody has asked about."""
    return Try(data.get("try-tool", "").strip(), data.get("try-arguments", "").strip())


def importance_of(data: Mapping[str, str]) -> Importance:
    """As chosen in the form; the usual one where none is."""
    chosen = data.get("importance", "")
    return Importance(chosen) if chosen in Importance.values else Importance.NORMAL


def asked(actor: Principal, mission: Mission, call: Try, grants: Sequence[Grant], importance: Importance) -> Try:
    if not call.tool:
        return Try(call.tool, call.arguments, problem="Choose a tool to try.")
    try:
        arguments = parse_strict(call.arguments.encode()) if call.arguments else {}
    except RemitError as error:
        return Try(call.tool, call.arguments, problem=error.message)
    if not isinstance(arguments, dict):
        return Try(
            call.tool, call.arguments, problem='The arguments are names with values, such as {"amount": "40.00"}.'
        )
    finding = try_call(
        actor=actor, mission=mission, tool=call.tool, arguments=arguments, grants=grants, importance=importance
    )
    return Try(call.tool, call.arguments, finding)
