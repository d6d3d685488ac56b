"""The costs page: what one accepted goal costs, where the rest went, down to the line, and that it adds up."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.core.cache import cache
from django.test import Client
from django.urls import reverse

from agents import services as agents
from agents.catalogue import TEMPLATES
from agents.choices import Runtime
from agents.models import Agent, Mission
from budgets import services as budgets
from budgets.costs.checking import check_all
from budgets.costs.facts import refresh_changed
from budgets.costs.folding import fold_all
from budgets.costs.models import CostDay, CostMission
from budgets.models import Hold
from budgets.types import Amounts
from controlplane.common.clock import now
from controlplane.common.ids import new_id
from controlplane.tenancy.models import User
from controlplane.tenancy.types import Principal
from governance import services as governance
from governance.types import Proposal

SignIn = Callable[..., Client]
HOSTILE = '=cmd|"/c calc"!A1 <script>alert(1)</script>'


def fold() -> None:
    fold_all(most_batches=10**6)
    refresh_changed()


def page(browser: Client, path: str) -> str:
    response = browser.get(path)
    assert response.status_code == 200, path
    return response.content.decode()


def rows_of(browser: Client, path: str) -> list[dict[str, str]]:
    content = b"".join(browser.get(path).streaming_content).decode()  # type: ignore[attr-defined]
    return list(csv.DictReader(io.StringIO(content)))


def charge(world: Any, mission: Mission, money: str, *, days_ago: int = 0) -> None:
    """One settled charge of a mission's budget, made so many days ago."""
    mission.refresh_from_db()
    hold = new_id()
    assert mission.account_id is not None
    refusal = budgets.reserve(
        hold_id=hold,
        account_id=mission.account_id,
        organisation_id=world.organisation.pk,
        amounts=Amounts(Decimal(money), 0, 1),
        ttl_seconds=60,
        mission_id=mission.pk,
    )
    assert refusal is None
    Hold.objects.filter(pk=hold).update(created_at=now() - timedelta(days=days_ago))
    budgets.settle(hold_id=hold)


def another(world: Any, name: str, *, money: str, end: str = "", days_ago: int = 0) -> Mission:
    """A mission of an agent of that name, charged and ended: accept, reject, stop, or left open."""
    agent = Agent.objects.filter(name=name).first() or agents.register_agent(
        actor=world.owner, team_id=world.team.pk, name=name, runtime=Runtime.EXTERNAL
    )
    mission = agents.draft_mission(
        actor=world.owner, agent_id=agent.pk, title=f"{name} {new_id().hex[-4:]}", remit=world.plain_remit()
    )
    agents.submit_mission(actor=world.owner, mission_id=mission.pk)
    charge(world, mission, money, days_ago=days_ago)
    ended = now() - timedelta(days=days_ago)
    if end in ("accept", "reject"):
        Mission.objects.filter(pk=mission.pk).update(outcome="claimed", claim={"summary": "Done", "at": "now"})
        if end == "accept":
            agents.accept_outcome(actor=world.owner, mission_id=mission.pk, claim="now")
        else:
            agents.reject_outcome(actor=world.owner, mission_id=mission.pk, claim="now", reason="Not what was asked")
    elif end == "stop":
        agents.stop_mission(actor=world.owner, mission_id=mission.pk, reason="Enough")
    if end:
        Mission.objects.filter(pk=mission.pk).update(ended_at=ended)
    mission.refresh_from_db()
    return mission


@pytest.fixture
def spent(busy: Any) -> Any:
    """Besides the clerk's open mission: two accepted reviews, a rejected and a stopped one, and one a month before."""
    another(busy, "Reviewer", money="0.40", end="accept")
    another(busy, "Reviewer", money="0.20", end="accept")
    another(busy, "Reviewer", money="0.10", end="reject")
    another(busy, "Reviewer", money="0.30", end="stop")
    another(busy, "Reviewer", money="0.80", end="accept", days_ago=30)
    fold()
    return busy


def test_the_headline_is_what_an_accepted_goal_costs_with_all_that_was_spent_on_the_way(
    spent: Any, finn: User, signed_in: SignIn
) -> None:
    html = page(signed_in(finn), reverse("costs"))
    assert ">$0.50</data></div>" in html.split('class="headline"')[1][:200]  # (0.40 + 0.20 + 0.10 + 0.30) / 2
    assert "for 2 accepted goals" in html
    assert "38 % less" in html  # 0.80 in the four weeks before
    assert "Adds up" in html
    reviewer = html.split(">Reviewer</a>")[1].split("</tr>")[0]
    for number in ("30 %", "$0.50", "$1.00"):
        assert number in reviewer, number


def test_the_parts_as_shown_make_the_total_as_shown(spent: Any, finn: User, signed_in: SignIn) -> None:
    for end in ("accept", "reject", "stop"):
        another(spent, "Reviewer", money="0.004", end=end)
    fold()
    html = page(signed_in(finn), reverse("costs"))
    facts = html.split('<dl class="facts split">')[1].split("</dl>")[0]
    *parts, total, _before = (Decimal(text) for text in re.findall(r">\$([0-9.]+)</data>", facts))
    assert sum(parts) == total, facts
    assert "$0.604<" in facts
    assert "$1.01<" in html.split(">Reviewer</a>")[1].split("</tr>")[0]  # elsewhere to the cent, as ever


