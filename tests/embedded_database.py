"""Early pytest plugin (`-p`): one throw-away PostgreSQL and Valkey, made before Django reads its settings.

It acts at import because pytest-django reads the settings before any conftest. Both servers die with this
process, however it ends.
"""

from __future__ import annotations

import atexit
import os
import secrets
import shutil
import sys
import tempfile
from pathlib import Path

import psycopg

ROOT = Path(__file__).resolve().parent.parent
sys.path[1:1] = [folder for folder in (str(ROOT), str(ROOT / "platform")) if folder not in sys.path]

from controlplane.embedded.child import Child  # noqa: E402
from controlplane.embedded.postgres import THROWAWAY, Postgres  # noqa: E402
from controlplane.embedded.state import StateFolder  # noqa: E402
from controlplane.embedded.valkey import Valkey  # noqa: E402


def _start() -> None:
    folder = Path(tempfile.mkdtemp(prefix="remit-test-"))
    _remove_abandoned(folder.parent)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    state = StateFolder(folder)
    state.open()
    postgres, valkey = Postgres(state, THROWAWAY), Valkey(state)
    children = [Child(valkey), Child(postgres)]
    children[0].start()
    postgres.initialise()
    children[1].start()
    for child in children:
        atexit.register(child.stop)
        child.wait_ready(seconds=30)
    with psycopg.connect(postgres.url, user="postgres", autocommit=True) as superuser:
        superuser.execute("GRANT SET ON PARAMETER session_replication_role TO remit")  # to empty tables after a test
    os.environ.update(
        DATABASE_URL=postgres.url,
        REDIS_URL=valkey.url,
        SECRET_KEY=secrets.token_hex(32),
        STATE_DIR=str(folder),
        REMIT_LOG_FORMAT="text",
    )


def _remove_abandoned(temporary: Path) -> None:
    """Folders of test runs that were killed: their lock names a process that is gone."""
    for lock in temporary.glob("remit-test-*/lock"):
        try:
            owner = int(lock.read_text())
        except (OSError, ValueError):
            continue
        if not Path(f"/proc/{owner}").exists():
            shutil.rmtree(lock.parent, ignore_errors=True)


# Workers of pytest-xdist inherit the environment and use databases of their own name on the same server.
if "PYTEST_XDIST_WORKER" not in os.environ:
    _start()
