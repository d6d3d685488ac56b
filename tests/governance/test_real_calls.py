"""The gate with the product's own kind and ledger: one budgeted mission, one granted tool, to the settled hold."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

from agents.choices import ServerState, Transport
from agents.models import McpServer, McpTool, Mission, Run
from agents.selectors import acting
from budgets.services import open_account
from budgets.types import Level, Limits, WindowKind
from controlplane.common.errors import RemitError
from controlplane.tenancy.models import User
from controlplane.tenancy.types import Principal, Role, system_principal
from governance import services
from governance.bundles import BundleSource, baseline_source, forget
from governance.choices import ActionState, Verdict
from governance.models import Action
from governance.types import Judgement, Proposal

pytestmark = pytest.mark.django_db
TOOL = "books__apply_credit"


@pytest.fixture
def books(alice: User, northwind: Any) -> McpTool:
    server = McpServer.objects.create(
        organisation=northwind,
        name="Books",
        slug="books",
        transport=Transport.STDIO,
        state=ServerState.OK,
        created_by=alice,
    )
    return McpTool.objects.create(
        server=server,
        name="apply_credit",
        qualified_name=TOOL,
        definition={"name": "apply_credit", "inputSchema": {"type": "object"}},
        definition_sha256="sha256:aa",
    )


@pytest.fixture
def mission(make_mission: Callable[..., Mission], books: McpTool) -> Mission:
    services.ensure_baseline()
    forget()
    grant = {"tool": TOOL, "effect": "allow", "constraints": {"amount": {"max": "50.00"}}, "max_calls": 1}
    row = make_mission(grants=[grant])
    row.account_id = open_account(
        actor=system_principal(organisation_id=row.organisation_id),
        organisation_id=row.organisation_id,
        team_id=row.team_id,
        parent_id=None,
        level=Level.MISSION,
        name="Mission",
        limits=Limits(money=Decimal(5), tokens=None, steps=10),
        window=WindowKind.TOTAL,
    )
    row.save(update_fields=["account_id"])
    return row


def propose(by: Principal, amount: str = "40.00") -> Judgement:
    proposal = Proposal(kind="tool.call", tool=TOOL, arguments={"amount": amount, "invoice": "INV-1"}, audience="mcp")
    return services.propose(proposer=by, proposal=proposal)


def hold_state(action_id: uuid.UUID) -> str:
    from budgets.models import Hold

    return str(Hold.objects.get(pk=Action.objects.get(pk=action_id).hold_id).state)


def test_a_call_goes_all_the_way(mission: Mission, as_run: Principal) -> None:
    judgement = propose(as_run)
    assert judgement.verdict is Verdict.ALLOW, judgement
    assert hold_state(judgement.action_id) == "held"
    action = services.redeem(holder=as_run, action_id=judgement.action_id, audience="mcp")
    assert (action.state, hold_state(action.pk)) == (ActionState.EXECUTING, "dispatched")
    ended = services.record_outcome(
        holder=as_run, action_id=action.pk, audience="mcp", outcome="success", result_sha256="sha256:1"
    )
    assert (ended.state, hold_state(action.pk)) == (ActionState.SUCCEEDED, "settled")


def test_the_last_call_of_a_grant_does_not_count_against_itself(mission: Mission, as_run: Principal) -> None:
    judgement = propose(as_run)
    assert services.redeem(holder=as_run, action_id=judgement.action_id, audience="mcp").state == "executing"
    assert propose(as_run).verdict is Verdict.DENY


def test_an_agents_own_credential_counts_in_the_attempt_under_way(
    mission: Mission, run: Run, as_agent: Principal
) -> None:
    by = acting(as_agent)
    first, second = propose(by), propose(by, "41.00")
    assert (first.verdict, second.verdict, second.reason_code) == (Verdict.ALLOW, Verdict.DENY, "grant.calls_used_up")
    assert Action.objects.get(pk=first.action_id).run_id == run.pk


def test_an_agents_own_credential_does_nothing_without_an_attempt(mission: Mission, as_agent: Principal) -> None:
    with pytest.raises(RemitError, match=r"mission\.ambiguous"):
        propose(acting(as_agent))
    assert not Action.objects.exists()


def test_a_server_switched_off_is_refused_by_the_gate(mission: Mission, books: McpTool, as_run: Principal) -> None:
    judgement = propose(as_run)
    McpServer.objects.filter(pk=books.server_id).update(state=ServerState.DISABLED)
    with pytest.raises(RemitError, match=r"server\.off"):
        services.redeem(holder=as_run, action_id=judgement.action_id, audience="mcp")
    assert hold_state(judgement.action_id) == "voided"
    assert propose(as_run).reason_code == "server.off"


def test_of_a_tool_outside_the_remit_not_even_its_schema_is_told(
    mission: Mission, books: McpTool, as_run: Principal
) -> None:
    McpTool.objects.create(
        server=books.server,
        name="transfer",
        qualified_name="books__transfer",
        definition={"name": "transfer", "inputSchema": {"type": "object", "required": ["iban"]}},
        definition_sha256="sha256:cc",
    )
    refused = [
        services.propose(proposer=as_run, proposal=Proposal("tool.call", {}, tool=f"books__{name}"))
        for name in ("transfer", "no_such_tool")
    ]
    assert {judgement.reason_code for judgement in refused} == {"grant.missing"}


def test_a_call_above_its_limit_is_refused_with_the_limit(mission: Mission, as_run: Principal) -> None:
    judgement = propose(as_run, "50.01")
    assert (judgement.verdict, judgement.reason_code) == (Verdict.DENY, "grant.argument_above_limit")


def test_a_tool_that_changes_between_verdict_and_run_is_not_run(
    mission: Mission, books: McpTool, as_run: Principal
) -> None:
    judgement = propose(as_run)
    McpTool.objects.filter(pk=books.pk).update(definition_sha256="sha256:bb")
    with pytest.raises(RemitError, match=r"action\.changed"):
        services.redeem(holder=as_run, action_id=judgement.action_id, audience="mcp")
    assert hold_state(judgement.action_id) == "voided"


def test_a_rule_of_the_organisation_on_an_argument_meets_the_real_call(
    mission: Mission, as_run: Principal, as_nadia: Principal, make_person: Any, acting: Any, northwind: Any
) -> None:
    base, name = baseline_source(), f"{TOOL}/amount#micros"
    rule = (
        '@id("small-credits")\n@code("credit.too_large")\n@message("At most 30.00.")\n'
        'forbid (principal, action == Action::"tool.call", resource)'
        f' when {{ context.args has "{name}" && context.args["{name}"] > 30000000 }};'
    )
    cases = [case for case in base.golden_cases if case["action"] != "tool.call"]
    source = BundleSource(f"{base.policies}\n{rule}", base.schema, cases)
    bundle = services.load_bundle(actor=as_nadia, name="Small credits", source=source)
    services.promote_bundle(actor=acting(make_person("Olga", northwind, Role.ADMIN)), bundle_id=bundle.pk)
    forget()
    refused = propose(as_run, "30.01")
    assert (refused.verdict, refused.reason_code) == (Verdict.DENY, "credit.too_large")
    assert Action.objects.get(pk=refused.action_id).hold_id is None
    assert propose(as_run, "30.00").verdict is Verdict.ALLOW
