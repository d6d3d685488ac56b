"""What tests of the offline verifier do with an export: check it as an auditor would, take it apart, change it."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

from controlplane.audit.exporting import VERIFIER, Range, export_to


def make_export(organisation: Any, target: Path, wanted: Range | None = None) -> Path:
    export_to(organisation_id=organisation.pk, target=target, wanted=wanted)
    return target


def check(path: Path, *options: str) -> dict[str, Any]:
    """Runs the file as an auditor would: in a Python of its own, with nothing of ours to import."""
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(VERIFIER), str(path), "--json", *options], capture_output=True, text=True
    )
    assert done.stderr == ""
    found: dict[str, Any] = json.loads(done.stdout)
    assert done.returncode == {True: 0, False: 1, None: 2}[found["intact"]]
    return found


def first(found: dict[str, Any]) -> tuple[str, int | None]:
    assert found["first"] is not None, "nothing was found"
    return found["first"]["kind"], found["first"]["sequence"]


def unpack(path: Path) -> Path:
    folder = path.with_suffix("")
    with zipfile.ZipFile(path) as archive:
        archive.extractall(folder)
    return folder


def entries_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for part in sorted(folder.glob("entries-*")) for line in part.read_text().splitlines()]


def put_entries(folder: Path, entries: list[dict[str, Any]]) -> None:
    parts = sorted(folder.glob("entries-*"))
    parts[0].write_text("".join(json.dumps(entry) + "\n" for entry in entries))
