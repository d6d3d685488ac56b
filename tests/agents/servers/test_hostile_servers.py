"""What servers do to a permitted call: every way has a named end, and no answer reaches a call it was not for."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from agents.servers import sessions
from agents.servers.types import UpstreamKind
from controlplane.common.canonical import canonical_bytes, digest


def text_of(result: Any) -> str:
    return str(result.content["content"][0]["text"])


@pytest.mark.parametrize("generation", ["2024-11-05", "2025-11-25", "2026-07-28"])
async def test_both_protocol_generations_are_spoken(make_bench: Callable[..., Awaitable[Any]], generation: str) -> None:
    bench = await make_bench(generation)
    result = await bench.call("echo", b'{"a":1}')
    assert result.kind is UpstreamKind.RESULT
    assert text_of(result) == '{"a": 1}'
    assert bench.listings[0].protocol_version == generation


@pytest.mark.parametrize("generation", ["2025-11-25", "2026-07-28"])
async def test_a_program_that_starts_slowly_is_met_in_the_generation_it_speaks(
    make_bench: Callable[..., Awaitable[Any]], monkeypatch: pytest.MonkeyPatch, generation: str
) -> None:
    monkeypatch.setattr(sessions, "DISCOVER_SECONDS", 0.2)
    bench = await make_bench(generation, late_seconds=1)
    assert text_of(await bench.call("echo", b'{"a":1}')) == '{"a": 1}'
    assert bench.listings[0].protocol_version == generation
    assert len(bench.processes) == 1


async def test_a_stock_server_that_starts_slowly_is_met_at_the_first_attempt(
    make_bench: Callable[..., Awaitable[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "DISCOVER_SECONDS", 0.2)
    bench = await make_bench(program=Path(__file__).with_name("stock_stdio.py"), late_seconds=1)
    assert text_of(await bench.call("echo", b'{"a":1}')) == '{"a": 1}'
    assert bench.listings[0].protocol_version == "2026-07-28"
    assert len(bench.processes) == 1


async def test_a_server_known_to_be_older_is_not_asked_for_discovery_first(
    make_bench: Callable[..., Awaitable[Any]],
) -> None:
    bench = await make_bench("2025-11-25", protocol_version="2025-11-25")
    assert (await bench.call("echo")).kind is UpstreamKind.RESULT


async def test_the_server_receives_exactly_the_value_that_was_judged(bench: Any) -> None:
    value = {"amount": 1e-7, "list": [1, 2.5, None, True, "naïve \u2028 text"], "nested": {"b": {}, "a": []}}
    result = await bench.call("echo", canonical_bytes(value))
    assert digest(json.loads(text_of(result))) == digest(value)
    assert result.content["structuredContent"] == {"got": value}
    assert result.result_sha256.startswith("sha256:")


async def test_a_server_that_hangs_leaves_the_outcome_unknown_and_gets_no_more_calls(bench: Any) -> None:
    result = await bench.call("hang")
    assert (result.kind, result.reason_code) == (UpstreamKind.UNKNOWN, "upstream.timeout")
    assert (await bench.call("echo")).kind is UpstreamKind.RESULT
    assert len(bench.processes) == 2


async def test_a_read_only_call_without_an_answer_is_a_failure(bench: Any) -> None:
    result = await bench.call("die", read_only=True)
    assert (result.kind, result.reason_code) == (UpstreamKind.ERROR, "upstream.died")


@pytest.mark.parametrize("tool", ["flood", "flood_lines"])
async def test_a_flood_is_not_read_to_its_end(bench: Any, tool: str) -> None:
    result = await bench.call(tool)
    assert result.kind is UpstreamKind.UNKNOWN
    assert result.reason_code == "upstream.result_too_large"
    assert (await bench.call("echo")).kind is UpstreamKind.RESULT


async def test_a_server_that_dies_in_the_middle_of_a_call_leaves_it_unknown(bench: Any) -> None:
    result = await bench.call("die")
    assert (result.kind, result.reason_code) == (UpstreamKind.UNKNOWN, "upstream.died")
    assert result.sent
    assert bench.calls_received().count("die") == 1


@pytest.mark.parametrize("tool", ["garbage", "not_rpc"])
async def test_garbage_closes_the_session(bench: Any, tool: str) -> None:
    result = await bench.call(tool)
    assert (result.kind, result.reason_code) == (UpstreamKind.UNKNOWN, "upstream.garbage")
    await bench.call("echo")
    assert len(bench.processes) == 2


@pytest.mark.parametrize("tool", ["wrong_id", "text_id", "float_id"])
async def test_an_answer_with_another_id_is_not_taken(bench: Any, tool: str) -> None:
    assert text_of(await bench.call(tool)) == "for you"


async def test_an_answer_given_twice_counts_once(bench: Any) -> None:
    assert text_of(await bench.call("twice")) == "first"
    assert text_of(await bench.call("echo", b'{"x":2}')) == '{"x": 2}'


async def test_an_answer_prepared_for_the_next_call_is_not_delivered_to_it(bench: Any) -> None:
    await bench.call("early")
    assert text_of(await bench.call("echo", b'{"mine":true}')) == '{"mine": true}'


async def test_calls_at_the_same_time_each_get_their_own_answer(bench: Any) -> None:
    results = await asyncio.gather(*(bench.call("echo", b'{"n":%d}' % n) for n in range(20)))
    assert [text_of(result) for result in results] == [f'{{"n": {n}}}' for n in range(20)]
    assert len(bench.processes) == 1


async def test_a_protocol_error_says_for_certain_that_the_call_was_refused(bench: Any) -> None:
    result = await bench.call("error")
    assert (result.kind, result.reason_code) == (UpstreamKind.ERROR, "upstream.refused")
    assert "no such invoice" in result.message


async def test_a_tools_own_error_is_its_result(bench: Any) -> None:
    result = await bench.call("tool_error")
    assert result.kind is UpstreamKind.RESULT
    assert result.content["isError"] is True


@pytest.mark.parametrize("tool", ["bad_shape", "deep", "huge_number"])
async def test_a_result_nobody_can_use_is_not_passed_on(bench: Any, tool: str) -> None:
    result = await bench.call(tool)
    assert (result.kind, result.reason_code) == (UpstreamKind.UNKNOWN, "upstream.garbage")
    assert not result.content


async def test_large_numbers_of_a_server_are_passed_on_as_they_are(bench: Any) -> None:
    result = await bench.call("snowflake")
    assert result.content["structuredContent"] == {"id": 2**60 + 1}


async def test_a_server_that_asks_for_a_model_is_told_no(bench: Any) -> None:
    assert "does not serve requests" in text_of(await bench.call("asks_back"))


async def test_a_call_that_asks_for_input_has_failed(bench: Any) -> None:
    result = await bench.call("input_required")
    assert (result.kind, result.reason_code) == (UpstreamKind.ERROR, "upstream.input_required")


async def test_a_tool_that_changes_after_its_listing_is_not_called_any_more(bench: Any) -> None:
    approved = bench.tool("changes")
    assert (await bench.call("changes")).kind is UpstreamKind.RESULT
    result = await bench.pool.call_upstream(bench.context, approved, b"{}")
    assert (result.kind, result.reason_code, result.sent) == (UpstreamKind.ERROR, "tool.definition_changed", False)
    assert bench.calls_received().count("changes") == 1
    assert len(bench.listings) == 2


async def test_a_tool_whose_pinned_definition_differs_is_never_sent(bench: Any) -> None:
    from dataclasses import replace

    stale = replace(bench.tool("echo"), definition_sha256="sha256:" + "0" * 64)
    before = len(bench.calls_received())
    result = await bench.pool.call_upstream(bench.context, stale, b"{}")
    assert (result.reason_code, result.sent) == ("tool.definition_changed", False)
    assert len(bench.calls_received()) == before


async def test_sessions_of_a_run_that_ended_are_closed(bench: Any) -> None:
    bench.ended.add(bench.context.run_id)
    await bench.pool._tidy()
    async with asyncio.timeout(10):
        await bench.processes[0].wait()


async def test_a_program_that_does_not_start_is_tried_again_with_growing_pauses(
    bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bench.pool.close_run(bench.context.run_id)
    tried: list[float] = []

    async def broken(*_: Any) -> Any:
        from agents.servers.types import ServerFault

        tried.append(time.monotonic())
        raise ServerFault("upstream.not_started", "It isn't there.")

    monkeypatch.setattr(bench.pool, "_open", broken)
    first = await bench.call("echo")
    second = await bench.call("echo")
    third = await bench.call("echo")
    assert (first.reason_code, first.sent) == ("upstream.not_started", False)
    assert (second.reason_code, second.sent) == ("upstream.not_started", False)  # the first pause was waited out
    assert tried[1] - tried[0] > 0.9
    assert (third.reason_code, third.sent) == ("upstream.backing_off", False)
    assert re.fullmatch(r"It failed before and is tried again in [12]\.\d seconds\. It isn't there\.", third.message)
    assert len(tried) == 2


async def test_a_call_that_follows_a_failed_start_at_once_goes_through(
    bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bench.pool.close_run(bench.context.run_id)
    argv = bench._argv
    monkeypatch.setattr(bench, "_argv", (argv[0] + ".gone", *argv[1:]))
    failed = await bench.call("echo")
    assert (failed.reason_code, failed.sent) == ("upstream.died", False)
    monkeypatch.setattr(bench, "_argv", argv)
    assert text_of(await bench.call("echo", b'{"a":1}')) == '{"a": 1}'


async def test_a_call_that_is_given_up_tells_the_server_and_leaves_no_trace(bench: Any) -> None:
    waiting = asyncio.create_task(bench.call("slow", b'{"seconds":0.5}'))
    await asyncio.sleep(0.1)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert text_of(await bench.call("echo", b'{"after":1}')) == '{"after": 1}'
