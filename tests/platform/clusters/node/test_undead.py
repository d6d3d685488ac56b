"""A process that the kernel does not let go: its sandbox has not ended, whoever asks, until it has."""

import subprocess
import sys

import pytest

from controlplane.clusters.types import DriverError, SandboxPhase

# A traced process stays in the process table after its end until its tracer has looked: nobody can make it go before.
TRACER = """
import ctypes, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
print(libc.ptrace(0x4206, int(sys.argv[1]), None, None), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def hold():
    tracers = []

    def start(pid):
        command = [sys.executable, "-c", TRACER, str(pid)]
        tracer = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        tracers.append(tracer)
        if tracer.stdout.readline().strip() != "0":
            pytest.skip("tracing is not allowed here")
        return tracer

    yield start
    for tracer in tracers:
        tracer.kill()
        tracer.wait()


def test_sandbox_with_a_process_that_cannot_be_killed_has_not_ended(node, name, survivors, hold):
    node.apply(name, ("/usr/bin/sleep", "61.5"), gateway=False, env={"MARK": name})
    node.running(name)
    [program] = [pid for pid, command in survivors(name, at_least=1).items() if command.startswith(b"/usr/bin/sleep")]
    tracer = hold(program)
    assert node.driver.kill([name]) == []
    with pytest.raises(DriverError) as undead:
        node.driver.delete(name)
    assert (undead.value.code, undead.value.permanent) == ("sandbox.undead", False)
    status = node.driver.get(name)
    assert (status.phase, status.exited_at) == (SandboxPhase.RUNNING, None)
    assert "cannot be killed" in status.message

    tracer.kill()
    tracer.wait()
    status = node.wait(name)
    assert "cannot be killed" not in status.message
    node.driver.delete(name)
    assert not survivors(name)
