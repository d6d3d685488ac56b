"""Bearer tokens: made, recognised, revoked. Format `rmt_<kind>_<random>_<checksum>`; stored as a keyed hash."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import uuid
import zlib
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.conf import settings
from django.db.models import Q

from controlplane.common.clock import now
from controlplane.common.errors import RemitError
from controlplane.common.statements import planned
from controlplane.tenancy.models import Token, TokenKind
from controlplane.tenancy.types import Permission

_SHAPE = re.compile(r"rmt_(pat|svc|agt|run)_([A-Za-z0-9_-]{43})_([0-9a-f]{8})\Z")
_LAST_USE_EVERY = timedelta(seconds=60)
# Asked before every call of an agent: making a query and rows of the models costs several times its work.
_BY_HASH = """
SELECT token.id, token.kind, token.name, token.organisation_id, organisation.name, token.team_id, token.user_id,
       token.agent_id, token.mission_id, token.run_id, token.scopes, token.expires_at, token.revoked_at,
       token.last_used_at
FROM tenancy_token token JOIN tenancy_organisation organisation ON organisation.id = token.organisation_id
WHERE token.hash = %s
"""


@dataclass(frozen=True)
class KnownToken:
    """The row of `_BY_HASH`, in its order. `scopes` None: everything the bearer may do."""

    id: uuid.UUID
    kind: str
    name: str
    organisation_id: uuid.UUID
    organisation_name: str
    team_id: uuid.UUID | None
    user_id: uuid.UUID | None
    agent_id: uuid.UUID | None
    mission_id: uuid.UUID | None
    run_id: uuid.UUID | None
    scopes: list[str] | None
    expires_at: datetime
    revoked_at: datetime | None
    last_used_at: datetime | None


def issue(
    *,
    kind: TokenKind,
    organisation_id: uuid.UUID,
    name: str,
    expires_at: datetime,
    team_id: uuid.UUID | None = None,
    user_id: uuid.UUID | None = None,
    agent_id: uuid.UUID | None = None,
    mission_id: uuid.UUID | None = None,
    run_id: uuid.UUID | None = None,
    scopes: Collection[Permission] | None = None,
    created_by_id: uuid.UUID | None = None,
    replaces_id: uuid.UUID | None = None,
) -> tuple[Token, str]:
    """A new token and its only plain form. The caller audits it and shows the text once."""
    secret = secrets.token_urlsafe(32)
    text = f"rmt_{kind.value}_{secret}_{_checksum(kind.value, secret)}"
    token = Token.objects.create(
        organisation_id=organisation_id,
        team_id=team_id,
        kind=kind,
        name=name,
        hash=keyed_hash(text),
        hint=secret[-4:],
        user_id=user_id,
        agent_id=agent_id,
        mission_id=mission_id,
        run_id=run_id,
        scopes=None if scopes is None else sorted(scope.value for scope in scopes),
        expires_at=expires_at,
        created_by_id=created_by_id,
        replaces_id=replaces_id,
    )
    return token, text


def recognise(text: str) -> KnownToken:
    """The live token behind the text. Raises 401 `token.*`; the checksum spares the database mistyped ones."""
    match = _SHAPE.match(text)
    if match is None or _checksum(match[1], match[2]) != match[3]:
        raise _unauthorised("token.malformed", "That is not a Remit token.")
    rows = planned(_BY_HASH, [keyed_hash(text)])
    token = KnownToken(*rows[0]) if rows else None
    if token is None or token.kind != match[1]:
        raise _unauthorised("token.unknown", "This token is not known here.")
    moment = now()
    _require_alive(token.revoked_at, token.expires_at, moment)
    if token.last_used_at is None or moment - token.last_used_at > _LAST_USE_EVERY:
        Token.objects.filter(pk=token.id).update(last_used_at=moment)
    return token


def require_alive(token_id: uuid.UUID) -> None:
    """For who waited since the token was recognised. Raises 401 `token.*`."""
    row = Token.objects.filter(pk=token_id).values_list("revoked_at", "expires_at").first()
    if row is None:
        raise _unauthorised("token.unknown", "This token is not known here.")
    _require_alive(*row, now())


def revoke(**which: object) -> int:
    """Kill live tokens by `id`, `run_id`, `mission_id`, `agent_id` or `user_id`; returns how many died. Takes effect
    before the next decision."""
    if not which:
        raise ValueError("say which tokens")
    return Token.objects.filter(Q(**which), revoked_at__isnull=True).update(revoked_at=now())


def move_end(*, mission_id: uuid.UUID, expires_at: datetime) -> None:
    """Live tokens of a mission's runs end then, sooner or later than they would have."""
    live = Token.objects.filter(kind=TokenKind.RUN, mission_id=mission_id, revoked_at__isnull=True)
    live.update(expires_at=expires_at)


def keyed_hash(text: str) -> str:
    """A database thief without SECRET_KEY can't test guesses; a stolen hash is no token."""
    return hmac.new(settings.SECRET_KEY.encode(), b"token:" + text.encode(), hashlib.sha256).hexdigest()


def _checksum(kind: str, secret: str) -> str:
    return f"{zlib.crc32(f'{kind}_{secret}'.encode()):08x}"


def _require_alive(revoked_at: datetime | None, expires_at: datetime, moment: datetime) -> None:
    if revoked_at is not None:
        raise _unauthorised("token.revoked", "This token was revoked.")
    if expires_at <= moment:
        raise _unauthorised("token.expired", "This token has expired.")


def _unauthorised(code: str, message: str) -> RemitError:
    return RemitError(code, message, 401, remedies=("Use a current token; runs get theirs as REMIT_TOKEN.",))
