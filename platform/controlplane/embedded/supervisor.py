"""`manage.py up`: starts the embedded servers and Remit's processes in order, heals them, and stops them in order.

It never loads Django: what it starts is what the settings point to. Killing this process kills every other one.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from controlplane.clusters.node import node_command
from controlplane.common import installing
from controlplane.common.installing import Installing
from controlplane.common.sockets import gateway_socket, make_private
from controlplane.embedded.child import Child
from controlplane.embedded.failures import StartError, disk_full, ended_early
from controlplane.embedded.listening import listen_tcp, listen_unix, port_of
from controlplane.embedded.own_processes import ROOT, OwnProcess, answers_health, manage
from controlplane.embedded.postgres import Postgres
from controlplane.embedded.processes import check_platform, shorten
from controlplane.embedded.running import DEFAULT_STATE, manage_command
from controlplane.embedded.state import StateFolder
from controlplane.embedded.valkey import Valkey

NODE = "local node"
DEMO_ORGANISATION = "northwind"  # as controlplane.embedded.preparation.DEMO_SLUG, which loads Django
DEMO_JUDGE = ROOT / "agents" / "samples" / "demo_judge.py"
STOP_SIGNALS = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
SERVER_START_SECONDS = 120.0  # recovery of a large log after a crash takes its time
PREPARE_SECONDS = 600.0
WEB_START_SECONDS = 120.0
# The database needs room for its log (16 MB a piece) to go on writing.
LITTLE_SPACE_BYTES = 32 * 1024 * 1024


@dataclass(frozen=True)
class Options:
    host: str
    port: int
    state: Path
    demo: bool


class StopRequestedError(Exception):
    """Somebody pressed Ctrl-C, closed the terminal or sent SIGTERM."""


def main(arguments: Sequence[str]) -> int:
    """Run until told to stop. 0 after an orderly stop, 1 with a sentence and a remedy when the start failed."""
    try:
        options = _parse(arguments)
        check_platform()
        Supervisor(options).run()
    except StartError as error:
        print(f"Remit did not start. {error}", file=sys.stderr)  # noqa: T201 - the terminal is this program's screen
        return 1
    return 0


class Supervisor:
    def __init__(self, options: Options) -> None:
        self._options = options
        self._state = StateFolder(options.state)
        self._environment: dict[str, str] = {}
        self._servers: list[Child] = []
        self._processes: list[Child] = []
        self._demo: Child | None = None
        # Held open for as long as we live: whoever connects while the web process is started again only waits.
        self._listeners: list[socket.socket] = []
        self._started_at = time.monotonic()
        self._disk_full = False

    def run(self) -> None:
        # Blocked, and taken one by one in `_pause`: no signal can interrupt a start or a stop half way.
        signal.pthread_sigmask(signal.SIG_BLOCK, {*STOP_SIGNALS, signal.SIGCHLD})
        if not self._state.root.exists():  # a start that can't listen leaves no folder behind
            self._listen()
        self._state.open()
        try:
            if not self._listeners:
                self._listen()
            self._start()
            self._supervise()
        except StopRequestedError:
            _say("Stopping.")
        finally:
            self._stop()
            for listener in self._listeners:
                listener.close()
            self._state.close()

    def _listen(self) -> None:
        self._listeners.append(listen_tcp(self._options.host, self._options.port))

    def _start(self) -> None:
        public_url = os.environ.get("PUBLIC_URL") or f"http://localhost:{self._options.port}"
        gateway = gateway_socket(self._state.root)
        make_private(gateway.parent)
        self._listeners.append(listen_unix(gateway))
        listeners = [listener.fileno() for listener in self._listeners]  # the judge of the demo has one of its own
        self._start_servers(public_url)

        self._launch(self._node(gateway))
        go_read, go_write = os.pipe()
        inherit = manage("web", "--inherit", *map(str, listeners))
        web = self._own("web", [*inherit, "--go", str(go_read)], descriptors=[*listeners, go_read])
        web.ready = lambda _pid: answers_health(gateway, urlsplit(public_url).netloc)
        web_child = self._launch(web)
        os.close(go_read)
        people = self._prepare()
        os.close(go_write)
        web_child.wait_ready(seconds=WEB_START_SECONDS, pause=_pause)
        web.argv, web.descriptors = inherit, listeners
        self._launch(self._own("worker", manage("worker"), stop_seconds=12.0))
        plays = bool(people) and not self._demo_stamp.exists()
        if plays:
            self._play_demo()
        self._greet(public_url, people)
        if plays:
            _say("The samples are being installed; the first mission starts by itself in a moment.")

    def _play_demo(self) -> None:
        """Servers and first mission of the demo, beside what already serves: installing the samples takes a while.

        Written down before anybody can open a page, which then says so.
        """
        installing.write(self._state.root, Installing(DEMO_ORGANISATION))
        self._demo = Child(self._own("demo", manage("demo", "--play")))
        self._demo.start()

    def _start_servers(self, public_url: str) -> None:
        """Start what the environment does not name. What we made ourselves is written down for other terminals."""
        made = {"PUBLIC_URL": public_url}
        if not os.environ.get("REDIS_URL"):
            valkey = Valkey(self._state)
            self._servers.append(Child(valkey))
            made["REDIS_URL"] = valkey.url
        if not os.environ.get("DATABASE_URL"):
            postgres = Postgres(self._state)
            if postgres.initialise():
                _say(f"Made a new database in {self._state.root}.")
            self._servers.append(Child(postgres))
            made["DATABASE_URL"] = postgres.url
        for server in self._servers:
            server.start()
        if not os.environ.get("SECRET_KEY"):
            made["SECRET_KEY"] = self._state.secret_key()
        wanted = os.environ.get("REMIT_DEMO_JUDGE", "").lower() not in ("", "0", "false", "no", "off")
        if wanted and not os.environ.get("JUDGE_URL"):
            made.update(self._start_demo_judge())
        self._state.write_environment(made)
        self._environment = {**made, "STATE_DIR": str(self._state.root)}
        for server in self._servers:
            server.wait_ready(seconds=SERVER_START_SECONDS, pause=_pause)

    def _start_demo_judge(self) -> dict[str, str]:
        listener = listen_tcp("127.0.0.1", 0)
        self._listeners.append(listener)
        argv = [sys.executable, "-I", str(DEMO_JUDGE), str(listener.fileno())]
        self._launch(self._own("demo-judge", argv, descriptors=[listener.fileno()]))
        _say("A judge made of simple word rules is switched on for the demo; it is no language model.")
        port = listener.getsockname()[1]
        return {"JUDGE_URL": f"http://127.0.0.1:{port}/v1", "JUDGE_MODEL": "demo-word-rules"}

    def _prepare(self) -> list[dict[str, str]]:
        """Migrate and load the demo while the web process is still importing. Returns the people to greet."""
        read, write = os.pipe()
        argv = manage("prepare", "--report", str(write), *([] if self._options.demo else ["--no-demo"]))
        child = Child(self._own("prepare", argv, descriptors=[write]))
        child.start()
        os.close(write)
        deadline = time.monotonic() + PREPARE_SECONDS
        try:
            while child.process is not None and (code := child.process.poll()) is None:
                if time.monotonic() > deadline:
                    raise StartError(
                        "The migrations took longer than ten minutes.", f"See {self._state.log('prepare')}."
                    )
                _pause(0.05)
        except BaseException:
            child.stop()
            raise
        if code:
            raise ended_early("Preparing the database", code, self._state.log("prepare"), child.output())
        with os.fdopen(read) as report:
            result: dict[str, Any] = json.load(report)
        for sentence in result["done"]:
            _say(sentence)
        return list(result["people"])

    def _supervise(self) -> None:
        next_look = next_measure = time.monotonic()
        while True:
            _pause(0.2)
            if time.monotonic() > next_measure:
                next_measure = time.monotonic() + 2
                self._watch_disk()
            for child in (*self._servers, *self._processes):
                if news := child.heal():
                    _say(news)
            self._hear_of_demo()
            if time.monotonic() > next_look:
                next_look = time.monotonic() + 60
                for log in self._state.logs.glob("*.log"):
                    shorten(log)

    def _watch_disk(self) -> None:
        """Say once that the disk is full, before the servers say it each in their own way, and once that it is over."""
        full = shutil.disk_usage(self._state.root).free < LITTLE_SPACE_BYTES
        if full != self._disk_full:
            self._disk_full = full
            _say(str(disk_full(self._state.root)) if full else "The disk has space again.")

    @property
    def _demo_stamp(self) -> Path:
        return self._state.root / "demo-played"

    def _hear_of_demo(self) -> None:
        if self._demo is None or self._demo.process is None or (code := self._demo.process.poll()) is None:
            return
        if code == 0:
            self._demo_stamp.touch()
            left_out = installing.left_out(self._state.root)
            for reason in left_out:
                _say(f"Left out. {reason}")
            if left_out:
                _say("The other samples are ready. New mission says what each template still needs.")
            else:
                _say("The samples are ready. New mission offers them, and the first mission is on Home.")
        else:
            last = next(iter(reversed(self._demo.output().strip().splitlines())), f"it ended with code {code}")
            installing.write(self._state.root, Installing(DEMO_ORGANISATION, failure=last))
            _say(f"The samples could not be installed: {last}")
            _say(f"The log is in {self._state.log('demo')}; the next start tries again.")
        self._demo.process = None

    def _stop(self) -> None:
        """Who asks before who answers: web and worker, then the node, then the broker and the database."""
        if self._demo is not None:
            self._demo.stop()
        web_and_worker = [child for child in self._processes if child.service.name != NODE]
        for child in web_and_worker:
            child.ask_to_stop()
        for child in (*web_and_worker, *self._processes, *self._servers):
            child.stop()

    def _own(
        self, name: str, argv: Sequence[str], *, descriptors: Sequence[int] = (), stop_seconds: float = 6.0
    ) -> OwnProcess:
        return OwnProcess(
            name=name,
            argv=argv,
            log=self._state.log(name),
            environment=self._environment,
            descriptors=descriptors,
            stop_seconds=stop_seconds,
        )

    def _node(self, gateway: Path) -> OwnProcess:
        """Runs other people's programs, so it is told neither the key nor the way to the database."""
        hidden = {"DATABASE_URL": "", "REDIS_URL": "", "SECRET_KEY": ""}
        argv = node_command(
            socket=self._state.sockets / "node.sock", state=self._state.root / "node", gateway_socket=gateway
        )
        return OwnProcess(name=NODE, argv=argv, log=self._state.log("localnode"), environment=hidden, stop_seconds=10.0)

    def _launch(self, service: OwnProcess) -> Child:
        child = Child(service)
        self._processes.append(child)
        child.start()
        return child

    def _greet(self, public_url: str, people: Sequence[dict[str, str]]) -> None:
        _say(f"Remit is ready at {public_url} after {time.monotonic() - self._started_at:.1f} s.")
        if people:
            _say("Sign in with one of these links; each works once, for twelve hours:")
            widest = max(len(person["email"]) for person in people)
            for person in people:
                _say(f"  {person['name']:<8} {person['email']:<{widest}}  {person['link']}")
        _say(f"Another link, in another terminal: {manage_command(self._state.root)} signin --user E-MAIL")
        _say(f"Logs: {self._state.logs}. Stop: Ctrl-C.")


def _pause(seconds: float) -> None:
    """Sleep, waking when a child ends. StopRequestedError when a signal asks for the end."""
    received = signal.sigtimedwait({*STOP_SIGNALS, signal.SIGCHLD}, seconds)
    if received is not None and received.si_signo in STOP_SIGNALS:
        raise StopRequestedError


def _say(sentence: str) -> None:
    # A closed terminal must not keep us from stopping in order.
    with contextlib.suppress(OSError):
        print(sentence, flush=True)  # noqa: T201 - the terminal is this program's screen


def _parse(arguments: Sequence[str]) -> Options:
    parser = argparse.ArgumentParser(prog="manage.py up", description="Start everything Remit needs on this machine.")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: this machine only)")
    parser.add_argument("--port", default="8000")
    parser.add_argument("--state", type=Path, help="folder for everything it remembers (default: $STATE_DIR or .remit)")
    parser.add_argument("--no-demo", action="store_true", help="do not load the demo into an empty installation")
    given = parser.parse_args(arguments)
    state = given.state or Path(os.environ.get("STATE_DIR") or DEFAULT_STATE)
    return Options(host=given.host, port=port_of(given.port), state=state, demo=not given.no_demo)
