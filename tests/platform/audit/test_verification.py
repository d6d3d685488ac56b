"""Whoever gets past the triggers is found out: what was changed and where; `manage.py audit verify` ends with 1."""

from __future__ import annotations

import io
import json
import math
import os

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.audit import keys, offline_verifier, signatures
from controlplane.audit.chain import payload_digest
from controlplane.audit.checkpoints import sign_heads
from controlplane.audit.models import Entry, Seal
from controlplane.audit.sealing import seal_all
from controlplane.audit.verification import Flaw, verify_entry, verify_organisation
from controlplane.common.canonical import digest
from controlplane.common.errors import RemitError


@pytest.fixture
def trail(record, northwind) -> list[Entry]:
    """Six sealed entries."""
    written = [record(reason=f"reason {number}", amount=f"{number}.50") for number in range(6)]
    seal_all()
    return written


def flaws(organisation, **options) -> list[tuple[Flaw, int | None]]:
    report = verify_organisation(organisation_id=organisation.pk, **options)
    assert report.flaw_count == len(report.flaws)
    return [(finding.flaw, finding.sequence) for finding in report.flaws]


def test_an_untouched_trail_is_intact(trail, northwind) -> None:
    report = verify_organisation(organisation_id=northwind.pk)
    assert (report.intact, report.sealed, report.unsealed) == (True, 6, 0)
    assert report.head is not None
    assert report.head.sequence == 6


def test_an_edited_payload_is_found(trail, northwind, as_intruder) -> None:
    as_intruder("""UPDATE audit_entry SET payload = '{"reason": "nothing"}' WHERE id = %s""", [trail[2].pk])
    assert flaws(northwind) == [(Flaw.PAYLOAD_CHANGED, 3)]


def test_an_edited_payload_with_a_fitting_hash_is_found(trail, northwind, as_intruder) -> None:
    as_intruder(
        """UPDATE audit_entry SET payload = '{"a": 1}', payload_sha256 = %s WHERE id = %s""",
        [digest({"a": 1}), trail[2].pk],
    )
    assert flaws(northwind) == [(Flaw.ENTRY_CHANGED, 3)]


@pytest.mark.parametrize(
    "change",
    [
        "actor_name = 'Somebody else'",
        "actor_id = gen_random_uuid()",
        "event = 'mission.stopped'",
        "at = at + interval '1 microsecond'",
        "subject_name = 'Other'",
        "mission_id = gen_random_uuid()",
        "team_id = gen_random_uuid()",
        "trace_id = 'f'",
    ],
)
def test_every_edited_column_is_found(change, trail, northwind, as_intruder) -> None:
    as_intruder(f"UPDATE audit_entry SET {change} WHERE id = %s", [trail[4].pk])
    assert flaws(northwind) == [(Flaw.ENTRY_CHANGED, 5)]


def test_a_deleted_entry_is_found(trail, northwind, as_intruder) -> None:
    as_intruder("DELETE FROM audit_entry WHERE id = %s", [trail[1].pk])
    assert flaws(northwind) == [(Flaw.ENTRY_MISSING, 2)]


def test_an_entry_deleted_with_its_seal_is_found(trail, northwind, as_intruder) -> None:
    as_intruder("DELETE FROM audit_seal WHERE entry_id = %s", [trail[1].pk])
    as_intruder("DELETE FROM audit_entry WHERE id = %s", [trail[1].pk])
    assert flaws(northwind) == [(Flaw.SEQUENCE_BROKEN, 3)]


def test_numbers_closed_up_after_a_deletion_are_found(trail, northwind, as_intruder) -> None:
    as_intruder("DELETE FROM audit_seal WHERE entry_id = %s", [trail[1].pk])
    as_intruder("DELETE FROM audit_entry WHERE id = %s", [trail[1].pk])
    for sequence in (3, 4, 5, 6):
        as_intruder("UPDATE audit_seal SET sequence = %s WHERE sequence = %s", [sequence - 1, sequence])
    assert flaws(northwind)[0] == (Flaw.ENTRY_CHANGED, 2)


