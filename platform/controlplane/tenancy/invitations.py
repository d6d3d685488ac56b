"""Invitations by e-mail address: a link that works once, for a week, for the roles it names. Only its hash is kept."""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Collection
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from allauth.account.models import EmailAddress
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from django.db import IntegrityError, transaction

from controlplane.common.clock import now
from controlplane.common.errors import FieldError, RemitError, conflict, forbidden, invalid, not_found
from controlplane.tenancy import members, services, tokens, trail
from controlplane.tenancy.models import Invitation, Membership, Team, User
from controlplane.tenancy.types import ALL_TEAMS, Permission, Principal, PrincipalKind, Role

LIFE: Final = timedelta(days=7)


@dataclass(frozen=True)
class Offer:
    """An invitation as its receiver sees it."""

    invitation: Invitation
    organisation: str
    invited_by: str
    roles: list[tuple[Team | None, Role]]
    account: User | None  # of the invited address, if there is one


def invite(
    *, principal: Principal, email: str, roles: Collection[tuple[uuid.UUID | None, Role]]
) -> tuple[Invitation, str]:
    """A new invitation and the secret of its link, which is shown once. An open one for the address is replaced, unless
    it works and the principal could not take it back.

    Raises 403, 422 `invitation.invalid`, 409 `member.exists` and `invitation.exists`.
    """
    email = email.strip().lower()
    errors = []
    try:
        validate_email(email)
        if len(email) > 254:
            raise ValidationError("too long")
    except ValidationError:
        errors.append(FieldError("/email", "an address such as ada@acme.example"))
    if not roles:
        errors.append(FieldError("/roles", "at least one role"))
    if not principal.has_anywhere(Permission.MEMBER_WRITE) or principal.user_id is None:
        raise forbidden(Permission.MEMBER_WRITE.value)
    if errors:
        raise invalid("invitation.invalid", "The invitation can't be made like this.", *errors)
    for team_id, _ in roles:
        if team_id is None:
            principal.require(Permission.MEMBER_WRITE)
        elif not Team.objects.restrict(principal, Permission.MEMBER_WRITE).filter(pk=team_id).exists():
            raise not_found("team")
    _check_may_offer(principal, email, roles)
    try:
        with transaction.atomic():
            for earlier in _open(principal).select_for_update(of=("self",)).filter(email__iexact=email):
                if not _within_reach(principal, earlier) and earlier.expires_at > now() and _still_backed(earlier):
                    raise conflict(
                        "invitation.exists",
                        f"{email} is invited already, to more than you give roles in. That invitation stays.",
                        "Ask an administrator of the whole organisation.",
                    )
                _revoke(principal, earlier)
            secret = secrets.token_urlsafe(32)
            invitation = Invitation.objects.create(
                organisation_id=principal.organisation_id,
                email=email,
                roles=[{"role": role.value, "team": str(team_id) if team_id else None} for team_id, role in roles],
                hash=tokens.keyed_hash(secret),
                invited_by_id=principal.user_id,
                linked_at=now(),
                expires_at=now() + LIFE,
            )
            _tell("invitation.made", principal, invitation)
    except IntegrityError as error:
        raise conflict("invitation.exists", f"{email} is being invited by somebody else.", "Look again.") from error
    return invitation, secret


def renew(*, principal: Principal, invitation_id: uuid.UUID) -> tuple[Invitation, str]:
    """A new link for another week, backed by whoever makes it; the one before is dead at once. Raises 403, 404 and 409
    `member.exists`."""
    secret = secrets.token_urlsafe(32)
    with transaction.atomic():
        invitation = _find(principal, invitation_id)
        if principal.user_id is None:
            raise forbidden(Permission.MEMBER_WRITE.value)
        _check_may_offer(principal, invitation.email, _asked(invitation))
        invitation.invited_by_id = principal.user_id
        invitation.hash, invitation.linked_at, invitation.mailed_at = tokens.keyed_hash(secret), now(), None
        invitation.expires_at = now() + LIFE
        invitation.save(update_fields=["invited_by", "hash", "linked_at", "mailed_at", "expires_at"])
        _tell("invitation.renewed", principal, invitation)
    return invitation, secret


