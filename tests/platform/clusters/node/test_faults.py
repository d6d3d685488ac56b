"""When the node, a sandbox or a neighbour dies: nothing survives, nothing is mistaken for alive."""

import asyncio
import contextlib
import ctypes
import os
import signal
import subprocess
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import pytest

from controlplane.clusters.node.cgroups import find_tree, tree_label
from controlplane.clusters.types import (
    MIB,
    DriverError,
    ExitReason,
    Isolation,
    Resources,
    SandboxPhase,
    SandboxSpec,
)

pytestmark = pytest.mark.sandbox

STUBBORN = """
import ctypes, os, signal, time
libc = ctypes.CDLL(None)
libc.prctl(1, 0, 0, 0, 0)
for number in range(1, 32):
    try:
        signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError):
        pass
for _ in range(3):
    if os.fork() == 0:
        os.setsid()
        libc.prctl(1, 0, 0, 0, 0)
        break
if os.getpid() == 2:
    print("up", flush=True)
while True:
    time.sleep(1)
"""
ISOLATIONS = ("bubblewrap", "process")


@pytest.mark.parametrize("isolation", ISOLATIONS)
@pytest.mark.parametrize("limits", ["auto", "rlimits"])
def test_killed_node_takes_every_sandbox_along(start_node, survivors, isolation, limits):
    node = start_node(isolation, limits=limits)
    marker = f"kill-{isolation}-{limits}-{os.getpid()}"
    for number in range(3):
        node.python(f"s{number}", STUBBORN, env={"MARKER": marker})
        node.until_output(f"s{number}", "up")
    assert len(survivors(f"MARKER={marker}", at_least=12)) >= 12
    node.kill()
    assert survivors(f"MARKER={marker}") == {}


def test_new_node_has_a_new_epoch_and_knows_nothing(start_node):
    node = start_node()
    node.python("old", STUBBORN)
    epoch = node.driver.info().epoch
    node.kill()
    with pytest.raises(DriverError):
        node.driver.info()
    node.start()
    assert node.driver.info().epoch != epoch
    assert list(node.driver.observe()) == []
    assert not list((node.state / "logs").iterdir())


def test_node_tells_which_of_its_lives_were_stopped_in_order(start_node):
    node = start_node()
    epochs = []
    for end in (node.stop, node.stop, node.kill, node.stop):
        epochs.append(node.driver.info().epoch)
        end()
        node.start()
    assert list(node.driver.info().stopped_epochs) == [epochs[0], epochs[1], epochs[3]]


def test_new_node_kills_and_removes_what_lies_in_the_old_ones_control_groups(start_node):
    node = start_node()
    if "pids" not in node.driver.info().limits:
        pytest.skip("no control group can be written here")
    node.kill()
    # A process that escaped everything but its control group, as after a fault in the kernel's or our clean-up.
    tree = find_tree(tree_label(node.state))
    assert tree is not None
    group = tree.create("left-behind")
    straggler = subprocess.Popen(["sleep", "600"], preexec_fn=join(group.join_files()))
    assert straggler.pid in group.processes()
    node.start()
    assert straggler.wait(10) == -signal.SIGKILL
    assert all(not (base / "left-behind").exists() for base in tree.bases.values())


def test_graceful_stop_ends_every_sandbox_and_leaves_no_control_group(start_node, survivors):
    node = start_node()
    marker = f"stop-{os.getpid()}"
    node.python("one", STUBBORN, env={"MARKER": marker})
    node.until_output("one", "up")
    label = tree_label(node.state)
    assert node.stop() == 0
    assert survivors(f"MARKER={marker}", seconds=0) == {}
    assert not node.socket.exists()
    assert not any(name == label for _, names, _ in os.walk("/sys/fs/cgroup/pids") for name in names)


def test_sandbox_killed_from_outside_is_reported_and_leaves_nothing(node, name, survivors):
    node.python(name, STUBBORN, env={"MARKER": f"m-{name}"})
    node.until_output(name, "up")
    os.kill(node.driver.get(name).pid, signal.SIGKILL)
    status = node.wait(name)
    assert (status.exit_reason, status.exit_code) == (ExitReason.FAILED, 137)
    assert survivors(f"MARKER=m-{name}", seconds=0) == {}