def test_two_entries_that_changed_places_are_found(trail, northwind, as_intruder) -> None:
    swap = (
        "UPDATE audit_seal SET entry_id = CASE sequence WHEN 2 THEN %s::uuid ELSE %s::uuid END WHERE sequence IN (2, 3)"
    )
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        cursor.execute("ALTER TABLE audit_seal DROP CONSTRAINT audit_seal_entry_id_key")
    as_intruder(swap, [trail[2].pk, trail[1].pk])
    assert flaws(northwind) == [(Flaw.ENTRY_CHANGED, 2), (Flaw.ENTRY_CHANGED, 3)]


def test_a_changed_link_is_found(trail, northwind, as_intruder) -> None:
    as_intruder("UPDATE audit_seal SET chain_sha256 = %s WHERE sequence = 2", ["sha256:" + "0" * 64])
    assert flaws(northwind) == [(Flaw.ENTRY_CHANGED, 2), (Flaw.ENTRY_CHANGED, 3)]


def test_a_tail_whose_seals_were_cut_is_found(trail, northwind, as_intruder) -> None:
    as_intruder("DELETE FROM audit_seal WHERE sequence > 4", [])
    assert flaws(northwind) == [(Flaw.SEAL_MISSING, None), (Flaw.SEAL_MISSING, None)]


def test_a_tail_cut_with_its_entries_is_found_by_a_head_noted_earlier(trail, northwind, as_intruder) -> None:
    head = verify_organisation(organisation_id=northwind.pk).head
    as_intruder("DELETE FROM audit_seal WHERE sequence > 4", [])
    as_intruder("DELETE FROM audit_entry WHERE id = ANY(%s)", [[trail[4].pk, trail[5].pk]])
    assert flaws(northwind) == []  # a shorter chain is a valid chain: that is what the noted head is for
    assert flaws(northwind, anchor=head) == [(Flaw.ANCHOR_MISSING, 6)]


def test_a_rewritten_chain_is_found_by_a_head_noted_earlier(trail, northwind, as_intruder) -> None:
    head = verify_organisation(organisation_id=northwind.pk).head
    as_intruder("UPDATE audit_entry SET actor_name = 'Somebody else' WHERE id = %s", [trail[0].pk])
    as_intruder("DELETE FROM audit_seal", [])
    as_intruder(
        "INSERT INTO audit_unsealed (organisation_id, entry_id) SELECT organisation_id, id FROM audit_entry", []
    )
    assert seal_all() == 6
    assert flaws(northwind) == []
    assert flaws(northwind, anchor=head) == [(Flaw.ANCHOR_MISSING, 6)]


def test_an_earlier_head_stays_valid_while_the_chain_grows(trail, record, northwind) -> None:
    head = verify_organisation(organisation_id=northwind.pk).head
    record()
    seal_all()
    assert flaws(northwind, anchor=head) == []


def test_an_entry_hidden_from_the_sealer_is_found(record, northwind) -> None:
    record()
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM audit_unsealed")
    assert seal_all() == 0
    assert flaws(northwind) == [(Flaw.SEAL_MISSING, None)]


def test_an_entry_deleted_before_it_was_sealed_is_found(record, northwind, as_intruder) -> None:
    entry = record()
    as_intruder("DELETE FROM audit_entry WHERE id = %s", [entry.pk])
    assert flaws(northwind) == [(Flaw.ENTRY_MISSING, None)]


def test_an_entry_moved_to_another_organisation_is_found(trail, northwind, elsewhere, as_intruder) -> None:
    as_intruder("UPDATE audit_entry SET organisation_id = %s WHERE id = %s", [elsewhere.pk, trail[3].pk])
    assert flaws(northwind) == [(Flaw.FOREIGN_ENTRY, 4)]


