"""Hints to open pages: what changed, never the data itself. A lost hint costs one slow poll."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import structlog
from asgiref.sync import async_to_sync
from channels.layers import get_channel_layer
from django.db import transaction

from controlplane.tenancy.types import Principal

log = structlog.get_logger(__name__)

TopicCheck = Callable[[Principal, str], bool]
_CHECKS: Final[dict[str, TopicCheck]] = {}


def register_topic(kind: str, check: TopicCheck) -> None:
    """Allow topics `<kind>:<id>`. `check(principal, id)` asks a permission queryset; called by `AppConfig.ready()`."""
    _CHECKS[kind] = check


def may_subscribe(*, principal: Principal, topic: str) -> bool:
    kind, _, identifier = topic.partition(":")
    check = _CHECKS.get(kind)
    return check is not None and bool(identifier) and check(principal, identifier)


def announce(topic: str, what: str) -> None:
    """Tell pages that show `topic` (“mission:<id>”) that its part `what` changed; after commit, lost without Valkey."""
    transaction.on_commit(lambda: _send(topic, what), robust=True)


def group_name(topic: str) -> str:
    return "live." + topic.replace(":", ".")


def _send(topic: str, what: str) -> None:
    layer = get_channel_layer()
    message = {"type": "live.hint", "topic": topic, "what": what, "version": time.time_ns() // 1000}
    try:
        async_to_sync(layer.group_send)(group_name(topic), message)
    except Exception as error:  # any broker failure: the page's slow poll is the net
        log.warning("live.not_sent", topic=topic, error=str(error))
