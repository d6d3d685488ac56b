"""Who sees what: roles, teams, scopes, machine principals, and another organisation, which sees nothing."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from agents.models import Agent, Mission, Run
from controlplane.common.errors import RemitError
from controlplane.tenancy import services
from controlplane.tenancy.models import Membership, Organisation, Team, TokenKind, User
from controlplane.tenancy.types import ROLE_PERMISSIONS, Permission, Principal, PrincipalKind, Role


def test_charlie_of_another_organisation_sees_nothing(
    as_charlie: Principal, agent: Agent, mission: Mission, run: Run, team: Team
) -> None:
    for rows in (Agent.objects, Mission.objects, Run.objects, Team.objects, Membership.objects):
        for permission in Permission:
            assert (
                not rows.restrict(as_charlie, permission)
                .filter(pk__in=[agent.pk, mission.pk, run.pk, team.pk])
                .exists()
            )
    assert (
        not Membership.objects.restrict(as_charlie, Permission.MEMBER_VIEW).exclude(user_id=as_charlie.user_id).exists()
    )


def test_nobody_sees_nothing(mission: Mission) -> None:
    assert not Mission.objects.restrict(None, Permission.MISSION_VIEW).exists()


@pytest.mark.parametrize("role", list(Role))
def test_a_team_role_reaches_rows_of_that_team_only(
    role: Role,
    make_person: Callable[..., User],
    acting: Callable[[User], Principal],
    northwind: Organisation,
    team: Team,
    other_team: Team,
) -> None:
    principal = acting(make_person("Bob", northwind, role, team=team))
    for permission in Permission:
        seen = set(Team.objects.restrict(principal, permission))
        assert seen == ({team} if permission in ROLE_PERMISSIONS[role] else set())
        assert not principal.has(permission)
        assert not principal.has(permission, team_id=other_team.pk)


@pytest.mark.parametrize("role", list(Role))
def test_an_organisation_role_reaches_every_team(
    role: Role,
    make_person: Callable[..., User],
    acting: Callable[[User], Principal],
    northwind: Organisation,
    team: Team,
    other_team: Team,
) -> None:
    principal = acting(make_person("Dana", northwind, role))
    for permission in ROLE_PERMISSIONS[role]:
        assert set(Team.objects.restrict(principal, permission)) == {team, other_team}
        assert principal.has(permission)


def test_roles_of_several_teams_add_up(
    make_person: Callable[..., User],
    acting: Callable[[User], Principal],
    northwind: Organisation,
    team: Team,
    other_team: Team,
) -> None:
    person = make_person("Bob", northwind, Role.APPROVER, team=team)
    Membership.objects.create(organisation=northwind, team=other_team, user=person, role=Role.BUILDER.value)
    principal = acting(person)
    assert principal.teams_with(Permission.ESCALATION_DECIDE) == {team.pk}
    assert principal.teams_with(Permission.MISSION_WRITE) == {other_team.pk}
    assert principal.teams_with(Permission.MISSION_VIEW) == {team.pk, other_team.pk}


def test_a_person_of_two_organisations_acts_in_one_at_a_time(
    alice: User, elsewhere: Organisation, northwind: Organisation, team: Team
) -> None:
    Membership.objects.create(organisation=elsewhere, user=alice, role=Role.ADMIN.value)
    there = services.principal_of_user(user=alice, organisation_id=elsewhere.pk)
    here = services.principal_of_user(user=alice, organisation_id=northwind.pk)
    assert there is not None
    assert here is not None
    assert there.has(Permission.MEMBER_WRITE)
    assert not here.has_anywhere(Permission.MEMBER_WRITE)
    assert not Team.objects.restrict(there, Permission.AGENT_VIEW).exists()


def test_a_deactivated_person_and_one_without_membership_are_nobody(alice: User, charlie: User) -> None:
    alice.is_active = False
    alice.save(update_fields=["is_active"])
    Membership.objects.filter(user=charlie).delete()
    assert services.principal_of_user(user=alice) is None
    assert services.principal_of_user(user=charlie) is None


def test_scopes_narrow_and_never_widen(issue_token: Callable[..., str], alice: User, team: Team) -> None:
    scopes = {Permission.MISSION_VIEW, Permission.MEMBER_WRITE}  # Alice is no administrator
    principal = services.principal_of_token(issue_token(TokenKind.PERSON, user_id=alice.pk, scopes=scopes))
    assert principal.user_id == alice.pk
    assert principal.has(Permission.MISSION_VIEW, team_id=team.pk)
    assert not principal.has_anywhere(Permission.MISSION_WRITE)
    assert not principal.has_anywhere(Permission.MEMBER_WRITE)


def test_a_personal_token_follows_its_owner_out_of_the_door(issue_token: Callable[..., str], alice: User) -> None:
    text = issue_token(TokenKind.PERSON, user_id=alice.pk)
    assert services.principal_of_token(text).kind is PrincipalKind.USER
    Membership.objects.filter(user=alice).delete()
    with pytest.raises(RemitError, match="owner_gone") as caught:
        services.principal_of_token(text)
    assert caught.value.status == 401


def test_a_service_token_reads_everything_and_writes_nothing(issue_token: Callable[..., str], team: Team) -> None:
    principal = services.principal_of_token(issue_token(TokenKind.SERVICE))
    assert principal.kind is PrincipalKind.SERVICE
    assert principal.has(Permission.AUDIT_VIEW)
    assert not [
        item for item in Permission if item.value.endswith((".write", ".decide", ".operate")) and principal.has(item)
    ]


def test_a_run_sees_its_own_mission_and_nothing_else(
    as_run: Principal, mission: Mission, run: Run, make_mission: Callable[..., Mission]
) -> None:
    make_mission("Another mission of the same agent")
    assert list(Mission.objects.restrict(as_run, Permission.MISSION_VIEW)) == [mission]
    assert list(Run.objects.restrict(as_run, Permission.MISSION_VIEW)) == [run]
    assert not Agent.objects.restrict(as_run, Permission.AGENT_VIEW).exists()
    assert not Membership.objects.restrict(as_run, Permission.MEMBER_VIEW).exists()


def test_an_agent_sees_its_own_missions_only(
    as_agent: Principal, mission: Mission, make_agent: Callable[..., Agent], make_mission: Callable[..., Mission]
) -> None:
    other = make_agent("Other")
    make_mission("Of another agent in the same team", agent=other)
    assert list(Mission.objects.restrict(as_agent, Permission.MISSION_VIEW)) == [mission]


def test_machines_hold_no_permission_of_people(as_run: Principal, as_agent: Principal) -> None:
    allowed = {Permission.MISSION_VIEW, Permission.ACTION_PROPOSE, Permission.ACTION_VIEW}
    for machine in (as_run, as_agent):
        assert {permission for permission in Permission if machine.has_anywhere(permission)} == allowed
        assert not [permission for permission in Permission if machine.has(permission)]
