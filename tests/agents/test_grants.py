"""Grants against an oracle written apart from them: Cedar, through the gate, says what the words of a grant say."""

from __future__ import annotations

import re
import unicodedata
import uuid
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from agents.choices import ChangeKind
from agents.grant_changes import grant_changes
from agents.grants import Grant, argument_facts, compile_grants, parse_grants, widens
from agents.kinds.tool_call import prepare_preview
from agents.models import McpServer, McpTool
from controlplane.common.canonical import digest, parse_strict
from controlplane.common.errors import RemitError
from controlplane.tenancy.models import Organisation
from governance import services as governance
from governance.choices import Verdict

pytestmark = pytest.mark.django_db

CREDIT = "books__apply_credit"
EVIL = '"; permit(principal, action, resource); //'
ODD_TEXTS = [EVIL, "a\nb", "\\", '\\"', "*", "a*", "]]>", "${x}", "{{x}}", "é", "e\u0301", "\u202e", "🦊", "'"]
SLOW = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]


@pytest.fixture
def organisation(northwind: Organisation) -> Organisation:
    governance.ensure_baseline()
    return northwind


def tool_of_any_arguments(name: str) -> McpTool:
    definition = {"name": name, "inputSchema": {"type": "object"}}
    return McpTool(
        server=McpServer(slug="books"), qualified_name=name, definition=definition, definition_sha256=digest(definition)
    )


def verdict_of(organisation: Organisation, grants: Sequence[Grant], tool: str, arguments: Mapping[str, Any]) -> Verdict:
    prepared = prepare_preview(
        team_id=uuid.UUID(int=1),
        team="finance",
        tool=tool,
        arguments=arguments,
        grants=grants,
        definition=tool_of_any_arguments(tool),
    )
    finding = governance.preview(kind="tool.call", prepared=prepared, organisation_id=organisation.pk)
    assert finding.reason_code not in ("policy.invalid", "policy.evaluation_failed", "policy.facts_do_not_fit")
    return finding.verdict


# The oracle -----------------------------------------------------------------------------------------------------------


