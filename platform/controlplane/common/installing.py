"""How far the samples are, as a file in the state folder: `demo --play` writes it, pages and terminal read it.

Used before Django is: standard library only.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

_NAME: Final = "samples.json"
# Longer than any single step may take: what is older was written by a process that is gone.
_STALE_SECONDS: Final = 1200.0


@dataclass(frozen=True)
class Installing:
    """`step` is the sentence of what is done now, `done` of `total` steps are over. `left_out`: why some can't be had.

    `failure` ends it: what could not be done, as a sentence.
    """

    organisation: str
    step: str = "Starting"
    done: int = 0
    total: int = 0
    left_out: tuple[str, ...] = ()
    failure: str = ""

    @property
    def over(self) -> bool:
        return 0 < self.total <= self.done


def write(state: Path, installing: Installing) -> None:
    """Readers see the old content or the new, never half of it."""
    unfinished = state / f".{_NAME}.{os.getpid()}"
    unfinished.write_text(json.dumps({**asdict(installing), "at": time.time()}))
    unfinished.replace(state / _NAME)


def read(state: Path) -> Installing | None:
    """What is under way or failed; None once it is over, and when whoever wrote it has died long ago."""
    found = _last(state)
    if found is None:
        return None
    at, installing = found
    if installing.over or not (installing.failure or time.time() - at < _STALE_SECONDS):
        return None
    return installing


def left_out(state: Path) -> tuple[str, ...]:
    """What could not be had the last time."""
    found = _last(state)
    return found[1].left_out if found else ()


def _last(state: Path) -> tuple[float, Installing] | None:
    try:
        found = json.loads((state / _NAME).read_text())
        at = float(found.pop("at"))
        return at, Installing(**{**found, "left_out": tuple(found["left_out"])})
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
