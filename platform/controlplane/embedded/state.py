"""The state folder: everything an installation remembers lies in it, and one supervisor at a time owns it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path

from controlplane.common.sockets import make_private, socket_folder
from controlplane.embedded.failures import StartError, unusable_folder


class StateFolder:
    """Made and locked by `open`; the lock ends with the process, however it ends."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.logs = self.root / "logs"
        self.sockets = socket_folder(self.root)
        self._lock: int | None = None

    def open(self) -> None:
        """Create what is missing and take the lock. StartError names the process that has it."""
        try:
            make_private(self.root)
            make_private(self.logs)
            make_private(self.sockets)
            self._take_lock()
        except OSError as error:
            raise unusable_folder(self.root, error) from error

    def close(self) -> None:
        if self._lock is not None:
            if self.sockets.parent != self.root:
                shutil.rmtree(self.sockets, ignore_errors=True)
            os.close(self._lock)
            self._lock = None

    def log(self, name: str) -> Path:
        return self.logs / f"{name}.log"

    def secret_key(self) -> str:
        """The installation's own key, made on first use and readable by this user alone."""
        path = self.root / "secret_key"
        try:
            if not path.exists():
                write_private(path, secrets.token_hex(32) + "\n")
            key = path.read_text().strip()
        except OSError as error:
            raise unusable_folder(self.root, error) from error
        if len(key) < 32:
            raise StartError(
                f"{path} does not hold a key of at least 32 characters.",
                "Restore it from your backup; with a new key (delete the file) every session and token ends.",
            )
        return key

    def write_environment(self, values: Mapping[str, str]) -> None:
        """Let `manage.py` in another terminal find this installation's servers (controlplane.config reads it)."""
        lines = "".join(f'{name}="{value}"\n' for name, value in sorted(values.items()))
        try:
            write_private(self.root / "environment", lines)
        except OSError as error:
            raise unusable_folder(self.root, error) from error

    def _take_lock(self) -> None:
        descriptor = os.open(self.root / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.read(descriptor, 32).decode(errors="replace").strip()
            os.close(descriptor)
            raise StartError(
                f"Remit is already running on {self.root} (process {owner or 'unknown'}).",
                f"Stop it with Ctrl-C in its terminal or `kill {owner or 'PID'}`, or choose another STATE=folder.",
            ) from None
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        self._lock = descriptor


def write_private(path: Path, text: str) -> None:
    """Write for this user alone; readers see the old content or the new, never half of it."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            unfinished.unlink()
        raise
