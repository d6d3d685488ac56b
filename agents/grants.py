"""Grants: what a mission may call and with which arguments. Parsed, compiled to Cedar, compared, and said in plain
sentences."""

from __future__ import annotations

import functools
import json
import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import Any, Literal

from controlplane.common.errors import FieldError, invalid
from governance.types import Grants

MICRO = 1_000_000
_TOOL = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}__[A-Za-z0-9_.-]{1,120}\Z")
_NUMBER = re.compile(r"-?[0-9]{1,12}(\.[0-9]{1,6})?\Z")
_OPERATORS = ("equals", "one_of", "min", "max", "starts_with", "like", "max_length")

Effect = Literal["allow", "escalate"]


@dataclass(frozen=True)
class Grant:
    """One permit: a tool, and per argument what it must satisfy. `escalate` grants let the call happen once a person
    agrees.

    `constraints` maps an argument to operators: {"equals": v}, {"one_of": [v…]}, {"min": "0.01"}, {"max": "100.00"},
    {"starts_with": "tickets/"}, {"like": "INV-*"}, {"max_length": 2000}. Several operators all have to hold; a
    constrained argument must be present. `sentence` is how people read the grant; without one it is made of the parts.
    """

    tool: str
    effect: Effect = "allow"
    constraints: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    max_calls: int | None = None
    sentence: str = ""

    def as_dict(self) -> dict[str, Any]:
        return {
            "tool": self.tool,
            "effect": self.effect,
            "constraints": {name: dict(rules) for name, rules in self.constraints.items()},
            "max_calls": self.max_calls,
            "sentence": self.sentence,
        }

    def in_words(self) -> str:
        """“Call books__apply_credit with amount at most 100.00”; the effect is shown beside it."""
        if self.sentence:
            return self.sentence
        parts = [
            f"{name} {_rule_in_words(operator, value)}"
            for name, rules in self.constraints.items()
            for operator, value in rules.items()
        ]
        words = f"Call {self.tool}" + (" with " + ", ".join(parts) if parts else "")
        return words + (f", at most {self.max_calls} times" if self.max_calls is not None else "")

    def limits_in_words(self) -> dict[str, str]:
        """Argument → what this grant asks of it."""
        return {name: _rules_in_words(rules) for name, rules in self.constraints.items()}

    def unmet(self, arguments: Mapping[str, Any]) -> set[str]:
        """Arguments that this grant does not cover, for people to look at; the gate itself asks Cedar."""
        return {
            name
            for name, rules in self.constraints.items()
            if not all(_met(operator, wanted, arguments.get(name)) for operator, wanted in rules.items())
        }


def parse_grants(raw: Any) -> list[Grant]:
    """Grants from JSON. Raises 422 `grants.invalid` naming every bad field."""
    errors: list[FieldError] = []
    grants: list[Grant] = []
    if not isinstance(raw, list) or len(raw) > 200:
        raise invalid("grants.invalid", "Grants are a list of at most 200.", FieldError("/grants", "a list of grants"))
    for index, item in enumerate(raw):
        where = f"/grants/{index}"
        if not isinstance(item, dict) or set(item) - {"tool", "effect", "constraints", "max_calls", "sentence"}:
            errors.append(FieldError(where, "an object with tool, effect, constraints, max_calls, sentence"))
            continue
        found = _grant_errors(item, where)
        errors += found
        if not found:
            grants.append(
                Grant(
                    tool=item["tool"],
                    effect=item.get("effect", "allow"),
                    constraints=item.get("constraints") or {},
                    max_calls=item.get("max_calls"),
                    sentence=item.get("sentence", ""),
                )
            )
    if errors:
        raise invalid("grants.invalid", "Some grants can't be used as they are.", *errors)
    return grants


def compile_grants(*, version_id: uuid.UUID, grants: Sequence[Grant]) -> Grants:
    """Cedar text for the gate. Grants are the only permits of `tool.call`; an escalating grant adds a liftable
    forbid."""
    return _compile(str(version_id), json.dumps([grant.as_dict() for grant in grants], sort_keys=True))


def argument_facts(*, tool: str, arguments: Mapping[str, Any], grants: Sequence[Grant]) -> dict[str, Any]:
    """`context.args` for one call: only constrained arguments, typed. What can't be typed is left out, so its grant
    does not match."""
    facts: dict[str, Any] = {}
    for grant in grants:
        if grant.tool != tool:
            continue
        for name, rules in grant.constraints.items():
            if name not in arguments:
                continue
            for operator in rules:
                kind = _fact_kind(operator, rules[operator])
                value = _fact(kind, arguments[name])
                if value is not None:
                    facts[_attribute(tool, name, kind)] = value
    return facts


