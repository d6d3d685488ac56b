"""A hostile program inside a sandbox finds no way out, whichever isolation holds it."""

import ast
import contextlib
import ctypes
import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from controlplane.clusters.types import MIB, DriverError, ExitReason, Mount, Resources

pytestmark = pytest.mark.sandbox

PROGRAM = Path(__file__).with_name("hostile.py")
ATTEMPTS = [
    function.name
    for function in ast.parse(PROGRAM.read_text()).body
    if isinstance(function, ast.FunctionDef) and function.decorator_list
]
# Refusals by name: an attack that fails for another reason than the fence proves nothing.
NO_ROUTE = {"ECONNREFUSED", "ENETUNREACH", "EADDRNOTAVAIL"}
REFUSED = {"EPERM", "EACCES"}
NOT_THERE = {"ENOENT"}
EXPECTED = {
    "host_loopback": NO_ROUTE,
    "host_loopback_v6": NO_ROUTE,
    "internet": NO_ROUTE,
    "internet_datagram": NO_ROUTE,
    "raw_socket": REFUSED,
    "packet_socket": {"EAFNOSUPPORT"},
    "machine_socket": {"EAFNOSUPPORT"},
    "kernel_crypto_socket": {"EAFNOSUPPORT"},
    "audit_netlink_socket": REFUSED,
    "host_abstract_socket": {"ECONNREFUSED"},
    "node_socket": NOT_THERE,
    "host_password_file": NOT_THERE,
    "host_shadow_file": NOT_THERE,
    "node_state": NOT_THERE,
    "secret_of_the_host": NOT_THERE,
    "secret_of_the_host_through_a_link": NOT_THERE,
    "secret_of_the_host_through_dots": NOT_THERE,
    "files_of_another_run": NOT_THERE,
    "kernel_interface": NOT_THERE,
    "cgroup_files": NOT_THERE,
    "write_programs": {"EROFS", "EACCES"},
    "write_read_only_mount": {"EROFS", "EACCES"},
    "write_the_root": {"EROFS", "EACCES"},
    "write_devices": {"EROFS", "EACCES"},
    "crash_handler": {"EROFS", "EACCES"},
    "any_machine_setting": {"EROFS"},
    "memory_of_the_first_process": REFUSED,
    "environment_of_the_first_process": REFUSED,
    "other_processes": {"ESRCH"},
    "signal_the_first_process": REFUSED,
    "signal_a_host_process": {"ESRCH"},
    "become_root": {"EINVAL"},  # there is no user 0 inside
    "calls_of_the_other_numbering": {"ENOSYS"},
    "calls_of_the_32_bit_kind": {"died"},
    "user_namespace_by_clone3": {"ENOSYS"},
    "inherited_descriptors": {"EBADF"},
}
# Tried outside too, where they hurt nobody: an attack that never works would prove nothing.
HARMLESS = [
    "host_loopback",
    "host_abstract_socket",
    "node_socket",
    "host_password_file",
    "node_state",
    "secret_of_the_host",
    "files_of_another_run",
    "other_processes",
    "signal_a_host_process",
    "kernel_interface",
]
PYTHON = os.path.realpath(sys.executable)


@pytest.fixture(scope="module")
def hostile_results(node):
    """One hostile run per isolation; the tests below each judge one attempt of it."""
    canary = node.folder / "canary"
    canary.write_text("the host's secret")
    other = node.shared("other-run")
    (other / "notes").write_text("another run's notes")
    with socket.create_server(("127.0.0.1", 0)) as loopback, socket.socket(socket.AF_UNIX) as abstract:
        abstract.bind("\0remit-test-abstract")
        abstract.listen()
        environment = {
            "HOST_PORT": str(loopback.getsockname()[1]),
            "HOST_ABSTRACT": "remit-test-abstract",
            "NODE_SOCKET": str(node.socket),
            "STATE": str(node.state),
            "CANARY": str(canary),
            "OTHER_RUN": str(other),
            "SHARED": "/shared",
            "READ_ONLY": "/read-only",
            "HOST_PID": str(os.getpid()),
        }
        node.apply(
            "hostile",
            (PYTHON, "-I", "/hostile.py"),
            mounts=[
                Mount(str(PROGRAM), "/hostile.py"),
                Mount(str(node.shared("own")), "/shared", writable=True),
                Mount(str(node.shared("read-only")), "/read-only"),
            ],
            env=environment,
        )
        status = node.wait("hostile")
        output = node.output("hostile")
        control = subprocess.run(
            [PYTHON, "-I", str(PROGRAM), *HARMLESS], env=environment, capture_output=True, check=True
        ).stdout
    assert status.exit_reason is ExitReason.COMPLETED, (status, output)
    node.driver.delete("hostile")
    return json.loads(output), json.loads(control)


@pytest.mark.parametrize("attempt", ATTEMPTS)
def test_attempt_is_refused(hostile_results, attempt):
    inside, _ = hostile_results
    assert inside[attempt] in EXPECTED.get(attempt, REFUSED)


@pytest.mark.parametrize("attempt", HARMLESS)
def test_attempt_would_succeed_without_a_sandbox(hostile_results, attempt):
    _, outside = hostile_results
    assert outside[attempt].startswith("GOT")


def test_list_of_expected_refusals_names_only_attempts():
    assert set(EXPECTED) <= set(ATTEMPTS)


