"""Where unix sockets live and how their folders are kept private. Used before Django is: standard library only."""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from pathlib import Path

# A socket's address holds 107 bytes on Linux, 103 on macOS; the longest name we put behind the folder has 14.
LONGEST_FOLDER = 88


def socket_folder(state: Path) -> Path:
    """`run` in the state folder; where that is too long for a socket address, a short one of this user's instead."""
    folder = state.absolute() / "run"
    path = os.fsencode(folder)
    if len(path) <= LONGEST_FOLDER:
        return folder
    return Path(tempfile.gettempdir()) / f"remit-{os.geteuid()}-{hashlib.sha256(path).hexdigest()[:12]}"


def gateway_socket(state: Path) -> Path:
    """The web process's socket for sandboxes. Alone in its folder, because sandboxes see all of that folder."""
    return socket_folder(state) / "gate" / "web.sock"


def make_private(folder: Path) -> None:
    """Create the folder for this user alone. PermissionError when it is a link or somebody else's."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise PermissionError(f"{folder} belongs to somebody else")
    if stat.S_IMODE(found.st_mode) != 0o700:
        folder.chmod(0o700)
