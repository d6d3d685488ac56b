"""What other apps may ask of governance, by use case. Reads are in `governance.selectors`."""

from governance.bundles import ensure_baseline, load_bundle, policy_loaded, promote_bundle
from governance.escalations.closing import withdraw
from governance.escalations.deciding import decide, decide_many
from governance.judging import is_on as judge_is_on
from governance.judging import troubled as troubled_judges
from governance.outcomes import check_outcome, reconcile, record_outcome, record_outcome_of
from governance.previewing import preview
from governance.proposing import propose, propose_and_start
from governance.redeeming import redeem
from governance.sweeping import SweepCounts, VoidCounts, sweep, void_open

__all__ = [
    "SweepCounts",
    "VoidCounts",
    "check_outcome",
    "decide",
    "decide_many",
    "ensure_baseline",
    "judge_is_on",
    "load_bundle",
    "policy_loaded",
    "preview",
    "promote_bundle",
    "propose",
    "propose_and_start",
    "reconcile",
    "record_outcome",
    "record_outcome_of",
    "redeem",
    "sweep",
    "troubled_judges",
    "void_open",
    "withdraw",
]
