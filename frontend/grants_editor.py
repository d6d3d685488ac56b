"""The grants editor: grants as rows of plain fields that work without script, and back again without changing what
nobody touched."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from agents import grant_rules
from agents.grants import Grant, contradictions, parse_grants
from controlplane.common.canonical import parse_strict
from controlplane.common.errors import FieldError, RemitError, invalid

MOST_GRANTS: Final = 200
MOST_RULES: Final = 40
# What people choose from; “number” and “yes or no” are apart because 1, "1" and true are not the same to the gate.
RULES: Final = (
    ("max", "at most"),
    ("min", "at least"),
    ("max_total", "at most in all"),
    ("equals", "exactly (text)"),
    ("equals_number", "exactly (number)"),
    ("equals_flag", "exactly (true or false)"),
    ("one_of", "one of (a line each)"),
    ("starts_with", "beginning with"),
    ("like", "like (* is anything)"),
    ("max_length", "characters at most"),
    ("json", "as JSON"),
)
_NAMES: Final = {"max_calls": "Calls", "tool": "Tool", "effect": "How", "sentence": "In words"}
_CODES: Final = frozenset(code for code, _ in RULES)


@dataclass
class RuleRow:
    """One limit on one argument, as typed."""

    argument: str = ""
    code: str = "max"
    value: str = ""

    @property
    def is_empty(self) -> bool:
        return not self.argument and not self.value


@dataclass
class GrantRow:
    """One grant, as typed. `errors` are shown on it."""

    tool: str = ""
    effect: str = "allow"
    calls: str = ""
    sentence: str = ""
    rules: list[RuleRow] = field(default_factory=list)
    removed: bool = False
    errors: list[str] = field(default_factory=list)
    fresh: bool = False  # just added: shown open

    @property
    def is_empty(self) -> bool:
        return not (self.tool or self.sentence or self.calls) and all(rule.is_empty for rule in self.rules)

    @property
    def counts(self) -> bool:
        return not self.removed and not self.is_empty

    @property
    def in_words(self) -> str:
        """What the gate would enforce, or the tool's name while the fields say nothing usable yet."""
        try:
            return parse_grants([_raw(self)])[0].exactly()
        except RemitError:
            return f"Call {self.tool}" if self.tool else "A new grant"


def rows_of_grants(grants: Sequence[Grant]) -> list[GrantRow]:
    return [
        GrantRow(
            tool=grant.tool,
            effect=grant.effect,
            calls="" if grant.max_calls is None else str(grant.max_calls),
            sentence=grant.sentence,
            rules=[
                _encoded(name, operator, value)
                for name, rules in grant.constraints.items()
                for operator, value in rules.items()
            ],
        )
        for grant in grants
    ]


def rows_of_post(data: Mapping[str, str]) -> list[GrantRow]:
    """The rows as they were typed, removed and unusable ones included: nothing is lost on the way."""
    return [
        GrantRow(
            tool=data.get(f"g{index}-tool", "").strip(),
            effect=data.get(f"g{index}-effect", "allow"),
            calls=data.get(f"g{index}-calls", "").strip(),
            sentence=" ".join(data.get(f"g{index}-sentence", "").split()),
            rules=[
                RuleRow(
                    data.get(f"g{index}-r{number}-argument", "").strip(),
                    data.get(f"g{index}-r{number}-code", "max"),
                    data.get(f"g{index}-r{number}-value", "").replace("\r\n", "\n").strip(),
                )
                for number in range(_count(data.get(f"g{index}-rules"), MOST_RULES))
            ],
            removed=f"g{index}-removed" in data,
        )
        for index in range(_count(data.get("grants"), MOST_GRANTS))
    ]


def grants_of_rows(rows: Sequence[GrantRow]) -> list[Grant]:
    """Raises 422 `grants.invalid`; what is wrong stands on the rows."""
    counted = [row for row in rows if row.counts]
    raw = []
    for row in counted:
        try:
            raw.append(_raw(row))
        except RemitError as refused:
            row.errors += [problem.message for problem in refused.errors]
            raw.append({"tool": row.tool})
    try:
        grants = parse_grants(raw)
    except RemitError as refused:
        for problem in refused.errors:
            _put(counted, problem)
        grants = []
    for problem in contradictions(grants):
        _put(counted, problem)
    if any(row.errors for row in counted):
        raise invalid("grants.invalid", "Some grants can't be used as they are.")
    return grants


