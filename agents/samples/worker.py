"""What every sample agent does with its remit: read the mission, heed verdicts, wait for people, tick the checklist."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import IntEnum
from typing import Any

from agents.samples.gateway import Answer, Gateway, Settings, TokenRefused, Unreachable, Verdict, log
from agents.samples.terms import Criterion

POLL_SECONDS = 20
PATIENCE = timedelta(hours=1)
LONGEST_REST_SECONDS = 30.0
MOST_EVIDENCE = 50
MOST_EVIDENCE_CHARACTERS = 2000
_LONGEST_VALUE = 58


class Exit(IntEnum):
    DONE = 0
    FAILED = 1
    MISCONFIGURED = 2
    TOKEN_REFUSED = 3
    GATEWAY_UNREACHABLE = 75


class Stopped(Exception):
    """The mission was ended or the budget is used up: going on would only be refused."""


class NotReached(Exception):
    """The agent did what it could and the goal is not reached: it claims nothing."""


@dataclass(frozen=True)
class Refusal:
    """One thing the agent wanted and did not get, for its report."""

    wanted: str
    reason: str


@dataclass(frozen=True)
class Decision:
    """What became of a waiting action. People may have put another in its place: then `action` and `arguments` are that
    one's, which is what they agreed to."""

    state: str
    message: str
    arguments: Mapping[str, Any]
    action: str


class Worker:
    """One run. Keeps what was refused and what the mission already knows as done."""

    def __init__(self, gateway: Gateway, criteria: Sequence[Criterion]) -> None:
        self.refusals: list[Refusal] = []
        self._gateway = gateway
        self._criteria = {criterion.key: criterion.text for criterion in criteria}
        self._mission: Mapping[str, Any] = {}

    async def begin(self) -> None:
        """Read the mission and see which tools there are."""
        self._mission = _mapping((await self.use("remit__mission", quiet=True)).data)
        log(f"My mission: {self._mission.get('goal', '(not told)')}")
        tools = await self._gateway.tools()
        log(f"I can see {len(tools)} tools: {', '.join(tools)}")

    async def read(self, tool: str, arguments: Mapping[str, Any] | None = None, *, why: str = "") -> Answer:
        """Use a tool that changes nothing: when its result got lost, ask once more."""
        answer = await self.use(tool, arguments, why=why)
        return await self.use(tool, arguments, why=why) if answer.result_missing else answer

    async def use(
        self,
        tool: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        action: str = "",
        why: str = "",
        quiet: bool = False,
    ) -> Answer:
        """Call a tool, wait out a pause, note a refusal. Raises Stopped when nothing more can come of this run."""
        rest = 2.0
        while True:
            answer = await self._gateway.call(tool, arguments, action=action, why=why)
            await self._gateway.rest()
            if answer.verdict is Verdict.DENY and _ended(answer.reason_code):
                raise Stopped(answer.text)
            if answer.verdict is not Verdict.DENY or not _passing(answer):
                break
            wait = min(answer.retry_after_seconds or rest, LONGEST_REST_SECONDS)
            log(f"{tool}: not now ({answer.text}); waiting {wait:g} s")
            await asyncio.sleep(wait)
            rest = min(rest * 2, LONGEST_REST_SECONDS)
        if not quiet or not answer.allowed:
            log(_line(tool, arguments, answer))
        if answer.verdict is Verdict.DENY:
            self.refusals.append(Refusal(wanted=_called(tool, arguments), reason=answer.text or answer.reason_code))
        return answer

    def is_ticked(self, key: str) -> bool:
        """Whether the mission already has this criterion as claimed or judged, from before a restart."""
        return bool(self._criterion(key).get("done"))

    def waiting_action(self, tool: str, arguments: Mapping[str, Any]) -> str:
        """Id of an action of this very call that already waits for people, else ""."""
        for item in _mappings(self._mission.get("waiting")):
            if item.get("tool") == tool and item.get("arguments") == dict(arguments):
                return str(item.get("id", ""))
        return ""

    async def decided(self, action: str, *, expires_at: datetime | None, why: str) -> Decision:
        """Wait until people have decided, or the deadline has passed (a deadline without an answer is a no). Whoever
        asks meanwhile is told `why`, which is all that a program without a model knows."""
        until = (expires_at or datetime.now(UTC) + PATIENCE) + timedelta(seconds=POLL_SECONDS)
        log(f"Waiting for a person to decide about {action}")
        while datetime.now(UTC) < until:
            answer = await self._gateway.call("remit__action", {"id": action, "wait": POLL_SECONDS})
            found = _mapping(answer.data)
            state = str(found.get("state", ""))
            if not answer.allowed:
                return Decision("unknown", answer.text, {}, action)
            instead = str(_mapping(found.get("replaced_by")).get("id") or "")
            if instead:
                log(f"{found.get('message') or 'A person changed it'}; {instead} stands in its place")
                action, until = instead, max(until, datetime.now(UTC) + PATIENCE)
                continue
            await self._tell_why(action, _mappings(found.get("questions")), why)
            if state not in ("proposed", "waiting", "executing"):
                return Decision(state, str(found.get("message") or state), _mapping(found.get("arguments")), action)
            await asyncio.sleep(max(0.2, min(1.0, (until - datetime.now(UTC)).total_seconds())))
        return Decision("expired", "nobody decided in time", {}, action)

    async def _tell_why(self, action: str, questions: Sequence[Mapping[str, Any]], why: str) -> None:
        for question in questions:
            if question.get("open"):
                log(f"A person asks about {action}: {question.get('text')}")
                text = f"I follow fixed rules and can say no more than what I asked it for: {why}"
                await self._gateway.call("remit__answer", {"id": action, "question": question["id"], "text": text})

    async def tick(self, key: str, evidence: str) -> None:
        """Claim a criterion with what proves it."""
        item = self._criterion(key)
        if not item:
            log(f"The mission does not ask for “{self._criteria[key]}”; nothing to tick")
            return
        arguments = {"position": item["position"], "state": "claimed", "evidence": evidence[:MOST_EVIDENCE_CHARACTERS]}
        if (await self.use("remit__progress", arguments, quiet=True)).allowed:
            log(f"Claimed: {self._criteria[key]} ({evidence})")

    async def finish(self, *, outcome: str, summary: str, evidence: Sequence[str]) -> None:
        """Say how far the goal is reached ("reached", "partly"). People accept or reject it."""
        kept = [line[:MOST_EVIDENCE_CHARACTERS] for line in evidence[:MOST_EVIDENCE]]
        arguments = {"outcome": outcome, "summary": summary, "evidence": kept}
        if not (await self.use("remit__finish", arguments, quiet=True)).allowed:
            raise NotReached(f"The outcome claim was not taken: {summary}")
        log(f"Finished: {summary}")

    def _criterion(self, key: str) -> Mapping[str, Any]:
        wanted = self._criteria[key]
        found = (item for item in _mappings(self._mission.get("criteria")) if item.get("text") == wanted)
        return next(found, {})


