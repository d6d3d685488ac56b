"""One tools/call from the gate to its recorded outcome. What was permitted is carried out once, whoever listens."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import structlog
from django.db import DatabaseError

from agents.gateways import answers, own_tools
from agents.gateways.catalogue import pinned_tool
from agents.gateways.threads import in_thread
from agents.servers.pool import SessionPool
from agents.servers.types import PinnedTool, RunContext, UpstreamKind, UpstreamResult
from controlplane.common.canonical import canonical_bytes
from controlplane.common.errors import RemitError, not_found
from controlplane.common.ids import parse_id
from controlplane.common.statements import planned
from controlplane.tenancy.types import Permission, Principal
from governance import selectors
from governance import services as governance
from governance.choices import ActionState
from governance.models import Action
from governance.types import Judgement, Proposal

log = structlog.get_logger(__name__)

AUDIENCE = "mcp"
_NEWEST = "2026-07-28"
_REMEMBERED_RESULTS = 64
# Only what people agreed to: a call that was allowed outright is permitted for a moment too, and belongs to its caller.
# What they edited first is found by what the agent asked for as well; its arguments are those of the edit.
_APPROVED = """
SELECT a.id, a.arguments::text, a.replaces_id FROM governance_action a
WHERE a.run_id = %s AND a.organisation_id = %s AND a.tool = %s AND a.state = 'permitted'
  AND (a.replaces_id IS NOT NULL
       OR EXISTS (SELECT 1 FROM governance_escalation e WHERE e.action_id = a.id AND e.state = 'approved'))
ORDER BY a.id LIMIT 100
"""
_REMEMBERED_BYTES = 64 * 1024
_REMEMBERED_SECONDS = 300.0
# How long an outcome waits for a database that is away; agents wait longer for their answer.
RECORDING_SECONDS = 45.0


@dataclass(frozen=True)
class Call:
    """One tools/call as it was parsed from the raw body. `meta` is the caller's `_meta`."""

    tool: str
    arguments: Mapping[str, Any]
    meta: Mapping[str, Any]
    protocol_version: str


@dataclass(frozen=True)
class _Started:
    """A permit that was just used: the action is executing and its call has to follow."""

    action: Action
    tool: PinnedTool | None


@dataclass(frozen=True)
class _Earlier:
    """An action decided before, which is not to be started by this call."""

    action_id: uuid.UUID
    answer: answers.ToolResult


