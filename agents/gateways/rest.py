"""`/api/v1/actions`: the REST twin of the MCP gateway, a plain ASGI function because it is hot. Governance judges.

Proposing needs an `Idempotency-Key`. The verbs of one action may have one: they are safe to repeat by themselves.
"""

from __future__ import annotations

import asyncio
import functools
import json
import re
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from agents.gateways import rest_forms as forms
from agents.gateways.mcp import MCP
from agents.gateways.repeats import Repeats
from agents.gateways.rest_forms import AUDIENCE
from agents.gateways.threads import in_thread
from controlplane.common import ending
from controlplane.common.canonical import MAX_BYTES
from controlplane.common.errors import RemitError, not_found
from controlplane.common.http import (
    PROBLEM_TYPE,
    Application,
    Message,
    Receive,
    Scope,
    Send,
    bearer_of,
    edge,
    header,
    read_body,
    send_json,
    send_response,
)
from controlplane.common.ids import parse_id
from controlplane.common.observability import trace_id
from controlplane.common.rate_limits import limiter
from controlplane.tenancy.types import Principal
from governance import selectors
from governance import services as governance
from governance.choices import TERMINAL_ACTION_STATES, ActionState
from governance.models import Action
from governance.types import Judgement

PREFIX: Final = "/api/v1/actions"
LONGEST_WAIT_SECONDS: Final = 30
# A body of this size may arrive before we know whose it is; a larger one is read only for those we know.
SMALL_BODY: Final = 64 * 1024
_POLL_SECONDS: Final = (0.1, 0.25, 0.5, 1.0)
_ITEM = re.compile(re.escape(PREFIX) + r"/(?P<id>[0-9a-f-]{36})(?::(?P<verb>[a-z]+))?\Z")
_REPEATS: Final = Repeats()
_ALLOWANCE: Final = "remit.allowance"


def counted(application: Application) -> Application:
    """Every answer to a caller that is known says what is left of its requests, refusals too."""

    @functools.wraps(application)
    async def served(scope: Scope, receive: Receive, send: Send) -> None:
        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start" and (allowance := scope.get(_ALLOWANCE)) is not None:
                more = [(name.lower().encode(), value.encode()) for name, value in allowance.headers.items()]
                message = {**message, "headers": [*message["headers"], *more]}
            await send(message)

        await application(scope, receive, sending)

    return served


@counted
@edge("api.actions")
async def actions(scope: Scope, receive: Receive, send: Send) -> None:
    method, path = scope["method"], scope["path"].rstrip("/")
    item = _ITEM.match(path)
    if item and item["verb"] is None:
        served: dict[str, Callable[[], Awaitable[None]]] = {"GET": lambda: _show(_known_id(item), scope, send)}
    elif item and item["verb"] in _VERBS:
        served = {"POST": lambda: _operate(item["verb"], _known_id(item), scope, receive, send)}
    elif path == PREFIX:
        served = {"GET": lambda: _list(scope, send), "POST": lambda: _propose(scope, receive, send)}
    elif path == f"{PREFIX}:batch":
        served = {"POST": lambda: _propose_many(scope, receive, send)}
    else:
        raise not_found("page")
    if method in served:
        await served[method]()
    else:
        await _refuse_method(method, sorted(served), send)


# Proposing ------------------------------------------------------------------------------------------------------------


async def _propose(scope: Scope, receive: Receive, send: Send) -> None:
    raw = await _body(scope, receive)
    judgement = await in_thread(_judge, scope, raw)
    location = {"location": f"{PREFIX}/{judgement.action_id}"}
    await send_json(send, 200 if judgement.replayed else 201, forms.answer_of(judgement), location)


def _judge(scope: Scope, raw: bytes) -> Judgement:
    principal = _authenticate(scope)
    key = forms.key_of(header(scope, "idempotency-key"))
    return governance.propose(proposer=principal, proposal=forms.proposal_of(forms.object_of(scope, raw), key=key))


async def _propose_many(scope: Scope, receive: Receive, send: Send) -> None:
    """Up to 100 in one request, judged one after the other; each has its own answer or its own problem."""
    raw = await _body(scope, receive)
    await send_json(send, 200, {"items": await in_thread(_judge_many, scope, raw)})


