"""A person can be erased: their name is nowhere in the database, the chain holds, and an export still passes."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import threading
import uuid
from datetime import timedelta
from typing import Any

import pytest
from allauth.account.models import EmailAddress
from allauth.socialaccount.models import SocialAccount
from django.core.management import CommandError, call_command
from django.db import DatabaseError, connection, connections, transaction

from agents import services as agents
from agents.models import McpServer, McpTool
from controlplane.audit import erasure, exporting, jobs, selectors, services
from controlplane.audit.chain import facts_of, restated
from controlplane.audit.checkpoints import sign_head
from controlplane.audit.events import Event
from controlplane.audit.exporting import VERIFIER, Range, export_to
from controlplane.audit.models import Entry, Restatement, Seal
from controlplane.audit.sealing import seal_all
from controlplane.audit.services import Subject
from controlplane.audit.verification import Flaw, verify_entry, verify_organisation
from controlplane.common.clock import now
from controlplane.common.errors import RemitError
from controlplane.common.ids import new_id
from controlplane.tenancy import members, tokens
from controlplane.tenancy.models import Invitation, Membership, TokenKind, User
from controlplane.tenancy.types import Role, system_principal
from governance.approval_models import ApprovalRoute
from governance.models import PolicyBundle

from .exported import check, first


@pytest.fixture(autouse=True)
def _own_key(tmp_path, settings) -> None:
    settings.CONFIG = settings.CONFIG.model_copy(update={"state_dir": tmp_path / "state"})


@pytest.fixture
def rosalind(make_person, northwind, team) -> User:
    """A builder of the team with a name that nobody shares and that JSON has to escape."""
    user = make_person("Rosalind", northwind, Role.BUILDER, team=team)
    User.objects.filter(pk=user.pk).update(name='Rosalind "Ros" Ümlaut', email="rosalind.u@northwind.example")
    user.refresh_from_db()
    return user


@pytest.fixture
def lived(rosalind, record, acting, as_nadia, nadia, team, make_mission, issue_token, northwind) -> User:
    """Rosalind has worked, was written about, and has changed her name once."""
    User.objects.filter(pk=rosalind.pk).update(name="Rosalind Maiden")
    record(actor=acting(User.objects.get(pk=rosalind.pk)), reason="before the wedding")
    User.objects.filter(pk=rosalind.pk).update(name=rosalind.name)
    actor = acting(rosalind)
    record(actor=actor, reason="Agreed", name="Invoices of May")
    record(reason=f"As {rosalind.name} said; write to ROSALIND.U@northwind.example", nested={"by": [rosalind.name]})
    record(reason="Nothing about anybody", name="Invoices of June")
    members.add_member(principal=as_nadia, user=rosalind, role=Role.APPROVER, team_id=team.pk)
    with transaction.atomic():
        services.record(
            event=Event.PERSON_SIGNED_IN,
            actor=actor,
            subject=Subject("person", rosalind.pk, str(rosalind)),
            payload={"client": "203.0.113.77"},
        )
    filled_in = {"values": {"title": f"While {rosalind.name} is away"}, "variables": {"BOOKS_DATA": "/workspace/books"}}
    mission = make_mission(owner=rosalind, created_by=rosalind, settings=filled_in)
    agents.pause_mission(actor=actor, mission_id=mission.pk)
    Invitation.objects.create(
        organisation=northwind,
        email=rosalind.email,
        roles=[],
        hash="x",
        linked_at=now(),
        expires_at=now(),
        accepted_at=now(),
        accepted_by=rosalind,
        invited_by=nadia,
    )
    SocialAccount.objects.create(user=rosalind, provider="oidc", uid="rosalind.u", extra_data={"name": rosalind.name})
    EmailAddress.objects.create(user=rosalind, email=rosalind.email)
    issue_token(TokenKind.PERSON, name="Rosalind Maiden's laptop", user_id=rosalind.pk)
    seal_all()
    sign_head(organisation_id=northwind.pk)
    return rosalind


def everywhere(*texts: str) -> list[str]:
    """Every table and column of the whole database that holds one of the texts, in whatever type."""
    found = []
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT table_name, column_name FROM information_schema.columns c JOIN information_schema.tables t"
            " USING (table_schema, table_name) WHERE table_schema = 'public' AND table_type = 'BASE TABLE'"
        )
        for table, column in cursor.fetchall():
            for text in texts:
                for form in {text, json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1]}:
                    cursor.execute(
                        f"""SELECT count(*) FROM "{table}" WHERE "{column}"::text ILIKE %s""",
                        ["%" + form.replace("\\", "\\\\") + "%"],
                    )
                    if cursor.fetchone()[0]:
                        found.append(f"{table}.{column}: {form}")
    return found


def check_export(organisation, path) -> dict[str, Any]:
    export_to(organisation_id=organisation.pk, target=path)
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(VERIFIER), str(path), "--json"], capture_output=True, text=True
    )
    assert done.stderr == ""
    return json.loads(done.stdout)


NAMES = ('Rosalind "Ros" Ümlaut', "Rosalind", "rosalind.u", "Maiden", "203.0.113.77")


def test_afterwards_the_name_is_nowhere_and_the_chain_holds(lived, as_nadia, northwind, tmp_path) -> None:
    assert len(everywhere(*NAMES)) > 8
    before = verify_organisation(organisation_id=northwind.pk)
    assert before.intact
    earlier = tmp_path / "before.zip"
    export_to(organisation_id=northwind.pk, target=earlier)
    heads = dict(Seal.objects.values_list("sequence", "chain_sha256"))

    erased = erasure.erase_person(actor=as_nadia, user_id=lived.pk)

    assert everywhere(*NAMES) == []
    assert erased.kept == {}
    assert erased.entries == Restatement.objects.count() >= 6
    seal_all()
    after = verify_organisation(organisation_id=northwind.pk, anchor=before.head)
    assert after.intact, after.flaws
    assert after.restated == erased.entries
    assert heads.items() <= dict(Seal.objects.values_list("sequence", "chain_sha256")).items(), "no link was rewritten"
    found = check_export(northwind, tmp_path / "after.zip")
    assert (found["intact"], found["restated"]) == (True, erased.entries), found
    done = subprocess.run(
        [sys.executable, "-I", str(VERIFIER), str(tmp_path / "after.zip"), "--against", str(earlier)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout


def test_what_happened_stays_readable_under_one_pseudonym(lived, as_nadia, as_finn) -> None:
    erased = erasure.erase_person(actor=as_nadia, user_id=lived.pk)
    told = [selectors.sentence(entry) for entry in selectors.entries(principal=as_finn).items]
    assert told[0] == f"Nadia erased the personal data of {erased.pseudonym}: {erased.entries} entries restated"
    assert f"{erased.pseudonym} paused Invoices of May: Agreed" in told
    assert "Remit paused Invoices of June: Nothing about anybody" in told
    assert f"Remit paused Invoices: As {erased.pseudonym} said; write to {erased.pseudonym}" in told
    assert {entry.actor_id for entry in Entry.objects.filter(actor_name=erased.pseudonym)} == {lived.pk}


def test_the_account_is_closed_and_no_way_in_is_left(lived, as_nadia, client) -> None:
    client.force_login(lived, backend="allauth.account.auth_backends.AuthenticationBackend")
    secret = tokens.issue(
        kind=TokenKind.PERSON,
        organisation_id=as_nadia.organisation_id,
        name="x",
        user_id=lived.pk,
        expires_at=lived.date_joined.replace(year=2999),
    )[1]
    erasure.erase_person(actor=as_nadia, user_id=lived.pk)
    user = User.objects.get(pk=lived.pk)
    assert (user.is_active, user.has_usable_password(), user.memberships.exists()) == (False, False, False)
    assert user.email.endswith("@erased.invalid")
    assert client.get("/audit").status_code in (302, 403)
    with pytest.raises(RemitError):
        tokens.recognise(secret)


def test_entries_from_before_there_were_salts_are_erased_too(rosalind, acting, as_nadia, northwind, tmp_path) -> None:
    facts = services.row(
        event=Event.MISSION_PAUSED, actor=acting(rosalind), subject=Subject("mission", new_id(), "Old"), payload={}
    )
    entry = Entry.objects.create(**{**facts, "salt": None})
    seal_all()
    erasure.erase_person(actor=as_nadia, user_id=rosalind.pk)
    seal_all()
    assert everywhere(*NAMES) == []
    assert verify_organisation(organisation_id=northwind.pk).intact
    assert verify_entry(Entry.objects.get(pk=entry.pk)).holds
    assert check_export(northwind, tmp_path / "old.zip")["intact"] is True


def test_two_erasures_may_meet_in_one_entry(rosalind, make_person, acting, as_nadia, northwind, tmp_path) -> None:
    other = make_person("Ignatius", northwind, Role.APPROVER)
    with transaction.atomic():
        services.record(
            event=Event.MEMBER_REMOVED,
            actor=acting(rosalind),
            subject=Subject("person", other.pk, other.name),
            payload={"role": "approver"},
        )
    erasure.erase_person(actor=as_nadia, user_id=rosalind.pk)
    erasure.erase_person(actor=as_nadia, user_id=other.pk)
    seal_all()
    assert everywhere(*NAMES, "Ignatius") == []
    assert verify_organisation(organisation_id=northwind.pk).intact
    assert check_export(northwind, tmp_path / "two.zip")["intact"] is True


@pytest.mark.parametrize(
    ("change", "flaw"),
    [
        ("subject_name = 'Another past'", Flaw.RESTATEMENT_CHANGED),
        ("actor_name = 'Nadia'", Flaw.RESTATEMENT_CHANGED),
        ("at = at - interval '1 day'", Flaw.ENTRY_CHANGED),
        ("salt = gen_random_uuid()", Flaw.RESTATEMENT_CHANGED),
        ("commitment = NULL", Flaw.ENTRY_CHANGED),
    ],
)
def test_an_erased_entry_can_not_be_changed_under_cover_of_the_erasure(
    change, flaw, lived, as_nadia, northwind, as_intruder, tmp_path
) -> None:
    erased = erasure.erase_person(actor=as_nadia, user_id=lived.pk)
    seal_all()
    entry = Entry.objects.filter(actor_name=erased.pseudonym, subject_name="Invoices of May").get()
    as_intruder(f"UPDATE audit_entry SET {change} WHERE id = %s", [entry.pk])
    report = verify_organisation(organisation_id=northwind.pk)
    assert flaw in {finding.flaw for finding in report.flaws}
    assert check_export(northwind, tmp_path / "changed.zip")["intact"] is False


def test_an_erasure_that_somebody_makes_up_is_found(record, northwind, as_intruder, tmp_path) -> None:
    entry = record(reason="what happened")
    seal_all()
    as_intruder(
        "UPDATE audit_entry SET subject_name = 'Nothing', salt = gen_random_uuid(), commitment = %s WHERE id = %s",
        ["sha256:" + "0" * 64, entry.pk],
    )
    assert not verify_organisation(organisation_id=northwind.pk).intact
    assert check_export(northwind, tmp_path / "made_up.zip")["intact"] is False


@pytest.mark.parametrize("erasure_at", ["at once", "in 2099"])
def test_an_entry_restated_under_a_made_up_erasure_is_found_also_while_entries_are_being_written(
    erasure_at, record, northwind, as_intruder, tmp_path
) -> None:
    """Only what was erased at the end of an export may have its entry beyond it."""
    erasure_id = (
        new_id() if erasure_at == "at once" else uuid.UUID(int=(4_070_908_800_000 << 80) | (7 << 76) | (2 << 62))
    )
    entry = record(reason="what happened")
    seal_all()
    seal = Seal.objects.get(entry=entry)
    facts = facts_of(entry)._replace(event="mission.resumed", salt=new_id(), commitment="")
    as_intruder(
        "UPDATE audit_entry SET event = 'mission.resumed', salt = %s, commitment = '' WHERE id = %s",
        [facts.salt, entry.pk],
    )
    Restatement.objects.create(
        organisation=northwind,
        erasure_id=erasure_id,
        entry_id=entry.pk,
        sequence=seal.sequence,
        restated_sha256=restated(chain_sha256=seal.chain_sha256, facts=facts),
    )
    later = now() + timedelta(minutes=30)
    with transaction.atomic():
        row = services.row(
            event=Event.MISSION_PAUSED,
            actor=system_principal(organisation_id=northwind.pk),
            subject=Subject("mission", new_id(), "Half an hour later"),
        )
        milliseconds = int(later.timestamp() * 1000)
        late = uuid.UUID(int=(milliseconds << 80) | (new_id().int & ((1 << 80) - 1)))
        Entry.objects.create(**{**row, "id": late, "at": later})
    seal_all()
    wanted = Range(1, 2)
    record(reason="the trail goes on")
    seal_all()
    export_to(organisation_id=northwind.pk, target=tmp_path / "busy.zip", wanted=wanted)
    found = check(tmp_path / "busy.zip")
    assert first(found) == ("erasure_unproven", None), found


def test_an_export_that_lies_here_and_names_the_person_is_gone_with_the_erasure(lived, as_nadia, northwind) -> None:
    job = jobs.begin(job=jobs.ask_export(principal=as_nadia), seconds=5)
    assert jobs.file_of(principal=as_nadia, job_id=job.pk).exists()
    path = jobs.file_of(principal=as_nadia, job_id=job.pk)
    erasure.erase_person(actor=as_nadia, user_id=lived.pk)
    with pytest.raises(RemitError, match="gone"):
        jobs.file_of(principal=as_nadia, job_id=job.pk)
    jobs.sweep()
    assert not path.exists()


@pytest.mark.parametrize("at_work", [True, False])
def test_an_export_that_is_being_written_ends_with_the_erasure(at_work, lived, as_nadia, settings, monkeypatch) -> None:
    """Its first part names the person still."""
    monkeypatch.setattr(exporting, "PART_ENTRIES", 2)
    job = jobs.ask_export(principal=as_nadia)
    assert not jobs.work(job_id=job.pk, seconds=0)
    written = exporting.write_part

    def meanwhile(*args: Any, **kwargs: Any) -> Any:
        monkeypatch.setattr(exporting, "write_part", written)
        erasure.erase_person(actor=as_nadia, user_id=lived.pk)
        return written(*args, **kwargs)

    if at_work:
        monkeypatch.setattr(exporting, "write_part", meanwhile)
        assert jobs.work(job_id=job.pk, seconds=60)
    else:
        erasure.erase_person(actor=as_nadia, user_id=lived.pk)
    jobs.sweep()
    job.refresh_from_db()
    assert (job.state, "erased" in job.error) == ("failed", True)
    assert list((settings.CONFIG.state_dir / "audit_exports").iterdir()) == []
    with pytest.raises(RemitError):
        jobs.file_of(principal=as_nadia, job_id=job.pk)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit_entry SET actor_name = 'x', salt = gen_random_uuid(), commitment = ''",
        (
            "SELECT set_config('remit.erasure', gen_random_uuid()::text, true);"
            " UPDATE audit_entry SET actor_name = 'x', salt = gen_random_uuid(), commitment = ''"
        ),
        "DELETE FROM audit_restatement",
        "UPDATE audit_restatement SET restated_sha256 = ''",
        "UPDATE audit_checkpoint SET signature = ''",
        "DELETE FROM audit_checkpoint",
    ],
)
def test_the_database_refuses_what_is_no_erasure(statement, lived, as_nadia) -> None:
    erasure.erase_person(actor=as_nadia, user_id=lived.pk)
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
    with pytest.raises(DatabaseError, match="append-only"), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(statement)


@pytest.mark.parametrize("name", ["Max", "Min", "max", "Grant", "Books"])
def test_a_name_that_is_a_word_of_remit_too_changes_no_rule_and_no_tool(
    name, make_person, make_mission, as_nadia, northwind, team, record
) -> None:
    user = make_person("Somebody", northwind, Role.BUILDER, team=team)
    User.objects.filter(pk=user.pk).update(name=name)
    mission = make_mission(owner=user, created_by=user, title=f"While {name.capitalize()} is away")
    rules = {"amount": {"min": "0.01", "max": "100.00"}, "name": {"equals": name}}
    grants = [
        {"tool": "books__credit", "effect": "allow", "constraints": rules, "sentence": f"As {name.capitalize()} agreed"}
    ]
    version = mission.versions.get()
    type(version).objects.filter(pk=version.pk).update(grants=grants)
    ours = PolicyBundle.objects.create(
        organisation=northwind,
        name=f"As {name.capitalize()} agreed",
        sha256="sha256:ours",
        policies=f"permit (principal, action, resource) when {{ context.{name} }};",
        schema={"action": name},
        golden_cases=[{"case": name}],
    )
    route = ApprovalRoute.objects.create(
        organisation=northwind, position=1, name=f"What {name.capitalize()} signs", amount_above=5, amount_argument=name
    )
    server = McpServer.objects.create(organisation=northwind, name="Books", slug="books", created_by=user)
    tool = McpTool.objects.create(
        server=server, name=name, qualified_name=name, definition={"name": name}, definition_sha256="sha256:tool"
    )
    for_programs = {
        ours: ("policies", "schema", "golden_cases"),
        route: ("amount_argument",),
        tool: ("name", "qualified_name", "definition"),
    }
    before = {row: [getattr(row, column) for column in columns] for row, columns in for_programs.items()}
    record(reason=f"{name.capitalize()} asked", name="Invoices", max="5", grant="3")
    erased = erasure.erase_person(actor=as_nadia, user_id=user.pk)
    version.refresh_from_db()
    assert version.grants == [{**grants[0], "sentence": f"As {erased.pseudonym} agreed"}]
    mission.refresh_from_db()
    assert mission.title == f"While {erased.pseudonym} is away"
    assert erased.kept["agents_missionversion.grants"] == 1  # the rule about the argument
    for row, columns in for_programs.items():
        row.refresh_from_db()
        assert [getattr(row, column) for column in columns] == before[row]
        assert {erased.kept[f"{row._meta.db_table}.{column}"] for column in columns} == {1}
    assert (ours.name, route.name) == (f"As {erased.pseudonym} agreed", f"What {erased.pseudonym} signs")
    payload = Entry.objects.filter(payload__has_key="max").latest("id").payload
    assert (payload["reason"], payload["max"], payload["grant"]) == (f"{erased.pseudonym} asked", "5", "3")


def test_a_name_that_is_an_ordinary_word_is_not_taken_out_of_sentences(
    make_person, as_nadia, northwind, record
) -> None:
    user = make_person("Somebody", northwind, Role.BUILDER)
    User.objects.filter(pk=user.pk).update(name="Will")
    record(reason="This will do, said Will (WILL)")
    erased = erasure.erase_person(actor=as_nadia, user_id=user.pk)
    reason = Entry.objects.filter(payload__has_key="reason").latest("id").payload["reason"]
    assert reason == f"This will do, said {erased.pseudonym} ({erased.pseudonym})"


def test_a_namesakes_mentions_stay(lived, make_person, as_nadia, northwind, record) -> None:
    other = make_person("Twin", northwind, Role.BUILDER)
    User.objects.filter(pk=other.pk).update(name=lived.name)
    entry = record(reason=f"{lived.name} agreed")
    erasure.erase_person(actor=as_nadia, user_id=lived.pk)
    assert Entry.objects.get(pk=entry.pk).payload == {"reason": f"{lived.name} agreed"}
    assert not Entry.objects.filter(actor_id=lived.pk, actor_name=lived.name).exists()
    assert User.objects.get(pk=other.pk).name == lived.name


def test_only_administrators_erase_and_a_refusal_changes_nothing(
    lived, as_bob, as_finn, as_nadia, as_charlie, nadia, charlie, elsewhere
) -> None:
    for actor in (as_bob, as_finn, as_charlie):
        with pytest.raises(RemitError):
            erasure.erase_person(actor=actor, user_id=lived.pk)
    with pytest.raises(RemitError, match="yourself"):
        erasure.erase_person(actor=as_nadia, user_id=nadia.pk)
    with pytest.raises(RemitError):
        erasure.erase_person(actor=as_nadia, user_id=charlie.pk)
    Membership.objects.create(organisation=elsewhere, user=lived, role=Role.AUDITOR.value)
    with pytest.raises(RemitError, match="another organisation"):
        erasure.erase_person(actor=as_nadia, user_id=lived.pk)
    assert User.objects.get(pk=lived.pk).name == lived.name
    assert not Restatement.objects.exists()
    assert not Entry.objects.filter(event="person.erased").exists()


@pytest.mark.django_db(transaction=True)
def test_two_administrators_who_erase_each_other_leave_one(make_person, northwind, acting) -> None:
    nadia, otto = (make_person(name, northwind, Role.ADMIN) for name in ("Nadia", "Otto"))
    barrier, outcomes = threading.Barrier(2), []

    def erase(actor, user) -> None:
        try:
            barrier.wait(20)
            erasure.erase_person(actor=actor, user_id=user.pk)
            outcomes.append("erased")
        except RemitError as error:
            outcomes.append(error.code)
        finally:
            connections.close_all()

    pairs = [(acting(nadia), otto), (acting(otto), nadia)]
    threads = [threading.Thread(target=erase, args=pair) for pair in pairs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(outcomes) == ["erased", "member.last_administrator"]
    assert Membership.objects.filter(organisation=northwind, role=Role.ADMIN.value).count() == 1
    assert User.objects.filter(is_active=True).count() == 1
    assert Entry.objects.filter(event="person.erased").count() == 1


def test_the_command_erases_in_every_organisation(lived, elsewhere, northwind) -> None:
    Membership.objects.create(organisation=elsewhere, user=lived, role=Role.AUDITOR.value)
    with transaction.atomic():
        services.record(
            event=Event.MEMBER_ADDED,
            actor=system_principal(organisation_id=elsewhere.pk),
            subject=Subject("person", lived.pk, lived.name),
            payload={"role": "auditor"},
        )
    said = io.StringIO()
    call_command("person", "erase", "--user", lived.email, "--yes", stdout=said)
    assert "Erased." in said.getvalue()
    assert everywhere(*NAMES) == []
    seal_all()
    for organisation in (northwind, elsewhere):
        assert verify_organisation(organisation_id=organisation.pk).intact
        assert Entry.objects.filter(organisation=organisation, event="person.erased").count() == 1
    with pytest.raises(CommandError, match="Nobody"):
        call_command("person", "erase", "--user", lived.email, "--yes")
