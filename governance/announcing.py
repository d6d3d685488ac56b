"""Which pages hear of a change: one hint per topic and transaction."""

from __future__ import annotations

import uuid

from controlplane.live.services import announce
from governance.models import Action


def action_changed(action: Action) -> None:
    announce(f"action:{action.pk}", "state")
    if action.mission_id is not None:
        announce(f"mission:{action.mission_id}", "actions")
    announce(f"organisation:{action.organisation_id}", "actions")


def inbox_changed(action: Action) -> None:
    """An escalation of the action was opened, voted on or closed."""
    electorate_changed(action.organisation_id)


def electorate_changed(organisation_id: uuid.UUID) -> None:
    """Open questions wait for others than before."""
    announce(f"approvals:{organisation_id}", "inbox")


def glass_changed(action: Action) -> None:
    """The glass was broken over it, or that was reviewed: every page warns of it until then."""
    announce(f"warnings:{action.organisation_id}", "warnings")


def question_stands(escalation_id: uuid.UUID) -> None:
    """People are to be told of it, once this is committed: it went on, was answered or passed over. One that was opened
    is found by the sweep: who proposes never waits for the broker."""
    from governance.tasks import tell  # the tasks import the services, which announce

    tell.wake(str(escalation_id))