def revoke(*, principal: Principal, invitation_id: uuid.UUID) -> None:
    """The link is dead at once. Raises 404."""
    with transaction.atomic():
        _revoke(principal, _find(principal, invitation_id))


def note_mailed(*, invitation: Invitation) -> None:
    Invitation.objects.filter(pk=invitation.pk, hash=invitation.hash).update(mailed_at=now())


def look_up(*, secret: str) -> Offer:
    """What the link offers. Raises 410 `invitation.spent`, the same for every link that does not work."""
    invitation = (
        Invitation.objects.open()
        .select_related("organisation", "invited_by")
        .filter(hash=tokens.keyed_hash(secret), expires_at__gt=now())
        .first()
    )
    if invitation is None or not _still_backed(invitation):
        raise spent()
    return Offer(
        invitation=invitation,
        organisation=invitation.organisation.name,
        invited_by=str(invitation.invited_by),
        roles=_roles(invitation),
        account=User.objects.filter(email__iexact=invitation.email).first(),
    )


def accept_as_new_person(*, secret: str, name: str, password: str) -> User:
    """Make the account of the invited address and join. Raises 410 `invitation.spent`, 422 `profile.invalid`."""
    offer = look_up(secret=secret)
    if offer.account is not None:
        raise spent()
    name = " ".join(name.split())
    errors = [] if 1 <= len(name) <= 120 else [FieldError("/name", "1 to 120 characters")]
    try:
        validate_password(password, User(email=offer.invitation.email, name=name))
    except ValidationError as error:
        errors += [FieldError("/password", " ".join(error.messages))]
    if errors:
        raise invalid("profile.invalid", "The account can't be made like this.", *errors)
    try:
        with transaction.atomic():
            user = User.objects.create_user(offer.invitation.email, password, name=name)
            # Not verified: whoever invited saw the link too. Somebody who proves the address takes the password away.
            EmailAddress.objects.create(user=user, email=user.email, primary=True, verified=False)
            accept_as(invitation=offer.invitation, user=user)
    except IntegrityError as error:
        raise spent() from error
    return user


def accept(*, secret: str, user: User) -> Invitation:
    """Join with the account one has. Raises 410 `invitation.spent` and 403 `invitation.other_person`."""
    offer = look_up(secret=secret)
    if offer.invitation.email.lower() != user.email.lower():
        raise RemitError(
            "invitation.other_person",
            f"This invitation is for {offer.invitation.email}; you are signed in as {user.email}.",
            403,
            remedies=("Sign out, then open the link again.",),
        )
    with transaction.atomic():
        accept_as(invitation=offer.invitation, user=user)
    return offer.invitation


def accept_as(*, invitation: Invitation, user: User) -> None:
    """Use the invitation up for a person whose address is proved. Inside the caller's transaction. Raises 410."""
    won = (
        Invitation.objects.open()
        .filter(pk=invitation.pk, hash=invitation.hash, expires_at__gt=now())
        .update(accepted_at=now(), accepted_by=user)
    )
    if not won or not _still_backed(invitation):
        raise spent()
    suspended = Membership.objects.filter(
        user=user, organisation_id=invitation.organisation_id, suspended_at__isnull=False
    )
    if suspended.exists():
        raise spent()  # a way around a deactivation it is not
    members.join(organisation_id=invitation.organisation_id, user=user, roles=_roles(invitation))
    _tell("invitation.accepted", _acting(user, invitation.organisation_id), invitation)


def open_for(email: str) -> list[Invitation]:
    """Open invitations of a proved address that still work."""
    found = Invitation.objects.open().select_related("organisation", "invited_by")
    return [item for item in found.filter(email__iexact=email, expires_at__gt=now()) if _still_backed(item)]


