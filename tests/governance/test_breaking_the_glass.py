"""Breaking the glass: for minutes, over no hard refusal, by administrators not too close, reviewed by another."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.db import IntegrityError, connection, transaction

from controlplane.audit.models import Entry
from controlplane.common.clock import now
from controlplane.common.errors import RemitError
from controlplane.tenancy.models import User
from controlplane.tenancy.types import Permission, Principal, Role
from governance import selectors, services
from governance.approval_models import BreakGlass
from governance.choices import ActionState, EscalationState, ReviewVerdict, Verdict
from governance.models import Action, Escalation, Vote
from governance.services import Route
from governance.types import Finding

from .gate import Gate
from .questions import everything, smash

pytestmark = pytest.mark.django_db


def test_breaking_the_glass_permits_for_minutes_and_must_be_reviewed_by_another(
    gate: Gate, as_nadia: Principal, as_dana: Principal, nadia: User
) -> None:
    services.save_route(actor=as_nadia, route=Route(name="Three", needed=3))
    judgement = gate.propose(60)
    broken = smash(gate, judgement, as_nadia)
    assert gate.action(judgement).state == ActionState.PERMITTED
    assert broken.usable_until - broken.at <= timedelta(minutes=15)
    assert not Vote.objects.exists()
    assert "break_glass.used" in Entry.objects.values_list("event", flat=True)
    with pytest.raises(RemitError, match=r"break_glass\.own"):
        services.review_break_glass(
            reviewer=as_nadia, break_glass_id=broken.pk, verdict=ReviewVerdict.JUSTIFIED, note="Fine."
        )
    with pytest.raises(RemitError, match=r"note\.missing"):
        services.review_break_glass(
            reviewer=as_dana, break_glass_id=broken.pk, verdict=ReviewVerdict.JUSTIFIED, note=" "
        )
    with pytest.raises(IntegrityError), transaction.atomic():
        BreakGlass.objects.filter(pk=broken.pk).update(reviewed_by=nadia, reviewed_at=now())
    assert [row.pk for row in selectors.broken_glass(as_dana, only_open=True)] == [broken.pk]
    done = services.review_break_glass(
        reviewer=as_dana, break_glass_id=broken.pk, verdict=ReviewVerdict.JUSTIFIED, note="Nobody was there."
    )
    assert (done.verdict, done.reviewed_by_id) == ("justified", as_dana.id)
    assert selectors.broken_glass(as_dana, only_open=True) == []
    assert [(notice.kind, notice.text.split(":")[0]) for notice in selectors.notices_of(as_nadia)] == [
        ("break_glass", "Justified")
    ]
    assert gate.redeem(judgement).state == ActionState.EXECUTING


@pytest.mark.parametrize("used", [False, True])
def test_a_review_that_finds_it_not_justified_withdraws_what_was_not_used_and_leaves_what_runs(
    gate: Gate, as_nadia: Principal, as_dana: Principal, used: bool
) -> None:
    judgement = gate.propose(60)
    broken = smash(gate, judgement, as_nadia)
    if used:
        gate.redeem(judgement)
    services.review_break_glass(
        reviewer=as_dana, break_glass_id=broken.pk, verdict=ReviewVerdict.NOT_JUSTIFIED, note="Bob was there."
    )
    action = gate.action(judgement)
    told = Entry.objects.filter(event="action.withdrawn", subject_id=action.pk)
    if used:
        assert action.state == ActionState.EXECUTING
        assert not told.exists()
        return
    assert (action.state, action.reason_code) == (ActionState.WITHDRAWN, "break_glass.not_justified")
    assert told.get().actor_name == "Dana"
    assert gate.ledger.states == ["voided"]
    with pytest.raises(RemitError, match=r"permit\.none"):
        gate.redeem(judgement)


def test_who_was_too_close_to_answer_does_not_review_the_broken_glass_either(
    gate: Gate, as_nadia: Principal, as_dana: Principal, as_bob: Principal
) -> None:
    gate.scene.excluded = [as_dana.id]
    broken = smash(gate, gate.propose(60), as_nadia)
    services.delegate(
        actor=as_dana,
        from_user_id=as_dana.id,
        to_user_id=as_bob.id,
        starts_at=now(),
        ends_at=now() + timedelta(hours=1),
        reason="Away",
    )
    for close in (as_dana, as_bob):
        with pytest.raises(RemitError, match=r"escalation\.four_eyes"):
            services.review_break_glass(
                reviewer=close, break_glass_id=broken.pk, verdict=ReviewVerdict.JUSTIFIED, note="It helped me."
            )
    broken.refresh_from_db()
    assert broken.reviewed_at is None
    assert "break_glass.reviewed" not in Entry.objects.values_list("event", flat=True)


def test_glass_is_broken_again_over_a_rule_that_asks_when_what_was_let_through_is_used(
    gate: Gate, as_nadia: Principal, as_dana: Principal
) -> None:
    judgement = gate.propose(60)
    first = smash(gate, judgement, as_nadia)
    gate.scene.guards = [Finding(Verdict.ESCALATE, "other.rule", "Another rule asks.", policy="other/rule")]
    with pytest.raises(RemitError, match=r"other\.rule"):
        gate.redeem(judgement)
    question = Escalation.objects.get(action_id=judgement.action_id, state=EscalationState.OPEN)
    smash(gate, judgement, as_nadia, escalation_id=question.pk, version=question.version)
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        cursor.execute("ALTER TABLE governance_breakglass DISABLE TRIGGER USER")
        BreakGlass.objects.filter(pk=first.pk).update(usable_until=now() - timedelta(seconds=1))
        cursor.execute("ALTER TABLE governance_breakglass ENABLE TRIGGER USER")
    Action.objects.update(decided_at=now() - timedelta(minutes=2))
    services.sweep()  # the minutes of the first are over, those of the second are not
    services.review_break_glass(
        reviewer=as_dana, break_glass_id=first.pk, verdict=ReviewVerdict.NOT_JUSTIFIED, note="Bob was there."
    )  # of the first; the second is what lets it through
    assert gate.redeem(judgement).state == ActionState.EXECUTING


def test_what_people_approved_after_glass_was_broken_over_it_lasts_as_long_as_any_approval(
    gate: Gate, as_nadia: Principal, as_dana: Principal
) -> None:
    judgement = gate.propose(60)
    smash(gate, judgement, as_nadia)
    gate.scene.guards = [Finding(Verdict.ESCALATE, "other.rule", "Another rule asks.", policy="other/rule")]
    with pytest.raises(RemitError, match=r"other\.rule"):
        gate.redeem(judgement)
    question = Escalation.objects.get(action_id=judgement.action_id, state=EscalationState.OPEN)
    services.decide(approver=as_dana, escalation_id=question.pk, version=1, approve=True, reason="")
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        cursor.execute("ALTER TABLE governance_breakglass DISABLE TRIGGER USER")
        BreakGlass.objects.update(usable_until=now() - timedelta(seconds=1))
        cursor.execute("ALTER TABLE governance_breakglass ENABLE TRIGGER USER")
    Action.objects.update(decided_at=now() - timedelta(minutes=2))
    services.sweep()
    assert gate.redeem(judgement).state == ActionState.EXECUTING


def test_broken_glass_never_lifts_a_hard_refusal(gate: Gate, as_nadia: Principal) -> None:
    judgement = gate.propose(60)
    gate.scene.tool_approved = False
    before = everything()
    with pytest.raises(RemitError, match=r"break_glass\.refused"):
        smash(gate, judgement, as_nadia)
    assert everything() == before
    assert not BreakGlass.objects.exists()
    assert gate.ledger.states == ["held"]


def test_broken_glass_lifts_what_asks_by_now_as_well(gate: Gate, as_nadia: Principal) -> None:
    judgement = gate.propose(60)
    gate.scene.guards = [Finding(Verdict.ESCALATE, "change.freeze", "A change freeze began.", policy="freeze")]
    assert "freeze" in smash(gate, judgement, as_nadia).policies
    assert gate.redeem(judgement).state == ActionState.EXECUTING


def test_what_broken_glass_let_through_lapses_after_its_minutes(gate: Gate, as_nadia: Principal) -> None:
    first, second = gate.propose(60), gate.propose(61)
    for judgement in (first, second):
        broken = smash(gate, judgement, as_nadia, seconds=10**6)
        assert broken.usable_until - broken.at == timedelta(minutes=15)
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        cursor.execute("ALTER TABLE governance_breakglass DISABLE TRIGGER USER")
        BreakGlass.objects.update(usable_until=now() - timedelta(seconds=1))
        cursor.execute("ALTER TABLE governance_breakglass ENABLE TRIGGER USER")
    with pytest.raises(RemitError, match=r"permit\.expired"):
        gate.redeem(first)
    Action.objects.update(decided_at=now() - timedelta(minutes=2))
    services.sweep()
    assert gate.action(second).state == ActionState.EXPIRED
    assert gate.ledger.states == ["voided", "voided"]


@pytest.mark.parametrize(("who", "code"), [("as_dana", "permission.denied"), ("as_charlie", "escalation.not_found")])
def test_only_an_administrator_breaks_the_glass(gate: Gate, who: str, code: str, request: Any) -> None:
    judgement = gate.propose(60)
    before = everything()
    with pytest.raises(RemitError) as caught:
        smash(gate, judgement, request.getfixturevalue(who))
    assert caught.value.code == code
    assert everything() == before


def test_whoever_is_responsible_can_not_break_the_glass_for_themselves(gate: Gate, as_nadia: Principal) -> None:
    gate.scene.excluded = [as_nadia.id]
    judgement = gate.propose(60)
    before = everything()
    with pytest.raises(RemitError, match=r"escalation\.four_eyes"):
        smash(gate, judgement, as_nadia)
    assert everything() == before


def test_broken_glass_needs_its_reason_and_the_version_that_was_seen(gate: Gate, as_nadia: Principal) -> None:
    judgement = gate.propose(60)
    before = everything()
    for fields in ({"reason": "urgent"}, {"version": 9}):
        with pytest.raises(RemitError):
            smash(gate, judgement, as_nadia, **fields)
    assert everything() == before


def test_two_administrators_of_whom_one_stands_in_for_the_owner(
    gate: Gate, as_nadia: Principal, nadia: User, make_person: Any, northwind: Any, acting: Any
) -> None:
    other = make_person("Olga", northwind, Role.ADMIN)
    gate.scene.excluded = [nadia.pk]
    services.delegate(
        actor=as_nadia,
        from_user_id=nadia.pk,
        to_user_id=other.pk,
        starts_at=now() - timedelta(minutes=1),
        ends_at=now() + timedelta(days=1),
    )
    with pytest.raises(RemitError, match=r"escalation\.four_eyes"):
        smash(gate, gate.propose(60), acting(other))


def test_nobody_but_an_administrator_breaks_the_glass_by_role() -> None:
    from controlplane.tenancy.types import ROLE_PERMISSIONS

    holders = {role for role in Role if Permission.ESCALATION_BREAK_GLASS in ROLE_PERMISSIONS[role]}
    assert holders == {Role.ADMIN}
