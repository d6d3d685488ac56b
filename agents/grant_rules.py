"""One rule on one argument of a grant: what it reads of a call, how Cedar is asked, how people read it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any, Final
from urllib.parse import unquote

MICRO: Final = 1_000_000
OPERATORS: Final = ("equals", "one_of", "min", "max", "max_total", "starts_with", "like", "max_length")
_NUMBER = re.compile(r"-?[0-9]{1,12}(\.[0-9]{1,6})?\Z")
_LONGEST_TEXT = 10_000_000


def term(value: str, operator: str, wanted: Any, kind: str) -> str:
    """The rule as a Cedar condition on the expression `value`, which has the type of `kind`."""
    match operator:
        case "equals":
            return f"{value} == {_literal(wanted, kind)}"
        case "one_of":
            return f"[{', '.join(_literal(item, kind) for item in wanted)}].contains({value})"
        case "min":
            return f"{value} >= {_micros(wanted)}"
        case "max" | "max_total":
            return f"{value} <= {_micros(wanted)}"
        case "max_length":
            return f"{value} <= {int(wanted)}"
        case "starts_with":
            return f"{value} like {_pattern(wanted, wildcard=True)}"
        case _:
            return f"{value} like {_pattern(wanted)}"


def fact_kind(operator: str, wanted: Any) -> str:
    """As what the argument is read: micros, total, length, text or flag; a key of governance.types.ARGUMENT_KINDS."""
    if operator == "max_total":
        return "total"
    if operator in ("min", "max"):
        return "micros"
    if operator == "max_length":
        return "length"
    sample = wanted[0] if operator == "one_of" else wanted
    if isinstance(sample, bool):
        return "flag"
    return "micros" if isinstance(sample, int | float) else "text"


def fact(kind: str, value: Any) -> int | str | bool | None:
    """The argument as Cedar gets it; None when it can't be read as that kind."""
    match kind:
        case "micros":
            return _micros(value)
        case "total":
            # What is taken back can't make room: an amount below zero has no place in a total.
            micros = _micros(value)
            return micros if micros is not None and micros >= 0 else None
        case "length":
            return len(value) if isinstance(value, str) else None
        case "flag":
            return value if isinstance(value, bool) else None
        case _:
            # A path that climbs out of its prefix is not inside it, however it is spelled.
            return value if isinstance(value, str) and not _climbs(value) else None


def met(operator: str, wanted: Any, value: Any) -> bool:
    """Whether a value satisfies one rule, for people to look at; the gate itself asks Cedar."""
    kind = fact_kind(operator, wanted)
    found = fact(kind, value)
    if found is None:
        return False
    match operator:
        case "min" | "max" | "max_total":
            limit = _micros(wanted) or 0
            return int(found) >= limit if operator == "min" else int(found) <= limit
        case "max_length":
            return int(found) <= int(wanted)
        case "starts_with":
            return str(found).startswith(wanted)
        case "like":
            pattern = ".*".join(re.escape(part) for part in wanted.split("*"))
            return re.fullmatch(pattern, str(found), re.DOTALL) is not None
        case "one_of":
            return found in wanted
        case _:
            return bool(found == (_micros(wanted) if kind == "micros" else wanted))


def with_floor(rules: Mapping[str, Any]) -> Mapping[str, Any]:
    """The rules of one argument with what goes without saying: at most something is not less than nothing."""
    if "max" not in rules or "min" in rules or (_micros(rules["max"]) or 0) < 0:
        return rules
    return {**rules, "min": 0}


def contradict(rules: Mapping[str, Any]) -> bool:
    """Whether the least amount allowed is above the most."""
    most = [_micros(rules[operator]) or 0 for operator in ("max", "max_total") if operator in rules]
    return "min" in rules and bool(most) and (_micros(rules["min"]) or 0) > min(most)


