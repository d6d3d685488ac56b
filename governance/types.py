"""The values that cross governance's edge: proposals, stages, judgements, and what an action kind must provide."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, Protocol

from controlplane.tenancy.types import Principal
from governance.choices import ActionState, Verdict

if TYPE_CHECKING:
    from governance.models import Action

# An attribute of `context.args` is named tool/argument#kind: as what an argument is read → its type in Cedar.
ARGUMENT_KINDS: Final = {"micros": "Long", "total": "Long", "length": "Long", "text": "String", "flag": "Boolean"}


@dataclass(frozen=True)
class Proposal:
    """What a principal wants to do, after strict parsing. `arguments` are exactly what will be executed."""

    kind: str
    arguments: Mapping[str, Any]
    tool: str = ""
    justification: str = ""
    idempotency_key: str | None = None
    audience: str = "api"  # who will redeem the permit: "mcp", "api", "remit"
    action_id: uuid.UUID | None = None  # judged again: this action exists and must not count against itself


@dataclass(frozen=True)
class Finding:
    """What one check said. Guards and sequence rules return these; silence means nothing to object to."""

    verdict: Verdict
    reason_code: str
    message: str
    remedies: Sequence[str] = ()
    policy: str = ""  # the escalating policy an approval would lift


@dataclass(frozen=True)
class Stage:
    """One rung of the ladder. `name`: intake, guards, policy, sequence, judge, budget. `verdict` None: not asked."""

    name: str
    verdict: Verdict | None
    saw: str
    said: str
    microseconds: int
    policies: Sequence[str] = ()
    reason_code: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)  # the judge's: which model, what it answered


@dataclass(frozen=True)
class Grants:
    """A mission version's permissions as Cedar. `key` names the compiled set in caches (mission version id).

    `argument_types`: the optional attributes of `context.args` the policies read, name → "Long" | "String" | "Boolean".
    """

    key: str
    policies: str
    argument_types: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class BudgetRequest:
    """What to hold. Governance does not know money; it hands this to the registered ledger."""

    account_id: uuid.UUID
    money: Decimal
    currency: str
    tokens: int = 0
    steps: int = 1
    signature: bytes = b""  # what the loop guard compares: tool and canonical arguments, hashed


@dataclass(frozen=True)
class CallLimits:
    """How often a run may call a tool, where its grants say so: `seen` calls were judged, `limits` is what they allow.

    The gate counts again when it commits: of calls at the same moment each would else be the last one allowed.
    """

    tool: str
    seen: int
    limits: Sequence[int]

    def passed_by(self, calls: int) -> bool:
        return any(self.seen < limit <= calls for limit in self.limits)


@dataclass(frozen=True)
class Statement:
    """A constant SELECT and its parameters, for `controlplane.common.statements.planned`."""

    sql: str
    parameters: Sequence[Any]


@dataclass(frozen=True)
class TotalLimits:
    """What an argument of a tool may come to over a mission, where its grants say so, in millionths: `seen` so far when
    it was judged, `adds` with this call. The gate adds up again when it commits, as it counts calls."""

    tool: str
    argument: str
    seen: int
    adds: int
    limits: Sequence[int]

    def passed_by(self, total: int) -> bool:
        return any(self.seen + self.adds <= limit < total + self.adds for limit in self.limits)


@dataclass(frozen=True)
class Prepared:
    """All that the gate needs to know of one proposal, gathered by its action kind without writing anything.

    `principal_entity`, `resource_entity` ({"uid", "attrs", "parents"}) and `context` are Cedar facts that must fit the
    bundle's schema; the gate adds `approved`. `envelope` is what the digest covers besides the proposal.
    """

    team_id: uuid.UUID
    title: str
    envelope: Mapping[str, Any]
    principal_entity: Mapping[str, Any]
    resource_entity: Mapping[str, Any]
    context: Mapping[str, Any]
    grants: Grants | None = None
    guards: Sequence[Finding] = ()
    guards_saw: str = ""
    budget: BudgetRequest | None = None
    agent_id: uuid.UUID | None = None
    mission_id: uuid.UUID | None = None
    mission_version: int | None = None
    run_id: uuid.UUID | None = None
    subject_type: str = ""
    subject_id: uuid.UUID | None = None
    excluded_user_ids: Sequence[uuid.UUID] = ()  # may not approve: requester, owner
    escalation_ttl_seconds: int = 3600
    call_limits: CallLimits | None = None
    total_limits: Sequence[TotalLimits] = ()
    effects: Sequence[str] = ()  # labels this action would leave behind, for sequence rules ("secret.read", "egress")
    denial: Finding | None = None  # what to say when no policy permits it: which grant fell short, and by how much
    currency: str = "USD"
    # Inside the decision's transaction: true, or a row, if the facts are what they were; keeps them so until it ends.
    # A statement is sent along with the one that writes the decision.
    still: Callable[[], bool] | Statement | None = None
    brief: Callable[[], Mapping[str, Any]] | None = None  # for the judge: mission, remit, budget, action, "untrusted"
    amount: Decimal | None = None  # what is at stake, for routes of questions; None: what it costs
    irreversible: bool = False  # without a valid answer of the judge it is refused, not asked about


class ActionKind(Protocol):
    """Recipe: CONTRIBUTING, “Add an action kind”. Registered from the owning app's `AppConfig.ready()`."""

    code: str
    label: str
    cedar_action: str

    def prepare(self, *, proposer: Principal, proposal: Proposal) -> Prepared:
        """Facts for judging. Reads only. Raises RemitError (4xx) for what is not a well-formed proposal at all."""

    def lock(self, *, subject_id: uuid.UUID | None) -> None:
        """Called first in a transaction that ends a question without asking `still`: rows that `on_decided` changes
        then and whose locks come before the question's, as a mission's does."""

    def on_decided(self, *, action_id: uuid.UUID, state: ActionState, actor: Principal) -> None:
        """Called inside the transaction whenever the action becomes waiting, permitted, denied, expired or withdrawn.

        An action without a tool is performed here, when `state` is permitted; the gate then records it as done. Raising
        undoes the whole decision. Writes of the kind itself should be conditional: a state may be told twice."""


