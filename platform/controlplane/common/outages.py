"""A database that is away, full or overrun, as an error with a name: retryable, and no crash of whoever met it."""

from __future__ import annotations

from typing import Final

from django.db import InterfaceError, OperationalError

from controlplane.common.errors import RemitError

_DISK_FULL: Final = "53100"


def outage_of(error: BaseException) -> RemitError | None:
    """503 `database.*` for a failure of the database itself; None for anything else, a wrong statement included.

    A connection lost during COMMIT leaves open whether it happened: only a repeat under the same key is safe.
    """
    if not isinstance(error, OperationalError | InterfaceError):
        return None
    if getattr(error.__cause__, "sqlstate", None) == _DISK_FULL:
        return RemitError(
            "database.disk_full",
            "The disk of the database is full, so nothing can be recorded.",
            503,
            remedies=("Tell whoever runs this Remit; try again once there is space.",),
            retry_after_seconds=10,
        )
    return RemitError(
        "database.unavailable",
        "The database does not answer just now.",
        503,
        remedies=("Try again in a moment, with the same idempotency key: nothing then happens twice.",),
        retry_after_seconds=1,
    )
