"""Teams, roles and tokens are given and taken by those who may, on record, and someone can always give them again."""

from __future__ import annotations

import io
import json
import threading
from datetime import timedelta

import pytest
from django.core.management import CommandError, call_command
from django.db import connections

from agents.choices import AgentState
from controlplane.audit.models import Entry
from controlplane.common.clock import now
from controlplane.common.errors import RemitError
from controlplane.tenancy import credentials, members, services, tokens
from controlplane.tenancy.credentials import AgentIdentity
from controlplane.tenancy.models import Membership, Team, Token
from controlplane.tenancy.types import Permission, PrincipalKind, Role

SOON = timedelta(days=7)


def events() -> list[str]:
    return list(Entry.objects.order_by("pk").values_list("event", flat=True))


def code_of(work) -> str:
    with pytest.raises(RemitError) as refused:
        work()
    return refused.value.code


def test_an_administrator_adds_a_team_and_gives_a_role_in_it(as_nadia, alice, acting) -> None:
    team = members.add_team(principal=as_nadia, name="  Night   shift ")
    members.add_member(principal=as_nadia, user=alice, role=Role.APPROVER, team_id=team.pk)
    assert (team.name, team.slug) == ("Night shift", "night-shift")
    assert acting(alice).has(Permission.ESCALATION_DECIDE, team_id=team.pk)
    assert events() == ["team.created", "member.added"]
    entry = Entry.objects.last()
    assert (entry.actor_name, entry.subject_name) == ("Nadia", "Alice")
    assert entry.payload == {"role": "approver", "team": "Night shift"}


def test_giving_a_role_twice_is_one_role_and_one_entry(as_nadia, alice, team) -> None:
    first = members.add_member(principal=as_nadia, user=alice, role=Role.FINANCE)
    assert members.add_member(principal=as_nadia, user=alice, role=Role.FINANCE) == first
    assert events() == ["member.added"]


def test_who_may_not_give_roles_gives_none_and_nothing_changes(
    as_alice, as_bob, as_finn, as_charlie, as_run, bob, team
) -> None:
    before = list(Membership.objects.values_list("pk", flat=True)), Team.objects.count()
    for principal in (as_alice, as_bob, as_finn, as_run):
        assert code_of(lambda who=principal: members.add_team(principal=who, name="Mine")) == "permission.denied"
        for where in (None, team.pk):
            attempt = lambda who=principal, team_id=where: members.add_member(  # noqa: E731
                principal=who, user=bob, role=Role.ADMIN, team_id=team_id
            )
            assert code_of(attempt) == "permission.denied"
    foreign = lambda: members.add_member(principal=as_charlie, user=bob, role=Role.ADMIN, team_id=team.pk)  # noqa: E731
    assert code_of(foreign) == "team.not_found"
    member = Membership.objects.filter(user=bob).get()
    for principal in (as_alice, as_charlie, as_run):
        assert (
            code_of(lambda who=principal: members.remove_member(principal=who, membership_id=member.pk))
            == "member.not_found"
        )
    assert (list(Membership.objects.values_list("pk", flat=True)), Team.objects.count()) == before
    assert events() == []


def test_charlie_adds_to_his_own_organisation_only(as_charlie, bob, elsewhere) -> None:
    members.add_member(principal=as_charlie, user=bob, role=Role.AUDITOR)
    assert Membership.objects.filter(user=bob, role="auditor").get().organisation == elsewhere


@pytest.mark.parametrize("name", ["", "   ", "!!!", "x" * 200])
def test_a_team_without_a_usable_name_is_refused(name, as_nadia) -> None:
    assert code_of(lambda: members.add_team(principal=as_nadia, name=name)) == "team.invalid"


def test_two_teams_cannot_share_a_name(as_nadia, team) -> None:
    assert code_of(lambda: members.add_team(principal=as_nadia, name="receivables")) == "team.exists"
    assert events() == []


def test_the_last_administrator_stays(as_nadia, nadia, bob) -> None:
    own = Membership.objects.get(user=nadia)
    assert (
        code_of(lambda: members.remove_member(principal=as_nadia, membership_id=own.pk)) == "member.last_administrator"
    )
    members.add_member(principal=as_nadia, user=bob, role=Role.ADMIN)
    members.remove_member(principal=as_nadia, membership_id=own.pk)
    assert events() == ["member.added", "member.removed"]


@pytest.mark.django_db(transaction=True)
def test_two_administrators_who_remove_each_other_leave_one(as_nadia, nadia, dana, acting) -> None:
    members.add_member(principal=as_nadia, user=dana, role=Role.ADMIN)
    pairs = [
        (acting(dana), Membership.objects.get(user=nadia)),
        (as_nadia, Membership.objects.get(user=dana, role="admin")),
    ]
    barrier = threading.Barrier(2)
    outcomes: list[str] = []

    def remove(principal, membership) -> None:
        try:
            barrier.wait(20)
            members.remove_member(principal=principal, membership_id=membership.pk)
            outcomes.append("removed")
        except RemitError as error:
            outcomes.append(error.code)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=remove, args=pair) for pair in pairs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(outcomes) == ["member.last_administrator", "removed"]
    assert Membership.objects.filter(role="admin").count() == 1


def test_a_person_issues_a_token_for_themself_only(as_alice, alice, bob) -> None:
    token, text = credentials.issue_personal_token(
        principal=as_alice, user=alice, name="Laptop", expires_at=now() + SOON, scopes={Permission.MISSION_VIEW}
    )
    assert services.principal_of_token(text).scopes == {Permission.MISSION_VIEW}
    attempt = lambda: credentials.issue_personal_token(  # noqa: E731
        principal=as_alice, user=bob, name="Not mine", expires_at=now() + SOON
    )
    assert code_of(attempt) == "permission.denied"
    entry = Entry.objects.get()
    assert (entry.event, entry.subject_id, entry.payload["hint"]) == ("token.issued", token.pk, token.hint)
    assert text not in json.dumps(entry.payload)


