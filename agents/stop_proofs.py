"""The proofs of a stop: what still lives of it, counted in the rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from agents.choices import WIDE_STOPS, MissionState
from agents.models import Stop
from agents.stops import ALIVE, Target, target_of
from budgets import services as budgets
from controlplane.tenancy.models import TokenKind
from governance import services as governance

_TITLES: Final = {
    "missions": "Decisions",
    "permits": "Permits",
    "questions": "Questions",
    "tokens": "Tokens",
    "processes": "Processes",
    "holds": "Held money",
    "budget": "Budget",
}


@dataclass(frozen=True)
class Rung:
    """One proof. `left` of `found` still live; `since`: when Remit first saw that none do; `how`: what was counted."""

    name: str
    title: str
    holds: bool
    left: int
    found: int
    how: str
    since: datetime | None = None
    seconds: float | None = None
    note: str = ""


def proofs(stop: Stop) -> list[Rung]:
    """Every rung re-read now: what still lives, never what the stop counted. Callers have judged access."""
    of, counts = target_of(stop), stop.counts
    lives = governance.alive(of.reach())
    rungs = [
        _rung(stop, "permits", lives.permits, counts.get("permits", 0), "permits neither used nor voided"),
        _rung(stop, "questions", lives.questions, counts.get("questions", 0), "questions still open"),
        _tokens(stop, of, counts),
        _rung(
            stop,
            "processes",
            of.sandboxes().filter(observed_phase__in=ALIVE).count(),
            counts.get("sandboxes", 0),
            "sandboxes their node has not reported dead; it reports one when its last process is gone",
        ),
        _rung(
            stop,
            "holds",
            _unstarted(of),
            counts.get("holds", 0),
            "holds of work that had not started",
        ),
    ]
    if not of.run_id:
        rungs.insert(0, _missions(stop, of, counts))
        rungs.append(_budget(stop, of))
    return rungs


def kept_proofs(stop: Stop) -> list[tuple[str, datetime, float]]:
    """Of a stop that was lifted: what had been seen to hold, when, and how many seconds after the click."""
    moments = [(name, datetime.fromisoformat(text)) for name, text in stop.proofs.items()]
    return [(_TITLES[name], moment, (moment - stop.at).total_seconds()) for name, moment in moments]


def _missions(stop: Stop, of: Target, counts: Mapping[str, Any]) -> Rung:
    active = of.missions().filter(state=MissionState.ACTIVE).count()
    return _rung(stop, "missions", active, counts.get("missions", 0), "missions for which a call could be allowed")


def _tokens(stop: Stop, of: Target, counts: Mapping[str, Any]) -> Rung:
    left, note = of.tokens(TokenKind.RUN).count(), ""
    if of.scope in WIDE_STOPS:
        credentials = of.tokens(TokenKind.AGENT).count()
        left += 0 if stop.in_force else credentials
        note = f"{credentials} credentials of agents open nothing while the stop holds." if credentials else ""
        note = note.replace("1 credentials of agents open", "1 credential of an agent opens")
    return _rung(stop, "tokens", left, counts.get("tokens", 0), "tokens of runs neither revoked nor expired", note)


def _unstarted(of: Target) -> int:
    if of.account_id is not None:
        return budgets.unstarted_holds(account_id=of.account_id)
    ended = of.reach().actions().filter(hold_id__isnull=False, executing_at__isnull=True)
    holds = [key for key in ended.values_list("hold_id", flat=True) if key is not None]
    return budgets.unstarted_holds(account_id=None, hold_ids=holds)


def _budget(stop: Stop, of: Target) -> Rung:
    opened = of.account_id is not None
    frozen = opened and budgets.is_frozen(account_id=of.account_id)  # type: ignore[arg-type]
    note = "" if opened else "It has no budget: it never started."
    if opened and not stop.froze:
        note = "It was frozen before, and stays so when the stop is lifted."
    return _rung(stop, "budget", int(opened and not frozen), int(opened), "budgets not frozen", note)


def _rung(stop: Stop, name: str, left: int, found_then: int, how: str, note: str = "") -> Rung:
    since = datetime.fromisoformat(stop.proofs[name]) if name in stop.proofs else None
    seconds = (since - stop.at).total_seconds() if since else None
    return Rung(name, _TITLES[name], left == 0, left, max(found_then, left), how, since, seconds, note)
