"""Edit-and-approve, break-glass, what is said, and how people are told: judged, counted and recorded as all else."""

from __future__ import annotations

import re
import uuid
from datetime import timedelta
from typing import Any

import pytest
from django.core import mail
from django.db import IntegrityError, connection, transaction

from controlplane.audit.models import Entry
from controlplane.common.clock import now
from controlplane.common.errors import RemitError
from controlplane.tenancy.models import Membership, User
from controlplane.tenancy.types import Principal, Role
from governance import selectors, services
from governance.approval_models import BreakGlass, EscalationMessage, Notice
from governance.choices import ActionState, EscalationState, ReviewVerdict, Verdict
from governance.escalations.notifying import MOST_MAILS_AN_HOUR, link_to
from governance.models import Action, Decision, Escalation, Permit, Vote
from governance.services import Route
from governance.types import Finding, HoldRefused

from .conftest import Gate

pytestmark = pytest.mark.django_db
EMERGENCY = "The payment run closes in five minutes."


def edit(gate: Gate, judgement: Any, approver: Principal, amount: object, **fields: Any) -> services.Edited:
    row = gate.escalation(judgement)
    values: dict[str, Any] = {
        "approver": approver,
        "escalation_id": row.pk,
        "version": row.version,
        "arguments": {"amount": amount, "invoice": "INV-0113"},
        "reason": "Less is enough.",
    }
    return services.edit_and_approve(**{**values, **fields})


def everything() -> tuple[Any, ...]:
    return (
        list(Action.objects.order_by("id").values_list("id", "state")),
        list(Escalation.objects.order_by("id").values_list("id", "state", "version")),
        Vote.objects.count(),
        Decision.objects.count(),
        Entry.objects.count(),
    )


def test_an_edited_action_is_another_one_judged_like_any_other(gate: Gate, as_dana: Principal) -> None:
    judgement = gate.propose(90)
    edited = edit(gate, judgement, as_dana, 60)
    first, second = gate.action(judgement), edited.action
    assert (first.state, first.reason_code) == (ActionState.WITHDRAWN, "action.replaced")
    assert "amount 90 → 60" in first.message
    assert (second.state, second.replaces_id) == (ActionState.PERMITTED, first.pk)
    assert second.digest != first.digest
    assert (second.proposer_id, second.run_id, second.agent_id) == (first.proposer_id, first.run_id, first.agent_id)
    assert gate.escalation(judgement).state == EscalationState.SUPERSEDED
    assert edited.escalation is not None
    assert edited.escalation.state == EscalationState.APPROVED
    assert Vote.objects.get().escalation_id == edited.escalation.pk
    assert gate.ledger.states == ["held", "voided"]
    events = list(Entry.objects.filter(subject_id=first.pk).values_list("event", flat=True))
    assert "action.edited" in events
    done = services.redeem(holder=gate.run, action_id=second.pk, audience="mcp")
    assert (done.state, done.arguments["amount"]) == (ActionState.EXECUTING, 60)


def test_an_edit_that_needs_nobody_any_more_is_permitted_and_waits_for_its_agent(
    gate: Gate, as_dana: Principal
) -> None:
    edited = edit(gate, gate.propose(90), as_dana, 10)
    assert edited.escalation is None
    assert edited.action.state == ActionState.PERMITTED
    assert not Permit.objects.exists()
    Action.objects.filter(pk=edited.action.pk).update(decided_at=now() - timedelta(hours=2))
    services.sweep()
    done = services.redeem(holder=gate.run, action_id=edited.action.pk, audience="mcp")
    assert done.state == ActionState.EXECUTING


def test_an_edit_beyond_the_grant_is_refused_with_its_reason(gate: Gate, as_dana: Principal) -> None:
    gate.scene.denial = Finding(Verdict.DENY, "grant.argument_above_limit", "At most 100.")
    judgement = gate.propose(90)
    before = everything()
    with pytest.raises(RemitError) as caught:
        edit(gate, judgement, as_dana, 101)
    assert (caught.value.code, caught.value.status) == ("edit.refused", 422)
    assert "At most 100." in caught.value.message
    assert everything() == before
    assert gate.ledger.states == ["held"]