class Caller:
    """Carries out calls through one session pool. Knows what is under way in this process: a repeat joins it."""

    def __init__(self, pool: SessionPool) -> None:
        self._pool = pool
        self._running: dict[uuid.UUID, asyncio.Task[answers.ToolResult]] = {}
        self._results: OrderedDict[uuid.UUID, tuple[float, answers.ToolResult]] = OrderedDict()

    async def call(self, principal: Principal, call: Call) -> answers.ToolResult:
        if call.tool.startswith(own_tools.PREFIX):
            return await own_tools.call(principal, call.tool, call.arguments)
        try:
            found = await in_thread(_settle_who_may, principal, call)
        except RemitError as error:
            return answers.refused(error)
        if isinstance(found, Judgement):
            return answers.decided(found)
        if isinstance(found, _Earlier):
            return await self._join(found)
        return await self._follow(found.action.pk, self._carry_out(principal, found, call))

    async def execute(
        self, principal: Principal, action_id: uuid.UUID, *, permit_token: str | None, audience: str
    ) -> answers.ToolResult:
        """Make the call of an action permitted at another edge. Raises RemitError when its permit does not hold."""
        started = await in_thread(_start, principal, action_id, audience, permit_token)
        action = started.action
        call = Call(tool=action.tool, arguments=action.arguments, meta={}, protocol_version=_NEWEST)
        return await self._follow(action.pk, self._carry_out(principal, started, call))

    async def finish(self) -> None:
        """Let calls under way end, at shutdown; what doesn't end in time is found by the sweep."""
        if self._running:
            await asyncio.wait(self._running.values(), timeout=5)

    async def _follow(self, action_id: uuid.UUID, work: Any) -> answers.ToolResult:
        """Run to the end even when the client hangs up: an outcome that nobody waits for is recorded all the same."""
        task: asyncio.Task[answers.ToolResult] = asyncio.create_task(work)
        self._running[action_id] = task
        task.add_done_callback(lambda done: self._remember(action_id, done))
        return await asyncio.shield(task)

    async def _join(self, earlier: _Earlier) -> answers.ToolResult:
        """The repeat of a call that runs or ran here gets that call's result; nothing is done twice."""
        running = self._running.get(earlier.action_id)
        if running:
            return await asyncio.shield(running)
        kept = self._results.get(earlier.action_id)
        return kept[1] if kept and time.monotonic() - kept[0] < _REMEMBERED_SECONDS else earlier.answer

    def _remember(self, action_id: uuid.UUID, done: asyncio.Task[answers.ToolResult]) -> None:
        self._running.pop(action_id, None)
        if done.cancelled() or done.exception() or len(str(done.result())) > _REMEMBERED_BYTES:
            return
        self._results[action_id] = (time.monotonic(), done.result())
        while len(self._results) > _REMEMBERED_RESULTS:
            self._results.popitem(last=False)

    async def _carry_out(self, principal: Principal, started: _Started, call: Call) -> answers.ToolResult:
        action, tool = started.action, started.tool
        arguments = canonical_bytes(action.arguments)
        if tool is None or action.envelope.get("definition") != tool.definition_sha256:
            result = UpstreamResult(
                UpstreamKind.ERROR, "tool.definition_changed", "The tool is no longer what was approved.", sent=False
            )
        else:
            context = RunContext(run_id=action.run_id, mission_id=action.mission_id)
            try:
                result = await self._pool.call_upstream(context, tool, arguments)
            except Exception as error:
                log.exception("upstream.call_failed", action=str(action.pk))
                result = UpstreamResult(
                    UpstreamKind.UNKNOWN, "upstream.internal", f"Remit failed: {type(error).__name__}"
                )
        try:
            action = await _record_patiently(principal, action, result)
        except (RemitError, DatabaseError):
            # The action stays executing; the sweep makes it unknown. The agent still learns what the server said.
            log.exception("outcome.not_recorded", action=str(action.pk))
        tool = tool or _nameless(call.tool)
        if result.kind is UpstreamKind.RESULT:
            answer = answers.carried_out(action, tool, result, protocol_version=call.protocol_version)
        else:
            answer = answers.not_carried_out(action, tool, result)
        return answers.with_edit(answer, action, call.arguments) if action.replaces_id else answer


def _settle_who_may(principal: Principal, call: Call) -> _Started | _Earlier | Judgement:
    """All of a call that needs the database before it is sent, in one unit: judge, or find the decision; redeem."""
    named = call.meta.get(answers.ACTION_META)
    if named is not None:
        return _redeem_named(principal, call, named)
    key = call.meta.get(answers.KEY_META)
    if key is None:
        approved = _approved_before(principal, call)
        if approved is not None:
            return _redeem(principal, approved, call.tool, None)
    # Looked up before it starts: from then on nothing may stand between the action and its call.
    tool = pinned_tool(principal, call.tool)
    judgement = governance.propose_and_start(
        proposer=principal,
        proposal=Proposal(
            kind="tool.call",
            tool=call.tool,
            arguments=call.arguments,
            justification=str(call.meta.get(answers.JUSTIFICATION_META, "")),
            idempotency_key=str(key) if key is not None else None,
            audience=AUDIENCE,
        ),
    )
    if judgement.started is not None:
        return _Started(judgement.started, tool)
    if not judgement.replayed:
        return judgement
    action = _as_edited(Action.objects.get(pk=judgement.action_id))
    if action.state != ActionState.PERMITTED:
        return _earlier(action)
    return _redeem(principal, action.pk, action.tool, judgement.permit.token if judgement.permit else None)


def _redeem_named(principal: Principal, call: Call, named: object) -> _Started | _Earlier:
    """The call that an action was decided for, made again: by who proposed it, and it must be that very call."""
    identifier = parse_id(named)
    rows = Action.objects.restrict(principal, Permission.ACTION_VIEW)
    action = rows.filter(pk=identifier, kind="tool.call").first() if identifier else None
    if action is None or not action.was_asked_for_by(principal):
        raise not_found("action")
    action = _as_edited(action)
    if action.tool != call.tool or not _asks_for(action, call):
        raise RemitError(
            "action.other_call",
            "That action was decided for another tool or other arguments. Nothing was sent.",
            409,
            remedies=("Repeat exactly the call the action stands for, or make this one without naming an action.",),
        )
    if action.state != ActionState.PERMITTED:
        return _earlier(action)
    return _redeem(principal, action.pk, action.tool, None)


