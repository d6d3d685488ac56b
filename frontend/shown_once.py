"""Secrets that are shown once: made once however often their form is sent, and sealed between the request that made
them and the page that shows them, for a session is a row."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable
from typing import NoReturn, TypeVar

from controlplane.common.envelope import Envelope, seal, unseal
from controlplane.common.errors import RemitError, conflict
from controlplane.common.ids import new_id
from controlplane.idempotency import services as idempotency
from frontend.pages import PersonRequest, id_of

Made = TypeVar("Made")


def made_once(request: PersonRequest, work: Callable[[], Made], *, if_lost: str) -> Made:
    """What `work` makes for this form, whose `{% form_key %}` tells it from any other. A reload of the answer or a
    second click sends it again: 409 `form.sent_already`. What is refused may be sent again."""
    made: list[Made] = []

    def first() -> idempotency.Answer:
        made.append(work())
        return idempotency.Answer(204, b"")  # never the secret

    asked = idempotency.Request(
        organisation_id=request.principal.organisation_id,
        requester_id=request.principal.id,
        key=f"form:{id_of(request.POST.get('key')) or new_id()}",
        sha256=hashlib.sha256(request.path.encode()).hexdigest(),
    )
    if idempotency.once(request=asked, work=first, refused=_refuse).replayed:
        raise conflict("form.sent_already", "This was made already, and is shown once.", if_lost)
    return made[0]


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


def _refuse(error: RemitError) -> NoReturn:
    raise error


def _name(about: uuid.UUID) -> str:
    return f"shown_once:{about}"


def _owner(request: PersonRequest, about: uuid.UUID) -> str:
    return f"shown_once:{request.principal.id}:{about}"
