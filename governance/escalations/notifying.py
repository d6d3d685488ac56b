"""Telling people what waits for them: a notice in the frame, and mail with a signed link. Rows first, then mail: told
twice, late or by two workers at once, each person hears of each thing once."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from datetime import timedelta
from typing import Final

import structlog
from django.conf import settings
from django.core import mail, signing
from django.db import transaction
from django.db.models import Exists, F, OuterRef

from controlplane.common.clock import now
from controlplane.common.ids import parse_id
from controlplane.common.plain import plain_line
from controlplane.live.services import announce
from controlplane.tenancy.models import User
from controlplane.tenancy.types import Permission, Principal
from governance.approval_models import BreakGlass, EscalationMessage, Notice
from governance.choices import ASKING, EscalationState, MessageKind, NoticeKind
from governance.escalations.electorate import electorate_of
from governance.models import Escalation

log = structlog.get_logger(__name__)

LINK_LASTS: Final = timedelta(days=30)
MOST_MAILS_AN_HOUR: Final = 20  # to one person; the rest stands in the frame only, however many questions there are
_SALT: Final = "remit.approval.mail"
_MOST_ATTEMPTS: Final = 5
_BATCH: Final = 200
_VIEWS: Final = {
    "mission": Permission.MISSION_VIEW,
    "budget": Permission.BUDGET_VIEW,
    "stop": Permission.MISSION_VIEW,
}


def tell_about(escalation_id: uuid.UUID) -> int:
    """Write the notices a question gives rise to and that are not there yet; how many mails they ask for."""
    escalation = Escalation.objects.select_related("action").filter(pk=escalation_id).first()
    if escalation is None:
        return 0
    with transaction.atomic():
        return _asked(escalation) + _answered(escalation) + _broken(escalation)


def untold() -> list[uuid.UUID]:
    """Questions of which somebody has not been told, of their answers or of glass broken over them: the net under lost
    messages. What an agent answered beside a question that is settled by now needs nobody."""
    opened = Escalation.objects.filter(state=EscalationState.OPEN, told_tier__lt=F("tier"))
    answered = EscalationMessage.objects.filter(kind=MessageKind.ANSWER, escalation__state=EscalationState.OPEN)
    broken = BreakGlass.objects.filter(reviewed_at__isnull=True)
    told = Exists(Notice.objects.filter(escalation_id=OuterRef("escalation_id"), about_id=OuterRef("pk")))
    found = [
        *opened.order_by("id").values_list("pk", flat=True)[:_BATCH],
        *answered.exclude(told).order_by("id").values_list("escalation_id", flat=True)[:_BATCH],
        *broken.exclude(told).order_by("id").values_list("escalation_id", flat=True)[:_BATCH],
    ]
    return list(dict.fromkeys(found))


def send_mails() -> int:
    """Send what is to be sent. A mail is claimed before it is sent: of two workers one sends it. One that the server
    refused is tried again, five times at most."""
    waiting = Notice.objects.filter(mail=True, mailed_at__isnull=True, mail_attempts__lt=_MOST_ATTEMPTS)
    return sum(_send(notice) for notice in waiting.select_related("user", "escalation__action").order_by("id")[:_BATCH])


def notices_of(principal: Principal, *, limit: int = 50) -> list[Notice]:
    """The newest first, each with its question; of what the person may still see."""
    rows = _seen(principal).select_related("escalation__action")
    return list(rows.order_by("-id")[: max(1, min(limit, 200))])


def count_unread(principal: Principal) -> int:
    """What was told and not looked at, of what the person may still see. A question that others settled meanwhile needs
    nobody any more."""
    unread = _seen(principal).filter(read_at__isnull=True)
    return unread.exclude(kind__in=ASKING, escalation__closed_at__isnull=False).count()


def _seen(principal: Principal) -> Notice.NoticeQuerySet:
    """The person's own that are about what they may still see."""
    if principal.user_id is None:
        return Notice.objects.none()
    # Asked for each notice by its question's id: every page counts, and an organisation may have had many questions.
    visible = Escalation.objects.restrict(principal, Permission.ESCALATION_VIEW).filter(pk=OuterRef("escalation_id"))
    rows = Notice.objects.filter(user_id=principal.user_id, organisation_id=principal.organisation_id)
    mine = rows.filter(Exists(visible))
    for subject_type, permission in _VIEWS.items():
        mine |= rows.restrict(principal, permission).filter(subject_type=subject_type)
    return mine


def mark_read(*, principal: Principal, notice_ids: Iterable[uuid.UUID] | None = None) -> int:
    """All of the person's own that they may see, or those named; how many were unread. Their other open pages hear of
    it."""
    rows = _seen(principal).filter(read_at__isnull=True)
    if notice_ids is not None:
        rows = rows.filter(pk__in=list(notice_ids))
    with transaction.atomic():
        read = rows.update(read_at=now())
        if read:
            announce(f"person:{principal.user_id}", "notices")
    return read


def link_to(escalation_id: uuid.UUID, user_id: uuid.UUID) -> str:
    """The address in a mail: it opens the question's page after sign-in and does nothing else, whoever fetches it."""
    token = signing.dumps([str(escalation_id), str(user_id)], salt=_SALT, compress=False)
    return f"{settings.CONFIG.public_url}/approvals/from-mail/{token}"


def read_link(token: str) -> tuple[uuid.UUID, uuid.UUID] | None:
    """Question and addressee of a link that was made here and is not older than 30 days; None otherwise."""
    try:
        named = signing.loads(token, salt=_SALT, max_age=LINK_LASTS)
    except signing.BadSignature:
        return None
    escalation_id, user_id = (parse_id(part) for part in named)
    return (escalation_id, user_id) if escalation_id and user_id else None


