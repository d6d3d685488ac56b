"""Whether this process was told to end. Whoever keeps a caller waiting answers then with what is known so far."""

from __future__ import annotations

import threading
from typing import Final

_TOLD: Final = threading.Event()


def begin() -> None:
    _TOLD.set()


def has_begun() -> bool:
    return _TOLD.is_set()
