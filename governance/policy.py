"""The policy stage: Cedar on typed facts. Whatever goes wrong in here is a refusal; nothing in here writes."""

from __future__ import annotations

import json
import threading
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import cedarpy
import msgspec

from governance.choices import Verdict
from governance.types import Finding, Grants

ARGUMENTS_ACTION: Final = "tool.call"  # the one action whose `context.args` takes its attributes from the grants
NO_GRANTS: Final = Grants(key="", policies="")
_PERMITTED: Final = Finding(Verdict.ALLOW, "", "Permitted.")
_IF_THE_JUDGE_AGREES: Final = Finding(Verdict.ALLOW, "", "Permitted if the judge agrees.")
# Optional facts of `tool.call` that schemas written before them don't have.
_YOUNGER_FACTS: Final = frozenset({"judge"})
_ENTITIES_KEPT: Final = 256
_ENCODER: Final = msgspec.json.Encoder()
_COMPILED_KEPT: Final = 256
_SLICES_KEPT: Final = 256
_POLICY_REMEDY = ("Ask the owner of the policies; the action's page shows which rule answered.",)


@dataclass(frozen=True)
class Facts:
    """One question to Cedar, JSON-ready. `principal` and `resource` are entities: {"uid", "attrs", "parents"}."""

    action: str
    principal: Mapping[str, Any]
    resource: Mapping[str, Any]
    context: Mapping[str, Any]


@dataclass(frozen=True)
class PolicyAnswer:
    """`fired`: every policy that decided; `escalating`: those an approval would lift; `judging`: those that the judge's
    agreement lifts; `trouble`: for our logs only."""

    finding: Finding
    fired: tuple[str, ...] = ()
    escalating: tuple[str, ...] = ()
    judging: tuple[str, ...] = ()
    trouble: str = ""


@dataclass(frozen=True)
class Rule:
    """What a policy's annotations say about it."""

    id: str
    permits: bool
    escalates: bool
    wants_judge: bool
    code: str
    message: str
    remedy: str


@dataclass(frozen=True)
class Compiled:
    """A bundle and one set of grants, parsed and checked once. Handles are immutable and shared between threads."""

    sources: Mapping[str, Mapping[str, Any]]  # each policy as JSON, by the parser's own policy id
    schema: cedarpy.Schema
    rules: Mapping[str, Rule]  # by the same ids
    argument_types: Mapping[str, str]
    unknown: frozenset[str] = frozenset()  # facts younger than the bundle's schema, which it can't be told
    slices: dict[tuple[str, str, str], cedarpy.PolicySet] = field(default_factory=dict)
    entities: dict[bytes, cedarpy.Entities] = field(default_factory=dict)


class PoliciesInvalid(ValueError):
    """Policies that Cedar can't parse or that don't fit their schema."""


def ask(compiled: Compiled, facts: Facts, *, approved: Collection[str], denial: Finding | None) -> PolicyAnswer:
    """Allow, escalate or deny. `denial` is said when no policy permits; `approved` lifts those escalating policies."""
    try:
        result = _evaluate(compiled, facts, approved)
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise  # only a panic of the engine itself is ours to turn into a refusal
        return _broken(
            "policy.evaluation_failed", "The policies could not be evaluated, so nothing is allowed.", str(error)
        )
    decision, diagnostics = result.decision, result.diagnostics
    if diagnostics.errors:
        return _failed(decision, diagnostics.errors)
    rules = _rules_that_fired(compiled, diagnostics)
    if rules is None or decision is cedarpy.Decision.NoDecision:
        return _broken("policy.no_decision", "The policies gave no decision, so nothing is allowed.", str(decision))
    fired = tuple(rule.id for rule in rules)
    if decision is cedarpy.Decision.Allow:
        return PolicyAnswer(_PERMITTED, fired)
    hard = [rule for rule in rules if not rule.escalates and not rule.wants_judge]
    if hard:
        return PolicyAnswer(_refusal(hard[0]), fired)
    if not rules:
        return PolicyAnswer(denial or _nothing_permits(facts))
    return _escalation(compiled, facts, rules, approved, denial)


