#!/usr/bin/env python3
"""Checks an export of Remit's audit trail. One file, Python's standard library only, no network and no database.

    python verify.py EXPORT.zip [--against EARLIER] [--key FINGERPRINT] [--json]

EXPORT is the zip file or the folder it was unpacked into. EARLIER is an export made before, or a line of its
checkpoints.jsonl kept elsewhere: with it, a trail that was restored, cut or written anew since is found. FINGERPRINT is
a signing key's id that you noted; without it and without EARLIER, the keys in the export are believed, and named.

Exit code 0: everything holds. 1: it was tampered with; the first bad entry and the kind are named. 2: it can't be read.
"""
# It prints, and it runs on Pythons older than Remit's.
# ruff: noqa: T201, UP007, UP017, UP031, UP045

from __future__ import annotations

import argparse
import datetime
import hashlib
import json
import os
import sys
import uuid
import zipfile
import zlib
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from typing import Any, Optional, Union

    Point = tuple[int, int, int, int]
    Part = Union[None, str, bytes, uuid.UUID]
    Line = dict[str, Any]
    Finding = dict[str, Any]
    Keys = dict[str, str]
    Earlier = Optional["Export | Checkpoint"]

KINDS = {
    "edited": "An entry was changed after it was sealed.",
    "payload_swapped": "The payload of an entry is not the one that was recorded.",
    "backdated": "An entry bears another time than that of its writing.",
    "deleted": "Entries or checkpoints are missing.",
    "inserted": "An entry was put in between.",
    "reordered": "Entries stand in another order than they were sealed in.",
    "forked": "Two histories claim the same place.",
    "tail_cut": "The end is missing: what is signed goes further than the entries.",
    "rewritten": "The chain fits together and is not the one that was signed: it was written anew.",
    "rolled_back": "The trail is not a continuation of the earlier one: the database was restored or replaced.",
    "forged_signature": "A signature does not hold or comes from a key that nobody vouches for.",
    "erasure_unproven": "What an erasure left of an entry is not what the erasure's own entry says.",
    "file_changed": "A file of the export is not the one that was signed.",
    "foreign": "The export belongs to another organisation than the earlier one.",
}
GRACE = datetime.timedelta(minutes=10)
WINDOW = 1000
COMPARED = 200  # of entries that do not fit, so many are looked for at each other's places
LONGEST_LINE = 16 * 2**20
EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)
NONE_BEFORE = "sha256:" + hashlib.sha256(b"remit-audit-checkpoint-1").hexdigest()


# What reading something that Remit did not write can end in.
ODD = (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError)
BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError)


class Unreadable(Exception):
    """The file is no export, or not whole enough to say anything about it."""


# --- Ed25519, RFC 8032 section 5.1, verification only. Slow and plain: a few milliseconds for each signature.

P = 2**255 - 19
ORDER = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P
ROOT_OF_MINUS_ONE = pow(2, (P - 1) // 4, P)


def _add(a: Point, b: Point) -> Point:
    """Sum of two points in extended coordinates (x, y, z, t)."""
    first = (a[1] - a[0]) * (b[1] - b[0]) % P
    second = (a[1] + a[0]) * (b[1] + b[0]) % P
    third = 2 * a[3] * b[3] * D % P
    fourth = 2 * a[2] * b[2] % P
    e, f, g, h = second - first, fourth - third, fourth + third, second + first
    return (e * f % P, g * h % P, f * g % P, e * h % P)


def _times(number: int, point: Point) -> Point:
    result: Point = (0, 1, 1, 0)
    while number > 0:
        if number & 1:
            result = _add(result, point)
        point = _add(point, point)
        number >>= 1
    return result


def _same(a: Point, b: Point) -> bool:
    return (a[0] * b[2] - b[0] * a[2]) % P == 0 and (a[1] * b[2] - b[1] * a[2]) % P == 0


def _x_of(y: int, sign: int) -> int | None:
    if y >= P:
        return None
    square = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    if square == 0:
        return None if sign else 0
    x = pow(square, (P + 3) // 8, P)
    if (x * x - square) % P != 0:
        x = x * ROOT_OF_MINUS_ONE % P
    if (x * x - square) % P != 0:
        return None
    return P - x if (x & 1) != sign else x


def _point(raw: bytes) -> Point | None:
    if len(raw) != 32:
        return None
    number = int.from_bytes(raw, "little")
    sign, y = number >> 255, number & ((1 << 255) - 1)
    x = _x_of(y, sign)
    return None if x is None else (x, y, 1, x * y % P)


_BASE_Y = 4 * pow(5, P - 2, P) % P
_BASE_X = _x_of(_BASE_Y, 0) or 0
BASE = (_BASE_X, _BASE_Y, 1, _BASE_X * _BASE_Y % P)


def ed25519_holds(public: bytes, message: bytes, signature: bytes) -> bool:
    """Whether `signature` (64 bytes) is that of `message` under the key `public` (32 bytes)."""
    if len(public) != 32 or len(signature) != 64:
        return False
    key, r = _point(public), _point(signature[:32])
    s = int.from_bytes(signature[32:], "little")
    if key is None or r is None or s >= ORDER:
        return False
    k = int.from_bytes(hashlib.sha512(signature[:32] + public + message).digest(), "little") % ORDER
    return _same(_times(s, BASE), _add(r, _times(k, key)))


# --- RFC 8785, the one way to write a JSON value.


COMPACT = json.JSONEncoder(ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":"))


def canonical(value: Any) -> str:
    """The text of a value. What every writer writes the same way goes the fast way."""
    if _plain(value):
        text = COMPACT.encode(value)
        if text.isascii():
            return text
    return _canonical(value)


def _plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(_plain(item) for item in value.values())
    if isinstance(value, list):
        return all(_plain(item) for item in value)
    return not isinstance(value, float) and (not isinstance(value, int) or -(2**53) < value < 2**53)


def _canonical(value: Any) -> str:
    if value is None or value is True or value is False:
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, int):
        return str(value) if -(2**53) < value < 2**53 else _number(float(value))
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, list):
        return "[" + ",".join(_canonical(item) for item in value) + "]"
    names = sorted(value, key=lambda name: name.encode("utf-16-be"))
    return "{" + ",".join(json.dumps(name, ensure_ascii=False) + ":" + _canonical(value[name]) for name in names) + "}"


