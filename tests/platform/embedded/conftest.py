"""Fixtures of the embedded default: a state folder of one's own, and a running `manage.py up`."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from controlplane.embedded.child import Child
from controlplane.embedded.postgres import THROWAWAY, Postgres
from controlplane.embedded.state import StateFolder

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def state(tmp_path: Path) -> Iterator[StateFolder]:
    folder = StateFolder(tmp_path / "state")
    folder.open()
    yield folder
    folder.close()


@pytest.fixture
def start() -> Iterator[Callable[..., Child]]:
    """Start a service and wait until it is ready; stopped at the end of the test."""
    children: list[Child] = []

    def start_one(service: object) -> Child:
        child = Child(service)
        children.append(child)
        child.start()
        child.wait_ready(seconds=30)
        return child

    yield start_one
    for child in children:
        child.stop()


@pytest.fixture(scope="session")
def fresh_cluster(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder as `initialise` leaves it; tests take copies, which is faster than making each anew."""
    folder = StateFolder(tmp_path_factory.mktemp("fresh"))
    folder.open()
    Postgres(folder, THROWAWAY).initialise()
    folder.close()
    return folder.root / "postgres"


@pytest.fixture
def postgres(state: StateFolder, fresh_cluster: Path) -> Postgres:
    """Initialised, not started."""
    shutil.copytree(fresh_cluster, state.root / "postgres")
    return Postgres(state, THROWAWAY)


def wait_until(condition: Callable[[], object], what: str, seconds: float = 45) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s for: {what}"
        time.sleep(0.05)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def plain_environment(**more: str) -> dict[str, str]:
    """What a person's terminal has: nothing of this test run."""
    ours = {"DATABASE_URL", "REDIS_URL", "SECRET_KEY", "STATE_DIR", "PUBLIC_URL", "REMIT_LOG_FORMAT"}
    return {name: value for name, value in os.environ.items() if name not in ours} | more


class Up:
    """A `manage.py up` in a process of its own, as `make run` starts it."""

    def __init__(self, state: Path, *arguments: str, wrapper: tuple[str, ...] = (), **environment: str) -> None:
        self.state = state
        self.port = free_port()
        self._screen = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as this object
        command = [sys.executable, str(ROOT / "manage.py"), "up", "--port", str(self.port), "--state", str(state)]
        self.process = subprocess.Popen(
            [*wrapper, *command, *arguments],
            stdout=self._screen,
            stderr=subprocess.STDOUT,
            env=plain_environment(**environment),
        )
        self._seen: dict[int, psutil.Process] = {}

    @property
    def screen(self) -> str:
        """What the terminal shows so far; read without moving the place where it is written."""
        return os.pread(self._screen.fileno(), 1_000_000, 0).decode(errors="replace")

    def wait_ready(self) -> None:
        wait_until(lambda: "Remit is ready" in self.screen or self.process.poll() is not None, "the start", 90)
        assert self.process.poll() is None, self.screen

    def ended(self, seconds: float = 60) -> int:
        return self.process.wait(timeout=seconds)

    def descendants(self) -> list[psutil.Process]:
        """Every living process below, remembered so that `left_behind` finds those whose parent is gone."""
        with contextlib.suppress(psutil.NoSuchProcess):
            for process in psutil.Process(self.process.pid).children(recursive=True):
                self._seen.setdefault(process.pid, process)
        return [process for process in self._seen.values() if alive(process)]

    def find(self, word: str) -> psutil.Process | None:
        """The direct child of this name, or with this word among its arguments."""
        with contextlib.suppress(psutil.NoSuchProcess):
            for process in psutil.Process(self.process.pid).children():
                with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
                    if word == process.name() or word in (Path(part).name for part in process.cmdline()):
                        return process
        return None

    def get(self, path: str) -> int:
        """Status of a page, asked as a browser would."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", headers={"Host": "localhost"})
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            return error.code

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(timeout=40)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


def alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