def compiled_for(*, sha256: str, policies: str, schema: Mapping[str, Any], grants: Grants | None) -> Compiled:
    """Parse, check against the schema, remember. Raises PoliciesInvalid."""
    wanted = grants or NO_GRANTS
    # The text is part of the key, so that a key someone reuses can never bring back another mission's permissions.
    key = (sha256, wanted.key, wanted.policies)
    known = _COMPILED.get(key)
    if known is not None and known.argument_types == wanted.argument_types:
        return known
    compiled = _compile(policies, schema, wanted)
    with _COMPILED_LOCK:
        while len(_COMPILED) >= _COMPILED_KEPT:
            del _COMPILED[next(iter(_COMPILED))]
        _COMPILED[key] = compiled
    return compiled


def schema_with_arguments(schema: Mapping[str, Any], types: Mapping[str, str]) -> cedarpy.Schema:
    """The bundle's schema with the grants' attributes in `context.args`, all optional. Raises PoliciesInvalid."""
    copied = json.loads(json.dumps(schema))
    try:
        context = copied[""]["actions"][ARGUMENTS_ACTION]["appliesTo"]["context"]
        context["attributes"]["args"]["attributes"].update(
            {name: {"type": kind, "required": False} for name, kind in types.items()}
        )
        return cedarpy.Schema.from_json_str(json.dumps(copied))
    except (KeyError, TypeError, ValueError) as error:
        raise PoliciesInvalid(f"schema: {error}") from error


_COMPILED: Final[dict[tuple[str, str, str], Compiled]] = {}
_COMPILED_LOCK: Final = threading.Lock()


def _compile(bundle: str, bundle_schema: Mapping[str, Any], grants: Grants) -> Compiled:
    policies = f"{bundle}\n{grants.policies}"
    schema = schema_with_arguments(bundle_schema, grants.argument_types)
    sources = _parsed(policies)
    validation = cedarpy.validate_policies(policies, schema)
    if not validation.validation_passed:
        raise PoliciesInvalid("; ".join(str(error) for error in validation.errors))
    rules = {name: _rule(name, body) for name, body in sources.items()}
    return Compiled(sources, schema, rules, dict(grants.argument_types), _unknown(bundle_schema))


def _unknown(schema: Mapping[str, Any]) -> frozenset[str]:
    context = schema[""]["actions"][ARGUMENTS_ACTION]["appliesTo"]["context"]
    return _YOUNGER_FACTS.difference(context["attributes"])


def _parsed(policies: str) -> dict[str, Mapping[str, Any]]:
    try:
        parsed = json.loads(cedarpy.policies_to_json_str(policies))
    except ValueError as error:
        raise PoliciesInvalid(str(error)) from error
    if parsed["templates"]:
        raise PoliciesInvalid("templates are not used here")
    return dict(parsed["staticPolicies"])


def _evaluate(compiled: Compiled, facts: Facts, approved: Collection[str]) -> cedarpy.AuthzResult:
    request = {
        "principal": facts.principal["uid"],
        "action": {"type": "Action", "id": facts.action},
        "resource": facts.resource["uid"],
        "context": {
            **{name: value for name, value in facts.context.items() if name not in compiled.unknown},
            "approved": list(approved),
        },
    }
    return cedarpy.is_authorized(request, _policies(compiled, facts), _entities(compiled, facts), compiled.schema)


def _policies(compiled: Compiled, facts: Facts) -> cedarpy.PolicySet:
    """Only policies whose scope can match: Cedar's time grows with their number, and a mission has one per tool."""
    resource = facts.resource["uid"]
    key = (facts.action, str(resource["type"]), str(resource["id"]))
    found = compiled.slices.get(key)
    if found is None:
        if len(compiled.slices) >= _SLICES_KEPT:
            compiled.slices.clear()
        kept = {name: body for name, body in compiled.sources.items() if _can_match(body, key)}
        text = json.dumps({"staticPolicies": kept, "templates": {}, "templateLinks": []})
        found = compiled.slices[key] = cedarpy.PolicySet.from_json_str(text)
    return found


def _can_match(body: Mapping[str, Any], key: tuple[str, str, str]) -> bool:
    """Leaves out only what names exactly another action or another resource; everything else is Cedar's to judge."""
    action, resource = body["action"], body["resource"]
    if action["op"] == "==" and action.get("entity") != {"type": "Action", "id": key[0]}:
        return False
    return not (resource["op"] == "==" and resource.get("entity") != {"type": key[1], "id": key[2]})


