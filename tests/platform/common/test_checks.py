"""A process without configuration refuses to serve, by name and with a remedy; commands that serve nobody still run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from django.conf import settings

from controlplane.common.checks import check_deployment, refuse_to_serve_unconfigured

ROOT = Path(__file__).resolve().parents[3]
NEEDED = ("SECRET_KEY", "DATABASE_URL", "REDIS_URL")


def start(*command: str, without: tuple[str, ...] = NEEDED) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name not in without}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    return subprocess.run(
        [sys.executable, *command], env=environment, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize("missing", NEEDED)
def test_what_is_missing_is_named_and_what_is_there_is_not(missing: str, monkeypatch, capsys) -> None:
    monkeypatch.setattr(settings.CONFIG, missing.lower(), "")
    with pytest.raises(SystemExit) as ended:
        refuse_to_serve_unconfigured()
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert [name for name in NEEDED if f"{name} is not set" in said] == [missing]
    assert "`make run`" in said


def test_a_configured_process_serves() -> None:
    refuse_to_serve_unconfigured()


@pytest.mark.parametrize(
    "command", [("-c", "import controlplane.asgi"), ("-m", "celery", "-A", "controlplane", "worker", "--pool", "solo")]
)
def test_web_and_worker_refuse(command: tuple[str, ...]) -> None:
    done = start(*command)
    assert done.returncode == 2
    assert "Remit can't serve yet" in done.stderr
    assert "Traceback" not in done.stderr


def test_help_needs_no_configuration() -> None:
    assert start("manage.py", "token", "issue", "--help").returncode == 0


def test_the_deployment_check_names_what_is_unsafe(monkeypatch) -> None:
    assert {message.id for message in check_deployment(None)} == {"remit.W001"}  # tests speak plain http
    monkeypatch.setattr(settings.CONFIG, "debug", True)
    monkeypatch.setattr(settings.CONFIG, "secret_key", "")
    monkeypatch.setattr(settings, "ALLOWED_HOSTS", ["*"])
    assert {message.id for message in check_deployment(None)} == {
        "remit.E001",
        "remit.E010",
        "remit.E011",
        "remit.W001",
    }
    monkeypatch.setattr(settings.CONFIG, "public_url", "https://remit.example")
    assert "remit.W001" not in {message.id for message in check_deployment(None)}


def test_a_site_that_is_set_up_as_the_documents_say_is_told_nothing_that_nobody_can_set(tmp_path: Path) -> None:
    """Django's own advice names settings that follow from PUBLIC_URL here, or are a proxy's work."""
    environment = {
        **os.environ,
        "PUBLIC_URL": "https://remit.acme.example",
        "ALLOWED_HOSTS": "remit.acme.example",
        "SECRET_KEY": "0123456789abcdef" * 2,
        "STATE_DIR": str(tmp_path),
    }
    environment.pop("REMIT_DEBUG", None)
    done = subprocess.run(
        [sys.executable, "manage.py", "check", "--deploy"],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, "WARNINGS" in done.stderr) == (0, False), done.stderr
