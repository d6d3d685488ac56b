"""A whole installation that tests may hurt: its processes, its database as the truth, and agents that use it."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import psutil
import psycopg

from tests.end_to_end.conftest import ROOT, environment, free_port

START_SECONDS = 120.0
# Whatever was hurt, Remit answers again within this time, and every action has its end.
RECOVERY_SECONDS = 60.0
# What the installations of these tests call silence; people have 15 minutes.
EXECUTING_LIMIT_SECONDS = 8
INSIDE = """
import sys, django
sys.path[:0] = sys.argv[1:]
django.setup()
from tests.end_to_end.faults import inside
inside.serve()
"""
OPEN_STATES = ("proposed", "permitted", "executing")

UNBALANCED = """
SELECT a.level, a.name, w.held_money, h.held, w.held_steps, h.held_steps, w.spent_money + w.overrun_money, h.charged
FROM budgets_window w JOIN budgets_account a ON a.id = w.account_id
CROSS JOIN LATERAL (
  SELECT coalesce(sum(money) FILTER (WHERE closed_at IS NULL), 0) AS held,
         coalesce(sum(steps) FILTER (WHERE closed_at IS NULL), 0) AS held_steps,
         coalesce(sum(actual_money) FILTER (WHERE closed_at IS NOT NULL), 0) AS charged,
         coalesce(sum(actual_steps) FILTER (WHERE closed_at IS NOT NULL), 0) AS charged_steps
  FROM budgets_hold WHERE w.id = ANY(window_ids)) h
WHERE (w.held_money, w.held_steps, w.spent_money + w.overrun_money, w.spent_steps + w.overrun_steps)
   IS DISTINCT FROM (h.held, h.held_steps, h.charged, h.charged_steps)
"""


def wait_until(condition: Callable[[], object], what: str, *, seconds: float = RECOVERY_SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds:g} s for: {what}"
        time.sleep(0.1)


@dataclass(frozen=True)
class Mission:
    """An active mission and, when its agent is external, its run's token."""

    id: str
    token: str = field(repr=False, default="")


