"""Telling people what became of what is theirs: their missions, what they asked for, the budgets they set. In the frame
only, and in the transaction of the change itself."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Final

from django.db.models import Value
from django.db.models.functions import Coalesce, Concat, Left, Substr

from controlplane.common.clock import now
from controlplane.live.services import announce
from controlplane.tenancy.types import Principal, PrincipalKind
from governance.approval_models import BreakGlass, Notice
from governance.choices import ActionState, NoticeKind, ReviewVerdict
from governance.models import Action

_ANSWERS: Final = {
    ActionState.PERMITTED: "Approved",
    ActionState.DENIED: "Refused",
    ActionState.EXPIRED: "Not answered in time",
    ActionState.WITHDRAWN: "Withdrawn",
}


@dataclass(frozen=True)
class News:
    """`text` names no person and repeats nobody's reason: it stays when their words are erased. `about_id`: what is
    told once."""

    user_id: uuid.UUID
    organisation_id: uuid.UUID
    team_id: uuid.UUID | None
    kind: NoticeKind
    subject_type: str
    subject_id: uuid.UUID
    about_id: uuid.UUID
    text: str


def tell_people(news: Iterable[News]) -> None:
    """Inside the transaction of the change. One statement however many they are, none for nobody."""
    rows = [
        Notice(
            organisation_id=one.organisation_id,
            user_id=one.user_id,
            team_id=one.team_id,
            kind=one.kind,
            subject_type=one.subject_type,
            subject_id=one.subject_id,
            about_id=one.about_id,
            text=one.text[:300],
        )
        for one in news
    ]
    if not rows:
        return
    Notice.objects.bulk_create(rows, ignore_conflicts=True)
    for user_id in sorted({row.user_id for row in rows}):
        announce(f"person:{user_id}", "notices")


def settle_notices(*, kind: NoticeKind, about_ids: Collection[uuid.UUID], was: str, by_now: str) -> None:
    """Inside the transaction of the change: notices that asked for a word that is not wanted any more ask no more, and
    begin with `by_now` where they began with `was`. One statement more for those that there are."""
    rows = Notice.objects.filter(kind=kind, about_id__in=list(about_ids), text__startswith=was)
    users = sorted(set(rows.values_list("user_id", flat=True))) if about_ids else []
    if users:
        said = Concat(Value(by_now), Substr("text", len(was) + 1))
        rows.update(text=Left(said, 300), read_at=Coalesce("read_at", Value(now())))
    for user_id in users:
        announce(f"person:{user_id}", "notices")


def tell_review(broken: BreakGlass, verdict: ReviewVerdict) -> None:
    """Inside the transaction of the review: nobody is asked for another, and who broke the glass hears the verdict."""
    asked = Notice.objects.filter(kind=NoticeKind.BREAK_GLASS, about_id=broken.pk, read_at__isnull=True)
    users = sorted(asked.values_list("user_id", flat=True))
    asked.update(read_at=now())
    for user_id in users:
        announce(f"person:{user_id}", "notices")
    action = broken.escalation.action
    subject_type, subject_id = _page_of(action)
    if subject_id is not None:
        tell_people(
            [
                News(
                    user_id=broken.by_id,
                    organisation_id=broken.organisation_id,
                    team_id=broken.team_id,
                    kind=NoticeKind.BREAK_GLASS,
                    subject_type=subject_type,
                    subject_id=subject_id,
                    about_id=broken.pk,
                    text=f"{verdict.label}: {action.title}",
                )
            ]
        )


def _page_of(action: Action) -> tuple[str, uuid.UUID | None]:
    return ("mission", action.mission_id) if action.mission_id else (action.subject_type, action.subject_id)


def tell_answer(*, action: Action, state: ActionState, actor: Principal, owners: Collection[uuid.UUID]) -> None:
    """For action kinds, in `on_decided`: whoever asked, and whom the subject belongs to, hear how it ended. What nobody
    but who asked had a part in is news to nobody."""
    subject_type, subject_id = _page_of(action)
    if state not in _ANSWERS or actor.id == action.proposer_id or action.subject_id is None or subject_id is None:
        return
    asker = [action.proposer_id] if action.proposer_kind == PrincipalKind.USER else []
    tell_people(
        News(
            user_id=user_id,
            organisation_id=action.organisation_id,
            team_id=action.team_id,
            kind=NoticeKind.REQUEST,
            subject_type=subject_type,
            subject_id=subject_id,
            about_id=action.pk,
            text=f"{_ANSWERS[state]}: {action.title}",
        )
        for user_id in sorted({*owners, *asker} - {actor.user_id})
    )
