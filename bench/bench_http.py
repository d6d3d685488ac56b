"""The gate over HTTP: decisions a second of one web worker pinned to one core, its clients on another.

`python bench/bench_http.py` prints one JSON object. BENCH_HTTP_SECONDS and BENCH_HTTP_CLIENTS change the effort;
BENCH_PROFILE=<file> writes a profile of the worker's request threads.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import socket
import statistics
import sys
import time
import uuid
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.installation import TOOL, missions, processor_seconds, valkey, web
from bench.server import ROUNDS, durable_server

SECONDS = float(os.environ.get("BENCH_HTTP_SECONDS", "6"))
CLIENTS = int(os.environ.get("BENCH_HTTP_CLIENTS", "10"))
PROCESSES = 2
MISSIONS = 64  # a run may make 200 proposals in ten seconds
BUSY = -1.0


def main() -> dict[str, Any]:
    with durable_server(), valkey():
        tokens = missions(MISSIONS)
        cores = sorted(os.sched_getaffinity(0))
        with web(core=cores[0]) as (port, process):
            os.sched_setaffinity(0, cores[1:] or cores)
            _load(port, tokens, seconds=3.0)  # connections, plans, compiled policies
            before = processor_seconds(process)
            rounds = [_load(port, tokens, seconds=SECONDS) for _ in range(ROUNDS)]
            used = processor_seconds(process) - before
    busy = sum(taken.count(BUSY) for taken in rounds)
    rounds = [[value for value in taken if value != BUSY] for taken in rounds]
    rate = statistics.median(len(taken) / SECONDS for taken in rounds)
    ordered = [sorted(taken) for taken in rounds]
    p50, p99 = (statistics.median(row[int(len(row) * share)] for row in ordered) for share in (0.5, 0.99))
    return {
        "bench": "http",
        "clients": CLIENTS,
        "seconds": SECONDS,
        "rounds": ROUNDS,
        "cores": len(cores),
        "load_average": os.getloadavg()[0],
        "answered_busy": busy,
        # What the machine's other work can't change: the worker's own processor time, and the rate that it would allow.
        "processor_milliseconds_per_decision": round(used * 1000 / sum(len(taken) for taken in rounds), 2),
        "milliseconds": {"p50": round(p50, 1), "p99": round(p99, 1)},
        "ratios": {"decisions_per_second": round(rate), "p99_milliseconds": round(p99, 1)},
        "goals": {"decisions_per_second": 350, "p99_milliseconds": 40},
    }


# The load -------------------------------------------------------------------------------------------------------------


def _load(port: int, tokens: list[str], *, seconds: float) -> list[float]:
    """Milliseconds of every decision, of CLIENTS connections kept alive in PROCESSES processes."""
    context = multiprocessing.get_context("spawn")
    shares = [tokens[number::PROCESSES] for number in range(PROCESSES)]
    pipes = [context.Pipe(duplex=False) for _ in shares]
    processes = []
    for number, (_, sender) in enumerate(pipes):
        clients = len(range(number, CLIENTS, PROCESSES))
        process = context.Process(target=_clients, args=(port, shares[number], clients, seconds, sender))
        process.start()
        processes.append(process)
    taken: list[float] = []
    for receiver, _ in pipes:
        answer = receiver.recv()
        if isinstance(answer, str):
            raise RuntimeError(answer)
        taken += answer
    for process in processes:
        process.join(10)
    return taken


def _clients(port: int, tokens: list[str], clients: int, seconds: float, results: Connection) -> None:
    import threading

    barrier = threading.Barrier(clients)
    taken: list[float] = []
    failed: list[str] = []

    def work(mine: list[str]) -> None:
        try:
            taken.extend(_one_client(port, mine, seconds, barrier))
        except Exception as error:
            failed.append(f"{type(error).__name__}: {error}")
            barrier.abort()

    threads = [threading.Thread(target=work, args=(tokens[n::clients],)) for n in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    results.send(failed[0] if failed else taken)


def _one_client(port: int, tokens: list[str], seconds: float, barrier: Any) -> list[float]:
    """Raw requests on one connection: what is measured is the server, not a client library."""
    taken: list[float] = []
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        count = 0
        barrier.wait(20)
        until = time.perf_counter() + seconds
        while time.perf_counter() < until:
            token = tokens[count % len(tokens)]
            arguments = {"invoice": f"INV-{count:04d}", "amount": "40.00"}
            body = json.dumps({"kind": "tool.call", "tool": TOOL, "arguments": arguments}).encode()
            head = (
                f"POST /api/v1/actions HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {token}\r\n"
                f"content-type: application/json\r\nidempotency-key: {uuid.uuid4().hex}\r\n"
                f"content-length: {len(body)}\r\n\r\n"
            ).encode()
            since = time.perf_counter()
            connection.sendall(head + body)
            answer = _answer(connection)
            count += 1
            if b'"code": "ledger.busy"' in answer:  # counts as not decided, and is named in the result
                taken.append(BUSY)
                continue
            taken.append((time.perf_counter() - since) * 1000)
            if not answer.startswith(b"HTTP/1.1 201") or b'"verdict": "allow"' not in answer:
                raise RuntimeError(answer[:600].decode(errors="replace"))
    return taken


def _answer(connection: socket.socket) -> bytes:
    answer = connection.recv(65536)
    head, _, body = answer.partition(b"\r\n\r\n")
    length = int(head.lower().split(b"content-length: ", 1)[1].split(b"\r\n", 1)[0])
    while len(body) < length:
        piece = connection.recv(65536)
        answer, body = answer + piece, body + piece
    return answer


if __name__ == "__main__":
    print(json.dumps(main()))
