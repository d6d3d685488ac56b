"""Exports made to mislead the offline verifier, or whoever reads the files beside it: none passes, none breaks it."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
import time
import zipfile
import zlib
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from controlplane.audit import keys
from controlplane.audit.exporting import VERIFIER, Range, range_of
from controlplane.audit.sealing import seal_all
from controlplane.common.clock import now

from .exported import check, entries_of, first, make_export, put_entries, unpack

pytestmark = pytest.mark.usefixtures("own_key")
PART = "entries-0000000001.jsonl"


def kinds(found: dict[str, Any]) -> set[str]:
    return {item["kind"] for item in found["findings"]}


def add(archive: Path, name: str, content: str) -> None:
    with zipfile.ZipFile(archive, "a") as file:
        file.writestr(name, content)


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    "name", ["entries-0000000013.jsonl", "Entries-0000000001.JSONL", f"../{PART}", f"x\\{PART}", "b/manifest.json"]
)
def test_a_file_that_could_be_taken_for_a_part_of_the_export_is_named(name, export) -> None:
    line = json.dumps({"sequence": 13, "actor_name": "Somebody else"})
    add(export, name, line + "\n")
    found = check(export)
    assert kinds(found) == {"file_changed"}
    assert "is no file of this export" in found["first"]["detail"]


def test_entries_laid_beside_those_of_an_unpacked_export_are_named_and_other_files_are_not(export) -> None:
    folder = unpack(export)
    (folder / "my notes.txt").write_text("asked for by Bob")
    assert check(folder)["intact"] is True
    (folder / "entries-0000000013.jsonl").write_text("{}\n")
    assert kinds(check(folder)) == {"file_changed"}


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_one_name_twice_in_the_zip_file_is_named_because_other_programs_take_the_other(export, tmp_path) -> None:
    double = tmp_path / "double.zip"
    with zipfile.ZipFile(double, "w") as file:
        file.writestr(PART, '{"sequence": 1, "actor_name": "Somebody else"}\n')
        with zipfile.ZipFile(export) as honest:
            for name in honest.namelist():
                file.writestr(name, honest.read(name))
    found = check(double)
    assert kinds(found) == {"file_changed"}
    assert "more than once" in found["first"]["detail"]


def test_two_exports_joined_into_one_file_are_no_export(export, record, northwind, tmp_path) -> None:
    record()
    seal_all()
    later, joined = make_export(northwind, tmp_path / "later.zip"), tmp_path / "joined.zip"
    joined.write_bytes(export.read_bytes() + later.read_bytes())
    assert kinds(check(joined)) == {"file_changed"}


@pytest.mark.parametrize("name", ["verify.py", "README.txt"])
def test_a_verifier_that_was_swapped_in_the_export_is_named(name, export) -> None:
    folder = unpack(export)
    (folder / name).write_text("print('Intact.')\n")
    assert kinds(check(folder)) == {"file_changed"}


def test_what_an_earlier_export_has_nothing_in_common_with_is_not_said_to_continue_it(
    trail, northwind, tmp_path
) -> None:
    """Neither an entry nor a signed head of the one lies in the other: nothing was compared."""
    before = make_export(northwind, tmp_path / "before.zip", Range(1, 3))
    kept = tmp_path / "kept.jsonl"
    kept.write_text((unpack(before) / "checkpoints.jsonl").read_text().splitlines()[0] + "\n")  # the head at 4
    late = make_export(northwind, tmp_path / "late.zip", Range(11, 12))
    assert check(late)["intact"] is True
    found = check(late, "--against", str(kept))
    assert found["intact"] is None
    assert "no place in common" in found["error"]
    assert check(make_export(northwind, tmp_path / "whole.zip"), "--against", str(kept))["intact"] is True


def test_entries_behind_the_last_signed_head_of_a_range_are_said_to_be_so(trail, northwind, tmp_path) -> None:
    found = check(make_export(northwind, tmp_path / "part.zip", Range(5, 10)))
    assert found["intact"] is True
    assert any("Numbers 9 to 10" in note for note in found["notes"]), found["notes"]
    whole = check(make_export(northwind, tmp_path / "whole.zip", Range(5, 12)))
    assert not any("Numbers" in note for note in whole["notes"])


@pytest.mark.parametrize("days", [None, 1], ids=["no end", "until the end of today"])
def test_an_export_until_now_ends_with_a_signed_head_while_entries_are_being_written(
    days, trail, record, northwind, tmp_path
) -> None:
    record()
    seal_all()
    end = now() + timedelta(days=days) if days else None
    asked = range_of(organisation_id=northwind.pk, start=None, end=end)
    record()
    seal_all()
    found = check(make_export(northwind, tmp_path / "busy.zip", asked))
    assert (found["intact"], found["entries"], found["head"]["sequence"]) == (True, 13, 14)
    assert not any("Numbers" in note for note in found["notes"])


def test_a_zip_file_that_was_cut_or_damaged_anywhere_ends_in_a_verdict(export, tmp_path) -> None:
    raw, odd = export.read_bytes(), tmp_path / "odd.zip"
    dice = random.Random(7)
    for _ in range(40):
        place = dice.randrange(len(raw))
        odd.write_bytes(raw[:place] + bytes([raw[place] ^ 0xFF]) + raw[place + 1 :])
        found = check(odd)
        assert found["intact"] is not True or _same_files(odd, export), place
    for length in (0, 10, len(raw) // 2, len(raw) - 1):
        odd.write_bytes(raw[:length])
        assert check(odd)["intact"] is not True


def _same_files(one: Path, other: Path) -> bool:
    """A byte that no reader looks at, such as a time in a header."""
    with zipfile.ZipFile(one) as a, zipfile.ZipFile(other) as b:
        return [(name, zlib.crc32(a.read(name))) for name in a.namelist()] == [
            (name, zlib.crc32(b.read(name))) for name in b.namelist()
        ]


ODD_VALUES = [
    None,
    True,
    5,
    -1,
    1.5,
    10**400,
    "",
    "x",
    "\ud800",
    [],
    {},
    [[]],
    float("nan"),
    "9999-12-31T00:00:00.000000Z",
]


@pytest.mark.parametrize("name", [PART, "checkpoints.jsonl", "keys.json", "manifest.json", "manifest.sig"])
def test_any_value_of_any_kind_in_any_place_ends_in_a_verdict_that_is_not_intact(name, export) -> None:
    folder = unpack(export)
    honest = (folder / name).read_text()
    value = json.loads(honest.splitlines()[5 if name == PART else 1] if name.endswith("jsonl") else honest)
    for place in _places(value):
        for odd in random.Random(str(place)).sample(ODD_VALUES, 4):
            changed = json.dumps(_with(value, place, odd))
            if name.endswith("jsonl"):
                lines = honest.splitlines()
                lines[5 if name == PART else 1] = changed
                changed = "\n".join(lines) + "\n"
            (folder / name).write_text(changed)
            assert _verdict(folder) is not True, (place, odd)


def _verdict(folder: Path) -> bool | None:
    """In this process: hundreds of times a new Python would take minutes."""
    from controlplane.audit import offline_verifier

    try:
        return offline_verifier.verify(offline_verifier.Export(str(folder))).intact
    except offline_verifier.Unreadable:
        return None


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path] + [place for key, item in items for place in _places(item, (*path, key))]


def _with(value: Any, place: tuple[Any, ...], odd: Any) -> Any:
    if not place:
        return odd
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[place[0]] = _with(value[place[0]], place[1:], odd)
    return copy


@pytest.mark.parametrize("depth", [900, 100_000])
def test_a_payload_as_deep_as_a_well_is_an_edited_entry(depth, export) -> None:
    folder = unpack(export)
    lines = (folder / PART).read_text().splitlines()
    entry = json.loads(lines[5])
    entry["payload"] = "WELL"
    lines[5] = json.dumps(entry).replace('"WELL"', "[" * depth + "]" * depth)
    (folder / PART).write_text("\n".join(lines) + "\n")
    assert first(check(folder))[1] == 6


def test_a_name_given_twice_in_one_entry_is_named(export) -> None:
    """Programs differ in which of the two they show."""
    folder = unpack(export)
    lines = (folder / PART).read_text().splitlines()
    lines[5] = lines[5].replace("{", '{"actor_name": "Somebody else", ', 1)
    (folder / PART).write_text("\n".join(lines) + "\n")
    assert kinds(check(folder)) == {"file_changed"}


def test_entries_in_another_encoding_are_named(export) -> None:
    folder = unpack(export)
    part = folder / PART
    text = part.read_text()
    for encoding in ("utf-16", "utf-8-sig", "latin-1"):
        part.write_bytes(text.encode(encoding))
        assert check(folder)["intact"] is False, encoding


def test_a_part_behind_a_link_or_gone_is_named(export, tmp_path) -> None:
    folder = unpack(export)
    elsewhere = tmp_path / "elsewhere.jsonl"
    (folder / PART).rename(elsewhere)
    assert first(check(folder)) == ("tail_cut", 1)
    elsewhere.write_text(elsewhere.read_text().replace("M", "N", 1))
    (folder / PART).symlink_to(elsewhere)
    assert check(folder)["intact"] is False
    (folder / PART).unlink()
    (folder / PART).symlink_to(folder)
    assert check(folder)["intact"] is False


def test_another_key_under_the_same_id_vouches_for_nothing(export) -> None:
    folder = unpack(export)
    listed = json.loads((folder / "keys.json").read_text())
    listed[0]["public"] = "ab" * 32
    (folder / "keys.json").write_text(json.dumps(listed))
    assert "forged_signature" in kinds(check(folder, "--key", keys.signer().id))


def test_an_export_emptied_of_its_entries_is_cut(export) -> None:
    folder = unpack(export)
    put_entries(folder, [])
    assert first(check(folder)) == ("tail_cut", 1)
    assert entries_of(folder) == []


def test_what_stands_in_an_export_neither_moves_the_cursor_nor_hides_the_verdict(export) -> None:
    folder = unpack(export)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["organisation"]["slug"] = "acme\x1b[8m\nIntact.\x1b[2K"
    (folder / "manifest.json").write_text(json.dumps(manifest))
    done = subprocess.run([sys.executable, "-I", str(VERIFIER), str(folder)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, "")
    assert "\x1b" not in done.stdout
    assert "Intact." not in done.stdout.splitlines()
    assert "TAMPERED: forged_signature" in done.stdout


def test_twenty_thousand_made_up_entries_are_judged_in_seconds(export) -> None:
    """Each is compared with its neighbours, to tell changed from moved; not with all of them, until the reader gives
    up."""
    folder = unpack(export)
    entry = entries_of(folder)[-1]
    with (folder / PART).open("a") as part:
        for number in range(13, 20_013):
            part.write(json.dumps({**entry, "sequence": number, "chain": f"sha256:{number:064x}"}) + "\n")
    since = time.monotonic()
    found = check(folder)
    assert time.monotonic() - since < 20
    assert (found["intact"], found["entries"]) == (False, 20_012)
    assert first(found) == ("inserted", 13)
    told = subprocess.run([sys.executable, "-I", str(VERIFIER), str(folder)], capture_output=True, text=True)
    assert "and 982 more" in told.stdout, told.stdout[-300:]


def test_a_line_that_never_ends_does_not_fill_the_memory(export) -> None:
    """A few kilobytes of zip file can hold gigabytes of one letter."""
    folder = unpack(export)
    with (folder / PART).open("ab") as part:
        for _ in range(40):
            part.write(b"x" * 2**20 * 4)
    script = "import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_AS, (2**27, 2**27));"
    script += f"sys.argv = ['verify', {str(folder)!r}]; runpy.run_path({str(VERIFIER)!r}, run_name='__main__')"
    done = subprocess.run([sys.executable, "-I", "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, "")


def test_a_folder_that_was_renamed_is_still_the_export(export, tmp_path) -> None:
    folder = unpack(export)
    shutil.move(folder, tmp_path / "Prüfung 2026")
    assert check(tmp_path / "Prüfung 2026")["intact"] is True
