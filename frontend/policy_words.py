"""The policies of a bundle in the words they carry."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import quote

import cedarpy


@dataclass(frozen=True)
class Policy:
    """One policy of the bundle, in the words it carries. `tone`: what it does when it matches."""

    identifier: str
    tone: str
    glyph: str
    does: str
    message: str
    remedy: str
    code: str

    @property
    def anchor(self) -> str:
        return anchor_of(self.identifier)


@dataclass(frozen=True)
class Change:
    """What a bundle does to one policy of the rules in force: adds, changes or removes it."""

    does: str
    policy: Policy


def changes_between(text: str, other: str) -> list[Change]:
    """From one bundle's text to another's, whatever their layout: what is new or different as it is in the other."""
    before, after = _bodies(text), _bodies(other)
    found = [
        Change("Changes" if policy.identifier in before else "Adds", policy)
        for policy in policies_in(other)
        if before.get(policy.identifier) != after[policy.identifier]
    ]
    gone = [policy for policy in policies_in(text) if policy.identifier not in after]
    return found + [Change("Removes", policy) for policy in gone]


def anchor_of(identifier: str) -> str:
    """The id of its row on the policies page, and the fragment that leads there: any text may be an `@id`."""
    return f"policy-{quote(identifier, safe='')}"


@lru_cache(maxsize=16)
def policies_in(text: str) -> list[Policy]:
    """In the order of the text."""
    found = [_policy(name, body) for name, body in _parsed(text).items()]
    return sorted(found, key=lambda policy: text.find(f'@id("{policy.identifier}")'))


def _parsed(text: str) -> dict[str, dict[str, object]]:
    parsed: dict[str, dict[str, object]] = json.loads(cedarpy.policies_to_json_str(text))["staticPolicies"]
    return parsed


def _bodies(text: str) -> dict[str, dict[str, object]]:
    return {_policy(name, body).identifier: body for name, body in _parsed(text).items()}


def _policy(name: str, body: dict[str, object]) -> Policy:
    annotations = body.get("annotations")
    notes: dict[str, str] = annotations if isinstance(annotations, dict) else {}
    if notes.get("effect") == "escalate":
        tone, glyph, does = "ask", "ask", "Asks a person"
    elif notes.get("effect") == "judge":
        tone, glyph, does = "ask", "judge", "Asks the judge"
    elif body.get("effect") == "forbid":
        tone, glyph, does = "deny", "deny", "Refuses"
    else:
        tone, glyph, does = "allow", "allow", "Permits"
    return Policy(
        identifier=notes.get("id", name),
        tone=tone,
        glyph=glyph,
        does=does,
        message=notes.get("message", ""),
        remedy=notes.get("remedy", ""),
        code=notes.get("code", ""),
    )
