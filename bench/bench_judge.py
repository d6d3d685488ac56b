"""What the judge's stage costs beside the model's own time, and what it costs where no judge is connected.

`python bench/bench_judge.py` prints one JSON object. The model is the demo's server of word rules, in a process of its
own; the stage (a hold on the judge's budget, the call, reading and checking the answer, settling) and a bare call with
the same body by the same client take turns. BENCH_CALLS sets how many of each.
"""

from __future__ import annotations

import json
import os
import socket
import statistics
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.installation import missions, valkey
from bench.server import ROOT, durable_server

CALLS = int(os.environ.get("BENCH_CALLS", "400"))
WARM_UP = 30
BRIEF = {
    "mission": {"goal": "Every overdue invoice has a reminder.", "criteria": ["Reminders are written"]},
    "remit": {"may": ["Use books__write_reminder"], "budget": "5 USD", "importance": "normal"},
    "action": {"tool": "books__write_reminder", "arguments": {"invoice": "INV-0001", "text": "Please pay. " * 20}},
    "untrusted": {"tool_description": "Writes a reminder into the outbox. " * 10},
}


def main() -> dict[str, Any]:
    with durable_server(), valkey(), _model() as url:
        os.environ.update(JUDGE_URL=url, JUDGE_MODEL="demo-word-rules", JUDGE_DAILY_TOKENS=str(10**9))
        missions(1)
        bare, stage = _in_turns(_organisation())
        off = _without()
    beside = statistics.median(stage) - statistics.median(bare)
    return {
        "bench": "judge",
        "calls": CALLS,
        "load_average": os.getloadavg()[0],
        "milliseconds": {
            "model_p50": round(statistics.median(bare), 2),
            "stage_p50": round(statistics.median(stage), 2),
            "stage_p99": round(sorted(stage)[int(len(stage) * 0.99)], 2),
        },
        "ratios": {"beside_the_model_milliseconds": round(beside, 2), "off_microseconds": round(off, 2)},
        "goals": {"beside_the_model_milliseconds": "at most 5", "off_microseconds": "0, to the precision of the rest"},
    }


def _in_turns(organisation_id: uuid.UUID) -> tuple[list[float], list[float]]:
    from governance import judging
    from governance.judging import protocol
    from governance.judging.endpoints import endpoints

    endpoint = endpoints()[0]
    bare: list[float] = []
    stage: list[float] = []
    for number in range(CALLS + WARM_UP):
        since = time.perf_counter()
        endpoint.ask(protocol.request_body(model=endpoint.model, document=protocol.document_of(BRIEF)), seconds=10)
        between = time.perf_counter()
        opinion = judging.consult(organisation_id=organisation_id, brief=BRIEF, policies=["demo"], irreversible=False)
        until = time.perf_counter()
        if opinion.finding is not None:
            raise RuntimeError(opinion.finding.message)
        if number >= WARM_UP:
            bare.append((between - since) * 1000)
            stage.append((until - between) * 1000)
    return bare, stage


def _without() -> float:
    """Microseconds the stage takes for an action that no rule wants judged."""
    from governance import gate

    ladder = gate.Ladder()
    prepared: Any = None  # not looked at
    times = 100_000
    since = time.perf_counter()
    for _ in range(times):
        gate.consult(ladder, prepared=prepared, organisation_id=uuid.UUID(int=0))
    return (time.perf_counter() - since) * 1e6 / times


def _organisation() -> uuid.UUID:
    from controlplane.tenancy.models import Organisation

    return Organisation.objects.get().pk


@contextmanager
def _model() -> Iterator[str]:
    listener = socket.create_server(("127.0.0.1", 0))
    descriptor = listener.fileno()
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "agents" / "samples" / "demo_judge.py"), str(descriptor)], pass_fds=[descriptor]
    )
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
    finally:
        process.terminate()
        process.wait(10)
        listener.close()


if __name__ == "__main__":
    print(json.dumps(main()))
