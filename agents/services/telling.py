"""Telling the owners of missions what others did to them, or what waits for their word."""

from __future__ import annotations

import uuid
from collections.abc import Iterable

from agents.choices import Outcome
from agents.models import Mission
from controlplane.common.ids import new_id
from controlplane.tenancy.types import Principal
from governance import services as governance
from governance.choices import NoticeKind

_TO_ACCEPT = "Outcome to accept"


def tell_claim(mission: Mission, *, actor: Principal) -> None:
    """Told once, however often it is claimed."""
    tell_owners([mission], _TO_ACCEPT, actor=actor, once=mission.pk)


def settle_claims(missions: Iterable[Mission]) -> None:
    """Inside the transaction in which they end: nobody is to accept their outcome any more."""
    claimed = [mission.pk for mission in missions if mission.outcome != Outcome.NONE]
    governance.settle_notices(kind=NoticeKind.MISSION, about_ids=claimed, was=_TO_ACCEPT, by_now="Outcome claimed")


def tell_owners(missions: Iterable[Mission], what: str, *, actor: Principal, once: uuid.UUID | None = None) -> None:
    """Inside the transaction of the change; who did it needs no telling. `once`: not again under that id."""
    governance.tell_people(
        governance.News(
            user_id=mission.owner_id,
            organisation_id=mission.organisation_id,
            team_id=mission.team_id,
            kind=NoticeKind.MISSION,
            subject_type="mission",
            subject_id=mission.pk,
            about_id=once or new_id(),
            text=f"{what}: {mission.title}",
        )
        for mission in missions
        if mission.owner_id != actor.user_id
    )
