"""What a change of a mission would do, asked of the gate before anything is sent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import tzinfo

from agents.choices import MissionState
from agents.grant_changes import Change
from agents.kinds.sign_off import prepare_widening
from agents.models import Mission, MissionVersion
from agents.remits import Remit, changes, remit_in_force, widens
from controlplane.tenancy.types import Principal
from governance import selectors as governance_reads
from governance import services as governance
from governance.choices import Verdict
from governance.types import Finding


@dataclass(frozen=True)
class Rewording:
    """`finding` is the gate's answer as things stand; None for a mission that has not started, which asks nobody.
    `whom`: who would decide, where somebody has to."""

    changes: Sequence[Change]
    finding: Finding | None
    whom: governance_reads.Foreseen | None = None

    @property
    def asks(self) -> bool:
        return self.finding is not None and self.finding.verdict is Verdict.ESCALATE

    @property
    def refused(self) -> bool:
        return self.finding is not None and self.finding.verdict is Verdict.DENY


def preview_change(
    *, actor: Principal, mission: Mission, current: MissionVersion, remit: Remit, zone: tzinfo
) -> Rewording:
    """For a mission and its version in force as read for `actor`. Nothing is written."""
    before = remit_in_force(mission, current)
    found = changes(before, remit, currency=current.currency, zone=zone)
    if mission.state in (MissionState.DRAFT, MissionState.AWAITING_SIGN_OFF):
        return Rewording(found, None)
    prepared = prepare_widening(proposer=actor, mission=mission, remit=remit, widens=widens(before, remit))
    finding = governance.preview(kind="mission.widen", prepared=prepared, organisation_id=actor.organisation_id)
    if finding.verdict is not Verdict.ESCALATE:
        return Rewording(found, finding)
    whom = governance_reads.whom_it_asks(proposer=actor, kind="mission.widen", prepared=prepared)
    return Rewording(found, finding, whom)
