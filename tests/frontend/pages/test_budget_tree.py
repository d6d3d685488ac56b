"""What the pages of budgets show: each level with what is left, what is over, what is frozen, and the lines."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from django.urls import reverse

from agents import services as agents
from budgets.models import Account
from controlplane.tenancy.models import User
from controlplane.tenancy.types import Principal
from governance.models import Action

from .browsing import SignIn, page, rows_of
from .spending import spend


def test_the_tree_shows_each_level_with_what_is_left_and_missions_on_opening_their_agent(
    busy: Any, finn: User, signed_in: SignIn
) -> None:
    browser = signed_in(finn)
    html = page(browser, reverse("budgets"))
    names = ["Northwind", "Receivables", "Receivables clerk"]
    assert [html.index(f">{name}</a>") for name in names] == sorted(html.index(f">{name}</a>") for name in names)
    assert "$399.84" in html
    assert ">Chase overdue invoices</a>" not in html
    opened = page(browser, reverse("budget", args=[busy.account_of("agent", busy.agent.pk)]))
    assert ">Chase overdue invoices</a>" in opened
    assert "$1.84" in opened


def test_budgets_of_missions_that_are_over_wait_to_be_asked_for(
    world: Any, finn: User, nadia: User, signed_in: SignIn
) -> None:
    agents.stop_mission(actor=world.owner, mission_id=world.mission.pk, reason="enough")
    browser = signed_in(finn)
    for path, more in (
        (reverse("budget", args=[world.account_of("agent", world.agent.pk)]), "?ended=1"),
        (reverse("budgets") + "?q=overdue", "&ended=1"),
    ):
        shown = page(browser, path).split("Ledger lines")[0]
        assert ">Chase overdue invoices</a>" not in shown
        assert "1 of missions that are over is not shown." in shown
        assert ">Chase overdue invoices</a>" in page(browser, path + more)


def test_a_frozen_budget_says_so(world: Any, finn: User, as_finn: Principal, signed_in: SignIn) -> None:
    from budgets import services as budgets

    account = world.account_of("team", world.team.pk)
    budgets.freeze(actor=as_finn, account_id=account, reason="Month end")
    assert "Frozen" in page(signed_in(finn), reverse("budgets"))
    assert "Frozen" in page(signed_in(finn), reverse("budget", args=[account]))


def test_the_lines_of_a_budget_name_their_actions_and_can_be_downloaded(
    busy: Any, finn: User, signed_in: SignIn
) -> None:
    path = reverse("budget", args=[busy.account_of("mission", busy.mission.pk)])
    browser = signed_in(finn)
    assert ">books__write_reminder</a>" in page(browser, path)
    rows = rows_of(browser, path + "?format=csv")
    settled = [row for row in rows if row[2] == "settle"]
    assert {tuple(row[-3:]) for row in settled} == {(busy.mission.title, busy.agent.name, busy.mission.title)}
    spent = Action.objects.exclude(cost=None).values_list("cost", flat=True)
    assert sum(Decimal(row[5]) for row in settled) == sum(spent)


def test_the_lines_of_a_teams_budget_name_mission_agent_and_the_budget_below(
    busy: Any, finn: User, charlie: User, signed_in: SignIn, queries: Any
) -> None:
    for level in ("team", "organisation"):
        account = Account.objects.get(level=level, subject_id__in=(busy.team.pk, busy.organisation.pk)).pk
        path = reverse("budget", args=[account])
        browser = signed_in(finn)
        link = f'<a href="{reverse("mission", args=[busy.mission.pk])}">{busy.mission.title}</a>, {busy.agent.name}'
        assert link in page(browser, path)
        assert "the mission</a>" not in page(browser, path)
        below = busy.account_of("agent", busy.agent.pk)
        limits = page(browser, path + "?show=limits").split("Ledger lines</h2>")[1].split("</section>")[0]
        assert f'<small><a href="{reverse("budget", args=[below])}">{busy.agent.name}</a></small>' in limits
        rows = rows_of(browser, path + "?format=csv")
        assert (busy.mission.title, busy.agent.name) in {tuple(row[-3:-1]) for row in rows}
        few = queries(browser, path)
        for _ in range(4):
            spend(busy, "0.01")
        assert queries(browser, path) == few
        assert signed_in(charlie).get(path).status_code == 404