class Site:
    """`manage.py up` on a folder of its own. Kills only what it started itself."""

    def __init__(self, folder: Path, **variables: str) -> None:
        self.folder = folder
        self.state = folder / "s"
        self.port = free_port()
        self.url = f"http://localhost:{self.port}"
        self._variables = {
            "REMIT_EXECUTING_LIMIT_SECONDS": str(EXECUTING_LIMIT_SECONDS),
            "REMIT_SAMPLE_PACE": "0.05",
            **variables,
        }
        self._screen = folder / "screen"
        self.process: subprocess.Popen[bytes] | None = None
        self._console: subprocess.Popen[str] | None = None

    # Life ---------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start and wait until it is ready. The demo's people are there; its servers and first mission are not."""
        self.state.mkdir(mode=0o700, parents=True, exist_ok=True)
        (self.state / "demo-played").touch()
        self.launch()
        wait_until(self._is_ready, f"the start: {self.screen()}", seconds=START_SECONDS)

    def launch(self) -> None:
        command = [sys.executable, str(ROOT / "manage.py"), "up", "--port", str(self.port), "--state", str(self.state)]
        with self._screen.open("wb") as output:
            self.process = subprocess.Popen(
                command, env=environment(**self._variables), stdout=output, stderr=subprocess.STDOUT
            )

    def stop(self) -> None:
        if self._console is not None:
            self._console.kill()
            self._console.wait()
        if self.process is not None and self.process.poll() is None:
            for child in psutil.Process(self.process.pid).children():
                with contextlib.suppress(psutil.Error):
                    child.resume()  # a test may have left it stopped
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(40)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def screen(self) -> str:
        return self._screen.read_text(errors="replace") if self._screen.exists() else ""

    def log(self, name: str) -> str:
        path = self.state / "logs" / f"{name}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def _is_ready(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.screen()
        return "Remit is ready" in self.screen()

    # Processes ----------------------------------------------------------------------------------------------------

    def child(self, word: str) -> psutil.Process:
        """By its name or a word of its arguments: postgres, valkey-server, node, web, worker."""
        wait_until(lambda: self._find(word), f"a process {word}: {self.screen()}")
        found = self._find(word)
        assert found is not None, f"no child {word}: {self.screen()}"
        return found

    def kill(self, word: str) -> None:
        """kill -9, and wait until the supervisor has started another one."""
        victim = self.child(word)
        victim.kill()
        wait_until(lambda: (found := self._find(word)) and found.pid != victim.pid, f"{word} to be started again")

    def _find(self, word: str) -> psutil.Process | None:
        assert self.process is not None
        for process in psutil.Process(self.process.pid).children():
            with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
                if word == process.name() or word in (Path(part).name for part in process.cmdline()):
                    return process
        return None

    def answers(self) -> bool:
        """Whether everything that is needed to serve says so."""
        with contextlib.suppress(httpx2.TransportError):
            return httpx2.get(f"{self.url}/readyz", timeout=5).status_code == 200
        return False

    def wait_recovered(self) -> None:
        wait_until(self.answers, "an answer after the fault")

    @contextlib.contextmanager
    def away(self, word: str) -> Iterator[None]:
        """The process is dead for as long as the block runs: the supervisor is stopped and can't start it again."""
        assert self.process is not None
        supervisor = psutil.Process(self.process.pid)
        victim = self.child(word)
        supervisor.suspend()
        try:
            victim.kill()
            wait_until(lambda: not victim.is_running() or victim.status() == psutil.STATUS_ZOMBIE, f"{word} to be gone")
            yield
        finally:
            supervisor.resume()

    @contextlib.contextmanager
    def silent(self, word: str) -> Iterator[psutil.Process]:
        """The process lives and does nothing while the block runs."""
        process = self.child(word)
        process.suspend()
        try:
            yield process
        finally:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()

    # The truth ----------------------------------------------------------------------------------------------------

    def variables(self) -> dict[str, str]:
        """What the installation wrote down for other terminals: DATABASE_URL, REDIS_URL and so on."""
        lines = (self.state / "environment").read_text().splitlines()
        return {name: value.strip('"') for name, _, value in (line.partition("=") for line in lines)}

    def rows(self, query: str, *parameters: object) -> list[Any]:
        """Read as soon as the database lets us: it may just have been killed."""
        deadline = time.monotonic() + RECOVERY_SECONDS
        while True:
            try:
                with psycopg.connect(self.variables()["DATABASE_URL"], connect_timeout=5) as connection:
                    return connection.execute(query, parameters).fetchall()
            except psycopg.OperationalError:
                assert time.monotonic() < deadline, f"no database within {RECOVERY_SECONDS:g} s: {self.screen()}"
                time.sleep(0.1)

    def value(self, query: str, *parameters: object) -> Any:
        return self.rows(query, *parameters)[0][0]

    def do(self, what: str, *arguments: Any) -> Any:
        """Let someone of the installation act; see `inside.py`, which runs as a process that stays."""
        if self._console is None:
            self._console = subprocess.Popen(
                [sys.executable, "-W", "ignore", "-c", INSIDE, str(ROOT), str(ROOT / "platform")],
                env=environment(
                    STATE_DIR=str(self.state), DJANGO_SETTINGS_MODULE="controlplane.settings", **self._variables
                ),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
        assert self._console.stdin is not None
        assert self._console.stdout is not None
        self._console.stdin.write(json.dumps([what, arguments]) + "\n")
        self._console.stdin.flush()
        answer = json.loads(self._console.stdout.readline())
        assert "failure" not in answer, answer["failure"]
        return answer["result"]

    def manage(self, *arguments: str) -> str:
        """What a command prints."""
        return str(self.do("command", *arguments))

    def states(self, mission: Mission) -> Counter[str]:
        return Counter(
            dict(
                self.rows("SELECT state, count(*) FROM governance_action WHERE mission_id = %s GROUP BY 1", mission.id)
            )
        )

    def open_holds(self, mission: Mission) -> int:
        return int(self.value(
            "SELECT count(*) FROM budgets_hold h WHERE h.closed_at IS NULL AND (h.mission_id = %s OR h.action_id IN"
            " (SELECT id FROM governance_action WHERE mission_id = %s))", mission.id, mission.id,
        ))  # fmt: skip

    def diary(self, mission: Mission) -> Counter[str]:
        """How often each line was really written."""
        path = self.state / "missions" / mission.id / "diary" / "diary"
        return Counter(path.read_text().splitlines() if path.exists() else [])

    def reconcile(self, *action_ids: str, outcome: str = "success") -> None:
        self.do("reconcile", action_ids, outcome)

    def person(self, who: str) -> httpx2.Client:
        """A browser's cookies after signing in with a one-time link. The caller closes it."""
        printed = self.manage("signin", "--user", f"{who}@northwind.example", "--json")
        link = json.loads(printed.splitlines()[-1])["link"]
        client = httpx2.Client(base_url=self.url, timeout=30, follow_redirects=True)
        client.get(link)
        answer = client.post(
            link, data={"csrfmiddlewaretoken": client.cookies["csrftoken"]}, headers={"Origin": self.url}
        )
        assert answer.status_code == 200
        return client

    # What has to hold after every fault ---------------------------------------------------------------------------

    def wait_ended(self, mission: Mission, *, seconds: float = RECOVERY_SECONDS) -> Counter[str]:
        """Until no action of the mission is under way any more; how many ended how."""
        wait_until(
            lambda: not any(self.states(mission)[state] for state in OPEN_STATES), "every action's end", seconds=seconds
        )
        return self.states(mission)

    def check_sums(self) -> None:
        """Every budget holds exactly its open holds and has spent exactly what was charged."""
        assert self.rows(UNBALANCED) == []

    def unsealed(self) -> int:
        """Audit entries that are not in the chain yet."""
        return int(self.value("SELECT count(*) FROM audit_entry WHERE id NOT IN (SELECT entry_id FROM audit_seal)"))

    def check_audit(self) -> None:
        wait_until(lambda: self.unsealed() == 0, "every audit entry to be sealed")
        assert json.loads(self.manage("audit", "verify", "--json").splitlines()[-1])["intact"] is True


@dataclass(frozen=True)
class Reply:
    """What came back over MCP. `said`: the gate's own structured words."""

    status: int
    result: dict[str, Any] = field(default_factory=dict)
    error: dict[str, Any] = field(default_factory=dict)

    @property
    def said(self) -> dict[str, Any]:
        return dict(self.result.get("structuredContent") or {})

    @property
    def text(self) -> str:
        return "".join(block.get("text", "") for block in self.result.get("content", ()))

    @property
    def action_id(self) -> str:
        return str(self.result.get("_meta", {}).get("remit/action") or self.said.get("id"))

    @property
    def carried_out(self) -> bool:
        return bool(self.result) and not self.result.get("isError")

    @property
    def may_be_repeated(self) -> bool:
        """Remit itself says that the same call may go through later."""
        return self.status in (502, 503, 504) or "retry_after" in {**self.said, **(self.error.get("data") or {})}


class Agent:
    """An external agent of a mission: plain JSON-RPC over HTTP, so that a test sees every status."""

    def __init__(self, site: Site, mission: Mission) -> None:
        self.mission = mission
        self._url = f"{site.url}/mcp"
        self._headers = {
            "Authorization": f"Bearer {mission.token}",
            "Accept": "application/json, text/event-stream",
            "MCP-Protocol-Version": "2025-11-25",
        }

    def ask(self, method: str, parameters: dict[str, Any], *, seconds: float = 60) -> Reply:
        message = {"jsonrpc": "2.0", "id": 1, "method": method, "params": parameters}
        answer = httpx2.post(self._url, json=message, headers=self._headers, timeout=seconds)
        body = answer.json()
        return Reply(answer.status_code, body.get("result") or {}, body.get("error") or {})

    def call(self, tool: str, arguments: dict[str, Any], *, key: str = "", seconds: float = 60) -> Reply:
        meta = {"remit/idempotency-key": key} if key else {}
        return self.ask("tools/call", {"name": tool, "arguments": arguments, "_meta": meta}, seconds=seconds)

    def insist(
        self, tool: str, arguments: dict[str, Any], *, key: str = "", seconds: float = RECOVERY_SECONDS
    ) -> Reply:
        """The same call under the same key until there is an answer, as any careful client does. Never a 500."""
        key = key or uuid.uuid4().hex
        deadline = time.monotonic() + seconds
        while True:
            try:
                reply = self.call(tool, arguments, key=key, seconds=seconds)
                assert reply.status < 500 or reply.may_be_repeated, reply
                if not reply.may_be_repeated:
                    return reply
                problem = str(reply)
            except (httpx2.TransportError, json.JSONDecodeError) as error:
                problem = repr(error)
            assert time.monotonic() < deadline, f"no answer within {seconds:g} s: {problem}"
            time.sleep(0.2)

    def write(self, line: str, **more: Any) -> Reply:
        seconds = more.pop("seconds_between", None)
        arguments: dict[str, Any] = {"line": line} | ({"seconds": seconds} if seconds is not None else {})
        return self.insist("diary__write", arguments, **more)
