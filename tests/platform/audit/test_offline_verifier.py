"""The offline verifier finds what was done to an export, names it, and lets intact ones pass."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import rfc8785
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from controlplane.audit import keys, offline_verifier, services
from controlplane.audit.checkpoints import sign_head, statement
from controlplane.audit.events import Event
from controlplane.audit.exporting import VERIFIER, Range, checkpoint_line
from controlplane.audit.models import Checkpoint, Entry, SigningKey
from controlplane.audit.sealing import seal_all
from controlplane.audit.services import Subject
from controlplane.common.canonical import digest
from controlplane.common.clock import now
from controlplane.common.ids import new_id
from controlplane.tenancy.types import system_principal

from .exported import check, entries_of, first, make_export, put_entries, unpack

VECTORS = Path(__file__).parent / "vectors"
pytestmark = pytest.mark.usefixtures("own_key")


def relink(folder: Path, entries: list[dict[str, Any]]) -> None:
    """As someone who knows the format does it: every hash and link fits again."""
    manifest = json.loads((folder / "manifest.json").read_text())
    previous, organisation = manifest["previous"], uuid.UUID(manifest["organisation"]["id"])
    for number, line in enumerate(entries, start=manifest["range"]["first"]):
        line["sequence"], line["payload_sha256"] = number, digest(line["payload"])
        previous = line["chain"] = offline_verifier.Entry(line).link(previous, organisation, number)
    put_entries(folder, entries)


def test_an_intact_export_passes_as_zip_and_as_folder(export) -> None:
    for path in (export, unpack(export)):
        found = check(path)
        assert found["intact"] is True, found
        assert (found["entries"], found["checkpoints"], found["restated"]) == (12, 3, 0)
        assert found["keys"] == [keys.signer().id]


def test_the_export_brings_the_verifier_and_says_how_to_use_it(export) -> None:
    folder = unpack(export)
    done = subprocess.run([sys.executable, "-I", "verify.py", "."], capture_output=True, text=True, cwd=folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert "entries 1 to 12" in done.stdout
    assert done.stdout.strip().endswith("Intact.")
    assert "verify.py" in (folder / "README.txt").read_text()
    assert keys.signer().private.private_bytes_raw().hex() not in "".join(path.read_text() for path in folder.iterdir())


def test_the_verifier_imports_nothing_but_the_standard_library() -> None:
    modules = {line.split()[1] for line in VERIFIER.read_text().splitlines() if line.startswith(("import ", "from "))}
    assert modules <= {*sys.stdlib_module_names}


# The ten tamperings of the promise, each with a real export; where the tamperer is clever, the clever form as well.


def test_1_an_edited_entry_is_named(export) -> None:
    folder = unpack(export)
    entries = entries_of(folder)
    entries[5]["actor_name"] = "Somebody else"
    put_entries(folder, entries)
    found = check(folder)
    assert first(found) == ("edited", 6)
    assert found["first"]["entry"] == entries[5]["id"]


def test_2_a_deleted_entry_is_named(export) -> None:
    folder = unpack(export)
    entries = entries_of(folder)
    put_entries(folder, entries[:5] + entries[6:])
    assert first(check(folder)) == ("deleted", 6)


def test_2_a_deleted_entry_with_the_numbers_closed_up_is_named(export) -> None:
    folder = unpack(export)
    entries = entries_of(folder)
    for line in entries[6:]:
        line["sequence"] -= 1
    put_entries(folder, entries[:5] + entries[6:])
    assert first(check(folder)) == ("deleted", 6)


def test_3_entries_in_another_order_are_named(export) -> None:
    folder = unpack(export)
    entries = entries_of(folder)
    entries[4], entries[5] = entries[5], entries[4]
    put_entries(folder, entries)
    assert first(check(folder)) == ("reordered", 5)


def test_3_entries_that_changed_places_under_their_numbers_are_named(export) -> None:
    folder = unpack(export)
    entries = entries_of(folder)
    for key in set(entries[4]) - {"sequence", "chain"}:
        entries[4][key], entries[6][key] = entries[6][key], entries[4][key]
    put_entries(folder, entries)
    assert first(check(folder)) == ("reordered", 5)


def test_4_a_cut_tail_is_named(export) -> None:
    folder = unpack(export)
    put_entries(folder, entries_of(folder)[:9])
    assert first(check(folder)) == ("tail_cut", 10)


def test_4_a_tail_cut_in_the_database_contradicts_the_signed_heads(trail, northwind, as_intruder, tmp_path) -> None:
    as_intruder("DELETE FROM audit_seal WHERE sequence > 9", [])
    as_intruder("DELETE FROM audit_entry WHERE id = ANY(%s)", [[entry.pk for entry in trail[9:]]])
    assert sign_head(organisation_id=northwind.pk) is None, "Remit signed over a past that was cut"
    found = check(make_export(northwind, tmp_path / "cut.zip"))
    assert first(found) == ("tail_cut", 10)


def test_5_a_fork_is_named(export) -> None:
    folder = unpack(export)
    entries = entries_of(folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    other = {**entries[7], "id": str(new_id()), "subject_name": "Another past"}
    other["chain"] = offline_verifier.Entry(other).link(
        entries[6]["chain"], uuid.UUID(manifest["organisation"]["id"]), 8
    )
    put_entries(folder, [*entries[:8], other, *entries[8:]])
    assert first(check(folder)) == ("forked", 8)


def test_5_two_signed_heads_of_one_number_are_a_fork(trail, northwind, tmp_path) -> None:
    folder = unpack(make_export(northwind, tmp_path / "export.zip"))
    checkpoint = Checkpoint.objects.get(organisation=northwind, number=2)
    checkpoint.chain_sha256 = "sha256:" + "0" * 64
    checkpoint.signature = keys.signer().sign(statement(checkpoint))
    lines = (folder / "checkpoints.jsonl").read_text().splitlines()
    lines.insert(2, json.dumps(checkpoint_line(checkpoint)))
    (folder / "checkpoints.jsonl").write_text("\n".join(lines) + "\n")
    assert first(check(folder)) == ("forked", 8)


def test_6_a_backdated_entry_is_named(export) -> None:
    folder = unpack(export)
    entries = entries_of(folder)
    entries[9]["at"] = "2019" + entries[9]["at"][4:]
    put_entries(folder, entries)
    assert first(check(folder)) == ("backdated", 10)


def test_6_an_entry_slipped_in_with_an_old_time_and_an_old_id_is_named(trail, northwind, tmp_path) -> None:
    """The sealer takes what is in the table; the signed head before it tells when that was."""
    old = now() - timedelta(days=30)
    facts = services.row(
        event=Event.MISSION_PAUSED,
        actor=system_principal(organisation_id=northwind.pk),
        subject=Subject("mission", new_id(), "Never happened"),
    )
    milliseconds = int(old.timestamp() * 1000)
    forged = uuid.UUID(int=(milliseconds << 80) | (new_id().int & ((1 << 80) - 1)))
    Entry.objects.create(**{**facts, "at": old, "id": forged})
    seal_all()
    assert first(check(make_export(northwind, tmp_path / "late.zip"))) == ("backdated", 13)


def test_7_a_chain_written_anew_is_named(export) -> None:
    folder = unpack(export)
    entries = entries_of(folder)
    entries[1]["actor_name"] = "Somebody else"
    relink(folder, entries)
    assert first(check(folder)) == ("rewritten", 4)


def test_7_a_chain_written_anew_in_the_database_is_named(trail, northwind, as_intruder, tmp_path) -> None:
    as_intruder("UPDATE audit_entry SET subject_name = 'Other' WHERE id = %s", [trail[1].pk])
    as_intruder("DELETE FROM audit_seal", [])
    as_intruder(
        "INSERT INTO audit_unsealed (organisation_id, entry_id) SELECT organisation_id, id FROM audit_entry", []
    )
    assert seal_all() == 12
    assert first(check(make_export(northwind, tmp_path / "anew.zip"))) == ("rewritten", 4)


def test_8_a_swapped_payload_is_named(export) -> None:
    folder = unpack(export)
    entries = entries_of(folder)
    entries[2]["payload"], entries[3]["payload"] = entries[3]["payload"], entries[2]["payload"]
    put_entries(folder, entries)
    assert first(check(folder)) == ("payload_swapped", 3)


@pytest.mark.parametrize("kept", ["export", "checkpoint"])
def test_9_a_database_that_was_rolled_back_is_named(kept, trail, record, northwind, as_intruder, tmp_path) -> None:
    before = make_export(northwind, tmp_path / "before.zip")
    if kept == "checkpoint":
        before = unpack(before) / "checkpoints.jsonl"
    as_intruder("DELETE FROM audit_seal WHERE sequence > 6", [])
    as_intruder("DELETE FROM audit_entry WHERE id = ANY(%s)", [[entry.pk for entry in trail[6:]]])
    as_intruder("DELETE FROM audit_checkpoint WHERE sequence > 6", [])
    shorter = make_export(northwind, tmp_path / "shorter.zip")
    assert check(shorter)["intact"] is True, "by itself a restored database holds; that is what the earlier head is for"
    assert first(check(shorter, "--against", str(before))) == ("rolled_back", 7)
    for _ in range(9):
        record(reason="after the restore")
    seal_all()
    longer = make_export(northwind, tmp_path / "longer.zip")
    assert check(longer)["intact"] is True
    assert first(check(longer, "--against", str(before)))[0] == "rolled_back"


def test_10_a_forged_signature_is_named(export) -> None:
    folder = unpack(export)
    lines = [json.loads(line) for line in (folder / "checkpoints.jsonl").read_text().splitlines()]
    lines[1]["signature"] = "0" * 126 + "01"
    (folder / "checkpoints.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert first(check(folder)) == ("forged_signature", 8)


def test_10_a_whole_export_signed_with_the_forgers_own_key_is_named(
    export, northwind, as_intruder, settings, tmp_path
) -> None:
    noted = keys.signer().id
    settings.CONFIG = settings.CONFIG.model_copy(update={"audit_key": "ab" * 32})  # the forger's Remit
    as_intruder("DELETE FROM audit_checkpoint", [])
    SigningKey.objects.all().delete()
    forged = make_export(northwind, tmp_path / "forged.zip")
    assert check(forged)["intact"] is True, "nobody noted the key"
    assert check(forged, "--key", noted)["first"]["kind"] == "forged_signature"
    assert check(forged, "--against", str(export))["first"]["kind"] == "forged_signature"


def test_a_forged_manifest_is_named(export) -> None:
    folder = unpack(export)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["range"]["last"] = 9
    (folder / "manifest.json").write_text(json.dumps(manifest))
    put_entries(folder, entries_of(folder)[:9])
    assert "forged_signature" in {item["kind"] for item in check(folder)["findings"]}


def test_an_export_of_a_range_passes_and_its_tampering_is_named(trail, northwind, tmp_path) -> None:
    part = make_export(northwind, tmp_path / "part.zip", Range(5, 10))
    found = check(part)
    assert (found["intact"], found["entries"]) == (True, 6)
    folder = unpack(part)
    put_entries(folder, entries_of(folder)[:-1])
    assert first(check(folder)) == ("tail_cut", 10)


def test_a_later_export_continues_the_earlier_one(export, record, northwind, tmp_path) -> None:
    for _ in range(3):
        record()
    seal_all()
    later = make_export(northwind, tmp_path / "later.zip")
    assert check(later, "--against", str(export))["intact"] is True
    assert check(later, "--against", str(unpack(export) / "checkpoints.jsonl"))["intact"] is True


def test_after_a_rotation_old_and_new_signatures_hold_and_the_noted_key_still_counts(
    export, northwind, tmp_path
) -> None:
    noted = keys.signer().id
    new, _ = keys.rotate()
    assert new.id != noted
    assert keys.signer().id == new.id
    seal_all()
    later = make_export(northwind, tmp_path / "later.zip")
    found = check(later, "--key", noted, "--against", str(export))
    assert found["intact"] is True, found
    assert found["keys"] == sorted([noted, new.id])


def test_whoever_notes_the_key_of_today_believes_the_ones_it_names_as_its_own_past(export, northwind, tmp_path) -> None:
    """The page shows the present key; what was signed before a rotation is no forgery to whoever noted that one."""
    keys.rotate()
    noted, _ = keys.rotate()
    seal_all()
    folder = unpack(make_export(northwind, tmp_path / "later.zip"))
    found = check(folder, "--key", noted.id)
    assert found["intact"] is True, found
    assert len(found["keys"]) == 3
    listed = json.loads((folder / "keys.json").read_text())
    for key in listed:
        if key["id"] == noted.id:
            key["acceptance"] = "0" * 128
    (folder / "keys.json").write_text(json.dumps(listed))
    assert "forged_signature" in {item["kind"] for item in check(folder, "--key", noted.id)["findings"]}


def test_entries_from_before_there_were_salts_are_checked_too(northwind, tmp_path) -> None:
    facts = services.row(
        event=Event.MISSION_PAUSED,
        actor=system_principal(organisation_id=northwind.pk),
        subject=Subject("mission", new_id(), "Old"),
        payload={"reason": "before"},
    )
    Entry.objects.create(**{**facts, "salt": None})
    seal_all()
    export = make_export(northwind, tmp_path / "old.zip")
    assert check(export)["intact"] is True
    folder = unpack(export)
    entries = entries_of(folder)
    entries[0]["trace_id"] = "f"
    put_entries(folder, entries)
    assert first(check(folder)) == ("edited", 1)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 half a zip", b"{}"])
def test_what_is_no_export_is_said_to_be_none(content, tmp_path) -> None:
    path = tmp_path / "odd.zip"
    path.write_bytes(content)
    assert check(path)["intact"] is None


def test_hostile_lines_end_in_a_verdict_and_never_in_a_traceback(export) -> None:
    folder = unpack(export)
    part = next(folder.glob("entries-*"))
    lines = part.read_text().splitlines()
    for number, odd in enumerate(
        ["", "[]", "null", '{"sequence": "x"}', "\x00", "{" * 5000, lines[5].replace('"at"', '"at" : 5, "x"')]
    ):
        part.write_text("\n".join([*lines[:5], odd, *lines[6:]]) + "\n")
        assert check(folder)["intact"] is False, number


def test_the_committed_exports_are_judged_as_they_were(tmp_path) -> None:
    """Small exports made once: a later version must still read and judge them."""
    expected = json.loads((VECTORS / "expected.json").read_text())
    assert len(expected) >= 4
    for name, kind in expected.items():
        found = check(VECTORS / name)
        assert (found["first"] or {}).get("kind") == kind, name


@pytest.mark.parametrize("vector", json.loads((VECTORS / "ed25519.json").read_text()))
def test_ed25519_holds_for_the_vectors_of_rfc_8032_and_for_no_other(vector) -> None:
    public, message, signature = (bytes.fromhex(vector[name]) for name in ("public", "message", "signature"))
    holds = offline_verifier.ed25519_holds
    assert holds(public, message, signature)
    assert not holds(public, message + b"\x00", signature)
    for place in (0, 31, 32, 63):
        changed = bytearray(signature)
        changed[place] ^= 1
        assert not holds(public, message, bytes(changed))
    s = int.from_bytes(signature[32:], "little") + offline_verifier.ORDER
    if s < 2**256:
        assert not holds(public, message, signature[:32] + s.to_bytes(32, "little")), "malleable"
    assert not holds(public[:-1], message, signature)
    assert not holds((2**255 - 1).to_bytes(32, "little"), message, signature), "a point that is none"


@hypothesis_settings(max_examples=25, deadline=None)
@given(seed=st.binary(min_size=32, max_size=32), message=st.binary(max_size=200))
def test_ed25519_agrees_with_the_library(seed, message) -> None:
    private = Ed25519PrivateKey.from_private_bytes(seed)
    public = private.public_key().public_bytes_raw()
    assert offline_verifier.ed25519_holds(public, message, private.sign(message))


_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner)
    ),
    max_leaves=12,
)


@hypothesis_settings(max_examples=300, deadline=None)
@given(value=_json)
def test_the_canonical_form_is_that_of_rfc_8785(value) -> None:
    assert offline_verifier.canonical(value).encode() == rfc8785.dumps(value)
