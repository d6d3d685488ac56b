"""What the frame around every page shows: navigation, what waits for the viewer, warnings, preferences.

Read lazily, at most five queries a page.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property

from django.conf import settings
from django.core.cache import cache
from django.http import HttpRequest
from django.urls import NoReverseMatch, reverse

from controlplane.tenancy import oidc
from controlplane.tenancy.types import Permission, Principal

STRIP_SECONDS = 10
THEMES = frozenset({"light", "dark"})


@dataclass(frozen=True)
class NavItem:
    """One line of the rail. `also`: paths that belong to it too; `later`: not in the bar of a phone."""

    label: str
    path: str
    icon: str
    permission: Permission | None = None
    also: tuple[str, ...] = ()
    later: bool = False
    counts_approvals: bool = False

    def holds(self, path: str) -> bool:
        prefixes = (self.path, *self.also)
        return any(
            path == prefix or (prefix != "/" and path.startswith(prefix.rstrip("/") + "/")) for prefix in prefixes
        )


@dataclass(frozen=True)
class Strip:
    """A warning that stays until its cause is gone: what is wrong, what that means, and the one remedy.

    `name`, one of MAY_BE_PUT_AWAY: the viewer may put it away until they sign in again. Empty for what is broken.
    """

    title: str
    text: str
    remedy: str = ""
    url: str = ""
    tone: str = "ask"
    icon: str = "warning"
    name: str = ""


# How an installation was set up on purpose, not what broke: who has read it once need not read it on every page.
MAY_BE_PUT_AWAY = frozenset({"judge-off"})
SESSION_PUT_AWAY = "strips_put_away"

WORK = (
    NavItem("Home", "/", "home"),
    NavItem("Missions", "/missions", "mission", Permission.MISSION_VIEW, also=("/actions",)),
    NavItem("Approvals", "/approvals", "approve", Permission.ESCALATION_VIEW, counts_approvals=True),
    NavItem("Agents", "/agents", "agent", Permission.AGENT_VIEW),
    NavItem("Budgets", "/budgets", "budget", Permission.BUDGET_VIEW),
    NavItem("Costs", "/costs", "cost", Permission.COST_VIEW, later=True),
    NavItem("Audit", "/audit", "audit", Permission.AUDIT_VIEW, later=True),
)
ARRANGEMENTS = (
    NavItem("Servers", "/servers", "server", Permission.SERVER_VIEW, later=True),
    NavItem("Stops", "/stops", "stop", Permission.MISSION_VIEW, later=True),
    NavItem("Policies", "/policies", "policy", Permission.POLICY_VIEW, later=True),
    NavItem("Settings", "/settings", "settings", Permission.MEMBER_VIEW, later=True),
)

BEGINNINGS = (
    NavItem("New mission", "/missions/new", "plus", Permission.MISSION_WRITE),
    NavItem("Register an agent", "/agents/new", "plus", Permission.AGENT_WRITE),
    NavItem("Register a server", "/servers/new", "plus", Permission.SERVER_WRITE),
)

StripSource = Callable[[Principal], Iterable[Strip]]
_strip_sources: list[StripSource] = []
_current_strip_sources: list[StripSource] = []


def register_strip_source(source: StripSource, *, current: bool = False) -> StripSource:
    """Add a source of warnings; called in `AppConfig.ready()`. Its answer is kept for STRIP_SECONDS per person.

    `current`: for what a person did and another has to see at once. It is asked for each page, by every process alike,
    so it may cost one indexed query while it has nothing to say; its warnings stand first.
    """
    sources = _current_strip_sources if current else _strip_sources
    if source not in sources:
        sources.append(source)
    return source


@dataclass(frozen=True)
class NavLink:
    item: NavItem
    current: bool
    count: int


class Frame:
    """Everything `base.html` and `frame/*.html` read. Each part is worked out when a template asks for it, once."""

    def __init__(self, request: HttpRequest) -> None:
        self._request = request

    @cached_property
    def principal(self) -> Principal | None:
        return getattr(self._request, "principal", None)

    @property
    def theme(self) -> str:
        """ "light" or "dark" when the viewer chose one, empty to follow the system."""
        chosen = self._request.COOKIES.get("remit_theme", "")
        return chosen if chosen in THEMES else ""

    @property
    def rail(self) -> str:
        return "narrow" if self._request.COOKIES.get("remit_rail") == "narrow" else ""

    @property
    def shortcuts(self) -> str:
        return "off" if self._request.COOKIES.get("remit_shortcuts") == "off" else ""

    @cached_property
    def nav(self) -> list[NavLink]:
        return self._links(WORK)

    @cached_property
    def arrangements(self) -> list[NavLink]:
        return self._links(ARRANGEMENTS)

    @property
    def beginnings(self) -> list[NavItem]:
        """What the viewer may begin, for the palette."""
        person = self.principal
        if person is None:
            return []
        return [item for item in BEGINNINGS if item.permission is None or person.has_anywhere(item.permission)]

    @cached_property
    def approvals_waiting(self) -> int:
        if self.principal is None or not self.principal.has_anywhere(Permission.ESCALATION_DECIDE):
            return 0
        from governance.selectors import count_waiting_for

        return count_waiting_for(principal=self.principal)

    @property
    def may_see_approvals(self) -> bool:
        return self.principal is not None and self.principal.has_anywhere(Permission.ESCALATION_VIEW)

    @property
    def has_notices(self) -> bool:
        return self.principal is not None and self.principal.user_id is not None

    @cached_property
    def unread(self) -> int:
        if self.principal is None or not self.has_notices:
            return 0
        from governance.selectors import count_unread

        return count_unread(self.principal)

    @cached_property
    def strips(self) -> list[Strip]:
        if self.principal is None:
            return []
        current = [strip for source in _current_strip_sources for strip in source(self.principal)]
        return [strip for strip in current + _kept_strips(self.principal) if strip.name not in self._put_away]

    @cached_property
    def _put_away(self) -> frozenset[str]:
        """Of this browser's session, and of nobody else's."""
        session = getattr(self._request, "session", None)
        return MAY_BE_PUT_AWAY & frozenset(session.get(SESSION_PUT_AWAY, ()) if session else ())

    @cached_property
    def search_url(self) -> str:
        """Where the palette asks for more than page names; empty while there is no such page."""
        try:
            return reverse("search")
        except NoReverseMatch:
            return ""

    @property
    def may_write_organisation(self) -> bool:
        return self.principal is not None and self.principal.has_anywhere(Permission.ORGANISATION_WRITE)

    @property
    def sign_in_with(self) -> str:
        """What the button of the configured identity provider says; empty without one."""
        return oidc.button()

    @property
    def sends_mail(self) -> bool:
        """False without a mail server: what would be sent is printed into the web process's log."""
        return settings.CONFIG.sends_mail

    def _links(self, items: Iterable[NavItem]) -> list[NavLink]:
        person = self.principal
        if person is None:
            return []
        return [
            NavLink(
                item=item,
                current=item.holds(self._request.path),
                count=self.approvals_waiting if item.counts_approvals else 0,
            )
            for item in items
            if item.permission is None or person.has_anywhere(item.permission)
        ]


def _kept_strips(principal: Principal) -> list[Strip]:
    if not _strip_sources:
        return []
    key = f"frame.strips.{principal.organisation_id}.{principal.id}"
    strips: list[Strip] | None = cache.get(key)
    if strips is None:
        strips = [strip for source in _strip_sources for strip in source(principal)]
        cache.set(key, strips, STRIP_SECONDS)
    return strips


def frame(request: HttpRequest) -> dict[str, Frame]:
    """Context processor."""
    return {"frame": Frame(request)}
