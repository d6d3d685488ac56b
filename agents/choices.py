"""States of agents, missions, runs, servers and tools."""

from __future__ import annotations

from controlplane.common.choices import StatusChoices


class Runtime(StatusChoices):
    MANAGED = "managed", "neutral", "agent", "Runs in our sandbox"
    EXTERNAL = "external", "neutral", "external", "Runs elsewhere"


class AgentState(StatusChoices):
    ACTIVE = "active", "allow", "allow", "Active"
    RETIRED = "retired", "neutral", "off", "Retired"


class MissionState(StatusChoices):
    """draft → awaiting_sign_off → active → paused → succeeded | failed | stopped | expired."""

    DRAFT = "draft", "neutral", "off", "Draft"
    AWAITING_SIGN_OFF = "awaiting_sign_off", "wait", "wait", "Waits for sign-off"
    ACTIVE = "active", "allow", "start", "Running"
    PAUSED = "paused", "ask", "pause", "Paused"
    SUCCEEDED = "succeeded", "allow", "allow", "Succeeded"
    FAILED = "failed", "deny", "deny", "Failed"
    STOPPED = "stopped", "deny", "stop", "Stopped"
    EXPIRED = "expired", "neutral", "off", "Expired"


ENDED_MISSION_STATES = frozenset(
    {MissionState.SUCCEEDED, MissionState.FAILED, MissionState.STOPPED, MissionState.EXPIRED}
)


class Outcome(StatusChoices):
    """What people say of the agent's claim. Cost per accepted goal counts ACCEPTED only."""

    NONE = "none", "neutral", "off", "No outcome yet"
    CLAIMED = "claimed", "wait", "wait", "Claimed, waits for you"
    ACCEPTED = "accepted", "allow", "allow", "Accepted"
    REJECTED = "rejected", "deny", "deny", "Rejected"


class Importance(StatusChoices):
    LOW = "low", "neutral", "off", "Low"
    NORMAL = "normal", "neutral", "off", "Normal"
    HIGH = "high", "ask", "ask", "High"
    CRITICAL = "critical", "deny", "ask", "Critical"


class VersionState(StatusChoices):
    DRAFT = "draft", "neutral", "off", "Draft"
    AWAITING_SIGN_OFF = "awaiting_sign_off", "wait", "wait", "Waits for sign-off"
    ACTIVE = "active", "allow", "allow", "In force"
    SUPERSEDED = "superseded", "neutral", "off", "Superseded"
    REFUSED = "refused", "deny", "deny", "Refused"


class ChangeKind(StatusChoices):
    """What one change of a remit does. Whatever is not certainly less counts as more."""

    WIDENS = "widens", "ask", "arrow-up", "Widens"
    NARROWS = "narrows", "allow", "arrow-down", "Narrows"
    REWORDS = "rewords", "neutral", "edit", "Changes"


class CheckState(StatusChoices):
    OPEN = "open", "neutral", "off", "Open"
    CLAIMED = "claimed", "wait", "allow", "Claimed by the agent"
    ACCEPTED = "accepted", "allow", "allow", "Accepted"
    REJECTED = "rejected", "deny", "deny", "Rejected"


class RunState(StatusChoices):
    PENDING = "pending", "neutral", "wait", "Pending"
    STARTING = "starting", "neutral", "wait", "Starting"
    RUNNING = "running", "allow", "start", "Running"
    SUCCEEDED = "succeeded", "allow", "allow", "Ended"
    FAILED = "failed", "deny", "deny", "Failed"
    STOPPED = "stopped", "neutral", "stop", "Stopped"
    LOST = "lost", "deny", "deny", "Lost"


ENDED_RUN_STATES = frozenset({RunState.SUCCEEDED, RunState.FAILED, RunState.STOPPED, RunState.LOST})


class StopScope(StatusChoices):
    """What one stop reaches. A stopped attempt or mission is over; the wider ones hold until they are lifted."""

    RUN = "run", "deny", "stop", "Attempt"
    MISSION = "mission", "deny", "stop", "Mission"
    AGENT = "agent", "deny", "stop", "Agent"
    TEAM = "team", "deny", "stop", "Team"
    ORGANISATION = "organisation", "deny", "stop", "Organisation"


WIDE_STOPS = (StopScope.AGENT, StopScope.TEAM, StopScope.ORGANISATION)


class Transport(StatusChoices):
    STDIO = "stdio", "neutral", "server", "Program in our sandbox"
    HTTP = "http", "neutral", "external", "Streamable HTTP"


class ServerState(StatusChoices):
    NEW = "new", "neutral", "wait", "Not reached yet"
    OK = "ok", "allow", "allow", "Reachable"
    UNREACHABLE = "unreachable", "deny", "deny", "Not reachable"
    DISABLED = "disabled", "neutral", "off", "Switched off"


class ToolState(StatusChoices):
    ACTIVE = "active", "allow", "allow", "Approved"
    QUARANTINED = "quarantined", "ask", "ask", "Changed, quarantined"
    REMOVED = "removed", "neutral", "off", "No longer offered"


class CredentialKind(StatusChoices):
    BEARER = "bearer", "neutral", "key", "Bearer token"
    HEADER = "header", "neutral", "key", "A header of its own"
    CLIENT_CREDENTIALS = "client_credentials", "neutral", "key", "OAuth client credentials"


class ServerTestState(StatusChoices):
    WAITING = "waiting", "wait", "wait", "Waits for a worker"
    RUNNING = "running", "wait", "wait", "Running"
    PASSED = "passed", "allow", "allow", "Passed"
    FAILED = "failed", "deny", "deny", "Failed"


LIVE_SERVER_TEST_STATES = frozenset({ServerTestState.WAITING, ServerTestState.RUNNING})