def _asked(escalation: Escalation) -> int:
    if escalation.state != EscalationState.OPEN or escalation.expires_at <= now():
        return 0
    tier = escalation.tier
    won = Escalation.objects.filter(pk=escalation.pk, state=EscalationState.OPEN, told_tier__lt=tier).update(
        told_tier=tier
    )
    if not won:
        return 0
    told: set[uuid.UUID] = set()
    if tier > 1:
        told = set(escalation.votes.values_list("user_id", flat=True))
    people = [user_id for user_id in electorate_of(escalation).people if user_id not in told]
    kind = NoticeKind.ASKED if tier == 1 else NoticeKind.NEXT_TIER
    return _write(escalation, people, kind, escalation.pk)


def _answered(escalation: Escalation) -> int:
    answers = EscalationMessage.objects.filter(escalation=escalation, kind=MessageKind.ANSWER).select_related("answers")
    return sum(
        _write(escalation, [answer.answers.author_id], NoticeKind.ANSWERED, answer.pk)
        for answer in answers
        if answer.answers is not None
    )


def _broken(escalation: Escalation) -> int:
    found = BreakGlass.objects.filter(escalation=escalation, reviewed_at__isnull=True).first()
    if found is None:
        return 0
    people = [user_id for user_id in electorate_of(escalation).deciders if user_id != found.by_id]
    return _write(escalation, people, NoticeKind.BREAK_GLASS, found.pk)


def _write(escalation: Escalation, people: Iterable[uuid.UUID], kind: NoticeKind, about_id: uuid.UUID) -> int:
    wanted = sorted(people)
    there = Notice.objects.filter(user_id__in=wanted, kind=kind, about_id=about_id).values_list("user_id", flat=True)
    missing = sorted(set(wanted) - set(there))
    often = _mailed_often(missing) if kind is not NoticeKind.BREAK_GLASS else set()
    mails = kind is not NoticeKind.ANSWERED
    Notice.objects.bulk_create(
        [
            Notice(
                organisation_id=escalation.organisation_id,
                user_id=user_id,
                escalation=escalation,
                kind=kind,
                about_id=about_id,
                mail=mails and user_id not in often,
            )
            for user_id in missing
        ],
        ignore_conflicts=True,
    )
    for user_id in missing:
        announce(f"person:{user_id}", "notices")
    return len(set(missing) - often) if mails else 0


def _mailed_often(people: Iterable[uuid.UUID]) -> set[uuid.UUID]:
    since = now() - timedelta(hours=1)
    recent: dict[uuid.UUID, int] = {}
    rows = Notice.objects.filter(user_id__in=list(people), mail=True, created_at__gte=since)
    for user_id in rows.values_list("user_id", flat=True):
        recent[user_id] = recent.get(user_id, 0) + 1
    return {user_id for user_id, number in recent.items() if number >= MOST_MAILS_AN_HOUR}


def _send(notice: Notice) -> bool:
    moment, escalation = now(), notice.escalation
    if escalation is None:
        return False
    claimed = Notice.objects.filter(pk=notice.pk, mailed_at__isnull=True, mail_attempts=notice.mail_attempts).update(
        mailed_at=moment, mail_attempts=F("mail_attempts") + 1
    )
    if not claimed or not _still_wanted(notice, escalation):
        return False
    try:
        mail.send_mail(
            subject=_subject(notice, escalation),
            message=_body(notice, escalation),
            from_email=None,
            recipient_list=[notice.user.email],
        )
    except Exception as error:
        # Any failure of a mail server is one: the notice stands in the frame whatever becomes of the mail.
        log.warning("mail.not_sent", notice=str(notice.pk), error=type(error).__name__)
        Notice.objects.filter(pk=notice.pk, mailed_at=moment).update(mailed_at=None)
        return False
    return True


def _still_wanted(notice: Notice, escalation: Escalation) -> bool:
    """Nobody is mailed about a question that is settled, or that they may no longer answer; nor about broken glass that
    is no longer theirs to review."""
    if notice.kind not in ASKING:
        return notice.user_id in electorate_of(escalation).deciders
    return escalation.state == EscalationState.OPEN and bool(electorate_of(escalation).seats_of(notice.user_id))


def _subject(notice: Notice, escalation: Escalation) -> str:
    title = plain_line(escalation.title, limit=90)
    match NoticeKind(notice.kind):
        case NoticeKind.BREAK_GLASS:
            return f"Break-glass to review: {title}"
        case NoticeKind.NEXT_TIER:
            return f"Now waits for you: {title}"
        case _:
            return f"Waits for you: {title}"


def _body(notice: Notice, escalation: Escalation) -> str:
    user = notice.user
    title, asker = plain_line(escalation.title), plain_line(escalation.action.proposer_name)
    link = link_to(escalation.pk, notice.user_id)
    if notice.kind == NoticeKind.BREAK_GLASS:
        first = f"This was passed over in an emergency: {title}. Somebody else must say whether that was right."
    else:
        first = f"{asker} asks: {title}."
    lines = [
        f"{_name(user)},",
        "",
        first,
        plain_line(escalation.reason, limit=300) if notice.kind != NoticeKind.BREAK_GLASS else "",
        f"No answer before {escalation.expires_at:%Y-%m-%d %H:%M} UTC means refused." if notice.kind in ASKING else "",
        "",
        f"Look at it: {link}",
        "",
        "The link opens the page and decides nothing. You will be asked to sign in.",
    ]
    return "\n".join(lines) + "\n"


def _name(user: User) -> str:
    return plain_line(user.name or user.email, limit=80)