def spent() -> RemitError:
    return RemitError(
        "invitation.spent",
        "This invitation was used, taken back, or has expired.",
        410,
        remedies=("Ask whoever invited you for a new link.",),
    )


def visible(principal: Principal) -> list[tuple[Invitation, list[tuple[Team | None, Role]]]]:
    """Open invitations to places the principal may give roles in, newest first, with what each gives."""
    rows = _open(principal).select_related("invited_by").order_by("-created_at")
    seen = [row for row in rows if _within_reach(principal, row)]
    teams = Team.objects.filter(organisation_id=principal.organisation_id).in_bulk(
        [team for row in seen for team, _ in _asked(row) if team]
    )
    return [(row, [(teams.get(team) if team else None, role) for team, role in _asked(row)]) for row in seen]


def _open(principal: Principal) -> Invitation.InvitationQuerySet:
    return Invitation.objects.open().filter(organisation_id=principal.organisation_id)


def _find(principal: Principal, invitation_id: uuid.UUID) -> Invitation:
    if not principal.has_anywhere(Permission.MEMBER_WRITE):
        raise not_found("invitation")
    found = _open(principal).select_for_update(of=("self",)).filter(pk=invitation_id).first()
    if found is None or not _within_reach(principal, found):
        raise not_found("invitation")
    return found


def _check_may_offer(principal: Principal, email: str, roles: Collection[tuple[uuid.UUID | None, Role]]) -> None:
    members.check_may_give(principal, _user_id(email), roles)
    if Membership.objects.filter(organisation_id=principal.organisation_id, user__email__iexact=email).exists():
        raise conflict("member.exists", f"{email} is a member already.", "Change their roles instead.")


def _within_reach(principal: Principal, invitation: Invitation) -> bool:
    """Whether the principal may give roles in every place it is for: others neither see it nor take it back."""
    where = principal.teams_with(Permission.MEMBER_WRITE)
    return where is ALL_TEAMS or all(team in where for team, _ in _asked(invitation))


def _revoke(principal: Principal, invitation: Invitation) -> None:
    if Invitation.objects.open().filter(pk=invitation.pk).update(revoked_at=now()):
        _tell("invitation.revoked", principal, invitation)


def _asked(invitation: Invitation) -> list[tuple[uuid.UUID | None, Role]]:
    return [(uuid.UUID(item["team"]) if item["team"] else None, Role(item["role"])) for item in invitation.roles]


def _roles(invitation: Invitation) -> list[tuple[Team | None, Role]]:
    """What it gives today: teams that are gone give nothing."""
    asked = _asked(invitation)
    teams = Team.objects.filter(organisation_id=invitation.organisation_id).in_bulk([t for t, _ in asked if t])
    return [(teams[team] if team else None, role) for team, role in asked if team is None or team in teams]


def _still_backed(invitation: Invitation) -> bool:
    """Whoever invited may still give these roles: an administrator who left takes their invitations along."""
    backer = services.principal_of_user(user=invitation.invited_by, organisation_id=invitation.organisation_id)
    if backer is None or not _roles(invitation):
        return False
    try:
        members.check_may_give(backer, None, _asked(invitation))
    except RemitError:
        return False
    return all(backer.has(Permission.MEMBER_WRITE, team_id=team) for team, _ in _asked(invitation))


def _user_id(email: str) -> uuid.UUID | None:
    return User.objects.filter(email__iexact=email).values_list("pk", flat=True).first()


def _acting(user: User, organisation_id: uuid.UUID) -> Principal:
    return Principal(
        kind=PrincipalKind.USER, id=user.pk, user_id=user.pk, name=str(user), organisation_id=organisation_id
    )


def _tell(event: str, principal: Principal, invitation: Invitation) -> None:
    trail.record(
        event=event,
        actor=principal,
        subject_type="invitation",
        subject_id=invitation.pk,
        subject_name=invitation.email,
        payload={"roles": invitation.roles},
    )
