"""What a sandbox goes through, seen by the driver: start, size, output, end. For both isolations."""

import asyncio
import time
from dataclasses import replace

import pytest

from controlplane.clusters.drivers.local import LocalDriver
from controlplane.clusters.types import (
    MIB,
    DriverError,
    ExitReason,
    Isolation,
    Mount,
    Resources,
    SandboxPhase,
)

pytestmark = pytest.mark.sandbox

FOREVER = "import time\nprint('up', flush=True)\ntime.sleep(600)"


def test_node_says_what_it_isolates_and_limits(node, request):
    info = node.driver.info()
    assert info.isolation == Isolation(request.node.callspec.params["node"])
    assert {"disk", "wall_clock"} <= set(info.limits)
    assert info.cpu_millicores >= 1000
    assert "the kernel is shared" in info.message


def test_applying_twice_makes_one_sandbox(node, name):
    first = node.python(name, FOREVER, labels={"run": "1"})
    second = node.python(name, "print('another')", labels={"run": "2"})
    assert (second.pid, second.labels) == (first.pid, {"run": "1"})
    assert [status.name for status in node.driver.observe()].count(name) == 1


def test_ended_sandbox_stays_known_and_is_not_started_again(node, name):
    node.python(name, "print('once')")
    node.wait(name)
    assert node.python(name, "print('once')").phase is SandboxPhase.EXITED
    assert node.output(name) == "once\n"


def test_exit_code_and_usage_are_reported(node, name):
    node.python(
        name, "import time\nend = time.process_time() + 0.2\nwhile time.process_time() < end: pass\nraise SystemExit(7)"
    )
    status = node.wait(name)
    assert (status.exit_reason, status.exit_code) == (ExitReason.FAILED, 7)
    assert status.cpu_seconds >= 0.2
    assert status.peak_memory_bytes > MIB
    assert status.started_at < status.exited_at


