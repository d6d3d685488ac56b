"""Writes a part of the trail into one zip file that can be checked anywhere: entries, checkpoints, public keys, a
signed manifest and the verifier itself. Streamed: memory stays small whatever the length."""

from __future__ import annotations

import hashlib
import json
import uuid
import zipfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime, time, timedelta
from pathlib import Path
from typing import Any

import psycopg
from django.db import connection, transaction

from controlplane.audit import bulk, offline_verifier
from controlplane.audit.chain import genesis
from controlplane.audit.checkpoints import sign_head
from controlplane.audit.keys import signer, stamp
from controlplane.audit.models import Checkpoint, Seal, SigningKey
from controlplane.common.canonical import digest_of_bytes
from controlplane.common.clock import now
from controlplane.common.errors import FieldError, conflict, invalid
from controlplane.tenancy.models import Organisation

FORMAT = "remit-audit-export-1"
PART_ENTRIES = 50_000
VERIFIER = Path(offline_verifier.__file__)


@dataclass(frozen=True)
class Range:
    """Sequence numbers, both included."""

    first: int
    last: int


@dataclass(frozen=True)
class Part:
    """One file of entries as the manifest names it."""

    name: str
    first: int
    last: int
    count: int
    sha256: str


def range_of(*, organisation_id: uuid.UUID, start: int | datetime | None, end: int | datetime | None) -> Range:
    """The stretch between two numbers or times (a time ends before itself). Without an end that is past it goes to a
    head that is signed first, so that every entry is proved by one while others are being written. Raises 409
    `audit.nothing_to_export`, 422 `audit.range_invalid`."""
    if isinstance(end, datetime) and end > now():
        end = None
    head = _sequences(organisation_id).order_by("-sequence").values_list("sequence", flat=True).first()
    if head is None:
        raise conflict("audit.nothing_to_export", "Nothing is sealed yet.", "Try again in a few seconds.")
    first = 1 if start is None else start if isinstance(start, int) else _first_since(organisation_id, start, head + 1)
    last = head if end is None else end if isinstance(end, int) else _first_since(organisation_id, end, head + 1) - 1
    if not 1 <= first <= last <= head:
        raise invalid(
            "audit.range_invalid",
            _nothing_there(organisation_id, start, end, head),
            FieldError("/end" if start is None else "/start", "within the trail, the end not before the start"),
        )
    signed = sign_head(organisation_id=organisation_id) if end is None else None
    return Range(first, signed.sequence if signed else last)


def export_to(*, organisation_id: uuid.UUID, target: Path, wanted: Range | None = None) -> dict[str, Any]:
    """The whole export at once. Returns the manifest. The file appears under its name when it is complete."""
    wanted = wanted or range_of(organisation_id=organisation_id, start=None, end=None)
    unfinished = target.with_name(f".{target.name}.unfinished")
    unfinished.unlink(missing_ok=True)
    try:
        parts: list[Part] = []
        while (position := parts[-1].last if parts else wanted.first - 1) < wanted.last:
            parts.append(write_part(unfinished, organisation_id=organisation_id, wanted=wanted, after=position))
        manifest = complete(unfinished, organisation_id=organisation_id, wanted=wanted, parts=parts)
        unfinished.replace(target)
    finally:
        unfinished.unlink(missing_ok=True)
    return manifest


def write_part(path: Path, *, organisation_id: uuid.UUID, wanted: Range, after: int) -> Part:
    """Append the next file of entries to an export that is being written."""
    first, last = after + 1, min(after + PART_ENTRIES, wanted.last)
    name = f"entries-{first:010d}.jsonl"
    seen, count = hashlib.sha256(), 0
    with (
        zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED, compresslevel=3) as archive,
        archive.open(name, "w", force_zip64=True) as file,
    ):
        for line in _lines(organisation_id, after, last):
            raw = line.encode() + b"\n"
            seen.update(raw)
            file.write(raw)
            count += 1
    return Part(name, first, last, count, "sha256:" + seen.hexdigest())


