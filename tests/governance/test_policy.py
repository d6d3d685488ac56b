"""Cedar can be asked in ways that let everything through. Each is a refusal here; so is whatever else goes wrong."""

from __future__ import annotations

import json
from typing import Any

import cedarpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from governance import policy
from governance.bundles import baseline_source, bundle_sha256
from governance.choices import Verdict
from governance.types import Grants

from .scene import AMOUNT, GRANT_POLICIES, GRANTS, TOOL

SOURCE = baseline_source()
AGENT = {"uid": {"type": "Agent", "id": "a"}, "attrs": {"team": "t", "runtime": "managed"}, "parents": []}


def tool(name: str = TOOL, *, approved: Any = True) -> dict[str, Any]:
    attributes = {"server": "books", "read_only": False, "reversible": True, "approved": approved}
    return {"uid": {"type": "Tool", "id": name}, "attrs": attributes, "parents": []}


def context(**changes: Any) -> dict[str, Any]:
    return {"args": {AMOUNT: 10}, "calls": 0, "importance": "normal", "mission_active": True, **changes}


def facts(**changes: Any) -> policy.Facts:
    values = {"action": "tool.call", "principal": AGENT, "resource": tool(), "context": context()}
    return policy.Facts(**{**values, **changes})


def compiled(grants: Grants | None = GRANTS, *, more: str = "", schema: Any = None) -> policy.Compiled:
    text = SOURCE.policies + more
    return policy.compiled_for(
        sha256=f"{bundle_sha256(SOURCE)}{hash((text, json.dumps(schema)))}",
        policies=text,
        schema=schema or SOURCE.schema,
        grants=grants,
    )


def ask(asked: policy.Facts, *, approved: tuple[str, ...] = (), **made: Any) -> policy.PolicyAnswer:
    return policy.ask(compiled(**made), asked, approved=approved, denial=None)


def test_the_facts_used_below_are_allowed_as_they_are() -> None:
    assert ask(facts()).finding.verdict is Verdict.ALLOW


# The four ways in which Cedar by itself lets through what it should not ----------------------------------------------


def test_a_forbid_on_a_group_of_actions_fires() -> None:
    """Entities built without the schema know no groups: the forbid is skipped and the request allowed."""
    schema = json.loads(json.dumps(SOURCE.schema))
    schema[""]["actions"]["risky"] = {}
    schema[""]["actions"]["tool.call"]["memberOf"] = [{"id": "risky"}]
    forbid = '@id("no-risk")\n@message("No.")\nforbid (principal, action in Action::"risky", resource);'
    text = f"{SOURCE.policies}\n{GRANT_POLICIES}\n{forbid}"

    careless = cedarpy.is_authorized(
        {
            "principal": AGENT["uid"],
            "action": {"type": "Action", "id": "tool.call"},
            "resource": tool()["uid"],
            "context": {**context(), "approved": []},
        },
        cedarpy.PolicySet.from_str(text),
        cedarpy.Entities.from_json_str(json.dumps([AGENT, tool()])),
        policy.schema_with_arguments(schema, GRANTS.argument_types),
    )
    assert careless.allowed

    answer = ask(facts(), more=forbid, schema=schema)
    assert (answer.finding.verdict, answer.fired) == (Verdict.DENY, ("no-risk",))


def test_a_forbid_that_can_not_be_evaluated_refuses() -> None:
    """Cedar skips a policy that overflows and allows the rest."""
    forbid = """@id("large")
@message("Too large.")
forbid (principal, action == Action::"tool.call", resource) when { context.calls * 9223372036854775807 > 5 };"""
    answer = ask(facts(context=context(calls=2)), more=forbid)
    assert (answer.finding.verdict, answer.finding.reason_code) == (Verdict.DENY, "policy.evaluation_failed")
    assert "overflow" in answer.trouble
    assert "overflow" not in answer.finding.message


@pytest.mark.parametrize("name", ["tool.c\u0430ll", "tool.call\u200b", "TOOL.CALL", "tool.call ", "", 'x"); permit'])
def test_an_action_that_only_looks_like_one_refuses(name: str) -> None:
    """Without a schema an unknown action matches every policy that does not name its action."""
    anything = '@id("anything")\npermit (principal, action, resource);'
    assert ask(facts(action=name), more=anything).finding.verdict is Verdict.DENY


@pytest.mark.parametrize(
    "value", ["10", [10], {"x": 10}, 10.5, None, 2**70, True, {"__entity": {"type": "Tool", "id": "x"}}]
)
def test_a_value_of_another_type_refuses(value: Any) -> None:
    """Without a schema a comparison with the wrong type is an error, and the forbid that made it is skipped."""
    answer = ask(facts(context=context(args={AMOUNT: value})))
    assert (answer.finding.verdict, answer.finding.reason_code) == (Verdict.DENY, "policy.facts_do_not_fit")


