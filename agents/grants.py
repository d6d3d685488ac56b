"""Grants: what a mission may call and with which arguments. Parsed, compiled to Cedar, compared, and said in plain
sentences."""

from __future__ import annotations

import functools
import json
import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from agents import grant_rules
from controlplane.common.errors import FieldError, invalid
from governance.types import ARGUMENT_KINDS, Grants

_TOOL = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}__[A-Za-z0-9_.-]{1,120}\Z")

Effect = Literal["allow", "escalate"]


@dataclass(frozen=True)
class Grant:
    """One permit: a tool, and per argument what it must satisfy. `escalate` grants let the call happen once a person
    agrees.

    `constraints` maps an argument to operators: {"equals": v}, {"one_of": [v…]}, {"min": "0.01"}, {"max": "100.00"},
    {"starts_with": "tickets/"}, {"like": "INV-*"}, {"max_length": 2000}; {"max_total": "500.00"} limits what the
    argument comes to over all calls of the tool in the mission. Several operators all have to hold; a constrained
    argument must be present. At most something means not less than nothing: a `max` of zero or more without a `min`
    refuses negative amounts, and a `max_total` always does. `sentence` is how people read the grant; without one it is
    made of the parts.
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
        """Its own sentence, else `exactly`; the effect is shown beside it."""
        return self.sentence or self.exactly()

    def exactly(self) -> str:
        """“Call books__apply_credit with amount at most 100.00”: made of what the gate enforces, whatever the sentence
        claims."""
        parts = [
            f"{name} {grant_rules.in_words(operator, value)}"
            for name, rules in self.constraints.items()
            for operator, value in rules.items()
        ]
        words = f"Call {self.tool}" + (" with " + ", ".join(parts) if parts else "")
        return words + (f", at most {self.max_calls} times" if self.max_calls is not None else "")

    def limits_in_words(self) -> dict[str, str]:
        """Argument → what this grant asks of it."""
        return {name: _rules_in_words(rules) for name, rules in self.constraints.items()}

    def rules(self) -> dict[str, Mapping[str, Any]]:
        """Argument → all that has to hold, what goes without saying included."""
        return {name: grant_rules.with_floor(rules) for name, rules in self.constraints.items()}

    def unmet(self, arguments: Mapping[str, Any]) -> set[str]:
        """Arguments that this grant does not cover, for people to look at; the gate itself asks Cedar."""
        return {
            name
            for name, rules in self.rules().items()
            if not all(grant_rules.met(operator, wanted, arguments.get(name)) for operator, wanted in rules.items())
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


def contradictions(grants: Sequence[Grant]) -> list[FieldError]:
    """Where no amount at all would pass. Looked for when a remit is written; those that stand are read as they are."""
    return [
        FieldError(f"/grants/{index}/constraints/{name}", "at most is below at least, so that nothing would pass")
        for index, grant in enumerate(grants)
        for name, rules in grant.rules().items()
        if grant_rules.contradict(rules)
    ]


def compile_grants(*, version_id: uuid.UUID, grants: Sequence[Grant]) -> Grants:
    """Cedar text for the gate. Grants are the only permits of `tool.call`; an escalating grant adds a liftable
    forbid."""
    return _compile(str(version_id), json.dumps([grant.as_dict() for grant in grants], sort_keys=True))


def argument_facts(
    *, tool: str, arguments: Mapping[str, Any], grants: Sequence[Grant], totals: Mapping[str, int] | None = None
) -> dict[str, Any]:
    """`context.args` for one call: only constrained arguments, typed. What can't be typed is left out, so its grant
    does not match. `totals`: argument → millionths that calls of the mission have come to so far."""
    facts: dict[str, Any] = {}
    for grant in grants:
        if grant.tool != tool:
            continue
        for name, rules in grant.rules().items():
            if name not in arguments:
                continue
            for operator in rules:
                kind = grant_rules.fact_kind(operator, rules[operator])
                value = grant_rules.fact(kind, arguments[name])
                if value is not None and kind == "total":
                    value = int(value) + (totals or {}).get(name, 0)
                if value is not None:
                    facts[_attribute(tool, name, kind)] = value
    return facts


def widens(*, old: Sequence[Grant], new: Sequence[Grant]) -> bool:
    """Whether `new` might allow something `old` did not: each new grant must be covered by one old grant of no lesser
    effect."""
    return not all(any(covers(before, after) for before in old) for after in new)


def covers(old: Grant, new: Grant) -> bool:
    """Whether `new` allows nothing that `old` alone does not. When unsure: no."""
    if old.tool != new.tool or (old.effect == "escalate" and new.effect == "allow"):
        return False
    if old.max_calls is not None and (new.max_calls is None or new.max_calls > old.max_calls):
        return False
    tighter = new.rules()
    return all(
        grant_rules.covers(operator, value, tighter.get(name, {}))
        for name, rules in old.rules().items()
        for operator, value in rules.items()
    )


# Compilation ---------------------------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=512)
def _compile(key: str, canonical: str) -> Grants:
    grants = [Grant(**item) for item in json.loads(canonical)]
    policies: list[str] = []
    types: dict[str, str] = {}
    conditions = [_condition(grant, types) for grant in grants]
    for index, (grant, condition) in enumerate(zip(grants, conditions, strict=True)):
        head = f'principal, action == Action::"tool.call", resource == Tool::{grant_rules.cedar_text(grant.tool)}'
        policies.append(f'@id("grant/{index}")\npermit ({head}) when {{ {condition} }};')
        if grant.effect == "escalate":
            allowed = [
                conditions[i] for i, other in enumerate(grants) if other.tool == grant.tool and other.effect == "allow"
            ]
            outside = _all([condition, *(f"!({other})" for other in allowed)])
            policies.append(
                f'@id("grant/{index}/ask")\n@effect("escalate")\n@message({grant_rules.cedar_text(grant.in_words())})\n'
                f"forbid ({head}) when {{ {outside} }} "
                f'unless {{ context.approved.contains("grant/{index}/ask") }};'
            )
    return Grants(key=key, policies="\n".join(policies), argument_types=types)


def _condition(grant: Grant, types: dict[str, str]) -> str:
    terms: list[str] = []
    for name, rules in grant.rules().items():
        for operator, wanted in rules.items():
            kind = grant_rules.fact_kind(operator, wanted)
            attribute = _attribute(grant.tool, name, kind)
            types[attribute] = ARGUMENT_KINDS[kind]
            terms.append(f"context.args has {grant_rules.cedar_text(attribute)}")
            terms.append(grant_rules.term(f"context.args[{grant_rules.cedar_text(attribute)}]", operator, wanted, kind))
    if grant.max_calls is not None:
        terms.append(f"context.calls < {grant.max_calls}")
    return _all(terms)


def _all(terms: Sequence[str]) -> str:
    """All of them, nested evenly: Cedar's readers give up on what is nested as deep as a long chain of `&&`."""
    if len(terms) <= 2:
        return " && ".join(terms) or "true"
    # An even middle keeps each “has” beside the term that relies on it, and before it in any case.
    middle = len(terms) // 4 * 2 or 1
    return f"({_all(terms[:middle])}) && ({_all(terms[middle:])})"