def widens(*, old: Sequence[Grant], new: Sequence[Grant]) -> bool:
    """Whether `new` might allow something `old` did not: each new grant must be covered by one old grant of no lesser
    effect."""
    return not all(any(_covers(before, after) for before in old) for after in new)


# Compilation ---------------------------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=512)
def _compile(key: str, canonical: str) -> Grants:
    grants = [Grant(**item) for item in json.loads(canonical)]
    policies: list[str] = []
    types: dict[str, str] = {}
    conditions = [_condition(grant, types) for grant in grants]
    for index, (grant, condition) in enumerate(zip(grants, conditions, strict=True)):
        head = f'principal, action == Action::"tool.call", resource == Tool::{_text(grant.tool)}'
        policies.append(f'@id("grant/{index}")\npermit ({head}) when {{ {condition} }};')
        if grant.effect == "escalate":
            allowed = [
                conditions[i] for i, other in enumerate(grants) if other.tool == grant.tool and other.effect == "allow"
            ]
            outside = "".join(f" && !({other})" for other in allowed)
            policies.append(
                f'@id("grant/{index}/ask")\n@effect("escalate")\n@message({_text(grant.in_words())})\n'
                f"forbid ({head}) when {{ {condition}{outside} }} "
                f'unless {{ context.approved.contains("grant/{index}/ask") }};'
            )
    return Grants(key=key, policies="\n".join(policies), argument_types=types)


def _condition(grant: Grant, types: dict[str, str]) -> str:
    terms: list[str] = []
    for name, rules in grant.constraints.items():
        for operator, wanted in rules.items():
            kind = _fact_kind(operator, wanted)
            attribute = _attribute(grant.tool, name, kind)
            types[attribute] = _CEDAR_TYPES[kind]
            terms.append(f"context.args has {_text(attribute)}")
            terms.append(_term(f"context.args[{_text(attribute)}]", operator, wanted, kind))
    if grant.max_calls is not None:
        terms.append(f"context.calls < {grant.max_calls}")
    return " && ".join(terms) or "true"


def _term(value: str, operator: str, wanted: Any, kind: str) -> str:
    match operator:
        case "equals":
            return f"{value} == {_literal(wanted, kind)}"
        case "one_of":
            return f"[{', '.join(_literal(item, kind) for item in wanted)}].contains({value})"
        case "min":
            return f"{value} >= {_micros(wanted)}"
        case "max":
            return f"{value} <= {_micros(wanted)}"
        case "max_length":
            return f"{value} <= {int(wanted)}"
        case "starts_with":
            return f"{value} like {_pattern(wanted, wildcard=True)}"
        case _:
            return f"{value} like {_pattern(wanted)}"


_CEDAR_TYPES = {"micros": "Long", "length": "Long", "text": "String", "flag": "Boolean"}


def _fact_kind(operator: str, wanted: Any) -> str:
    if operator in ("min", "max"):
        return "micros"
    if operator == "max_length":
        return "length"
    sample = wanted[0] if operator == "one_of" else wanted
    if isinstance(sample, bool):
        return "flag"
    return "micros" if isinstance(sample, int | float) else "text"


def _fact(kind: str, value: Any) -> int | str | bool | None:
    match kind:
        case "micros":
            return _micros(value)
        case "length":
            return len(value) if isinstance(value, str) else None
        case "flag":
            return value if isinstance(value, bool) else None
        case _:
            # A path that climbs out of its prefix is not inside it, however it is spelled.
            return value if isinstance(value, str) and not _climbs(value) else None


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
    return (
        any(part.strip() in ("..", "...") or part != part.strip() for part in re.split(r"[/\\]", text))
        if ".." in text
        else False
    )


def _attribute(tool: str, name: str, kind: str) -> str:
    return f"{tool}/{name}#{kind}"


def _literal(value: Any, kind: str) -> str:
    if kind == "micros":
        return str(_micros(value))
    if kind == "flag":
        return "true" if value else "false"
    return _text(str(value))


def _text(value: str) -> str:
    """A Cedar string literal: every character outside plain printable ASCII as an escape."""
    return (
        '"'
        + "".join(c if c.isascii() and c.isprintable() and c not in '"\\' else f"\\u{{{ord(c):x}}}" for c in value)
        + '"'
    )


def _pattern(value: str, *, wildcard: bool = False) -> str:
    """A Cedar pattern. With `wildcard` the text is literal and anything may follow; else `*` in it matches anything."""
    if wildcard:
        return _text(value)[:-1].replace("*", "\\*") + '*"'
    return _text(value)


