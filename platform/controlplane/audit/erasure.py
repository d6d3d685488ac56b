"""Erases what names a person: their account, every mention of their name and e-mail in the organisation's rows, and the
names in the trail, whose chain stays whole. What happened stays; who it was becomes a pseudonym."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from django.db import connection, transaction
from django.db.models import Q, TextField
from django.db.models.functions import Cast

from controlplane.audit import mentions
from controlplane.audit.chain import Facts, commitment, facts_of, restated
from controlplane.audit.events import Event
from controlplane.audit.models import Entry, Job, JobKind, JobState, Restatement, Seal
from controlplane.audit.sealing import seal_batch
from controlplane.audit.services import Subject, erase_words, row
from controlplane.audit.signatures import summary
from controlplane.common.canonical import digest
from controlplane.common.clock import now
from controlplane.common.errors import conflict, not_found
from controlplane.common.ids import new_id, short
from controlplane.tenancy import members, sessions
from controlplane.tenancy.models import Invitation, Membership, SignInLink, Token, User
from controlplane.tenancy.types import Permission, Principal, PrincipalKind, system_principal
from controlplane.tenancy.watching import access_changed

_AT_A_TIME = 500
_CUT_OFF = "A person was erased while it was being written. Ask for it again."
# What others keep about an account: addresses, second factors, who they are at an identity provider.
_ACCOUNT_TABLES = (
    "account_emailaddress",
    "mfa_authenticator",
    "socialaccount_socialaccount",
    "usersessions_usersession",
)


@dataclass
class Erased:
    """What an erasure did. `kept`: places that hold a name and that nothing may change, with their numbers of rows."""

    pseudonym: str
    entries: int = 0
    rows: int = 0
    kept: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """What an erasure would do, for the page that asks first."""

    user: User
    pseudonym: str
    entries: int
    roles: int
    tokens: int

    @property
    def done(self) -> bool:
        """This person is erased already."""
        return self.user.email == _address_of_erased(self.user.pk)


def plan(*, actor: Principal, user_id: uuid.UUID) -> Plan:
    """What erasing this person would touch. The same refusals as `erase_person`."""
    user = _person(actor, user_id)
    return Plan(
        user=user,
        pseudonym=pseudonym_of(user_id),
        entries=_own_entries(actor.organisation_id, user_id).count(),
        roles=Membership.objects.filter(user=user, organisation_id=actor.organisation_id).count(),
        tokens=Token.objects.filter(user=user, revoked_at__isnull=True).count(),
    )


def erase_person(*, actor: Principal, user_id: uuid.UUID) -> Erased:
    """All of it in one transaction. Raises 403, 404, 409 `person.erase_self`, `person.belongs_elsewhere`,
    `member.last_administrator`.

    Remit itself (an operator's command) erases in every organisation; an administrator only people who belong to no
    other one.
    """
    with transaction.atomic():
        user = _person(actor, user_id, lock=True)
        organisations = _organisations(actor, user_id)
        names = mentions.Names.of(_names_of(user, organisations), shared_with=_namesakes(user, organisations))
        erased = Erased(pseudonym_of(user_id))
        _close_account(user, erased.pseudonym)
        _let_through(user_id)
        erased.rows += erase_words(user_id=user_id, organisation_ids=organisations, pseudonym=erased.pseudonym)
        for place, count in mentions.replace(names, erased.pseudonym, organisations=organisations, done=erased).items():
            erased.kept[place] = erased.kept.get(place, 0) + count
        for organisation_id in organisations:
            _erase_in_trail(actor, organisation_id, user_id, names, erased)
        # Exports that lie here, or are being written, and still name the person are removed by the next sweep, and
        # downloaded by nobody.
        exports = Job.objects.filter(organisation_id__in=organisations, kind=JobKind.EXPORT)
        exports.filter(state=JobState.RUNNING).update(
            state=JobState.FAILED, error=_CUT_OFF, ended_at=now(), expires_at=now()
        )
        exports.filter(state=JobState.READY).update(expires_at=now())
    return erased


def is_erased(user_id: uuid.UUID) -> bool:
    return User.objects.filter(pk=user_id, email=_address_of_erased(user_id)).exists()


def pseudonym_of(user_id: uuid.UUID) -> str:
    return f"Erased person {short(user_id)}"


def _address_of_erased(user_id: uuid.UUID) -> str:
    """Nobody can have it otherwise: the domain does not exist. A name can be anything."""
    return f"erased-{user_id.hex}@erased.invalid"


def _person(actor: Principal, user_id: uuid.UUID, *, lock: bool = False) -> User:
    actor.require(Permission.MEMBER_WRITE)
    is_operator = actor.kind is PrincipalKind.SYSTEM
    if lock and not is_operator:
        members.lock_roles(actor)
    people = User.objects.select_for_update() if lock else User.objects.all()
    user = people.filter(pk=user_id).first()
    here = list(Membership.objects.filter(user_id=user_id, organisation_id=actor.organisation_id))
    known = bool(here) or _own_entries(actor.organisation_id, user_id).exists()
    if user is None or not (known or is_operator):
        raise not_found("person")
    if user_id == actor.user_id:
        raise conflict(
            "person.erase_self",
            "You can't erase yourself.",
            "Ask another administrator of the organisation.",
        )
    elsewhere = Membership.objects.filter(user_id=user_id).exclude(organisation_id=actor.organisation_id)
    if elsewhere.exists() and not is_operator:
        raise conflict(
            "person.belongs_elsewhere",
            "This person also belongs to another organisation, which has a say in it.",
            "Remove their roles here, or let the operator run `./manage.py person erase`.",
        )
    if lock and not is_operator:
        members.check_administrator_stays(here)
    return user


def _organisations(actor: Principal, user_id: uuid.UUID) -> list[uuid.UUID]:
    if actor.kind is not PrincipalKind.SYSTEM:
        return [actor.organisation_id]
    told = Entry.objects.filter(Q(actor_id=user_id) | Q(subject_id=user_id)).values_list("organisation_id", flat=True)
    member = Membership.objects.filter(user_id=user_id).values_list("organisation_id", flat=True)
    return sorted({*told.distinct(), *member.distinct()})


def _own_entries(organisation_id: uuid.UUID, user_id: uuid.UUID) -> Any:
    acted = Q(actor_id=user_id, actor_kind=PrincipalKind.USER.value)
    return Entry.objects.filter(acted | Q(subject_id=user_id, subject_type="person"), organisation_id=organisation_id)


def _names_of(user: User, organisations: Collection[uuid.UUID]) -> set[str]:
    """Today's name and address, and those under which the trail knows the person."""
    found = {user.name, user.email}
    for organisation_id in organisations:
        for acted, about, actor_name, subject_name in (
            _own_entries(organisation_id, user.pk)
            .values_list("actor_id", "subject_id", "actor_name", "subject_name")
            .distinct()
        ):
            if acted == user.pk:
                found.add(actor_name)
            if about == user.pk:
                found.add(subject_name)
    return {name for name in found if name and name != pseudonym_of(user.pk)}


def _namesakes(user: User, organisations: Collection[uuid.UUID]) -> set[str]:
    others = User.objects.filter(memberships__organisation_id__in=list(organisations)).exclude(pk=user.pk)
    return {name.casefold() for name in others.values_list("name", flat=True) if name}


def _close_account(user: User, pseudonym: str) -> None:
    """No way in is left, and nothing in the account says who it was. Other rows keep pointing to it."""
    moment = now()
    User.objects.filter(pk=user.pk).update(
        name=pseudonym,
        email=_address_of_erased(user.pk),
        password="!",  # noqa: S106 - what Django writes for an account that has none
        is_active=False,
        time_zone="UTC",
        preferences={},
        last_login=None,
    )
    Membership.objects.filter(user=user).delete()
    Token.objects.filter(user=user, revoked_at__isnull=True).update(revoked_at=moment)
    SignInLink.objects.filter(user=user).delete()
    Invitation.objects.open().filter(invited_by=user).update(revoked_at=moment)
    sessions.end_all_of(user)
    mentions.delete_owned(user, _ACCOUNT_TABLES)
    access_changed(user.pk)


def _let_through(user_id: uuid.UUID) -> None:
    """Guards of rows that are otherwise never changed ask for this until the transaction ends."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT set_config('remit.erasing', %s, true)", [str(user_id)])


def _erase_in_trail(
    actor: Principal, organisation_id: uuid.UUID, user_id: uuid.UUID, names: mentions.Names, erased: Erased
) -> None:
    """Restates every entry that names the person, and writes the entry that covers all restatements."""
    erasure_id, count = new_id(), 0
    with connection.cursor() as cursor:
        # No new entry gets its place meanwhile, and each that waits gets one: only what is sealed can be restated.
        cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"audit.seal:{organisation_id}"])
    while seal_batch(organisation_id=organisation_id):
        pass
    for batch in _naming(organisation_id, user_id, names):
        links = dict(
            Seal.objects.filter(entry_id__in=[entry.pk for entry in batch]).values_list("entry_id", "chain_sha256")
        )
        rows = [_restated(entry, links[entry.pk], user_id, names, erased.pseudonym) for entry in batch]
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT audit_restate(%s, %s, %s::jsonb)", [organisation_id, erasure_id, mentions.as_json(rows)]
            )
            changed = cursor.fetchone()[0]
        if changed != len(rows):
            raise RuntimeError(f"{len(rows)} entries were to be restated and {changed} were")
        count += changed
    lines = [
        f"{sequence}:{sha256}\n"
        for sequence, sha256 in Restatement.objects.filter(erasure_id=erasure_id)
        .order_by("sequence")
        .values_list("sequence", "restated_sha256")
    ]
    teller = actor if actor.organisation_id == organisation_id else system_principal(organisation_id=organisation_id)
    entry = row(
        event=Event.PERSON_ERASED,
        actor=teller,
        subject=Subject("person", user_id, erased.pseudonym),
        payload={"entries": count, "restated_sha256": summary(lines), "rows": erased.rows},
    )
    Entry(**{**entry, "id": erasure_id}).save(force_insert=True)
    erased.entries += count


def _naming(organisation_id: uuid.UUID, user_id: uuid.UUID, names: mentions.Names) -> Iterator[Sequence[Entry]]:
    """Entries of or about the person that do not bear the pseudonym yet, and those that mention a name."""
    mine = _own_entries(organisation_id, user_id).values("pk")
    told = Entry.objects.filter(organisation_id=organisation_id).alias(payload_text=Cast("payload", TextField()))
    mentioned = names.condition(("actor_name", "subject_name", "payload_text"))
    after = uuid.UUID(int=0)
    while True:
        batch = list(told.filter(Q(pk__in=mine) | mentioned, pk__gt=after).order_by("pk")[:_AT_A_TIME])
        if not batch:
            return
        after = batch[-1].pk
        pseudonym = pseudonym_of(user_id)
        naming = [entry for entry in batch if _changed(entry, user_id, names, pseudonym) != _as_it_is(entry)]
        if naming:
            yield naming


def _as_it_is(entry: Entry) -> tuple[str, str, Any]:
    return entry.actor_name, entry.subject_name, entry.payload


def _changed(entry: Entry, user_id: uuid.UUID, names: mentions.Names, pseudonym: str) -> tuple[str, str, Any]:
    """Names and payload as the erasure leaves them."""
    acted = entry.actor_id == user_id and entry.actor_kind == PrincipalKind.USER.value
    about = entry.subject_id == user_id and entry.subject_type == "person"
    payload = names.replaced(entry.payload, pseudonym)
    if about and isinstance(payload, dict) and payload.get("client"):
        payload = {**payload, "client": ""}  # the address they signed in from
    return (
        pseudonym if acted else names.replaced(entry.actor_name, pseudonym)[:120],
        pseudonym if about else names.replaced(entry.subject_name, pseudonym)[:200],
        payload,
    )


def _restated(
    entry: Entry, chain_sha256: str, user_id: uuid.UUID, names: mentions.Names, pseudonym: str
) -> dict[str, Any]:
    """The row for `audit_restate`. A fresh salt: neither the old commitment nor the new hash can be guessed."""
    before: Facts = facts_of(entry)
    kept = before.commitment
    if kept is None:
        kept = commitment(before) if before.salt is not None else ""
    actor_name, subject_name, payload = _changed(entry, user_id, names, pseudonym)
    after = before._replace(
        actor_name=actor_name,
        subject_name=subject_name,
        payload_sha256=digest(payload),
        salt=uuid.uuid4(),
        commitment=kept,
    )
    return {
        "id": entry.pk,
        "actor_name": actor_name,
        "subject_name": subject_name,
        "payload": payload,
        "payload_sha256": after.payload_sha256,
        "salt": after.salt,
        "commitment": kept,
        "restated_sha256": restated(chain_sha256=chain_sha256, facts=after),
    }
