"""Teams and memberships: who may do what where. Every change is audited; the last administrator stays; nobody raises
their own rights or gives what they don't hold."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Collection, Iterable

from django.db import IntegrityError, transaction
from django.utils.text import slugify

from controlplane.common.clock import now
from controlplane.common.errors import FieldError, RemitError, conflict, forbidden, invalid, not_found
from controlplane.tenancy import sessions, tokens, trail
from controlplane.tenancy.models import Invitation, Membership, Organisation, SignInLink, Team, TokenKind, User
from controlplane.tenancy.types import ALL_TEAMS, ROLE_PERMISSIONS, Permission, Principal, PrincipalKind, Role
from controlplane.tenancy.watching import access_changed

Place = uuid.UUID | None  # a team, or None for the whole organisation
Held = frozenset[tuple[Place, Role]]


def add_team(*, principal: Principal, name: str) -> Team:
    """A new team of the principal's organisation. Raises 403, 422 `team.invalid`, 409 `team.exists`."""
    principal.require(Permission.ORGANISATION_WRITE)
    name = " ".join(name.split())
    slug = slugify(name)[:60]
    if not slug or len(name) > 120:
        raise invalid("team.invalid", "A team needs a name.", FieldError("/name", "1 to 120 characters, letters in it"))
    try:
        with transaction.atomic():
            team = Team.objects.create(organisation_id=principal.organisation_id, name=name, slug=slug)
            trail.record(
                event="team.created",
                actor=principal,
                subject_type="team",
                subject_id=team.pk,
                subject_name=team.name,
                team_id=team.pk,
            )
    except IntegrityError as error:
        raise conflict("team.exists", f"There is a team “{name}” already.", "Choose another name.") from error
    return team


def add_member(*, principal: Principal, user: User, role: Role, team_id: uuid.UUID | None = None) -> Membership:
    """Give a role in one team or, without one, in the whole organisation. Having it already changes nothing. Raises
    403 `permission.denied` and `member.own_rights`, 404."""
    team = _team(principal, team_id)
    check_may_give(principal, user.pk, [(team_id, role)])
    with transaction.atomic():
        membership, is_new = _give(principal.organisation_id, user, role, team)
        if is_new:
            _tell("member.added", principal, membership)
            access_changed(user.pk)
    return membership


def remove_member(*, principal: Principal, membership_id: uuid.UUID) -> None:
    """Take one role away. Raises 404, and 409 `member.last_administrator` for the last who could give roles again."""
    with transaction.atomic():
        lock_roles(principal)
        membership = (
            Membership.objects.restrict(principal, Permission.MEMBER_WRITE)
            .select_related("user", "team")
            .filter(pk=membership_id)
            .first()
        )
        if membership is None:
            raise not_found("member")
        _take(principal, [membership])


def set_roles(*, principal: Principal, user_id: uuid.UUID, wanted: Collection[tuple[Place, Role]], seen: str) -> None:
    """The person's roles in every place the principal may change; other places stay as they are.

    `seen` is `fingerprint(roles)` of what the principal was shown. Raises 404 `member.not_found`, 403
    `member.own_rights` and `permission.denied`, 409 `member.changed` and `member.last_administrator`.
    """
    with transaction.atomic():
        lock_roles(principal)
        user, rows = _person(principal, user_id)
        before: Held = frozenset((row.team_id, Role(row.role)) for row in rows)
        if fingerprint(before) != seen:
            raise conflict(
                "member.changed", f"The roles of {user} were changed meanwhile.", "Look at them, then change them."
            )
        writable = {row.pk for row in Membership.objects.restrict(principal, Permission.MEMBER_WRITE).filter(user=user)}
        after = frozenset(wanted)
        teams = {team_id: _team(principal, team_id) for team_id, _ in after - before}
        check_may_give(principal, user.pk, after - before)
        if rows and rows[0].suspended_at is not None and after - before:
            raise conflict("member.deactivated", f"{user} is deactivated.", "Reactivate them first.")
        for team_id, role in sorted(after - before, key=_order):
            _tell("member.added", principal, _give(principal.organisation_id, user, role, teams[team_id])[0])
        _take(principal, [row for row in rows if row.pk in writable and (row.team_id, Role(row.role)) not in after])
        access_changed(user.pk)


