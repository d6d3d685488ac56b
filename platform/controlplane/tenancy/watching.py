"""Who must hear at once that a person's access changed: open sockets, which stand above tenancy and register here."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Final

Watcher = Callable[[uuid.UUID], None]
_WATCHERS: Final[list[Watcher]] = []


def register_watcher(watcher: Watcher) -> None:
    """Called once by the live app's `ready()`; `watcher(user_id)` tells after the commit."""
    _WATCHERS[:] = [watcher]


def access_changed(user_id: uuid.UUID) -> None:
    """Inside the transaction that took or gave a right, a session or a token."""
    for watcher in _WATCHERS:
        watcher(user_id)