def test_attempts_refusals_and_peoples_time_are_counted(
    spent: Any, finn: User, asked_before: Callable[[timedelta], None], signed_in: SignIn
) -> None:
    rows = {row["goal"]: row for row in rows_of(signed_in(finn), reverse("costs") + "?format=csv")}
    clerk = rows[TEMPLATES["receivables"].name]
    assert clerk["attempts"] == "1"
    assert int(clerk["denied"]) == 3  # two against the remit, one by a person
    asked_before(timedelta(hours=9))
    CostMission.objects.update(stamp="")
    refresh_changed()
    again = {row["goal"]: row for row in rows_of(signed_in(finn), reverse("costs") + "?format=csv")}
    # Two answers at once to questions that had lain there all night: the longest that counts, and next to nothing.
    assert again[clerk["goal"]]["human_minutes"] == "5.0"
    assert clerk["accepted"] == "0"
    assert clerk["cost_per_accepted_goal"] == ""


@pytest.mark.parametrize("amount", ["150.00", "40.00"])  # the second needs nobody any more
def test_an_edited_answer_and_one_about_more_budget_take_the_time_since_they_were_asked(
    amount: str,
    world: Any,
    finn: User,
    as_alice: Principal,
    as_bob: Principal,
    as_dana: Principal,
    asked_before: Callable[[timedelta], None],
    signed_in: SignIn,
) -> None:
    credit = world.ask_credit("240.00")
    arguments = {"money": "5.00", "account_id": str(world.account_of("mission", world.mission.pk))}
    more = governance.propose(proposer=as_alice, proposal=Proposal(kind="budget.topup", arguments=arguments))
    assert more.escalation is not None
    asked_before(timedelta(minutes=2))
    less = {**credit.action.arguments, "amount": amount}
    governance.edit_and_approve(approver=as_bob, escalation_id=credit.pk, version=1, arguments=less)
    governance.decide(approver=as_dana, escalation_id=more.escalation.id, version=1, approve=True, reason="")
    fold()
    rows = {row["goal"]: row for row in rows_of(signed_in(finn), reverse("costs") + "?format=csv")}
    assert rows[TEMPLATES["receivables"].name]["human_minutes"] == "4.0"


def test_the_csv_adds_up_to_the_page_and_the_page_to_the_ledger(spent: Any, finn: User, signed_in: SignIn) -> None:
    browser = signed_in(finn)
    *rows, total = rows_of(browser, reverse("costs") + "?format=csv")
    assert total["goal"] == "Total"
    shown = Decimal(total["money_total"])
    assert sum(Decimal(row["money_total"]) for row in rows) == shown
    assert f'value="{shown:.12f}"' in page(browser, reverse("costs")).split('id="cost-check"')[1]
    goal = CostMission.objects.filter(goal_name="Reviewer").values_list("goal", flat=True)[0]
    *missions, all_missions = rows_of(browser, reverse("cost-goal", args=[goal]) + "?format=csv")
    assert Decimal(all_missions["money"]) == Decimal("1.00") == sum(Decimal(row["money"]) for row in missions)
    mission = next(row for row in missions if Decimal(row["money"]) == Decimal("0.40"))
    *lines, all_lines = rows_of(browser, reverse("cost-mission", args=[mission["id"]]) + "?format=csv")
    assert Decimal(all_lines["money"]) == Decimal("0.40") == sum(Decimal(line["money"]) for line in lines)


def test_every_number_leads_down_to_the_line(spent: Any, finn: User, signed_in: SignIn) -> None:
    browser = signed_in(finn)
    mission = CostMission.objects.get(pk=spent.mission.pk)
    assert reverse("cost-goal", args=[mission.goal]) in page(browser, reverse("costs"))
    assert reverse("cost-mission", args=[mission.pk]) in page(browser, reverse("cost-goal", args=[mission.goal]))
    html = page(browser, reverse("cost-mission", args=[mission.pk]))
    assert "Charged" in html
    assert "books__write_reminder" in html
    assert "Adds up" in html


def test_the_strip_turns_red_when_a_sum_is_not_the_ledgers(spent: Any, finn: User, signed_in: SignIn) -> None:
    CostDay.objects.filter(day__lt=now().date() - timedelta(days=28)).update(money=9)  # not in this period
    assert "Adds up" in page(signed_in(finn), reverse("costs"))
    row = CostDay.objects.order_by("-day", "-money")[0]
    CostDay.objects.filter(pk=row.pk).update(money=row.money + Decimal("0.000000000001"))
    check_all()
    html = page(signed_in(finn), reverse("costs")).split('id="cost-check"')[1]
    assert "Does not add up" in html
    assert "0.000000000001" in html
    assert f"the journal says otherwise for <b>{row.day}" in html


