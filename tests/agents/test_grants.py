"""What grants mean: amounts, paths and names at their edges, and texts that would like to be rules."""

from __future__ import annotations

import unicodedata
import uuid
from typing import Any

import pytest

from agents.grants import Grant, argument_facts, compile_grants, parse_grants
from controlplane.common.canonical import parse_strict
from controlplane.common.errors import RemitError
from controlplane.tenancy.models import Organisation
from governance import services as governance
from governance.choices import Verdict

from .grant_verdicts import CREDIT, EVIL, ODD_TEXTS, verdict_of

pytestmark = pytest.mark.django_db


@pytest.fixture
def organisation(northwind: Organisation) -> Organisation:
    governance.ensure_baseline()
    return northwind


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
