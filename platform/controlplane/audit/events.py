"""The closed list of what can be audited, each with its sentence, filled from actor, subject and payload."""

from __future__ import annotations

from django.db import models


class Event(models.TextChoices):
    """Code and sentence. To add one: add it here; record it in the service that makes the change."""

    ORGANISATION_CREATED = "organisation.created", "{actor} created the organisation {subject}"
    TEAM_CREATED = "team.created", "{actor} created the team {subject}"
    MEMBER_ADDED = "member.added", "{actor} gave {subject} the role {role}"
    MEMBER_REMOVED = "member.removed", "{actor} took the role {role} from {subject}"
    PERSON_SIGNED_IN = "person.signed_in", "{subject} signed in"
    PERSON_SIGNED_OUT = "person.signed_out", "{subject} signed out"
    PERSON_CHANGED = "person.changed", "{subject} changed their own profile"
    SIGN_IN_FAILED = "person.sign_in_failed", "A sign-in as {subject} failed"
    TOKEN_ISSUED = "token.issued", "{actor} issued the token {subject}"
    TOKEN_REVOKED = "token.revoked", "{actor} revoked the token {subject}"

    TOKEN_ROTATED = "token.rotated", "{actor} replaced the token {subject}"
    INVITATION_MADE = "invitation.made", "{actor} invited {subject}"
    INVITATION_RENEWED = "invitation.renewed", "{actor} made a new link for {subject}"
    INVITATION_REVOKED = "invitation.revoked", "{actor} took the invitation of {subject} back"
    INVITATION_ACCEPTED = "invitation.accepted", "{actor} accepted the invitation of {subject}"
    MEMBER_JOINED = "member.joined", "{subject} joined as {role}, by the domain {domain}"
    MEMBER_DEACTIVATED = (
        "member.deactivated",
        "{actor} deactivated {subject}; {sessions} sessions and {tokens} tokens ended",
    )
    MEMBER_REACTIVATED = "member.reactivated", "{actor} reactivated {subject}"
    PERSON_LINKED = "person.linked", "{subject} linked the sign-in of an identity provider"
    PERSON_PASSWORD_CHANGED = "person.password_changed", "{subject} changed their password"
    SECOND_FACTOR_ON = "second_factor.on", "{subject} set up a second factor"
    SECOND_FACTOR_OFF = "second_factor.off", "{subject} turned off their second factor"
    SECOND_FACTOR_RESET = "second_factor.reset", "{actor} took away the second factor of {subject}"
    SECOND_FACTOR_FAILED = "second_factor.failed", "A code for {subject} was wrong"
    RECOVERY_CODES_MADE = "second_factor.codes", "{subject} made new recovery codes"
    SESSION_ENDED = "session.ended", "{actor} ended {count} of their sessions"
    ORGANISATION_CHANGED = "organisation.changed", "{actor} changed {changed} of {subject}"

    AGENT_REGISTERED = "agent.registered", "{actor} registered the agent {subject}"
    AGENT_VERSION_ADDED = "agent.version_added", "{actor} added version {version} of {subject}"
    AGENT_REINSTATED = "agent.reinstated", "{actor} brought the agent {subject} back"
    AGENT_RETIRED = "agent.retired", "{actor} retired the agent {subject}"

    MISSION_DRAFTED = "mission.drafted", "{actor} drafted the mission {subject}"
    MISSION_SUBMITTED = "mission.submitted", "{actor} sent {subject} for sign-off"
    MISSION_SIGNED_OFF = "mission.signed_off", "{actor} signed off {subject}, version {version}"
    MISSION_SIGN_OFF_WITHDRAWN = "mission.sign_off_withdrawn", "{subject} is a draft again. {reason}"
    MISSION_SIGN_OFF_REFUSED = "mission.sign_off_refused", "{actor} refused to sign off {subject}: {reason}"
    MISSION_STARTED = "mission.started", "{actor} started {subject}"
    MISSION_CHANGED = "mission.changed", "{actor} changed {subject} to version {version}"
    MISSION_PAUSED = "mission.paused", "{actor} paused {subject}: {reason}"
    MISSION_RESUMED = "mission.resumed", "{actor} resumed {subject}"
    MISSION_STOPPED = "mission.stopped", "{actor} stopped {subject}: {reason}"
    MISSION_EXPIRED = "mission.expired", "{subject} reached its deadline"
    MISSION_FINISHED = "mission.finished", "{subject} says it is finished: {claim}"
    MISSION_ACCEPTED = "mission.accepted", "{actor} accepted the outcome of {subject}"
    MISSION_REJECTED = "mission.rejected", "{actor} rejected the outcome of {subject}: {reason}"
    CHECKLIST_CLAIMED = "checklist.claimed", "{actor} claims “{item}” of {subject}"

    STOP_MADE = "stop.made", "{actor} stopped {subject}: {reason}"
    STOP_PROVEN = "stop.proven", "{subject}: nothing of it was left after {seconds} s"
    STOP_LIFTED = "stop.lifted", "{actor} lifted the stop of {subject}"

    RUN_STARTED = "run.started", "Attempt {attempt} of {subject} started"
    RUN_ENDED = "run.ended", "Attempt {attempt} of {subject} ended: {reason}"
    SANDBOX_RESIZED = "sandbox.resized", "{actor} resized the sandbox {subject}"
    SANDBOX_LOST = "sandbox.lost", "The sandbox {subject} was lost: {reason}"

    ACTION_ALLOWED = "action.allowed", "{actor} was allowed {subject}"
    ACTION_DENIED = "action.denied", "{actor} was refused {subject}: {reason_code}"
    ACTION_ESCALATED = "action.escalated", "{actor} must ask a person for {subject}"
    PERMIT_CONSUMED = "permit.consumed", "{actor} used the permit for {subject}"
    PERMIT_REFUSED = "permit.refused", "The permit for {subject} was refused: {reason_code}"
    ACTION_SUCCEEDED = "action.succeeded", "{subject} succeeded"
    ACTION_FAILED = "action.failed", "{subject} failed: {reason}"
    ACTION_UNKNOWN = "action.unknown", "What came of {subject} is not known: {reason}"
    ACTION_RECONCILED = "action.reconciled", "{actor} settled what came of {subject}: {outcome}"
    ACTION_WITHDRAWN = "action.withdrawn", "{actor} withdrew {subject}"

    ESCALATION_APPROVED = "escalation.approved", "{actor} approved {subject}"
    ESCALATION_DENIED = "escalation.denied", "{actor} refused {subject}: {reason}"
    ESCALATION_EXPIRED = "escalation.expired", "Nobody decided {subject} in time; it was refused"
    ESCALATION_WITHDRAWN = "escalation.withdrawn", "{actor} withdrew the request {subject}"
    ESCALATION_NEXT_TIER = "escalation.next_tier", "{subject} went to its next tier: {reason}"
    ESCALATION_COMMENTED = "escalation.commented", "{actor} commented on {subject}"
    ESCALATION_ASKED_AGENT = "escalation.asked_agent", "{actor} asked the agent about {subject}"
    ESCALATION_ANSWERED = "escalation.answered", "{actor} answered a question about {subject}"
    ESCALATION_TAKEN_OVER = "escalation.taken_over", "{actor} took over {subject} from {claimant}"
    ACTION_EDITED = "action.edited", "{actor} edited {subject} before it was approved: {changed}"
    BREAK_GLASS_USED = "break_glass.used", "{actor} broke the glass for {subject}: {reason}"
    BREAK_GLASS_REVIEWED = "break_glass.reviewed", "{actor} reviewed the broken glass of {subject}: {verdict}"
    APPROVER_GROUP_CHANGED = "approver_group.changed", "{actor} changed the approver group {subject}: {members}"
    APPROVER_GROUP_RETIRED = "approver_group.retired", "{actor} retired the approver group {subject}"
    APPROVAL_ROUTE_CHANGED = "approval_route.changed", "{actor} set the approval route {subject}: {route}"
    APPROVAL_ROUTE_REMOVED = "approval_route.removed", "{actor} removed the approval route {subject}"
    DELEGATION_SET = "delegation.set", "{actor} lets {stand_in} stand in for {subject} until {until}"
    DELEGATION_ENDED = "delegation.ended", "{actor} ended that {stand_in} stands in for {subject}"

    BUDGET_OPENED = "budget.opened", "{actor} opened the budget {subject}"
    BUDGET_LIMIT_SET = "budget.limit_set", "{actor} set the limit of {subject}"
    BUDGET_FROZEN = "budget.frozen", "{actor} froze the budget {subject}: {reason}"
    BUDGET_UNFROZEN = "budget.unfrozen", "{actor} released the budget {subject}"
    BUDGET_OVERRUN = "budget.overrun", "{subject} was charged {amount} beyond its limit"
    BUDGET_ALERT = "budget.alert", "{subject} has spent {threshold} of its limit: {spent} of {limit}"
    BUDGET_CHANGE_PROPOSED = "budget.change_proposed", "{actor} asked a second person to change the limit of {subject}"
    BUDGET_CHANGE_CONFIRMED = "budget.change_confirmed", "{actor} confirmed the new limit of {subject}"
    BUDGET_CHANGE_REFUSED = "budget.change_refused", "{actor} refused the new limit of {subject}: {reason}"
    BUDGET_CHANGE_WITHDRAWN = "budget.change_withdrawn", "{actor} withdrew the new limit of {subject}"
    BUDGET_CHANGE_SUPERSEDED = (
        "budget.change_superseded",
        "{actor} changed {subject} in place of the new limit that {proposer} asked for",
    )
    PRICES_IMPORTED = "prices.imported", "{actor} imported {count} prices from {source}"

    SERVER_REGISTERED = "server.registered", "{actor} registered the server {subject}"
    TOOL_DISCOVERED = "tool.discovered", "{subject} is now known, definition {hash}"
    TOOL_QUARANTINED = "tool.quarantined", "{subject} changed its definition and was quarantined"
    TOOL_APPROVED = "tool.approved", "{actor} approved the definition {hash} of {subject}"
    TOOL_REMOVED = "tool.removed", "{subject} is no longer offered by its server"
    TOOL_DESCRIBED = "tool.described", "{actor} said what {subject} does: {traits}"
    SERVER_SWITCHED = "server.switched", "{actor} switched the server {subject} {position}"
    SERVER_TEAMS_SET = "server.teams_set", "{actor} let {teams} use the server {subject}"
    SERVER_CREDENTIAL_SET = "server.credential_set", "{actor} gave the server {subject} a credential: {kind}"
    SERVER_CREDENTIAL_REMOVED = "server.credential_removed", "{actor} took the credential of the server {subject} away"
    SERVER_CREDENTIAL_REWRAPPED = (
        "server.credential_rewrapped",
        "The credential of {subject} is now wrapped by the key {key}",
    )
    SERVER_TESTED = "server.tested", "{actor} tested the server {subject}, {how}"

    VIEW_SHARED = "view.shared", "{actor} shared the view {subject} of {list} with {team}"
    VIEW_UNSHARED = "view.unshared", "{actor} took the view {subject} of {list} from {team}"

    BUNDLE_LOADED = "policy.bundle_loaded", "{actor} loaded the policy bundle {subject}"
    BUNDLE_PROMOTED = "policy.bundle_promoted", "{actor} made {subject} the active policy bundle"

    AUDIT_EXPORT_ASKED = "audit.export_asked", "{actor} asked for an export of the audit trail, {first} to {last}"
    AUDIT_EXPORT_DOWNLOADED = "audit.export_downloaded", "{actor} downloaded an export of the audit trail"
    AUDIT_KEY_ROTATED = "audit.key_rotated", "{actor} replaced the key that signs the audit trail by {key}"
    PERSON_ERASED = "person.erased", "{actor} erased the personal data of {subject}: {entries} entries restated"