def _attribute(tool: str, name: str, kind: str) -> str:
    return f"{tool}/{name}#{kind}"


# Validation and words -------------------------------------------------------------------------------------------------


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
    sentence = item.get("sentence", "")
    if sentence != "" and not grant_rules.is_text(sentence, most=300):
        errors.append(FieldError(f"{where}/sentence", "text of at most 300 characters"))
    constraints = {} if item.get("constraints") is None else item["constraints"]
    if not isinstance(constraints, dict):
        return [*errors, FieldError(f"{where}/constraints", "an object: argument → rules")]
    for name, rules in constraints.items():
        here = f"{where}/constraints/{name}"
        if not grant_rules.is_text(name, most=120):
            errors.append(FieldError(f"{where}/constraints", "names of 1 to 120 characters"))
            continue
        if not isinstance(rules, dict) or not rules:
            errors.append(FieldError(here, f"an object with some of: {', '.join(grant_rules.OPERATORS)}"))
            continue
        errors += [
            FieldError(f"{here}/{operator}", problem)
            for operator, value in rules.items()
            if (problem := grant_rules.problem_of(operator, value))
        ]
    return errors


def _rules_in_words(rules: Mapping[str, Any]) -> str:
    """All rules of one argument: “0.01 to 100.00, of at most 20 characters”."""
    words = [
        grant_rules.in_words(operator, value) for operator, value in rules.items() if operator not in ("min", "max")
    ]
    if "min" in rules and "max" in rules:
        return ", ".join([f"{rules['min']} to {rules['max']}", *words])
    return ", ".join(grant_rules.in_words(operator, value) for operator, value in rules.items())
