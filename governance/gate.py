"""The pipeline: guards, policy, sequence, judge, budget. Each adds a rung; none lowers what came before."""

from __future__ import annotations

import time
import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import structlog
from opentelemetry import trace

from controlplane.common.ids import new_id
from controlplane.common.observability import tracer
from controlplane.common.statements import planned
from controlplane.common.written_amounts import written_amount
from governance import flood, judging, monitoring, policy, sequence
from governance.bundles import LoadedBundle
from governance.choices import Verdict
from governance.judging import Opinion
from governance.registry import ledger
from governance.types import ActionKind, BudgetRequest, Finding, HoldRefused, Prepared, Stage, Statement

log = structlog.get_logger(__name__)

STAGES: Final = ("intake", "guards", "policy", "sequence", "judge", "budget")
_SILENT: Final = Finding(Verdict.ALLOW, "", "")
_SKIPPED: Final = "Not asked: already refused."


class Overtaken(Exception):
    """What it was judged by has changed meanwhile: judge it again. Nothing of the transaction may stay."""


class BundleChanged(Overtaken):
    """The rules changed while the action was being judged: judge it again."""


class HoldNotGiven(Exception):
    """The ledger refused: `refused` says which level and what is left there."""

    def __init__(self, refused: HoldRefused) -> None:
        super().__init__(refused.reason_code)
        self.refused = refused


@dataclass
class Ladder:
    """The rungs so far and what they come to. `finding`: the first of the most severe; `escalating`: all that asks.

    `approved`: policies that people lifted, `judged`: those that the judge lifted, `judging`: those it is asked about.
    """

    approved: frozenset[str] = frozenset()
    judged: frozenset[str] = frozenset()
    bundle_sha256: str = ""
    stages: list[Stage] = field(default_factory=list)
    finding: Finding = _SILENT
    escalating: list[str] = field(default_factory=list)
    judging: tuple[str, ...] = ()
    opinion: Opinion | None = None
    started_ns: int = field(default_factory=time.perf_counter_ns)

    @property
    def verdict(self) -> Verdict:
        return self.finding.verdict

    @property
    def denied(self) -> bool:
        return self.finding.verdict is Verdict.DENY

    @property
    def microseconds(self) -> int:
        return (time.perf_counter_ns() - self.started_ns) // 1000

    def rung(
        self,
        name: str,
        *,
        since_ns: int,
        saw: str,
        findings: Sequence[Finding] = (),
        said: str = "",
        policies: Sequence[str] = (),
    ) -> None:
        """Add what a stage found. Stages leave out what was approved before they come here."""
        worst = self._weigh(findings)
        self.stages.append(
            Stage(
                name=name,
                verdict=worst.verdict,
                saw=saw,
                said=" ".join(finding.message for finding in findings if finding.message) or said,
                microseconds=(time.perf_counter_ns() - since_ns) // 1000,
                policies=tuple(policies),
                reason_code=worst.reason_code,
            )
        )

    def opinion_rung(self, opinion: Opinion) -> None:
        worst = self._weigh([opinion.finding] if opinion.finding else [])
        if worst.verdict is Verdict.ESCALATE:
            for identifier in opinion.policies:
                self.ask_about(identifier)
        self.stages.append(
            Stage(
                name="judge",
                verdict=worst.verdict,
                saw=opinion.saw,
                said=opinion.said,
                microseconds=opinion.microseconds,
                policies=tuple(opinion.policies),
                reason_code=worst.reason_code,
                details=opinion.details,
            )
        )

    def _weigh(self, findings: Sequence[Finding]) -> Finding:
        """The most severe; it never lowers what came before."""
        worst = _SILENT
        for finding in findings:
            if finding.verdict.severity > worst.verdict.severity:
                worst = finding
            if finding.verdict is Verdict.ESCALATE:
                self.ask_about(finding.policy or finding.reason_code)
        if worst.verdict.severity > self.finding.verdict.severity:
            self.finding = worst
        return worst

    def add_to_last(self, finding: Finding | None) -> None:
        """What else the last stage that was asked found."""
        if finding is None:
            return
        worst = self._weigh([finding])
        at = max(number for number, stage in enumerate(self.stages) if stage.verdict is not None)
        stage = self.stages[at]
        self.stages[at] = replace(
            stage, verdict=worst.verdict, said=finding.message, reason_code=worst.reason_code or stage.reason_code
        )

    def not_asked(self, name: str, said: str) -> None:
        self.stages.append(Stage(name=name, verdict=None, saw="", said=said, microseconds=0))

    def ask_about(self, identifier: str) -> None:
        if identifier not in self.escalating:
            self.escalating.append(identifier)


def examine(ladder: Ladder, *, kind: ActionKind, prepared: Prepared, bundle: LoadedBundle | None) -> None:
    """Guards and policy: everything that needs no transaction."""
    ladder.bundle_sha256 = bundle.sha256 if bundle else ""
    _guards(ladder, prepared)
    _policy(ladder, kind, prepared, bundle)


