"""Warnings every page shows while something is wrong with Remit itself: judge, node, sealer, policies."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from django.urls import reverse

from agents import stops
from agents.waiting import names_in_words
from budgets import alerts
from budgets.types import WindowKind
from controlplane.audit import selectors as audit
from controlplane.clusters import selectors as clusters
from controlplane.common.clock import now
from controlplane.tenancy.types import Permission, Principal
from frontend.context import Strip, register_strip_source
from frontend.pages import zone_of
from frontend.templatetags.titles import briefly
from governance import selectors as governance_reads
from governance import services as governance
from governance.bundles import active_bundle

_STARTED = now()
NODE_SILENT = timedelta(seconds=15)
SEALER_BEHIND_SECONDS = 5.0
MOST_STOPS = 3


def register() -> None:
    for source in (stops_in_force, glass_broken, budgets_nearly_spent):
        register_strip_source(source, current=True)
    for source in (policies_missing, node_silent, sealer_behind, trail_contradicted, judge_off, judge_resting):
        register_strip_source(source)


def stops_in_force(principal: Principal) -> Iterator[Strip]:
    """To everyone whom it concerns, until it is lifted."""
    for stop in stops.stops(principal).in_force()[:MOST_STOPS]:
        since = stop.at.astimezone(zone_of(principal))
        yield Strip(
            f"{stop.name[:1].upper()}{stop.name[1:]} is stopped.",
            f"By {stop.by.name} on {since.day} {since:%b} at {since:%H:%M}{f': {stop.reason}' if stop.reason else '.'}",
            "See the proofs, or lift it",
            reverse("stop", args=[stop.pk]),
            tone="deny",
            icon="stop",
        )


def glass_broken(principal: Principal) -> Iterator[Strip]:
    """Shown until somebody else has reviewed it, to all who see the action, those who see no approvals too."""
    rows = governance_reads.broken_glass(principal, only_open=True, permission=Permission.ACTION_VIEW, limit=3)
    reviewers = governance_reads.reviewers(rows)
    for broken in rows:
        people = [user.name for user in reviewers[broken.pk] if user.pk != principal.user_id]
        yours = len(people) < len(reviewers[broken.pk])
        sees_approvals = principal.has(Permission.ESCALATION_VIEW, team_id=broken.escalation.team_id)
        waits = (
            f"It waits for the review of {names_in_words(people)}." if people else "Nobody may review it as things are."
        )
        yield Strip(
            f"{broken.by.name} broke the glass.",
            f"{briefly(broken.escalation)} was permitted without the people it asks. "
            f"{'It waits for your review.' if yours else waits}",
            "Review it" if yours else "Look at it",
            f"{reverse('broken-glass')}#glass-{broken.pk}"
            if sees_approvals
            else reverse("action", args=[broken.action_id]),
            tone="deny",
            icon="unlock",
        )


def policies_missing(principal: Principal) -> Iterator[Strip]:
    if active_bundle(principal.organisation_id) is None:
        yield Strip(
            "No policies are loaded.",
            "Every action is refused until there are rules to judge it by.",
            "See the policies",
            reverse("policies"),
            tone="deny",
        )


def node_silent(principal: Principal) -> Iterator[Strip]:
    """Sandboxes start and stop through their cluster's node; without it they keep their last known state. A Remit that
    has just been started, its node with it, gives that as long as a node is otherwise given."""
    if not principal.has_anywhere(Permission.SANDBOX_VIEW) or now() - _STARTED < NODE_SILENT:
        return
    for name in clusters.silent_clusters(now() - NODE_SILENT, started=_STARTED):
        yield Strip(
            f"The node of “{name}” does not answer.",
            "Agents there do not start or stop. Restart it with ./manage.py localnode, or look at its log.",
            "See what runs",
            reverse("missions"),
            tone="deny",
            icon="unplugged",
        )


def sealer_behind(principal: Principal) -> Iterator[Strip]:
    """The sealer runs in the worker: when it is behind, the worker is gone or too busy."""
    if not principal.has(Permission.AUDIT_VIEW):
        return
    behind = audit.sealer_lag_seconds(principal.organisation_id)
    if behind > SEALER_BEHIND_SECONDS:
        yield Strip(
            f"The audit trail is {round(behind)} s behind.",
            "Entries are kept, but not yet chained: the worker is gone or busy.",
            "See the trail",
            reverse("audit"),
        )


def budgets_nearly_spent(principal: Principal) -> Iterator[Strip]:
    """From four fifths on, to those who see the budget; one line however many there are."""
    if not principal.has_anywhere(Permission.BUDGET_VIEW):
        return
    found = alerts.standing(principal)
    if not found:
        return
    fullest = found[0]
    window = WindowKind(fullest.window.kind)
    used, allowed = fullest.used, fullest.allowed  # type: ignore[attr-defined]  # annotated in `standing`
    percent = int(used * 100 / allowed) if allowed else 100
    more = f" {len(found) - 1} more are above four fifths." if len(found) > 1 else ""
    yield Strip(
        f"“{fullest.account.name}” has spent {percent} % of its limit {_WITHIN[window]}.",
        f"What does not fit any more is refused.{more}",
        "See the budget" if len(found) == 1 else "See the budgets",
        reverse("budget", args=[fullest.account_id]) if len(found) == 1 else reverse("budgets"),
        tone="deny" if percent >= 100 else "ask",
        icon="gauge",
    )


_WITHIN = {
    WindowKind.TOTAL: "in total",
    WindowKind.DAY: "for today",
    WindowKind.WEEK: "for this week",
    WindowKind.MONTH: "for this month",
}


def trail_contradicted(principal: Principal) -> Iterator[Strip]:
    """Somebody cut, rewrote or restored what Remit had signed; it signs no further head until that is explained."""
    if principal.has(Permission.AUDIT_VIEW) and audit.contradicts_checkpoint(principal.organisation_id):
        yield Strip(
            "The audit trail is not the one Remit signed.",
            "It was cut, rewritten or restored from a backup. Verify it, and keep your last export.",
            "See the trail",
            reverse("audit"),
            tone="deny",
        )


def judge_off(principal: Principal) -> Iterator[Strip]:
    """Said to those who could connect one, once each time they sign in: rules and budgets decide without it."""
    if principal.has(Permission.POLICY_WRITE) and not governance.judge_is_on():
        yield Strip(
            "No judge model is connected.",
            "Policies, grants, budgets and people decide.",
            "See what decides",
            reverse("policies"),
            tone="neutral",
            icon="judge",
            name="judge-off",
        )


def judge_resting(principal: Principal) -> Iterator[Strip]:
    """While a model keeps failing, what it should judge waits for people; those who see approvals know why."""
    if not principal.has_anywhere(Permission.ESCALATION_VIEW):
        return
    for endpoint in governance.troubled_judges():
        yield Strip(
            f"The judge “{endpoint.model}” does not answer.",
            "What it should judge waits for a person. It is tried again every half minute.",
            "See what waits",
            reverse("approvals"),
            icon="judge",
        )
