"""What the pillars above register with the gate: action kinds and the ledger. Read-only once the process is up."""

from __future__ import annotations

from typing import Final

from controlplane.common.errors import FieldError, invalid
from governance.types import ActionKind, Ledger

_KINDS: Final[dict[str, ActionKind]] = {}
_LEDGER: Final[list[Ledger]] = []


def register_kind(kind: ActionKind) -> None:
    if kind.code in _KINDS and type(_KINDS[kind.code]) is not type(kind):
        raise RuntimeError(f"action kind {kind.code} is registered twice")
    _KINDS[kind.code] = kind


def kind_of(code: str) -> ActionKind:
    """Raises 422 `action.unknown_kind`."""
    if code not in _KINDS:
        known = ", ".join(sorted(_KINDS))
        raise invalid(
            "action.unknown_kind", f"“{code[:40]}” is not a kind of action.", FieldError("/kind", f"one of: {known}")
        )
    return _KINDS[code]


def known_kinds() -> dict[str, str]:
    """Code and label of every kind of action."""
    return {code: kind.label for code, kind in sorted(_KINDS.items())}


def register_ledger(ledger: Ledger) -> None:
    _LEDGER[:] = [ledger]


def ledger() -> Ledger:
    if not _LEDGER:
        raise RuntimeError("no ledger is registered: budgets must be among INSTALLED_APPS")
    return _LEDGER[0]