def _number(value: float) -> str:
    """As ECMAScript writes it: the shortest digits that give the same double."""
    if value != value or value in (float("inf"), float("-inf")):
        raise ValueError("not a number of JSON")
    if value == 0:
        return "0"
    mantissa, _, exponent = repr(abs(value)).partition("e")
    whole, _, fraction = mantissa.partition(".")
    fraction = "" if fraction == "0" else fraction
    digits = (whole + fraction).lstrip("0")
    point = len(whole) + int(exponent or 0) - (len(whole + fraction) - len(digits))
    digits = digits.rstrip("0")
    if len(digits) <= point <= 21:
        text = digits + "0" * (point - len(digits))
    elif 0 < point <= 21:
        text = digits[:point] + "." + digits[point:]
    elif -6 < point <= 0:
        text = "0." + "0" * -point + digits
    else:
        text = digits[0] + ("." + digits[1:] if len(digits) > 1 else "") + "e" + "%+d" % (point - 1)
    return "-" + text if value < 0 else text


# --- The chain. See docs/audit.md of Remit; every part is length, colon, bytes, comma.


def sha256(raw: bytes) -> str:
    return "sha256:" + hashlib.sha256(raw).hexdigest()


def written(parts: Iterable[Part]) -> bytes:
    out: list[bytes] = []
    for part in parts:
        if part is None:
            out.append(b"-,")
            continue
        raw = part.encode() if isinstance(part, str) else part.bytes if isinstance(part, uuid.UUID) else part
        out.append(b"%d:%b," % (len(raw), raw))
    return b"".join(out)


def _text(value: Any) -> str:
    """A text that has bytes. Raises what is in ODD for anything else."""
    if not isinstance(value, str):
        raise TypeError(f"not a text: {value!r}")
    value.encode()
    return value


def _whole(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"not a whole number: {value!r}")
    return value


