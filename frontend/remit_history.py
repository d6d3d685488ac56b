"""The versions of a remit: who made each, who signed it off, and what any two of them differ in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from agents.grant_changes import Change
from agents.models import Mission, MissionVersion
from agents.remits import Remit, changes, remit_of
from controlplane.tenancy.types import Principal
from frontend.approving import DiffLine, diff_lines
from frontend.asked import Asked, asked
from frontend.pages import zone_of

_KINDS = ("mission.sign_off", "mission.widen")


@dataclass(frozen=True)
class VersionRow:
    version: MissionVersion
    remit: Remit
    asked: Asked | None


@dataclass(frozen=True)
class Comparison:
    """From `before` to `after`, in sentences; the goal line by line where it changed."""

    before: MissionVersion
    after: MissionVersion
    changes: Sequence[Change]
    goal_lines: Sequence[DiffLine]


def version_rows(principal: Principal, mission: Mission) -> list[VersionRow]:
    """Newest first. `mission.versions` must be prefetched."""
    questions: dict[int | None, Asked] = {}
    for item in asked(principal, mission, _KINDS, limit=100):
        questions.setdefault(item.action.mission_version, item)
    return [VersionRow(row, remit_of(row), questions.get(row.number)) for row in mission.versions.all()]


def compared(
    principal: Principal, mission: Mission, *, before: str | None = None, after: str | None = None
) -> Comparison | None:
    """Two versions by number; without numbers, or with unknown ones, the newest with what it followed."""
    versions = {version.number: version for version in mission.versions.all()}
    if len(versions) < 2:
        return None
    new = versions.get(_number(after)) or versions[max(versions)]
    others = [number for number in versions if number != new.number]
    usual = mission.version if mission.version < new.number else max((n for n in others if n < new.number), default=0)
    old = versions.get(_number(before)) or versions.get(usual) or versions[min(others)]
    return comparison(principal, old, new)


def comparison(principal: Principal, before: MissionVersion, after: MissionVersion) -> Comparison:
    return Comparison(
        before,
        after,
        changes(remit_of(before), remit_of(after), currency=after.currency, zone=zone_of(principal)),
        diff_lines(before.goal, after.goal) if before.goal != after.goal else [],
    )


def _number(text: str | None) -> int:
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 9 else 0
