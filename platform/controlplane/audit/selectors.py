"""Reading the audit trail: the log page, an entry's sentence, and how far the sealer is behind."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from django.db.models import Q, QuerySet

from controlplane.audit import checkpoints, keys
from controlplane.audit.events import Event
from controlplane.audit.models import Checkpoint, Entry, Seal, SigningKey, Unsealed
from controlplane.audit.searching import holds_text
from controlplane.audit.sentences import sentence as sentence
from controlplane.common.clock import now
from controlplane.tenancy.types import Permission, Principal

PAGE = 50
LARGEST_PAGE = 200
SEARCHED = 20_000


@dataclass(frozen=True)
class Filters:
    """What the log is narrowed to. All that are set must hold; `text` looks into names, codes and sentences,
    with what these show of the payload."""

    actor_id: uuid.UUID | None = None
    person_id: uuid.UUID | None = None  # what they did and what was done to them
    agent_id: uuid.UUID | None = None  # the same; `run_ids`: under which ids it acts as well
    run_ids: Iterable[uuid.UUID] = ()
    event: str = ""
    event_kind: str = ""  # "mission": every event whose code begins with it and a dot
    subject_type: str = ""
    subject_id: uuid.UUID | None = None
    mission_id: uuid.UUID | None = None
    since: datetime | None = None
    until: datetime | None = None
    text: str = ""


@dataclass(frozen=True)
class Page:
    """Newest first. `next` is the cursor of the following page, None on the last. `looked_to`: the moment of the last
    entry looked at, where a search for words ended before the trail did."""

    items: Sequence[Entry]
    next: uuid.UUID | None
    looked_to: datetime | None = None


def entries(
    *, principal: Principal, filters: Filters | None = None, cursor: uuid.UUID | None = None, limit: int = PAGE
) -> Page:
    """One page of what `principal` may see of the trail; each entry comes with its seal where it has one.

    A role in some teams sees entries of those teams, not those of the organisation as a whole. A text is looked for in
    the next SEARCHED entries only, however few of them hold it, none perhaps: `next` goes on from there.
    """
    size = max(1, min(limit, LARGEST_PAGE))
    chosen = filters or Filters()
    rows = Entry.objects.restrict(principal, Permission.AUDIT_VIEW).filter(_conditions(chosen)).order_by("-pk")
    if cursor is not None:
        rows = rows.filter(pk__lt=cursor)
    end: tuple[uuid.UUID, datetime] | None = None
    if chosen.text:
        end = rows.values_list("pk", "at")[SEARCHED - 1 : SEARCHED].first()
        rows = rows.filter(holds_text(chosen.text))
        rows = rows.filter(pk__gte=end[0]) if end is not None else rows
    found = list(rows.select_related("seal")[: size + 1])
    if len(found) > size:
        return Page(found[:size], found[size - 1].pk)
    return Page(found, *end) if end is not None else Page(found, None)


def entry(*, principal: Principal, entry_id: uuid.UUID) -> Entry | None:
    return Entry.objects.restrict(principal, Permission.AUDIT_VIEW).select_related("seal").filter(pk=entry_id).first()


@dataclass(frozen=True)
class Told:
    """One entry as a page about its subject shows it. `sequence` None: not sealed yet."""

    pk: uuid.UUID
    at: datetime
    event: str
    sentence: str
    sequence: int | None


def entries_about_action(principal: Principal, *, action_id: uuid.UUID, limit: int = 20) -> list[Told]:
    """What the trail says of one action, oldest first; the newest `limit` entries of it. One query.

    In sentences, for everybody who may see the action itself; entries with their payload and proof need AUDIT_VIEW.
    """
    rows = Entry.objects.restrict(principal, Permission.ACTION_VIEW).filter(subject_type="action", subject_id=action_id)
    found = list(rows.select_related("seal").order_by("-pk")[:limit])
    return [
        Told(row.pk, row.at, row.event, sentence(row), row.seal.sequence if hasattr(row, "seal") else None)
        for row in reversed(found)
    ]


def entries_about(subject_id: uuid.UUID, *events: Event, limit: int = LARGEST_PAGE) -> list[Entry]:
    """For whoever may see the subject: when one of these happened to it, oldest first; the newest `limit` of them. One
    query."""
    rows = Entry.objects.filter(subject_id=subject_id, event__in=events).order_by("-id")
    return list(reversed(rows[:limit]))


def who_last(subject_id: uuid.UUID, *events: Event) -> tuple[uuid.UUID, str] | None:
    """Id and name, for whoever may see the subject: who last did one of these to it; None when nobody did."""
    rows = Entry.objects.filter(subject_id=subject_id, event__in=events).order_by("-id")
    return rows.values_list("actor_id", "actor_name").first()


@dataclass(frozen=True)
class Backlog:
    """What is committed and not yet sealed."""

    entries: int
    lag_seconds: float


def sealer_lag_seconds(organisation_id: uuid.UUID) -> float:
    """Age of the organisation's oldest entry that is committed and not yet sealed; 0 when none is."""
    return _lag(Unsealed.objects.filter(organisation_id=organisation_id))


def backlog() -> Backlog:
    """Of all organisations together, for the metrics."""
    return Backlog(Unsealed.objects.count(), _lag(Unsealed.objects.all()))


def _lag(waiting: QuerySet[Unsealed]) -> float:
    oldest = waiting.order_by("entry_id").values("entry_id")[:1]
    at = Entry.objects.filter(pk__in=oldest).values_list("at", flat=True).first()
    return max(0.0, (now() - at).total_seconds()) if at else 0.0


def sealed_entries(organisation_id: uuid.UUID) -> int:
    """How long the organisation's chain is: its last sequence number."""
    last = Seal.objects.filter(organisation_id=organisation_id).order_by("-sequence").values_list("sequence", flat=True)
    return last.first() or 0


@dataclass(frozen=True)
class KeyShown:
    """A signing key as people compare it. `signs`: it is the present one."""

    id: str
    public_key: str
    since: datetime
    signs: bool


def signing_keys() -> list[KeyShown]:
    """The keys of this installation, the present one first."""
    present = keys.present()
    rows = SigningKey.objects.order_by("-created_at")
    shown = [KeyShown(key.pk, key.public_key, key.created_at, key.pk == present) for key in rows]
    return sorted(shown, key=lambda key: not key.signs)


def last_checkpoint(*, principal: Principal) -> Checkpoint | None:
    """The newest signed head of the principal's organisation."""
    return Checkpoint.objects.restrict(principal, Permission.AUDIT_VIEW).order_by("-number").first()


def contradicts_checkpoint(organisation_id: uuid.UUID) -> bool:
    """Whether the chain lacks what was signed last."""
    last = checkpoints.last_checkpoint(organisation_id)
    return last is not None and checkpoints.contradiction(last) is not None


def _conditions(filters: Filters) -> Q:
    conditions = Q()
    exact = {
        "actor_id": filters.actor_id,
        "event": filters.event,
        "subject_type": filters.subject_type,
        "subject_id": filters.subject_id,
        "mission_id": filters.mission_id,
        "at__gte": filters.since,
        "at__lt": filters.until,
    }
    for name, value in exact.items():
        if value not in (None, ""):
            conditions &= Q(**{name: value})
    if filters.person_id:
        conditions &= Q(actor_id=filters.person_id) | Q(subject_id=filters.person_id)
    if filters.agent_id:
        conditions &= Q(actor_id=filters.agent_id) | Q(subject_id=filters.agent_id) | Q(actor_id__in=filters.run_ids)
    if filters.event_kind:
        conditions &= Q(event__startswith=filters.event_kind + ".")
    return conditions