def _met(operator: str, wanted: Any, value: Any) -> bool:
    fact = _fact(_fact_kind(operator, wanted), value)
    if fact is None:
        return False
    match operator:
        case "min" | "max":
            limit, found = _micros(wanted) or 0, int(fact)
            return found >= limit if operator == "min" else found <= limit
        case "max_length":
            return int(fact) <= int(wanted)
        case "starts_with":
            return str(fact).startswith(wanted)
        case "like":
            return (
                re.fullmatch(".*".join(re.escape(part) for part in wanted.split("*")), str(fact), re.DOTALL) is not None
            )
        case "one_of":
            return value in wanted
        case _:
            return bool(value == wanted)


# Validation and comparison -------------------------------------------------------------------------------------------


def _grant_errors(item: dict[str, Any], where: str) -> list[FieldError]:
    errors: list[FieldError] = []
    tool = item.get("tool")
    if not isinstance(tool, str) or not _TOOL.match(tool):
        errors.append(FieldError(f"{where}/tool", "a tool's full name, such as books__apply_credit"))
    if item.get("effect", "allow") not in ("allow", "escalate"):
        errors.append(FieldError(f"{where}/effect", "allow or escalate"))
    calls = item.get("max_calls")
    if calls is not None and (isinstance(calls, bool) or not isinstance(calls, int) or not 0 < calls <= 1_000_000):
        errors.append(FieldError(f"{where}/max_calls", "a whole number from 1 to 1,000,000, or nothing"))
    if not isinstance(item.get("sentence", ""), str) or len(item.get("sentence", "")) > 300:
        errors.append(FieldError(f"{where}/sentence", "text of at most 300 characters"))
    constraints = item.get("constraints") or {}
    if not isinstance(constraints, dict):
        return [*errors, FieldError(f"{where}/constraints", "an object: argument → rules")]
    for name, rules in constraints.items():
        here = f"{where}/constraints/{name}"
        if not isinstance(rules, dict) or not rules:
            errors.append(FieldError(here, f"an object with some of: {', '.join(_OPERATORS)}"))
            continue
        errors += [
            FieldError(f"{here}/{operator}", problem)
            for operator, value in rules.items()
            if (problem := _rule_problem(operator, value))
        ]
    return errors


def _rule_problem(operator: str, value: Any) -> str:
    match operator:
        case "min" | "max":
            return "" if _micros(value) is not None else "a plain number with at most six decimals"
        case "max_length":
            return "" if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else "a whole number"
        case "starts_with" | "like":
            return "" if isinstance(value, str) and 0 < len(value) <= 400 else "text of 1 to 400 characters"
        case "equals":
            return (
                "" if isinstance(value, str | bool) or _micros(value) is not None else "text, a number, true or false"
            )
        case "one_of":
            fits = isinstance(value, list) and value and all(isinstance(entry, str) for entry in value)
            return "" if fits else "a list of texts, at least one"
        case _:
            return f"not a rule; use {', '.join(_OPERATORS)}"


def _covers(old: Grant, new: Grant) -> bool:
    if old.tool != new.tool or (old.effect == "escalate" and new.effect == "allow"):
        return False
    if old.max_calls is not None and (new.max_calls is None or new.max_calls > old.max_calls):
        return False
    return all(
        _rule_covers(operator, value, new.constraints.get(name, {}))
        for name, rules in old.constraints.items()
        for operator, value in rules.items()
    )


def _rule_covers(operator: str, old: Any, new_rules: Mapping[str, Any]) -> bool:
    """Whether the new rules on one argument are at least as tight as one old rule. When unsure: no."""
    if operator in new_rules:
        new = new_rules[operator]
        match operator:
            case "max" | "max_length":
                return Decimal(str(new)) <= Decimal(str(old))
            case "min":
                return Decimal(str(new)) >= Decimal(str(old))
            case "one_of":
                return set(new) <= set(old)
            case "starts_with":
                return str(new).startswith(str(old))
            case _:
                return bool(new == old)
    if operator == "one_of" and "equals" in new_rules:
        return new_rules["equals"] in old
    return False


def _rules_in_words(rules: Mapping[str, Any]) -> str:
    """All rules of one argument: “0.01 to 100.00, of at most 20 characters”."""
    words = [_rule_in_words(operator, value) for operator, value in rules.items() if operator not in ("min", "max")]
    if "min" in rules and "max" in rules:
        return ", ".join([f"{rules['min']} to {rules['max']}", *words])
    return ", ".join(_rule_in_words(operator, value) for operator, value in rules.items())


def _rule_in_words(operator: str, value: Any) -> str:
    words = {
        "equals": f"exactly {value}",
        "min": f"at least {value}",
        "max": f"at most {value}",
        "starts_with": f"beginning with {value}",
        "like": f"like {value}",
        "max_length": f"of at most {value} characters",
    }
    return words.get(operator) or "one of " + ", ".join(str(item) for item in value)
