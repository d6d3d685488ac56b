"""Who may answer a question: the role, the group, who stands in for whom, and who is too close to it. Reads only."""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from django.db.models import F

from controlplane.common.clock import now
from controlplane.tenancy.models import Membership
from controlplane.tenancy.types import ROLE_PERMISSIONS, Permission, Role
from governance.approval_models import ApproverGroup, Delegation
from governance.models import Escalation, Vote

DECIDING_ROLES = tuple(role.value for role in Role if Permission.ESCALATION_DECIDE in ROLE_PERMISSIONS[role])


@dataclass(frozen=True)
class Electorate:
    """Of one question, now. A seat is a person's say: a delegate without one of their own uses that of whom they stand
    in for, so that nobody's say counts twice.

    `deciders` hold the role in the question's team; `members` are the groups asked so far, None for every decider.
    """

    deciders: frozenset[uuid.UUID]
    members: frozenset[uuid.UUID] | None
    stands_in_for: Mapping[uuid.UUID, Sequence[uuid.UUID]]
    excluded: frozenset[uuid.UUID]  # asked for it, or concerned
    delegates_of_excluded: frozenset[uuid.UUID]

    def too_close(self, user_id: uuid.UUID) -> bool:
        return user_id in self.excluded or user_id in self.delegates_of_excluded

    def seats_of(self, user_id: uuid.UUID) -> list[uuid.UUID]:
        """Whose say this person may use, their own first; empty for nobody's."""
        if user_id not in self.deciders or self.too_close(user_id):
            return []
        if self.members is None:
            return [user_id]
        own = [user_id] if user_id in self.members else []
        others = [other for other in self.stands_in_for.get(user_id, ()) if self._lends(other)]
        return own or others

    def taken(
        self, votes: Iterable[Vote], *, besides: uuid.UUID | None = None, first: uuid.UUID | None = None
    ) -> set[uuid.UUID]:
        """The seats that the approving votes use, after `first`. A vote of somebody who may no longer decide uses
        none."""
        seats: set[uuid.UUID] = {first} if first else set()
        for vote in sorted((vote for vote in votes if vote.approve), key=_own_first):
            if vote.user_id == besides:
                continue
            free = [seat for seat in self.seats_of(vote.user_id) if seat not in seats]
            seats.update(free[:1])
        return seats

    def seat_for(self, user_id: uuid.UUID, votes: Iterable[Vote]) -> uuid.UUID | None:
        """The seat this person's approval would use; None when they have none, or all of theirs are used. One's own is
        always one's own: answering takes it back from whoever stood in."""
        if user_id in self.seats_of(user_id):
            return user_id
        taken = self.taken(votes, besides=user_id)
        return next((seat for seat in self.seats_of(user_id) if seat not in taken), None)

    def count_with(self, user_id: uuid.UUID, votes: Collection[Vote]) -> int:
        """Approvals that count once this person has approved."""
        return len(self.taken(votes, besides=user_id, first=self.seat_for(user_id, votes)))

    def reachable(self, votes: Collection[Vote]) -> int:
        """How many approvals there could be at most, if everybody left to answer agreed."""
        seats, voted = self.taken(votes), {vote.user_id for vote in votes}
        for user_id in sorted(self.deciders - voted, key=lambda one: (one not in (self.members or {one}), one)):
            free = [seat for seat in self.seats_of(user_id) if seat not in seats]
            seats.update(free[:1])
        return len(seats)

    @property
    def people(self) -> list[uuid.UUID]:
        """Everybody who may answer."""
        return sorted(user_id for user_id in self.deciders if self.seats_of(user_id))

    def _lends(self, user_id: uuid.UUID) -> bool:
        """Whether standing in for this person gives a say: they have one themselves, and are not too close."""
        asked = self.members is not None and user_id in self.members
        return asked and user_id in self.deciders and not self.too_close(user_id)


def electorate_of(escalation: Escalation) -> Electorate:
    return electorates([escalation])[escalation.pk]


def electorates(escalations: Sequence[Escalation]) -> dict[uuid.UUID, Electorate]:
    """Of questions of one organisation, each with its action fetched: three queries however many they are."""
    if not escalations:
        return {}
    organisation_id = escalations[0].organisation_id
    deciders = deciders_of(organisation_id)
    groups = members_of({group for row in escalations for group in (row.group_id, row.next_group_id) if group})
    since = min(row.opened_at for row in escalations)
    delegations = list(in_force_since(organisation_id, since))
    return {row.pk: _electorate(row, deciders, groups, delegations) for row in escalations}


def in_force_since(organisation_id: uuid.UUID, since: datetime) -> Iterable[Delegation]:
    """Delegations that held at some time from then until now."""
    return Delegation.objects.filter(
        organisation_id=organisation_id, starts_at__lte=now(), ends_at__gt=since, starts_at__lt=F("ends_at")
    ).order_by("id")


def _electorate(
    row: Escalation,
    deciders: Mapping[uuid.UUID | None, set[uuid.UUID]],
    groups: Mapping[uuid.UUID, frozenset[uuid.UUID]],
    delegations: Iterable[Delegation],
) -> Electorate:
    moment = now()
    excluded = frozenset({*row.excluded_user_ids, row.action.proposer_id})
    stands_in: dict[uuid.UUID, list[uuid.UUID]] = defaultdict(list)
    close: set[uuid.UUID] = set()
    for delegation in delegations:
        if delegation.ends_at > moment:
            stands_in[delegation.to_user_id].append(delegation.from_user_id)
        if delegation.from_user_id in excluded and delegation.ends_at > row.opened_at:
            close.add(delegation.to_user_id)
    return Electorate(
        deciders=frozenset(deciders.get(None, set()) | deciders.get(row.team_id, set())),
        members=_asked(row, groups),
        stands_in_for=stands_in,
        excluded=excluded,
        delegates_of_excluded=frozenset(close),
    )


def _asked(row: Escalation, groups: Mapping[uuid.UUID, frozenset[uuid.UUID]]) -> frozenset[uuid.UUID] | None:
    """The next tier is asked as well as the first, not instead of it."""
    tiers = [row.group_id] if row.tier == 1 else [row.group_id, row.next_group_id]
    if None in tiers:
        return None
    return frozenset().union(*(groups.get(group, frozenset()) for group in tiers if group))


def deciders_of(organisation_id: uuid.UUID) -> dict[uuid.UUID | None, set[uuid.UUID]]:
    """Who holds the role, by team; None: in all of them."""
    found: dict[uuid.UUID | None, set[uuid.UUID]] = defaultdict(set)
    held = (
        Membership.objects.standing()
        .filter(organisation_id=organisation_id, role__in=DECIDING_ROLES)
        .values_list("team_id", "user_id")
    )
    for team_id, user_id in held:
        found[team_id].add(user_id)
    return found


def members_of(group_ids: Collection[uuid.UUID]) -> dict[uuid.UUID, frozenset[uuid.UUID]]:
    if not group_ids:
        return {}
    found: dict[uuid.UUID, set[uuid.UUID]] = defaultdict(set)
    rows = ApproverGroup.members.through.objects.filter(approvergroup_id__in=group_ids)
    for group_id, user_id in rows.values_list("approvergroup_id", "user_id"):
        found[group_id].add(user_id)
    return {group_id: frozenset(users) for group_id, users in found.items()}


def _own_first(vote: Vote) -> tuple[bool, uuid.UUID]:
    return vote.for_user_id is not None, vote.pk
