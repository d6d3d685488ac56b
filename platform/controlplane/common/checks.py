"""What must be configured before this process serves anyone. Commands like `--help` and the linters run without."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning

_NEEDED = {
    "SECRET_KEY": ("secret_key", "signs sessions and permits; make one with `openssl rand -hex 32` and keep it"),
    "DATABASE_URL": ("database_url", "says where PostgreSQL is: postgresql://user:password@host:5432/remit"),
    "REDIS_URL": ("redis_url", "says where Valkey or Redis is: redis://host:6379/0 or unix:///path/to/socket"),
}


def refuse_to_serve_unconfigured(**_: Any) -> None:
    """Ends the process with code 2 and what to set. Web, worker and beat call it before they take work."""
    missing = [f"{name} is not set: it {purpose}." for name, (field, purpose) in _NEEDED.items() if not _value(field)]
    if missing:
        message = "Remit can't serve yet.\n  " + "\n  ".join(missing) + "\n`make run` sets all of them for one machine."
        sys.stderr.write(message + "\n")
        raise SystemExit(2)


def check_deployment(app_configs: Sequence[Any] | None, **_: Any) -> list[CheckMessage]:  # noqa: ARG001
    """`manage.py check --deploy`: what a site that people reach over a network needs."""
    config = settings.CONFIG
    found: list[CheckMessage] = [
        Error(f"{name} is not set.", hint=f"It {purpose}.", id=f"remit.E{number:03}")
        for number, (name, (field, purpose)) in enumerate(_NEEDED.items(), start=1)
        if not _value(field)
    ]
    if config.debug:
        found.append(Error("REMIT_DEBUG is on.", hint="It shows the inside of errors to everyone.", id="remit.E010"))
    if "*" in settings.ALLOWED_HOSTS:
        found.append(Error("ALLOWED_HOSTS is “*”.", hint="Name the hosts people use.", id="remit.E011"))
    if not config.secure:
        found.append(
            Warning("PUBLIC_URL is not https.", hint="Cookies and tokens travel in the clear.", id="remit.W001")
        )
    return found


def _value(field: str) -> object:
    return getattr(settings.CONFIG, field)
