"""A kind of action whose every fact a test can set, a ledger that counts, and the ways people reach the gate."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import pytest
from django.db import connection, transaction

from controlplane.audit.models import Entry
from controlplane.common.errors import conflict
from controlplane.common.ids import new_id
from controlplane.common.statements import planned
from controlplane.tenancy.models import Organisation, Team, User
from controlplane.tenancy.types import Principal, PrincipalKind, Role
from governance import registry, services
from governance.approval_models import ApprovalRoute, ApproverGroup
from governance.bundles import forget
from governance.choices import ActionState
from governance.models import Action, Escalation
from governance.services import Route
from governance.types import BudgetRequest, Finding, Grants, HoldRefused, Judgement, Prepared, Proposal, Statement

TOOL = "books__apply_credit"
AMOUNT = f"{TOOL}/amount#micros"
# Up to 100 is granted; above 50 a person agrees.
GRANT_POLICIES = f"""
@id("grant/0")
permit (principal, action == Action::"tool.call", resource == Tool::"{TOOL}")
when {{ context.args has "{AMOUNT}" && context.args["{AMOUNT}"] <= 100 }};
@id("grant/0/ask")
@effect("escalate")
@message("A credit above 50 needs a person.")
forbid (principal, action == Action::"tool.call", resource == Tool::"{TOOL}")
when {{ context.args has "{AMOUNT}" && context.args["{AMOUNT}"] > 50 }}
unless {{ context.approved.contains("grant/0/ask") }};
"""
GRANTS = Grants(key="version-1", policies=GRANT_POLICIES, argument_types={AMOUNT: "Long"})
_NUMBERS = itertools.count(1)
MakeGroup = Callable[..., ApproverGroup]


class CountingLedger:
    """One account that fits `limit` open holds. Its rows are in the database, so they follow the transaction."""

    def __init__(self) -> None:
        self.limit = 1_000_000
        self.refusal: HoldRefused | None = None
        with connection.cursor() as cursor:
            cursor.execute(
                "CREATE TABLE IF NOT EXISTS test_hold (id uuid PRIMARY KEY, state text, price numeric, ttl int)"
            )
            cursor.execute("CREATE TABLE IF NOT EXISTS test_result (signature bytea, result bytea)")
            cursor.execute(
                "CREATE OR REPLACE FUNCTION test_note(bytea, bytea) RETURNS void LANGUAGE sql"
                " AS 'INSERT INTO test_result VALUES ($1, $2)'"
            )
            cursor.execute("DELETE FROM test_hold; DELETE FROM test_result")

    def reserve(
        self,
        *,
        hold_id: uuid.UUID,
        request: BudgetRequest,
        organisation_id: uuid.UUID,
        ttl_seconds: int,
        action_id: uuid.UUID | None = None,
        dispatched: bool = False,
    ) -> HoldRefused | None:
        if self.refusal is not None:
            return self.refusal
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(4711)")
            cursor.execute("SELECT count(*) FROM test_hold WHERE state <> 'voided'")
            if cursor.fetchone()[0] >= self.limit:
                return HoldRefused("budget.exhausted", "Mission: nothing is left.", ("Ask for a top-up.",))
            state = "dispatched" if dispatched else "held"
            cursor.execute(
                "INSERT INTO test_hold VALUES (%s, %s, %s, %s)", [hold_id, state, request.money, ttl_seconds]
            )
        return None

    def dispatch(self, *, hold_id: uuid.UUID) -> None:
        self._move(hold_id, "dispatched", "held")

    def settle(self, *, hold_id: uuid.UUID, money: Decimal | None, tokens: int | None = None) -> Decimal:
        self._move(hold_id, "settled", "dispatched")
        with connection.cursor() as cursor:
            cursor.execute("SELECT price FROM test_hold WHERE id = %s", [hold_id])
            price: Decimal = cursor.fetchone()[0]
        return price if money is None else money

    def settle_between(self, *, money: Decimal, locked: Statement, then: Statement) -> bool:
        with transaction.atomic():
            found = planned(locked.sql, locked.parameters)
            if not found or not self._covers(found[0][0], money):
                return False
            self._move(found[0][0], "settled", "dispatched")
            planned(then.sql, then.parameters)
        return True

    def void(self, *, hold_id: uuid.UUID) -> None:
        self._move(hold_id, "voided", "held")

    def extend(self, *, hold_id: uuid.UUID, ttl_seconds: int) -> None:
        self._move(hold_id, "held", "held")
        with connection.cursor() as cursor:
            cursor.execute("UPDATE test_hold SET ttl = %s WHERE id = %s", [ttl_seconds, hold_id])

    judgements = 1_000_000

    def reserve_judgement(self, *, organisation_id: uuid.UUID, tokens: int) -> uuid.UUID | HoldRefused:
        if self.judgements <= 0:
            return HoldRefused("budget.exhausted", "The judge has no tokens left today.")
        self.judgements -= 1
        hold_id = new_id()
        with connection.cursor() as cursor:
            cursor.execute("INSERT INTO test_hold VALUES (%s, 'dispatched', 0, 60)", [hold_id])
        return hold_id

    def noting(self, *, account_id: uuid.UUID, signature: bytes, result: bytes) -> Statement:
        return Statement("SELECT test_note(%s, %s)", (signature, result))

    @property
    def results(self) -> list[tuple[bytes, bytes]]:
        with connection.cursor() as cursor:
            cursor.execute("SELECT signature, result FROM test_result")
            return [(bytes(signature), bytes(result)) for signature, result in cursor.fetchall()]

    @property
    def states(self) -> list[str]:
        with connection.cursor() as cursor:
            cursor.execute("SELECT state FROM test_hold ORDER BY state")
            return [row[0] for row in cursor.fetchall()]

    @property
    def longest_ttl(self) -> int:
        with connection.cursor() as cursor:
            cursor.execute("SELECT max(ttl) FROM test_hold")
            return int(cursor.fetchone()[0])

    def _covers(self, hold_id: uuid.UUID, money: Decimal) -> bool:
        rows = planned(
            "SELECT 1 FROM test_hold WHERE id = %s AND state = 'dispatched' AND price >= %s", (hold_id, money)
        )
        return bool(rows)

    def _move(self, hold_id: uuid.UUID, to: str, source: str) -> None:
        with connection.cursor() as cursor:
            cursor.execute("UPDATE test_hold SET state = %s WHERE id = %s AND state = %s", [to, hold_id, source])
            if cursor.rowcount != 1:
                raise conflict("hold.wrong_state", f"no hold that is {source}")


@dataclass
class Scene:
    """What is true of the world when a kind is asked. Tests change it between verdict and run."""

    team_id: uuid.UUID
    mission_id: uuid.UUID
    agent_id: uuid.UUID
    mission_active: bool = True
    mission_version: int = 1
    tool_approved: bool = True
    tool_sha256: str = "sha256:aa"
    grants: Grants | None = GRANTS
    guards: list[Finding] = field(default_factory=list)
    effects: list[str] = field(default_factory=list)
    context: dict[str, Any] = field(default_factory=dict)
    denial: Finding | None = None
    excluded: list[uuid.UUID] = field(default_factory=list)
    ttl_seconds: int = 3600
    budget: bool = True
    brief: dict[str, Any] | None = None
    irreversible: bool = False
    told: list[tuple[ActionState, str]] = field(default_factory=list)

    @property
    def facts(self) -> tuple[object, ...]:
        """What a decision was made by, compared at its commit."""
        return self.mission_active, self.mission_version, self.tool_approved, self.tool_sha256

    @property
    def decided(self) -> list[tuple[ActionState, str]]:
        """What the kind was told, without that it has to wait."""
        return [entry for entry in self.told if entry[0] is not ActionState.WAITING]


class ToolCall:
    """The shape of a real tool call with facts from the scene."""

    code = "test.call"
    label = "Test call"
    cedar_action = "tool.call"

    def __init__(self, scene: Scene) -> None:
        self.scene = scene

    def prepare(self, *, proposer: Principal, proposal: Proposal) -> Prepared:
        scene = self.scene
        seen = scene.facts
        amount = proposal.arguments.get("amount")
        return Prepared(
            team_id=scene.team_id,
            title=f"Call {proposal.tool}",
            envelope={"mission": f"{scene.mission_id}@{scene.mission_version}", "definition": scene.tool_sha256},
            principal_entity={
                "uid": {"type": "Agent", "id": str(scene.agent_id)},
                "attrs": {"team": str(scene.team_id), "runtime": "managed"},
                "parents": [],
            },
            resource_entity={
                "uid": {"type": "Tool", "id": proposal.tool},
                "attrs": {
                    "server": "books",
                    "read_only": False,
                    "reversible": True,
                    "approved": scene.tool_approved,
                },
                "parents": [],
            },
            context={
                "args": {AMOUNT: amount} if isinstance(amount, int) else {},
                "calls": 0,
                "importance": "normal",
                "mission_active": scene.mission_active,
                **scene.context,
            },
            grants=scene.grants,
            guards=tuple(scene.guards),
            guards_saw="Mission, tool, loop.",
            budget=BudgetRequest(
                account_id=scene.mission_id, money=Decimal("0.25"), currency="USD", signature=b"signature"
            )
            if scene.budget
            else None,
            agent_id=scene.agent_id,
            mission_id=scene.mission_id,
            mission_version=scene.mission_version,
            run_id=proposer.run_id,
            excluded_user_ids=tuple(scene.excluded),
            escalation_ttl_seconds=scene.ttl_seconds,
            effects=tuple(scene.effects),
            denial=scene.denial,
            still=lambda: scene.facts == seen,
            brief=(lambda: scene.brief or {}) if scene.brief is not None else None,
            irreversible=scene.irreversible,
        )

    def lock(self, *, subject_id: uuid.UUID | None) -> None:
        """Nothing of it comes before a question."""

    def on_decided(self, *, action_id: uuid.UUID, state: ActionState, actor: Principal) -> None:
        self.scene.told.append((state, actor.name))


class SignOff(ToolCall):
    """Something a person asks for and Remit itself performs when it is decided. Above 5 a second person agrees."""

    code = "test.sign_off"
    cedar_action = "mission.sign_off"

    def prepare(self, *, proposer: Principal, proposal: Proposal) -> Prepared:
        scene = self.scene
        return Prepared(
            team_id=scene.team_id,
            title="Sign off",
            envelope={"version": scene.mission_version},
            principal_entity={
                "uid": {"type": "Person", "id": str(proposer.id)},
                "attrs": {"roles": sorted(role.value for role in proposer.roles)},
                "parents": [],
            },
            resource_entity={
                "uid": {"type": "Mission", "id": str(scene.mission_id)},
                "attrs": {"importance": "normal", "state": "draft"},
                "parents": [],
            },
            context={
                "money_micros": int(proposal.arguments["money"]) * 1_000_000,
                "sign_off_above_micros": 5_000_000,
                "widens": False,
            },
            guards=tuple(scene.guards),
            mission_id=scene.mission_id,
            excluded_user_ids=tuple(scene.excluded),
        )


@dataclass
class Gate:
    """What the tests do at the gate's public edge."""

    scene: Scene
    ledger: CountingLedger
    run: Principal

    def propose(self, amount: object = 10, *, by: Principal | None = None, **fields: Any) -> Judgement:
        return services.propose(proposer=by or self.run, proposal=self.proposal(amount, **fields))

    def proposal(self, amount: object = 10, **fields: Any) -> Proposal:
        values: dict[str, Any] = {
            "kind": "test.call",
            "tool": TOOL,
            "arguments": {"amount": amount, "invoice": "INV-0113"},
            "audience": "mcp",
        }
        return Proposal(**{**values, **fields})

    def redeem(self, judgement: Judgement, **fields: Any) -> Action:
        values: dict[str, Any] = {
            "holder": self.run,
            "action_id": judgement.action_id,
            "audience": "mcp",
            "permit_token": judgement.permit.token if judgement.permit else None,
        }
        return services.redeem(**{**values, **fields})

    def escalation(self, judgement: Judgement) -> Escalation:
        assert judgement.escalation is not None
        return Escalation.objects.get(pk=judgement.escalation.id)

    def decide(self, judgement: Judgement, approver: Principal, *, approve: bool = True, **fields: Any) -> Escalation:
        escalation = self.escalation(judgement)
        values: dict[str, Any] = {
            "approver": approver,
            "escalation_id": escalation.pk,
            "version": escalation.version,
            "approve": approve,
            "reason": "looks right",
        }
        return services.decide(**{**values, **fields})

    def action(self, judgement: Judgement) -> Action:
        return Action.objects.get(pk=judgement.action_id)

    def events(self, judgement: Judgement) -> list[str]:
        """Audit events of the action, oldest first."""
        return list(Entry.objects.filter(subject_id=judgement.action_id).order_by("id").values_list("event", flat=True))