# Everything else that can be wrong ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "asked",
    [
        facts(context={}),
        facts(context=context(more="than the schema knows")),
        facts(context=context(args={"unknown": 1})),
        facts(principal={"uid": {"type": "Robot", "id": "a"}, "attrs": {}, "parents": []}),
        facts(principal={"uid": {"type": "Agent", "id": "a"}, "attrs": {}, "parents": []}),
        facts(principal={}),
        facts(resource=tool(approved="yes")),
        facts(
            resource={"uid": {"type": "Mission", "id": "m"}, "attrs": {"importance": "a", "state": "b"}, "parents": []}
        ),
    ],
)
def test_facts_that_do_not_fit_the_schema_refuse(asked: policy.Facts) -> None:
    answer = ask(asked)
    assert answer.finding.verdict is Verdict.DENY
    assert answer.trouble


def test_very_deep_facts_refuse_instead_of_crashing() -> None:
    deep: Any = 1
    for _ in range(900):
        deep = {"x": deep}
    assert ask(facts(context=context(args={AMOUNT: deep}))).finding.verdict is Verdict.DENY


@pytest.mark.parametrize(
    ("more", "types"),
    [
        ("permit (principal, action, resource) when { context.nonsense };", {}),
        ("permit (principal, action, resource", {}),
        ("", {"x": "Decimal(nonsense)"}),
        ("permit (principal == ?principal, action, resource);", {}),
    ],
)
def test_grants_that_are_not_valid_policies_are_not_compiled(more: str, types: dict[str, str]) -> None:
    with pytest.raises(policy.PoliciesInvalid):
        compiled(Grants(key="broken", policies=more, argument_types=types))


def test_a_key_used_again_does_not_bring_back_other_grants() -> None:
    compiled(GRANTS)
    answer = ask(facts(context=context(args={})), grants=Grants(key=GRANTS.key, policies=""))
    assert (answer.finding.verdict, answer.finding.reason_code) == (Verdict.DENY, "grant.missing")


def test_an_approval_lifts_its_own_policy_only() -> None:
    asked = facts(context=context(args={AMOUNT: 60}))
    assert ask(asked).escalating == ("grant/0/ask",)
    assert ask(asked, approved=("grant/0/ask",)).finding.verdict is Verdict.ALLOW
    assert ask(asked, approved=("grant/1/ask", "tool-not-approved")).finding.verdict is Verdict.ESCALATE
    hard = facts(context=context(args={AMOUNT: 60}), resource=tool(approved=False))
    assert ask(hard, approved=("grant/0/ask", "tool-not-approved")).finding.verdict is Verdict.DENY


def test_messages_tell_agents_nothing_of_the_policy_text() -> None:
    for asked in (facts(context=context(args={AMOUNT: 101})), facts(resource=tool(approved=False)), facts(context={})):
        finding = ask(asked).finding
        said = " ".join([finding.message, *finding.remedies])
        assert "context." not in said
        assert "permit (" not in said


names = st.sampled_from([TOOL, "books__a", "books__b", "books__c"])


@settings(max_examples=60, deadline=None)
@given(
    grants=st.lists(st.tuples(names, st.integers(0, 120), st.booleans()), max_size=12),
    called=names,
    amount=st.integers(-10, 130),
    approved=st.booleans(),
    lifted=st.sets(st.integers(0, 12)),
)
def test_leaving_out_policies_of_other_tools_changes_no_answer(
    grants: list[tuple[str, int, bool]], called: str, amount: int, approved: bool, lifted: set[int]
) -> None:
    """The gate asks only policies that can match; bare Cedar asked all of them must say the same."""
    lines = []
    for number, (name, limit, asks) in enumerate(grants):
        head = f'principal, action == Action::"tool.call", resource == Tool::"{name}"'
        fits = f'context.args has "{AMOUNT}" && context.args["{AMOUNT}"] <= {limit}'
        lines.append(f'@id("grant/{number}") permit ({head}) when {{ {fits} }};')
        if asks:
            lines.append(
                f'@id("grant/{number}/ask") @effect("escalate") @message("Ask.") forbid ({head})'
                f' unless {{ context.approved.contains("grant/{number}/ask") }};'
            )
    own = Grants(key="property", policies="\n".join(lines), argument_types={AMOUNT: "Long"})
    asked = facts(resource=tool(called, approved=approved), context=context(args={AMOUNT: amount}))
    ids = tuple(f"grant/{number}/ask" for number in lifted)
    sliced = ask(asked, grants=own, approved=ids)
    whole = cedarpy.is_authorized(
        {
            "principal": asked.principal["uid"],
            "action": {"type": "Action", "id": "tool.call"},
            "resource": asked.resource["uid"],
            "context": {**asked.context, "approved": list(ids)},
        },
        f"{SOURCE.policies}\n{own.policies}",
        [asked.principal, asked.resource],
        policy.schema_with_arguments(SOURCE.schema, own.argument_types),
    )
    assert (sliced.finding.verdict is Verdict.ALLOW) == whole.allowed
    assert set(sliced.fired) == set(whole.diagnostics.id_annotations_by_reason.values())