def deactivate(*, principal: Principal, user_id: uuid.UUID) -> dict[str, int]:
    """Shut a person out of the organisation: roles rest, sessions, personal tokens and open invitations of theirs die,
    sockets close. Says how many of each. Raises 403, 404, 409 `member.own_access`, `member.last_administrator`."""
    principal.require(Permission.MEMBER_WRITE)
    with transaction.atomic():
        lock_roles(principal)
        user, rows = _person(principal, user_id)
        _refuse_oneself(principal, user, "You can't deactivate yourself.")
        if rows[0].suspended_at is not None:
            return {"sessions": 0, "tokens": 0, "invitations": 0}
        check_administrator_stays(rows)
        Membership.objects.filter(pk__in=[row.pk for row in rows]).update(suspended_at=now())
        ended = _end_access(principal.organisation_id, user)
        _tell_person("member.deactivated", principal, user, ended)
        access_changed(user.pk)
    return ended


def reactivate(*, principal: Principal, user_id: uuid.UUID) -> None:
    """Let a person back in with the roles they had. Dead sessions and tokens stay dead. Raises 403, 404."""
    principal.require(Permission.MEMBER_WRITE)
    with transaction.atomic():
        lock_roles(principal)
        user, rows = _person(principal, user_id)
        resting = [row for row in rows if row.suspended_at is not None]
        check_may_give(principal, user.pk, [(row.team_id, Role(row.role)) for row in resting])
        if Membership.objects.filter(pk__in=[row.pk for row in resting]).update(suspended_at=None):
            _tell_person("member.reactivated", principal, user, {})
            access_changed(user.pk)


def lock_roles(principal: Principal) -> None:
    """The organisation's row is the lock: two administrators who remove each other come one after the other. It keeps
    nobody from writing rows of the organisation meanwhile."""
    Organisation.objects.select_for_update(no_key=True).get(pk=principal.organisation_id)


def check_administrator_stays(leaving: Iterable[Membership]) -> None:
    """Under the lock of the roles. Raises 409 `member.last_administrator`."""
    if any(_is_last_administrator(row) for row in leaving):
        raise _last_administrator()


def check_may_give(principal: Principal, user_id: uuid.UUID | None, given: Iterable[tuple[Place, Role]]) -> None:
    """Nobody raises their own rights; a token with few scopes, or an administrator of one team, gives no more than it
    holds. Raises 403."""
    given = list(given)
    if given and user_id is not None and user_id == principal.user_id:
        raise RemitError(
            "member.own_rights",
            "You can't give roles to yourself.",
            403,
            remedies=("Ask another administrator.",),
        )
    if principal.kind is PrincipalKind.SYSTEM:
        return
    for team_id, role in given:
        if not all(principal.has(permission, team_id=team_id) for permission in ROLE_PERMISSIONS[role]):
            raise forbidden(Permission.MEMBER_WRITE.value)


def fingerprint(held: Iterable[tuple[Place, Role]]) -> str:
    """Of a set of roles, for a form to say what it was made from."""
    text = "\n".join(sorted(f"{team_id or ''}:{role.value}" for team_id, role in held))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def join(*, organisation_id: uuid.UUID, user: User, roles: Iterable[tuple[Team | None, Role]]) -> list[Membership]:
    """Rows for somebody whose right to join was checked by the caller, who audits it. Inside its transaction."""
    given = [_give(organisation_id, user, role, team) for team, role in roles]
    access_changed(user.pk)
    return [membership for membership, is_new in given if is_new]


