"""A durable PostgreSQL of its own for a bench: fsync on, in a temporary folder (TMPDIR), gone afterwards."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[1:1] = [folder for folder in (str(ROOT), str(ROOT / "platform")) if folder not in sys.path]

CLIENTS = int(os.environ.get("BENCH_CLIENTS", "8"))
SECONDS = int(os.environ.get("BENCH_SECONDS", "5"))
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "3"))
SCALE = int(os.environ.get("BENCH_SCALE", "50"))
_TPS = re.compile(r"^tps = ([0-9.]+)", re.MULTILINE)
_LATENCY = re.compile(r"^latency average = ([0-9.]+)", re.MULTILINE)


@dataclass(frozen=True)
class Server:
    """`environment` is what Django needs; `folder` is private to this bench."""

    folder: Path
    sockets: Path
    url: str

    def pgbench(self, *arguments: str) -> str:
        from controlplane.embedded.postgres import DATABASE, USER, binary_folder

        command = [str(binary_folder() / "pgbench"), "-h", str(self.sockets), "-U", USER, *arguments, DATABASE]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError(f"pgbench failed: {done.stderr[-2000:]}")
        return done.stdout

    def rate(self, *, script: str | None = None, seconds: int = SECONDS, clients: int = CLIENTS) -> float:
        """Transactions a second of one run: the built-in TPC-B, or a script of ours."""
        options = ["-n", "-M", "prepared", "-T", str(seconds), "-c", str(clients), "-j", "2"]
        if script is not None:
            path = self.folder / "script.sql"
            path.write_text(script)
            options += ["-f", str(path)]
        found = _TPS.search(self.pgbench(*options))
        if found is None:
            raise RuntimeError("pgbench printed no rate")
        return float(found.group(1))

    def flush_microseconds(self, times: int = 200) -> int:
        """Median time of one write and fdatasync here: a hot row hands over once per flush, TPC-B shares flushes."""
        path = self.folder / "flush"
        taken = []
        with path.open("wb", buffering=0) as file:
            for _ in range(times):
                file.seek(0)
                since = time.perf_counter_ns()
                file.write(b"x" * 8192)
                os.fdatasync(file.fileno())
                taken.append(time.perf_counter_ns() - since)
        return round(statistics.median(taken) / 1000)

    def initialise_tpcb(self, scale: int = SCALE) -> None:
        self.pgbench("-i", "-q", "-I", "dtGvp", "-s", str(scale))


@contextmanager
def durable_server() -> Iterator[Server]:
    """Sets the environment Django reads, so call `django.setup()` inside."""
    from controlplane.embedded.child import Child
    from controlplane.embedded.postgres import DURABLE, Postgres
    from controlplane.embedded.state import StateFolder

    folder = Path(tempfile.mkdtemp(prefix="remit-bench-"))
    state = StateFolder(folder)
    state.open()
    settings = {**DURABLE, "shared_buffers": "512MB", "max_wal_size": "4GB", "checkpoint_timeout": "15min"}
    postgres = Postgres(state, settings)
    child = Child(postgres)
    try:
        postgres.initialise()
        child.start()
        child.wait_ready(seconds=60)
        os.environ.update(
            DATABASE_URL=postgres.url,
            REDIS_URL=f"unix://{folder}/no-valkey.sock",
            SECRET_KEY=secrets.token_hex(32),
            STATE_DIR=str(folder),
            DJANGO_SETTINGS_MODULE="controlplane.settings",
            REMIT_LOG_LEVEL="ERROR",
        )
        yield Server(folder, state.sockets, postgres.url)
    finally:
        child.stop()
        state.close()
        shutil.rmtree(folder, ignore_errors=True)
        if state.sockets.exists():
            shutil.rmtree(state.sockets, ignore_errors=True)