def test_second_node_on_the_same_state_refuses_to_start(start_node):
    node = start_node()
    second = subprocess.run(node.arguments, capture_output=True, text=True, timeout=30)
    assert second.returncode == 2
    assert "Another node is running" in second.stderr
    assert node.driver.info().epoch


def test_node_refuses_a_gateway_folder_that_would_show_its_own_socket(start_node, tmp_path):
    arguments = [*start_node().arguments]
    arguments[arguments.index("--state") + 1] = str(tmp_path / "state")
    arguments[arguments.index("--gateway-socket") + 1] = arguments[arguments.index("--socket") + 1] + "-gateway"
    arguments[arguments.index("--socket") + 1] = str(
        Path(arguments[arguments.index("--socket") + 1]).with_name("n.sock")
    )
    refused = subprocess.run(arguments, capture_output=True, text=True, timeout=30)
    assert refused.returncode == 2
    assert "must not hold" in refused.stderr


def test_without_bubblewrap_process_isolation_is_used_and_said(start_node, tmp_path):
    node = start_node("auto", env={"PATH": str(tmp_path)})
    info = node.driver.info()
    assert info.isolation is Isolation.PROCESS
    assert "bubblewrap: not installed" in info.message
    assert "not a container" in info.message


def test_machine_that_cannot_isolate_runs_nothing(start_node, tmp_path):
    node = start_node("auto", env={"PATH": str(tmp_path)}, preexec_fn=forbid_namespaces)
    for ask in (node.driver.info, lambda: node.python("never", "print('ran')")):
        with pytest.raises(DriverError) as caught:
            ask()
        assert caught.value.code == "node.no_isolation"
        assert "bubblewrap" in caught.value.message
    assert list(node.driver.observe()) == []


def test_limits_without_control_groups_are_weaker_and_said_so(start_node):
    node = start_node(limits="rlimits")
    info = node.driver.info()
    assert not {"cpu", "memory"} & set(info.limits)
    assert "memory_per_process" in info.limits
    assert "Not limited here" in info.message
    node.python("greedy", "x = bytearray(400_000_000)")
    assert node.wait("greedy").exit_reason is ExitReason.FAILED
    assert "MemoryError" in node.output("greedy")


def test_size_changes_live_without_control_groups_as_far_as_rights_reach(start_node):
    node = start_node(limits="rlimits")
    script = """
import sys, time
for line in sys.stdin:
    try:
        block = bytearray(int(line))
        print("took", flush=True, file=sys.stderr)
        del block
    except MemoryError:
        print("refused", flush=True, file=sys.stderr)
"""
    started = node.python("sized", script, stdio=True, resources=Resources(memory_bytes=512 * MIB))
    node.running("sized")
    assert answer_to(node, "sized", b"300000000\n") == "took"
    shrunk = node.driver.resize("sized", replace(started.resources, memory_bytes=128 * MIB))
    assert (shrunk.resize_error, shrunk.resources.memory_bytes) == ("", 128 * MIB)
    assert answer_to(node, "sized", b"300000000\n") == "refused"
    below = node.driver.resize("sized", replace(started.resources, memory_bytes=32 * MIB, pids=4))
    grown = node.driver.resize("sized", started.resources)
    if may_raise_limits(node.process.pid):
        assert (grown.resize_error, grown.resources) == ("", started.resources)
        assert answer_to(node, "sized", b"300000000\n") == "took"
    else:
        assert "CAP_SYS_RESOURCE" in grown.resize_error
        assert grown.resources == below.resources


