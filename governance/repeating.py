"""The repeat of a call that waits for a person: it joins the question that is open instead of asking it once more."""

from __future__ import annotations

import uuid
from typing import Final

from django.db import connection

from controlplane.common.clock import now
from governance.types import Prepared, Proposal

# By way of the mission's open questions: there are few of them, while a run may have thousands of actions. What people
# edited is found by what the agent asked for first as well.
_WAITING: Final = """
SELECT a.id FROM governance_escalation e JOIN governance_action a ON a.id = e.action_id
WHERE e.mission_id = %s AND e.state = 'open' AND e.expires_at > %s
  AND a.run_id = %s AND a.state = 'waiting'
  AND (a.digest = %s OR a.replaces_id IS NOT NULL AND %s IN (
    WITH RECURSIVE before(digest, replaces_id) AS (
      SELECT o.digest, o.replaces_id FROM governance_action o WHERE o.id = a.replaces_id
      UNION ALL
      SELECT o.digest, o.replaces_id FROM before JOIN governance_action o ON o.id = before.replaces_id
    ) SELECT digest FROM before))
ORDER BY a.id LIMIT 1
"""
_LOCK: Final = "SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))"


class AlreadyWaits(Exception):
    """This very action waits already, as `action_id`. Nothing of the transaction may stay."""

    def __init__(self, action_id: uuid.UUID) -> None:
        super().__init__(str(action_id))
        self.action_id = action_id


def refuse_second_question(proposal: Proposal, *, prepared: Prepared, digest: str, locking: bool = False) -> None:
    """Raises AlreadyWaits. A proposal with a key of its own means another action, and may wait beside the first.

    `locking`: inside a transaction, after every other question about the same digest of the run was written.
    """
    if prepared.run_id is None or proposal.idempotency_key is not None:
        return
    with connection.cursor() as cursor:
        if locking:
            cursor.execute(_LOCK, [f"question:{prepared.run_id}:{digest}"])
        cursor.execute(_WAITING, [prepared.mission_id, now(), prepared.run_id, digest, digest])
        row = cursor.fetchone()
    if row is not None:
        raise AlreadyWaits(row[0])
