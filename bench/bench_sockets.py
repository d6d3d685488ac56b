"""A thousand open pages on one web process: hints a second that reach them, how late, and what slow readers cost.

`python bench/bench_sockets.py` prints one JSON object. BENCH_SOCKETS, BENCH_SOCKETS_SECONDS and BENCH_SOCKETS_RATE
(hints offered a second, all sockets together) change the effort. Every socket shows one of 64 missions; the readers are
one process on another core. A hint's version is the microsecond it was published, so its age is read on arrival. Then
Valkey drops the subscription, and all come back; last come some who never read, until they are cut off.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import sys
import time
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.installation import missions, processor_seconds, valkey, web
from bench.server import durable_server

SOCKETS = int(os.environ.get("BENCH_SOCKETS", "1000"))
SLOW = 10
SECONDS = float(os.environ.get("BENCH_SOCKETS_SECONDS", "10"))
RATE = int(os.environ.get("BENCH_SOCKETS_RATE", "6000"))
MISSIONS = 64
PARTS = ("timeline", "budget", "state", "questions")  # different hints of one mission; the same one again is one hint


def main() -> dict[str, Any]:
    with durable_server(), valkey():
        missions(MISSIONS)
        topics = _topics()
        token = _person_token()
        cores = sorted(os.sched_getaffinity(0))
        with web(core=cores[0]) as (port, process):
            os.sched_setaffinity(0, cores[1:] or cores)
            idle = _memory(process)
            ours, theirs = get_context("spawn").Pipe()
            readers = get_context("spawn").Process(target=_readers, args=(port, token, topics, theirs))
            readers.start()
            opened_in = ours.recv()
            opened = _memory(process)
            before = processor_seconds(process)
            published = _publish(topics, per_second=round(RATE * MISSIONS / SOCKETS))
            used = processor_seconds(process) - before
            ours.send("stop")
            ages, recovered = ours.recv()
            readers.join(30)
            dropped, cut_off_in, peak = _refuse_to_read(process, port, token, topics)
    ages.sort()
    rate = len(ages) / SECONDS
    return {
        "bench": "sockets",
        "sockets": SOCKETS,
        "seconds": SECONDS,
        "load_average": os.getloadavg()[0],
        "published_per_second": round(published / SECONDS),
        "seconds_to_open_all": round(opened_in, 1),
        "memory_mib": {"without_sockets": idle, "with_them": opened, "with_readers_that_never_read": peak},
        "processor_share": round(used / SECONDS, 2),
        "milliseconds": {"p50": _at(ages, 0.5), "p99": _at(ages, 0.99)},
        "seconds_until_all_are_back_after_valkey_dropped_them": recovered,
        "seconds_until_slow_readers_are_cut_off": cut_off_in,
        "ratios": {
            "hints_per_second": round(rate),
            "p99_milliseconds": _at(ages, 0.99),
            "slow_readers_dropped": dropped,
        },
        "goals": {"hints_per_second": 5000, "p99_milliseconds": 500, "slow_readers_dropped": SLOW},
    }


def _at(ordered: list[float], share: float) -> float:
    return round(ordered[int(len(ordered) * share)], 1) if ordered else float("nan")


def _topics() -> list[str]:
    from agents.models import Mission

    return [f"mission:{key}" for key in Mission.objects.order_by("id").values_list("pk", flat=True)]


def _person_token() -> str:
    from datetime import timedelta

    from django.db import connections

    from controlplane.common.clock import now
    from controlplane.tenancy import tokens
    from controlplane.tenancy.models import TokenKind, User

    nadia = User.objects.get(email="nadia@northwind.example")
    _, text = tokens.issue(
        kind=TokenKind.PERSON,
        organisation_id=nadia.memberships.first().organisation_id,
        name="Bench",
        expires_at=now() + timedelta(hours=1),
        user_id=nadia.pk,
    )
    connections.close_all()
    return text


def _publish(topics: list[str], *, per_second: int, seconds: float = SECONDS) -> int:
    """In batches, as the product's sender makes them. Returns how many."""
    import msgspec
    import redis

    from controlplane.live.hub import CHANNEL, Hint

    client = redis.Redis.from_url(os.environ["REDIS_URL"])
    step = 0.02
    each = max(1, round(per_second * step))
    count = 0
    since = time.perf_counter()
    for number in range(round(seconds / step)):
        moment = time.time_ns() // 1000
        hints = [
            Hint(topics[(count + n) % len(topics)], PARTS[(count + n) // len(topics) % len(PARTS)], moment)
            for n in range(each)
        ]
        client.publish(CHANNEL, msgspec.json.encode(hints))
        count += each
        time.sleep(max(0.0, since + (number + 1) * step - time.perf_counter()))
    return count


def _refuse_to_read(process: int, port: int, token: str, topics: list[str]) -> tuple[int, float, int]:
    """(how many of SLOW were cut off, after how many seconds, the process's memory meanwhile in MiB)."""
    links = [_deaf(port, token, topics) for _ in range(SLOW)]
    since, peak = time.perf_counter(), 0
    while (dropped := SLOW - _held(port, links)) < SLOW and time.perf_counter() - since < 90:
        _publish(topics, per_second=12_800, seconds=0.5)
        peak = max(peak, _memory(process))
    for link in links:
        link.close()
    return dropped, round(time.perf_counter() - since, 1), peak


def _deaf(port: int, token: str, topics: list[str]) -> socket.socket:
    """Subscribes to 50 missions by hand and never reads again; the smallest buffer makes that felt soon."""
    link = socket.socket()
    link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    link.connect(("127.0.0.1", port))
    link.sendall(
        f"GET /live HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n"
        f"Authorization: Bearer {token}\r\n\r\n".encode()
    )
    link.recv(4096)
    body = json.dumps({"subscribe": topics[:50]}).encode()
    link.sendall(bytes([0x81, 0x80 | 126]) + len(body).to_bytes(2, "big") + bytes(4) + body)  # one masked text frame
    return link


def _held(port: int, links: list[socket.socket]) -> int:
    """How many of these connections the server's side still has, with all that waits in its buffers."""
    ours = {link.getsockname()[1] for link in links}
    rows = [row.split() for row in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    ends = [(int(row[1].split(":")[1], 16), int(row[2].split(":")[1], 16)) for row in rows]
    return sum(local == port and remote in ours for local, remote in ends)


def _memory(process: int) -> int:
    """Resident MiB."""
    fields = Path(f"/proc/{process}/status").read_text().split("VmRSS:")[1].split()
    return round(int(fields[0]) / 1024)


# The readers, in a process of their own -------------------------------------------------------------------------------


def _readers(port: int, token: str, topics: list[str], pipe: Connection) -> None:
    import uvloop

    uvloop.run(_read_all(port, token, topics, pipe))


async def _read_all(port: int, token: str, topics: list[str], pipe: Connection) -> None:
    ages: list[float] = []
    since = time.perf_counter()
    waiting = asyncio.Semaphore(20)
    ready: list[asyncio.Future[None]] = [asyncio.get_running_loop().create_future() for _ in range(SOCKETS)]
    tasks = [
        asyncio.create_task(_one(port, token, topics[number % len(topics)], ages, ready[number], waiting))
        for number in range(SOCKETS)
    ]
    await asyncio.gather(*ready)
    pipe.send(time.perf_counter() - since)
    await asyncio.to_thread(pipe.recv)
    counted = list(ages)
    pipe.send((counted, await _come_back(port, token, topics, tasks)))


async def _one(
    port: int, token: str, topic: str, ages: list[float], ready: asyncio.Future[None], waiting: asyncio.Semaphore
) -> None:
    from websockets.asyncio.client import connect
    from websockets.exceptions import ConnectionClosed

    headers = {"Authorization": f"Bearer {token}"}
    async with waiting:
        link = await connect(
            f"ws://127.0.0.1:{port}/live", additional_headers=headers, compression=None, open_timeout=60, proxy=None
        )
        await link.send(json.dumps({"subscribe": [topic]}))
        if "subscribed" not in json.loads(await link.recv()):
            raise RuntimeError("not subscribed")
    if not ready.done():
        ready.set_result(None)
    with contextlib.suppress(ConnectionClosed):  # 1013: come back
        async for message in link:
            ages.append(time.time_ns() / 1e6 - json.loads(message)["version"] / 1e3)


async def _come_back(port: int, token: str, topics: list[str], tasks: list[asyncio.Task[None]]) -> float:
    """Valkey drops the process's subscription: every page is told to come back, and does as `parts.js` would."""
    import redis

    client = redis.Redis.from_url(os.environ["REDIS_URL"])
    since = time.perf_counter()
    client.client_kill_filter(_type="pubsub")
    await asyncio.wait(tasks, timeout=60)
    ready = [asyncio.get_running_loop().create_future() for _ in tasks]
    waiting = asyncio.Semaphore(20)
    again = [
        asyncio.create_task(_one(port, token, topics[number % len(topics)], [], ready[number], waiting))
        for number in range(len(tasks))
    ]
    await asyncio.wait_for(asyncio.gather(*ready), 120)
    taken = time.perf_counter() - since
    for task in again:
        task.cancel()
    return round(taken, 1)


if __name__ == "__main__":
    print(json.dumps(main()))