def _put(rows: Sequence[GrantRow], problem: FieldError) -> None:
    """“/grants/3/constraints/amount/max” → on the fourth row: “amount: a plain number …”."""
    _, _, index, *where = problem.pointer.split("/")
    named = _NAMES.get(where[0]) if where else None
    subject = named or (where[1] if len(where) > 1 else "Limits")
    rows[int(index)].errors.append(f"{subject}: {problem.message}")


def _raw(row: GrantRow) -> dict[str, Any]:
    """Raises 422 for what parse_grants could not even look at."""
    errors: list[FieldError] = []
    constraints: dict[str, dict[str, Any]] = {}
    for rule in row.rules:
        if rule.is_empty:
            continue
        for operator, value in _decoded(rule, errors).items():
            if operator in constraints.setdefault(rule.argument, {}):
                errors.append(FieldError("", f"{rule.argument}: the same rule twice"))
            constraints[rule.argument][operator] = value
    calls: int | None = None
    if row.calls:
        if row.calls.isascii() and row.calls.isdigit() and len(row.calls) < 9:
            calls = int(row.calls)
        else:
            errors.append(FieldError("", "Calls: a whole number, or nothing"))
    if errors:
        raise invalid("grants.invalid", "Some grants can't be used as they are.", *errors)
    return {
        "tool": row.tool,
        "effect": row.effect,
        "constraints": constraints,
        "max_calls": calls,
        "sentence": row.sentence,
    }


def _encoded(name: str, operator: str, value: Any) -> RuleRow:
    row = RuleRow(name, operator, str(value))
    if operator == "one_of":
        row = RuleRow(name, operator, "\n".join(map(str, value)))
    elif isinstance(value, bool):
        row = RuleRow(name, "equals_flag", "true" if value else "false")
    elif operator == "equals" and isinstance(value, int | float):
        row = RuleRow(name, "equals_number", str(value))
    problems: list[FieldError] = []
    again = _decoded(RuleRow(name.strip(), row.code, row.value.strip()), problems)
    amount = operator in ("min", "max", "max_total")
    kept = again.get(operator) == value or (amount and again.get(operator) == str(value))
    if kept and not problems and name == name.strip():
        return row
    return RuleRow(name, "json", json.dumps({operator: value}, ensure_ascii=False))


def _decoded(rule: RuleRow, errors: list[FieldError]) -> dict[str, Any]:
    text = rule.value
    if not rule.argument or rule.code not in _CODES:
        errors.append(FieldError("", "A limit names an argument and a rule"))
        return {}
    match rule.code:
        case "equals_number":
            return {"equals": _number(rule, errors)}
        case "equals_flag":
            if text.lower() not in ("true", "false"):
                errors.append(FieldError("", f"{rule.argument}: true or false"))
            return {"equals": text.lower() == "true"}
        case "one_of":
            return {"one_of": [line.strip() for line in text.split("\n") if line.strip()]}
        case "max_length":
            return {"max_length": int(text) if text.isascii() and text.isdigit() and len(text) < 10 else text}
        case "json":
            return _of_json(rule, errors)
        case _:
            return {rule.code: text}


def _number(rule: RuleRow, errors: list[FieldError]) -> int | float:
    problem = grant_rules.problem_of("max", rule.value)
    if problem:
        errors.append(FieldError("", f"{rule.argument}: {problem}"))
        return 0
    return float(rule.value) if "." in rule.value else int(rule.value)


def _of_json(rule: RuleRow, errors: list[FieldError]) -> dict[str, Any]:
    try:
        found = parse_strict(rule.value.encode())
    except RemitError:
        found = None
    if isinstance(found, dict) and found:
        return found
    errors.append(FieldError("", f'{rule.argument}: JSON such as {{"max": "100.00"}}'))
    return {}


def _count(text: str | None, most: int) -> int:
    return min(int(text), most) if text and text.isascii() and text.isdigit() and len(text) < 6 else 0