def test_the_command_says_intact_and_counts(trail, record) -> None:
    record()
    answer = _verify("--json")
    found = answer["organisations"]["northwind"]
    assert answer["intact"] is True
    assert (found["sealed"], found["unsealed"], found["flaw_count"]) == (6, 1, 0)
    assert found["oldest_unsealed_at"]
    said = io.StringIO()
    call_command("audit", "verify", stdout=said)
    assert "northwind: 6 sealed, 1 not yet sealed" in said.getvalue()
    assert "Intact" in said.getvalue()


def test_the_command_ends_with_1_and_names_the_first_broken_place(trail, as_intruder) -> None:
    as_intruder("""UPDATE audit_entry SET payload = '{}' WHERE id = %s""", [trail[2].pk])
    said = io.StringIO()
    with pytest.raises(SystemExit) as ended:
        call_command("audit", "verify", "--organisation", "northwind", stdout=said)
    assert ended.value.code == 1
    assert f"at 3, entry {trail[2].pk}: The payload is not the one that was recorded." in said.getvalue()
    said = io.StringIO()
    with pytest.raises(SystemExit):
        call_command("audit", "verify", "--json", stdout=said)
    flaw = json.loads(said.getvalue())["organisations"]["northwind"]["flaws"][0]
    assert (flaw["flaw"], flaw["sequence"]) == ("payload_changed", 3)


def test_the_command_takes_the_head_it_printed(trail, as_intruder) -> None:
    head = _verify("--json")["organisations"]["northwind"]["head"]
    noted = f"{head['sequence']}:{head['chain_sha256']}"
    assert _verify("--organisation", "northwind", "--expect", noted, "--json")["intact"] is True
    with pytest.raises(SystemExit):
        _verify("--organisation", "northwind", "--expect", f"6:sha256:{'0' * 64}", "--json")


@pytest.mark.parametrize(
    "arguments",
    [
        ["verify", "--organisation", "nobody"],
        ["verify", "--expect", f"1:sha256:{'0' * 64}"],
        ["verify", "--organisation", "northwind", "--expect", "1"],
        ["mend"],
        [],
    ],
)
def test_the_command_refuses_what_it_does_not_understand(arguments, northwind) -> None:
    with pytest.raises(CommandError):
        call_command("audit", *arguments)


def test_the_proof_of_one_entry(trail, as_intruder) -> None:
    proof = verify_entry(trail[3])
    assert proof.holds
    assert proof.sequence == 4
    assert proof.previous_chain_sha256 == Seal.objects.get(sequence=3).chain_sha256
    assert verify_entry(trail[0]).holds
    as_intruder("UPDATE audit_entry SET actor_name = 'Somebody else' WHERE id = %s", [trail[3].pk])
    changed = verify_entry(Entry.objects.get(pk=trail[3].pk))
    assert (changed.payload_holds, changed.chain_holds, changed.holds) == (True, False, False)


def test_an_entry_not_yet_sealed_has_no_place(record) -> None:
    proof = verify_entry(record())
    assert (proof.sequence, proof.payload_holds, proof.holds) == (None, True, False)


_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False).filter(lambda value: value or math.copysign(1, value) > 0)
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00")),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00")), inner, max_size=4
        )
    ),
    max_leaves=12,
)


@pytest.mark.django_db
@settings(max_examples=150, deadline=None)
@given(payload=st.dictionaries(st.text("abc é\U0001f600", max_size=3), _json, max_size=4))
def test_a_payload_has_the_same_hash_after_its_way_through_the_database(payload) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT %s::jsonb::text", [json.dumps(payload)])
        assert payload_digest(cursor.fetchone()[0]) == digest(payload)


def _verify(*arguments: str) -> dict:
    said = io.StringIO()
    call_command("audit", "verify", *arguments, stdout=said)
    return json.loads(said.getvalue())


