"""Keeps credentials out of logs and the audit trail: bearer tokens, keys, passwords, sign-in links, headers that carry
them. Runs on every line of the log and on every audit entry."""

from __future__ import annotations

import re
from collections.abc import Mapping, MutableMapping
from typing import Any

REMOVED = "[removed]"
# In whatever way a name is put together: access_token, access-token, accessToken.
_SECRET_KEYS = frozenset(
    {
        *("authorization", "cookie", "setcookie", "password", "passwd", "pwd", "passphrase", "secret", "secretkey"),
        *("token", "permittoken", "accesstoken", "refreshtoken", "idtoken", "sessiontoken", "sessionkey"),
        *("apikey", "xapikey", "accesskey", "secretaccesskey", "clientsecret", "privatekey", "totp"),
    }
)
# Our own tokens, whoever's bearer token, basic credentials in URLs, one-time links to sign in or join, what other
# services' keys look like, and what stands behind “password:” in a sentence, in a query string or in JSON that became
# text. Groups are what may stay.
_SECRETS = re.compile(
    r"(?P<token>rmt_(?:pat|svc|agt|run)_)[A-Za-z0-9_-]{8,}"
    r"|(?P<scheme>\b(?:Bearer|Basic)\s+)[A-Za-z0-9._~+/=-]{8,}"
    r"|(?P<link>/(?:sign-in|invitations)/)[A-Za-z0-9_-]{16,}"
    r"|(?P<user>://[^/\s:@]{0,128}:)[^/\s@]{1,256}(?=@)"
    r"|(?P<pem>-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----).*?(?:-----END [A-Z ]{0,40}PRIVATE KEY-----|\Z)"
    r"|(?P<vendor>\b(?:AKIA|ASIA|gh[pousr]_|github_pat_|glpat-|xox[abprs]-|sk-|sk_live_|sk_test_))[A-Za-z0-9_-]{16,}"
    r"|(?P<jwt>\beyJ)[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*"
    r"|(?P<said>(?<![A-Za-z0-9])(?:pass(?:word|wd|phrase)|pwd|(?:access|refresh|session|id|api)[_ -]?(?:key|token)"
    r"|token|secret|client[_ -]?secret|private[_ -]?key|secret[_ -]?(?:access[_ -]?)?key)"
    r"(?:\\{0,3}[\"']?\s{0,3}(?:=|:)|\s{1,3}is\b)\s{0,3}\\{0,3}[\"']?)(?:[^\s\"'&,;)\]}\[\\]|\\(?![\"'])){6,}",
    re.IGNORECASE | re.DOTALL,
)
# Lower-case pieces, one of which every secret that is found has beside it: asking for them costs a tenth of the search.
_SIGNS = (
    *(
        "rmt_",
        "bearer",
        "basic",
        "/sign-in/",
        "/invitations/",
        "://",
        "-----begin",
        "akia",
        "asia",
        "ghp_",
        "gho_",
        "ghu_",
        "ghs_",
    ),
    *("ghr_", "github_pat_", "glpat-", "xox", "sk-", "sk_", "eyj", "pass", "pwd", "secret", "token", "key", "cookie"),
    *("authorization", "totp"),
)


def redact(text: str) -> str:
    """The text with every credential in it replaced, its kind still readable."""
    if not may_hold_secret(text):
        return text
    return _SECRETS.sub(lambda match: next(part for part in match.groups() if part is not None) + REMOVED, text)


def may_hold_secret(text: str) -> bool:
    """A quick no for what holds nothing that `redact` or `redact_value` would replace."""
    lowered = text.lower()
    return any(sign in lowered for sign in _SIGNS)


def redact_value(value: Any) -> Any:
    """A JSON value with every credential in it replaced, whatever its key says or its text holds, at any depth."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, Mapping):
        return {
            redact(key): REMOVED if _is_secret(key) and not _is_harmless(item) else redact_value(item)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [redact_value(item) for item in value]
    return value


def _is_secret(key: object) -> bool:
    return str(key).lower().replace("-", "").replace("_", "") in _SECRET_KEYS


def _is_harmless(value: object) -> bool:
    """Nothing, or yes and no: `"password": true` says that one was set."""
    return value is None or value == "" or isinstance(value, bool)


def redact_event(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """structlog processor for values whose key says that they are secret, at any depth of what is logged."""
    for key, value in event.items():
        event[key] = REMOVED if value and _is_secret(key) else _value(value, 0)
    return event


def _value(value: Any, depth: int) -> Any:
    if depth < 4 and isinstance(value, Mapping):
        return {key: REMOVED if item and _is_secret(key) else _value(item, depth + 1) for key, item in value.items()}
    return value