@pytest.mark.parametrize("trouble", ["guard", "sequence", "budget"])
def test_every_stage_is_asked_of_an_edited_action(gate: Gate, as_dana: Principal, trouble: str) -> None:
    judgement = gate.propose(90)
    if trouble == "guard":
        gate.scene.guards = [Finding(Verdict.DENY, "mission.ended", "This mission is over.")]
    elif trouble == "budget":
        gate.ledger.refusal = HoldRefused("budget.exhausted", "Nothing is left.")
    else:
        gate.scene.effects = [f"blast:{10**6}", "delete"]
        gate.scene.guards = [Finding(Verdict.DENY, "sequence.blast", "Too many objects.")]
    before = everything()
    with pytest.raises(RemitError, match=r"edit\.refused"):
        edit(gate, judgement, as_dana, 60)
    assert everything() == before


def test_earlier_votes_are_void_and_the_editors_is_the_first_of_the_new_question(
    gate: Gate, as_nadia: Principal, as_dana: Principal, as_bob: Principal
) -> None:
    services.save_route(actor=as_nadia, route=Route(name="Two", needed=2))
    judgement = gate.propose(90)
    gate.decide(judgement, as_bob)
    edited = edit(gate, judgement, as_dana, 60)
    assert edited.escalation is not None
    assert (edited.escalation.state, edited.action.state) == (EscalationState.OPEN, ActionState.WAITING)
    assert [vote.user_id for vote in edited.escalation.votes.all()] == [as_dana.id]
    services.decide(
        approver=as_bob,
        escalation_id=edited.escalation.pk,
        version=edited.escalation.version,
        approve=True,
        reason="",
    )
    edited.action.refresh_from_db()
    assert edited.action.state == ActionState.PERMITTED


def test_an_edit_and_a_vote_at_once_have_one_winner(gate: Gate, as_dana: Principal, as_bob: Principal) -> None:
    judgement = gate.propose(90)
    edit(gate, judgement, as_dana, 60)
    with pytest.raises(RemitError, match=r"escalation\.closed"):
        gate.decide(judgement, as_bob, version=1)
    with pytest.raises(RemitError, match=r"escalation\.closed"):
        edit(gate, judgement, as_bob, 61, version=1)
    assert Action.objects.count() == 2
    other = gate.propose(90)
    with pytest.raises(RemitError, match=r"escalation\.changed"):
        edit(gate, other, as_bob, 61, version=7)


def test_four_eyes_hold_for_editors_too(gate: Gate, as_dana: Principal, as_finn: Principal) -> None:
    gate.scene.excluded = [as_dana.id]
    judgement = gate.propose(90)
    before = everything()
    for person in (as_dana, as_finn):
        with pytest.raises(RemitError):
            edit(gate, judgement, person, 60)
    assert everything() == before


def test_a_preview_writes_nothing_and_says_what_the_gate_would(gate: Gate, as_dana: Principal) -> None:
    key = gate.escalation(gate.propose(90)).pk
    before = everything()
    for amount, verdict in ((60, Verdict.ESCALATE), (10, Verdict.ALLOW), (101, Verdict.DENY)):
        seen = services.preview_edit(
            approver=as_dana, escalation_id=key, arguments={"amount": amount, "invoice": "INV-0113"}
        )
        assert seen.finding.verdict is verdict
        assert [(change.path, change.before, change.after) for change in seen.changes] == [
            ("amount", "90", str(amount))
        ]
    with pytest.raises(RemitError, match=r"edit\.nothing_changed"):
        services.preview_edit(approver=as_dana, escalation_id=key, arguments={"invoice": "INV-0113", "amount": 90})
    assert everything() == before


