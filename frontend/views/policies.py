"""Policies: the rules in force, each with its words, and the cases they are proven by. Nothing is changed here."""

from __future__ import annotations

from django.http import HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET

from controlplane.tenancy.types import Permission
from frontend.pages import PersonRequest, page, require_anywhere
from frontend.policy_words import policies_in
from governance import selectors
from governance.bundles import BundleSource, run_golden_cases


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
        "policies": policies_in(bundle.policies),
        "cases": run_golden_cases(source),
        "others": selectors.bundles(principal=request.principal),
    }
    return render(request, "policies/page.html", context)
