"""Hints to open pages: what changed, never the data itself. A lost hint costs one slow poll."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Final

from django.db import transaction

from controlplane.live.sender import sender
from controlplane.tenancy.types import Principal

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
    transaction.on_commit(lambda: sender().send(topic=topic, what=what), robust=True)


def topic_of_person(user_id: uuid.UUID) -> str:
    """Where a person's sockets hear that their access changed. No check is registered: nobody can subscribe to it."""
    return f"person:{user_id}"