def test_link_made_inside_shows_the_host_nothing_when_mounted_again(node, name):
    shared = node.shared("links")
    (shared / "way").symlink_to(node.folder)
    with pytest.raises(Exception, match="through a link"):
        node.apply(name, ("true",), mounts=[Mount(str(shared / "way"), "/way")])


def test_folder_exchanged_for_a_link_while_it_is_mounted_shows_nothing_of_the_host(node, name):
    """A sandbox that may write beside its folder has milliseconds between the check of a path and its mount."""
    shared, secret = node.shared("exchanged"), node.folder / "hidden"
    secret.mkdir(exist_ok=True)
    (secret / "who").write_text("the host")
    (shared / "folder").mkdir()
    (shared / "folder" / "who").write_text("the run")
    (shared / "link").symlink_to(os.path.relpath(secret, shared))  # found from any root
    over = threading.Event()

    def exchange():
        libc, both = ctypes.CDLL(None), (str(shared / "folder").encode(), str(shared / "link").encode())
        while not over.is_set():
            assert libc.renameat2(-100, both[0], -100, both[1], 2) == 0  # RENAME_EXCHANGE
            time.sleep(0.004)

    exchanging = threading.Thread(target=exchange)
    exchanging.start()
    seen, refused = [], 0
    try:
        for number in range(40):
            turn = f"{name}-{number}"
            mounts = [Mount(str(shared / "folder"), "/data")]
            try:
                node.apply(turn, ("/usr/bin/cat", "/data/who"), gateway=False, mounts=mounts)
            except DriverError:
                continue
            status = node.wait(turn)
            refused += "was put in its place" in status.message
            seen.append(node.output(turn))
            node.driver.delete(turn)
    finally:
        over.set()
        exchanging.join()
    assert "the host" not in "".join(seen)
    assert refused, "no exchange ever fell into the gap"


def test_fork_bomb_is_contained(node, name):
    script = """
import os, sys, time
made = 0
try:
    for _ in range(500):
        if os.fork() == 0:
            time.sleep(60)
            os._exit(0)
        made += 1
except OSError as error:
    print("stopped at", made, error.strerror)
"""
    node.python(name, script, resources=Resources(pids=20))
    status = node.wait(name)
    assert status.exit_reason is ExitReason.COMPLETED
    assert 5 <= int(node.output(name).split()[2]) < 20


def test_memory_bomb_ends_as_out_of_memory(node, name):
    node.python(
        name, "x = []\nwhile True: x.append(bytearray(b'x' * 4_000_000))", resources=Resources(memory_bytes=64 * MIB)
    )
    status = node.wait(name)
    assert status.exit_reason is ExitReason.OUT_OF_MEMORY
    assert 32 * MIB < status.peak_memory_bytes <= 64 * MIB


@pytest.mark.parametrize("folder", ["/tmp", "/workspace", "/dev/shm"])
def test_disk_fill_is_contained(node, name, folder):
    script = f"""
import errno
try:
    with open("{folder}/fill", "wb") as stream:
        for _ in range(200):
            stream.write(b"x" * 1_000_000)
except OSError as error:
    print(errno.errorcode[error.errno])
"""
    node.python(name, script, resources=Resources(disk_bytes=16 * MIB))
    node.wait(name)
    assert node.output(name).strip() in {"ENOSPC", "EFBIG"}


def test_no_process_survives_deletion(node, name, survivors):
    script = """
import os, signal, time
for number in range(1, 65):
    try:
        signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError):
        pass
for _ in range(5):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            while True:
                time.sleep(1)
        os._exit(0)
print("spread", flush=True)
while True:
    time.sleep(1)
"""
    node.python(name, script, env={"MARKER": f"marker-{name}"})
    node.until_output(name, "spread")
    assert len(survivors(f"MARKER=marker-{name}", at_least=6)) >= 6
    node.driver.delete(name)
    assert survivors(f"MARKER=marker-{name}", seconds=0) == {}


def test_background_processes_end_with_the_command(node, name, survivors):
    node.python(
        name, "import os, time\nif os.fork() == 0:\n    os.setsid()\n    time.sleep(60)", env={"MARKER": f"m-{name}"}
    )
    assert node.wait(name).exit_reason is ExitReason.COMPLETED
    assert survivors(f"MARKER=m-{name}", seconds=0) == {}


def test_secret_is_in_no_command_line_no_list_no_log_and_no_file_of_the_node(node, name):
    secret = "hunter2-" + name
    node.python(
        name, "import os, time; print(len(os.environ['KEY']), flush=True); time.sleep(60)", secrets={"KEY": secret}
    )
    node.until_output(name, str(len(secret)))
    command_lines = b"".join(every_command_line())
    assert b"inside.py" in command_lines
    assert secret.encode() not in command_lines
    assert secret not in repr(node.driver.observe())
    assert secret not in node.log_text()
    for path in node.state.rglob("*"):
        assert not path.is_file() or secret.encode() not in path.read_bytes()


def test_environment_is_only_what_was_given(node, name):
    node.python(name, "import os; print(sorted(os.environ))", env={"GIVEN": "1"})
    node.wait(name)
    assert set(ast.literal_eval(node.output(name))) <= {"GIVEN", "HOME", "LANG", "PATH", "PWD", "TMPDIR", "LC_CTYPE"}


def every_command_line():
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            yield path.read_bytes()
