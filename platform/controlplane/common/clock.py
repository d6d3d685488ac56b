"""The one source of the present moment, always aware and in UTC."""

from datetime import UTC, datetime


def now() -> datetime:
    return datetime.now(UTC)