@pytest.mark.parametrize("arguments", [{"amount": float("nan")}, {"amount": 2**60}, {"a": "\x00"}, {"ａ": 1}])
def test_an_edit_is_checked_like_any_proposal(gate: Gate, as_dana: Principal, arguments: dict[str, Any]) -> None:
    judgement = gate.propose(90)
    before = everything()
    with pytest.raises(RemitError):
        edit(gate, judgement, as_dana, 0, arguments=arguments)
    assert everything() == before


def test_what_one_action_replaced_never_changes(gate: Gate, as_dana: Principal) -> None:
    edited = edit(gate, gate.propose(90), as_dana, 60)
    with pytest.raises(IntegrityError), transaction.atomic():
        Action.objects.filter(pk=edited.action.pk).update(replaces=None)


# Break-glass ----------------------------------------------------------------------------------------------------------


def smash(gate: Gate, judgement: Any, actor: Principal, **fields: Any) -> BreakGlass:
    row = gate.escalation(judgement)
    values: dict[str, Any] = {
        "actor": actor,
        "escalation_id": row.pk,
        "version": row.version,
        "reason": EMERGENCY,
    }
    return services.break_glass(**{**values, **fields})


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


# What is said ---------------------------------------------------------------------------------------------------------


def test_comments_and_questions_stop_when_the_question_is_closed(
    gate: Gate, as_dana: Principal, as_finn: Principal
) -> None:
    judgement = gate.propose(60)
    key = gate.escalation(judgement).pk
    services.comment(actor=as_dana, escalation_id=key, text="Looks large.")
    question = services.ask_agent(actor=as_dana, escalation_id=key, text="Why 60?")
    answered = services.answer_question(principal=gate.run, action_id=judgement.action_id, text="Nine days late.")
    assert answered.answers_id == question.pk
    with pytest.raises(RemitError, match=r"question\.none"):
        services.answer_question(principal=gate.run, action_id=judgement.action_id, text="Again.")
    with pytest.raises(RemitError, match=r"escalation\.not_found"):
        services.comment(actor=as_finn, escalation_id=key, text="Me too.")
    gate.decide(judgement, as_dana)
    with pytest.raises(RemitError, match=r"escalation\.closed"):
        services.comment(actor=as_dana, escalation_id=key, text="Too late.")
    assert EscalationMessage.objects.count() == 3
    with pytest.raises(IntegrityError), transaction.atomic():
        EscalationMessage.objects.update(text="Never said.")


@pytest.mark.parametrize("text", ["", "   ", "x" * 2001, "a\0b"])
def test_what_is_no_message_is_not_kept(gate: Gate, as_dana: Principal, text: str) -> None:
    key = gate.escalation(gate.propose(60)).pk
    with pytest.raises(RemitError):
        services.comment(actor=as_dana, escalation_id=key, text=text)
    assert not EscalationMessage.objects.exists()


# Being told -----------------------------------------------------------------------------------------------------------


def test_those_who_may_decide_are_told_once_however_often_it_is_tried(
    gate: Gate, as_dana: Principal, as_bob: Principal, as_alice: Principal, dana: User
) -> None:
    gate.scene.excluded = [as_bob.id]
    key = gate.escalation(gate.propose(60)).pk
    assert services.untold() == [key]
    for _ in range(3):
        services.tell_about(key)
        services.send_mails()
    assert services.untold() == []
    (sent,) = mail.outbox
    assert sent.to == [dana.email]
    link = re.search(r"/approvals/from-mail/(\S+)", sent.body)
    assert link is not None
    assert selectors.read_link(link[1]) == (key, dana.pk)
    assert "decides nothing" in sent.body
    assert [selectors.count_unread(person) for person in (as_dana, as_bob, as_alice)] == [1, 0, 0]
    assert [row.escalation_id for row in selectors.notices_of(as_dana)] == [key]
    services.mark_read(principal=as_dana)
    assert selectors.count_unread(as_dana) == 0