def number(value: Any) -> Decimal | None:
    """A plain decimal of at most twelve digits before and six after the point, and nothing else."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    text = value if isinstance(value, str) else f"{Decimal(str(value)):f}"
    shape = re.match(r"^-?(\d{1,12})(?:\.(\d{1,6}))?$", text, re.ASCII)
    return Decimal(text) if shape and not text.endswith("\n") else None


def goes_up(text: str) -> bool:
    return any(set(part.strip()) == {"."} and len(part.strip()) > 1 for part in re.split(r"[/\\]", text)) or (
        ".." in text and any(part != part.strip() for part in re.split(r"[/\\]", text))
    )


def holds(operator: str, wanted: Any, value: Any) -> bool:
    if operator == "max_total":  # of the first call, as all of these are
        operator, value = "max", value if (number(value) or 0) >= 0 else None
    if operator in ("min", "max"):
        found, limit = number(value), number(wanted)
        assert limit is not None
        return found is not None and (found >= limit if operator == "min" else found <= limit)
    if operator == "max_length":
        return isinstance(value, str) and len(value) <= wanted
    if operator == "one_of":
        return isinstance(value, str) and value in wanted and not goes_up(value)
    if isinstance(wanted, bool):
        return value is wanted
    if isinstance(wanted, int | float):
        found = number(value)
        return found is not None and found == number(wanted)
    if not isinstance(value, str) or goes_up(value):
        return False
    if operator == "equals":
        return value == wanted
    if operator == "starts_with":
        return value[: len(wanted)] == wanted
    return matches(wanted, value)


def matches(pattern: str, text: str) -> bool:
    """`*` stands for anything: by trying every place, without regular expressions."""
    if not pattern:
        return not text
    if pattern[0] == "*":
        return any(matches(pattern[1:], text[start:]) for start in range(len(text) + 1))
    return bool(text) and text[0] == pattern[0] and matches(pattern[1:], text[1:])


def covers(grant: Grant, tool: str, arguments: Mapping[str, Any]) -> bool:
    if grant.tool != tool:
        return False
    for name, rules in grant.constraints.items():
        if name not in arguments or not all(holds(key, wanted, arguments[name]) for key, wanted in rules.items()):
            return False
        ceiling = number(rules["max"]) if "max" in rules else None
        if ceiling is not None and ceiling >= 0 and "min" not in rules and (number(arguments[name]) or 0) < 0:
            return False  # at most something is not less than nothing
    return True


def expected(grants: Sequence[Grant], tool: str, arguments: Mapping[str, Any]) -> Verdict:
    matching = {grant.effect for grant in grants if covers(grant, tool, arguments)}
    return Verdict.ALLOW if "allow" in matching else Verdict.ESCALATE if "escalate" in matching else Verdict.DENY


# Random grants and calls ----------------------------------------------------------------------------------------------

TOOLS = st.sampled_from([CREDIT, "books__overdue", "sqlite__read-query"])
NAMES = st.sampled_from(["amount", "path", "flag", "a#text", "x/y", 'q"uote', "naïve", "with space", "args"])
NUMBERS = st.sampled_from(["0", "0.01", "5", "5.0", "99.999999", "100", "100.000001", "-5", "-100", "999999999999"])
TEXTS = st.sampled_from(
    ["", "a", "ab", "tickets/", "tickets/1", "tickets/../x", "..", "INV-1", "true", "5", *ODD_TEXTS]
)
SHORT = TEXTS.filter(bool)
RULES = st.one_of(
    st.fixed_dictionaries({"max": NUMBERS | st.integers(-3, 200)}, optional={"min": NUMBERS}),
    st.fixed_dictionaries({"min": NUMBERS}),
    st.fixed_dictionaries({"max_total": st.sampled_from(["0.01", "5", 99.5, 100])}, optional={"max": NUMBERS}),
    st.fixed_dictionaries({"equals": TEXTS | st.booleans() | st.integers(-2, 6) | st.sampled_from([0.5, 5.0])}),
    st.fixed_dictionaries({"one_of": st.lists(SHORT, min_size=1, max_size=4)}),
    st.fixed_dictionaries({"starts_with": SHORT}, optional={"max_length": st.integers(0, 12)}),
    st.fixed_dictionaries({"like": SHORT | st.sampled_from(["INV-*", "*", "*/1", "a*b*", "**"])}),
    st.fixed_dictionaries({"max_length": st.integers(0, 12)}),
)
GRANTS = st.builds(
    Grant,
    tool=TOOLS,
    effect=st.sampled_from(["allow", "escalate"]),
    constraints=st.dictionaries(NAMES, RULES, max_size=2),
    max_calls=st.none() | st.integers(1, 3),
    sentence=st.sampled_from(["", "Apply a small credit", EVIL]),
)
VALUES = st.one_of(
    NUMBERS,
    TEXTS,
    st.booleans(),
    st.none(),
    st.integers(-3, 200),
    st.sampled_from(
        [0.5, 5.0, 99.9999999, 1e15, "1e3", "1Ki", "٥", " 5", "5 ", "+5", "5\n", "0x5", "5,00", [], {}, ["a"]]
    ),
)
CALLS = st.tuples(TOOLS, st.dictionaries(NAMES, VALUES, max_size=3))


@settings(max_examples=300, deadline=None, suppress_health_check=SLOW)
@given(grants=st.lists(GRANTS, max_size=4), calls=st.lists(CALLS, min_size=1, max_size=6))
def test_verdict_of_the_gate_is_what_the_grants_say(
    grants: list[Grant], calls: list[tuple[str, dict[str, Any]]], organisation: Organisation
) -> None:
    grants = parse_grants([grant.as_dict() for grant in grants])
    for tool, arguments in calls:
        assert verdict_of(organisation, grants, tool, arguments) is expected(grants, tool, arguments), arguments


@settings(max_examples=200, deadline=None, suppress_health_check=SLOW)
@given(grant=GRANTS, data=st.data())
def test_call_made_to_fit_a_grant_gets_its_effect(
    grant: Grant, data: st.DataObject, organisation: Organisation
) -> None:
    def fitting(rules: Mapping[str, Any]) -> Any:
        for operator in ("equals", "starts_with", "max", "min"):
            if operator in rules:
                return rules[operator]
        return data.draw(st.sampled_from(rules["one_of"])) if "one_of" in rules else rules.get("like", "")

    arguments = {name: fitting(rules) for name, rules in grant.constraints.items()}
    assume(covers(grant, grant.tool, arguments))
    effect = Verdict.ALLOW if grant.effect == "allow" else Verdict.ESCALATE
    assert verdict_of(organisation, [grant], grant.tool, arguments) is effect


ORDER = {Verdict.DENY: 0, Verdict.ESCALATE: 1, Verdict.ALLOW: 2}


@settings(max_examples=1500, deadline=None, suppress_health_check=SLOW)
@given(
    old=st.lists(GRANTS, max_size=3),
    changed=st.lists(GRANTS, max_size=2),
    kept=st.lists(st.booleans(), min_size=3, max_size=3),
    calls=st.lists(CALLS, min_size=1, max_size=12),
)
@example(
    old=[Grant(CREDIT, constraints={"flag": {"equals": 1}})],
    changed=[Grant(CREDIT, constraints={"flag": {"equals": True}})],
    kept=[False] * 3,
    calls=[(CREDIT, {"flag": True})],
)
@example(
    old=[Grant(CREDIT, constraints={"amount": {"max": "5"}})],
    changed=[Grant(CREDIT, constraints={"amount": {"max": "5", "min": "-5"}})],
    kept=[False] * 3,
    calls=[(CREDIT, {"amount": "-5"})],
)
def test_what_does_not_widen_allows_nothing_new(
    old: list[Grant], changed: list[Grant], kept: list[bool], calls: list[tuple[str, dict[str, Any]]]
) -> None:
    new = [grant for grant, keep in zip(old, kept, strict=False) if keep] + changed
    said = grant_changes(old, new)
    assert any(change.kind is ChangeKind.WIDENS for change in said) == widens(old=old, new=new)
    assert all(change.text.strip() for change in said)
    if widens(old=old, new=new):
        return
    for tool, arguments in calls:
        assert ORDER[expected(new, tool, arguments)] <= ORDER[expected(old, tool, arguments)]
    for before in old:
        for after in new:
            assert after.max_calls is not None or any(
                grant.max_calls is None for grant in old if grant.tool == after.tool
            ), before


TIGHTER = [
    ({"max": "100"}, {"max": "99.5"}),
    ({"max": "100"}, {"max": "100", "min": "1"}),
    ({"min": "1"}, {"min": "1.5", "max": "3"}),
    ({"one_of": ["a", "b"]}, {"one_of": ["b"]}),
    ({"one_of": ["a", "b"]}, {"equals": "a"}),
    ({"starts_with": "tickets/"}, {"starts_with": "tickets/open/"}),
    ({"max_length": 200}, {"max_length": 20}),
    ({"like": "INV-*"}, {"like": "INV-*", "max_length": 8}),
    ({"max": "5"}, {"max": "5", "min": "0"}),
]


@pytest.mark.parametrize(("old", "new"), TIGHTER)
def test_tighter_rules_do_not_widen_and_the_way_back_does(old: dict[str, Any], new: dict[str, Any]) -> None:
    before, after = Grant(CREDIT, constraints={"a": old}), Grant(CREDIT, constraints={"a": new})
    assert not widens(old=[before], new=[after])
    if new != {"max": "5", "min": "0"}:
        assert widens(old=[after], new=[before])


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ([], [Grant(CREDIT)]),
        ([Grant(CREDIT, effect="escalate")], [Grant(CREDIT)]),
        ([Grant(CREDIT, max_calls=3)], [Grant(CREDIT, max_calls=4)]),
        (
            [Grant(CREDIT, constraints={"amount": {"max_total": "500"}})],
            [Grant(CREDIT, constraints={"amount": {"max_total": "501"}})],
        ),
        (
            [Grant(CREDIT, constraints={"amount": {"max": "5", "max_total": "500"}})],
            [Grant(CREDIT, constraints={"amount": {"max": "5"}})],
        ),
        ([Grant(CREDIT, max_calls=3)], [Grant(CREDIT)]),
        ([Grant(CREDIT, constraints={"a": {"max": "5"}})], [Grant(CREDIT)]),
        ([Grant(CREDIT, constraints={"a": {"max": "5"}})], [Grant(CREDIT, constraints={"b": {"max": "5"}})]),
        ([Grant("books__overdue")], [Grant(CREDIT)]),
    ],
)
def test_more_of_anything_widens(old: list[Grant], new: list[Grant]) -> None:
    assert widens(old=old, new=new)


# Meaning --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "amount",
    [
        "1e2",
        "1E2",
        "0x10",
        "1Ki",
        "1k",
        "10,00",
        "10.00 USD",
        "USD 10",
        " 10",
        "10 ",
        "10\n",
        "+10",
        "１０",
        "٣",
        "10.0000001",
        "1_0",
        "",
        "NaN",
        "Infinity",
        "-0.01",
        "-1000000",
        -5,
        100.000001,
        "100.000001",
        10**13,
        1e300,
        True,
        None,
        ["10"],
        {"value": "10"},
        "{{amount}}",
        "${AMOUNT}",
        "10;100000",
        "10\u200b",
        "1\u00a00",
    ],
)
def test_amount_that_is_not_plainly_within_its_limit_is_refused(amount: Any, organisation: Organisation) -> None:
    grants = [Grant(CREDIT, constraints={"amount": {"max": "100.00"}})]
    assert verdict_of(organisation, grants, CREDIT, {"amount": amount}) is Verdict.DENY


@pytest.mark.parametrize("amount", ["0", "0.01", "100", "100.000000", "099.99", 100, 99.99, 0])
def test_amount_plainly_within_its_limit_is_allowed(amount: Any, organisation: Organisation) -> None:
    grants = [Grant(CREDIT, constraints={"amount": {"max": "100.00"}})]
    assert verdict_of(organisation, grants, CREDIT, {"amount": amount}) is Verdict.ALLOW


def test_exponent_in_a_json_number_is_just_that_number(organisation: Organisation) -> None:
    grants = [Grant(CREDIT, constraints={"amount": {"max": "100.00"}})]
    assert verdict_of(organisation, grants, CREDIT, parse_strict(b'{"amount": 1e2}')) is Verdict.ALLOW
    assert verdict_of(organisation, grants, CREDIT, parse_strict(b'{"amount": 1e3}')) is Verdict.DENY


def test_negative_amounts_are_allowed_only_where_a_grant_says_so(organisation: Organisation) -> None:
    plain = [Grant(CREDIT, constraints={"amount": {"max": "100"}})]
    signed = [Grant(CREDIT, constraints={"amount": {"max": "100", "min": "-20"}})]
    debts = [Grant(CREDIT, constraints={"amount": {"max": "-1"}})]
    assert verdict_of(organisation, plain, CREDIT, {"amount": "-20"}) is Verdict.DENY
    assert verdict_of(organisation, signed, CREDIT, {"amount": "-20"}) is Verdict.ALLOW
    assert verdict_of(organisation, signed, CREDIT, {"amount": "-20.000001"}) is Verdict.DENY
    assert verdict_of(organisation, debts, CREDIT, {"amount": "-5"}) is Verdict.ALLOW


@pytest.mark.parametrize(
    "path",
    [
        "../etc/passwd",
        "tickets/../secret",
        "tickets/..",
        "tickets/a/../../b",
        "tickets\\..\\b",
        "tickets/.. /b",
        "tickets/ ../b",
        "tickets/.../b",
        "tickets/..../b",
        "tickets/%2e%2e/b",
        "tickets/%2E%2e%2fb",
        "tickets/%252e%252e/b",
        "tickets/%25252525252e/",
        "/tickets/1",
        "Tickets/1",
        "tiсkets/1",
        "ｔickets/1",
        "tickets",
        "t\u200bickets/1",
        " tickets/1",
        "",
        "./tickets/1",
        "tickets\u2215../x",
        5,
        None,
        ["tickets/1"],
    ],
)
def test_path_that_may_leave_its_folder_is_refused(path: Any, organisation: Organisation) -> None:
    grants = [Grant(CREDIT, constraints={"path": {"starts_with": "tickets/"}})]
    assert verdict_of(organisation, grants, CREDIT, {"path": path}) is Verdict.DENY


@pytest.mark.parametrize(
    "path", ["tickets/1", "tickets/a b", "tickets/v1..v2.txt", "tickets/100%", "tickets/é", "tickets/"]
)
def test_path_inside_its_folder_is_allowed(path: str, organisation: Organisation) -> None:
    grants = [Grant(CREDIT, constraints={"path": {"starts_with": "tickets/"}})]
    assert verdict_of(organisation, grants, CREDIT, {"path": path}) is Verdict.ALLOW


@pytest.mark.parametrize(
    "value", ["report.", "report ", " report", "Report", "report\u200b", "rерort", "report\x00", "ｒeport"]
)
def test_name_that_only_looks_the_same_is_another(value: str, organisation: Organisation) -> None:
    for rule in ({"equals": "report"}, {"one_of": ["report", "letter"]}, {"like": "report"}):
        grants = [Grant(CREDIT, constraints={"name": rule})]
        assert verdict_of(organisation, grants, CREDIT, {"name": value}) is Verdict.DENY
        assert verdict_of(organisation, grants, CREDIT, {"name": "report"}) is Verdict.ALLOW


def test_composed_and_decomposed_letters_are_two_values(organisation: Organisation) -> None:
    composed, decomposed = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    grants = [Grant(CREDIT, constraints={"name": {"equals": composed}})]
    assert verdict_of(organisation, grants, CREDIT, {"name": composed}) is Verdict.ALLOW
    assert verdict_of(organisation, grants, CREDIT, {"name": decomposed}) is Verdict.DENY


@pytest.mark.parametrize("missing", [{}, {"Amount": "5"}, {"amount ": "5"}, {"nested": {"amount": "5"}}])
def test_constrained_argument_has_to_be_there(missing: dict[str, Any], organisation: Organisation) -> None:
    grants = [Grant(CREDIT, constraints={"amount": {"max": "100"}})]
    assert verdict_of(organisation, grants, CREDIT, missing) is Verdict.DENY


def test_flags_numbers_and_texts_are_not_taken_for_each_other(organisation: Organisation) -> None:
    for wanted, fits, others in (
        (True, [True], [1, "true", "1", False]),
        (1, [1, "1", "1.0"], [True, "one"]),
        ("true", ["true"], [True, "True"]),
        (0, [0, "0"], [False, "", None]),
    ):
        grants = [Grant(CREDIT, constraints={"x": {"equals": wanted}})]
        for value in fits:
            assert verdict_of(organisation, grants, CREDIT, {"x": value}) is Verdict.ALLOW, (wanted, value)
        for value in others:
            assert verdict_of(organisation, grants, CREDIT, {"x": value}) is Verdict.DENY, (wanted, value)


def test_facts_hold_only_what_grants_of_this_tool_look_at() -> None:
    grants = [
        Grant(CREDIT, constraints={"amount": {"max": "5"}}),
        Grant("books__overdue", constraints={"note": {"max_length": 3}}),
    ]
    facts = argument_facts(tool=CREDIT, arguments={"amount": "2.50", "note": "secret", "other": 1}, grants=grants)
    assert facts == {f"{CREDIT}/amount#micros": 2_500_000}


# Injection ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", [EVIL, *ODD_TEXTS, "\n};\npermit(principal, action, resource);\n//", "\\u{22}; permit"]
)
def test_text_in_a_grant_stays_text(text: str, organisation: Organisation) -> None:
    places = [
        Grant(CREDIT, constraints={"x": {"equals": text}}, sentence=text),
        Grant(CREDIT, constraints={"x": {"one_of": [text]}}, effect="escalate", sentence=text),
        Grant(CREDIT, constraints={"x": {"starts_with": text}}),
        Grant(CREDIT, constraints={text: {"equals": "nothing else"}}),
    ]
    for grant in parse_grants([grant.as_dict() for grant in places]):
        assert verdict_of(organisation, [grant], CREDIT, {"x": "harmless"}) is Verdict.DENY
        assert verdict_of(organisation, [grant], "shell__run", {"x": text}) is Verdict.DENY
        compiled = compile_grants(version_id=uuid.uuid4(), grants=[grant])
        assert compiled.policies.count("\npermit (") == 1
    effects = [verdict_of(organisation, [grant], CREDIT, {"x": text}) for grant in places[:3]]
    assert effects == [Verdict.ALLOW, Verdict.ESCALATE, Verdict.ALLOW]


@pytest.mark.parametrize(
    "grant",
    [
        {"tool": f'{CREDIT}"; permit'},
        {"tool": "books__apply credit"},
        {"tool": "bооks__apply_credit"},
        {"tool": f"{CREDIT}\n"},
        {"tool": CREDIT, "effect": "permit"},
        {"tool": CREDIT, "effect": ["allow"]},
        {"tool": CREDIT, "max_calls": 0},
        {"tool": CREDIT, "constraints": {"amount": {"max_total": "0"}}},
        {"tool": CREDIT, "constraints": {"amount": {"max_total": "-5"}}},
        {"tool": CREDIT, "constraints": {"amount": {"max_total": "1e3"}}},
        {"tool": CREDIT, "constraints": {"amount": {"max_total": True}}},
        {"tool": CREDIT, "max_calls": True},
        {"tool": CREDIT, "max_calls": "1; permit"},
        {"tool": CREDIT, "extra": 1},
        {"tool": CREDIT, "constraints": []},
        {"tool": CREDIT, "constraints": {"a": {}}},
        {"tool": CREDIT, "constraints": {"": {"max": "1"}}},
        {"tool": CREDIT, "constraints": {"a" * 121: {"max": "1"}}},
        {"tool": CREDIT, "constraints": {"a\x00": {"max": "1"}}},
        {"tool": CREDIT, "constraints": {"\ud800": {"max": "1"}}},
        {"tool": CREDIT, "constraints": {"a": {"matches": ".*"}}},
        {"tool": CREDIT, "constraints": {"a": {"max": "1e3"}}},
        {"tool": CREDIT, "constraints": {"a": {"max": "1.0000001"}}},
        {"tool": CREDIT, "constraints": {"a": {"max": "9" * 13}}},
        {"tool": CREDIT, "constraints": {"a": {"max": None}}},
        {"tool": CREDIT, "constraints": {"a": {"max_length": 10**30}}},
        {"tool": CREDIT, "constraints": {"a": {"max_length": True}}},
        {"tool": CREDIT, "constraints": {"a": {"equals": None}}},
        {"tool": CREDIT, "constraints": {"a": {"equals": ["x"]}}},
        {"tool": CREDIT, "constraints": {"a": {"equals": "\x00"}}},
        {"tool": CREDIT, "constraints": {"a": {"equals": "\ud800"}}},
        {"tool": CREDIT, "constraints": {"a": {"equals": 1e-9}}},
        {"tool": CREDIT, "constraints": {"a": {"one_of": []}}},
        {"tool": CREDIT, "constraints": {"a": {"one_of": ["x", 1]}}},
        {"tool": CREDIT, "constraints": {"a": {"starts_with": ""}}},
        {"tool": CREDIT, "constraints": {"a": {"like": "x" * 401}}},
        "books__apply_credit",
    ],
)
def test_grant_that_means_nothing_clear_is_refused_with_its_place(grant: Any) -> None:
    with pytest.raises(RemitError) as refused:
        parse_grants([{"tool": "books__overdue"}, grant])
    assert refused.value.code == "grants.invalid"
    assert all(error.pointer.startswith("/grants/1") for error in refused.value.errors)
    assert refused.value.errors


def test_two_hundred_grants_each_count_for_their_own_tool(organisation: Organisation) -> None:
    grants = [Grant(f"books__tool_{n}", constraints={"amount": {"max": str(n)}}) for n in range(200)]
    parse_grants([grant.as_dict() for grant in grants])
    for n in (0, 1, 99, 199):
        assert verdict_of(organisation, grants, f"books__tool_{n}", {"amount": str(n)}) is Verdict.ALLOW
        assert verdict_of(organisation, grants, f"books__tool_{n}", {"amount": str(n + 1)}) is Verdict.DENY
    with pytest.raises(RemitError):
        parse_grants([grant.as_dict() for grant in [*grants, Grant(CREDIT)]])


def test_two_hundred_grants_of_one_tool_are_two_hundred_ways_in(organisation: Organisation) -> None:
    grants = [Grant(CREDIT, constraints={"invoice": {"equals": f"INV-{n}"}}) for n in range(199)]
    grants.append(Grant(CREDIT, effect="escalate"))
    assert verdict_of(organisation, grants, CREDIT, {"invoice": "INV-198"}) is Verdict.ALLOW
    assert verdict_of(organisation, grants, CREDIT, {"invoice": "INV-199"}) is Verdict.ESCALATE
