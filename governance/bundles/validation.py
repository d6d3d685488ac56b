"""What a bundle has to pass before it is stored: it parses, fits its schema, lifts what it says, keeps its cases."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cedarpy

from controlplane.common.canonical import digest
from governance import policy
from governance.bundles import argument_names
from governance.types import Grants

GRANT_PREFIX = "grant/"
_APPROVED = {".": {"left": {"Var": "context"}, "attr": "approved"}}


@dataclass(frozen=True)
class BundleSource:
    """The three texts of a bundle, as read from files or a form."""

    policies: str
    schema: Mapping[str, Any]
    golden_cases: Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class GoldenResult:
    name: str
    expected: str
    verdict: str
    policies: tuple[str, ...]
    passed: bool


def bundle_sha256(source: BundleSource) -> str:
    return digest({"policies": source.policies, "schema": source.schema, "golden_cases": list(source.golden_cases)})


def check_bundle(source: BundleSource) -> list[str]:
    """Everything that is wrong with it, in plain words; empty when it may be used."""
    try:
        parsed = json.loads(cedarpy.policies_to_json_str(source.policies))
        policies = parsed["staticPolicies"]
        read = {name for body in policies.values() for name in argument_names.read_by(body)}
        # As if a mission limited every argument that a rule reads: only then does Cedar look at what is done with it.
        schema = policy.schema_with_arguments(source.schema, argument_names.types_of(read))
    except ValueError as error:
        return [str(error)]
    problems = [str(error) for error in cedarpy.validate_policies(source.policies, schema).errors]
    if parsed["templates"]:
        problems.append("Templates are not used here: write each policy out.")
    problems += _annotation_problems(policies)
    if not source.golden_cases:
        problems.append("A bundle needs golden cases: at least one action it allows and one it refuses.")
    for case in source.golden_cases:
        problems += argument_names.case_problems(case)
    if problems:
        return problems
    return [
        f"Golden case “{result.name}”: expected {result.expected}, got {result.verdict}"
        f" by {', '.join(result.policies) or 'no policy'}."
        for result in run_golden_cases(source)
        if not result.passed
    ]


def run_golden_cases(source: BundleSource) -> list[GoldenResult]:
    """Each case judged as the gate would judge it."""
    return [_run(source, case) for case in source.golden_cases]


def _run(source: BundleSource, case: Mapping[str, Any]) -> GoldenResult:
    given = case.get("grants") or {}
    grants = Grants(
        key=f"golden/{case['name']}",
        policies=given.get("policies", ""),
        argument_types=given.get("argument_types", {}),
    )
    compiled = policy.compiled_for(
        sha256=bundle_sha256(source), policies=source.policies, schema=source.schema, grants=grants
    )
    facts = policy.Facts(case["action"], case["principal"], case["resource"], case["context"])
    answer = policy.ask(compiled, facts, approved=case.get("approved", ()), denial=None)
    verdict = answer.finding.verdict.value
    named = set(case.get("policies", ()))
    return GoldenResult(
        name=case["name"],
        expected=case["expect"],
        verdict=verdict,
        policies=answer.fired,
        passed=verdict == case["expect"] and named <= set(answer.fired),
    )


def _annotation_problems(policies: Mapping[str, Mapping[str, Any]]) -> list[str]:
    problems: list[str] = []
    seen: set[str] = set()
    for name, body in policies.items():
        annotations = body.get("annotations") or {}
        identifier = annotations.get("id") or ""
        where = f"Policy {identifier or name}"
        if not identifier:
            problems.append(f"{where} has no @id.")
        if identifier in seen:
            problems.append(f"{where}: this @id is used twice.")
        if identifier.startswith(GRANT_PREFIX):
            problems.append(f"{where}: ids that begin with “{GRANT_PREFIX}” belong to grants.")
        if len(identifier) > 120:
            problems.append(f"{where}: an @id has at most 120 characters.")
        seen.add(identifier)
        problems += argument_names.policy_problems(where, body)
        if _reads(body["conditions"], "calls"):
            # Nobody counts for a rule: it would see 0 in every mission whose grants don't limit this tool's calls.
            problems.append(
                f"{where}: context.calls is for grants alone. Limit calls in the mission's grants (max_calls)."
            )
        problems += _effect_problems(where, identifier, body, annotations)
    return problems


def _effect_problems(where: str, identifier: str, body: Mapping[str, Any], annotations: Mapping[str, str]) -> list[str]:
    problems: list[str] = []
    effect = annotations.get("effect")
    liftable = {"kind": "unless", "body": {"contains": {"left": _APPROVED, "right": {"Value": identifier}}}}
    lifts = liftable in body["conditions"]
    asks = effect in ("escalate", "judge")
    if effect is not None and not asks:
        problems.append(f"{where}: @effect is “escalate”, “judge” or left out.")
    if asks and body["effect"] != "forbid":
        problems.append(f"{where}: only a forbid can ask a person or the judge.")
    if asks and not lifts:
        problems.append(f'{where} asks, so it needs: unless {{ context.approved.contains("{identifier}") }}')
    rest = [condition for condition in body["conditions"] if not asks or condition != liftable]
    if _reads(rest, "approved"):
        problems.append(f"{where}: only a forbid that asks reads context.approved, and only its own id.")
    if body["effect"] == "forbid" and not annotations.get("message"):
        problems.append(f"{where}: a forbid needs a @message in plain words.")
    return problems


def _reads(value: Any, attribute: str) -> bool:
    """Whether an expression gets at an attribute of the context, by name or by taking the whole context."""
    if isinstance(value, Mapping):
        if value == {"Var": "context"}:
            return True
        for access in (value.get("."), value.get("has")):
            if isinstance(access, Mapping) and access.get("left") == {"Var": "context"}:
                return bool(access.get("attr") == attribute)
        return any(_reads(item, attribute) for item in value.values())
    return isinstance(value, list) and any(_reads(item, attribute) for item in value)