def covers(operator: str, old: Any, new_rules: Mapping[str, Any]) -> bool:
    """Whether the new rules on one argument are at least as tight as one old rule. When unsure: no."""
    if operator in new_rules:
        new = new_rules[operator]
        match operator:
            case "max" | "max_total" | "max_length":
                return Decimal(str(new)) <= Decimal(str(old))
            case "min":
                return Decimal(str(new)) >= Decimal(str(old))
            case "one_of":
                return set(new) <= set(old)
            case "starts_with":
                return str(new).startswith(str(old))
            case _:
                # True is not 1 here, though Python says so.
                return bool(new == old) and fact_kind(operator, new) == fact_kind(operator, old)
    if operator == "one_of" and "equals" in new_rules:
        return new_rules["equals"] in old
    return False


def problem_of(operator: str, value: Any) -> str:
    """What a rule's value should have been; empty when it is fine."""
    match operator:
        case "min" | "max":
            return "" if _micros(value) is not None else "a plain number with at most six decimals"
        case "max_total":
            return "" if (_micros(value) or 0) > 0 else "a plain number above zero with at most six decimals"
        case "max_length":
            fits = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _LONGEST_TEXT
            return "" if fits else f"a whole number up to {_LONGEST_TEXT:,}"
        case "starts_with" | "like":
            return "" if is_text(value) else "text of 1 to 400 characters"
        case "equals":
            fits = value == "" or is_text(value) or isinstance(value, bool) or _is_number(value)
            return "" if fits else "text of up to 400 characters, a number, true or false"
        case "one_of":
            fits = isinstance(value, list) and 1 <= len(value) <= 1000 and all(is_text(entry) for entry in value)
            return "" if fits else "a list of 1 to 1,000 texts of 1 to 400 characters"
        case _:
            return f"not a rule; use {', '.join(OPERATORS)}"


def is_text(value: Any, *, most: int = 400) -> bool:
    """Text that Cedar and PostgreSQL can take as well."""
    if not isinstance(value, str) or not 0 < len(value) <= most or "\0" in value:
        return False
    return not any("\ud800" <= character <= "\udfff" for character in value)


def in_words(operator: str, value: Any) -> str:
    words = {
        "equals": f"exactly {value}",
        "min": f"at least {value}",
        "max": f"at most {value}",
        "max_total": f"at most {value} in all",
        "starts_with": f"beginning with {value}",
        "like": f"like {value}",
        "max_length": f"of at most {value} characters",
    }
    return words.get(operator) or "one of " + ", ".join(str(item) for item in value)


def cedar_text(value: str) -> str:
    """A Cedar string literal: every character outside plain printable ASCII as an escape."""
    if value.isascii() and value.isprintable() and '"' not in value and "\\" not in value:
        return f'"{value}"'
    return (
        '"'
        + "".join(c if c.isascii() and c.isprintable() and c not in '"\\' else f"\\u{{{ord(c):x}}}" for c in value)
        + '"'
    )


def _micros(value: Any) -> int | None:
    """Exact millionths of a plain decimal; None for anything else (units, exponents, more than six places)."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    text = value if isinstance(value, str) else format(Decimal(str(value)), "f")
    if not _NUMBER.match(text):
        return None
    try:
        return int(Decimal(text) * MICRO)
    except InvalidOperation:
        return None


def _climbs(text: str) -> bool:
    """Whether some reader might see a way up in it: written plainly, with a space or a dot too many, or percent-encoded
    once or twice."""
    for _ in range(3):
        if ".." in text and any(_is_way_up(part) for part in re.split(r"[/\\]", text)):
            return True
        decoded = unquote(text)
        if decoded == text:
            return False
        text = decoded
    return True


def _is_way_up(part: str) -> bool:
    bare = part.strip()
    return bare != part or (len(bare) > 1 and set(bare) == {"."})


def _literal(value: Any, kind: str) -> str:
    if kind == "micros":
        return str(_micros(value))
    if kind == "flag":
        return "true" if value else "false"
    return cedar_text(str(value))


def _pattern(value: str, *, wildcard: bool = False) -> str:
    """A Cedar pattern. With `wildcard` the text is literal and anything may follow; else `*` in it matches anything."""
    if wildcard:
        return cedar_text(value)[:-1].replace("*", "\\*") + '*"'
    return cedar_text(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and _micros(value) is not None
