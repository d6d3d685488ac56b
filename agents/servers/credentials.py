"""Credentials of upstream servers: set, taken away, wrapped anew. They go in and never come out of these functions."""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass, field

from django.db import transaction

from agents.choices import CredentialKind, Transport
from agents.models import McpServer, ServerCredential
from agents.servers.addresses import url_problem
from agents.servers.authority import announce_servers, changeable_server, require_write, server_subject
from agents.servers.presenting import belongs_to
from controlplane.audit.events import Event
from controlplane.audit.services import record
from controlplane.common.clock import now
from controlplane.common.envelope import Envelope, rewrap, seal, wrapping_keys
from controlplane.common.errors import FieldError, RemitError, invalid
from controlplane.tenancy.types import Principal, system_principal

SHORTEST, LONGEST = 8, 4096
_HEADER = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,59}\Z")
# What the connection itself says, or what would let a credential pose as something else.
_RESERVED = frozenset(
    {
        *("host", "connection", "content-length", "content-type", "content-encoding", "transfer-encoding", "te"),
        *("accept", "accept-encoding", "upgrade", "trailer", "expect", "user-agent", "cookie", "set-cookie", "origin"),
        *("forwarded", "via", "traceparent", "tracestate", "last-event-id"),
    }
)


@dataclass(frozen=True)
class Credential:
    """As a person enters it. `secret`: the token, the header's value or the client's secret."""

    kind: CredentialKind
    secret: str = field(repr=False)
    header: str = ""
    token_url: str = ""
    client_id: str = ""
    scope: str = ""


@dataclass(frozen=True)
class Rotated:
    """`unreadable`: servers whose credential no configured key opens; they have to be set anew."""

    rewrapped: int
    already: int
    unreadable: list[str]
    key_id: str


def set_credential(*, actor: Principal, server_id: uuid.UUID, credential: Credential) -> None:
    """Sealed at once, in force for every connection made from now on. Raises 422 `server.credential`."""
    require_write(actor)
    if not actor.is_person or actor.user_id is None:
        raise invalid("server.credential", "A credential is set by a person.")
    with transaction.atomic():
        row = changeable_server(actor, server_id)
        errors = _errors(row, credential)
        if errors:
            raise invalid("server.credential", "The credential was not set.", *errors)
        envelope = seal(credential.secret, belongs_to=belongs_to(row.pk))
        of_kind = credential.kind is CredentialKind.CLIENT_CREDENTIALS
        ServerCredential.objects.update_or_create(
            server=row,
            defaults={
                "kind": credential.kind,
                "header": credential.header if credential.kind is CredentialKind.HEADER else "",
                "token_url": credential.token_url if of_kind else "",
                "client_id": credential.client_id if of_kind else "",
                "scope": credential.scope if of_kind else "",
                "ciphertext": envelope.ciphertext,
                "wrapped_key": envelope.wrapped_key,
                "key_id": envelope.key_id,
                "set_by_id": actor.user_id,
                "set_at": now(),
            },
        )
        record(
            event=Event.SERVER_CREDENTIAL_SET,
            actor=actor,
            subject=server_subject(row),
            payload={"kind": str(credential.kind.label).lower()},
        )
        announce_servers(row)


def remove_credential(*, actor: Principal, server_id: uuid.UUID) -> bool:
    """False when there was none."""
    require_write(actor)
    with transaction.atomic():
        row = changeable_server(actor, server_id)
        removed, _ = ServerCredential.objects.filter(server=row).delete()
        if removed:
            record(event=Event.SERVER_CREDENTIAL_REMOVED, actor=actor, subject=server_subject(row))
            announce_servers(row)
    return bool(removed)


def rewrap_credentials() -> Rotated:
    """Every credential under the first configured key: an operator's command, safe to repeat and to break off."""
    first = wrapping_keys()[0].id
    already = ServerCredential.objects.filter(key_id=first).count()
    unreadable: list[str] = []
    rewrapped: dict[uuid.UUID, int] = {}
    for pk in ServerCredential.objects.exclude(key_id=first).order_by("pk").values_list("pk", flat=True):
        with transaction.atomic():
            rows = ServerCredential.objects.select_for_update(of=("self",)).select_related("server")
            row = rows.filter(pk=pk).first()
            if row is None:
                continue
            try:
                wrapped = rewrap(envelope_of(row), belongs_to=belongs_to(row.server_id))
            except RemitError:
                unreadable.append(f"{row.server.slug} ({row.server_id})")
                continue
            row.wrapped_key, row.key_id = wrapped.wrapped_key, wrapped.key_id
            row.save(update_fields=["wrapped_key", "key_id"])
            organisation = row.server.organisation_id
            rewrapped[organisation] = rewrapped.get(organisation, 0) + 1
            record(
                event=Event.SERVER_CREDENTIAL_REWRAPPED,
                actor=system_principal(organisation_id=organisation),
                subject=server_subject(row.server),
                payload={"key": wrapped.key_id},
            )
    return Rotated(sum(rewrapped.values()), already, unreadable, first)


def envelope_of(row: ServerCredential) -> Envelope:
    return Envelope(bytes(row.ciphertext), bytes(row.wrapped_key), row.key_id)


def _errors(row: McpServer, credential: Credential) -> list[FieldError]:
    if row.transport != Transport.HTTP:
        return [FieldError("/kind", "a program in our sandbox has no network, hence nothing to show a credential to")]
    errors: list[FieldError] = []
    secret = credential.secret
    if not SHORTEST <= len(secret) <= LONGEST or not secret.isascii() or not secret.isprintable() or " " in secret:
        errors.append(FieldError("/secret", f"{SHORTEST} to {LONGEST} printable ASCII characters without spaces"))
    if credential.kind is CredentialKind.HEADER:
        name = credential.header.lower()
        if not _HEADER.match(credential.header) or name in _RESERVED or name.startswith(("mcp-", "proxy-", "sec-")):
            errors.append(FieldError("/header", "a header's name, such as X-Api-Key, that Remit doesn't set itself"))
    if credential.kind is CredentialKind.CLIENT_CREDENTIALS:
        problem = url_problem(credential.token_url)
        if problem or len(credential.token_url) > 400:
            errors.append(FieldError("/token_url", problem or "at most 400 characters"))
        if not 1 <= len(credential.client_id) <= 200 or not credential.client_id.isprintable():
            errors.append(FieldError("/client_id", "1 to 200 characters"))
        if len(credential.scope) > 400 or not credential.scope.isprintable():
            errors.append(FieldError("/scope", "at most 400 characters"))
    return errors
