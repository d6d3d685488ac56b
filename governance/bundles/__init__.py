"""Policy bundles: loaded, checked, promoted by a second person, found again for each decision."""

from governance.bundles.active import LoadedBundle, active_bundle, bundle_in_force, forget, policy_loaded
from governance.bundles.lifecycle import baseline_source, ensure_baseline, load_bundle, promote_bundle
from governance.bundles.validation import BundleSource, GoldenResult, bundle_sha256, check_bundle, run_golden_cases

__all__ = [
    "BundleSource",
    "GoldenResult",
    "LoadedBundle",
    "active_bundle",
    "baseline_source",
    "bundle_in_force",
    "bundle_sha256",
    "check_bundle",
    "ensure_baseline",
    "forget",
    "load_bundle",
    "policy_loaded",
    "promote_bundle",
    "run_golden_cases",
]
