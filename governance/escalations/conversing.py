"""What is said beside a question: comments of people, questions to the agent, and what it answers in its own words."""

from __future__ import annotations

import uuid
from collections.abc import Collection
from typing import Final

from django.db import IntegrityError, transaction

from controlplane.audit.events import Event
from controlplane.audit.services import record
from controlplane.common.clock import now
from controlplane.common.errors import FieldError, RemitError, conflict, invalid, not_found
from controlplane.tenancy.types import Permission, Principal
from governance.announcing import action_changed, inbox_changed, question_stands
from governance.approval_models import EscalationMessage
from governance.choices import EscalationState, MessageKind
from governance.escalations.closing import subject_of_escalation
from governance.models import Action, Escalation

LONGEST: Final = 2000
ERASED: Final = "[erased with the person who wrote it]"  # the database lets nothing else take the place of words
_MOST: Final = 100


def comment(*, actor: Principal, escalation_id: uuid.UUID, text: str) -> EscalationMessage:
    """A person's remark for other people. Raises 403, 404, 409 `escalation.closed`, 422 `message.empty | too_many`."""
    return _say(actor, escalation_id, text, MessageKind.COMMENT, Event.ESCALATION_COMMENTED)


def ask_agent(*, actor: Principal, escalation_id: uuid.UUID, text: str) -> EscalationMessage:
    """A question the agent sees when it asks how its action stands. Raises as `comment`, and 409 `escalation.no_agent`
    where a person proposed."""
    return _say(actor, escalation_id, text, MessageKind.QUESTION, Event.ESCALATION_ASKED_AGENT)


def answer_question(
    *, principal: Principal, action_id: uuid.UUID, text: str, question_id: uuid.UUID | None = None
) -> EscalationMessage:
    """The agent answers the oldest open question about its waiting action, or a named one. Its words decide nothing.

    Raises 404, 409 `question.none | answered | escalation.closed`, 422 `message.empty`.
    """
    action = Action.objects.restrict(principal, Permission.ACTION_VIEW).filter(pk=action_id).first()
    if action is None or not action.by_agent or principal.agent_id is None:  # an agent sees only its own
        raise not_found("action")
    words = _text(text)
    open_ones = EscalationMessage.objects.filter(
        escalation__action=action, kind=MessageKind.QUESTION, answer__isnull=True
    ).select_related("escalation")
    if question_id is not None:
        open_ones = open_ones.filter(pk=question_id)
    else:  # an action may be asked about again after its first question was closed
        open_ones = open_ones.filter(escalation__state=EscalationState.OPEN)
    question = open_ones.order_by("id").first()
    if question is None:
        raise conflict("question.none", "Nobody waits for an answer about this action.", "Go on with other work.")
    escalation = question.escalation
    try:
        with transaction.atomic():
            _lock_open(escalation)
            said = _write(principal, escalation, MessageKind.ANSWER, words, answers=question)
            record(
                event=Event.ESCALATION_ANSWERED,
                actor=principal,
                subject=subject_of_escalation(escalation),
                payload={"question": str(question.pk), "message": str(said.pk)},
            )
            inbox_changed(action)
            question_stands(escalation.pk)
    except IntegrityError as error:
        raise conflict("question.answered", "This was answered already.", "Go on with other work.") from error
    return said


def questions_of(action_id: uuid.UUID) -> list[EscalationMessage]:
    """The questions about an action, oldest first, each with its answer. Whoever may see the action may see them."""
    return list(
        EscalationMessage.objects.filter(escalation__action_id=action_id, kind=MessageKind.QUESTION)
        .select_related("answer", "escalation")
        .order_by("id")
    )


def erase_words(*, user_id: uuid.UUID, organisation_ids: Collection[uuid.UUID], pseudonym: str) -> int:
    """Part of erasing a person: what they wrote beside questions, comments and questions to agents alike. That they
    spoke, and when, stays. Returns how many messages."""
    rows = EscalationMessage.objects.filter(author_id=user_id, organisation_id__in=list(organisation_ids))
    return rows.exclude(text=ERASED).update(text=ERASED, author_name=pseudonym)


def _say(actor: Principal, escalation_id: uuid.UUID, text: str, kind: MessageKind, event: Event) -> EscalationMessage:
    escalation = (
        Escalation.objects.restrict(actor, Permission.ESCALATION_VIEW)
        .select_related("action")
        .filter(pk=escalation_id)
        .first()
    )
    if escalation is None or not actor.is_person:
        raise not_found("escalation")
    owner = actor.user_id in escalation.excluded_user_ids or actor.user_id == escalation.action.proposer_id
    if not owner and not actor.has(Permission.ESCALATION_DECIDE, team_id=escalation.team_id):
        raise RemitError(
            "message.not_yours",
            "Those who may decide, and whose mission it is, speak here.",
            403,
            remedies=("Ask an approver of the team.",),
        )
    if kind is MessageKind.QUESTION and not escalation.action.by_agent:
        raise conflict("escalation.no_agent", "A person asked for this.", "Ask them, or leave a comment.")
    words = _text(text)
    with transaction.atomic():
        _lock_open(escalation)
        if EscalationMessage.objects.filter(escalation=escalation).count() >= _MOST:
            raise invalid("message.too_many", f"More than {_MOST} messages are not kept beside one question.")
        said = _write(actor, escalation, kind, words)
        record(event=event, actor=actor, subject=subject_of_escalation(escalation), payload={"message": str(said.pk)})
        inbox_changed(escalation.action)
        if kind is MessageKind.QUESTION:
            action_changed(escalation.action)
    return said


def _write(
    author: Principal,
    escalation: Escalation,
    kind: MessageKind,
    text: str,
    answers: EscalationMessage | None = None,
) -> EscalationMessage:
    return EscalationMessage.objects.create(
        organisation_id=escalation.organisation_id,
        escalation=escalation,
        kind=kind,
        author_id=author.id,
        author_name=author.name[:120],
        text=text,
        answers=answers,
    )


def _lock_open(escalation: Escalation) -> None:
    """Nothing is said beside a question that is closed: whoever decided has read all there is."""
    open_still = (
        Escalation.objects.select_for_update(of=("self",))
        .filter(pk=escalation.pk, state=EscalationState.OPEN, expires_at__gt=now())
        .exists()
    )
    if not open_still:
        raise conflict("escalation.closed", "This was settled meanwhile.", "Reload the page.")


def _text(text: str) -> str:
    words = text.strip()
    if not words:
        raise invalid("message.empty", "Write something.", FieldError("/text", "a sentence"))
    if len(words) > LONGEST or "\0" in words:
        raise invalid("message.too_long", "That is too long.", FieldError("/text", f"at most {LONGEST} characters"))
    return words