def _approved_before(principal: Principal, call: Call) -> uuid.UUID | None:
    """A call a person agreed to, not made yet: for clients that can't name the action, repeating the call is enough.

    On the way of every call, hence by hand: building the same query from models costs more than all of its work.
    """
    if principal.run_id is None:
        return None
    found = planned(_APPROVED, [principal.run_id, principal.organisation_id, call.tool])
    wanted = canonical_bytes(call.arguments)
    for key, text, replaces in found:
        if canonical_bytes(json.loads(text)) == wanted:
            return uuid.UUID(str(key))
        if replaces is not None and _asks_for(Action.objects.get(pk=key), call):
            return uuid.UUID(str(key))
    return None


def _as_edited(action: Action) -> Action:
    """What people put in its place before agreeing, or the action itself."""
    return selectors.in_place_of(action) or action


def _asks_for(action: Action, call: Call) -> bool:
    """Whether the call is this action, or what was asked for before people edited it."""
    wanted = canonical_bytes(call.arguments)
    return any(canonical_bytes(one.arguments) == wanted for one in (action, *selectors.asked_first(action)))


def _redeem(
    principal: Principal, action_id: uuid.UUID, tool_name: str, permit_token: str | None
) -> _Started | _Earlier:
    # Looked up before the permit is used: from then on nothing may stand between the action and its call.
    tool = pinned_tool(principal, tool_name)
    try:
        started = governance.redeem(holder=principal, action_id=action_id, audience=AUDIENCE, permit_token=permit_token)
    except RemitError as error:
        action = Action.objects.restrict(principal, Permission.ACTION_VIEW).filter(pk=action_id).first()
        if action is None:
            raise
        if action.state in (ActionState.PERMITTED, ActionState.DENIED):
            return _Earlier(action.pk, answers.refused(error, action=action))
        return _earlier(action)
    return _Started(started, tool)


def _start(principal: Principal, action_id: uuid.UUID, audience: str, permit_token: str | None) -> _Started:
    found = Action.objects.restrict(principal, Permission.ACTION_VIEW).filter(pk=action_id).first()
    tool = pinned_tool(principal, found.tool) if found else None
    started = governance.redeem(
        holder=principal,
        action_id=action_id,
        audience=audience,
        permit_token=permit_token,
        hand_to=AUDIENCE,
    )
    return _Started(started, tool)


def _earlier(action: Action) -> _Earlier:
    replacement = selectors.in_place_of(action) if action.state == ActionState.WITHDRAWN else None
    return _Earlier(action.pk, answers.stands(action, own_tools.open_escalation(action), replacement))


async def _record_patiently(principal: Principal, action: Action, result: UpstreamResult) -> Action:
    """Before anybody is told what came of it, it is in the database: one that is away is waited for."""
    until, pause = time.monotonic() + RECORDING_SECONDS, 0.1
    while True:
        try:
            return await in_thread(_record, principal, action, result)
        except RemitError as error:
            if error.retry_after_seconds is None or time.monotonic() + pause > until:
                raise
            log.warning("outcome.recorded_later", action=str(action.pk), code=error.code)
        await asyncio.sleep(pause)
        pause = min(pause * 2, 2.0)


def _record(principal: Principal, action: Action, result: UpstreamResult) -> Action:
    failed = result.kind is UpstreamKind.RESULT and result.content.get("isError") is True
    outcome = {
        UpstreamKind.RESULT: "failure" if failed else "success",
        UpstreamKind.ERROR: "failure",
        UpstreamKind.UNKNOWN: "unknown",
    }[result.kind]
    said = _first_text(result.content)
    error = f"{result.reason_code}: {result.message}" if result.reason_code else f"tool.error: {said}" if failed else ""
    return governance.record_outcome_of(
        holder=principal,
        started=action,
        outcome=outcome,
        result_sha256=result.result_sha256,
        summary="" if failed else said,
        error=answers.for_display(error, limit=400),
        # A call that never left costs nothing.
        money=None if result.sent else Decimal(0),
    )


def _first_text(content: Mapping[str, Any]) -> str:
    texts = (block.get("text") for block in content.get("content", ()) if block.get("type") == "text")
    return answers.for_display(next((text for text in texts if isinstance(text, str)), ""))


def _nameless(qualified_name: str) -> PinnedTool:
    """Stands for a tool that is gone, in the answer about it."""
    from agents.choices import Transport
    from agents.servers.types import ServerAddress

    slug, _, name = qualified_name.partition("__")
    nowhere = uuid.UUID(int=0)
    return PinnedTool(nowhere, ServerAddress(nowhere, nowhere, slug, Transport.STDIO), name, qualified_name, "")