def _entities(compiled: Compiled, facts: Facts) -> cedarpy.Entities:
    """Built with the schema: without it, forbids on groups of actions silently would not fire."""
    text = _ENCODER.encode((facts.principal, facts.resource))
    entities = compiled.entities.get(text)
    if entities is None:
        if len(compiled.entities) >= _ENTITIES_KEPT:
            compiled.entities.clear()
        entities = compiled.entities[text] = cedarpy.Entities.from_json_str(text.decode(), compiled.schema)
    return entities


def _rules_that_fired(compiled: Compiled, diagnostics: cedarpy.Diagnostics) -> list[Rule] | None:
    """None when Cedar names a policy otherwise than we read it: then we don't know what fired."""
    annotated = diagnostics.id_annotations_by_reason
    fired: list[Rule] = []
    for name in diagnostics.reasons:
        rule = compiled.rules.get(name)
        if rule is None or annotated.get(name) != rule.id:
            return None
        fired.append(rule)
    return sorted(fired, key=lambda rule: rule.id) if len(fired) > 1 else fired


def _escalation(
    compiled: Compiled, facts: Facts, rules: list[Rule], approved: Collection[str], denial: Finding | None
) -> PolicyAnswer:
    """People and the judge are asked only what they can grant: with all of it lifted, the action must be permitted."""
    escalating = tuple(rule.id for rule in rules if rule.escalates)
    judging = tuple(rule.id for rule in rules if rule.wants_judge)
    lifted = _evaluate(compiled, facts, {*approved, *escalating, *judging})
    if lifted.diagnostics.errors or lifted.decision is not cedarpy.Decision.Allow:
        remaining = [rule for rule in _rules_that_fired(compiled, lifted.diagnostics) or [] if not rule.permits]
        fired = tuple(rule.id for rule in rules)
        return PolicyAnswer(_refusal(remaining[0]) if remaining else denial or _nothing_permits(facts), fired)
    if not escalating:
        return PolicyAnswer(_IF_THE_JUDGE_AGREES, judging, judging=judging)
    first = next(rule for rule in rules if rule.escalates)
    return PolicyAnswer(
        Finding(
            Verdict.ESCALATE,
            first.code or "policy.approval_needed",
            first.message or "A person has to agree to this.",
            policy=first.id,
        ),
        (*escalating, *judging),
        escalating,
        judging,
    )


def _refusal(rule: Rule) -> Finding:
    message = rule.message or "A rule of this organisation forbids this."
    return Finding(
        Verdict.DENY, rule.code or "policy.forbidden", message, (rule.remedy,) if rule.remedy else _POLICY_REMEDY
    )


def _nothing_permits(facts: Facts) -> Finding:
    if facts.action == ARGUMENTS_ACTION:
        tool = str(facts.resource["uid"]["id"])
        return Finding(
            Verdict.DENY,
            "grant.missing",
            f"This mission has no grant that covers this call of {tool}.",
            ("Use a granted tool within its limits.", "Ask the mission's owner to widen the mission."),
        )
    return Finding(Verdict.DENY, "policy.not_permitted", "No policy permits this.", _POLICY_REMEDY)


def _failed(decision: cedarpy.Decision, errors: Sequence[str]) -> PolicyAnswer:
    """A forbid that can't be evaluated does not fire, so an error anywhere makes every answer worthless."""
    if decision is cedarpy.Decision.NoDecision:
        return _broken(
            "policy.facts_do_not_fit",
            "What is known of this action does not fit the policies' schema, so it is refused.",
            "; ".join(errors),
        )
    return _broken(
        "policy.evaluation_failed",
        "A policy failed while it was evaluated, so nothing is allowed.",
        "; ".join(errors),
    )


def _broken(code: str, message: str, trouble: str) -> PolicyAnswer:
    finding = Finding(Verdict.DENY, code, message, ("Tell an administrator of the organisation.",))
    return PolicyAnswer(finding, trouble=trouble)


def _rule(name: str, body: Mapping[str, Any]) -> Rule:
    annotations = body.get("annotations") or {}
    return Rule(
        id=annotations.get("id") or name,
        permits=body["effect"] == "permit",
        escalates=body["effect"] == "forbid" and annotations.get("effect") == "escalate",
        wants_judge=body["effect"] == "forbid" and annotations.get("effect") == "judge",
        code=annotations.get("code") or "",
        message=annotations.get("message") or "",
        remedy=annotations.get("remedy") or "",
    )
