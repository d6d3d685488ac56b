"""Strict JSON in, RFC 8785 canonical bytes and SHA-256 digests out. What is hashed is what is judged and sent."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from typing import Any, NoReturn

import rfc8785

from controlplane.common.errors import RemitError

MAX_BYTES = 1024 * 1024
MAX_DEPTH = 64
MAX_NODES = 50_000
MAX_INTEGER = 2**53 - 1
_MALFORMED = {  # how the parser begins to say it → how people do
    "Expecting property name": "a name in double quotes is missing",
    "Expecting value": "a value is missing, or text that is not in double quotes stands there",
    "Expecting ',' delimiter": "a comma or a closing bracket is missing",
    "Expecting ':' delimiter": "a colon is missing",
    "Illegal trailing comma": "a comma stands before a closing bracket",
    "Unterminated string": "a text is never closed that begins",
    "Invalid control character": "a line break or another control character stands in a text",
    "Invalid \\": "a backslash stands before what it can't mean anything for",
    "Extra data": "it has ended already, and more follows",
}


def parse_strict(raw: bytes, *, max_bytes: int = MAX_BYTES, max_depth: int = MAX_DEPTH) -> Any:
    """Parse JSON that means one thing to every reader. 1.0 and 1 are one number: the integer.

    Refuses (422 `json.*`, 413 for size): duplicate keys, NaN and infinities, numbers that overflow or vanish, numbers
    beyond 2^53, literals of more than 64 digits, negative zero, lone surrogates, NUL, invalid UTF-8, a byte order mark,
    depth over `max_depth`, more than 50,000 values.
    """
    if len(raw) > max_bytes:
        raise RemitError("json.too_large", f"The body has {len(raw)} bytes; at most {max_bytes} are read.", 413)
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _refuse("invalid_utf8", f"Byte {error.start} is not valid UTF-8.") from error
    _check_structure(text, max_depth)
    try:
        value = json.loads(
            text, object_pairs_hook=_unique, parse_constant=_constant, parse_int=_integer, parse_float=_number
        )
    except json.JSONDecodeError as error:
        wrong = next((words for start, words in _MALFORMED.items() if error.msg.startswith(start)), "it can't be read")
        raise _refuse("malformed", f"Not JSON: {wrong} at line {error.lineno}, column {error.colno}.") from error
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
            raise _too_many()
        if depth > max_depth:
            raise _too_deep(max_depth)
        if isinstance(item, str):
            _check_text(item)
        elif isinstance(item, bool) or item is None:
            continue
        elif isinstance(item, int):
            if abs(item) > MAX_INTEGER:
                raise _too_large()
        elif isinstance(item, float):
            if not math.isfinite(item) or (item == 0 and math.copysign(1, item) < 0):
                raise _refuse("number_not_finite", "NaN, infinities and negative zero are not numbers here.")
            if abs(item) > MAX_INTEGER:
                raise _too_large()
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
    try:
        text = _COMPACT.encode(value)
    except (TypeError, ValueError):
        return bytes(rfc8785.dumps(value))  # raises with the better message
    # Sorted compact JSON is already RFC 8785's form, and ten times faster to write, except for these few things.
    if text.isascii() and _WRITTEN_OTHERWISE.search(text) is None:
        return text.encode()
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
    if len(text) > 17 or abs(number := int(text)) > MAX_INTEGER:
        raise _too_large()
    return number


def _number(text: str) -> int | float:
    if len(text) > 64:
        raise _refuse("number_too_long", "Numbers with so many digits are not exact; send them as text.")
    value = float(text)
    if not math.isfinite(value):
        raise _refuse("number_not_finite", f"{text[:24]} is too large for a number.")
    if value == 0 and (text[0] == "-" or _SIGNIFICANT.search(text)):
        raise _refuse("number_not_finite", f"{text[:24]} is negative zero or too small for a number.")
    if abs(value) > MAX_INTEGER:
        raise _too_large()
    return int(value) if value.is_integer() else value


def _check_text(text: str) -> None:
    if "\x00" in text:
        raise _refuse("nul", "NUL characters are refused.")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise _refuse("lone_surrogate", "Half of a surrogate pair is not text.") from error


def _check_structure(text: str, max_depth: int) -> None:
    """Depth and number of values, before the parser's recursion can overflow or its work can be made to take long."""
    if text.count("[") + text.count("{") <= max_depth and text.count(",") < MAX_NODES:
        return
    structure = _STRINGS.sub("", text)
    if structure.count(",") >= MAX_NODES:
        raise _too_many()
    depth = 0
    for bracket in _BRACKETS.finditer(structure):
        depth += 1 if bracket[0] in "[{" else -1
        if depth > max_depth:
            raise _too_deep(max_depth)


def _too_large() -> RemitError:
    return _refuse("integer_too_large", "Numbers beyond 2^53 lose digits in other readers; send them as text.")


def _too_deep(max_depth: int) -> RemitError:
    return _refuse("too_deep", f"Values are nested deeper than {max_depth} levels.")


def _too_many() -> RemitError:
    return _refuse("too_many_values", f"The body holds more than {MAX_NODES} values.")


_COMPACT = json.JSONEncoder(ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":"))
# Whole numbers as floats, exponents, and integers that may be beyond 2^53. Found inside a text, it only costs time.
_WRITTEN_OTHERWISE = re.compile(r"\.0(?:[,\]}]|\Z)|[0-9]e[+-][0-9]{2,3}(?:[,\]}]|\Z)|[0-9]{16}")
_SIGNIFICANT = re.compile(r"^-?[0.]*[1-9]")
# Possessive and with an optional end, so that no input makes it start over: linear on any text.
_STRINGS = re.compile(r'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
_BRACKETS = re.compile(r"[\[\]{}]")