def test_command_killed_by_a_signal_reports_128_and_the_signal(node, name):
    node.python(name, "import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    status = node.wait(name)
    assert (status.exit_reason, status.exit_code) == (ExitReason.FAILED, 137)


def test_missing_program_is_a_failed_start_with_its_name(node, name):
    node.apply(name, ("/nowhere/agent",))
    status = node.wait(name)
    assert status.exit_reason is ExitReason.START_FAILED
    assert status.message == "/nowhere/agent: No such file or directory"


def test_wall_clock_ends_it(node, name):
    node.python(name, FOREVER, wall_clock_seconds=1)
    assert node.wait(name).exit_reason is ExitReason.WALL_CLOCK


def test_deleting_twice_succeeds_and_forgets(node, name):
    node.python(name, FOREVER)
    node.driver.delete(name)
    node.driver.delete(name)
    with pytest.raises(DriverError) as caught:
        node.driver.get(name)
    assert (caught.value.code, caught.value.permanent) == ("sandbox.unknown", True)


def test_name_is_not_used_again_after_deletion(node, name):
    """A late repeat of the request that made it must not start the program a second time."""
    node.python(name, FOREVER)
    node.driver.delete(name)
    with pytest.raises(DriverError, match="was deleted"):
        node.python(name, "print('second')")
    assert name not in {status.name for status in node.driver.observe()}


def test_writable_mount_is_shared_and_read_only_mount_is_read(node, name):
    out, given = node.shared("out"), node.shared("given")
    (given / "order").write_text("7 pears")
    script = "open('/workspace/out/copy', 'w').write(open('/given/order').read())"
    node.python(name, script, mounts=[Mount(str(out), "/workspace/out", writable=True), Mount(str(given), "/given")])
    assert node.wait(name).exit_reason is ExitReason.COMPLETED, node.output(name)
    assert (out / "copy").read_text() == "7 pears"


def test_output_is_read_from_an_offset(node, name):
    node.python(name, "print('0123456789', end='')")
    node.wait(name)
    assert node.driver.logs(name, offset=4, limit=3).data == b"456"
    assert node.driver.logs(name, offset=99).data == b""


def test_flood_of_output_is_capped_and_others_are_still_answered(node, name):
    node.python(name, "import os\nline = b'x' * 65535 + b'\\n'\nwhile True: os.write(1, line)", wall_clock_seconds=600)
    node.until(name, lambda status: status.log_bytes > 8 * MIB)
    began = time.monotonic()
    chunk = node.driver.logs(name, offset=0, limit=100)
    assert time.monotonic() - began < 5
    assert chunk.dropped_bytes == chunk.offset > 6 * MIB
    assert sum(path.stat().st_size for path in node.state.rglob("*") if path.name == name) <= MIB


def test_resize_takes_hold_without_a_restart(node, name):
    # Limits are read where the kernel keeps them: by what the program can do afterwards.
    script = """
import sys, time
print("up", flush=True)
while True:
    time.sleep(0.05)
    try:
        wanted = open("/shared/go").read()
        break
    except FileNotFoundError:
        pass
block = bytearray(b"x" * 120_000_000)
print("took", len(block), flush=True)
"""
    shared = node.shared(name)
    started = node.python(
        name, script, resources=Resources(memory_bytes=64 * MIB), mounts=[Mount(str(shared), "/shared")]
    )
    node.until_output(name, "up")
    resized = node.driver.resize(name, replace(started.resources, memory_bytes=256 * MIB, cpu_millicores=1000, pids=80))
    assert (resized.resize_error, resized.resources.memory_bytes, resized.pid) == ("", 256 * MIB, started.pid)
    (shared / "go").write_text("go")
    assert node.wait(name).exit_reason is ExitReason.COMPLETED
    assert "took 120000000" in node.output(name)


def test_shrinking_below_the_use_is_refused_and_the_old_size_stays(node, name):
    script = "block = bytearray(b'x' * 100_000_000)\n" + FOREVER
    started = node.python(name, script, resources=Resources(memory_bytes=256 * MIB, cpu_millicores=500))
    node.until_output(name, "up")
    refused = node.driver.resize(name, replace(started.resources, memory_bytes=64 * MIB, cpu_millicores=1000))
    assert "memory are in use" in refused.resize_error
    assert refused.resources == started.resources
    assert refused.phase is SandboxPhase.RUNNING
    shrunk = node.driver.resize(name, replace(started.resources, memory_bytes=192 * MIB))
    assert (shrunk.resize_error, shrunk.resources.memory_bytes) == ("", 192 * MIB)


def test_resize_to_more_than_the_machine_is_refused(node, name):
    started = node.python(name, FOREVER)
    refused = node.driver.resize(name, replace(started.resources, cpu_millicores=10_000_000))
    assert "This machine has" in refused.resize_error
    assert refused.resources == started.resources


def test_resize_below_what_anything_needs_is_refused(node, name):
    started = node.python(name, FOREVER)
    refused = node.driver.resize(name, replace(started.resources, pids=0))
    assert "pids must be at least" in refused.resize_error
    assert refused.resources == started.resources


def test_smallest_sandbox_runs(node, name):
    node.apply(name, ("/usr/bin/true",), resources=Resources(50, 16 * MIB, 4, MIB), gateway=True)
    assert node.wait(name, seconds=60).exit_reason is ExitReason.COMPLETED


def test_disk_cannot_be_resized_while_it_runs(node, name):
    started = node.python(name, FOREVER)
    refused = node.driver.resize(name, replace(started.resources, disk_bytes=128 * MIB))
    assert "Disk" in refused.resize_error
    assert refused.resources == started.resources


def test_cpu_limit_holds(node, name):
    if "cpu" not in node.driver.info().limits:
        pytest.skip("CPU is not limited without control groups")
    script = """
import time
began, used = time.monotonic(), time.process_time()
while time.monotonic() - began < 3.0: pass
print((time.process_time() - used) / (time.monotonic() - began))
"""
    node.python(name, script, resources=Resources(cpu_millicores=200))
    node.wait(name)
    assert float(node.output(name)) < 0.5


def test_attached_stream_reaches_standard_input_and_output(node, name):
    script = """
import sys
for line in sys.stdin:
    print(line.strip().upper(), flush=True)
    print("seen", file=sys.stderr, flush=True)
"""
    node.python(name, script, stdio=True)

    async def talk(words):
        reader, writer = await node.driver.attach(name)
        try:
            answers = []
            for word in words:
                writer.write(word + b"\n")
                await writer.drain()
                answers.append(await asyncio.wait_for(reader.readline(), 10))
            return answers
        finally:
            writer.close()
            await writer.wait_closed()

    async def both():
        first = await talk([b"one", b"two"])
        second = await until_attached(lambda: talk([b"three"]))
        return first + second

    assert asyncio.run(both()) == [b"ONE\n", b"TWO\n", b"THREE\n"]
    node.until_output(name, "seen\nseen\nseen\n")
    assert "ONE" not in node.output(name)
    assert node.driver.get(name).phase is SandboxPhase.RUNNING


def test_second_attacher_is_turned_away_while_the_first_is_there(node, name):
    node.python(name, "import sys\nsys.stdin.read()", stdio=True)

    async def two():
        _, writer = await node.driver.attach(name)
        with pytest.raises(DriverError) as caught:
            await node.driver.attach(name)
        writer.close()
        await writer.wait_closed()
        return caught.value

    refusal = asyncio.run(two())
    assert (refusal.code, refusal.permanent) == ("sandbox.attached", False)


def test_attached_stream_carries_a_megabyte_both_ways(node, name):
    node.python(
        name,
        "import os\nwhile data := os.read(0, 65536):\n    while data:\n        data = data[os.write(1, data):]",
        stdio=True,
    )
    payload = bytes(range(256)) * 4096

    async def echo():
        reader, writer = await node.driver.attach(name)
        writing = asyncio.ensure_future(write_all(writer, payload))
        echoed = await asyncio.wait_for(reader.readexactly(len(payload)), 20)
        await writing
        writer.close()
        await writer.wait_closed()
        return echoed

    assert asyncio.run(echo()) == payload


def test_attached_stream_ends_with_the_program(node, name):
    node.python(name, "import sys\nsys.stdin.readline()\nprint('bye')", stdio=True)

    async def last_words():
        reader, writer = await node.driver.attach(name)
        writer.write(b"go\n")
        everything = await asyncio.wait_for(reader.read(), 10)
        writer.close()
        await writer.wait_closed()
        return everything

    assert asyncio.run(last_words()) == b"bye\n"
    assert node.wait(name).exit_reason is ExitReason.COMPLETED


def test_attaching_without_stdio_or_after_the_end_is_refused(node, name):
    node.python(name, FOREVER)
    with pytest.raises(DriverError, match="not created with stdio"):
        asyncio.run(node.driver.attach(name))
    node.driver.delete(name)
    ended = f"{name}-ended"
    node.python(ended, "pass", stdio=True)
    node.wait(ended)
    with pytest.raises(DriverError, match="has ended"):
        asyncio.run(node.driver.attach(ended))
    node.driver.delete(ended)


def test_watch_tells_every_change_until_deletion(node, name):
    async def phases():
        seen = []
        watching = node.driver.watch()
        applied = asyncio.get_running_loop().run_in_executor(None, lambda: live_through(node, name))
        async with asyncio.timeout(20):
            async for status in watching:
                if status.name == name:
                    seen.append(status.phase)
                    if status.phase is SandboxPhase.DELETED:
                        break
        await watching.aclose()
        await applied
        return seen

    seen = asyncio.run(phases())
    assert list(dict.fromkeys(seen))[-3:] == [SandboxPhase.RUNNING, SandboxPhase.EXITED, SandboxPhase.DELETED]


def test_node_that_is_not_there_is_a_passing_failure(tmp_path):
    with pytest.raises(DriverError) as caught:
        LocalDriver(tmp_path / "no.sock").info()
    assert (caught.value.code, caught.value.permanent) == ("driver.unavailable", False)


async def write_all(writer, payload):
    writer.write(payload)
    await writer.drain()


async def until_attached(action):
    while True:
        try:
            return await action()
        except DriverError as error:
            if error.code != "sandbox.attached":
                raise
            await asyncio.sleep(0.02)


def live_through(node, name):
    time.sleep(0.2)
    node.python(name, "print('hello')")
    node.wait(name)
    node.driver.delete(name)