def _judge_many(scope: Scope, raw: bytes) -> list[dict[str, Any]]:
    principal = _authenticate(scope)
    key = forms.key_of(header(scope, "idempotency-key"), room_for="/99")
    results: list[dict[str, Any]] = []
    for index, item in enumerate(forms.batch_of(forms.object_of(scope, raw))):
        try:
            proposal = forms.proposal_of(item, key=f"{key}/{index}")
            judgement = governance.propose(proposer=principal, proposal=proposal)
            results.append({"status": 200 if judgement.replayed else 201, **forms.answer_of(judgement)})
        except RemitError as error:
            results.append(error.problem(trace_id=trace_id()))
    return results


# Reading --------------------------------------------------------------------------------------------------------------


async def _show(action_id: uuid.UUID, scope: Scope, send: Send) -> None:
    """`?wait=` holds the request until the action's state changes or the time is over. No thread waits meanwhile, and
    the token is asked again each time: one that is revoked learns nothing more."""
    wait = forms.whole(forms.query_of(scope, frozenset({"wait"})), "wait", 0, LONGEST_WAIT_SECONDS)
    until = time.monotonic() + wait
    first = state = await in_thread(_state, scope, action_id)
    pauses = iter(_POLL_SECONDS)
    pause = next(pauses)
    while state is first and state not in TERMINAL_ACTION_STATES and (left := until - time.monotonic()) > 0:
        if ending.has_begun():
            break
        await asyncio.sleep(min(pause, left))
        pause = next(pauses, pause)
        state = await in_thread(_state, scope, action_id)
    await send_json(send, 200, await in_thread(_detail, scope, action_id))


def _state(scope: Scope, action_id: uuid.UUID) -> ActionState:
    return selectors.action_state(principal=_authenticate(scope), action_id=action_id)


def _detail(scope: Scope, action_id: uuid.UUID) -> dict[str, Any]:
    return forms.detail_of(selectors.action(principal=_authenticate(scope), action_id=action_id))


async def _list(scope: Scope, send: Send) -> None:
    await send_json(send, 200, await in_thread(_listed, scope))


def _listed(scope: Scope) -> dict[str, Any]:
    principal = _authenticate(scope)
    query = forms.query_of(scope, forms.LIST_QUERY)
    found = selectors.actions(
        principal=principal, filters=forms.filters_of(query), limit=forms.limit_of(query), cursor=query.get("cursor")
    )
    return {"items": [forms.item_of(row) for row in found.items], "next": found.next}


# Verbs on one action --------------------------------------------------------------------------------------------------


async def _operate(verb: str, action_id: uuid.UUID, scope: Scope, receive: Receive, send: Send) -> None:
    raw = await _body(scope, receive)
    principal, body = await in_thread(lambda: (_authenticate(scope), forms.object_of(scope, raw)))

    async def work() -> dict[str, Any]:
        return await _VERBS[verb](principal, action_id, body)

    key = header(scope, "idempotency-key")
    if key is None:
        answer = await work()
    else:
        named = (str(principal.organisation_id), str(principal.id), verb, str(action_id), forms.key_of(key))
        answer = await _REPEATS.once(named, raw, work)
    await send_json(send, 200, answer)


async def _execute(principal: Principal, action_id: uuid.UUID, body: Mapping[str, Any]) -> dict[str, Any]:
    """Redeem the permit and let Remit make the call. `{"permit": "…"}`, or `{}` for an action that a person
    approved."""
    forms.only(body, {"permit"})
    permit = forms.text(body, "permit")
    result = await MCP.caller().execute(principal, action_id, permit_token=permit, audience=AUDIENCE)
    row = await in_thread(_shown, principal, action_id)
    return {**row, "result": result}


def _shown(principal: Principal, action_id: uuid.UUID) -> dict[str, Any]:
    return forms.detail_of(selectors.action(principal=principal, action_id=action_id))