def test_a_checkpoint_that_was_changed_made_up_or_taken_away_is_found(
    trail, record, northwind, as_intruder, settings, tmp_path
) -> None:
    settings.CONFIG = settings.CONFIG.model_copy(update={"state_dir": tmp_path})
    for _ in range(3):
        record()
        seal_all()
        sign_heads()
    assert flaws(northwind) == []
    as_intruder("DELETE FROM audit_checkpoint WHERE number = 2", [])
    assert flaws(northwind) == [(Flaw.CHECKPOINT_FORGED, 9)]
    as_intruder("UPDATE audit_checkpoint SET at = at - interval '1 day' WHERE number = 1", [])
    assert (Flaw.CHECKPOINT_FORGED, 7) in flaws(northwind)


def test_a_key_that_somebody_wrote_into_the_table_signs_nothing(
    trail, northwind, as_intruder, settings, tmp_path
) -> None:
    mine = settings.CONFIG.model_copy(update={"state_dir": tmp_path / "mine"})
    settings.CONFIG = settings.CONFIG.model_copy(update={"state_dir": tmp_path / "theirs"})
    sign_heads()
    settings.CONFIG = mine
    keys.signer()
    assert flaws(northwind) == [(Flaw.CHECKPOINT_FORGED, 6)]


def test_the_key_is_its_owners_alone_and_is_kept_when_it_is_replaced(northwind, settings, tmp_path) -> None:
    settings.CONFIG = settings.CONFIG.model_copy(update={"state_dir": tmp_path})
    assert keys.present() is None
    first = keys.signer()
    path = tmp_path / keys.FILE
    assert path.stat().st_mode & 0o777 == 0o600
    assert keys.signer().id == keys.present() == first.id
    second, configured = keys.rotate()
    assert (keys.signer().id, configured) == (second.id, "")
    assert path.stat().st_mode & 0o777 == 0o600
    assert [entry.path for entry in os.scandir(tmp_path)] == [str(path)], "nothing unfinished is left"
    assert set(signatures.trusted_keys()) == {first.id, second.id}
    path.write_text("not a key")
    with pytest.raises(RemitError, match="can't be read"):
        keys.signer()


def test_a_key_of_the_configuration_is_used_and_its_successor_is_printed(northwind, settings, tmp_path) -> None:
    settings.CONFIG = settings.CONFIG.model_copy(update={"state_dir": tmp_path, "audit_key": "ab" * 32})
    first = keys.signer()
    said = io.StringIO()
    call_command("audit", "rotate-key", stdout=said)
    seed = said.getvalue().split("REMIT_AUDIT_KEY to ")[1].split()[0]
    settings.CONFIG = settings.CONFIG.model_copy(update={"audit_key": seed})
    assert keys.signer().id != first.id
    assert set(signatures.trusted_keys()) == {first.id, keys.signer().id}
    said = io.StringIO()
    call_command("audit", "key", stdout=said)
    assert seed not in said.getvalue()
    assert f"{keys.signer().id}  {keys.signer().public_key}" in said.getvalue()


def test_the_command_exports_a_range_and_refuses_an_odd_one(trail, northwind, settings, tmp_path) -> None:
    settings.CONFIG = settings.CONFIG.model_copy(update={"state_dir": tmp_path / "state"})
    target, said = tmp_path / "part.zip", io.StringIO()
    export = ("audit", "export", "--organisation", "northwind", "--output", str(target))
    call_command(*export, "--from", "2", "--to", "4", stdout=said)
    assert "entries 2 to 4" in said.getvalue()
    assert offline_verifier.main([str(target)]) == 0
    call_command(*export, "--from", "2020-01-01", stdout=said)
    assert "entries 1 to 6" in said.getvalue()
    with pytest.raises(CommandError, match="trail goes from 1 to"):
        call_command(*export, "--from", "900")
    with pytest.raises(CommandError):
        call_command(*export, "--from", "yesterday")
    assert offline_verifier.main([str(target)]) == 0, "a refused export leaves the file that was there"