def test_a_service_token_needs_the_whole_organisation(as_alice, as_nadia) -> None:
    attempt = lambda who: credentials.issue_service_token(principal=who, name="CI", expires_at=now() + SOON)  # noqa: E731
    assert code_of(lambda: attempt(as_alice)) == "permission.denied"  # Alice issues in her team only
    assert services.principal_of_token(attempt(as_nadia)[1]).kind is PrincipalKind.SERVICE


def test_a_token_of_an_agent_needs_its_team(as_alice, as_charlie, as_bob, agent) -> None:
    identity = AgentIdentity(id=agent.pk, team_id=agent.team_id, name=agent.name)
    for principal in (as_bob, as_charlie):
        attempt = lambda who=principal: credentials.issue_agent_token(  # noqa: E731
            principal=who, agent=identity, name="x", expires_at=now() + SOON
        )
        if principal is as_charlie:
            continue  # an identity comes from `find_agent`, which finds nothing of another organisation
        assert code_of(attempt) == "permission.denied"
    text = credentials.issue_agent_token(principal=as_alice, agent=identity, name="x", expires_at=now() + SOON)[1]
    assert services.principal_of_token(text).agent_id == agent.pk
    assert (
        code_of(lambda: credentials.find_agent(organisation_id=as_charlie.organisation_id, slug=agent.slug))
        == "agent.not_found"
    )


@pytest.mark.parametrize("days", [-1, 0, 400])
def test_a_token_lives_for_a_year_at_most(days, as_nadia) -> None:
    attempt = lambda: credentials.issue_service_token(  # noqa: E731
        principal=as_nadia, name="CI", expires_at=now() + timedelta(days=days)
    )
    assert code_of(attempt) == "token.invalid"
    assert not Token.objects.exists()


def test_who_may_revoke(as_alice, as_bob, as_charlie, as_nadia, alice) -> None:
    token, text = credentials.issue_personal_token(
        principal=as_alice, user=alice, name="Laptop", expires_at=now() + SOON
    )
    for principal in (as_bob, as_charlie):
        assert (
            code_of(lambda who=principal: credentials.revoke_token(principal=who, token_id=token.pk))
            == "token.not_found"
        )
    assert tokens.recognise(text)
    credentials.revoke_token(principal=as_nadia, token_id=token.pk)
    credentials.revoke_token(principal=as_alice, token_id=token.pk)
    assert code_of(lambda: tokens.recognise(text)) == "token.revoked"
    assert events() == ["token.issued", "token.revoked"]


def command(*arguments: str) -> dict:
    said = io.StringIO()
    call_command("token", *arguments, "--json", stdout=said)
    return json.loads(said.getvalue())


def test_the_command_issues_each_kind_and_revokes(northwind, alice, agent) -> None:
    personal = command("issue", "--kind", "pat", "--organisation", "northwind", "--user", alice.email.upper())
    service = command("issue", "--kind", "svc", "--organisation", "northwind", "--scope", "audit.view", "--days", "1")
    machine = command("issue", "--kind", "agt", "--organisation", "northwind", "--agent", agent.slug, "--name", "Clerk")
    assert services.principal_of_token(personal["token"]).user_id == alice.pk
    assert services.principal_of_token(service["token"]).scopes == {Permission.AUDIT_VIEW}
    assert services.principal_of_token(machine["token"]).agent_id == agent.pk
    assert command("revoke", "--id", machine["id"]) == {"id": machine["id"], "revoked": True}
    assert code_of(lambda: tokens.recognise(machine["token"])) == "token.revoked"
    assert events() == ["token.issued"] * 3 + ["token.revoked"]
    assert set(Entry.objects.values_list("actor_name", flat=True)) == {"Operator"}


@pytest.mark.parametrize(
    "arguments",
    [
        ["issue", "--kind", "pat", "--organisation", "northwind"],
        ["issue", "--kind", "pat", "--organisation", "northwind", "--user", "nobody@northwind.example"],
        ["issue", "--kind", "pat", "--organisation", "northwind", "--user", "charlie@elsewhere.example"],
        ["issue", "--kind", "agt", "--organisation", "northwind"],
        ["issue", "--kind", "agt", "--organisation", "northwind", "--agent", "nothing"],
        ["issue", "--kind", "agt", "--organisation", "northwind", "--agent", "retired"],
        ["issue", "--kind", "svc", "--organisation", "nowhere"],
        ["issue", "--kind", "svc", "--organisation", "northwind", "--days", "0"],
        ["issue", "--kind", "svc", "--organisation", "northwind", "--days", "9999999999"],
        ["issue", "--kind", "svc", "--organisation", "northwind", "--scope", "everything"],
        ["issue", "--kind", "svc", "--organisation", "northwind", "--name", " "],
        ["issue", "--kind", "run", "--organisation", "northwind"],
        ["revoke", "--id", "0190a000-0000-7000-8000-000000000000"],
        ["revoke", "--id", "nonsense"],
        [],
    ],
)
def test_the_command_refuses_with_a_sentence_and_issues_nothing(arguments, northwind, charlie, make_agent) -> None:
    make_agent("Retired", slug="retired", state=AgentState.RETIRED)
    with pytest.raises(CommandError):
        call_command("token", *arguments)
    assert not Token.objects.exists()
    assert events() == []