class Entry:
    """One line of the export, as the parts that are hashed. Raises what is in ODD where it is none."""

    def __init__(self, line: Line) -> None:
        self.line = line
        self.sequence, self.chain = _whole(line["sequence"]), _text(line["chain"])
        self.id, self.event = uuid.UUID(line["id"]), _text(line["event"])
        self.at, self.written_at = moment(line["at"]), written_at(self.id)
        self.payload, self.payload_sha256 = line["payload"], _text(line["payload_sha256"])
        self.payload_holds = sha256(canonical(self.payload).encode()) == self.payload_sha256
        self.salt = _id(line["salt"])
        self.commitment = None if line["commitment"] is None else _text(line["commitment"])
        self.restatements = [(_text(item["erasure"]), _text(item["restated_sha256"])) for item in line["restatements"]]
        self.named = (_text(line["actor_name"]), _text(line["subject_name"]))
        stamp = b"%d" % ((self.at - EPOCH) // datetime.timedelta(microseconds=1))
        kind, actor = _text(line["actor_kind"]), uuid.UUID(line["actor_id"])
        self.before: list[Part] = [self.id, stamp, self.event, kind, actor]
        self.about: list[Part] = [_text(line["subject_type"]), uuid.UUID(line["subject_id"])]
        self.within: list[Part] = [_id(line["team_id"]), _id(line["mission_id"])]
        self.trace = _text(line["trace_id"])

    @property
    def is_restated(self) -> bool:
        return self.commitment is not None

    @property
    def anonymous(self) -> list[Part]:
        """What an erasure must leave alone."""
        return [*self.before, *self.about, *self.within, self.trace]

    def link(self, previous: str, organisation: uuid.UUID, sequence: int) -> str | None:
        """The chain hash at that place; None where an erasure took what is needed for it."""
        place: list[Part] = [previous, organisation, b"%d" % sequence]
        if self.salt is None and self.commitment is None:
            return sha256(written([b"remit-audit-1", *place, *self._everything()]))
        if self.commitment == "":
            return None
        commitment = self.commitment or sha256(
            written([b"remit-audit-personal-1", self.salt, *self.named, self.payload_sha256])
        )
        return sha256(written([b"remit-audit-2", *place, *self.anonymous, commitment]))

    def restated(self) -> str:
        return sha256(written([b"remit-audit-restated-1", self.chain, *self._everything(), self.salt, self.commitment]))

    def _everything(self) -> list[Part]:
        actor, subject = self.named
        return [*self.before, actor, *self.about, subject, *self.within, self.payload_sha256, self.trace]


def _id(text: str | None) -> uuid.UUID | None:
    return None if text is None else uuid.UUID(text)


def moment(text: str) -> datetime.datetime:
    """The time of 2026-01-31T09:30:00.000000Z"""
    if len(text) != 27 or text[26] != "Z":
        raise ValueError(f"not a time: {text!r}")
    date = (int(text[:4]), int(text[5:7]), int(text[8:10]))
    clock = (int(text[11:13]), int(text[14:16]), int(text[17:19]), int(text[20:26]))
    return datetime.datetime(*date, *clock, tzinfo=datetime.timezone.utc)


def written_at(identifier: uuid.UUID) -> datetime.datetime | None:
    """When the entry got its id: a UUIDv7 begins with its milliseconds. None for other ids."""
    if identifier.version != 7:
        return None
    return EPOCH + datetime.timedelta(milliseconds=identifier.int >> 80)


class Checkpoint:
    """A signed head."""

    def __init__(self, line: Line) -> None:
        self.line = line
        self.organisation = _text(line["organisation"])
        self.number, self.sequence = _whole(line["number"]), _whole(line["sequence"])
        self.chain, self.at, self.previous = _text(line["chain"]), moment(line["at"]), _text(line["previous"])
        self.key, self.signature = _text(line["key"]), _text(line["signature"])

    def statement(self) -> bytes:
        return (
            "remit-audit-checkpoint-1\norganisation %s\nnumber %d\nsequence %d\nchain %s\nat %s\nprevious %s\n"
            % (self.organisation, self.number, self.sequence, self.chain, self.line["at"], self.previous)
        ).encode()

    def hash(self) -> str:
        return sha256(self.statement() + (f"key {self.key}\nsignature {self.signature}\n").encode())


def signed(public: str, message: bytes, signature: str) -> bool:
    try:
        return ed25519_holds(bytes.fromhex(public), message, bytes.fromhex(signature))
    except ValueError:
        return False


def _key(line: Line) -> Line:
    return {name: _text(line[name]) for name in ("id", "public", "at", "endorsed_by", "endorsement", "acceptance")}


# --- Reading an export.


class Export:
    """A zip file or a folder with manifest, entries, checkpoints and keys."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.archive: zipfile.ZipFile | None = None
        if not os.path.isdir(path):
            try:
                self.archive = zipfile.ZipFile(path)
            except (OSError, zipfile.BadZipFile) as error:
                raise Unreadable(f"{path} is no export: {error}") from None
        self.manifest_bytes = self.read("manifest.json")
        try:
            self.manifest = json.loads(self.manifest_bytes)
            signature = json.loads(self.read("manifest.sig"))
            self.signature = {name: _text(signature[name]) for name in ("key", "signature")}
            self.organisation = uuid.UUID(self.manifest["organisation"]["id"])
            self.slug, self.made_at = _text(self.manifest["organisation"]["slug"]), self.manifest["made_at"]
            moment(self.made_at)
            self.first, self.last = (_whole(self.manifest["range"][name]) for name in ("first", "last"))
            self.previous, head = _text(self.manifest["previous"]), self.manifest["head"]
            self.head: Line = {"sequence": _whole(head["sequence"]), "chain": _text(head["chain"])}
            self.parts = {_text(part["name"]): _text(part["sha256"]) for part in self.manifest["entries"]}
            self.files = {_text(name): _text(said) for name, said in self.manifest["files"].items()}
            self.keys = {key["id"]: key for key in map(_key, json.loads(self.read("keys.json")))}
            self.checkpoints = [
                Checkpoint(json.loads(line)) for line in self.read("checkpoints.jsonl").decode().splitlines() if line
            ]
        except ODD as error:
            raise Unreadable(f"{path} is no export that this file can read: {error!r}") from None
        if self.manifest.get("format") != "remit-audit-export-1":
            raise Unreadable("{} has the format {!r}.".format(path, self.manifest.get("format")))

    def open(self, name: str) -> IO[bytes]:
        try:
            if self.archive is not None:
                return self.archive.open(name)
            return open(os.path.join(self.path, os.path.basename(name)), "rb")
        except (KeyError, *BROKEN) as error:
            raise Unreadable(f"{self.path} lacks {name}: {error}") from None

    def read(self, name: str) -> bytes:
        try:
            with self.open(name) as file:
                return file.read()
        except BROKEN as error:
            raise Unreadable(f"{name} of {self.path} can't be read: {error}") from None

    def names(self) -> list[str]:
        return self.archive.namelist() if self.archive else os.listdir(self.path)

    def digest(self, name: str) -> str | None:
        try:
            return sha256(self.read(name))
        except Unreadable:
            return None

    def confusing(self) -> Iterator[str]:
        """What this file passes over and another program, or a reader, could take for a part of the export."""
        known = {"manifest.json", "manifest.sig", *self.files, *self.parts}
        lower = {name.lower() for name in known}
        names = self.names()
        if self.archive and min(info.header_offset for info in self.archive.infolist()):
            yield "Something stands before the export in its file."
        for name in sorted(set(names)):
            plain = name.replace("\\", "/").rpartition("/")[2].lower()
            if names.count(name) > 1:
                yield f"{name} is there more than once."
            elif name not in known and (plain in lower or plain.startswith("entries-")):
                yield f"{name} is no file of this export."

    def lines(self, changed: list[str] | None = None) -> Iterator[bytes]:
        """Every line of every part; `changed` collects the names of parts whose bytes are not the signed ones."""
        for name, said in self.parts.items():
            seen = hashlib.sha256()
            try:
                with self.open(name) as file:
                    for line in iter(lambda: file.readline(LONGEST_LINE), b""):
                        seen.update(line)
                        yield line
            except (Unreadable, *BROKEN):
                if changed is not None:
                    changed.append(name)
                continue
            if changed is not None and "sha256:" + seen.hexdigest() != said:
                changed.append(name)

    def entries(self) -> Iterator[Entry]:
        for line in self.lines():
            try:
                yield Entry(json.loads(line))
            except ODD:
                continue


# --- Judging it.


class Verdict:
    def __init__(self) -> None:
        self.findings: list[Finding] = []
        self.notes: list[str] = []
        self.entries = self.restated = self.checkpoints = 0
        self.keys: list[str] = []

    def note(self, kind: str, sequence: int | None, identifier: uuid.UUID | None, detail: str) -> None:
        entry = None if identifier is None else str(identifier)
        self.findings.append({"kind": kind, "sequence": sequence, "entry": entry, "detail": detail})

    @property
    def intact(self) -> bool:
        return not self.findings

    def first(self) -> Finding:
        """The lowest bad place; what concerns no place comes after."""
        return min(
            self.findings,
            key=lambda item: (
                item["kind"] == "rolled_back",
                item["sequence"] is None,
                item["sequence"] or 0,
                _WEIGHT.get(item["kind"], 1),
            ),
        )


# Of two things found at one place, the one that explains the other goes first.
_WEIGHT = {
    "forked": 0,
    "reordered": 0,
    "deleted": 0,
    "inserted": 0,
    "payload_swapped": 0,
    "backdated": 0,
    "file_changed": 3,
}


def verify(export: Export, earlier: Earlier = None, trusted: Sequence[str] = ()) -> Verdict:
    """Everything there is to check. `earlier`: an Export or a Checkpoint; `trusted`: key ids noted elsewhere."""
    verdict = Verdict()
    keys = _keys(verdict, export, earlier, trusted)
    manifest_holds = _check_manifest(verdict, export, keys)
    good = _check_checkpoints(verdict, export, keys)
    heads = [] if earlier is None else [earlier] if isinstance(earlier, Checkpoint) else earlier.checkpoints
    wanted = {head.sequence for head in heads}
    chains = _check_entries(verdict, export, good, wanted, manifest_holds)
    for detail in export.confusing():
        verdict.note("file_changed", None, None, detail)
    if earlier is not None and not _check_against(verdict, export, earlier, keys, chains) and verdict.intact:
        raise Unreadable(
            "The export has no place in common with the earlier one, so it can't show that it continues it. "
            "Take one that reaches back to it."
        )
    return verdict


def _keys(verdict: Verdict, export: Export, earlier: Earlier, trusted: Sequence[str]) -> Keys:
    """The public keys to believe: those noted, or else the export's first, whatever these have endorsed, and the key
    before that each of them has signed to have taken over from."""
    known = dict(export.keys)
    if isinstance(earlier, Export):
        trusted = [*trusted, *earlier.keys]
        known.update({name: key for name, key in earlier.keys.items() if name not in known})
    for name, key in list(known.items()):
        if name != _fingerprint(key):
            verdict.note("forged_signature", None, None, f"The key {name} is not the one its id says.")
            del known[name]
    believed = {}
    for name, key in known.items():
        if name in trusted or (not trusted and not key["endorsed_by"]):
            believed[name] = key["public"]
    grown = True
    while grown:
        grown = False
        for name, key in known.items():
            endorser = believed.get(key["endorsed_by"])
            if name not in believed and endorser and signed(endorser, _key_statement(key), key["endorsement"]):
                believed[name] = key["public"]
                grown = True
            before = known.get(key["endorsed_by"])
            if before is None or before["id"] in believed or name not in believed:
                continue
            if signed(believed[name], _key_statement(key), key["acceptance"]):
                believed[before["id"]] = before["public"]
                grown = True
    if not trusted and len([name for name in believed if not known[name]["endorsed_by"]]) > 1:
        verdict.notes.append(
            "More than one key has nobody before it. Note which ones are yours and pass them as --key."
        )
    if not trusted:
        verdict.notes.append("The keys are those of the export itself. Compare their ids with what you noted earlier.")
    verdict.keys = sorted(believed)
    return believed


def _fingerprint(key: Line) -> str:
    try:
        return hashlib.sha256(bytes.fromhex(key["public"])).hexdigest()[:16]
    except ValueError:
        return ""


def _key_statement(key: Line) -> bytes:
    return (
        "remit-audit-key-1\nkey {}\npublic {}\nat {}\nbefore {}\n".format(
            key["id"], key["public"], key["at"], key["endorsed_by"] or "none"
        )
    ).encode()


def _check_manifest(verdict: Verdict, export: Export, keys: Keys) -> bool:
    said = b"remit-audit-manifest-1\n" + export.manifest_bytes
    key = keys.get(export.signature["key"])
    if key is None:
        verdict.note("forged_signature", None, None, "The manifest is signed by a key that nobody vouches for.")
    elif not signed(key, said, export.signature["signature"]):
        verdict.note("forged_signature", None, None, "The signature of the manifest does not hold.")
    else:
        for name in sorted({"checkpoints.jsonl", "keys.json", *export.files}):
            if name in export.names() and export.digest(name) != export.files.get(
                name
            ):  # what was left out misleads nobody
                verdict.note("file_changed", None, None, f"{name} is not the file that was signed.")
        return True
    return False


def _check_checkpoints(verdict: Verdict, export: Export, keys: Keys) -> dict[int, Checkpoint]:
    """Those whose signature holds, as {sequence: checkpoint}. They follow each other without a gap."""
    verdict.checkpoints = len(export.checkpoints)
    good: dict[int, Checkpoint] = {}
    previous: Checkpoint | None = None
    for position, checkpoint in enumerate(export.checkpoints):
        key = keys.get(checkpoint.key)
        place = "Checkpoint %d" % checkpoint.number
        # Each covers the one before it, so the last signature speaks for all; the others are checked where they are
        # few.
        follows = previous is None or (
            checkpoint.number == previous.number + 1 and checkpoint.previous == previous.hash()
        )
        needed = len(export.checkpoints) <= 500 or position in (0, len(export.checkpoints) - 1) or not follows
        if checkpoint.organisation != str(export.organisation):
            verdict.note("forged_signature", checkpoint.sequence, None, place + " is another organisation's.")
        elif key is None:
            verdict.note(
                "forged_signature", checkpoint.sequence, None, place + " is signed by a key nobody vouches for."
            )
        elif needed and not signed(key, checkpoint.statement(), checkpoint.signature):
            verdict.note(
                "forged_signature",
                checkpoint.sequence,
                None,
                f"The signature of {place.lower()} does not hold.",
            )
        else:
            twin = good.get(checkpoint.sequence)
            if previous is not None and checkpoint.number == previous.number and checkpoint.hash() != previous.hash():
                verdict.note(
                    "forked",
                    checkpoint.sequence,
                    None,
                    "Two signed checkpoints bear the number %d." % checkpoint.number,
                )
            elif twin is not None and twin.chain != checkpoint.chain:
                verdict.note("forked", checkpoint.sequence, None, "Two signed checkpoints give this place two links.")
            elif not follows:
                verdict.note(
                    "deleted", checkpoint.sequence, None, place + " does not follow the one before it: one is missing."
                )
            good.setdefault(checkpoint.sequence, checkpoint)
        previous = checkpoint
    return good


def _check_entries(
    verdict: Verdict, export: Export, checkpoints: dict[int, Checkpoint], wanted: set[int], manifest_holds: bool
) -> dict[int, str]:
    """Goes once over all lines. Returns {sequence: chain} of at least the wanted places."""
    state = _Walk(verdict, export, checkpoints, wanted)
    changed: list[str] = []
    for line in export.lines(changed):
        try:
            entry = Entry(json.loads(line))
        except ODD:
            verdict.note("edited", state.expected, None, "The line is no entry any more.")
            state.expected += 1
            state.previous = None
            continue
        state.take(entry)
    state.end()
    if manifest_holds:
        for name in changed:
            verdict.note("file_changed", None, None, f"{name} is not the file that was signed.")
    return state.chains


class _Walk:
    """The chain so far. After a mistake it goes on from the stored link, so that one change is one finding."""

    def __init__(self, verdict: Verdict, export: Export, checkpoints: dict[int, Checkpoint], wanted: set[int]) -> None:
        self.verdict, self.export, self.checkpoints = verdict, export, checkpoints
        self.wanted = wanted  # the places whose links are kept; of the others only the latest
        self.expected: int = export.first
        self.previous: str | None = export.previous
        self.last: Entry | None = None  # the entry before
        self.since: datetime.datetime | None = None  # time of the last checkpoint behind us
        self.chains: dict[int, str] = {export.first - 1: export.previous}
        self.places = {checkpoint.chain: sequence for sequence, checkpoint in checkpoints.items()}
        self.shift: int | None = None
        self.missing: dict[int, Finding] = {}  # numbers passed over, and what was said of them
        self.mismatches: list[tuple[Entry, str]] = []
        self.further = 0  # mismatches beyond those
        self.erasures: dict[str, list[str]] = {}
        self.erased: dict[str, Entry] = {}
        before = checkpoints.get(export.first - 1)
        if before is not None:
            self.since = before.at
            if before.chain != export.previous:
                verdict.note(
                    "rewritten", export.first - 1, None, "The link before the first entry is not the signed one."
                )

    def take(self, entry: Entry) -> None:
        verdict = self.verdict
        verdict.entries += 1
        if entry.sequence != self.expected and not self._other_place(entry):
            return
        if not entry.payload_holds:
            verdict.note("payload_swapped", entry.sequence, entry.id, KINDS["payload_swapped"])
        if self.previous is not None:
            expected = entry.link(self.previous, self.export.organisation, entry.sequence)
            if expected is not None and expected != entry.chain:
                if len(self.mismatches) < WINDOW:
                    self.mismatches.append((entry, self.previous))
                else:
                    self.further += 1
        self._check_time(entry)
        self._check_erasure(entry)
        self._check_checkpoint(entry)
        self.last, self.previous, self.expected = entry, entry.chain, entry.sequence + 1
        self.chains[entry.sequence] = entry.chain
        left = entry.sequence - WINDOW
        if left not in self.wanted:
            self.chains.pop(left, None)

    def _other_place(self, entry: Entry) -> bool:
        """The number is not the expected one. Whether to go on with this entry."""
        verdict = self.verdict
        if entry.sequence in self.missing:
            self._take_back(self.missing.pop(entry.sequence))
            verdict.note("reordered", entry.sequence, entry.id, "Number %d stands after a higher one." % entry.sequence)
            return False
        if entry.sequence < self.expected:
            known = self.chains.get(entry.sequence)
            if known is not None and known != entry.chain:
                verdict.note("forked", entry.sequence, entry.id, "Two entries bear the number %d." % entry.sequence)
            elif known is not None:
                verdict.note("inserted", entry.sequence, entry.id, "Number %d stands there twice." % entry.sequence)
            else:
                verdict.note(
                    "reordered", entry.sequence, entry.id, "Number %d stands after a higher one." % entry.sequence
                )
            return False
        detail = "Number %d is missing." % self.expected
        if entry.sequence > self.expected + 1:
            detail = "Numbers %d to %d are missing." % (self.expected, entry.sequence - 1)
        verdict.note("deleted", self.expected, None, detail)
        for number in range(self.expected, min(entry.sequence, self.expected + WINDOW)):
            self.missing[number] = verdict.findings[-1]
        self.previous = None
        return True

    def _take_back(self, gap: Finding) -> None:
        """It is among the last ones mostly."""
        findings = self.verdict.findings
        for place in range(len(findings) - 1, -1, -1):
            if findings[place] is gap:
                del findings[place]
                return

    def _check_time(self, entry: Entry) -> None:
        by_id = entry.written_at
        if by_id is not None and abs(entry.at - by_id) > GRACE:
            detail = "It says {} and got its id at {}.".format(entry.line["at"], by_id.isoformat())
            self.verdict.note("backdated", entry.sequence, entry.id, detail)
        elif self.since is not None and self.since - entry.at > GRACE:
            detail = "It says {} and was sealed after the checkpoint of {}.".format(
                entry.line["at"],
                self.since.isoformat(),
            )
            self.verdict.note("backdated", entry.sequence, entry.id, detail)

    def _check_checkpoint(self, entry: Entry) -> None:
        place = self.places.get(entry.chain)
        if place is not None and place != entry.sequence and self.shift is None:
            self.shift = place - entry.sequence
        checkpoint = self.checkpoints.get(entry.sequence)
        if checkpoint is None:
            return
        self.since = checkpoint.at
        if checkpoint.chain != entry.chain and self.shift is None and not self.mismatches:
            detail = "Checkpoint %d has signed another link here." % checkpoint.number
            self.verdict.note("rewritten", entry.sequence, entry.id, detail)

    def _check_erasure(self, entry: Entry) -> None:
        for erasure, restated_sha256 in entry.restatements:
            self.erasures.setdefault(erasure, []).append("%d:%s\n" % (entry.sequence, restated_sha256))
        if entry.event == "person.erased" and isinstance(entry.payload, dict):
            self.erased[str(entry.id)] = entry
        if entry.is_restated:
            self.verdict.restated += 1
            if not entry.restatements or entry.restatements[-1][1] != entry.restated():
                self.verdict.note(
                    "edited", entry.sequence, entry.id, "It is not what the erasure of a person left of it."
                )

    def end(self) -> None:
        verdict, export = self.verdict, self.export
        self._explain_mismatches()
        if self.expected <= export.last:
            verdict.note("tail_cut", self.expected, None, "The manifest goes to number %d." % export.last)
        elif self.expected - 1 > export.last:
            verdict.note("inserted", export.last + 1, None, "The manifest ends with number %d." % export.last)
        furthest = max(self.checkpoints, default=0)
        if furthest > export.head["sequence"]:
            verdict.note(
                "tail_cut", export.head["sequence"] + 1, None, "A signed checkpoint goes to number %d." % furthest
            )
        whole = self.last is not None and self.last.sequence == export.head["sequence"]
        if whole and self.last is not None and self.last.chain != export.head["chain"] and verdict.intact:
            verdict.note("rewritten", export.last, self.last.id, "The head in the manifest is another.")
        self._check_erasures()
        inside = [place for place in self.checkpoints if export.first - 1 <= place <= export.last]
        if verdict.intact and max(inside, default=export.first - 1) < export.last:
            first = max(inside, default=export.first - 1) + 1
            verdict.notes.append(
                "Numbers %d to %d lie behind the last signed head in this export: only its manifest vouches for them."
                % (first, export.last)
            )

    def _explain_mismatches(self) -> None:
        if not self.mismatches:
            return
        verdict = self.verdict
        around: list[Entry] = []
        first = self.mismatches[0][0].sequence
        if self.shift is not None:
            kind = "deleted" if self.shift > 0 else "inserted"
            verdict.note(
                kind, first, self.mismatches[0][0].id, "From here on the numbers are off by %d." % abs(self.shift)
            )
            return
        if len(self.mismatches) > 1:
            around = [entry for entry, _ in self.mismatches[:COMPARED]]
        dated = {item["sequence"] for item in verdict.findings if item["kind"] == "backdated"}
        for place, (entry, previous) in enumerate(self.mismatches):
            fits = [
                other
                for other in (around if place < COMPARED else ())
                if other is not entry and other.link(previous, self.export.organisation, entry.sequence) == entry.chain
            ]
            if fits:
                verdict.note(
                    "reordered", entry.sequence, entry.id, "The entry sealed here stands at %d." % fits[0].sequence
                )
            elif entry.sequence not in dated:
                verdict.note("edited", entry.sequence, entry.id, "Its link does not follow from its content.")
        if self.further:
            verdict.note("edited", None, None, "Nor do the links of %d more entries." % self.further)

    def _check_erasures(self) -> None:
        verdict, export = self.verdict, self.export
        for erasure in sorted({*self.erasures, *self.erased}):
            entry = self.erased.get(erasure)
            lines = "".join(self.erasures.get(erasure, [])).encode()
            if entry is not None and entry.payload.get("restated_sha256") == sha256(lines):
                continue
            if entry is not None and export.first == 1:
                verdict.note("erasure_unproven", entry.sequence, entry.id, KINDS["erasure_unproven"])
            elif entry is None and (export.last == export.head["sequence"] or self._should_be_here(erasure)):
                verdict.note("erasure_unproven", None, None, f"The erasure {erasure} has no entry in the trail.")
            else:
                verdict.notes.append(f"Erasure {erasure} reaches beyond this export; only a whole export proves it.")

    def _should_be_here(self, erasure: str) -> bool:
        """An erasure's entry stands behind all that it restated, and its id tells when it was written: only what was
        erased at the very end, or since, may lie beyond this export."""
        try:
            at = written_at(uuid.UUID(erasure))
        except (ValueError, OverflowError):
            return True
        if at is None or at - moment(self.export.made_at) > GRACE:
            return True
        return self.last is not None and self.last.at - at > GRACE


def _check_against(
    verdict: Verdict, export: Export, earlier: Export | Checkpoint, keys: Keys, chains: dict[int, str]
) -> bool:
    """Whether there was anything to compare, or a reason not to."""
    if isinstance(earlier, Checkpoint):
        heads, organisation = [earlier], earlier.organisation
        key = keys.get(earlier.key)
        if key is None or not signed(key, earlier.statement(), earlier.signature):
            verdict.note(
                "forged_signature", None, None, "The earlier checkpoint is not signed by a key of this export."
            )
            return True
    else:
        heads, organisation = earlier.checkpoints, str(earlier.organisation)
    if organisation != str(export.organisation):
        verdict.note("foreign", None, None, KINDS["foreign"])
        return True
    present = {checkpoint.number: checkpoint for checkpoint in export.checkpoints}
    furthest = max([head.sequence for head in heads] + ([earlier.last] if isinstance(earlier, Export) else []))
    if export.head["sequence"] < furthest:
        detail = "It went to number %d before and ends with %d now." % (furthest, export.head["sequence"])
        verdict.note("rolled_back", export.head["sequence"] + 1, None, detail)
        return True
    compared = False
    for head in heads:
        now = chains.get(head.sequence)
        twin = present.get(head.number)
        compared = compared or now is not None or twin is not None
        if (now is not None and now != head.chain) or (twin is not None and twin.hash() != head.hash()):
            detail = "Checkpoint %d of before is not part of this trail." % head.number
            verdict.note("rolled_back", head.sequence, None, detail)
            return True
    return _compare(verdict, export, earlier) > 0 or compared if isinstance(earlier, Export) else compared


def _compare(verdict: Verdict, export: Export, earlier: Export) -> int:
    """Entry by entry where both have it: the links, and what no erasure may touch. How many both have."""
    compared = 0
    ours = export.entries()
    mine = next(ours, None)
    for theirs in earlier.entries():
        while mine is not None and mine.sequence < theirs.sequence:
            mine = next(ours, None)
        if mine is None:
            break
        if mine.sequence != theirs.sequence:
            continue
        compared += 1
        if mine.chain != theirs.chain:
            verdict.note("rolled_back", mine.sequence, mine.id, "The earlier export has another link here.")
            break
        if mine.anonymous != theirs.anonymous:
            verdict.note("edited", mine.sequence, mine.id, "The earlier export has other facts here.")
    return compared


def load_earlier(path: str) -> Export | Checkpoint:
    """An export, or a file whose last line is a checkpoint."""
    if os.path.isdir(path) or zipfile.is_zipfile(path):
        return Export(path)
    try:
        with open(path, encoding="utf-8") as file:
            lines = [line for line in file if line.strip()]
        return Checkpoint(json.loads(lines[-1]))
    except (OSError, IndexError, *ODD) as error:
        raise Unreadable(f"{path} is neither an export nor a checkpoint: {error!r}") from None


def visible(text: str) -> str:
    """A line in which nothing moves the cursor, hides what follows or looks like another line."""
    return "".join(sign if " " <= sign <= "~" else ascii(sign)[1:-1] for sign in text)


def report(verdict: Verdict, export: Export) -> list[str]:
    lines = ["%s, entries %d to %d, exported %s" % (export.slug, export.first, export.last, export.made_at)]
    lines.append(
        "  read: %d entries, %d checkpoints, %d entries restated by erasures"
        % (verdict.entries, verdict.checkpoints, verdict.restated)
    )
    lines.append("  head: %d:%s" % (export.head["sequence"], export.head["chain"]))
    lines.append("  keys: %s" % (", ".join(verdict.keys) or "none that can be believed"))
    lines.extend("  note: " + note for note in verdict.notes)
    if verdict.intact:
        return [*lines, "Intact."]
    first = verdict.first()
    place = "" if first["sequence"] is None else " at number %d" % first["sequence"]
    lines.append(
        "TAMPERED: {}{}{}".format(first["kind"], place, ", entry {}".format(first["entry"]) if first["entry"] else "")
    )
    lines.append("  " + KINDS[first["kind"]])
    lines.append("  " + first["detail"])
    more = [item for item in verdict.findings if item is not first]
    lines.extend(
        "  also: {}{}: {}".format(
            item["kind"], "" if item["sequence"] is None else " at %d" % item["sequence"], item["detail"]
        )
        for item in more[:20]
    )
    if len(more) > 20:
        lines.append("  and %d more" % (len(more) - 20))
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Check an export of Remit's audit trail.")
    parser.add_argument("export", help="the zip file, or the folder it was unpacked into")
    parser.add_argument(
        "--against", metavar="EARLIER", help="an earlier export, or a file with a checkpoint noted earlier"
    )
    parser.add_argument(
        "--key", action="append", default=[], metavar="FINGERPRINT", help="a signing key's id you noted"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(arguments)
    try:
        export = Export(options.export)
        earlier = load_earlier(options.against) if options.against else None
        verdict = verify(export, earlier, options.key)
    except Unreadable as error:
        said = str(error)
        print(json.dumps({"intact": None, "error": said}) if options.json else visible(f"Can't be checked: {said}"))
        return 2
    if options.json:
        found = {
            "intact": verdict.intact,
            "entries": verdict.entries,
            "checkpoints": verdict.checkpoints,
            "keys": verdict.keys,
        }
        found.update(restated=verdict.restated, head=export.head, notes=verdict.notes, findings=verdict.findings[:100])
        found["first"] = None if verdict.intact else verdict.first()
        print(json.dumps(found))
    else:
        print("\n".join(map(visible, report(verdict, export))))
    return 0 if verdict.intact else 1


if __name__ == "__main__":
    sys.exit(main())
