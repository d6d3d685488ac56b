"""Sandboxes with streams belong to the process that is attached to them: when it died, they end; nobody else would."""

import asyncio
import time

import pytest

from controlplane.clusters.types import DriverError, SandboxPhase

READS = "import sys\nprint('ready', file=sys.stderr, flush=True)\nsys.stdin.read()"


@pytest.fixture
def node(start_node):
    return start_node(more=("--abandoned-seconds", "0.8"))


def gone(node, name, seconds=10):
    deadline = time.monotonic() + seconds
    while any(status.name == name for status in node.driver.observe()):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def test_server_whose_session_died_with_its_process_is_ended_and_forgotten(node, name, survivors):
    node.python(name, READS, stdio=True, env={"MARK": name})

    async def attach_and_die():
        _, writer = await node.driver.attach(name)
        await asyncio.sleep(2)  # attached for longer than it may be alone
        assert node.driver.get(name).phase is SandboxPhase.RUNNING
        writer.transport.abort()

    asyncio.run(attach_and_die())
    assert gone(node, name)
    assert not survivors(name)
    with pytest.raises(DriverError, match="no such sandbox"):
        node.driver.get(name)


def test_server_that_nobody_ever_attached_to_is_ended(node, name):
    node.python(name, READS, stdio=True)
    assert gone(node, name)


def test_program_without_streams_is_nobodys_guest_and_goes_on(node, name):
    node.python(name, "import time\ntime.sleep(60)")
    node.running(name)
    time.sleep(2)
    assert node.driver.get(name).phase is SandboxPhase.RUNNING