def consult(ladder: Ladder, *, prepared: Prepared, organisation_id: uuid.UUID) -> None:
    """Ask the judge where policy wants it, before any transaction is open. Its rung comes after the sequence's."""
    if ladder.denied or not ladder.judging:
        return
    ladder.opinion = judging.consult(
        organisation_id=organisation_id,
        brief=prepared.brief() if prepared.brief else None,
        policies=ladder.judging,
        irreversible=prepared.irreversible,
    )
    if ladder.opinion.finding is None:
        ladder.judged = ladder.judged.union(ladder.judging)


def await_earlier(prepared: Prepared) -> None:
    """Inside a transaction: the locks under which `sequence_and_judge` reads what was done before, where it does.

    Taken before the ledger: who waited for a run with the organisation's budget in hand would hold everybody up.
    """
    if prepared.total_limits and prepared.mission_id is not None:
        sequence.await_totals(mission_id=prepared.mission_id, run_id=prepared.run_id)
    elif prepared.run_id is not None and (prepared.call_limits is not None or sequence.concerns(prepared.effects)):
        sequence.await_run(prepared.run_id)


def sequence_and_judge(ladder: Ladder, *, prepared: Prepared, organisation_id: uuid.UUID, action_id: uuid.UUID) -> None:
    """Inside the transaction: what the run did before is read under the run's lock. Raises Overtaken."""
    if ladder.denied:
        ladder.not_asked("sequence", _SKIPPED)
        ladder.not_asked("judge", _SKIPPED)
        return
    await_earlier(prepared)
    limits = prepared.call_limits
    if (
        limits is not None
        and prepared.run_id is not None
        and limits.passed_by(sequence.calls_so_far(prepared.run_id, limits.tool, action_id))
    ):
        raise Overtaken
    if prepared.total_limits and prepared.mission_id is not None:
        for total in prepared.total_limits:
            if total.passed_by(sequence.total_so_far(prepared.mission_id, total.tool, total.argument, action_id)):
                raise Overtaken
    since = time.perf_counter_ns()
    if prepared.run_id is None or not sequence.concerns(prepared.effects):
        ladder.rung("sequence", since_ns=since, saw="No effect that any rule follows.", said="Nothing to object to.")
    else:
        history = sequence.read_history(run_id=prepared.run_id, besides=action_id)
        ladder.rung(
            "sequence",
            since_ns=since,
            saw=f"Effects {', '.join(prepared.effects)}; before: {', '.join(sorted(history.effects)) or 'none'}.",
            findings=sequence.check(effects=prepared.effects, history=history, approved=ladder.approved),
            said="Nothing to object to.",
        )
    if ladder.opinion is not None:
        ladder.opinion_rung(ladder.opinion)
    elif ladder.denied:
        ladder.not_asked("judge", _SKIPPED)
    else:
        ladder.not_asked("judge", _why_not_judged(ladder))
    if ladder.verdict is Verdict.ESCALATE:
        ladder.add_to_last(flood.check(prepared=prepared, organisation_id=organisation_id, besides=action_id))


def require_still(prepared: Prepared) -> None:
    """Inside the transaction: a pause, a new version or a changed tool that came first is judged, not overlooked."""
    still = prepared.still
    if still is None:
        return
    if not (planned(still.sql, still.parameters) if isinstance(still, Statement) else still()):
        raise Overtaken


def _why_not_judged(ladder: Ladder) -> str:
    if ladder.judged:
        return "The judge agreed before."
    return "No rule wants this judged." if judging.is_on() else "Off: no judge is connected."


def plan_hold(ladder: Ladder, *, prepared: Prepared) -> uuid.UUID | None:
    """The budget's rung as it will be if the ledger agrees, and the id of the hold; None when nothing is to be held.

    The ledger itself is asked by `reserve`, after everything else is written: its rows at the top of the tree are the
    ones that all decisions of an organisation share, and from then on only the commit is left.
    """
    if ladder.denied:
        ladder.not_asked("budget", _SKIPPED)
        return None
    since = time.perf_counter_ns()
    if prepared.budget is None:
        ladder.rung("budget", since_ns=since, saw="Costs nothing.", said="Nothing to hold.")
        return None
    ladder.rung("budget", since_ns=since, saw=_price(prepared.budget), said="Held.")
    return new_id()


def reserve(
    *,
    hold_id: uuid.UUID,
    action_id: uuid.UUID,
    prepared: Prepared,
    organisation_id: uuid.UUID,
    ttl_seconds: int,
    dispatched: bool,
) -> None:
    """Inside the transaction, last. Raises HoldNotGiven: then nothing of the transaction may stay."""
    if prepared.budget is None:
        return
    refused = ledger().reserve(
        hold_id=hold_id,
        request=prepared.budget,
        organisation_id=organisation_id,
        ttl_seconds=ttl_seconds,
        action_id=action_id,
        dispatched=dispatched,
    )
    if refused is not None:
        raise HoldNotGiven(refused)


