"""Secrets between the request that made them and the page that shows them once: sealed, for a session is a row."""

from __future__ import annotations

import uuid

from controlplane.common.envelope import Envelope, seal, unseal
from controlplane.common.errors import RemitError
from frontend.pages import PersonRequest


def keep(request: PersonRequest, about: uuid.UUID, secret: str) -> None:
    """Until this person opens the page of `about`."""
    sealed = seal(secret, belongs_to=_owner(request, about))
    request.session[_name(about)] = [sealed.ciphertext.hex(), sealed.wrapped_key.hex(), sealed.key_id]


def take(request: PersonRequest, about: uuid.UUID) -> str:
    """What was kept, which is then gone; empty when there is nothing, or nothing that opens any more."""
    kept = request.session.pop(_name(about), None)
    if kept is None:
        return ""
    ciphertext, wrapped_key, key_id = kept
    envelope = Envelope(bytes.fromhex(ciphertext), bytes.fromhex(wrapped_key), key_id)
    try:
        return unseal(envelope, belongs_to=_owner(request, about))
    except RemitError:
        return ""


def _name(about: uuid.UUID) -> str:
    return f"shown_once:{about}"


def _owner(request: PersonRequest, about: uuid.UUID) -> str:
    return f"shown_once:{request.principal.id}:{about}"
