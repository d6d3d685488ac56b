"""Invitations work once, for whom they were made, for roles their sender may give; every other link is equally dead."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest
from django.db import connections

from controlplane.audit.models import Entry
from controlplane.common.clock import now
from controlplane.common.errors import RemitError
from controlplane.tenancy import credentials, invitations, members, services
from controlplane.tenancy.models import Invitation, Membership, User
from controlplane.tenancy.types import Permission, Role
from tests.conftest import PASSWORD

INES = "ines@acme.example"


def code_of(work) -> str:
    with pytest.raises(RemitError) as refused:
        work()
    return refused.value.code


def events() -> list[str]:
    return list(Entry.objects.order_by("pk").values_list("event", flat=True))


@pytest.fixture
def invited(as_nadia) -> str:
    return invitations.invite(principal=as_nadia, email=f" {INES.upper()} ", roles=[(None, Role.BUILDER)])[1]


def test_a_new_person_makes_an_account_and_has_the_roles(invited, as_nadia, northwind, acting) -> None:
    user = invitations.accept_as_new_person(secret=invited, name=" Ines  Moreau ", password=PASSWORD)
    assert (user.email, user.name) == (INES, "Ines Moreau")
    assert acting(user).has(Permission.AGENT_WRITE)
    assert events() == ["invitation.made", "invitation.accepted"]
    assert invited not in str(Entry.objects.values_list("payload", "subject_name"))
    assert invited not in str(list(Invitation.objects.values_list()))


def test_somebody_with_an_account_joins_with_it(invited, as_nadia, make_person, elsewhere) -> None:
    ines = User.objects.create(email=INES, name="Ines")
    invitations.accept(secret=invited, user=ines)
    assert Membership.objects.get(user=ines).role == "builder"


def test_a_link_works_once_and_every_dead_link_is_dead_alike(invited, as_nadia, alice) -> None:
    renewed = invitations.renew(principal=as_nadia, invitation_id=Invitation.objects.get().pk)[1]
    late = invitations.invite(principal=as_nadia, email="late@acme.example", roles=[(None, Role.AUDITOR)])[1]
    Invitation.objects.filter(email="late@acme.example").update(expires_at=now())
    invitations.accept_as_new_person(secret=renewed, name="Ines", password=PASSWORD)
    said = set()
    for secret in (invited, renewed, late, "guess", "", "\0", "x" * 5000, Invitation.objects.first().hash):
        with pytest.raises(RemitError) as refused:
            invitations.look_up(secret=secret)
        said.add((refused.value.code, refused.value.status, refused.value.message))
    assert said == {("invitation.spent", 410, "This invitation was used, taken back, or has expired.")}


def test_somebody_else_cannot_use_it(invited, alice) -> None:
    assert code_of(lambda: invitations.accept(secret=invited, user=alice)) == "invitation.other_person"
    assert Membership.objects.filter(user=alice).count() == 1
    assert Invitation.objects.open().count() == 1


@pytest.mark.django_db(transaction=True)
def test_a_link_raced_for_by_eight_makes_one_account(invited) -> None:
    barrier, outcomes = threading.Barrier(8), []

    def accept() -> None:
        try:
            barrier.wait(20)
            invitations.accept_as_new_person(secret=invited, name="Ines", password=PASSWORD)
            outcomes.append("in")
        except RemitError as error:
            outcomes.append(error.code)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=accept) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(outcomes) == ["in"] + ["invitation.spent"] * 7
    assert User.objects.filter(email=INES).count() == 1


def test_a_second_invitation_replaces_the_first(invited, as_nadia) -> None:
    second = invitations.invite(principal=as_nadia, email=INES, roles=[(None, Role.AUDITOR)])[1]
    assert code_of(lambda: invitations.look_up(secret=invited)) == "invitation.spent"
    assert invitations.look_up(secret=second).roles == [(None, Role.AUDITOR)]
    assert events() == ["invitation.made", "invitation.revoked", "invitation.made"]


def test_a_revoked_invitation_and_one_of_who_may_not_invite_any_more_are_dead(
    invited, as_nadia, dana, acting, northwind
) -> None:
    members.add_member(principal=as_nadia, user=dana, role=Role.ADMIN)
    by_dana = invitations.invite(principal=acting(dana), email="x@acme.example", roles=[(None, Role.ADMIN)])[1]
    Membership.objects.filter(user=dana, role="admin").delete()
    assert code_of(lambda: invitations.look_up(secret=by_dana)) == "invitation.spent"
    invitations.revoke(principal=as_nadia, invitation_id=Invitation.objects.get(email=INES).pk)
    assert code_of(lambda: invitations.look_up(secret=invited)) == "invitation.spent"


def test_a_new_link_is_backed_by_whoever_makes_it(as_nadia, dana, acting) -> None:
    members.add_member(principal=as_nadia, user=dana, role=Role.ADMIN)
    invitations.invite(principal=acting(dana), email=INES, roles=[(None, Role.ADMIN)])
    Membership.objects.filter(user=dana, role="admin").delete()
    renewed = invitations.renew(principal=as_nadia, invitation_id=Invitation.objects.get().pk)[1]
    assert invitations.look_up(secret=renewed).invited_by == "Nadia"
    invitations.accept_as_new_person(secret=renewed, name="Ines", password=PASSWORD)
    assert Membership.objects.get(user__email=INES).role == "admin"


def test_a_new_link_is_refused_where_a_new_invitation_would_be(invited, as_nadia, dana, make_person, acting) -> None:
    """To somebody who joined meanwhile; above all not by themselves."""
    ines = User.objects.create(email=INES, name="Ines")
    Membership.objects.create(user=ines, organisation_id=as_nadia.organisation_id, role=Role.ADMIN.value)
    before = (list(Invitation.objects.values_list()), events())
    invitation = Invitation.objects.get()
    for principal, code in ((acting(ines), "member.own_rights"), (as_nadia, "member.exists")):
        attempt = lambda who=principal: invitations.renew(principal=who, invitation_id=invitation.pk)  # noqa: E731
        assert code_of(attempt) == code
    assert (list(Invitation.objects.values_list()), events()) == before


def test_who_may_not_invite_invites_nobody(as_alice, as_bob, as_finn, as_charlie, as_run, team, invited) -> None:
    before = list(Invitation.objects.values_list())
    for principal in (as_alice, as_bob, as_finn, as_run):
        for where in (None, team.pk):
            attempt = lambda who=principal, place=where: invitations.invite(  # noqa: E731
                principal=who, email="x@acme.example", roles=[(place, Role.AUDITOR)]
            )
            assert code_of(attempt) == "permission.denied"
    foreign = lambda: invitations.invite(principal=as_charlie, email="x@x.example", roles=[(team.pk, Role.AUDITOR)])  # noqa: E731
    assert code_of(foreign) == "team.not_found"
    for principal in (as_alice, as_charlie):
        for act in (invitations.renew, invitations.revoke):
            attempt = lambda who=principal, do=act: do(principal=who, invitation_id=Invitation.objects.get().pk)  # noqa: E731
            assert code_of(attempt) == "invitation.not_found"
    assert list(Invitation.objects.values_list()) == before


def test_an_administrator_of_one_team_invites_to_that_team_only(
    make_person, northwind, team, other_team, acting
) -> None:
    lead = acting(make_person("Tea", northwind, Role.ADMIN, team=team))
    assert invitations.invite(principal=lead, email=INES, roles=[(team.pk, Role.ADMIN)])
    for place in (None, other_team.pk):
        with pytest.raises(RemitError) as refused:
            invitations.invite(principal=lead, email="x@x.example", roles=[(place, Role.AUDITOR)])
        assert refused.value.code in ("permission.denied", "team.not_found")
    assert [item.email for item, _ in invitations.visible(lead)] == [INES]


def test_an_administrator_of_one_team_kills_no_invitation_to_more_than_that_team(
    make_person, northwind, team, other_team, acting, as_nadia
) -> None:
    lead = acting(make_person("Tea", northwind, Role.ADMIN, team=team))
    attempt = lambda: invitations.invite(principal=lead, email=INES.upper(), roles=[(team.pk, Role.AUDITOR)])  # noqa: E731
    for roles in ([(None, Role.ADMIN)], [(team.pk, Role.ADMIN), (other_team.pk, Role.AUDITOR)]):
        secret = invitations.invite(principal=as_nadia, email=INES, roles=roles)[1]
        before = (list(Invitation.objects.values_list()), events())
        assert code_of(attempt) == "invitation.exists"
        assert (list(Invitation.objects.values_list()), events()) == before
        assert invitations.look_up(secret=secret)
    Invitation.objects.update(expires_at=now())  # a dead link keeps nobody out
    assert attempt()
    assert attempt()
    assert Invitation.objects.open().count() == 1


def test_a_token_with_few_scopes_gives_no_more_than_it_holds(as_nadia, nadia) -> None:
    text = credentials.issue_personal_token(
        principal=as_nadia,
        user=nadia,
        name="HR script",
        expires_at=now() + timedelta(days=1),
        scopes={Permission.MEMBER_WRITE, Permission.MEMBER_VIEW},
    )[1]
    script = services.principal_of_token(text)
    attempt = lambda: invitations.invite(principal=script, email=INES, roles=[(None, Role.ADMIN)])  # noqa: E731
    assert code_of(attempt) == "permission.denied"
    assert not Invitation.objects.exists()


@pytest.mark.parametrize(
    "email",
    [
        "",
        "ines",
        "ines@",
        "a b@acme.example",
        "x@acme.example\nBcc: y@x.example",
        "a\0@b.example",
        "a" * 300 + "@acme.example",
    ],
)
def test_what_is_no_address_is_refused(email, as_nadia) -> None:
    attempt = lambda: invitations.invite(principal=as_nadia, email=email, roles=[(None, Role.AUDITOR)])  # noqa: E731
    assert code_of(attempt) == "invitation.invalid"


def test_an_invitation_without_roles_to_a_member_or_to_oneself_is_refused(as_nadia, nadia, alice) -> None:
    invite = lambda email, roles: code_of(lambda: invitations.invite(principal=as_nadia, email=email, roles=roles))  # noqa: E731
    assert invite(INES, []) == "invitation.invalid"
    assert invite(alice.email.upper(), [(None, Role.AUDITOR)]) == "member.exists"
    assert invite(nadia.email, [(None, Role.APPROVER)]) == "member.own_rights"
    assert not Invitation.objects.exists()


@pytest.mark.parametrize("password", ["short", "password12345", "", "ines@acme.example"])
def test_a_weak_password_makes_no_account_and_the_link_still_works(password, invited) -> None:
    attempt = lambda: invitations.accept_as_new_person(secret=invited, name="Ines", password=password)  # noqa: E731
    assert code_of(attempt) == "profile.invalid"
    assert not User.objects.filter(email=INES).exists()
    assert invitations.look_up(secret=invited)


def test_it_is_no_way_around_a_deactivation(as_nadia, alice, northwind) -> None:
    secret = invitations.invite(principal=as_nadia, email=INES, roles=[(None, Role.BUILDER)])[1]
    ines = User.objects.create(email=INES, name="Ines")
    Membership.objects.create(user=ines, organisation=northwind, role="auditor", suspended_at=now())
    assert code_of(lambda: invitations.accept(secret=secret, user=ines)) == "invitation.spent"
    assert not Membership.objects.standing().filter(user=ines).exists()