def test_nobody_is_mailed_about_what_is_settled_or_no_longer_theirs(
    gate: Gate, as_dana: Principal, as_bob: Principal, bob: User, dana: User
) -> None:
    judgement = gate.propose(60)
    services.tell_about(gate.escalation(judgement).pk)
    Membership.objects.filter(user=bob).delete()
    services.send_mails()
    assert [sent.to for sent in mail.outbox] == [[dana.email]]
    other = gate.propose(61)
    services.tell_about(gate.escalation(other).pk)
    gate.decide(other, as_dana)
    services.send_mails()
    assert len(mail.outbox) == 1
    assert selectors.count_unread(as_dana) == 1  # the first one still waits


def test_a_mail_server_that_fails_is_tried_again_and_not_forever(
    gate: Gate, dana: User, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    services.tell_about(gate.escalation(gate.propose(60)).pk)

    def fail(*_: Any, **__: Any) -> int:
        raise OSError("connection refused")

    with monkeypatch.context() as patch:
        patch.setattr("django.core.mail.backends.locmem.EmailBackend.send_messages", fail)
        assert services.send_mails() == 0
    assert services.send_mails() == 1
    assert mail.outbox[0].to == [dana.email]


def test_a_flood_of_questions_is_not_a_flood_of_mail(gate: Gate, dana: User, as_dana: Principal) -> None:
    for number in range(MOST_MAILS_AN_HOUR + 5):
        services.tell_about(gate.escalation(gate.propose(60, idempotency_key=str(number))).pk)
    services.send_mails()
    assert len(mail.outbox) == MOST_MAILS_AN_HOUR
    assert selectors.count_unread(as_dana) == MOST_MAILS_AN_HOUR + 5


def test_hostile_titles_are_one_plain_line_in_mail(gate: Gate, dana: User) -> None:
    key = gate.escalation(gate.propose(60)).pk
    Escalation.objects.filter(pk=key).update(title="Pay\r\nBcc: all@example.com\x1b[31m \u202etxt <b>now</b>")
    services.tell_about(key)
    services.send_mails()
    (sent,) = mail.outbox
    assert sent.subject == "Waits for you: Pay Bcc: all@example.com [31m txt <b>now</b>"
    assert sent.bcc == []
    assert not {"\x1b", "\u202e"} & set(sent.body)


def test_the_next_tier_and_broken_glass_are_told(
    gate: Gate, as_nadia: Principal, as_dana: Principal, dana: User, bob: User
) -> None:
    desk = services.save_group(actor=as_nadia, name="Desk", member_ids=[bob.pk])
    heads = services.save_group(actor=as_nadia, name="Heads", member_ids=[dana.pk])
    services.save_route(
        actor=as_nadia, route=Route(name="All", group_id=desk.pk, next_group_id=heads.pk, next_seconds=600)
    )
    judgement = gate.propose(60)
    key = gate.escalation(judgement).pk
    services.tell_about(key)
    Escalation.objects.filter(pk=key).update(tier_ends_at=now() - timedelta(seconds=1))
    services.sweep()
    services.tell_about(key)
    told = Notice.objects.values_list("user__name", "kind")
    assert set(told) == {("Bob", "asked"), ("Bob", "next_tier"), ("Dana", "next_tier")}
    smash(gate, judgement, as_nadia)
    services.tell_about(key)
    assert {row[0] for row in told.filter(kind="break_glass")} == {"Bob", "Dana"}


def test_a_link_in_a_mail_names_what_it_was_made_for_and_nothing_else(dana: User) -> None:
    key = uuid.uuid4()
    token = link_to(key, dana.pk).rpartition("/")[2]
    assert selectors.read_link(token) == (key, dana.pk)
    for forged in (token[:-1], token + "x", "a" + token, ""):
        assert selectors.read_link(forged) is None


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
