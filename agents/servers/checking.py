"""Connecting to servers in the background: the regular look at each, and tests that people ask for and watch."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any, Final

import structlog
from django.db import IntegrityError, transaction
from django.db.models import Q

from agents.choices import LIVE_SERVER_TEST_STATES, ServerTestState
from agents.models import McpServer, McpTool, ServerTest
from agents.servers.authority import announce_servers, require_write, server_subject, usable_server
from agents.servers.definitions import argument_errors
from agents.servers.health import note_check
from agents.servers.links import NotSent, Refused
from agents.servers.selectors import address_of, may_be_tried
from agents.servers.services import listing_actor, note_fault, record_listing
from agents.servers.sessions import UpstreamSession, open_session
from agents.servers.types import DEFAULT_LIMITS, NO_RUN, Listing, Refreshed, ServerAddress, ServerFault
from controlplane.audit.events import Event
from controlplane.audit.services import record
from controlplane.common.canonical import digest
from controlplane.common.clock import now
from controlplane.common.errors import FieldError, RemitError, invalid, not_found
from controlplane.tenancy.services import principal_of_user
from controlplane.tenancy.types import Principal

log = structlog.get_logger(__name__)

# A worker's thread is busy for as long: shorter than what a run may take for the same.
LIMITS: Final = replace(DEFAULT_LIMITS, connect_seconds=15.0, call_seconds=10.0)
AT_ONCE = 8  # servers looked at together
TESTS_AT_ONCE = 2  # threads that tests may take of a worker's few
CLAIM: Final = timedelta(minutes=3)
CUT_OFF: Final = timedelta(minutes=2)
TESTS_KEPT: Final = timedelta(days=30)
ANSWER_CHARACTERS = 4000
ARGUMENT_CHARACTERS = 8000


# Tests --------------------------------------------------------------------------------------------------------------


def ask_for_test(
    *,
    actor: Principal,
    server_id: uuid.UUID,
    tool_id: uuid.UUID | None = None,
    arguments: Mapping[str, Any] | None = None,
) -> ServerTest:
    """A test that a worker takes up at once; asked again while one is under way, that one.

    With a tool: one call of it, which must be approved and only read, as people and its own definition say. Raises 404,
    409 `server.off`, `stop.in_force`, 422 `server.test`.
    """
    from agents.tasks import run_server_test

    require_write(actor)
    if not actor.is_person or actor.user_id is None:
        raise invalid("server.test", "A test is asked for by a person.")
    row = usable_server(actor, server_id)
    tool = _callable(row, tool_id, arguments or {}) if tool_id else None
    try:
        with transaction.atomic():
            test = ServerTest.objects.create(
                server=row,
                asked_by_id=actor.user_id,
                tool=tool,
                tool_name=tool.qualified_name if tool else "",
                arguments=dict(arguments or {}) if tool else {},
                created_at=now(),
            )
            record(
                event=Event.SERVER_TESTED,
                actor=actor,
                subject=server_subject(row),
                payload=_told(tool, test.arguments),
            )
            announce_servers(row)
            run_server_test.wake(str(test.pk))
    except IntegrityError as error:
        if "server_test_live_once" not in str(error):
            raise
        under_way = ServerTest.objects.filter(server=row, state__in=LIVE_SERVER_TEST_STATES).first()
        if under_way is None:
            raise
        return under_way
    return test


def run_test(test_id: uuid.UUID) -> None:
    """Claim and carry out one test; nothing when another worker has it, or as many run as may."""
    with transaction.atomic():
        rows = ServerTest.objects.select_for_update(of=("self",), skip_locked=True)
        test = rows.filter(pk=test_id, state=ServerTestState.WAITING).select_related("server__credential").first()
        if test is None or ServerTest.objects.filter(state=ServerTestState.RUNNING).count() >= TESTS_AT_ONCE:
            return
        test.state, test.started_at = ServerTestState.RUNNING, now()
        test.save(update_fields=["state", "started_at"])
        announce_servers(test.server)
    try:
        passed = _carry_out(test)
    except Exception:
        log.exception("server.test_failed", test=str(test_id))
        _step(test, "Stopped", 0, "Remit failed; the log says why.", passed=False)
        passed = False
    test.state = ServerTestState.PASSED if passed else ServerTestState.FAILED
    test.ended_at = now()
    with transaction.atomic():
        test.save(update_fields=["state", "ended_at", "answer"])
        announce_servers(test.server)


def sweep_tests() -> None:
    """Wake what waits, end what was cut off."""
    from agents.tasks import run_server_test

    moment = now()
    gone = Q(state=ServerTestState.RUNNING, started_at__lt=moment - CUT_OFF)
    gone |= Q(state=ServerTestState.WAITING, created_at__lt=moment - 5 * CUT_OFF)
    for test in ServerTest.objects.filter(gone).select_related("server"):
        steps = [*test.steps, _step_of("Stopped", 0, "It was cut off. Test it again.", passed=False)]
        with transaction.atomic():
            ended = ServerTest.objects.filter(pk=test.pk, state=test.state).update(
                state=ServerTestState.FAILED, ended_at=moment, steps=steps
            )
            if ended:
                announce_servers(test.server)
    waiting = ServerTest.objects.filter(state=ServerTestState.WAITING).order_by("created_at")
    for pk in waiting.values_list("pk", flat=True)[:TESTS_AT_ONCE]:
        run_server_test.wake(str(pk))


def forget_old_tests() -> int:
    removed, _ = ServerTest.objects.filter(ended_at__lt=now() - TESTS_KEPT).delete()
    return removed


def _told(tool: McpTool | None, arguments: Mapping[str, Any]) -> dict[str, str]:
    if tool is None:
        return {"how": "listing its tools"}
    return {"how": f"calling {tool.qualified_name}", "tool": tool.qualified_name, "arguments": digest(arguments)}


def _callable(row: McpServer, tool_id: uuid.UUID, arguments: Mapping[str, Any]) -> McpTool:
    tool = McpTool.objects.filter(server=row, pk=tool_id).first()
    if tool is None:
        raise not_found("tool")
    if not may_be_tried(tool):
        problem = FieldError("/tool", "an approved tool that only reads, as people and its own definition say")
        raise invalid("server.test", "Nothing was called.", problem)
    if len(json.dumps(arguments)) > ARGUMENT_CHARACTERS:
        problem = FieldError("/arguments", f"at most {ARGUMENT_CHARACTERS} characters")
        raise invalid("server.test", "Nothing was called.", problem)
    errors = argument_errors(tool.definition, arguments)
    if errors:
        problem = FieldError("/arguments", str(errors[0]))
        raise invalid("server.test", "Nothing was called.", problem)
    return tool


def _carry_out(test: ServerTest) -> bool:
    """The steps of one test, each written down when it is done. The database is never used from inside the loop."""
    from agents.catalogue.sample_folders import sample_folder

    try:
        actor = _still_asked_by(test)
    except RemitError as refused:
        _step(test, "Connect", 0, f"Not connected: {refused.message}", passed=False)
        return False
    address = address_of(test.server)
    with sample_folder(address) as context, asyncio.Runner() as runner:
        started = time.monotonic()
        try:
            session = runner.run(open_session(address, context, LIMITS))
        except ServerFault as fault:
            note_fault(server=address, fault=fault)
            note_check(address.id, failed=True)
            _step(test, "Connect", _since(started), fault.message, passed=False)
            return False
        try:
            spent = _since(started)
            _step(test, "Connect", spent, f"It speaks MCP {session.protocol_version}.")
            note_check(address.id, failed=False)
            refreshed = record_listing(
                actor=actor,
                server=address,
                listing=session.listing or Listing(session.protocol_version),
                milliseconds=spent,
            )
            _step(test, "Read its tools", 0, listing_words(session.listing, refreshed))
            return test.tool_id is None or _call(runner, test, session)
        finally:
            runner.run(session.close())


def _still_asked_by(test: ServerTest) -> Principal:
    """Who asked for it, as long as they could ask for it now. Raises as `ask_for_test`."""
    actor = principal_of_user(user=test.asked_by, organisation_id=test.server.organisation_id)
    if actor is None:
        raise not_found("server")
    usable_server(actor, test.server_id)
    return actor


def _call(runner: asyncio.Runner, test: ServerTest, session: UpstreamSession) -> bool:
    name = f"Call {test.tool_name}"
    try:
        _still_asked_by(test)
    except RemitError as refused:
        _step(test, name, 0, f"Not called: {refused.message}", passed=False)
        return False
    tool = McpTool.objects.filter(pk__in=[test.tool_id]).first()
    offered = {entry.name: entry.sha256 for entry in (session.listing.tools if session.listing else ())}
    if tool is None or not may_be_tried(tool):
        _step(test, name, 0, "Not called: it is no longer an approved tool that only reads.", passed=False)
        return False
    if offered.get(tool.name) != tool.definition_sha256:
        _step(test, name, 0, "Not called: its definition is no longer the approved one.", passed=False)
        return False
    started = time.monotonic()
    try:
        raw = runner.run(session.call(tool.name, test.arguments, seconds=LIMITS.call_seconds))
    except Refused as answer:
        _step(test, name, _since(started), f"The server refused the call: {answer.message}"[:300], passed=False)
        return False
    except ServerFault as fault:
        _step(test, name, _since(started), ("" if isinstance(fault, NotSent) else "No answer: ") + fault.message, False)
        return False
    test.answer = _answer_text(raw)
    failed = raw.get("isError") is True
    _step(test, name, _since(started), "The tool says that it failed." if failed else "It answered.", passed=not failed)
    return not failed


def listing_words(listing: Listing | None, refreshed: Refreshed) -> str:
    offered = len(listing.tools) if listing else 0
    parts = [f"{offered} {'tool' if offered == 1 else 'tools'}"]
    if refreshed.added:
        parts.append(f"{len(refreshed.added)} new")
    if refreshed.quarantined:
        parts.append(f"changed and quarantined: {', '.join(refreshed.quarantined)[:120]}")
    if refreshed.removed:
        parts.append(f"{len(refreshed.removed)} no longer offered")
    if refreshed.rejected:
        parts.append(f"{len(refreshed.rejected)} left out")
    return f"{'; '.join(parts)}." if len(parts) > 1 else f"{parts[0]}; nothing has changed."


def _answer_text(raw: Mapping[str, Any]) -> str:
    blocks = raw.get("content")
    texts = [
        block["text"]
        for block in (blocks if isinstance(blocks, list) else ())
        if isinstance(block, dict) and isinstance(block.get("text"), str)
    ]
    text = "\n".join(texts) or json.dumps(raw, ensure_ascii=False)[: ANSWER_CHARACTERS * 2]
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()[:ANSWER_CHARACTERS]


def _step(test: ServerTest, step: str, milliseconds: int, said: str, passed: bool = True) -> None:
    test.steps = [*test.steps, _step_of(step, milliseconds, said, passed=passed)]
    with transaction.atomic():
        test.save(update_fields=["steps", "answer"])
        announce_servers(test.server)


def _step_of(step: str, milliseconds: int, said: str, *, passed: bool) -> dict[str, Any]:
    return {"step": step[:200], "milliseconds": milliseconds, "said": said[:300].replace("\0", ""), "passed": passed}


def _since(started: float) -> int:
    return round((time.monotonic() - started) * 1000)


# The regular look ---------------------------------------------------------------------------------------------------


def check_due_servers() -> int:
    """Look at the servers whose time has come, a few at once, in one thread. How many were."""
    addresses = [address_of(row) for row in _claim_due()]
    if not addresses:
        return 0
    for address, (result, milliseconds) in zip(addresses, asyncio.run(_look_at(addresses)), strict=True):
        failed = isinstance(result, ServerFault)
        try:
            if isinstance(result, ServerFault):
                note_fault(server=address, fault=result)
            else:
                record_listing(actor=listing_actor(address), server=address, listing=result, milliseconds=milliseconds)
            note_check(address.id, failed=failed)
        except RemitError as error:
            log.warning("server.check_not_noted", server=address.slug, code=error.code)
    return len(addresses)


def _claim_due() -> list[McpServer]:
    """Pushed on before they are looked at: a worker that dies costs one interval."""
    with transaction.atomic():
        rows = McpServer.objects.select_for_update(of=("self",), skip_locked=True).select_related("credential")
        due = list(rows.filter(next_check_at__lte=now()).order_by("next_check_at")[:AT_ONCE])
        McpServer.objects.filter(pk__in=[row.pk for row in due]).update(next_check_at=now() + CLAIM)
    return due


async def _look_at(addresses: list[ServerAddress]) -> list[tuple[Listing | ServerFault, int]]:
    return await asyncio.gather(*(_listing_of(address) for address in addresses))


async def _listing_of(address: ServerAddress) -> tuple[Listing | ServerFault, int]:
    started = time.monotonic()
    try:
        session = await open_session(address, NO_RUN, LIMITS)
    except ServerFault as fault:
        return fault, _since(started)
    except Exception as error:
        log.exception("server.check_failed", server=address.slug)
        return ServerFault("upstream.internal", f"Remit failed: {type(error).__name__}"), _since(started)
    spent = _since(started)
    await session.close()
    return session.listing or Listing(session.protocol_version), spent
