"""Strict JSON in, RFC 8785 canonical bytes and SHA-256 digests out. What is hashed here is what is judged and what is sent."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any, NoReturn

import rfc8785

from controlplane.common.errors import RemitError

MAX_BYTES = 1024 * 1024
MAX_DEPTH = 64
MAX_NODES = 50_000
MAX_INTEGER = 2**53 - 1


def parse_strict(raw: bytes, *, max_bytes: int = MAX_BYTES, max_depth: int = MAX_DEPTH) -> Any:
    """Parse JSON that means one thing to every reader.

    Refuses (422 `json.*`, 413 for size): duplicate keys, NaN and infinities, numbers that overflow, integers beyond 2^53,
    negative zero, lone surrogates, NUL, invalid UTF-8, a byte order mark, depth over `max_depth`, more than 50,000 nodes.
    """
    if len(raw) > max_bytes:
        raise RemitError("json.too_large", f"The body has {len(raw)} bytes; at most {max_bytes} are read.", 413)
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _refuse("invalid_utf8", f"Byte {error.start} is not valid UTF-8.") from error
    if _nesting(text) > max_depth:
        raise _refuse("too_deep", f"Values are nested deeper than {max_depth} levels.")
    try:
        value = json.loads(
            text, object_pairs_hook=_unique, parse_constant=_constant, parse_int=_integer, parse_float=_number
        )
    except json.JSONDecodeError as error:
        raise _refuse("malformed", f"{error.msg} at line {error.lineno}, column {error.colno}.") from error
    check_value(value, max_depth=max_depth)
    return value


def check_value(value: Any, *, max_depth: int = MAX_DEPTH) -> None:
    """The same limits for a value that is already parsed (from a library that read the JSON for us)."""
    stack: list[tuple[Any, int]] = [(value, 1)]
    nodes = 0
    while stack:
        item, depth = stack.pop()
        nodes += 1
        if nodes > MAX_NODES:
            raise _refuse("too_many_values", f"The body holds more than {MAX_NODES} values.")
        if depth > max_depth:
            raise _refuse("too_deep", f"Values are nested deeper than {max_depth} levels.")
        if isinstance(item, str):
            _check_text(item)
        elif isinstance(item, bool) or item is None:
            continue
        elif isinstance(item, int):
            if abs(item) > MAX_INTEGER:
                raise _refuse(
                    "integer_too_large", "Integers beyond 2^53 lose digits in other readers; send them as text."
                )
        elif isinstance(item, float):
            if not math.isfinite(item) or (item == 0 and math.copysign(1, item) < 0):
                raise _refuse("number_not_finite", "NaN, infinities and negative zero are not numbers here.")
        elif isinstance(item, Mapping):
            for key, child in item.items():
                if not isinstance(key, str):
                    raise _refuse("malformed", "Keys must be text.")
                _check_text(key)
                stack.append((child, depth + 1))
        elif isinstance(item, list | tuple):
            stack.extend((child, depth + 1) for child in item)
        else:
            raise _refuse("malformed", f"{type(item).__name__} is not a JSON value.")


def canonical_bytes(value: Any) -> bytes:
    """RFC 8785 form of a value that passed `parse_strict` or `check_value`."""
    return bytes(rfc8785.dumps(value))


def digest(value: Any) -> str:
    """`sha256:<hex>` of the canonical form."""
    return digest_of_bytes(canonical_bytes(value))


def digest_of_bytes(raw: bytes) -> str:
    return "sha256:" + hashlib.sha256(raw).hexdigest()


def _refuse(reason: str, message: str) -> RemitError:
    return RemitError(f"json.{reason}", message, 422, remedies=("Send one strict JSON value in UTF-8.",))


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise _refuse("duplicate_key", "A key appears twice in one object.")
    return result


def _constant(name: str) -> NoReturn:
    raise _refuse("number_not_finite", f"{name} is not a JSON number.")


def _integer(text: str) -> int:
    if text == "-0":
        raise _refuse("number_not_finite", "Negative zero is not a number here.")
    if len(text) > 17:
        raise _refuse("integer_too_large", "Integers beyond 2^53 lose digits in other readers; send them as text.")
    return int(text)


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise _refuse("number_not_finite", f"{text[:24]} is too large for a number.")
    return value


def _check_text(text: str) -> None:
    if "\x00" in text:
        raise _refuse("nul", "NUL characters are refused.")
    if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        raise _refuse("lone_surrogate", "Half of a surrogate pair is not text.")


def _nesting(text: str) -> int:
    """Deepest bracket nesting outside strings, before the parser's own recursion can be made to overflow."""
    if text.count("[") + text.count("{") <= MAX_DEPTH // 2:
        return 0
    depth = deepest = 0
    quoted = escaped = False
    for character in text:
        if quoted:
            if escaped:
                escaped = False
            elif character == "\\":
                escaped = True
            elif character == '"':
                quoted = False
        elif character == '"':
            quoted = True
        elif character in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif character in "]}":
            depth -= 1
    return deepest