@dataclass(frozen=True)
class HoldRefused:
    """Which level refused and what is left there, in words an agent can act on."""

    reason_code: str
    message: str
    remedies: Sequence[str] = ()


class Ledger(Protocol):
    """What budgets registers with the gate. All calls run inside the caller's transaction."""

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
        """`dispatched`: what is held is being spent from here on, as after `dispatch`."""

    def dispatch(self, *, hold_id: uuid.UUID) -> None: ...

    def settle(self, *, hold_id: uuid.UUID, money: Decimal | None, tokens: int | None = None) -> Decimal:
        """Settle at `money` (None: at the held price). Returns what was charged."""

    def settle_between(self, *, money: Decimal, locked: Statement, then: Statement) -> bool:
        """Settle and what goes with it in one round trip, a transaction of its own unless there is one.

        Done when `locked`, which locks its row and tells its `hold_id`, gives a row whose hold is being spent and
        covers `money`; `then`, of one value, is run after it. False: nothing was done, so take the steps one by one.
        """

    def void(self, *, hold_id: uuid.UUID) -> None: ...

    def extend(self, *, hold_id: uuid.UUID, ttl_seconds: int) -> None: ...

    def reserve_judgement(self, *, organisation_id: uuid.UUID, tokens: int) -> uuid.UUID | HoldRefused:
        """A dispatched hold on the judge's own budget, in a transaction of its own."""

    def noting(self, *, account_id: uuid.UUID, signature: bytes, result: bytes) -> Statement:
        """Tells the loop guard what came of a call: same call, same result, again and again is no progress. To be sent
        along with the statement that ends the action."""


@dataclass(frozen=True)
class PermitToken:
    token: str
    expires_at: datetime


@dataclass(frozen=True)
class EscalationRef:
    id: uuid.UUID
    expires_at: datetime


@dataclass(frozen=True)
class Judgement:
    """The gate's answer: what an agent is told."""

    action_id: uuid.UUID
    state: ActionState
    verdict: Verdict
    reason_code: str
    message: str
    remedies: Sequence[str]
    digest: str
    permit: PermitToken | None = None
    escalation: EscalationRef | None = None
    started: Action | None = None  # executing now, by whoever asked `propose_and_start`
    replayed: bool = False  # the stored answer to a repeated idempotency key
    data: Mapping[str, Any] = field(default_factory=dict)
