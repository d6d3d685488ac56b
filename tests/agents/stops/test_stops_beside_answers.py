"""A stop and an answer meet at the mission's row: one waits for the other, and a stop is never given up for it."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import timedelta
from functools import partial

import pytest
from django.db import connection, transaction
from django.db.models import QuerySet

from agents import services
from agents.choices import MissionState, StopScope
from agents.models import Mission, Stop
from controlplane.common.clock import now
from controlplane.common.errors import RemitError
from controlplane.tenancy.models import User
from governance import services as gate
from governance.bundles import BundleSource, baseline_source, forget
from governance.choices import ActionState, EscalationState
from governance.models import Action, Escalation, Permit
from tests.agents.lock_waits import somebody_waits

pytestmark = pytest.mark.django_db(transaction=True)


def stopped_first(act: Callable[[], object], *, actor, mission: Mission, needed: QuerySet) -> str:
    """A stop of its team that holds the mission's row while `act` begins, and then goes on to the rows `needed`. What
    became of `act`."""

    def told() -> str:
        try:
            act()
        except RemitError as error:
            return error.code
        finally:
            connection.close()
        return ""

    answer: Future[str]
    with ThreadPoolExecutor(1) as pool:
        with transaction.atomic():
            list(Mission.objects.filter(pk=mission.pk).select_for_update(no_key=True))
            answer = pool.submit(told)
            assert somebody_waits()
            assert list(needed.select_for_update(skip_locked=True, of=("self",)))
            services.stop(actor=actor, scope=StopScope.TEAM, scope_id=mission.team_id, reason="drill")
        return answer.result(30)


@pytest.mark.parametrize("way", ["refused", "expired", "withdrawn", "approved in vain", "glass broken in vain"])
def test_a_stop_beside_the_end_of_a_sign_off_goes_through(work, person, make_remit, way: str) -> None:
    clerk, alice = work(), person("Alice")
    draft = services.draft_mission(actor=alice, agent_id=clerk.agent.pk, title="Large", remit=make_remit("20.00"))
    services.submit_mission(actor=alice, mission_id=draft.pk)
    question = Escalation.objects.get()
    answer = partial(gate.decide, approver=person("Bob"), escalation_id=question.pk, version=1)
    glass = partial(gate.break_glass, actor=person("Nadia"), escalation_id=question.pk, version=1)
    act, said = {
        "refused": (partial(answer, approve=False, reason="No."), "escalation.closed"),
        "expired": (gate.sweep, ""),
        "withdrawn": (partial(gate.withdraw, actor=alice, action_id=question.action_id), "action.not_open"),
        "approved in vain": (partial(answer, approve=True, reason=""), "escalation.closed"),
        "glass broken in vain": (partial(glass, reason="The customer is cut off now."), "escalation.closed"),
    }[way]
    if way == "expired":
        Escalation.objects.update(expires_at=now() - timedelta(seconds=1))
    if way.endswith("in vain"):
        User.objects.filter(pk=alice.user_id).update(is_active=False)
    open_question = Escalation.objects.filter(pk=question.pk)
    assert stopped_first(act, actor=person("Nadia"), mission=draft, needed=open_question) == said
    assert Stop.objects.count() == 1
    question.refresh_from_db()
    draft.refresh_from_db()
    assert (question.state, draft.state) == (EscalationState.WITHDRAWN, MissionState.DRAFT)
    assert question.votes.count() == 0


def test_a_stop_beside_a_permit_that_is_judged_again_goes_through(work, person) -> None:
    clerk, nadia = work(), person("Nadia")
    who, permitted = clerk.principal(), clerk.read()
    base = baseline_source()
    stricter = BundleSource(f"{base.policies}\n{_RULE}", base.schema, base.golden_cases)
    bundle = gate.load_bundle(actor=nadia, name="Stricter", source=stricter)
    gate.ensure_baseline()
    type(bundle).objects.filter(organisation_id=bundle.organisation_id).update(state="active")
    forget()
    assert permitted.permit is not None
    redeem = partial(
        gate.redeem,
        holder=who,
        action_id=permitted.action_id,
        audience="api",
        permit_token=permitted.permit.token,
    )
    live = Permit.objects.filter(action_id=permitted.action_id)
    assert stopped_first(redeem, actor=nadia, mission=clerk.mission, needed=live) == "permit.none"
    assert Stop.objects.count() == 1
    assert Action.objects.get(pk=permitted.action_id).state == ActionState.WITHDRAWN


_RULE = """
@id("nothing-named-so")
@message("No tool has this name.")
forbid (principal, action == Action::"tool.call", resource == Tool::"nothing__named_so");
"""
