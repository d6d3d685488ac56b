"""What the judge's rung of the proof ladder tells beside its sentence, read from the details that a decision keeps."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Judged:
    """As components/judged.html takes it. `evidence`: pointers into what the model was shown, and what stood there;
    `unreadable`: the beginning of a response that was no valid answer; `counted`: the model said how many tokens;
    `shown`: the document that was sent to it, as JSON to be read by people."""

    model: str = ""
    answer: str = ""
    clause: str = ""
    evidence: Sequence[tuple[str, str]] = ()
    unreadable: str = ""
    budget: str = ""
    tokens: int = 0
    counted: bool = False
    prompt: str = ""
    shown: str = ""


def judged_of(details: Mapping[str, Any], *, said: str) -> Judged | None:
    """None for a stage that asked no model and would not have. What `said` says already is not said twice."""
    if not details:
        return None
    answer = details.get("answer") or {}
    read = answer if isinstance(answer, Mapping) else {}
    verdict, summary = read.get("verdict") or "", read.get("summary") or ""
    whole = f"{verdict.capitalize()}: {summary}"
    counted = read.get("tokens") or 0
    quoted = read.get("quoted") or {}
    return Judged(
        model=read.get("model") or details.get("model") or "",
        answer=verdict.capitalize() if whole == said else whole if read else "",
        clause=read.get("mission_clause") or "",
        evidence=[(pointer, quoted.get(pointer, "")) for pointer in read.get("evidence") or ()],
        unreadable=answer if isinstance(answer, str) else "",
        budget=details.get("budget") or "",
        tokens=counted or details.get("tokens_held") or 0,
        counted=bool(counted),
        prompt=details.get("prompt") or "",
        shown=_readable(details.get("shown") or ""),
    )


def _readable(document: str) -> str:
    return json.dumps(json.loads(document), ensure_ascii=False, indent=2) if document else ""
