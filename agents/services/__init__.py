"""Every write of the pillar, by use case."""

from agents.remits import Remit
from agents.services.agents import add_version, note_heartbeat, register_agent, reinstate_agent, retire_agent
from agents.services.asking import ask_for_budget, whom_a_request_asks
from agents.services.changing import change_mission
from agents.services.credentials import issue_credential, revoke_credential
from agents.services.lifting import ask_to_lift, nobody_could_agree_to_lifting, resume_lifted
from agents.services.missions import (
    accept_outcome,
    expire_missions,
    pause_mission,
    reject_outcome,
    resume_mission,
    stop_mission,
)
from agents.services.people import update_profile
from agents.services.progress import claim_outcome, report_progress
from agents.services.runs import issue_run_token, restart_run
from agents.services.starting import draft_mission, submit_mission
from agents.services.stopping import note_open_proofs, note_proofs, stop
from agents.services.teams import add_team

__all__ = [
    "Remit",
    "accept_outcome",
    "add_team",
    "add_version",
    "ask_for_budget",
    "ask_to_lift",
    "change_mission",
    "claim_outcome",
    "draft_mission",
    "expire_missions",
    "issue_credential",
    "issue_run_token",
    "nobody_could_agree_to_lifting",
    "note_heartbeat",
    "note_open_proofs",
    "note_proofs",
    "pause_mission",
    "register_agent",
    "reinstate_agent",
    "reject_outcome",
    "report_progress",
    "restart_run",
    "resume_lifted",
    "resume_mission",
    "retire_agent",
    "revoke_credential",
    "stop",
    "stop_mission",
    "submit_mission",
    "update_profile",
    "whom_a_request_asks",
]
