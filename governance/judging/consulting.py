"""Asking the judge: a slot, a budget and a deadline first, then one model; whatever is not a valid answer asks people.

No database transaction is open while the model thinks, and no answer is kept for another action.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
import structlog
from django.conf import settings

from governance.choices import Verdict
from governance.judging import protocol
from governance.judging.endpoints import Endpoint, EndpointFailed, endpoints
from governance.judging.types import Answer, AnswerInvalid, Opinion, Said
from governance.registry import ledger
from governance.types import Finding, HoldRefused

log = structlog.get_logger(__name__)

# Each waits in a thread of the gateway: more of them, and calls that need no judge would wait too.
SLOTS: Final = 3
_SLOT: Final = threading.BoundedSemaphore(SLOTS)
# Of the time that is left, kept for the models behind the one that is asked.
_KEPT_BEHIND: Final = 0.25
_LONGEST_BRIEF: Final = 48 * 1024
_BYTES_PER_TOKEN: Final = 3
_BRIEF_IN_WORDS: Final = "The mission, its remit, the exact action, and the tool's description marked as untrusted."


def consult(
    *, organisation_id: uuid.UUID, brief: Mapping[str, Any] | None, policies: Sequence[str], irreversible: bool
) -> Opinion:
    """The opinion on one action that policy wants judged. Never raises: no opinion is an opinion that asks people."""
    since = time.perf_counter_ns()
    deadline = time.monotonic() + settings.CONFIG.judge_seconds

    def unsure(reason: str, message: str, details: Mapping[str, Any] | None = None) -> Opinion:
        return _opinion(
            since, policies, _no_answer(reason, message, policies, irreversible=irreversible), details or {}
        )

    if brief is None:
        return unsure("judge.no_brief", "There is nothing to judge this kind of action by.")
    if not endpoints():
        return unsure("judge.off", "A rule wants this judged, and no judge is connected.")
    size = len(msgspec.json.encode(brief))
    if size > _LONGEST_BRIEF:
        return unsure("judge.too_large", "The action is too large to be judged by a model.")
    if not _SLOT.acquire(timeout=min(1.0, settings.CONFIG.judge_seconds)):
        return unsure("judge.busy", "The judge is busy with other actions.")
    try:
        return _within_budget(organisation_id, brief, size, deadline, since, policies, irreversible)
    finally:
        _SLOT.release()


def _within_budget(
    organisation_id: uuid.UUID,
    brief: Mapping[str, Any],
    size: int,
    deadline: float,
    since: int,
    policies: Sequence[str],
    irreversible: bool,
) -> Opinion:
    tokens = (size + len(protocol.SYSTEM)) // _BYTES_PER_TOKEN + protocol.ANSWER_TOKENS
    hold = ledger().reserve_judgement(organisation_id=organisation_id, tokens=tokens)
    if isinstance(hold, HoldRefused):
        spent = _no_answer("judge.budget", "The judge's budget is used up.", policies, irreversible=irreversible)
        return _opinion(since, policies, spent, {"budget": hold.message})
    answer: Answer | None = None
    try:
        answer, details, trouble = _first_answer(brief, deadline)
    finally:
        ledger().settle(
            hold_id=hold, money=None, tokens=min(tokens, answer.tokens) if answer and answer.tokens else None
        )
    details = {"tokens_held": tokens, "prompt": protocol.PROMPT_SHA256, **details}
    if answer is None:
        return _opinion(since, policies, _no_answer(*trouble, policies, irreversible=irreversible), details)
    finding = None if answer.said is Said.ALIGNED else _objection(answer, policies, irreversible=irreversible)
    return _opinion(since, policies, finding, details, answer)


def _first_answer(brief: Mapping[str, Any], deadline: float) -> tuple[Answer | None, dict[str, Any], tuple[str, str]]:
    """Of the first model that responds. Another is tried only when one gave no response at all: nobody is asked until
    somebody says yes. Each is waited for as long as leaves a moment to those behind it."""
    trouble = ("judge.resting", "The judge has failed repeatedly and is left alone for a moment.")
    details: dict[str, Any] = {}
    document = protocol.document_of(brief)
    awake = [endpoint for endpoint in endpoints() if not endpoint.is_open]
    for place, endpoint in enumerate(awake):
        is_last = place == len(awake) - 1
        left = (deadline - time.monotonic()) * (1 if is_last else 1 - _KEPT_BEHIND)
        if left <= 0:
            return None, details, ("judge.too_slow", "The model did not answer in time.")
        if not endpoint.may_ask():
            continue
        details = {"model": endpoint.model, "shown": document}
        try:
            raw = endpoint.ask(protocol.request_body(model=endpoint.model, document=document), seconds=left)
        except EndpointFailed as error:
            trouble = (error.reason, str(error))
            _note(endpoint, error.reason)
            continue
        try:
            answer = protocol.read_answer(raw, model=endpoint.model, brief=brief)
        except AnswerInvalid as error:
            _note(endpoint, error.reason)
            return None, {**details, "answer": _shown(raw)}, (error.reason, str(error))
        _note(endpoint, "")
        return answer, {**details, "answer": _facts(answer)}, trouble
    return None, details, trouble


def _note(endpoint: Endpoint, trouble: str) -> None:
    if trouble:
        log.warning("judge.no_answer", model=endpoint.model, reason=trouble)
    endpoint.note(trouble)


def _objection(answer: Answer, policies: Sequence[str], *, irreversible: bool) -> Finding:
    if answer.said is Said.MISALIGNED:
        return Finding(
            Verdict.DENY,
            "judge.misaligned",
            "Not sent. The judge finds that this does not serve the mission.",
            ("Do what the mission asks for.", "Ask the mission's owner to say it in the mission if it is meant."),
        )
    return _no_answer(
        "judge.unsure", "The judge is not sure that this serves the mission.", policies, irreversible=irreversible
    )


def _no_answer(reason: str, message: str, policies: Sequence[str], *, irreversible: bool) -> Finding:
    """What can't be undone is not left to chance; everything else waits for a person."""
    if irreversible:
        return Finding(
            Verdict.DENY,
            reason,
            f"Not sent. {message} It can't be undone, so it is refused.",
            ("Use a way that can be undone.", "Ask the mission's owner."),
        )
    return Finding(Verdict.ESCALATE, reason, f"{message} A person has to agree to this.", policy=policies[0])


def _opinion(
    since: int,
    policies: Sequence[str],
    finding: Finding | None,
    details: Mapping[str, Any],
    answer: Answer | None = None,
) -> Opinion:
    if answer is not None:
        said = f"{answer.said.value.capitalize()}: {answer.summary}"
    else:
        said = finding.message if finding else ""
    return Opinion(
        finding=finding,
        saw=_BRIEF_IN_WORDS if "model" in details else "Nothing: no model was asked.",
        said=said,
        microseconds=(time.perf_counter_ns() - since) // 1000,
        policies=tuple(policies),
        details=details,
    )


def _facts(answer: Answer) -> dict[str, Any]:
    return {
        "verdict": answer.said.value,
        "mission_clause": answer.clause,
        "evidence": list(answer.evidence),
        "quoted": dict(answer.evidence),
        "summary": answer.summary,
        "model": answer.model,
        "tokens": answer.tokens,
    }


def _shown(raw: bytes) -> str:
    """What could not be read, as text that any reader and PostgreSQL can take."""
    return raw[:2000].decode("utf-8", "replace").replace("\x00", "�")
