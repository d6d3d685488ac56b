"""Permit tokens: made and recognised. One fixed algorithm and no field that could name another; no rows here."""

from __future__ import annotations

import base64
import binascii
import functools
import hashlib
import hmac
import json
import secrets
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from django.conf import settings

from controlplane.common.clock import now
from controlplane.common.errors import RemitError
from controlplane.common.ids import parse_id

TTL_SECONDS: Final = 60
_PREFIX: Final = "rmp_"
_LONGEST: Final = 2000


@dataclass(frozen=True)
class PermitClaims:
    """What a token says, all of it signed."""

    action_id: uuid.UUID
    decision_id: uuid.UUID
    digest: str
    audience: str
    nonce: str
    expires_at: datetime


def new_nonce() -> str:
    return secrets.token_hex(16)


def nonce_sha256(nonce: str) -> str:
    return hashlib.sha256(nonce.encode()).hexdigest()


def sign(claims: PermitClaims) -> str:
    payload = json.dumps(
        [
            str(claims.action_id),
            str(claims.decision_id),
            claims.digest,
            claims.audience,
            claims.nonce,
            int(claims.expires_at.timestamp()),
        ],
        separators=(",", ":"),
    ).encode()
    return f"{_PREFIX}{_encode(payload)}.{_encode(_mac(payload))}"


def verify(token: str) -> PermitClaims:
    """The claims of a token we signed that still lives; no query. 403 `permit.forged`, 409 `permit.expired`."""
    body, _, signature = token.removeprefix(_PREFIX).partition(".")
    if not token.startswith(_PREFIX) or len(token) > _LONGEST:
        raise _forged()
    try:
        payload, mac = _decode(body), _decode(signature)
    except (ValueError, binascii.Error) as error:
        raise _forged() from error
    if not hmac.compare_digest(mac, _mac(payload)):
        raise _forged()
    action, decision, digest, audience, nonce, expires = json.loads(payload)
    action_id, decision_id = parse_id(action), parse_id(decision)
    if action_id is None or decision_id is None:
        raise _forged()
    claims = PermitClaims(action_id, decision_id, digest, audience, nonce, datetime.fromtimestamp(expires, UTC))
    if claims.expires_at <= now():
        raise expired()
    return claims


def expired() -> RemitError:
    return RemitError(
        "permit.expired",
        f"The permit has expired; it lives {TTL_SECONDS} seconds.",
        409,
        remedies=("Propose the action again.",),
    )


def _forged() -> RemitError:
    return RemitError(
        "permit.forged",
        "This permit was not issued here.",
        403,
        remedies=("Use the permit exactly as it was returned.",),
    )


def _mac(payload: bytes) -> bytes:
    return hmac.digest(_key(settings.SECRET_KEY), payload, "sha256")


@functools.lru_cache(maxsize=4)
def _key(secret: str) -> bytes:
    """A key of its own, so that nothing else signed with SECRET_KEY can pass for a permit."""
    return hmac.digest(secret.encode(), b"remit permit v1", "sha256")


def _encode(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    if _encode(raw) != text:
        raise ValueError("not the one spelling of these bytes")
    return raw
