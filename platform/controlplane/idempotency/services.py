"""Doing something once per key. Every edge that takes an `Idempotency-Key` comes through here."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

import structlog
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from django.conf import settings
from django.db import Error, connection, transaction

from controlplane.common.clock import now
from controlplane.common.errors import FieldError, RemitError, conflict, invalid
from controlplane.idempotency.models import IdempotencyKey

log = structlog.get_logger(__name__)

KEPT_FOR: Final = timedelta(hours=24)
LONGEST_KEY: Final = 120
_NONCE_BYTES: Final = 12
_SWEPT_AT_ONCE: Final = 5000


@dataclass(frozen=True)
class Answer:
    """An HTTP answer as it was given. `replayed`: nothing was done for it this time."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    replayed: bool = False


@dataclass(frozen=True)
class Request:
    """Who asks, under which key, for what. `sha256` covers all that makes two requests different."""

    organisation_id: uuid.UUID
    requester_id: uuid.UUID
    key: str
    sha256: str


def once(
    *,
    request: Request,
    work: Callable[[], Answer],
    refused: Callable[[RemitError], Answer],
    one_transaction: bool = True,
) -> Answer:
    """The answer of `work`, or the one given before. Refusals (4xx) are answers too; `refused` puts them into words.

    `one_transaction`: work and answer are committed together, so whatever breaks in between leaves neither. Without it,
    for work that must not be inside a transaction, a request that ended without an answer is not made again.

    Raises 422 `idempotency.other_body`, 409 `idempotency.in_flight`, 409 `idempotency.no_answer`.
    """
    claim = _claim_of(request)
    if not one_transaction:
        return _step_by_step(claim, work, refused)
    with transaction.atomic():
        if not _lock("SELECT pg_try_advisory_xact_lock(%s)", claim.lock):
            raise _in_flight()
        row = _row(claim)
        if row is not None:
            return _again(claim, row)
        answer = _attempt(work, refused, savepoint=True)
        IdempotencyKey.objects.create(**_columns(claim), answer=_sealed(claim, answer))
        return answer


def one_at_a_time(name: str) -> None:
    """Inside a transaction: whoever else does this with the same name waits for its end. For “look, then write”."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_number(hashlib.sha256(b"one:" + name.encode()).digest())])


def sweep() -> int:
    """Forget what has expired."""
    expired = IdempotencyKey.objects.filter(expires_at__lte=now()).order_by("expires_at").values("pk")
    return IdempotencyKey.objects.filter(pk__in=expired[:_SWEPT_AT_ONCE]).delete()[0]


# Below: one level down ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Claim:
    request: Request
    key_hash: str
    secret: bytes
    lock: int


def _claim_of(request: Request) -> _Claim:
    scope = f"{request.organisation_id}:{request.requester_id}:{request.key}".encode()
    name = _keyed(b"idempotency-name:" + scope)
    return _Claim(request, name.hex(), _keyed(b"idempotency-answer:" + scope), _number(name))


def _step_by_step(claim: _Claim, work: Callable[[], Answer], refused: Callable[[RemitError], Answer]) -> Answer:
    with _session_lock(claim.lock):
        row = _row(claim)
        if row is not None:
            return _again(claim, row)
        row = IdempotencyKey.objects.create(**_columns(claim))
        answer = _attempt(work, refused, savepoint=False)
        IdempotencyKey.objects.filter(pk=row.pk).update(answer=_sealed(claim, answer))
        return answer


def _attempt(work: Callable[[], Answer], refused: Callable[[RemitError], Answer], *, savepoint: bool) -> Answer:
    try:
        if not savepoint:
            return work()
        with transaction.atomic():
            return work()
    except RemitError as error:
        if error.status >= 500:
            raise
        return refused(error)


def _row(claim: _Claim) -> IdempotencyKey | None:
    """The earlier request; one that has expired is forgotten."""
    mine = IdempotencyKey.objects.filter(
        organisation_id=claim.request.organisation_id,
        requester_id=claim.request.requester_id,
        key_hash=claim.key_hash,
    )
    row = mine.first()
    if row is not None and row.expires_at <= now():
        mine.delete()
        return None
    return row


def _again(claim: _Claim, row: IdempotencyKey) -> Answer:
    if row.request_sha256 != claim.request.sha256:
        raise invalid(
            "idempotency.other_body",
            "This idempotency key was used for another request. Nothing was done.",
            FieldError("/idempotency_key", "a key of its own for each request"),
        )
    answer = None if row.answer is None else _opened(claim, bytes(row.answer))
    if answer is None:
        raise conflict(
            "idempotency.no_answer",
            "The earlier request under this key ended without an answer. It is not made again.",
            "Look whether it happened; if not, send it under a new key.",
        )
    return answer


def _columns(claim: _Claim) -> dict[str, object]:
    moment = now()
    return {
        "organisation_id": claim.request.organisation_id,
        "requester_id": claim.request.requester_id,
        "key_hash": claim.key_hash,
        "request_sha256": claim.request.sha256,
        "created_at": moment,
        "expires_at": moment + KEPT_FOR,
    }


def _sealed(claim: _Claim, answer: Answer) -> bytes:
    head = json.dumps({"status": answer.status, "headers": dict(answer.headers)}).encode()
    nonce = os.urandom(_NONCE_BYTES)
    return nonce + AESGCM(claim.secret).encrypt(nonce, head + b"\n" + answer.body, None)


def _opened(claim: _Claim, sealed: bytes) -> Answer | None:
    try:
        plain = AESGCM(claim.secret).decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], None)
    except InvalidTag:
        return None
    head, _, body = plain.partition(b"\n")
    facts = json.loads(head)
    return Answer(facts["status"], body, facts["headers"], replayed=True)


@contextmanager
def _session_lock(number: int) -> Iterator[None]:
    """Held by the connection: it ends with it when this process dies."""
    if not _lock("SELECT pg_try_advisory_lock(%s)", number):
        raise _in_flight()
    try:
        yield
    finally:
        try:
            _lock("SELECT pg_advisory_unlock(%s)", number)
        except Error:
            # Not to go back into the pool: the next borrower would hold this lock.
            log.warning("idempotency.not_unlocked")
            connection.close()


def _lock(sql: str, number: int) -> bool:
    with connection.cursor() as cursor:
        cursor.execute(sql, [number])
        return bool(cursor.fetchone()[0])


def _in_flight() -> RemitError:
    return RemitError(
        "idempotency.in_flight",
        "A request with this idempotency key is being worked on.",
        409,
        remedies=("Repeat the same request in a moment.",),
        retry_after_seconds=1,
    )


def _keyed(text: bytes) -> bytes:
    return hmac.new(settings.SECRET_KEY.encode(), text, hashlib.sha256).digest()


def _number(raw: bytes) -> int:
    return int.from_bytes(raw[:8], "big", signed=True)