def _give(organisation_id: uuid.UUID, user: User, role: Role, team: Team | None) -> tuple[Membership, bool]:
    return Membership.objects.get_or_create(organisation_id=organisation_id, team=team, user=user, role=role.value)


def _take(principal: Principal, memberships: list[Membership]) -> None:
    for membership in memberships:
        if _is_last_administrator(membership):
            raise _last_administrator()
        _tell("member.removed", principal, membership)
        user_id = membership.user_id
        membership.delete()
        if not Membership.objects.filter(user_id=user_id, organisation_id=principal.organisation_id).exists():
            _end_access(principal.organisation_id, membership.user)
        access_changed(user_id)


def _end_access(organisation_id: uuid.UUID, user: User) -> dict[str, int]:
    """Credentials of this organisation die; sessions and sign-in links too, unless another organisation has them."""
    ended = {
        "sessions": 0,
        "tokens": tokens.revoke(user_id=user.pk, organisation_id=organisation_id, kind=TokenKind.PERSON),
        "invitations": Invitation.objects.open()
        .filter(invited_by=user, organisation_id=organisation_id)
        .update(revoked_at=now()),
    }
    if not Membership.objects.standing().filter(user=user).exists():
        ended["sessions"] = sessions.end_all_of(user)
        SignInLink.objects.filter(user=user, used_at__isnull=True).delete()
    return ended


def _person(principal: Principal, user_id: uuid.UUID) -> tuple[User, list[Membership]]:
    """The person and all their roles here, if the principal may change at least one place they could be in."""
    if not principal.has_anywhere(Permission.MEMBER_WRITE):
        raise not_found("member")
    rows = list(
        Membership.objects.filter(user_id=user_id, organisation_id=principal.organisation_id)
        .select_related("user", "team")
        .order_by("pk")
    )
    where = principal.teams_with(Permission.MEMBER_WRITE)
    visible = where is ALL_TEAMS or any(row.team_id is None or row.team_id in where for row in rows)
    if not rows or not visible:
        raise not_found("member")
    return rows[0].user, rows


def _team(principal: Principal, team_id: uuid.UUID | None) -> Team | None:
    if team_id is None:
        principal.require(Permission.MEMBER_WRITE)
        return None
    team = Team.objects.restrict(principal, Permission.MEMBER_WRITE).filter(pk=team_id).first()
    if team is None:
        if principal.teams_with(Permission.MEMBER_WRITE) is not ALL_TEAMS:
            raise forbidden(Permission.MEMBER_WRITE.value)
        raise not_found("team")
    return team


def _is_last_administrator(membership: Membership) -> bool:
    administrators = Membership.objects.standing().filter(
        organisation_id=membership.organisation_id, team__isnull=True, role=Role.ADMIN.value
    )
    return administrators.filter(pk=membership.pk).exists() and not administrators.exclude(pk=membership.pk).exists()


def _last_administrator() -> RemitError:
    return conflict(
        "member.last_administrator",
        "The organisation would be left without an administrator.",
        "Make somebody else administrator first.",
    )


def _refuse_oneself(principal: Principal, user: User, message: str) -> None:
    if user.pk == principal.user_id:
        raise conflict("member.own_access", message, "Ask another administrator.")


def _order(held: tuple[Place, Role]) -> tuple[str, str]:
    return str(held[0] or ""), held[1].value


def _tell(event: str, principal: Principal, membership: Membership) -> None:
    trail.record(
        event=event,
        actor=principal,
        subject_type="person",
        subject_id=membership.user.pk,
        subject_name=str(membership.user),
        team_id=membership.team_id,
        payload={"role": membership.role, "team": membership.team.name if membership.team else ""},
    )


def _tell_person(event: str, principal: Principal, user: User, payload: dict[str, int]) -> None:
    trail.record(
        event=event, actor=principal, subject_type="person", subject_id=user.pk, subject_name=str(user), payload=payload
    )
