"""Roles change as a whole and only as they were seen; deactivation shuts out of one organisation; nobody raises
themself and somebody always can let people in again."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest
from allauth.mfa.models import Authenticator
from allauth.mfa.totp.internal.auth import TOTP, generate_totp_secret
from django.core.management import call_command
from django.db import connections, transaction

from controlplane.audit.models import Entry
from controlplane.common.clock import now
from controlplane.common.errors import RemitError
from controlplane.tenancy import credentials, directory, invitations, members, second_factor, selectors, services
from controlplane.tenancy.members import fingerprint
from controlplane.tenancy.models import Invitation, Membership, SignInLink, Token
from controlplane.tenancy.types import ROLE_PERMISSIONS, Permission, Role


def code_of(work) -> str:
    with pytest.raises(RemitError) as refused:
        work()
    return refused.value.code


def events() -> list[str]:
    return list(Entry.objects.order_by("pk").values_list("event", flat=True))


def seen(principal, user) -> str:
    return fingerprint(directory.held_by(principal, user.pk))


def test_roles_are_set_as_a_whole_and_each_change_is_on_record(as_nadia, alice, team, other_team, acting) -> None:
    members.set_roles(
        principal=as_nadia,
        user_id=alice.pk,
        wanted={(other_team.pk, Role.APPROVER), (None, Role.AUDITOR)},
        seen=seen(as_nadia, alice),
    )
    assert directory.held_by(as_nadia, alice.pk) == {(other_team.pk, Role.APPROVER), (None, Role.AUDITOR)}
    assert sorted(events()) == ["member.added", "member.added", "member.removed"]
    assert {entry.payload["role"] for entry in Entry.objects.all()} == {"approver", "auditor", "builder"}


def test_roles_that_changed_meanwhile_are_not_overwritten(as_nadia, alice, team) -> None:
    stale = seen(as_nadia, alice)
    members.add_member(principal=as_nadia, user=alice, role=Role.FINANCE)
    attempt = lambda: members.set_roles(principal=as_nadia, user_id=alice.pk, wanted=set(), seen=stale)  # noqa: E731
    assert code_of(attempt) == "member.changed"
    assert Membership.objects.filter(user=alice).count() == 2


def test_nobody_raises_their_own_rights(as_nadia, nadia, acting, make_person, northwind, team) -> None:
    before = list(Membership.objects.values_list("pk", "role"))
    more = {(None, Role.ADMIN), (None, Role.APPROVER)}
    own = lambda: members.set_roles(principal=as_nadia, user_id=nadia.pk, wanted=more, seen=seen(as_nadia, nadia))  # noqa: E731
    assert code_of(own) == "member.own_rights"
    assert code_of(lambda: members.add_member(principal=as_nadia, user=nadia, role=Role.FINANCE)) == "member.own_rights"
    assert list(Membership.objects.values_list("pk", "role")) == before
    assert events() == []


def test_an_administrator_of_one_team_touches_only_that_team(
    make_person, northwind, team, other_team, alice, acting
) -> None:
    lead = acting(make_person("Tea", northwind, Role.ADMIN, team=team))
    for wanted in ({(None, Role.ADMIN)}, {(other_team.pk, Role.BUILDER)}):
        attempt = lambda want=wanted: members.set_roles(  # noqa: E731
            principal=lead, user_id=alice.pk, wanted=want, seen=seen(lead, alice)
        )
        assert code_of(attempt) == "permission.denied"
    assert code_of(lambda: members.deactivate(principal=lead, user_id=alice.pk)) == "permission.denied"
    members.set_roles(principal=lead, user_id=alice.pk, wanted={(team.pk, Role.APPROVER)}, seen=seen(lead, alice))
    assert directory.held_by(lead, alice.pk) == {(team.pk, Role.APPROVER)}


def test_roles_elsewhere_stay_when_a_team_administrator_saves_theirs(
    make_person, northwind, team, other_team, alice, acting, as_nadia
) -> None:
    members.add_member(principal=as_nadia, user=alice, role=Role.AUDITOR, team_id=other_team.pk)
    lead = acting(make_person("Tea", northwind, Role.ADMIN, team=team))
    held = directory.held_by(lead, alice.pk)
    members.set_roles(principal=lead, user_id=alice.pk, wanted=set(), seen=fingerprint(held))
    assert directory.held_by(lead, alice.pk) == {(other_team.pk, Role.AUDITOR)}


def test_deactivation_rests_roles_and_ends_what_the_person_holds(as_nadia, alice, acting, team) -> None:
    text = credentials.issue_personal_token(
        principal=acting(alice), user=alice, name="Laptop", expires_at=now() + timedelta(days=1)
    )[1]
    services.make_sign_in_link(user=alice)
    assert members.deactivate(principal=as_nadia, user_id=alice.pk)["tokens"] == 1
    assert services.principal_of_user(user=alice) is None
    assert code_of(lambda: services.principal_of_token(text)) == "token.revoked"
    assert not SignInLink.objects.exists()
    assert alice not in selectors.people_with_anywhere(as_nadia, Permission.MISSION_OPERATE)
    assert members.deactivate(principal=as_nadia, user_id=alice.pk)["tokens"] == 0
    members.reactivate(principal=as_nadia, user_id=alice.pk)
    assert acting(alice).has(Permission.MISSION_OPERATE, team_id=team.pk)
    assert code_of(lambda: services.principal_of_token(text)) == "token.revoked"
    assert events() == ["token.issued", "member.deactivated", "member.reactivated"]


def test_another_organisation_keeps_the_person(as_nadia, as_charlie, alice, elsewhere, acting) -> None:
    members.add_member(principal=as_charlie, user=alice, role=Role.AUDITOR)
    there = services.principal_of_user(user=alice, organisation_id=elsewhere.pk)
    text = credentials.issue_personal_token(
        principal=there, user=alice, name="There", expires_at=now() + timedelta(days=1)
    )[1]
    services.make_sign_in_link(user=alice)
    members.deactivate(principal=as_nadia, user_id=alice.pk)
    assert acting(alice).organisation_id == elsewhere.pk
    assert services.principal_of_token(text).organisation_id == elsewhere.pk
    assert SignInLink.objects.count() == 1


def test_nobody_deactivates_themself_or_the_unknown_and_others_may_not_at_all(
    as_nadia, nadia, as_alice, as_bob, as_charlie, as_run, alice, nobody
) -> None:
    assert code_of(lambda: members.deactivate(principal=as_nadia, user_id=nadia.pk)) == "member.own_access"
    assert code_of(lambda: members.deactivate(principal=as_nadia, user_id=nobody)) == "member.not_found"
    for principal in (as_alice, as_bob, as_run):
        for act in (members.deactivate, members.reactivate, second_factor.reset):
            assert code_of(lambda who=principal, do=act: do(principal=who, user_id=nadia.pk)) == "permission.denied"
    for act in (members.deactivate, members.reactivate, second_factor.reset):
        assert code_of(lambda do=act: do(principal=as_charlie, user_id=alice.pk)) == "member.not_found"
    assert not Membership.objects.filter(suspended_at__isnull=False).exists()
    assert events() == []


@pytest.mark.django_db(transaction=True)
def test_two_administrators_who_deactivate_each_other_leave_one(as_nadia, nadia, dana, acting) -> None:
    members.add_member(principal=as_nadia, user=dana, role=Role.ADMIN)
    pairs, barrier, outcomes = [(acting(dana), nadia), (as_nadia, dana)], threading.Barrier(2), []

    def act(principal, user) -> None:
        try:
            barrier.wait(20)
            members.deactivate(principal=principal, user_id=user.pk)
            outcomes.append("done")
        except RemitError as error:
            outcomes.append(error.code)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=act, args=pair) for pair in pairs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(outcomes) == ["done", "member.last_administrator"]
    assert Membership.objects.standing().filter(role="admin").count() == 1


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("what", ["issued", "rotated"])
@pytest.mark.parametrize("first", ["token", "deactivation"])
def test_a_token_made_beside_a_deactivation_ends_with_the_others(what, first, as_nadia, alice, acting) -> None:
    """Reactivated, nothing that was ended comes back to life."""
    soon, mine = now() + timedelta(days=1), acting(alice)
    old, _ = credentials.issue_personal_token(principal=mine, user=alice, name="old", expires_at=soon)

    def make_token() -> None:
        if what == "issued":
            credentials.issue_personal_token(principal=mine, user=alice, name="new", expires_at=soon)
        else:
            credentials.rotate_token(principal=mine, token_id=old.pk, overlap=timedelta(hours=1))

    def deactivate() -> None:
        members.deactivate(principal=as_nadia, user_id=alice.pk)

    def beside(work) -> None:
        try:
            work()
        except RemitError:
            pass
        finally:
            connections.close_all()

    now_, then = (make_token, deactivate) if first == "token" else (deactivate, make_token)
    other = threading.Thread(target=beside, args=(then,))
    with transaction.atomic():
        now_()
        other.start()
        other.join(0.7)
    other.join(30)
    assert not other.is_alive()
    members.reactivate(principal=as_nadia, user_id=alice.pk)
    assert not Token.objects.filter(user=alice, revoked_at__isnull=True).exists()


def test_invitations_of_a_deactivated_person_are_taken_back(as_nadia, dana, acting) -> None:
    members.add_member(principal=as_nadia, user=dana, role=Role.ADMIN)
    invitations.invite(principal=acting(dana), email="x@acme.example", roles=[(None, Role.ADMIN)])
    assert members.deactivate(principal=as_nadia, user_id=dana.pk)["invitations"] == 1
    assert not Invitation.objects.open().exists()


def test_losing_the_last_role_ends_tokens_too(as_nadia, alice, acting) -> None:
    credentials.issue_personal_token(
        principal=acting(alice), user=alice, name="Laptop", expires_at=now() + timedelta(days=1)
    )
    members.set_roles(principal=as_nadia, user_id=alice.pk, wanted=set(), seen=seen(as_nadia, alice))
    assert Token.objects.get().revoked_at is not None


def test_a_lost_second_factor_is_taken_away_by_an_administrator_on_record(as_nadia, alice) -> None:
    TOTP.activate(alice, generate_totp_secret())
    second_factor.reset(principal=as_nadia, user_id=alice.pk)
    second_factor.reset(principal=as_nadia, user_id=alice.pk)
    assert not Authenticator.objects.exists()
    assert events() == ["second_factor.reset"]


def test_another_organisations_second_factor_is_not_an_administrators_to_take(as_nadia, as_charlie, alice) -> None:
    members.add_member(principal=as_charlie, user=alice, role=Role.AUDITOR)
    TOTP.activate(alice, generate_totp_secret())
    attempt = lambda: second_factor.reset(principal=as_nadia, user_id=alice.pk)  # noqa: E731
    assert code_of(attempt) == "second_factor.elsewhere"
    assert second_factor.is_on(alice.pk)
    call_command("signin", user=alice.email, reset_second_factor=True, verbosity=0)
    assert not second_factor.is_on(alice.pk)
    assert Entry.objects.filter(event="second_factor.reset", actor_name="Operator").count() == 2


def test_the_secret_of_an_app_is_not_readable_in_the_database(alice) -> None:
    secret = generate_totp_secret()
    TOTP.activate(alice, secret)
    assert secret not in str(Authenticator.objects.get().data)


def test_the_table_of_roles_is_the_map_that_decides() -> None:
    table = directory.role_table()
    for permission, held in table:
        assert held == {role: permission in ROLE_PERMISSIONS[role] for role in Role}
        assert permission.sentence
    assert {permission for permission, _ in table} == frozenset().union(*ROLE_PERMISSIONS.values())
    assert all(permission.sentence for permission in Permission)
