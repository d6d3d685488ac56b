"""Loading and promoting bundles, and the baseline that is shipped with the product."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Final

from django.db import transaction

from controlplane.audit.events import Event
from controlplane.audit.services import Subject, record
from controlplane.common.clock import now
from controlplane.common.errors import FieldError, conflict, forbidden, invalid, not_found
from controlplane.tenancy.selectors import holders_of
from controlplane.tenancy.types import Permission, Principal
from governance.bundles.active import forget
from governance.bundles.validation import BundleSource, bundle_sha256, check_bundle
from governance.choices import BundleState
from governance.models import PolicyBundle

BASELINE: Final = Path(__file__).parent / "baseline"
_BASELINE_LOCK: Final = 0x52454D49  # serialises processes that start at the same time


def read_source(folder: Path) -> BundleSource:
    """A bundle from its three files: policies.cedar, schema.cedarschema.json, golden.json."""
    return BundleSource(
        policies=(folder / "policies.cedar").read_text(encoding="utf-8"),
        schema=json.loads((folder / "schema.cedarschema.json").read_text(encoding="utf-8")),
        golden_cases=json.loads((folder / "golden.json").read_text(encoding="utf-8")),
    )


def baseline_source() -> BundleSource:
    return read_source(BASELINE)


def ensure_baseline() -> str:
    """Make the shipped baseline the active one; returns its hash. Raises ValueError if it fails its own checks."""
    source = baseline_source()
    sha256 = bundle_sha256(source)
    with transaction.atomic():
        _lock(_BASELINE_LOCK)
        rows = PolicyBundle.objects.filter(organisation__isnull=True)
        if rows.filter(state=BundleState.ACTIVE, sha256=sha256).exists():
            return sha256
        problems = check_bundle(source)
        if problems:
            raise ValueError("The baseline bundle is broken: " + " ".join(problems))
        rows.filter(state=BundleState.ACTIVE).update(state=BundleState.RETIRED)
        PolicyBundle.objects.create(
            name="Baseline",
            sha256=sha256,
            policies=source.policies,
            schema=source.schema,
            golden_cases=source.golden_cases,
            state=BundleState.ACTIVE,
            activated_at=now(),
        )
        transaction.on_commit(forget)
    return sha256


def load_bundle(*, actor: Principal, name: str, source: BundleSource) -> PolicyBundle:
    """Store a draft for the actor's organisation. Raises 422 `bundle.invalid` with every problem."""
    actor.require(Permission.POLICY_WRITE)
    _require_usable(source)
    sha256 = bundle_sha256(source)
    with transaction.atomic():
        bundle = PolicyBundle.objects.create(
            organisation_id=actor.organisation_id,
            name=name[:120],
            sha256=sha256,
            policies=source.policies,
            schema=source.schema,
            golden_cases=list(source.golden_cases),
            loaded_by_id=actor.user_id,
        )
        record(
            event=Event.BUNDLE_LOADED,
            actor=actor,
            subject=Subject("bundle", bundle.pk, bundle.name),
            payload={"sha256": sha256},
        )
    return bundle


def promote_bundle(*, actor: Principal, bundle_id: uuid.UUID) -> PolicyBundle:
    """Make a draft the organisation's rules, never by the person who loaded it; in force at the next decision.

    Raises 409 `bundle.four_eyes`, `bundle.loader_gone`, and 422 `bundle.invalid` for one that passed the checks of an
    earlier release and not today's.
    """
    actor.require(Permission.POLICY_WRITE)
    bundle = PolicyBundle.objects.restrict(actor, Permission.POLICY_WRITE).filter(pk=bundle_id).first()
    if bundle is None:
        raise not_found("bundle")
    if actor.user_id is None:
        raise forbidden(Permission.POLICY_WRITE.value)
    if bundle.loaded_by_id in (None, actor.user_id):
        raise conflict(
            "bundle.four_eyes",
            "A bundle is promoted by a second person.",
            "Ask a colleague with the permission “policy.write”.",
        )
    if bundle.loaded_by_id not in holders_of(
        Permission.POLICY_WRITE, organisation_id=actor.organisation_id, team_id=None
    ):
        raise conflict(
            "bundle.loader_gone",
            "Who loaded this bundle may not change policies any more, so nobody but you stands for it.",
            "Load it yourself, and ask a colleague with the permission “policy.write” to promote it.",
        )
    _require_usable(BundleSource(bundle.policies, bundle.schema, bundle.golden_cases))
    with transaction.atomic():
        _lock(bundle.organisation_id.int & 0x7FFFFFFF if bundle.organisation_id else _BASELINE_LOCK)
        mine = PolicyBundle.objects.filter(organisation_id=actor.organisation_id)
        mine.filter(state=BundleState.ACTIVE).update(state=BundleState.RETIRED)
        if not mine.filter(pk=bundle.pk, state=BundleState.DRAFT).update(state=BundleState.ACTIVE, activated_at=now()):
            raise conflict("bundle.not_a_draft", "This bundle is no longer a draft.", "Load the bundle again.")
        record(
            event=Event.BUNDLE_PROMOTED,
            actor=actor,
            subject=Subject("bundle", bundle.pk, bundle.name),
            payload={"sha256": bundle.sha256},
        )
        organisation_id = actor.organisation_id
        transaction.on_commit(lambda: forget(organisation_id))
    bundle.refresh_from_db()
    return bundle


def _require_usable(source: BundleSource) -> None:
    problems = check_bundle(source)
    if problems:
        raise invalid(
            "bundle.invalid",
            "This bundle can't be used as it is.",
            *[FieldError("/policies", problem) for problem in problems],
        )


def _lock(key: int) -> None:
    with transaction.get_connection().cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [key])
