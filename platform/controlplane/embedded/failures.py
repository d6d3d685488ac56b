"""Why a start did not work, as a sentence with a remedy: what people read instead of a traceback."""

from __future__ import annotations

import errno
from pathlib import Path


class StartError(Exception):
    """The start ends here. `message` says what is wrong, `remedy` what to do about it."""

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message}\n  {self.remedy}"


def unusable_folder(path: Path, error: OSError) -> StartError:
    """The state folder cannot be made or written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return disk_full(path)
    return StartError(
        f"The state folder {path} cannot be written: {error.strerror or error}.",
        "Choose a folder of your own with `make run STATE=folder` or `./manage.py up --state folder`.",
    )


def disk_full(path: Path) -> StartError:
    return StartError(
        f"The disk that holds {path} is full.",
        "Free some space (a new installation needs about 150 MB), or choose another disk with `make run STATE=folder`.",
    )


def ended_early(name: str, code: int, log: Path, excerpt: str) -> StartError:
    """A server or process ended while it was being started."""
    if "No space left on device" in excerpt:
        return disk_full(log.parent)
    how = f"signal {-code}" if code < 0 else f"code {code}"
    lines = "".join(f"\n    {line}" for line in excerpt.splitlines()[-8:])
    return StartError(f"{name} ended before it was ready ({how}).{lines}", f"The whole log is in {log}.")
