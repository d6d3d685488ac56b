"""Builds the Repository caretaker's small repository: a few commits, and a correction somebody left uncommitted."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path

from agents.samples.caretaker import files

BRANCH = "main"
OWNER = ("Depot team", "depot@northwind.example")
CARETAKER = ("Repository caretaker", "caretaker@northwind.example")


@dataclass(frozen=True)
class Commit:
    """`days_ago` counts from the day the repository is built for."""

    days_ago: int
    message: str
    contents: Mapping[str, str]


HISTORY = (
    Commit(64, "Count what is on the shelves", {"README.md": files.README, "depot/stock.py": files.STOCK_FIRST}),
    Commit(51, "Say what has to be ordered", {"depot/stock.py": files.STOCK}),
    Commit(40, "Print shelf labels", {"depot/labels.py": files.LABELS}),
    Commit(22, "Write down when the depot is open", {"docs/opening-hours.md": files.OPENING_HOURS}),
    Commit(9, "Check the order list", {"tests/test_stock.py": files.TEST_STOCK}),
)
LEFT_UNCOMMITTED = {"depot/stock.py": files.STOCK_CORRECTED, "tests/test_stock.py": files.TEST_STOCK_CORRECTED}


class GitUnavailable(Exception):
    """There is no git here, or it failed; the message says which."""


def build(path: Path, *, today: date) -> Path:
    """Make the repository in the folder `path`. One that is there is left alone. Raises GitUnavailable."""
    if path.exists():
        return path
    git = shutil.which("git")
    if git is None:
        raise GitUnavailable("The Repository caretaker needs git, which is not on the PATH. Install git.")
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{path.name}.draft-", dir=path.parent))
    try:
        draft.chmod(0o755)
        _run(git, draft, "init", "--quiet", "--initial-branch", BRANCH)
        for commit in HISTORY:
            _write(draft, commit.contents)
            moment = datetime.combine(today - timedelta(days=commit.days_ago), time(9, 30), tzinfo=UTC)
            _run(git, draft, "add", "--all")
            _run(git, draft, "commit", "--quiet", "--message", commit.message, moment=moment)
        # Commits made through the server carry the caretaker's name.
        _run(git, draft, "config", "user.name", CARETAKER[0])
        _run(git, draft, "config", "user.email", CARETAKER[1])
        _write(draft, LEFT_UNCOMMITTED)
        os.rename(draft, path)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return path


def _write(folder: Path, contents: Mapping[str, str]) -> None:
    for name, text in contents.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")


def _run(git: str, folder: Path, *arguments: str, moment: datetime | None = None) -> None:
    # Nobody's own settings: hooks, signing keys and templates of this machine have no place in a sample.
    environment = {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": str(folder),
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_SYSTEM": os.devnull,
        "GIT_TEMPLATE_DIR": "",
        "LC_ALL": "C",
    }
    if moment is not None:
        for role in ("AUTHOR", "COMMITTER"):
            environment[f"GIT_{role}_NAME"], environment[f"GIT_{role}_EMAIL"] = OWNER
            environment[f"GIT_{role}_DATE"] = moment.isoformat()
    done = subprocess.run(
        [git, *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    if done.returncode != 0:
        raise GitUnavailable(f"git {arguments[0]} failed: {done.stderr.strip()[-300:]}")