@pytest.mark.skipif(os.geteuid() != 0 or not Path("/usr/bin/python3").exists(), reason="needs root and a system Python")
@pytest.mark.parametrize("isolation", ISOLATIONS)
def test_node_of_an_ordinary_user_isolates_and_limits_processes(start_node, isolation, tmp_path_factory):
    readable = os.access("/usr/bin/python3", os.X_OK) and all(
        parent.stat().st_mode & 0o005 == 0o005 for parent in Path(__file__).resolve().parents
    )
    version = subprocess.run(
        ["/usr/bin/python3", "-c", "import sys; print(sys.version_info >= (3, 11))"], capture_output=True
    )
    if not readable or version.stdout.strip() != b"True":
        pytest.skip("an ordinary user cannot read this checkout or has no Python 3.11")
    folder = Path(tempfile.mkdtemp(prefix="remit-node-"))
    os.chown(folder, 65534, 65534)
    node = start_node(isolation, python="/usr/bin/python3", folder=folder, user=65534, group=65534, extra_groups=[])
    info = node.driver.info()
    assert info.isolation == Isolation(isolation)
    assert {"memory_per_process", "pids"} <= set(info.limits)
    script = """
import os, time
made = 0
try:
    while True:
        if os.fork() == 0:
            time.sleep(60)
            os._exit(0)
        made += 1
except OSError:
    print(made, os.getuid(), os.path.exists("/etc/shadow"))
"""
    node.driver.apply(spec_of("bomb", ("/usr/bin/python3", "-I", "-c", script)))
    assert node.wait("bomb").exit_reason is ExitReason.COMPLETED, node.output("bomb")
    made, user, shadow = node.output("bomb").split()
    assert int(made) < 64
    assert (user, shadow) == ("65534", "False")


def test_node_leaks_no_descriptor_over_many_short_lives(start_node):
    node = start_node()
    before = len(os.listdir(f"/proc/{node.process.pid}/fd"))
    for number in range(40):
        node.apply(f"s{number}", ("/usr/bin/true",), gateway=False)
        if number >= 4:
            node.driver.delete(f"s{number - 4}")
    for number in range(40):
        node.driver.delete(f"s{number}")
    deadline = time.monotonic() + 5
    while len(os.listdir(f"/proc/{node.process.pid}/fd")) > before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(os.listdir(f"/proc/{node.process.pid}/fd")) <= before
    assert list(node.driver.observe()) == []


def test_sandbox_phase_is_pending_or_running_right_after_apply(node, name):
    status = node.apply(name, ("/usr/bin/sleep", "60"), gateway=False)
    assert status.phase in (SandboxPhase.PENDING, SandboxPhase.RUNNING)
    assert node.running(name).started_at is not None


def answer_to(node, name, line):
    before = node.driver.get(name).log_bytes

    async def say():
        _, writer = await node.driver.attach(name)
        writer.write(line)
        await writer.drain()
        await asyncio.to_thread(node.until, name, lambda status: status.log_bytes > before)
        writer.close()
        await writer.wait_closed()

    asyncio.run(say())
    deadline = time.monotonic() + 5
    while asyncio.run(still_attached(node, name)) and time.monotonic() < deadline:
        time.sleep(0.02)
    return node.driver.logs(name, offset=before).data.decode().strip()


async def still_attached(node, name):
    try:
        _, writer = await node.driver.attach(name)
    except DriverError:
        return True
    writer.close()
    await writer.wait_closed()
    await asyncio.sleep(0.05)
    return False


def may_raise_limits(pid):
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("CapEff"))
    return bool(int(line.split()[1], 16) >> 24 & 1)


def spec_of(name, command):
    return SandboxSpec(name=name, command=command, gateway=False)


def join(files):
    def enter():
        for path in files:
            with contextlib.suppress(OSError):
                Path(path).write_text("0")

    return enter


def forbid_namespaces():
    """In a user namespace of its own whose owner may make no further namespaces, as on a locked-down machine."""
    libc = ctypes.CDLL(None, use_errno=True)
    patience = time.monotonic() + 5  # a busy machine refuses a namespace now and then
    while libc.unshare(0x10000000) != 0:
        if time.monotonic() > patience:
            os._exit(100 + ctypes.get_errno())
        time.sleep(0.05)
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text("0 0 1")
    Path("/proc/self/gid_map").write_text("0 0 1")
    Path("/proc/sys/user/max_user_namespaces").write_text("0")