@pytest.fixture
def scene(team: Team) -> Scene:
    return Scene(team_id=team.pk, mission_id=new_id(), agent_id=new_id())


@pytest.fixture
def ledger(db: None) -> Iterator[CountingLedger]:
    before = list(registry._LEDGER)
    counting = CountingLedger()
    registry.register_ledger(counting)
    yield counting
    registry._LEDGER[:] = before


@pytest.fixture
def as_worker(scene: Scene, northwind: Organisation) -> Principal:
    """One run of the scene's mission."""
    return make_run(scene, northwind)


@pytest.fixture
def gate(scene: Scene, ledger: CountingLedger, as_worker: Principal) -> Iterator[Gate]:
    kinds = dict(registry._KINDS)
    registry._KINDS.update({kind.code: kind for kind in (ToolCall(scene), SignOff(scene))})
    forget()
    services.ensure_baseline()
    yield Gate(scene, ledger, as_worker)
    registry._KINDS.clear()
    registry._KINDS.update(kinds)
    forget()


def make_run(scene: Scene, organisation: Organisation) -> Principal:
    return Principal(
        kind=PrincipalKind.RUN,
        id=new_id(),
        name=f"run {next(_NUMBERS)}",
        organisation_id=organisation.pk,
        team_id=scene.team_id,
        agent_id=scene.agent_id,
        mission_id=scene.mission_id,
        run_id=new_id(),
    )


@pytest.fixture
def at_once() -> Callable[..., list[Any]]:
    """`at_once(call, times, threads=8)`: the results or errors of calls made on real connections at the same time."""

    def run(call: Callable[[int], Any], times: int, *, threads: int = 8) -> list[Any]:
        def one(number: int) -> Any:
            try:
                return call(number)
            except Exception as error:
                return error
            finally:
                connection.close()

        with ThreadPoolExecutor(max_workers=threads) as pool:
            return list(pool.map(one, range(times)))

    return run


@pytest.fixture
def make_group(as_nadia: Principal) -> MakeGroup:
    def make(name: str, *people: User) -> ApproverGroup:
        return services.save_group(actor=as_nadia, name=name, member_ids=[person.pk for person in people])

    return make


@pytest.fixture
def route(as_nadia: Principal) -> Callable[..., ApprovalRoute]:
    def make(name: str = "All", **fields: Any) -> ApprovalRoute:
        return services.save_route(actor=as_nadia, route=Route(name=name, **fields))

    return make


@pytest.fixture
def approvers(make_person: Any, northwind: Any) -> list[User]:
    """Three more approvers of the whole organisation."""
    return [make_person(name, northwind, Role.APPROVER) for name in ("Olga", "Piet", "Quinn")]
