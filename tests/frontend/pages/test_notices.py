"""The bell of those who decide nothing: what became of their missions and of the budgets they set."""

from __future__ import annotations

from typing import Any

import pytest
from django.urls import reverse

from agents import services
from agents.models import Mission
from controlplane.common.ids import new_id
from controlplane.tenancy.models import Membership, Team, User
from controlplane.tenancy.types import Principal, Role
from governance import services as governance
from governance.approval_models import Notice
from governance.choices import NoticeKind

from .remit_page import SignIn

pytestmark = pytest.mark.django_db


def html(browser: Any, name: str) -> str:
    response = browser.get(reverse(name))
    assert response.status_code == 200, name
    return str(response.content.decode())


def test_a_builder_reads_what_others_did_to_their_mission_and_opens_it(
    world: Any, as_nadia: Principal, alice: User, dana: User, signed_in: SignIn
) -> None:
    mission = Mission.objects.get(pk=world.mission.pk)
    assert mission.owner_id == alice.pk
    services.pause_mission(actor=as_nadia, mission_id=mission.pk)
    browser = signed_in(alice)
    assert "Notices: 1 unread" in html(browser, "home")
    for name in ("notices", "notices-bell"):
        assert f"Paused: {mission.title}" in html(browser, name)
        assert "Your mission" in html(browser, name)
    assert reverse("mission", args=[mission.pk]) in html(browser, "notices")
    notice = Notice.objects.get()
    signed_in(dana).post(reverse("notices-read"), {"notice": str(notice.pk)})
    assert Notice.objects.get().read_at is None  # somebody else's
    opened = browser.post(reverse("notices-read"), {"notice": str(notice.pk), "mission": str(mission.pk)})
    assert opened.headers["Location"] == reverse("mission", args=[mission.pk])
    assert "unread" not in html(browser, "home")


def test_finance_reads_a_budgets_alert_and_opens_the_budget(world: Any, finn: User, signed_in: SignIn) -> None:
    budget = new_id()
    governance.tell_people(
        [
            governance.News(
                user_id=finn.pk,
                organisation_id=world.organisation.pk,
                team_id=world.team.pk,
                kind=NoticeKind.BUDGET,
                subject_type="budget",
                subject_id=budget,
                about_id=new_id(),
                text="80 % spent: <Receivables>",
            )
        ]
    )
    browser = signed_in(finn)
    assert "80 % spent: &lt;Receivables&gt;" in html(browser, "notices")
    assert reverse("budget", args=[budget]) in html(browser, "notices")
    assert "Budget alert" in html(browser, "notices-bell")
    assert "Notices: 1 unread" in html(browser, "notices-count")


def test_the_bell_counts_nothing_that_its_list_may_not_show_any_more(
    world: Any, as_nadia: Principal, alice: User, signed_in: SignIn
) -> None:
    services.pause_mission(actor=as_nadia, mission_id=world.mission.pk)
    browser = signed_in(alice)
    assert "Notices: 1 unread" in html(browser, "home")
    Membership.objects.filter(user=alice).delete()
    other = Team.objects.create(organisation=world.organisation, name="Elsewhere", slug="elsewhere")
    Membership.objects.create(organisation=world.organisation, team=other, user=alice, role=Role.BUILDER.value)
    assert "Paused" not in html(browser, "notices")
    assert "unread" not in html(browser, "home")
