"""Commands in another terminal: they run as typed, and end in a sentence where there is nothing to talk to."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from controlplane.common.sockets import gateway_socket, make_private
from controlplane.embedded.listening import listen_unix

from .conftest import ROOT, free_port, plain_environment

MANAGE = ROOT / "manage.py"
APPS = ("platform", "agents", "budgets", "governance", "frontend")
# It lists variables; it starts the servers; it owns sandboxes and asks nobody.
NEED_NO_DATABASE = {"configuration", "up", "localnode"}
NOWHERE = "postgresql://nobody@127.0.0.1:1/none"


def manage(*arguments: str, python: str = sys.executable, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [python, str(MANAGE), *arguments],
        env=plain_environment(**environment),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_the_command_runs_as_it_is_printed_with_a_python_that_has_nothing_installed() -> None:
    bare = Path(sys.base_prefix) / "bin" / "python3"
    if not (ROOT / ".venv" / "bin" / "python").exists() or not bare.exists():
        pytest.skip("no .venv here, or no Python outside of it")
    assert os.access(MANAGE, os.X_OK)
    done = manage("version", python=str(bare))
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().startswith("5.")


def own_commands() -> list[str]:
    """Every management command of the project."""
    found = [path.stem for app in APPS for path in (ROOT / app).glob("**/management/commands/*.py")]
    return sorted(name for name in found if name != "__init__")


@pytest.mark.parametrize("command", [name for name in own_commands() if name not in NEED_NO_DATABASE])
def test_a_command_for_a_remit_that_is_stopped_says_so(tmp_path: Path, command: str) -> None:
    """One added later is tried too: it belongs to the commands that need a running Remit, or above."""
    done = manage(command, "anything", STATE_DIR=str(tmp_path / "state"))
    assert done.returncode == 1
    assert "Remit is not running here" in done.stderr
    assert f"make run STATE={tmp_path / 'state'}" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_the_commands_that_need_no_database_are_there() -> None:
    assert set(own_commands()) > NEED_NO_DATABASE


def test_a_state_folder_left_by_a_stopped_remit_is_not_taken_for_a_running_one(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text("4711\n")
    (tmp_path / "environment").write_text(f'DATABASE_URL="{NOWHERE}"\nSECRET_KEY="{"k" * 40}"\nREDIS_URL="unix:///x"\n')
    done = manage("audit", "verify", STATE_DIR=str(tmp_path))
    assert done.returncode == 1
    assert "Remit is not running here" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_database_of_ones_own_that_is_away_is_named(tmp_path: Path) -> None:
    done = manage(
        *("audit", "verify"), STATE_DIR=str(tmp_path), DATABASE_URL=NOWHERE, REDIS_URL="unix:///x", SECRET_KEY="k" * 40
    )
    assert done.returncode == 1
    assert "The database does not answer" in done.stderr
    assert "Check DATABASE_URL" in done.stderr
    assert "Traceback" not in done.stderr


def test_help_needs_nothing_running(tmp_path: Path) -> None:
    done = manage("signin", "--help", STATE_DIR=str(tmp_path))
    assert done.returncode == 0
    assert "--user" in done.stdout


def test_a_second_web_process_does_not_take_the_sandboxes_way_out_from_the_first(tmp_path: Path) -> None:
    gateway = gateway_socket(tmp_path)
    make_private(gateway.parent)
    listener, port = listen_unix(gateway), free_port()
    with listener:
        done = manage(
            *("web", "--port", str(port)),
            STATE_DIR=str(tmp_path),
            **{name: os.environ[name] for name in ("DATABASE_URL", "REDIS_URL", "SECRET_KEY")},
        )
        assert done.returncode == 1
        assert "--no-gateway-socket" in done.stderr
        assert "Traceback" not in done.stderr
        with socket.socket(socket.AF_UNIX) as sandbox:
            sandbox.connect(str(gateway))
