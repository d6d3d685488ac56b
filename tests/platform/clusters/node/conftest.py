"""A node of its own per test module and kind of isolation, and a driver that talks to it. No database."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from controlplane.clusters.drivers.local import LocalDriver
from controlplane.clusters.node import node_command
from controlplane.clusters.node.cgroups import find_tree, tree_label
from controlplane.clusters.runtime_mounts import interpreter_mounts
from controlplane.clusters.types import DriverError, SandboxPhase, SandboxSpec

HERE = Path(__file__).parent
PYTHON = str(Path(sys.executable).resolve())
ISOLATIONS = ("bubblewrap", "process")


def require(isolation):
    if isolation == "bubblewrap" and shutil.which("bwrap") is None:
        if os.environ.get("REMIT_REQUIRE_SANDBOX") == "1":
            pytest.fail("bubblewrap is not installed, and REMIT_REQUIRE_SANDBOX=1 asks for it")
        pytest.skip("bubblewrap is not installed (apt-get install bubblewrap)")


class RunningNode:
    """A node process in a folder of its own. `stop` ends it gracefully, `kill` at once."""

    def __init__(self, isolation, limits="auto", python=sys.executable, folder=None, more=(), **popen):
        self.folder = folder or Path(tempfile.mkdtemp(prefix="remit-node-"))
        self.socket = self.folder / "run" / "node.sock"
        self.state = self.folder / "state"
        self.gateway_socket = self.folder / "gate" / "web.sock"
        self.arguments = node_command(socket=self.socket, state=self.state, gateway_socket=self.gateway_socket)
        self.arguments[0] = str(python)
        self.arguments += ["--isolation", isolation, "--limits", limits, *more]
        self.popen = popen
        self.driver = LocalDriver(self.socket)
        self.start()

    def start(self):
        self.log = open(self.folder / "node.log", "ab")  # noqa: SIM115
        self.process = subprocess.Popen(self.arguments, stdout=self.log, stderr=self.log, **self.popen)
        deadline = time.monotonic() + 20
        while True:
            with contextlib.suppress(DriverError):
                self.driver.observe()
                return
            assert self.process.poll() is None, self.log_text()
            assert time.monotonic() < deadline, self.log_text()
            time.sleep(0.02)

    def log_text(self):
        return (self.folder / "node.log").read_text()

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.log.close()

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        self.log.close()
        return self.process.wait(20)

    def remove(self):
        self.stop()
        if tree := find_tree(tree_label(self.state)):  # a killed node could not remove it
            tree.sweep()
            tree.remove()
        shutil.rmtree(self.folder, ignore_errors=True)

    def shared(self, name):
        folder = self.folder / "shared" / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def python(self, name, script, **fields):
        """Apply a sandbox that runs a piece of Python."""
        fields.setdefault("gateway", False)
        return self.apply(name, (PYTHON, "-I", "-c", script), **fields)

    def apply(self, name, command, **fields):
        mounts = [*interpreter_mounts(Path(PYTHON), Path(sys.base_prefix)), *fields.pop("mounts", [])]
        unique = {mount.target: mount for mount in mounts}
        return self.driver.apply(SandboxSpec(name=name, command=command, mounts=tuple(unique.values()), **fields))

    def wait(self, name, seconds=20):
        """The status once it has ended."""
        return self.until(name, lambda status: status.phase is SandboxPhase.EXITED, seconds)

    def running(self, name):
        return self.until(name, lambda status: status.phase is not SandboxPhase.PENDING)

    def until(self, name, condition, seconds=20):
        deadline = time.monotonic() + seconds
        while True:
            status = self.driver.get(name)
            if condition(status):
                return status
            assert time.monotonic() < deadline, (status, self.output(name))
            time.sleep(0.01)

    def until_output(self, name, text, seconds=20):
        deadline = time.monotonic() + seconds
        while text not in self.output(name):
            assert time.monotonic() < deadline, (self.driver.get(name), self.output(name))
            time.sleep(0.01)

    def output(self, name):
        return self.driver.logs(name, limit=1 << 20).data.decode("utf-8", "replace")


@pytest.fixture(scope="module", params=ISOLATIONS)
def node(request):
    require(request.param)
    running = RunningNode(request.param)
    yield running
    running.remove()


@pytest.fixture
def start_node():
    """Start further nodes; all are gone afterwards."""
    started = []

    def start(isolation="bubblewrap", **options):
        require(isolation)
        started.append(RunningNode(isolation, **options))
        return started[-1]

    yield start
    for running in started:
        running.remove()


@pytest.fixture
def name(request):
    """A fresh sandbox name; the sandbox is deleted afterwards."""
    chosen = f"t{time.monotonic_ns()}"
    yield chosen
    if "node" in request.fixturenames:
        request.getfixturevalue("node").driver.delete(chosen)


def processes_with(marker):
    """Host pids whose command line or environment holds the marker."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            if marker.encode() in (entry / "environ").read_bytes() + (entry / "cmdline").read_bytes():
                found[int(entry.name)] = (entry / "cmdline").read_bytes()
    return found


@pytest.fixture
def survivors():
    """Processes with a marker in their environment; waits for the dying to be gone, or for enough to have come."""

    def find(marker, *, at_least=0, seconds=5.0):
        deadline = time.monotonic() + seconds
        while True:
            found = processes_with(marker)
            enough = len(found) >= at_least if at_least else not found
            if enough or time.monotonic() >= deadline:
                return found
            time.sleep(0.02)

    return find
