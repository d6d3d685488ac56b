"""A whole installation as `make run` starts it, and browsers signed in as the three people of the demo."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 180
T = TypeVar("T")
# What this test run's own servers are called must not reach the installation under test.
OURS = (
    "DATABASE_URL",
    "REDIS_URL",
    "SECRET_KEY",
    "STATE_DIR",
    "PUBLIC_URL",
    "DJANGO_SETTINGS_MODULE",
    "DJANGO_ALLOW_ASYNC_UNSAFE",
)


def missing(what: str, requirement: str) -> None:
    """Skip with the reason, or fail where CI made it compulsory."""
    if os.environ.get(requirement) == "1":
        pytest.fail(what)
    pytest.skip(what)


@dataclass
class Installation:
    """A running `manage.py up`. `manage` runs another command against it and returns what it printed."""

    url: str
    state: Path
    process: subprocess.Popen[str]

    def manage(self, *arguments: str, check: bool = True) -> str:
        done = subprocess.run(
            [sys.executable, "-W", "ignore", str(ROOT / "manage.py"), *arguments],
            env=environment(STATE_DIR=str(self.state)),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        if check and done.returncode:
            raise AssertionError(f"manage.py {' '.join(arguments)} ended with {done.returncode}: {done.stderr[-2000:]}")
        return done.stdout

    def shell(self, code: str) -> str:
        """What a line of Python prints inside the installation."""
        return self.manage("shell", "-v0", "-c", code).strip().splitlines()[-1]

    def sign_in_link(self, who: str) -> str:
        return str(
            json.loads(self.manage("signin", "--user", f"{who}@northwind.example", "--json").splitlines()[-1])["link"]
        )


def environment(**further: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in OURS}
    return {**kept, "REMIT_LOG_FORMAT": "text", **further}


def in_own_loop(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end in a thread of its own: Playwright keeps an event loop in the test's thread."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        return pool.submit(asyncio.run, work).result()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="package")
def remit() -> Iterator[Installation]:
    """One installation for all of these tests, and no longer, with the demo, its servers and its first mission."""
    if shutil.which("bwrap") is None:
        missing("bubblewrap is not installed", "REMIT_REQUIRE_SANDBOX")
    state = Path(tempfile.mkdtemp(prefix="remit-e2e-"))
    port = free_port()
    log = state / "up.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "manage.py"), "up", "--port", str(port), "--state", str(state / "s")],
            env=environment(REMIT_SAMPLE_PACE="0.15"),
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
        )
    installation = Installation(f"http://localhost:{port}", state / "s", process)
    try:
        wait_for(lambda: "is ready at" in log.read_text(), START_SECONDS, lambda: log.read_text())
        wait_for(lambda: (state / "s" / "demo-played").exists(), START_SECONDS, lambda: log.read_text())
        yield installation
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
        shutil.rmtree(state, ignore_errors=True)


def wait_for(condition: Callable[[], Any], seconds: float, story: Callable[[], str] = lambda: "") -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"did not happen within {seconds} s. {story()[-3000:]}")
        time.sleep(0.2)


@pytest.fixture
def signed_in(chromium: Any, remit: Installation) -> Iterator[Callable[[str], Any]]:
    """`signed_in("dana")`: a page of a browser of her own, signed in through a one-time link. Console errors fail the
    test."""
    contexts: list[Any] = []
    complaints: list[str] = []

    def sign_in(who: str) -> Any:
        context = chromium.new_context(viewport={"width": 1600, "height": 1000}, locale="en-GB")
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.on("pageerror", lambda error: complaints.append(f"{page.url}: {error}"))
        page.on("console", lambda line: complaints.append(f"{page.url}: {line.text}") if line.type == "error" else None)
        page.goto(remit.sign_in_link(who))
        page.get_by_role("button", name="Sign in").click()
        page.wait_for_url(f"{remit.url}/")
        return page

    yield sign_in
    for context in contexts:
        context.close()
    assert complaints == []
