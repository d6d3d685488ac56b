"""Every start that cannot work says so in a sentence with a remedy, ends with a code and leaves nothing running."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from controlplane.embedded.state import StateFolder

from .conftest import ROOT, Up, free_port, plain_environment


def _assert_refused(up: Up, *words: str) -> None:
    try:
        assert up.ended() == 1, up.screen
        assert "Traceback" not in up.screen
        assert up.screen.count("Remit did not start.") == 1
        for word in words:
            assert word in up.screen
        assert not up.descendants()
    finally:
        up.close()


def _in_mount_namespace(command: str) -> tuple[str, ...]:
    """Run `command` (a mount) and then the rest, where nobody else sees the mount and it goes with the process."""
    unshare = shutil.which("unshare")
    if unshare is None or subprocess.run([unshare, "-Urm", "true"], check=False, capture_output=True).returncode != 0:
        pytest.skip("this machine does not let tests mount a file system of their own")
    user = () if os.geteuid() == 0 else ("--user", "--map-root-user")
    return (unshare, *user, "--mount", "sh", "-c", f'{command} && exec "$@"', "sh")


def test_a_taken_port(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        up = Up(tmp_path / "state", "--port", str(port))
        _assert_refused(up, f"Port {port} on 127.0.0.1 is taken", f"PORT={port + 1}")
        assert not (tmp_path / "state").exists()


@pytest.mark.parametrize("port", ["70000", "0", "-1", "abc", "", "80 80", "²"])
def test_a_port_that_is_none(tmp_path: Path, port: str) -> None:
    _assert_refused(Up(tmp_path / "state", f"--port={port}"), f"“{port}”", "from 1 to 65535")
    assert not (tmp_path / "state").exists()


def test_a_host_of_another_machine(tmp_path: Path) -> None:
    _assert_refused(Up(tmp_path / "state", "--host", "192.0.2.1"), "Nothing can listen on 192.0.2.1", "of this machine")


def test_a_second_start_on_the_same_state_names_the_first(state: StateFolder) -> None:
    _assert_refused(Up(state.root), f"already running on {state.root} (process {os.getpid()})", f"kill {os.getpid()}")


def test_a_state_folder_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    _assert_refused(Up(tmp_path / "file" / "state"), "cannot be written: Not a directory", "STATE=")


def test_a_state_folder_on_a_read_only_disk(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    folder.mkdir()
    wrapper = _in_mount_namespace(f"mount -t tmpfs -o ro tmpfs '{folder}'")
    _assert_refused(Up(folder, wrapper=wrapper), "cannot be written: Read-only file system", "STATE=")


def test_a_full_disk_found_before_the_database_is_made(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    folder.mkdir()
    wrapper = _in_mount_namespace(f"mount -t tmpfs -o size=20m tmpfs '{folder}'")
    _assert_refused(Up(folder, wrapper=wrapper), "The disk that holds", "is full", "Free some space")


def test_a_disk_that_is_full_when_the_database_starts(fresh_cluster: Path, tmp_path: Path) -> None:
    folder = tmp_path / "state"
    folder.mkdir()
    mount = f"mount -t tmpfs -o size=256m,mode=700 tmpfs '{folder}' && cp -r '{fresh_cluster}' '{folder}/postgres'"
    fill = f"head -c 300m /dev/zero > '{folder}/filler' 2>/dev/null; test -s '{folder}/filler'"
    _assert_refused(Up(folder, wrapper=_in_mount_namespace(f"{mount} && {fill}")), "is full", "Free some space")


@pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user needs no user namespace")
def test_a_kernel_that_refuses_user_namespaces(tmp_path: Path) -> None:
    wrapper = ("unshare", "-Ur", "sh", "-c", 'echo 0 > /proc/sys/user/max_user_namespaces && exec "$@"', "sh")
    if subprocess.run([*wrapper, "true"], check=False, capture_output=True).returncode != 0:
        pytest.skip("this machine does not let tests forbid user namespaces")
    up = Up(tmp_path / "state", wrapper=wrapper)
    _assert_refused(up, "PostgreSQL does not run as root", "refuses user namespaces", "ordinary user", "DATABASE_URL")


def test_data_of_another_postgresql(tmp_path: Path) -> None:
    data = tmp_path / "state" / "postgres"
    data.mkdir(parents=True)
    (data / "PG_VERSION").write_text("16\n")
    _assert_refused(Up(tmp_path / "state"), "data of PostgreSQL 16", "pg_dump")


def test_a_damaged_key(tmp_path: Path, fresh_cluster: Path) -> None:
    state = tmp_path / "state"
    shutil.copytree(fresh_cluster, state / "postgres")
    (state / "secret_key").write_text("")
    _assert_refused(Up(state), "secret_key does not hold a key", "backup")


def test_a_python_that_is_too_old() -> None:
    """manage.py is read by whatever Python the person has; only its version is made up here."""
    program = (
        "import sys, runpy; sys.version_info = (3, 9, 2, 'final', 0); sys.version = '3.9.2 (main)'; "
        f"sys.argv = ['manage.py', 'up']; runpy.run_path({str(ROOT / 'manage.py')!r}, run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Remit needs Python 3.11 or newer; this is 3.9.2" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture
def bare_machine(tmp_path: Path) -> Path:
    """A checkout whose PATH holds make, a shell and a few tools, and whatever `python3` the test puts there."""
    for name in ("Makefile", "manage.py", "requirements.txt", "requirements-dev.txt"):
        shutil.copy(ROOT / name, tmp_path)
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("make", "sh", "awk", "test", "touch", "rm"):
        (programs / name).symlink_to(shutil.which(name))
    return tmp_path


def _make_run(machine: Path) -> subprocess.CompletedProcess[str]:
    environment = plain_environment(PATH=str(machine / "programs"))
    environment = {name: value for name, value in environment.items() if not name.startswith(("MAKE", "MFLAGS"))}
    command = ["make", "run", f"PORT={free_port()}"]
    return subprocess.run(command, cwd=machine, env=environment, capture_output=True, text=True, check=False)


def _python(machine: Path, text: str) -> None:
    path = machine / "programs" / "python3"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def test_make_run_without_any_new_enough_python(bare_machine: Path) -> None:
    _python(bare_machine, 'case "$*" in *version_info*) exit 1;; --version) echo Python 3.9.2;; esac')
    done = _make_run(bare_machine)
    assert done.returncode != 0
    assert "Remit needs Python 3.11 or newer, and there is none on the PATH" in done.stdout
    assert not (bare_machine / ".venv").exists()


def test_make_run_with_a_python_that_cannot_make_environments(bare_machine: Path) -> None:
    _python(bare_machine, 'case "$*" in *ensurepip*) exit 1;; *) exit 0;; esac')
    done = _make_run(bare_machine)
    assert done.returncode != 0
    assert "cannot make virtual environments" in done.stdout
    assert "apt-get install python3-venv" in done.stdout
