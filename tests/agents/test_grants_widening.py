"""Random grants and calls against an oracle: the gate's verdict, and which change of a remit widens."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from agents.choices import ChangeKind
from agents.grant_changes import grant_changes
from agents.grants import Grant, parse_grants, widens
from controlplane.tenancy.models import Organisation
from governance import services as governance
from governance.choices import Verdict

from .grant_verdicts import CREDIT, EVIL, ODD_TEXTS, verdict_of

pytestmark = pytest.mark.django_db
SLOW = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]


@pytest.fixture
def organisation(northwind: Organisation) -> Organisation:
    governance.ensure_baseline()
    return northwind


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
