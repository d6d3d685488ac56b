"""A whole installation: start to first page, memory of all processes, and how long a committed change takes to a page.

`python bench/bench_up.py` prints one JSON object. Starts `manage.py up` on a folder of its own, twice; without Chromium
the last figure is left out.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parent.parent
CHROMIUM = Path("/usr/bin/chromium")
HIDDEN = ("DATABASE_URL", "REDIS_URL", "SECRET_KEY", "STATE_DIR", "PUBLIC_URL")
SETTLE_SECONDS = 8
CHANGES = 30
# Watches one part of the page and notes when the text of a change appears in it.
WATCH = """
([selector]) => { window.seen = {}; new MutationObserver(() => {
  const text = document.querySelector(selector)?.innerText || "";
  for (const found of text.matchAll(/bench-[0-9]+/g)) window.seen[found[0]] ??= Date.now();
}).observe(document.body, {childList: true, subtree: true, characterData: true}); }
"""
# Commits CHANGES pauses and resumes of the first mission, each with a reason of its own; prints when each committed.
COMMIT = """
import json, time
from agents import services
from agents.catalogue import demo
from agents.models import Mission
from controlplane.tenancy.models import Organisation
organisation = Organisation.objects.get(slug='northwind')
nadia = demo.principal_of(demo.NADIA, organisation)
mission = Mission.objects.filter(organisation=organisation).latest('id')
times = {}
for number in range(%d):
    reason = f'bench-{number}'
    services.pause_mission(actor=nadia, mission_id=mission.pk, reason=reason)
    times[reason] = time.time() * 1000
    time.sleep(0.4)
    services.resume_mission(actor=nadia, mission_id=mission.pk)
    time.sleep(0.2)
print(json.dumps(times))
"""


def main() -> dict[str, Any]:
    folder = Path(tempfile.mkdtemp(prefix="remit-bench-up-"))
    try:
        cold = Installation(folder)
        cold_seconds = cold.start()
        cold.wait_for_demo()
        time.sleep(SETTLE_SECONDS)
        memory = cold.memory_mebibytes()
        to_page = cold.commit_to_page() if CHROMIUM.exists() else []
        cold.stop()
        warm = Installation(folder)
        warm_seconds = warm.start()
        warm.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return {
        "bench": "a whole installation",
        "start_empty_state_seconds": round(cold_seconds, 1),
        "start_warm_seconds": round(warm_seconds, 1),
        "memory_mebibytes": round(memory),
        "commit_to_page_milliseconds_p50": round(statistics.median(to_page)) if to_page else None,
        "commit_to_page_milliseconds_all": [round(value) for value in sorted(to_page)],
        "goals": {
            "start_warm_seconds": "at most 5",
            "start_empty_state_seconds": "at most 60, packages included",
            "memory_mebibytes": "at most 600",
            "commit_to_page_milliseconds_p50": "at most 150",
        },
    }


class Installation:
    def __init__(self, folder: Path) -> None:
        self._state = folder / "state"
        self._log = folder / "up.log"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._url = f"http://localhost:{probe.getsockname()[1]}"
        self._environment = {name: value for name, value in os.environ.items() if name not in HIDDEN}
        self._environment["REMIT_SAMPLE_PACE"] = "0.1"

    def start(self) -> float:
        """Seconds until the first page is answered."""
        port = self._url.rpartition(":")[2]
        command = [sys.executable, str(ROOT / "manage.py"), "up", "--port", port, "--state", str(self._state)]
        started = time.monotonic()
        self._process = subprocess.Popen(
            command, env=self._environment, stdout=self._log.open("w"), stderr=subprocess.STDOUT
        )
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() - started > 180:
                raise RuntimeError(self._log.read_text()[-2000:])
            time.sleep(0.05)
        return time.monotonic() - started

    def wait_for_demo(self) -> None:
        deadline = time.monotonic() + 240
        while not (self._state / "demo-played").exists() and time.monotonic() < deadline:
            time.sleep(0.5)

    def memory_mebibytes(self) -> float:
        """Proportional set size of the supervisor and everything below it, sandboxes included."""
        processes = [psutil.Process(self._process.pid), *psutil.Process(self._process.pid).children(recursive=True)]
        return sum(process.memory_full_info().pss for process in processes if process.is_running()) / 1024**2

    def commit_to_page(self) -> list[float]:
        from playwright.sync_api import sync_playwright

        link = json.loads(self._manage("signin", "--user", "nadia@northwind.example", "--json"))["link"]
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=str(CHROMIUM), args=["--no-sandbox", "--disable-dev-shm-usage"]
            )
            page = browser.new_page()
            page.goto(link)
            page.get_by_role("button", name="Sign in").click()
            page.get_by_role("link", name="Missions").first.click()
            page.locator("[data-row-link]").first.click()
            page.wait_for_load_state("networkidle")
            page.evaluate(WATCH, ["#mission-head"])
            committed = json.loads(self._manage("shell", "-v0", "-c", COMMIT % CHANGES))
            time.sleep(2)
            seen = page.evaluate("window.seen")
            browser.close()
        return [seen[reason] - moment for reason, moment in committed.items() if reason in seen]

    def stop(self) -> None:
        self._process.send_signal(signal.SIGINT)
        self._process.wait(30)

    def _manage(self, *arguments: str) -> str:
        command = [sys.executable, "-W", "ignore", str(ROOT / "manage.py"), *arguments]
        environment = {**self._environment, "STATE_DIR": str(self._state)}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=120)
        return done.stdout.strip().splitlines()[-1]

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self._url}/accounts/login/", timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False


if __name__ == "__main__":
    print(json.dumps(main(), indent=2))