def parts_in(path: Path) -> list[str]:
    """The names in an export that is being written; empty when there is none or it was left half-written."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except (OSError, zipfile.BadZipFile):
        return []


def complete(path: Path, *, organisation_id: uuid.UUID, wanted: Range, parts: list[Part]) -> dict[str, Any]:
    """Everything but the entries, and the manifest that covers it all, signed."""
    organisation = Organisation.objects.get(pk=organisation_id)
    sign_head(organisation_id=organisation_id)
    checkpoints = _checkpoints(organisation_id, wanted)
    head = _sequences(organisation_id).order_by("-sequence").first()
    if head is None:
        raise conflict("audit.nothing_to_export", "Nothing is sealed any more.", "Run `./manage.py audit verify`.")
    files = {
        "checkpoints.jsonl": "".join(json.dumps(line) + "\n" for line in checkpoints).encode(),
        "keys.json": json.dumps(_keys(), indent=1).encode(),
        "verify.py": VERIFIER.read_bytes(),
        "README.txt": _README.encode(),
    }
    manifest = {
        "format": FORMAT,
        "organisation": {"id": str(organisation.pk), "slug": organisation.slug, "name": organisation.name},
        "made_at": stamp(now()),
        "range": asdict(wanted),
        "previous": _link_at(organisation_id, wanted.first - 1),
        "head": {"sequence": head.sequence, "chain": head.chain_sha256},
        "entries": [asdict(part) for part in parts],
        "files": {name: digest_of_bytes(raw) for name, raw in files.items()},
    }
    said = json.dumps(manifest, indent=1).encode()
    key = signer()
    signature = {"key": key.id, "signature": key.sign(b"remit-audit-manifest-1\n" + said)}
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        for name, raw in {**files, "manifest.json": said, "manifest.sig": json.dumps(signature).encode()}.items():
            archive.writestr(name, raw)
    return manifest


def checkpoint_line(checkpoint: Checkpoint) -> dict[str, Any]:
    return {
        "organisation": str(checkpoint.organisation_id),
        "number": checkpoint.number,
        "sequence": checkpoint.sequence,
        "chain": checkpoint.chain_sha256,
        "at": stamp(checkpoint.at),
        "previous": checkpoint.previous_sha256,
        "key": checkpoint.key_id,
        "signature": checkpoint.signature,
    }


def file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()


def _sequences(organisation_id: uuid.UUID) -> Any:
    return Seal.objects.filter(organisation_id=organisation_id)


def _link_at(organisation_id: uuid.UUID, sequence: int) -> str:
    if sequence == 0:
        return genesis(organisation_id)
    found = _sequences(organisation_id).filter(sequence=sequence).values_list("chain_sha256", flat=True).first()
    return found or ""


def _first_since(organisation_id: uuid.UUID, moment: datetime, otherwise: int) -> int:
    found = _sequences(organisation_id).filter(entry__at__gte=moment).order_by("sequence").values_list("sequence")
    first = found.first()
    return int(first[0]) if first else otherwise


def _nothing_there(
    organisation_id: uuid.UUID, start: int | datetime | None, end: int | datetime | None, head: int
) -> str:
    """In the terms that were given: who named a day does not think in numbers."""
    zone = next((bound.tzinfo for bound in (start, end) if isinstance(bound, datetime)), None)
    if zone is None:
        whole = f"from 1 to {head:,}"
    else:
        at = _sequences(organisation_id).order_by("sequence").values_list("entry__at", flat=True)
        oldest, newest = (_day_in_words(moment.astimezone(zone)) for moment in (at.first(), at.last()))
        whole = f"from {oldest} to {newest}"
    given = [
        f"{word} {_bound_in_words(bound, is_end=bound is end)}"
        for word, bound in (("from", start), ("until" if start is None else "to", end))
        if bound is not None
    ]
    return f"There are no entries {' '.join(given)}{' on' if end is None else ''}; the trail goes {whole}."


def _bound_in_words(bound: int | datetime, *, is_end: bool) -> str:
    """A time ends before itself: midnight ends the day before."""
    if isinstance(bound, int):
        return f"{bound:,}"
    if bound.time() != time.min:
        return f"{_day_in_words(bound)}, {bound:%H:%M}"
    return _day_in_words(bound - timedelta(days=1) if is_end else bound)


def _day_in_words(moment: datetime) -> str:
    return f"{moment.day} {moment:%B %Y}"


def _checkpoints(organisation_id: uuid.UUID, wanted: Range) -> list[dict[str, Any]]:
    """From the last before the range on, without a gap to the newest."""
    rows = Checkpoint.objects.filter(organisation_id=organisation_id)
    before = rows.filter(sequence__lt=wanted.first).order_by("-number").values_list("number", flat=True).first()
    return [checkpoint_line(row) for row in rows.filter(number__gte=before or 0).order_by("number")]


def _keys() -> list[dict[str, str]]:
    return [
        {
            "id": key.pk,
            "public": key.public_key,
            "at": stamp(key.created_at),
            "endorsed_by": key.endorsed_by,
            "endorsement": key.endorsement,
            "acceptance": key.acceptance,
        }
        for key in SigningKey.objects.order_by("created_at")
    ]


def _lines(organisation_id: uuid.UUID, after: int, last: int) -> Iterator[str]:
    statement = _STATEMENT.format(organisation=organisation_id, after=int(after), last=int(last))
    with transaction.atomic(), connection.wrap_database_errors:
        connection.ensure_connection()
        with psycopg.Cursor(connection.connection) as cursor:
            cursor.execute(bulk.ALONG_THE_INDEX.format("off"))
            with cursor.copy(statement) as copy:
                copy.set_types(["text"])
                for (line,) in copy.rows():
                    yield line
            cursor.execute(bulk.ALONG_THE_INDEX.format("DEFAULT"))


_AS_THEY_ARE = (
    *("id", "event", "actor_kind", "actor_id", "actor_name", "subject_type", "subject_id", "subject_name", "team_id"),
    *("mission_id", "payload", "payload_sha256", "trace_id", "salt", "commitment"),
)
_STATEMENT = (
    "COPY (SELECT json_build_object('sequence', s.sequence, 'chain', s.chain_sha256,"  # noqa: S608 - an id, two numbers
    " 'at', to_char(e.at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"'), "
    + ", ".join(f"'{name}', e.{name}" for name in _AS_THEY_ARE)
    + ", 'restatements', CASE WHEN e.commitment IS NULL THEN '[]'::json ELSE (SELECT coalesce(json_agg("
    "json_build_object('erasure', r.erasure_id, 'restated_sha256', r.restated_sha256) ORDER BY r.id), '[]'::json)"
    " FROM audit_restatement r WHERE r.entry_id = e.id) END)::text"
    " FROM audit_seal s JOIN audit_entry e ON e.id = s.entry_id AND e.organisation_id = s.organisation_id"
    " WHERE s.organisation_id = '{organisation}' AND s.sequence > {after} AND s.sequence <= {last}"
    " ORDER BY s.sequence) TO STDOUT (FORMAT binary)"
)
_README = """An export of Remit's audit trail.

    python3 verify.py .                              check this folder (or the zip file)
    python3 verify.py . --against earlier.zip        and that it continues an earlier export
    python3 verify.py . --key 0123456789abcdef       and that a key you noted has signed it

verify.py needs Python 3.8 and nothing else. It ends with 0 when everything holds and with 1 when anything was changed;
it names the first bad entry and what was done. If you doubt the verify.py in here, take the one of Remit's source.

entries-*.jsonl     one entry on each line, in the order of the chain
checkpoints.jsonl   heads of the chain, signed when they were the head
keys.json           the public keys that signed, each with the endorsement of the one before it
manifest.json       what belongs to this export, with hashes; manifest.sig is its signature
"""
