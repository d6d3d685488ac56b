"""Policies: the rules in force, each with its words, and the cases they are proven by. Nothing is changed here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from django.http import HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET

from controlplane.tenancy import selectors as tenancy
from controlplane.tenancy.types import Permission
from frontend.pages import PersonRequest, page, require_anywhere
from frontend.policy_words import Change, changes_between, policies_in
from governance import selectors
from governance.bundles import BundleSource, run_golden_cases
from governance.choices import BundleState
from governance.models import PolicyBundle

MOST_WAITING = 5


@dataclass(frozen=True)
class Waiting:
    """A bundle that a second person may promote. `cases`: how many golden cases only one of the two has."""

    bundle: PolicyBundle
    loaded_by: str
    yours: bool
    changes: Sequence[Change]
    cases: int
    other_schema: bool


@page
@require_GET
def active(request: PersonRequest) -> HttpResponse:
    require_anywhere(request.principal, Permission.POLICY_VIEW, "Policies")
    bundle = selectors.bundle_in_force(request.principal)
    others = selectors.bundles(principal=request.principal)
    waiting = _waiting(request, bundle, [other for other in others if other.state == BundleState.DRAFT])
    if bundle is None:
        return render(request, "policies/page.html", {"bundle": None, "waiting": waiting})
    source = BundleSource(policies=bundle.policies, schema=bundle.schema, golden_cases=bundle.golden_cases)
    context = {
        "bundle": bundle,
        "policies": policies_in(bundle.policies),
        "cases": run_golden_cases(source),
        "others": others,
        "waiting": waiting,
    }
    return render(request, "policies/page.html", context)


def _waiting(request: PersonRequest, bundle: PolicyBundle | None, drafts: Sequence[PolicyBundle]) -> list[Waiting]:
    """The newest of those that were loaded and not promoted, each beside the rules in force."""
    shown = drafts[:MOST_WAITING]
    names = tenancy.names_of_people(request.principal, (draft.loaded_by_id for draft in shown))
    text, cases = (bundle.policies, bundle.golden_cases) if bundle else ("", [])
    return [
        Waiting(
            bundle=draft,
            loaded_by=names.get(draft.loaded_by_id, "Somebody"),
            yours=draft.loaded_by_id == request.principal.user_id,
            changes=changes_between(text, draft.policies),
            cases=sum(case not in draft.golden_cases for case in cases)
            + sum(case not in cases for case in draft.golden_cases),
            other_schema=bundle is not None and bundle.schema != draft.schema,
        )
        for draft in shown
    ]
