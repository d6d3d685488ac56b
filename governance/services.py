"""What other apps may ask of governance, by use case. Reads are in `governance.selectors`."""

from governance.bundles import ensure_baseline, load_bundle, policy_loaded, promote_bundle
from governance.escalations.arranging import (
    Route,
    move_route,
    remove_route,
    retire_group,
    save_group,
    save_route,
    version_of_group,
    version_of_route,
)
from governance.escalations.breaking_glass import break_glass, review_break_glass
from governance.escalations.claiming import claim, release
from governance.escalations.closing import withdraw
from governance.escalations.conversing import answer_question, ask_agent, comment
from governance.escalations.deciding import Result, decide, decide_many
from governance.escalations.delegating import delegate, end_delegation
from governance.escalations.editing import Edited, EditPreview, edit_and_approve, preview_edit
from governance.escalations.notifying import mark_read, send_mails, tell_about, untold
from governance.escalations.telling import News, settle_notices, tell_answer, tell_people
from governance.judging import is_on as judge_is_on
from governance.judging import troubled as troubled_judges
from governance.outcomes import check_outcome, reconcile, record_outcome, record_outcome_of
from governance.previewing import preview, preview_all
from governance.proposing import propose, propose_and_start
from governance.redeeming import redeem
from governance.sequence import calls_so_far, total_so_far
from governance.stopping import Alive, Reach, Voided, alive, void_reach
from governance.sweeping import SweepCounts, VoidCounts, sweep, void_open

__all__ = [
    "Alive",
    "EditPreview",
    "Edited",
    "News",
    "Reach",
    "Result",
    "Route",
    "SweepCounts",
    "VoidCounts",
    "Voided",
    "alive",
    "answer_question",
    "ask_agent",
    "break_glass",
    "calls_so_far",
    "check_outcome",
    "claim",
    "comment",
    "decide",
    "decide_many",
    "delegate",
    "edit_and_approve",
    "end_delegation",
    "ensure_baseline",
    "judge_is_on",
    "load_bundle",
    "mark_read",
    "move_route",
    "policy_loaded",
    "preview",
    "preview_all",
    "preview_edit",
    "promote_bundle",
    "propose",
    "propose_and_start",
    "reconcile",
    "record_outcome",
    "record_outcome_of",
    "redeem",
    "release",
    "remove_route",
    "retire_group",
    "review_break_glass",
    "save_group",
    "save_route",
    "send_mails",
    "settle_notices",
    "sweep",
    "tell_about",
    "tell_answer",
    "tell_people",
    "total_so_far",
    "troubled_judges",
    "untold",
    "version_of_group",
    "version_of_route",
    "void_open",
    "void_reach",
    "withdraw",
]
