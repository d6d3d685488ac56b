"""Commands in another terminal: whether the installation they mean runs, and how to type them for this one."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from controlplane.embedded.own_processes import ROOT

DEFAULT_STATE: Final = ROOT / ".remit"
# They work on the database of a running Remit. Others (check, makemigrations, configuration …) need none.
_NEED_IT_RUNNING: Final = frozenset(
    {"audit", "bundle", "costs", "dbshell", "demo", "migrate", "organisation", "person", "prepare", "prices", "secrets"}
    | {"seed_size", "shell", "showmigrations", "signin", "token", "web", "worker"}
)


def require_running(arguments: Sequence[str]) -> None:
    """Ends with a sentence when the command needs the embedded database and nothing runs on its state folder.

    Whoever names servers of their own (DATABASE_URL) is not asked: only those can say whether they run.
    """
    if not arguments or arguments[0] not in _NEED_IT_RUNNING or os.environ.get("DATABASE_URL"):
        return
    if {"-h", "--help"} & set(arguments[1:]):
        return
    state = Path(os.environ.get("STATE_DIR") or DEFAULT_STATE).absolute()
    if not _is_running(state):
        sys.exit(
            f"Remit is not running here: nothing uses the state folder {state}.\n"
            f"  Start it with {start_command(state)}, or name the folder of the Remit you mean: "
            f"STATE_DIR=folder {manage_command(DEFAULT_STATE)} {arguments[0]} …\n"
            "  With servers of your own, set DATABASE_URL and REDIS_URL."
        )


@contextlib.contextmanager
def said_plainly() -> Iterator[None]:
    """A database that does not answer ends a command with a sentence instead of a traceback."""
    try:
        yield
    except Exception as error:
        from controlplane.common.outages import outage_of

        if outage_of(error) is None:
            raise
        reason = " ".join(str(error).split())
        sys.exit(f"The database does not answer: {reason}\n  Check DATABASE_URL, and that the server runs.")


def manage_command(state: Path) -> str:
    """How `manage.py` is called from where we are, for the installation in this folder."""
    here = "./manage.py" if Path.cwd() == ROOT else str(ROOT / "manage.py")
    given = "" if state.absolute() == DEFAULT_STATE else f"STATE_DIR={shlex.quote(str(state.absolute()))} "
    return f"{given}{shlex.quote(here)}"


def start_command(state: Path) -> str:
    return "`make run`" if state == DEFAULT_STATE else f"`make run STATE={shlex.quote(str(state))}`"


def _is_running(state: Path) -> bool:
    """Whether somebody holds the folder's lock. A folder that can't be read is left to the command itself."""
    try:
        with (state / "lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:  # BlockingIOError: held
        return True
    return False
