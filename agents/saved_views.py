"""Saved views: the filters of a list under a name, for oneself or for a team."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlencode

from django.db import IntegrityError, models, transaction
from django.db.models import Q

from controlplane.audit.events import Event
from controlplane.audit.services import Subject, record
from controlplane.common.errors import FieldError, conflict, invalid, not_found
from controlplane.common.ids import new_id
from controlplane.tenancy.models import Team
from controlplane.tenancy.types import Permission, Principal

LONGEST_NAME, LONGEST_QUERY, MOST = 40, 800, 30
LISTS = ("missions", "agents", "audit", "approvals")
_NOT_A_FILTER = frozenset({"cursor", "format", "part"})


class SavedView(models.Model):
    """`query` is what follows the question mark. `team`: everybody of that team sees it; empty: its owner alone."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    organisation = models.ForeignKey("tenancy.Organisation", on_delete=models.CASCADE, related_name="+")
    owner = models.ForeignKey("tenancy.User", on_delete=models.CASCADE, related_name="+")
    team = models.ForeignKey("tenancy.Team", on_delete=models.CASCADE, null=True, related_name="+")
    list = models.CharField(max_length=20)
    name = models.CharField(max_length=LONGEST_NAME)
    query = models.CharField(max_length=LONGEST_QUERY)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        app_label = "agents"
        constraints = [
            models.UniqueConstraint(fields=["organisation", "owner", "list", "name"], name="saved_view_once")
        ]

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class View:
    """One saved view as a list shows it. `removable`: by the reader, whose own it is not always."""

    id: uuid.UUID
    list: str
    name: str
    query: str
    mine: bool
    shared_with: str
    removable: bool


def views_of(principal: Principal, list_name: str | None) -> list[View]:
    """Of one list, or of all: the reader's own, then those shared with teams they are in, each by name: what others
    share never hides one's own. One query."""
    if principal.user_id is None:
        return []
    seen = Team.objects.restrict(principal, Permission.MEMBER_VIEW)
    lists = [list_name] if list_name else LISTS
    rows = SavedView.objects.filter(organisation_id=principal.organisation_id, list__in=lists)
    own = Q(owner_id=principal.user_id)
    rows = rows.filter(own | Q(team__in=seen)).select_related("team", "owner")
    rows = rows.order_by(models.Case(models.When(own, then=0), default=1), "name", "pk")
    return [
        View(
            id=row.pk,
            list=row.list,
            name=row.name,
            query=row.query,
            mine=row.owner_id == principal.user_id,
            shared_with=row.team.name if row.team else "",
            removable=row.owner_id == principal.user_id or _clears_up(principal, row),
        )
        for row in rows.order_by(models.Case(models.When(own, then=0), default=1), "name", "pk")[
            : 2 * MOST * (1 if list_name else len(LISTS))
        ]
    ]


def save_view(
    *, actor: Principal, list_name: str, name: str, query: str, team_id: uuid.UUID | None = None
) -> SavedView:
    """Sharing with a team is told in the trail. Raises 422 `view.invalid`, 409 `view.name_taken`, `view.too_many`."""
    words, filters = " ".join(name.split()), filters_of(query)
    errors = []
    if not actor.is_person or actor.user_id is None or list_name not in LISTS:
        raise invalid("view.invalid", "Views are saved by people, of a list that has some.")
    if not 1 <= len(words) <= LONGEST_NAME or not words.isprintable():
        errors.append(FieldError("/name", f"1 to {LONGEST_NAME} characters"))
    if not filters or len(filters) > LONGEST_QUERY:
        errors.append(FieldError("/query", "a filter: choose one first"))
    if team_id is not None and not Team.objects.restrict(actor, Permission.MEMBER_VIEW).filter(pk=team_id).exists():
        errors.append(FieldError("/team", "a team of yours"))
    if errors:
        raise invalid("view.invalid", "The view was not saved.", *errors)
    own = SavedView.objects.filter(organisation_id=actor.organisation_id, owner_id=actor.user_id, list=list_name)
    if own.count() >= MOST:
        raise conflict("view.too_many", f"You have {MOST} views of this list.", "Remove one first.")
    try:
        with transaction.atomic():
            view = SavedView.objects.create(
                organisation_id=actor.organisation_id,
                owner_id=actor.user_id,
                team_id=team_id,
                list=list_name,
                name=words,
                query=filters,
            )
            _tell(actor, view, Event.VIEW_SHARED)
            return view
    except IntegrityError as error:
        if "saved_view_once" not in str(error):
            raise
        raise conflict("view.name_taken", f"You have a view called “{words}”.", "Choose another name.") from error


def remove_view(*, actor: Principal, view_id: uuid.UUID) -> SavedView:
    """One's own, and what is shared with a team whose members the actor administers: its owner may be gone. Told in the
    trail when a team has it no more. Raises 404."""
    shared = Q(team__in=Team.objects.restrict(actor, Permission.MEMBER_WRITE))
    rows = SavedView.objects.filter(
        Q(owner_id=actor.user_id) | shared, organisation_id=actor.organisation_id, pk=view_id
    )
    with transaction.atomic():
        row = rows.select_for_update(of=("self",)).first() if actor.user_id is not None else None
        if row is None:
            raise not_found("view")
        rows.delete()
        _tell(actor, row, Event.VIEW_UNSHARED)
    return row


def _clears_up(principal: Principal, view: SavedView) -> bool:
    return view.team_id is not None and principal.has(Permission.MEMBER_WRITE, team_id=view.team_id)


def filters_of(query: str) -> str:
    """A query string as it is kept: what filters, without the page somebody happened to be on."""
    pairs = parse_qsl(query[: 4 * LONGEST_QUERY].lstrip("?"), max_num_fields=40)
    return urlencode([(name, value) for name, value in pairs if name not in _NOT_A_FILTER and value])


def _tell(actor: Principal, view: SavedView, event: Event) -> None:
    """What a team sees is told; one's own views are nobody's business."""
    if view.team is not None:
        facts = {"list": view.list, "team": view.team.name, "filters": view.query}
        record(event=event, actor=actor, subject=Subject("view", view.pk, view.name, view.team_id), payload=facts)