def refuse_hold(ladder: Ladder, refused: HoldRefused, *, prepared: Prepared) -> None:
    """The rung that was planned becomes what the ledger said."""
    since = time.perf_counter_ns()
    del ladder.stages[-1]
    finding = Finding(Verdict.DENY, refused.reason_code, refused.message, refused.remedies)
    saw = _price(prepared.budget) if prepared.budget else ""
    if refused.reason_code.startswith("guard."):
        saw = f"The loop guard, which the ledger asks before it holds. {saw}"
    ladder.rung("budget", since_ns=since, saw=saw, findings=[finding])


def keep_hold(ladder: Ladder, *, hold_id: uuid.UUID | None) -> None:
    """The budget rung of an action that is judged again: its hold is still there."""
    if ladder.denied:
        ladder.not_asked("budget", _SKIPPED)
        return
    since = time.perf_counter_ns()
    saw = "Costs nothing." if hold_id is None else "The hold made when it was proposed."
    ladder.rung("budget", since_ns=since, saw=saw, said="Nothing to hold." if hold_id is None else "Still held.")


def emit_spans(ladder: Ladder) -> None:
    """Counts and, where somebody records them, one span per rung, made afterwards from the times already taken."""
    monitoring.observe(verdict=ladder.verdict.value, stages=ladder.stages)
    if not trace.get_current_span().is_recording():
        return
    at = time.time_ns() - (time.perf_counter_ns() - ladder.started_ns)
    for stage in ladder.stages:
        span = tracer.start_span(
            f"gate.{stage.name}",
            start_time=at,
            attributes={
                "remit.verdict": stage.verdict.value if stage.verdict else "not_asked",
                "remit.reason_code": stage.reason_code,
                "remit.policies": list(stage.policies),
            },
        )
        at += stage.microseconds * 1000
        span.end(end_time=at)


def _price(request: BudgetRequest) -> str:
    """ "0.01 USD, 1 step.": what there is of, without the zeros that only the ledger needs."""
    parts = [f"{written_amount(request.money)} {request.currency}"]
    parts += [f"{request.tokens} token{'' if request.tokens == 1 else 's'}"] if request.tokens else []
    parts += [f"{request.steps} step{'' if request.steps == 1 else 's'}"] if request.steps else []
    return f"{', '.join(parts)}."


def _guards(ladder: Ladder, prepared: Prepared) -> None:
    since = time.perf_counter_ns()
    findings = [
        finding
        for finding in prepared.guards
        if finding.verdict is Verdict.DENY
        or (finding.verdict is Verdict.ESCALATE and (finding.policy or finding.reason_code) not in ladder.approved)
    ]
    ladder.rung("guards", since_ns=since, saw=prepared.guards_saw, findings=findings, said="Nothing stands in the way.")


def _policy(ladder: Ladder, kind: ActionKind, prepared: Prepared, bundle: LoadedBundle | None) -> None:
    if ladder.denied:
        ladder.not_asked("policy", _SKIPPED)
        return
    since = time.perf_counter_ns()
    answer = _policy_answer(kind, prepared, bundle, ladder.approved | ladder.judged)
    if answer.trouble:
        log.warning("policy.failed", kind=kind.code, code=answer.finding.reason_code, trouble=answer.trouble)
    for identifier in answer.escalating if answer.finding.verdict is Verdict.ESCALATE else ():
        ladder.ask_about(identifier)
    ladder.judging = answer.judging
    ladder.rung(
        "policy",
        since_ns=since,
        saw=f"Bundle {bundle.name} {bundle.sha256[7:19]}" if bundle else "No bundle.",
        findings=[answer.finding],
        policies=answer.fired,
    )


def _policy_answer(
    kind: ActionKind, prepared: Prepared, bundle: LoadedBundle | None, approved: Collection[str]
) -> policy.PolicyAnswer:
    if bundle is None:
        return policy.PolicyAnswer(
            Finding(
                Verdict.DENY,
                "policy.missing",
                "No policy bundle is loaded, so nothing is allowed.",
                ("Load one with `./manage.py bundle load`.",),
            )
        )
    try:
        compiled = bundle.compiled(prepared.grants)
    except policy.PoliciesInvalid as error:
        log.warning("policy.invalid", bundle=bundle.sha256, error=str(error))
        return policy.PolicyAnswer(
            Finding(
                Verdict.DENY,
                "policy.invalid",
                "The policies or this mission's grants can't be used, so nothing is allowed.",
                ("Tell an administrator of the organisation.",),
            )
        )
    facts = policy.Facts(kind.cedar_action, prepared.principal_entity, prepared.resource_entity, prepared.context)
    return policy.ask(compiled, facts, approved=approved, denial=prepared.denial)