def test_what_is_not_folded_yet_is_said_and_not_called_wrong(spent: Any, finn: User, signed_in: SignIn) -> None:
    charge(spent, spent.mission, "0.05")
    html = page(signed_in(finn), reverse("costs")).split('id="cost-check"')[1]
    assert "Adds up" in html
    assert "$0.05" in html


def test_a_period_and_what_it_is_compared_with_are_chosen_in_the_address(
    spent: Any, finn: User, signed_in: SignIn
) -> None:
    browser = signed_in(finn)
    day = (now() - timedelta(days=30)).date()
    html = page(browser, reverse("costs") + f"?period=days&from={day}&to={day}&compare=none")
    assert ">$0.80</data></div>" in html.split('class="headline"')[1][:200]
    assert "compared with" not in html.split("<h1>Costs</h1>")[1][:120]
    for wrong in ("from=2026-13-01&to=x", f"from={day}&to=2020-01-01", "from=0001-01-01&to=9999-12-31"):
        assert "The last 4 weeks are shown instead." in page(browser, reverse("costs") + f"?period=days&{wrong}")
    for code in ("7d", "90d", "month", "last-month", "year", "days", "nonsense"):
        for compared in ("before", "year", "none", "nonsense"):
            for by in ("time", "goal"):
                page(browser, reverse("costs") + f"?period={code}&compare={compared}&by={by}")


def test_rows_are_sorted_by_any_column(spent: Any, finn: User, signed_in: SignIn) -> None:
    browser = signed_in(finn)

    def first(sort: str) -> str:
        return rows_of(browser, reverse("costs") + f"?format=csv&sort={sort}")[0]["goal"]

    assert first("-accepted") == "Reviewer"
    assert first("accepted") != "Reviewer"
    for key in ("goal", "missions", "each", "attempts", "retries", "denied", "minutes", "waste", "total", "x"):
        assert first(f"-{key}")


def test_only_those_who_answer_for_money_see_it_and_only_of_their_teams(
    spent: Any, alice: User, bob: User, charlie: User, finn: User, signed_in: SignIn
) -> None:
    goal = CostMission.objects.get(pk=spent.mission.pk).goal
    paths = [reverse("costs"), reverse("cost-goal", args=[goal]), reverse("cost-mission", args=[spent.mission.pk])]
    for path in paths:
        assert signed_in(finn).get(path).status_code == 200
        assert signed_in(alice).get(path).status_code == 200
        assert signed_in(bob).get(path).status_code == 403
    assert "Nothing was spent in this period" in page(signed_in(charlie), paths[0])
    for path in (*paths[1:], *(f"{path}?format=csv" for path in paths[1:])):
        assert signed_in(charlie).get(path).status_code == 404
    assert signed_in(None).get(paths[0]).status_code == 302


def test_a_builder_of_another_team_sees_none_of_it(
    spent: Any, other_team: Any, make_person: Any, signed_in: SignIn
) -> None:
    from controlplane.tenancy.types import Role

    erin = make_person("Erin", spent.organisation, Role.BUILDER, team=other_team)
    assert "Nothing was spent" in page(signed_in(erin), reverse("costs"))
    assert signed_in(erin).get(reverse("cost-mission", args=[spent.mission.pk])).status_code == 404


def test_a_page_costs_the_same_queries_with_few_and_with_many_missions(
    spent: Any, finn: User, signed_in: SignIn, queries: Callable[..., int]
) -> None:
    browser = signed_in(finn)
    goal = CostMission.objects.filter(goal_name="Reviewer").values_list("goal", flat=True)[0]
    paths = [
        reverse("costs"),
        reverse("costs") + "?by=time",
        reverse("cost-goal", args=[goal]),
        reverse("cost-mission", args=[spent.mission.pk]),
    ]
    few = []
    for path in paths:
        cache.clear()
        few.append(queries(browser, path))
    for number in range(12):
        another(spent, f"Agent {number}", money="0.01", end="accept")
        another(spent, "Reviewer", money="0.01")
        charge(spent, spent.mission, "0.01")
    fold()
    for path, number in zip(paths, few, strict=True):
        cache.clear()
        assert queries(browser, path) == number, path
    assert max(few) <= 22, few


def test_names_of_strangers_are_text_in_page_and_csv(spent: Any, finn: User, signed_in: SignIn) -> None:
    CostMission.objects.update(goal_name=HOSTILE, title=HOSTILE)
    browser = signed_in(finn)
    goal = CostMission.objects.values_list("goal", flat=True)[0]
    for path in (reverse("costs"), reverse("cost-goal", args=[goal])):
        assert "<script>alert" not in page(browser, path)
    assert rows_of(browser, reverse("costs") + "?format=csv")[0]["goal"].startswith("'=cmd")


def test_costs_of_a_period_without_any_say_what_will_appear(world: Any, finn: User, signed_in: SignIn) -> None:
    fold()
    html = page(signed_in(finn), reverse("costs") + "?period=days&from=2020-01-01&to=2020-01-02")
    assert "Nothing was spent in this period" in html
    assert "Adds up" in html
