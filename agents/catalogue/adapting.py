"""Grants of the shipped samples, which know nothing of the platform, as grants of a mission."""

from __future__ import annotations

from collections.abc import Sequence

from agents.grants import Grant
from agents.samples import terms


def grants_of(grants: Sequence[terms.Grant]) -> tuple[Grant, ...]:
    return tuple(
        Grant(
            tool=grant.tool,
            effect=grant.effect.value,
            constraints={name: dict(rules) for name, rules in grant.constraints.items()},
            max_calls=grant.max_calls,
            sentence=grant.sentence,
        )
        for grant in grants
    )
