"""Keeps credentials out of logs: bearer tokens, sign-in links, headers that carry them. Runs on every line."""

from __future__ import annotations

import re
from collections.abc import Mapping, MutableMapping
from typing import Any

REMOVED = "[removed]"
_SECRET_KEYS = frozenset(
    {"authorization", "cookie", "set-cookie", "password", "secret", "secret_key", "token", "permit_token", "api_key"}
)
# Our own tokens, whoever's bearer token, basic credentials in URLs, and one-time links to sign in or join.
_SECRETS = re.compile(
    r"(?P<token>rmt_(?:pat|svc|agt|run)_)[A-Za-z0-9_-]{8,}"
    r"|(?P<scheme>\b(?:Bearer|Basic)\s+)[A-Za-z0-9._~+/=-]{8,}"
    r"|(?P<link>/(?:sign-in|invitations)/)[A-Za-z0-9_-]{16,}"
    r"|(?P<user>://[^/\s:@]{0,128}:)[^/\s@]{1,256}(?=@)",
    re.IGNORECASE,
)


def redact(text: str) -> str:
    """The text with every credential in it replaced, its kind still readable."""
    return _SECRETS.sub(lambda match: next(part for part in match.groups() if part is not None) + REMOVED, text)


def redact_event(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """structlog processor for values whose key says that they are secret, at any depth of what is logged."""
    for key, value in event.items():
        event[key] = REMOVED if value and key.lower() in _SECRET_KEYS else _value(value, 0)
    return event


def _value(value: Any, depth: int) -> Any:
    if depth < 4 and isinstance(value, Mapping):
        return {
            key: REMOVED if item and str(key).lower() in _SECRET_KEYS else _value(item, depth + 1)
            for key, item in value.items()
        }
    return value
