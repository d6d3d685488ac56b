"""Secrets of others that Remit must be able to read again, kept as envelopes: a data key for each, itself wrapped by a
key of the configuration. Values only; whoever keeps an envelope has its own table."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from django.conf import settings

from controlplane.common.errors import RemitError

_NONCE_BYTES = 12
_KEY_BYTES = 32


@dataclass(frozen=True)
class Envelope:
    """`ciphertext` opens with the data key that `wrapped_key` holds; `key_id` names the key that wrapped it."""

    ciphertext: bytes = field(repr=False)
    wrapped_key: bytes = field(repr=False)
    key_id: str


@dataclass(frozen=True)
class WrappingKey:
    """A key of the configuration. Its id is taken from its hash, so the same key has the same id everywhere."""

    id: str
    raw: bytes = field(repr=False)


def seal(secret: str, *, belongs_to: str) -> Envelope:
    """`belongs_to` names the row: an envelope copied into another row does not open there."""
    data_key = secrets.token_bytes(_KEY_BYTES)
    key = wrapping_keys()[0]
    return Envelope(
        ciphertext=_encrypt(data_key, secret.encode(), belongs_to),
        wrapped_key=_encrypt(key.raw, data_key, f"{key.id}:{belongs_to}"),
        key_id=key.id,
    )


def unseal(envelope: Envelope, *, belongs_to: str) -> str:
    """Raises 503 `secret.unreadable` when no configured key opens it, or when it was changed or moved."""
    try:
        return _decrypt(_data_key(envelope, belongs_to), envelope.ciphertext, belongs_to).decode()
    except InvalidTag as error:
        raise _unreadable() from error


def rewrap(envelope: Envelope, *, belongs_to: str) -> Envelope:
    """The same secret under the first configured key; its ciphertext stays. Raises 503 `secret.unreadable`."""
    key = wrapping_keys()[0]
    if envelope.key_id == key.id:
        return envelope
    data_key = _data_key(envelope, belongs_to)
    return replace(envelope, wrapped_key=_encrypt(key.raw, data_key, f"{key.id}:{belongs_to}"), key_id=key.id)


def wrapping_keys() -> Sequence[WrappingKey]:
    """Those of REMIT_SECRETS_KEY, the first of which wraps; last the one derived from SECRET_KEY, which alone is used
    where none is configured."""
    configured = [part.strip() for part in settings.CONFIG.secrets_key.split(",") if part.strip()]
    keys = [bytes.fromhex(part) for part in configured]
    derived = HKDF(hashes.SHA256(), _KEY_BYTES, salt=None, info=b"remit secrets 1").derive(settings.SECRET_KEY.encode())
    return [WrappingKey(hashlib.sha256(b"remit key id\0" + raw).hexdigest()[:16], raw) for raw in (*keys, derived)]


def _data_key(envelope: Envelope, belongs_to: str) -> bytes:
    for key in wrapping_keys():
        if key.id == envelope.key_id:
            try:
                return _decrypt(key.raw, envelope.wrapped_key, f"{key.id}:{belongs_to}")
            except InvalidTag as error:
                raise _unreadable() from error
    raise _unreadable()


def _encrypt(key: bytes, plain: bytes, bound_to: str) -> bytes:
    nonce = secrets.token_bytes(_NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, plain, bound_to.encode())


def _decrypt(key: bytes, sealed: bytes, bound_to: str) -> bytes:
    if len(sealed) <= _NONCE_BYTES:
        raise InvalidTag
    return AESGCM(key).decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], bound_to.encode())


def _unreadable() -> RemitError:
    return RemitError(
        "secret.unreadable",
        "The secret can't be opened: the key that wrapped it is not configured, or its row was changed.",
        503,
        remedies=("Put the earlier key back behind the new one in REMIT_SECRETS_KEY, or set the secret anew.",),
    )