async def _outcome(principal: Principal, action_id: uuid.UUID, body: Mapping[str, Any]) -> dict[str, Any]:
    """An outside executor reports. With `permit` it redeems it in the same request, for work that is done at once."""
    report, permit = forms.report_of(body), forms.text(body, "permit")

    def write() -> Action:
        if permit is not None:
            governance.check_outcome(**report)  # a report that can't be taken must not use up the permit
            governance.redeem(holder=principal, action_id=action_id, audience=AUDIENCE, permit_token=permit)
        governance.record_outcome(holder=principal, action_id=action_id, audience=AUDIENCE, **report)
        return selectors.action(principal=principal, action_id=action_id)

    return await in_thread(lambda: forms.detail_of(write()))


async def _withdraw(principal: Principal, action_id: uuid.UUID, body: Mapping[str, Any]) -> dict[str, Any]:
    forms.only(body, {"reason"})
    reason = forms.text(body, "reason") or ""

    def write() -> Action:
        governance.withdraw(actor=principal, action_id=action_id, reason=reason)
        return selectors.action(principal=principal, action_id=action_id)

    return await in_thread(lambda: forms.detail_of(write()))


async def _answer(principal: Principal, action_id: uuid.UUID, body: Mapping[str, Any]) -> dict[str, Any]:
    """Answer what a person asked about the waiting action. `{"text": "…"}`, with `question` for a certain one."""
    forms.only(body, {"text", "question"})
    text, named = forms.text(body, "text") or "", forms.text(body, "question")
    question = parse_id(named) if named is not None else None
    if named is not None and question is None:
        raise not_found("question")

    def write() -> Action:
        governance.answer_question(principal=principal, action_id=action_id, text=text, question_id=question)
        return selectors.action(principal=principal, action_id=action_id)

    return await in_thread(lambda: forms.detail_of(write()))


async def _settle(principal: Principal, action_id: uuid.UUID, body: Mapping[str, Any]) -> dict[str, Any]:
    """A person who found out says what came of an action that nobody reported on. Outcome: success or failure."""
    forms.only(body, {"outcome", "reason"})
    outcome, reason = forms.text(body, "outcome") or "", forms.text(body, "reason") or ""

    def write() -> Action:
        governance.reconcile(actor=principal, action_id=action_id, outcome=outcome, reason=reason)
        return selectors.action(principal=principal, action_id=action_id)

    return await in_thread(lambda: forms.detail_of(write()))


_VERBS: Final = {"answer": _answer, "execute": _execute, "outcome": _outcome, "settle": _settle, "withdraw": _withdraw}


# The request ----------------------------------------------------------------------------------------------------------


async def _body(scope: Scope, receive: Receive) -> bytes:
    """The body, of strangers only as long as it is small. Whoever uses it authenticates once more, with its work."""
    announced = header(scope, "content-length") or ""
    if not (announced.isdigit() and announced.isascii() and len(announced) < 7 and int(announced) <= SMALL_BODY):
        await in_thread(_authenticate, scope)
    return await read_body(scope, receive, max_bytes=MAX_BYTES)


def _authenticate(scope: Scope) -> Principal:
    token = bearer_of(scope)
    if token is None:
        raise RemitError(
            "token.missing",
            "Send a token as “Authorization: Bearer rmt_…”.",
            401,
            remedies=("A run's token is shown on its mission's page.",),
        )
    principal = MCP.principal_of(token)
    _count(scope, principal)
    return principal


def _count(scope: Scope, principal: Principal) -> None:
    """Once a request, however often it looks the token up. In a thread of the pool, never in the event loop."""
    if _ALLOWANCE in scope:
        return
    allowance = scope[_ALLOWANCE] = limiter("actions").count(str(principal.token_id or principal.id))
    error = allowance.error()
    if error is not None:
        raise error


def _known_id(item: re.Match[str]) -> uuid.UUID:
    key = parse_id(item["id"])
    if key is None:
        raise not_found("action")
    return key


async def _refuse_method(method: str, served: list[str], send: Send) -> None:
    error = RemitError("request.method", f"{method[:20]} is not served here.", 405, remedies=[f"Use {served[0]}."])
    body = json.dumps(error.problem(trace_id=trace_id())).encode()
    await send_response(send, error.status, body, PROBLEM_TYPE, {"allow": ", ".join(served)})
