"""The kind `budget.topup`: what it tells the gate, and that only a permitted one raises the limit."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from decimal import Decimal

import pytest

from agents.models import Mission
from budgets import services
from budgets.models import Account, Allocation
from budgets.topup import TopUp
from budgets.types import Level, Limits, WindowKind
from controlplane.audit.events import Event
from controlplane.audit.models import Entry
from controlplane.common.clock import now
from controlplane.common.errors import RemitError
from controlplane.tenancy.models import Membership, Organisation, User
from controlplane.tenancy.types import Principal, Role
from governance import services as governance
from governance.bundles import ensure_baseline
from governance.choices import ActionState, Verdict
from governance.models import Action
from governance.registry import kind_of
from governance.types import Proposal
from tests.budgets.conftest import Tree, window

pytestmark = pytest.mark.django_db


@pytest.fixture
def account(tree: Tree, mission: Mission) -> Account:
    """The budget of the cast's mission."""
    identifier = services.open_account(
        actor=tree.system,
        organisation_id=tree.organisation_id,
        team_id=mission.team_id,
        parent_id=tree.agent,
        level=Level.MISSION,
        name=mission.title,
        subject_type="mission",
        subject_id=mission.pk,
        limits=Limits(money=Decimal(5), steps=20),
        window=WindowKind.TOTAL,
    )
    return Account.objects.get(pk=identifier)


def _proposal(**arguments: object) -> Proposal:
    return Proposal(
        kind="budget.topup", arguments={"money": "2.50", "reason": "More invoices than thought", **arguments}
    )


def test_a_run_asks_for_its_own_mission_without_naming_it(account: Account, as_run: Principal) -> None:
    prepared = kind_of("budget.topup").prepare(proposer=as_run, proposal=_proposal())
    assert prepared.context == {"money_micros": 2_500_000}
    assert prepared.principal_entity["uid"] == {"type": "Agent", "id": str(as_run.agent_id)}
    assert prepared.resource_entity == {
        "uid": {"type": "Budget", "id": str(account.pk)},
        "attrs": {"level": "mission"},
        "parents": [],
    }
    assert (prepared.mission_id, prepared.team_id, prepared.subject_id) == (
        account.subject_id,
        account.team_id,
        account.pk,
    )
    assert prepared.guards == []
    assert "$2.50 more" in prepared.title


def test_a_run_may_not_ask_for_another_budget(account: Account, tree: Tree, as_run: Principal) -> None:
    with pytest.raises(RemitError, match=r"budget.not_found"):
        TopUp().prepare(proposer=as_run, proposal=_proposal(account_id=str(tree.mission)))


def test_a_person_asks_for_a_budget_they_see_and_may_not_approve_it(account: Account, as_alice: Principal) -> None:
    prepared = TopUp().prepare(proposer=as_alice, proposal=_proposal(account_id=str(account.pk)))
    assert prepared.principal_entity == {
        "uid": {"type": "Person", "id": str(as_alice.id)},
        "attrs": {"roles": ["builder"]},
        "parents": [],
    }
    assert list(prepared.excluded_user_ids) == [as_alice.user_id]


def test_the_missions_owner_may_not_approve_what_its_run_asked_for(
    account: Account, northwind: Organisation, alice: User, as_run: Principal, acting: Callable[[User], Principal]
) -> None:
    ensure_baseline()
    Membership.objects.create(organisation=northwind, user=alice, role=Role.APPROVER.value)
    judgement = governance.propose(proposer=as_run, proposal=_proposal())
    assert judgement.escalation is not None
    with pytest.raises(RemitError, match=r"escalation.four_eyes"):
        governance.decide(
            approver=acting(alice), escalation_id=judgement.escalation.id, version=1, approve=True, reason=""
        )
    assert window(account.pk).limit_money == Decimal(5)


def test_charlie_sees_no_budget_to_ask_for(account: Account, as_charlie: Principal) -> None:
    with pytest.raises(RemitError, match=r"budget.not_found"):
        TopUp().prepare(proposer=as_charlie, proposal=_proposal(account_id=str(account.pk)))


@pytest.mark.parametrize(
    "arguments",
    [
        {"money": "0"},
        {"money": "-1"},
        {"money": 5},
        {"money": "1e3"},
        {"money": "NaN"},
        {"money": "0.0000001"},
        {"money": "9" * 13},
        {"money": None},
        {"money": "１"},
        {"reason": 7},
        {"reason": "x" * 301},
        {"account_id": "not-an-id"},
        {"approve": True},
    ],
)
def test_bad_arguments_are_refused(account: Account, as_run: Principal, arguments: dict[str, object]) -> None:
    with pytest.raises(RemitError) as refused:
        TopUp().prepare(proposer=as_run, proposal=_proposal(**arguments))
    assert refused.value.status == 422
    assert refused.value.errors


def test_an_unlimited_or_closed_budget_is_denied_with_its_reason(
    account: Account, tree: Tree, as_run: Principal
) -> None:
    services.set_limit(actor=tree.system, account_id=account.pk, window=WindowKind.TOTAL, limits=Limits())
    (guard,) = TopUp().prepare(proposer=as_run, proposal=_proposal()).guards
    assert (guard.verdict, guard.reason_code) == (Verdict.DENY, "budget.unlimited")
    services.close_account(actor=tree.system, account_id=account.pk, reason="Over")
    (guard,) = TopUp().prepare(proposer=as_run, proposal=_proposal()).guards
    assert guard.reason_code == "budget.closed"


def test_the_organisations_own_budget_is_not_asked_for(tree: Tree, as_finn: Principal) -> None:
    with pytest.raises(RemitError, match=r"budget.no_team"):
        TopUp().prepare(proposer=as_finn, proposal=_proposal(account_id=str(tree.organisation)))


@pytest.fixture
def asked(account: Account, as_run: Principal) -> Callable[[], uuid.UUID]:
    def make() -> uuid.UUID:
        return Action.objects.create(
            organisation_id=account.organisation_id,
            team_id=account.team_id,
            kind="budget.topup",
            arguments={"money": "2.50", "reason": "More"},
            digest="sha256:0",
            title="More",
            proposer_kind=as_run.kind.value,
            proposer_id=as_run.id,
            proposer_name=as_run.name,
            subject_type="budget",
            subject_id=account.pk,
            verdict=Verdict.ESCALATE,
            created_at=now(),
        ).pk

    return make


def test_a_permitted_request_raises_the_limit_in_the_approvers_name(
    account: Account, asked: Callable[[], uuid.UUID], as_dana: Principal
) -> None:
    action_id = asked()
    TopUp().on_decided(action_id=action_id, state=ActionState.PERMITTED, actor=as_dana)
    row = window(account.pk)
    assert (row.limit_money, row.limit_steps) == (Decimal("7.5"), 20)
    entry = Entry.objects.get(event=Event.BUDGET_LIMIT_SET, subject_id=account.pk)
    assert (entry.actor_name, entry.payload["money"], entry.payload["action"]) == ("Dana", "7.50", str(action_id))
    assert Allocation.objects.filter(account=account, action_id=action_id).exists()


@pytest.mark.parametrize("state", [ActionState.DENIED, ActionState.EXPIRED, ActionState.WITHDRAWN, ActionState.WAITING])
def test_anything_else_changes_nothing(
    account: Account, asked: Callable[[], uuid.UUID], as_dana: Principal, state: ActionState
) -> None:
    TopUp().on_decided(action_id=asked(), state=state, actor=as_dana)
    assert window(account.pk).limit_money == 5
    assert not Entry.objects.filter(event=Event.BUDGET_LIMIT_SET, subject_id=account.pk).exists()
