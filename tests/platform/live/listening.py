"""What the tests of live pages share: the topic of a mission, and how a connection was closed."""

from __future__ import annotations

import time

import pytest
from websockets.exceptions import ConnectionClosed


def topic_of(mission) -> str:
    return f"mission:{mission.pk}"


def closed(page, seconds: float = 15) -> tuple[int, str]:
    """Code and reason with which the server ends the connection."""
    deadline = time.monotonic() + seconds
    with pytest.raises(ConnectionClosed) as ended:  # noqa: PT012
        while time.monotonic() < deadline:
            page.connection.recv(timeout=max(0.1, deadline - time.monotonic()))
    assert ended.value.rcvd is not None
    return ended.value.rcvd.code, ended.value.rcvd.reason
