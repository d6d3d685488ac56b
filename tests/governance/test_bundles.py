"""Bundles: what they have to pass, who may load and promote them, and that the shipped one keeps its golden cases."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from agents.grants import Grant, argument_facts, compile_grants
from controlplane.audit.models import Entry
from controlplane.common.errors import RemitError
from controlplane.tenancy import members
from controlplane.tenancy.models import User
from controlplane.tenancy.types import Principal, Role
from governance import services
from governance.bundles import BundleSource, active_bundle, baseline_source, check_bundle, forget, run_golden_cases
from governance.bundles.lifecycle import BASELINE
from governance.choices import BundleState
from governance.models import PolicyBundle

SOURCE = baseline_source()


def with_policy(text: str) -> BundleSource:
    return BundleSource(f"{SOURCE.policies}\n{text}", SOURCE.schema, SOURCE.golden_cases)


def test_the_baseline_passes_its_own_checks() -> None:
    assert check_bundle(SOURCE) == []


@pytest.mark.parametrize("result", run_golden_cases(SOURCE), ids=lambda result: result.name)
def test_golden_case(result: Any) -> None:
    assert result.passed, f"{result.name}: {result.verdict} by {result.policies}"


TOOL, OTHER = "books__apply_credit", "books__refund"
MICROS = f"{TOOL}/amount#micros"


def limit(name: str, resource: str = "resource") -> str:
    return (
        f'@id("x")\n@message("m")\nforbid (principal, action == Action::"tool.call", {resource})'
        f' when {{ context.args has "{name}" && context.args["{name}"] > 5000000000 }};'
    )


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("permit (principal, action, resource", "unexpected"),
        ('@id("x")\npermit (principal, action, resource) when { context.nonsense == 1 };', "nonsense"),
        ("permit (principal, action, resource);", "has no @id"),
        ('@id("topup-asks")\npermit (principal, action, resource);', "used twice"),
        ('@id("grant/9")\npermit (principal, action, resource);', "belong to grants"),
        ('@id("x")\nforbid (principal, action, resource);', "needs a @message"),
        ('@id("x")\n@effect("maybe")\n@message("m")\nforbid (principal, action, resource);', "left out"),
        ('@id("x")\n@effect("escalate")\npermit (principal, action, resource);', "only a forbid"),
        ('@id("x")\n@effect("escalate")\n@message("m")\nforbid (principal, action, resource);', "so it needs"),
        (
            (
                '@id("x")\n@effect("escalate")\n@message("m")\nforbid (principal, action, resource)'
                ' unless { context.approved.contains("topup-asks") };'
            ),
            "so it needs",
        ),
        (
            '@id("x")\n@message("m")\nforbid (principal, action, resource) unless { context.approved.contains("x") };',
            "only a forbid that asks",
        ),
        (
            '@id("x")\npermit (principal, action, resource) when { context.approved.contains("topup-asks") };',
            "only a forbid that asks",
        ),
        (
            (
                '@id("x")\n@effect("escalate")\n@message("m")\nforbid (principal, action, resource)'
                ' unless { context.approved.contains("x") } unless { context.approved.contains("y") };'
            ),
            "only a forbid that asks",
        ),
        ("permit (principal == ?principal, action, resource);", "emplate"),
        (
            (
                '@id("x")\n@message("m")\nforbid (principal, action == Action::"tool.call", resource)'
                " when { context.calls >= 20 };"
            ),
            "Limit calls in the mission's grants",
        ),
        (
            (
                '@id("x")\n@message("m")\nforbid (principal, action == Action::"tool.call", resource)'
                ' when { context.importance == "low" && context["calls"] + 1 > 20 };'
            ),
            "Limit calls in the mission's grants",
        ),
        (limit("amount"), "no call has an argument “amount”. Write tool/argument#kind"),
        (limit("apply_credit/amount#micros"), "no call has an argument"),
        (limit("books__apply_credit/amount"), "no call has an argument"),
        (limit("books__apply_credit/amount#money"), "kinds are micros, total, length, text, flag"),
        (limit(f"{OTHER}/amount#micros", f'resource == Tool::"{TOOL}"'), "no argument of another tool"),
        (limit(f"{TOOL}/amount#text"), "expected Long but saw String"),
        ('@id("open")\npermit (principal, action == Action::"tool.call", resource);', "Golden case"),
    ],
)
def test_a_bundle_that_is_wrong_is_told_why(text: str, complaint: str) -> None:
    problems = check_bundle(with_policy(text))
    assert any(complaint in problem for problem in problems), problems


@pytest.mark.parametrize("scope", ["resource", f'resource == Tool::"{TOOL}"', "resource is Tool"])
def test_a_rule_on_an_argument_as_calls_have_it_passes(scope: str) -> None:
    assert check_bundle(with_policy(limit(MICROS, scope))) == []


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        (
            MICROS,
            "amount",
            "Golden case “a granted call within its limit is allowed”: no call has an argument “amount”",
        ),
        (MICROS, f"{OTHER}/amount#micros", f"a call of {TOOL} has no argument of another tool"),
        ('"Long"', '"String"', f"“{MICROS}” is a Long in every call, not a String."),
        ("permit (principal", "permit principal", "Golden case “a granted call within its limit is allowed”: "),
    ],
)
def test_a_golden_case_that_no_call_could_be_is_told_why(old: str, new: str, complaint: str) -> None:
    cases = json.loads(json.dumps(SOURCE.golden_cases).replace(old, new))
    problems = check_bundle(BundleSource(SOURCE.policies, SOURCE.schema, cases))
    assert any(complaint in problem for problem in problems), problems


def test_the_golden_cases_name_arguments_as_a_grant_does() -> None:
    grant = Grant(tool=TOOL, constraints={"amount": {"max": "100.00"}})
    facts = argument_facts(tool=TOOL, arguments={"amount": "40.00"}, grants=[grant])
    case = next(case for case in SOURCE.golden_cases if case["name"] == "a granted call within its limit is allowed")
    assert case["context"]["args"] == facts
    assert case["grants"]["argument_types"] == compile_grants(version_id=uuid.uuid4(), grants=[grant]).argument_types


def test_a_bundle_without_cases_or_with_a_broken_schema_is_refused() -> None:
    assert check_bundle(BundleSource(SOURCE.policies, SOURCE.schema, [])) != []
    assert check_bundle(BundleSource(SOURCE.policies, {"": {"entityTypes": {}, "actions": {}}}, SOURCE.golden_cases))


STRICTER = """@id("freeze")
@code("change.freeze")
@message("Frozen.")
forbid (principal, action == Action::"budget.topup", resource);"""


def stricter() -> BundleSource:
    cases = [case for case in SOURCE.golden_cases if case["action"] != "budget.topup"]
    return BundleSource(f"{SOURCE.policies}\n{STRICTER}", SOURCE.schema, cases)


@pytest.mark.django_db
def test_a_second_person_promotes_and_the_next_decision_uses_it(
    as_nadia: Principal, make_person: Any, acting: Any, northwind: Any
) -> None:
    services.ensure_baseline()
    bundle = services.load_bundle(actor=as_nadia, name="Stricter", source=stricter())
    assert bundle.state == BundleState.DRAFT
    with pytest.raises(RemitError, match=r"bundle\.four_eyes"):
        services.promote_bundle(actor=as_nadia, bundle_id=bundle.pk)
    second = acting(make_person("Olga", northwind, Role.ADMIN))
    assert services.promote_bundle(actor=second, bundle_id=bundle.pk).state == BundleState.ACTIVE
    forget()
    active = active_bundle(northwind.pk)
    assert active is not None
    assert active.sha256 == bundle.sha256
    with pytest.raises(RemitError, match=r"bundle\.not_a_draft"):
        services.promote_bundle(actor=second, bundle_id=bundle.pk)
    events = Entry.objects.filter(subject_id=bundle.pk).order_by("id").values_list("event", flat=True)
    assert list(events) == ["policy.bundle_loaded", "policy.bundle_promoted"]


@pytest.mark.django_db
def test_nobody_alone_promotes_what_somebody_loaded_who_was_shut_out_since(
    as_nadia: Principal, make_person: Any, acting: Any, northwind: Any
) -> None:
    services.ensure_baseline()
    olga = make_person("Olga", northwind, Role.ADMIN)
    bundle = services.load_bundle(actor=acting(olga), name="Olga's", source=stricter())
    members.deactivate(principal=as_nadia, user_id=olga.pk)
    with pytest.raises(RemitError, match=r"bundle\.loader_gone"):
        services.promote_bundle(actor=as_nadia, bundle_id=bundle.pk)
    bundle.refresh_from_db()
    assert bundle.state == BundleState.DRAFT
    assert not Entry.objects.filter(event="policy.bundle_promoted").exists()


@pytest.mark.django_db
def test_a_draft_that_passes_no_more_by_now_is_not_promoted(
    as_nadia: Principal, make_person: Any, acting: Any, northwind: Any
) -> None:
    """As after an upgrade: what it was checked by then is not what the gate reads now."""
    services.ensure_baseline()
    bundle = services.load_bundle(actor=as_nadia, name="Stricter", source=stricter())
    PolicyBundle.objects.filter(pk=bundle.pk).update(policies=bundle.policies.replace("context.", "context.once_"))
    with pytest.raises(RemitError, match=r"bundle\.invalid"):
        services.promote_bundle(actor=acting(make_person("Olga", northwind, Role.ADMIN)), bundle_id=bundle.pk)
    bundle.refresh_from_db()
    assert bundle.state == BundleState.DRAFT
    assert not Entry.objects.filter(event="policy.bundle_promoted").exists()
    forget()
    assert active_bundle(northwind.pk).sha256 != bundle.sha256


@pytest.mark.django_db
def test_who_may_not_write_policies_changes_nothing(
    as_nadia: Principal, as_alice: Principal, as_dana: Principal, as_charlie: Principal
) -> None:
    bundle = services.load_bundle(actor=as_nadia, name="Stricter", source=stricter())
    for actor in (as_alice, as_dana):
        with pytest.raises(RemitError, match=r"permission\.denied"):
            services.load_bundle(actor=actor, name="Mine", source=stricter())
        with pytest.raises(RemitError, match=r"permission\.denied"):
            services.promote_bundle(actor=actor, bundle_id=bundle.pk)
    with pytest.raises(RemitError, match=r"bundle\.not_found"):
        services.promote_bundle(actor=as_charlie, bundle_id=bundle.pk)
    assert list(PolicyBundle.objects.filter(organisation__isnull=False).values_list("state", flat=True)) == ["draft"]


@pytest.mark.django_db
def test_a_broken_bundle_is_not_stored(as_nadia: Principal) -> None:
    with pytest.raises(RemitError) as caught:
        services.load_bundle(actor=as_nadia, name="Broken", source=with_policy("permit (principal, action, resource);"))
    assert caught.value.code == "bundle.invalid"
    assert "@id" in caught.value.errors[0].message
    assert not PolicyBundle.objects.filter(organisation__isnull=False).exists()


@pytest.mark.django_db
def test_the_baseline_is_made_active_once_and_a_newer_one_replaces_it() -> None:
    sha256 = services.ensure_baseline()
    assert services.ensure_baseline() == sha256
    PolicyBundle.objects.filter(organisation__isnull=True).update(sha256="sha256:older")
    assert services.ensure_baseline() == sha256
    states = PolicyBundle.objects.filter(organisation__isnull=True).values_list("sha256", "state")
    assert sorted(states) == sorted([("sha256:older", "retired"), (sha256, "active")])


@pytest.mark.django_db
def test_the_command_checks_loads_and_promotes(
    nadia: User, make_person: Any, northwind: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    olga = make_person("Olga", northwind, Role.ADMIN)
    for name, text in (
        ("policies.cedar", stricter().policies),
        ("schema.cedarschema.json", json.dumps(stricter().schema)),
        ("golden.json", json.dumps(list(stricter().golden_cases))),
    ):
        (tmp_path / name).write_text(text)
    call_command("bundle", "check", str(tmp_path), "--json")
    assert json.loads(capsys.readouterr().out)["problems"] == []
    call_command("bundle", "load", str(tmp_path), "--user", nadia.email, "--name", "Stricter", "--json")
    loaded = json.loads(capsys.readouterr().out)
    with pytest.raises(CommandError, match="second person"):
        call_command("bundle", "promote", loaded["id"], "--user", nadia.email)
    call_command("bundle", "promote", loaded["id"], "--user", olga.email, "--json")
    assert json.loads(capsys.readouterr().out)["state"] == "active"
    (tmp_path / "policies.cedar").write_text("permit (principal, action, resource);")
    with pytest.raises(CommandError, match="has no @id"):
        call_command("bundle", "check", str(tmp_path))
    assert (BASELINE / "policies.cedar").exists()