def run(story: Callable[[Gateway], Awaitable[None]]) -> int:
    """Settle the surroundings of a run and turn its end into an exit code."""
    try:
        settings = Settings.from_environment()
    except ValueError as error:
        log(f"Can't start: {error}")
        return Exit.MISCONFIGURED

    async def whole() -> None:
        async with Gateway.open(settings) as gateway:
            await story(gateway)

    try:
        asyncio.run(whole())
    except TokenRefused as error:
        log(f"Ending: {error}")
        return Exit.TOKEN_REFUSED
    except Unreachable as error:
        log(f"Giving up: {error}")
        return Exit.GATEWAY_UNREACHABLE
    except Stopped as error:
        log(f"Stopped: {error}")
        return Exit.FAILED
    except NotReached as error:
        log(f"Not reached: {error}")
        return Exit.FAILED
    return Exit.DONE


def exhausted(answer: Answer) -> bool:
    """Whether the budget is what refused it: every further call would be refused alike."""
    return answer.verdict is Verdict.DENY and answer.reason_code.startswith("budget.")


def _ended(reason_code: str) -> bool:
    return reason_code in ("mission.ended", "mission.deadline", "mission.not_found", "run.ended", "agent.retired")


def _passing(answer: Answer) -> bool:
    """Whether the same call may go through later without anybody changing the remit."""
    return answer.retry_after_seconds is not None or answer.reason_code in ("mission.not_active", "rate.exceeded")


def _line(tool: str, arguments: Mapping[str, Any] | None, answer: Answer) -> str:
    called = _called(tool, arguments)
    match answer.verdict:
        case Verdict.ALLOW:
            return f"allowed    {called}"
        case Verdict.ESCALATE:
            return f"escalated  {called}: {answer.text}"
        case Verdict.DENY:
            return f"denied     {called}: {answer.text}"
        case Verdict.ERROR:
            return f"failed     {called}: {answer.text}"


def _called(tool: str, arguments: Mapping[str, Any] | None) -> str:
    shown = ", ".join(f"{name}={_short(value)}" for name, value in (arguments or {}).items())
    return f"{tool}({shown})"


def _short(value: Any) -> str:
    """Text is cut before it is quoted, so that the quotes are a pair."""
    if isinstance(value, str):
        return repr(value if len(value) <= _LONGEST_VALUE else f"{value[: _LONGEST_VALUE - 1]}…")
    text = repr(value)
    return text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 1]}…"


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _mappings(value: Any) -> list[Mapping[str, Any]]:
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []
