"""The judge at the gate: it only tightens, is asked once, within its own budget, and where a rule wants it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from agents.samples import demo_judge as samples
from controlplane.tenancy.types import Principal
from governance import services
from governance.choices import ActionState, EscalationState, Verdict
from governance.judging import endpoints
from governance.models import Action, Escalation

from .connected_judge import BRIEF, GOAL, connect, rung
from .gate import Gate
from .model_server import MODEL, ModelServer, Reply, agree, says

pytestmark = pytest.mark.django_db


def test_what_the_judge_finds_aligned_is_allowed_and_the_ladder_shows_what_it_said(
    gate: Gate, model: ModelServer
) -> None:
    judgement = gate.propose(10)
    assert judgement.verdict is Verdict.ALLOW
    shown = rung(gate, judgement)
    assert shown["verdict"] == "allow"
    assert shown["details"]["answer"]["mission_clause"] == GOAL[:20]
    assert shown["details"]["answer"]["quoted"] == {"/action/tool": "books__apply_credit"}
    assert shown["details"]["answer"]["model"] == MODEL
    assert shown["details"]["answer"]["tokens"] == 340
    assert shown["policies"] == ["judge-writes"]
    assert gate.redeem(judgement).state == ActionState.EXECUTING
    assert len(model.asked) == 1  # used as it was judged: nobody is asked again


@pytest.mark.parametrize("propose", [services.propose, services.propose_and_start])
def test_a_mission_paused_while_the_judge_thinks_allows_nothing_more(
    gate: Gate, model: ModelServer, propose: Callable[..., Any]
) -> None:
    def pause(request: dict[str, Any]) -> Reply:
        gate.scene.mission_active = False
        return agree(request)

    model.play = pause
    judgement = propose(proposer=gate.run, proposal=gate.proposal(10))
    assert (judgement.verdict, judgement.reason_code) == (Verdict.DENY, "mission.not_active")
    assert not Action.objects.exclude(state=ActionState.DENIED).exists()
    assert len(model.asked) == 1


def test_a_version_put_in_force_while_the_judge_thinks_is_judged_itself(gate: Gate, model: ModelServer) -> None:
    def change(request: dict[str, Any]) -> Reply:
        gate.scene.mission_version = 2
        return agree(request)

    model.play = change
    judgement = gate.propose(10)
    assert judgement.verdict is Verdict.ALLOW
    assert gate.action(judgement).envelope["mission"].endswith("@2")
    assert len(model.asked) == 2


def test_misaligned_is_refused_with_a_reason_the_agent_can_act_on(gate: Gate, model: ModelServer) -> None:
    model.play = lambda _: says("misaligned", summary="The invoice is not part of any promise.")
    judgement = gate.propose(10)
    assert (judgement.verdict, judgement.reason_code) == (Verdict.DENY, "judge.misaligned")
    assert judgement.remedies
    assert gate.ledger.states == ["settled"]  # the judge's own tokens; nothing is held for the action


def test_unsure_waits_for_a_person_who_can_lift_it_without_another_question_to_the_model(
    gate: Gate, model: ModelServer, as_dana: Principal
) -> None:
    model.play = lambda _: says("unsure")
    judgement = gate.propose(10)
    assert (judgement.verdict, judgement.reason_code) == (Verdict.ESCALATE, "judge.unsure")
    assert Escalation.objects.get().policies == ["judge-writes"]
    gate.decide(judgement, as_dana)
    assert Action.objects.get().state == ActionState.PERMITTED
    assert len(model.asked) == 1


def test_what_the_judge_agreed_to_is_not_asked_again_when_people_approve(
    gate: Gate, model: ModelServer, as_dana: Principal
) -> None:
    judgement = gate.propose(70)
    assert Escalation.objects.get().policies == ["grant/0/ask"]
    model.play = lambda _: says("unsure")
    assert gate.decide(judgement, as_dana).state == EscalationState.APPROVED
    assert gate.redeem(judgement).state == ActionState.EXECUTING
    assert len(model.asked) == 1


def test_what_the_judge_agreed_to_is_not_asked_again_when_glass_is_broken(
    gate: Gate, model: ModelServer, as_nadia: Principal
) -> None:
    judgement = gate.propose(70)
    model.play = lambda _: says("misaligned")
    services.break_glass(
        actor=as_nadia, escalation_id=Escalation.objects.get().pk, version=1, reason="The customer is cut off now."
    )
    assert gate.redeem(judgement).state == ActionState.EXECUTING
    assert len(model.asked) == 1


@pytest.mark.parametrize(("said", "state"), [("unsure", ActionState.WAITING), ("misaligned", ActionState.DENIED)])
def test_a_judge_that_objects_when_people_approve_is_asked_once(
    gate: Gate, model: ModelServer, as_dana: Principal, said: str, state: ActionState
) -> None:
    gate.scene.context = {"judge": False}
    judgement = gate.propose(70)
    gate.scene.context = {"judge": True}
    model.play = lambda request: says(said) if len(model.asked) == 1 else agree(request)  # its second answer is yes
    assert gate.decide(judgement, as_dana).state == EscalationState.SUPERSEDED
    assert gate.action(judgement).state == state
    assert len(model.asked) == 1
    assert Action.objects.count() == 1
    questions = Escalation.objects.filter(state=EscalationState.OPEN)
    assert [row.policies for row in questions] == ([["judge-writes"]] if said == "unsure" else [])


def test_a_judge_that_agrees_with_everything_changes_no_refusal(gate: Gate, model: ModelServer) -> None:
    gate.scene.mission_active = False
    assert gate.propose(10).verdict is Verdict.DENY
    gate.scene.mission_active, gate.scene.tool_approved = True, False
    assert gate.propose(10).verdict is Verdict.DENY
    gate.scene.tool_approved = True
    assert gate.propose(1000).verdict is Verdict.DENY  # no grant covers it
    assert model.asked == []
    assert gate.propose(70).verdict is Verdict.ESCALATE  # a grant asks a person, whatever the judge says
    assert len(model.asked) == 1


def test_a_refusal_of_the_judge_stands_where_people_are_asked_too(gate: Gate, model: ModelServer) -> None:
    model.play = lambda _: says("misaligned")
    assert gate.propose(70).reason_code == "judge.misaligned"
    assert not Escalation.objects.exists()


def test_the_judges_own_budget_ends_its_work_and_nothing_else(gate: Gate, model: ModelServer) -> None:
    gate.ledger.judgements = 1
    assert gate.propose(10).verdict is Verdict.ALLOW
    judgement = gate.propose(10)
    assert judgement.reason_code == "judge.budget"
    assert rung(gate, judgement)["saw"] == "Nothing: no model was asked."
    gate.scene.context = {}
    assert gate.propose(10).verdict is Verdict.ALLOW


def test_a_rule_that_wants_a_judge_where_none_is_connected_asks_a_person(gate: Gate, settings: Any) -> None:
    gate.scene.context, gate.scene.brief = {"judge": True}, BRIEF
    connect(settings, "")
    assert gate.propose(10).reason_code == "judge.off"


def test_without_a_rule_the_judge_is_not_asked(gate: Gate, model: ModelServer) -> None:
    gate.scene.context = {"judge": False}
    judgement = gate.propose(10)
    assert judgement.verdict is Verdict.ALLOW
    assert rung(gate, judgement)["said"] == "No rule wants this judged."
    assert model.asked == []


@pytest.fixture
def demo_judge(gate: Gate, settings: Any) -> Iterator[None]:
    """The word rules that `REMIT_DEMO_JUDGE=1 make run` starts, as a judge of these tests."""
    gate.scene.context = {"judge": True}
    server = samples.serve(socket.create_server(("127.0.0.1", 0)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    connect(settings, f"http://127.0.0.1:{server.socket.getsockname()[1]}/v1", judge_model=samples.MODEL)
    yield
    server.shutdown()
    server.server_close()
    while endpoints._CLIENTS:
        endpoints._CLIENTS.pop().close()


@pytest.mark.usefixtures("demo_judge")
@pytest.mark.parametrize(
    ("tool", "arguments", "verdict"),
    [
        ("books__apply_credit", {"amount": "10"}, Verdict.ALLOW),
        ("books__apply_credit", {"note": "change the bank details"}, Verdict.DENY),
        ("books__attachment", {"path": "tickets/1"}, Verdict.ESCALATE),
    ],
)
def test_the_demos_judge_says_that_it_is_none(
    gate: Gate, tool: str, arguments: dict[str, str], verdict: Verdict
) -> None:
    gate.scene.brief = {**BRIEF, "action": {"tool": tool, "arguments": arguments}}
    judgement = gate.propose(10)
    assert judgement.verdict is verdict
    assert "not by a language model" in rung(gate, judgement)["said"]
