"""Policies: the rules in force, each with its words, and the cases they are proven by. Nothing is changed here."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache

import cedarpy
from django.http import HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET

from controlplane.tenancy.types import Permission
from frontend.pages import PersonRequest, page, require_anywhere
from governance import selectors
from governance.bundles import BundleSource, run_golden_cases


@dataclass(frozen=True)
class Policy:
    """One policy of the bundle, in the words it carries. `tone`: what it does when it matches."""

    identifier: str
    tone: str
    does: str
    message: str
    remedy: str
    code: str


@page
@require_GET
def active(request: PersonRequest) -> HttpResponse:
    require_anywhere(request.principal, Permission.POLICY_VIEW, "Policies")
    bundle = selectors.bundle_in_force(request.principal)
    if bundle is None:
        return render(request, "policies/page.html", {"bundle": None})
    source = BundleSource(policies=bundle.policies, schema=bundle.schema, golden_cases=bundle.golden_cases)
    context = {
        "bundle": bundle,
        "policies": _policies(bundle.policies),
        "cases": run_golden_cases(source),
        "others": selectors.bundles(principal=request.principal),
    }
    return render(request, "policies/page.html", context)


@lru_cache(maxsize=16)
def _policies(text: str) -> list[Policy]:
    """In the order of the text."""
    parsed = json.loads(cedarpy.policies_to_json_str(text))["staticPolicies"]
    found = [_policy(name, body) for name, body in parsed.items()]
    return sorted(found, key=lambda policy: text.find(f'@id("{policy.identifier}")'))


def _policy(name: str, body: dict[str, object]) -> Policy:
    annotations = body.get("annotations")
    notes: dict[str, str] = annotations if isinstance(annotations, dict) else {}
    if notes.get("effect") == "escalate":
        tone, does = "ask", "Asks a person"
    elif body.get("effect") == "forbid":
        tone, does = "deny", "Refuses"
    else:
        tone, does = "allow", "Permits"
    return Policy(
        identifier=notes.get("id", name),
        tone=tone,
        does=does,
        message=notes.get("message", ""),
        remedy=notes.get("remedy", ""),
        code=notes.get("code", ""),
    )
