"""Wishes that would open the host, and requests that make no sense, are refused with a reason and start nothing."""

import json
import socket

import pytest

from controlplane.clusters.types import MIB, DriverError, Mount, Resources

pytestmark = pytest.mark.sandbox


@pytest.fixture
def refused(node):
    """Apply and return the refusal; nothing must have come into being."""

    def apply(name="refused", command=("/usr/bin/true",), **fields):
        with pytest.raises(DriverError) as caught:
            node.apply(name, command, **fields)
        assert name not in [status.name for status in node.driver.observe()]
        assert caught.value.permanent
        return caught.value.message

    return apply


@pytest.mark.parametrize("name", ["", "../up", "a/b", "A", "-a", "x" * 64, "a\nb", "a\0"])
def test_name_that_could_be_a_path_is_refused(refused, name):
    assert "name must be" in refused(name)


def test_command_must_name_a_program(refused):
    assert "command" in refused(command=())
    assert "command" in refused(command=("",))
    assert "command" in refused(command=("a\0b",))


@pytest.mark.parametrize(
    "size",
    [{"memory_bytes": 15 * MIB}, {"cpu_millicores": 0}, {"pids": -1}, {"disk_bytes": 0}, {"memory_bytes": 2**60}],
)
def test_senseless_size_is_refused(refused, size):
    assert refused(resources=Resources(**size))


@pytest.mark.parametrize("seconds", [0, -5, 10**9])
def test_senseless_wall_clock_is_refused(refused, seconds):
    assert "wall_clock_seconds" in refused(wall_clock_seconds=seconds)


@pytest.mark.parametrize("source", ["/", "/proc", "/sys/fs", "/dev", "relative", "/nowhere/at/all", "/tmp/../etc"])
def test_mount_of_the_machine_is_refused(refused, source):
    assert "mount source" in refused(mounts=[Mount(source, "/data")])


def test_mount_that_shows_the_nodes_own_files_is_refused(node, refused):
    for source in (node.folder, node.state, node.state / "logs", node.socket.parent, node.gateway_socket.parent):
        source.mkdir(exist_ok=True)
        assert "node's own files" in refused(mounts=[Mount(str(source), "/data")])


@pytest.mark.parametrize("target", ["/", "/proc/x", "/etc", "/run/remit/inside.py", "/usr", "data", "/a/../b", "/a//b"])
def test_mount_over_the_sandboxs_own_places_is_refused(node, refused, target):
    assert "mount target" in refused(mounts=[Mount(str(node.shared("plain")), target)])


def test_mount_inside_a_writable_mount_is_refused(node, refused):
    outer, inner = node.shared("outer"), node.shared("inner")
    mounts = [Mount(str(outer), "/work", writable=True), Mount(str(inner), "/work/link")]
    assert "inside a writable mount" in refused(mounts=mounts)


def test_environment_name_is_checked_and_the_value_is_not_repeated(refused):
    message = refused(secrets={"BAD=NAME": "hunter2"})
    assert "Environment names" in message
    assert "hunter2" not in message
    assert "hunter2" not in refused(secrets={"GOOD": "hunter2\0"})


@pytest.mark.parametrize(
    "line",
    [
        b"not json\n",
        b"[]\n",
        b'{"verb": "fly"}\n',
        b'{"verb": "get"}\n',
        b'{"verb": "apply", "spec": 7}\n',
        b'{"verb": "apply", "spec": {"name": "a", "command": "true"}}\n',
        b'{"verb": "logs", "name": "a", "offset": "x"}\n',
        b'{"verb": "resize", "name": "a"}\n',
        b"\xff\xfe\n",
    ],
)
def test_malformed_request_is_answered_and_the_connection_goes_on(node, line):
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        connection.connect(str(node.socket))
        stream = connection.makefile("rwb")
        for request in (line, b'{"verb": "info"}\n'):
            stream.write(request)
            stream.flush()
            answer = json.loads(stream.readline())
            assert answer["ok"] is (request is not line)
        stream.close()


def test_endless_line_is_cut_off(node):
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        connection.connect(str(node.socket))
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            connection.sendall(b"x" * 20_000_000)
    assert node.driver.info().epoch


def test_socket_and_state_are_for_their_owner_alone(node):
    modes = {path: path.stat().st_mode & 0o777 for path in (node.socket, node.socket.parent, node.state)}
    assert list(modes.values()) == [0o600, 0o700, 0o700]
