"""The pages of budgets: the tree by window, limits and freezes by those who may, requests, alerts, lines, CSV."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from django.core.cache import cache
from django.test import Client
from django.urls import reverse

from budgets import selectors
from budgets import services as budgets
from budgets.accounts import judge_account
from budgets.models import Account, AccountLimit, LimitChange
from budgets.types import Level, Limits, WindowKind
from controlplane.audit.models import Entry
from controlplane.tenancy.models import User
from controlplane.tenancy.types import Principal

from .spending import page, rows_of, spend

SignIn = Callable[..., Client]


@pytest.fixture
def team_budget(world: Any) -> Any:
    return world.account_of("team", world.team.pk)


def form_of(browser: Client, account: Any, window: str = "month") -> dict[str, str]:
    """The form as the page gives it, ready to be changed and sent."""
    html = page(browser, reverse("budget-limit", args=[account]) + f"?window={window}")
    form = html.split('name="window"')[1]

    def value(name: str) -> str:
        field = form.split(f'name="{name}"')[1].split(">")[0]
        return field.split('value="')[1].split('"')[0] if "value=" in field else ""

    return {
        "window": window,
        "money": value("money"),
        "steps": value("steps"),
        "tokens": value("tokens"),
        "seen": value("seen"),
        "replaces": value("replaces"),
        "reason": "Month end",
    }


def limit(account: Any, window: str = "month") -> Decimal | None:
    return AccountLimit.objects.get(account_id=account, kind=window).money


def test_finance_changes_a_limit_and_says_why(world: Any, team_budget: Any, finn: User, signed_in: SignIn) -> None:
    browser = signed_in(finn)
    path = reverse("budget-limit", args=[team_budget])
    response = browser.post(path, {**form_of(browser, team_budget), "money": "95.50"}, follow=True)
    assert "The limit is set." in response.content.decode()
    assert "Month end" in response.content.decode()
    assert limit(team_budget) == Decimal("95.50")
    assert Entry.objects.filter(event="budget.limit_set", subject_id=team_budget).latest("id").actor_name == "Finn"


def test_a_large_raise_waits_for_a_second_person_who_answers_on_the_page(
    world: Any, team_budget: Any, finn: User, nadia: User, alice: User, signed_in: SignIn
) -> None:
    browser, second = signed_in(finn), signed_in(nadia)
    sent = browser.post(
        reverse("budget-limit", args=[team_budget]), {**form_of(browser, team_budget), "money": "300"}, follow=True
    ).content.decode()
    assert "The limit changes when a second person confirms it." in sent
    assert limit(team_budget) == 100
    change = LimitChange.objects.get()
    answer = reverse("budget-change", args=[change.pk])
    own = page(browser, reverse("budgets"))
    assert 'value="withdraw"' in own
    assert 'value="confirm"' not in own
    assert 'value="confirm"' not in page(signed_in(alice), reverse("budgets"))
    assert 'value="confirm"' in page(second, reverse("budgets"))
    assert browser.post(answer, {"answer": "confirm"}).status_code == 403
    assert limit(team_budget) == 100
    assert second.post(answer, {"answer": "confirm"}).status_code == 302
    assert limit(team_budget) == 300
    assert second.post(answer, {"answer": "confirm"}).status_code == 409


def test_a_stale_form_overwrites_nothing_and_shows_what_is_there_now(
    world: Any, team_budget: Any, finn: User, nadia: User, signed_in: SignIn
) -> None:
    browser, other = signed_in(finn), signed_in(nadia)
    path, mine = reverse("budget-limit", args=[team_budget]), form_of(browser, team_budget)
    other.post(path, {**form_of(other, team_budget), "money": "60"})
    response = browser.post(path, {**mine, "money": "101"})
    html = response.content.decode()
    assert response.status_code == 409
    assert "Nadia changed this limit meanwhile" in html
    assert 'value="101"' in html  # what was typed stays
    assert "$60.00" in html
    assert limit(team_budget) == 60


def test_a_form_opened_before_somebody_asked_replaces_nothing_until_its_author_has_seen_it(
    world: Any, team_budget: Any, finn: User, nadia: User, signed_in: SignIn
) -> None:
    browser, other = signed_in(finn), signed_in(nadia)
    path, one = reverse("budget-limit", args=[team_budget]), reverse("budget", args=[team_budget])
    mine = {**form_of(browser, team_budget), "money": "90"}
    other.post(path, {**form_of(other, team_budget), "money": "300", "reason": "Three <b>audits</b>"})
    asked = LimitChange.objects.get()
    refused = browser.post(path, mine)
    html = refused.content.decode()
    assert refused.status_code == 409
    assert "Nadia asked for 300.00 USD each month meanwhile, which waits for a second person." in html
    assert "Three &lt;b&gt;audits&lt;/b&gt;" in html
    assert "Another change takes its place." in html
    assert 'value="90"' in html  # what was typed stays
    asked.refresh_from_db()
    assert (limit(team_budget), asked.state) == (100, "open")
    again = {**mine, "replaces": html.split('name="replaces" value="')[1].split('"')[0]}
    sent = browser.post(path, again, follow=True).content.decode()
    assert limit(team_budget) == 90
    assert "What Nadia had asked for waits no more." in sent
    for client in (browser, other):
        shown = page(client, one).split("Asked for, not made")[1]
        assert "$300.00" in shown
        assert "Replaced by a later one, by Finn. Nadia asked: Three &lt;b&gt;audits&lt;/b&gt;" in shown
    said = page(other, reverse("audit") + "?q=place")
    assert "Finn changed Receivables in place of the new limit that Nadia asked for" in said


def test_what_was_refused_or_withdrawn_stands_on_the_budget_and_what_was_confirmed_does_not(
    world: Any, team_budget: Any, finn: User, nadia: User, charlie: User, signed_in: SignIn
) -> None:
    browser, other = signed_in(finn), signed_in(nadia)
    path, one = reverse("budget-limit", args=[team_budget]), reverse("budget", args=[team_budget])
    for money, who, answer in (("301", other, "refuse"), ("302", browser, "withdraw"), ("303", other, "confirm")):
        browser.post(path, {**form_of(browser, team_budget), "money": money})
        change = LimitChange.objects.get(state="open")
        who.post(reverse("budget-change", args=[change.pk]), {"answer": answer, "reason": "Not now"})
    shown = page(browser, one).split("Asked for, not made")[1].split("</section>")[0]
    assert "Refused, by Nadia. Finn asked: Month end" in shown
    assert "Withdrawn. Finn asked: Month end" in shown
    assert "$303.00" not in shown
    assert signed_in(charlie).get(one).status_code == 404


def test_a_limit_below_what_is_spent_is_shown_as_it_was_typed(
    world: Any, team_budget: Any, finn: User, signed_in: SignIn
) -> None:
    spend(world, "1.80")
    browser = signed_in(finn)
    browser.post(reverse("budget-limit", args=[team_budget]), {**form_of(browser, team_budget), "money": "1.00"})
    html = page(browser, reverse("budget", args=[team_budget]))
    assert "More than the limit is spent or held already." in html
    assert "$1.00" in html.split("<dt>Limit</dt>")[1].split("</dd>")[0]
    (row,) = [row for row in rows_of(browser, reverse("budgets") + "?format=csv") if row["id"] == str(team_budget)]
    assert (Decimal(row["limit"]), Decimal(row["spent"]), Decimal(row["left"])) == (1, Decimal("1.80"), 0)
    assert "more is spent or held" in page(browser, reverse("budgets"))


@pytest.mark.parametrize(
    ("field", "typed"),
    [
        ("money", "-1"),
        ("money", "1,000"),
        ("money", "1e5"),
        ("money", "ten"),
        ("money", "NaN"),
        ("money", "9" * 60),
        ("money", "0.0000000000001"),
        ("steps", "1.5"),
        ("steps", "-3"),
        ("tokens", "9" * 30),
        ("reason", ""),
        ("reason", "x" * 301),
    ],
)
def test_bad_input_is_refused_beside_its_field_and_changes_nothing(
    world: Any, team_budget: Any, finn: User, signed_in: SignIn, field: str, typed: str
) -> None:
    browser = signed_in(finn)
    sent = {**form_of(browser, team_budget), "money": "90", field: typed}
    response = browser.post(reverse("budget-limit", args=[team_budget]), sent)
    assert response.status_code == 422
    assert 'class="error"' in response.content.decode()
    assert limit(team_budget) == 100


def test_freezing_and_releasing_take_a_reason_and_are_told(
    world: Any, team_budget: Any, finn: User, signed_in: SignIn
) -> None:
    browser = signed_in(finn)
    freeze, release = (reverse(name, args=[team_budget]) for name in ("budget-freeze", "budget-unfreeze"))
    assert browser.post(freeze, {"reason": " "}).status_code == 422
    assert not Account.objects.get(pk=team_budget).frozen
    assert (
        "Frozen by hand: Odd spending" in browser.post(freeze, {"reason": "Odd spending"}, follow=True).content.decode()
    )
    assert world.act("books__overdue").reason_code == "budget.frozen"
    assert browser.post(release, {"reason": ""}).status_code == 422
    assert Account.objects.get(pk=team_budget).frozen
    browser.post(release, {"reason": "Explained"})
    assert not Account.objects.get(pk=team_budget).frozen
    assert world.act("books__overdue").state == "permitted"
    assert Entry.objects.filter(event="budget.unfrozen").latest("id").payload["reason"] == "Explained"


def test_those_who_may_not_change_budgets_see_no_buttons_and_change_nothing(
    world: Any, team_budget: Any, alice: User, bob: User, charlie: User, as_finn: Principal, signed_in: SignIn
) -> None:
    asked = budgets.change_limit(
        actor=as_finn,
        account_id=team_budget,
        window=WindowKind.MONTH,
        limits=Limits(Decimal(900)),
        reason="More",
        seen=form_of_limits(team_budget),
    )
    forms = {
        "budget-limit": (
            team_budget,
            {"window": "month", "money": "1", "reason": "no", "seen": form_of_limits(team_budget)},
        ),
        "budget-freeze": (team_budget, {"reason": "no"}),
        "budget-unfreeze": (team_budget, {"reason": "no"}),
        "budget-change": (asked.change_id, {"answer": "confirm"}),
    }
    before = Entry.objects.exclude(event__startswith="person.").count()
    for user, expected in ((alice, 403), (bob, 403), (charlie, 404)):
        browser = signed_in(user)
        for name, (key, body) in forms.items():
            assert browser.post(reverse(name, args=[key]), body).status_code == expected, (user.name, name)
    html = page(signed_in(alice), reverse("budget", args=[team_budget]))
    assert "Change the limit" not in html
    assert "Freeze this budget" not in html
    assert (limit(team_budget), Account.objects.get(pk=team_budget).frozen) == (100, False)
    assert LimitChange.objects.get().state == "open"
    assert Entry.objects.exclude(event__startswith="person.").count() == before


def form_of_limits(account: Any) -> str:
    from budgets.changes import wording_of

    row = AccountLimit.objects.get(account_id=account, kind="month")
    return wording_of(Limits(row.money, row.tokens, row.steps))


def test_a_builder_asks_for_more_and_sees_what_came_of_it(
    world: Any, team_budget: Any, alice: User, bob: User, finn: User, signed_in: SignIn
) -> None:
    browser = signed_in(alice)
    assert "Ask an approver" in page(browser, reverse("budget", args=[team_budget]))
    sent = browser.post(
        reverse("budget-ask", args=[team_budget]), {"money": "25.00", "reason": "Year end"}, follow=True
    ).content.decode()
    assert "Asked. It waits for an approver." in sent
    assert limit(team_budget) == 100
    listed = page(signed_in(finn), reverse("budgets")).split("Requests for more")[1]
    assert "$25.00 more" in listed
    assert "Waits for a person" in listed
    assert "Year end" in listed
    assert browser.post(reverse("budget-ask", args=[team_budget]), {"money": "x", "reason": ""}).status_code == 422


def test_the_tree_is_shown_in_the_window_one_chooses(world: Any, finn: User, signed_in: SignIn) -> None:
    spend(world, "0.75")
    browser = signed_in(finn)
    for window in ("day", "week", "month", "total"):
        rows = {row["level"]: row for row in rows_of(browser, reverse("budgets") + f"?window={window}&format=csv")}
        assert {row["window"] for row in rows.values()} == {window}
        assert Decimal(rows["mission"]["spent"]) == Decimal(rows["organisation"]["spent"]) == Decimal("0.75")
        assert (rows["organisation"]["limit"] != "") == (window == "month")
        assert (rows["mission"]["limit"] != "") == (window == "total")
        page(browser, reverse("budgets") + f"?window={window}")


def test_the_budget_of_the_judge_is_named_and_counted_in_tokens(world: Any, finn: User, signed_in: SignIn) -> None:
    judge, browser = judge_account(world.organisation.pk), signed_in(finn)
    limit = AccountLimit.objects.get(account_id=judge).tokens
    assert f"0 of {limit:,} tokens" in page(browser, reverse("budgets"))
    assert "Budget of the judge" in page(browser, reverse("budget", args=[judge]))


def test_every_number_opens_exactly_its_lines(busy: Any, finn: User, signed_in: SignIn) -> None:
    browser = signed_in(finn)
    account = busy.account_of("mission", busy.mission.pk)
    html = page(browser, reverse("budget", args=[busy.account_of("agent", busy.agent.pk)]))
    path = reverse("budget", args=[account])
    assert f"{path}?show=charged&amp;window=total" in html
    spent = rows_of(browser, reverse("budgets") + "?format=csv")
    row = next(row for row in spent if row["id"] == str(account))
    lines = rows_of(browser, f"{path}?show=charged&window=total&format=csv")
    assert sum(Decimal(line["money"]) for line in lines) == Decimal(row["spent"])
    assert {line["kind"] for line in lines} == {"settle"}
    limits = rows_of(browser, f"{path}?show=limits&format=csv")
    assert {line["kind"] for line in limits} == {"allocation"}
    for show in ("all", "held", "nonsense"):
        page(browser, f"{path}?show={show}&window=week")


def test_budgets_below_one_are_paged_beside_the_lines_and_found_by_name(
    world: Any,
    team_budget: Any,
    as_finn: Principal,
    finn: User,
    bob: User,
    charlie: User,
    signed_in: SignIn,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for number in range(60):
        budgets.open_account(
            actor=as_finn,
            organisation_id=as_finn.organisation_id,
            team_id=world.team.pk,
            parent_id=team_budget,
            level=Level.OTHER,
            name=f"Region {number:02d}",
            limits=Limits(Decimal(5)),
            window=WindowKind.MONTH,
        )
    browser, path = signed_in(finn), reverse("budget", args=[team_budget])
    first = page(browser, path)
    assert ">Region 59</a>" in first
    assert ">Region 03</a>" not in first
    older = first.split('aria-label="Pages of budgets"')[1].split('href="')[1].split('"')[0]
    assert older.startswith("?below=")
    assert ">Region 03</a>" in page(browser, path + older)
    monkeypatch.setattr(selectors, "MAX_PAGE", 7)
    rows = rows_of(browser, reverse("budgets") + "?q=region&window=week&format=csv")
    assert sorted(row["budget"] for row in rows) == [f"Region {number:02d}" for number in range(60)]
    assert rows_of(signed_in(charlie), reverse("budgets") + "?q=region&format=csv") == []
    for who in (finn, bob):
        found = page(signed_in(who), reverse("budgets") + "?q=region+03&window=week")
        assert ">Region 03</a>" in found
        assert ">Region 04</a>" not in found
    assert page(browser, path + "?q=region+03").count(">Region 0") == 1
    assert "Nothing matches" in page(browser, path + "?q=<nowhere>")
    assert ">Region 03</a>" not in signed_in(charlie).get(reverse("budgets") + "?q=region").content.decode()
    assert browser.get(path + "?below=nonsense").status_code == 422


@pytest.mark.parametrize(
    ("window", "words"),
    [("total", "In total, of"), ("month", "This month, of"), ("week", "This week, of"), ("day", "Today, of")],
)
def test_home_names_the_window_that_it_shows(
    world: Any, as_finn: Principal, finn: User, signed_in: SignIn, window: str, words: str
) -> None:
    account = world.account_of("organisation", world.organisation.pk)
    budgets.set_limit(actor=as_finn, account_id=account, window=WindowKind.MONTH, limits=Limits())
    budgets.set_limit(actor=as_finn, account_id=account, window=WindowKind(window), limits=Limits(Decimal(70)))
    assert f"{words} <" in page(signed_in(finn), reverse("home")).split("<h2>Spend</h2>")[1]


def test_a_budget_nearly_spent_is_said_on_the_next_page_and_on_none_after_the_limit_was_raised(
    world: Any, team_budget: Any, as_finn: Principal, finn: User, bob: User, charlie: User, signed_in: SignIn
) -> None:
    budgets.set_limit(
        actor=as_finn, account_id=team_budget, window=WindowKind.MONTH, limits=Limits(money=Decimal("1.25"))
    )
    assert "has spent" not in page(signed_in(finn), reverse("home"))
    spend(world, "1.00")
    for user in (finn, bob):
        html = page(signed_in(user), reverse("home"))
        assert "“Receivables” has spent 80 % of its limit for this month." in html
    assert "has spent" not in page(signed_in(charlie), reverse("home"))
    alerts = page(signed_in(finn), reverse("budgets")).split(">Alerts</h2>")[1]
    assert "$1.00" in alerts
    assert "80 %" in alerts
    budgets.set_limit(actor=as_finn, account_id=team_budget, window=WindowKind.MONTH, limits=Limits(money=Decimal(9)))
    assert "has spent" not in page(signed_in(finn), reverse("home"))


def test_the_pages_cost_the_same_queries_whatever_waits_and_was_asked(
    world: Any,
    team_budget: Any,
    as_finn: Principal,
    finn: User,
    alice: User,
    signed_in: SignIn,
    queries: Callable[..., int],
) -> None:
    browser, asker = signed_in(finn), signed_in(alice)

    def more(number: int) -> None:
        for each in range(number):
            asker.post(reverse("budget-ask", args=[team_budget]), {"money": f"{each + 1}.00", "reason": "More"})
            for account in Account.objects.filter(level__in=["team", "organisation"]):
                for window in WindowKind:
                    budgets.set_limit(actor=as_finn, account_id=account.pk, window=window, limits=Limits(Decimal(100)))
                    waiting = LimitChange.objects.filter(account=account, kind=window, state="open").first()
                    budgets.change_limit(
                        actor=as_finn,
                        account_id=account.pk,
                        window=window,
                        limits=Limits(Decimal(900 + each)),
                        reason="More",
                        seen=wording(),
                        replaces=waiting and waiting.pk,
                    )
        spend(world, "0.10")

    def wording() -> str:
        from budgets.changes import wording_of

        return wording_of(Limits(Decimal(100)))

    tree, one = reverse("budgets"), reverse("budget", args=[team_budget])
    paths = [tree, f"{tree}?window=week", f"{tree}?q=e&window=week", one, f"{one}?q=e&show=charged&window=month"]
    more(1)
    few = []
    for path in paths:
        cache.clear()
        few.append(queries(browser, path))
    more(4)
    for path, number in zip(paths, few, strict=True):
        cache.clear()
        assert queries(browser, path) == number, path
    assert max(few) <= 28, few


def test_a_missions_budget_shows_what_was_charged_and_every_line_when_asked(
    world: Any, alice: User, signed_in: Callable[..., Client]
) -> None:
    spend(world, "0.35")
    browser, path = signed_in(alice), reverse("mission-tab", args=[world.mission.pk, "budget"])
    shown, every = page(browser, path), page(browser, f"{path}?show=all")
    assert "Charged" in shown
    assert "Held" not in shown.partition('id="mission-lines"')[2].partition("</section>")[0]
    assert "Held" in every.partition('id="mission-lines"')[2].partition("</section>")[0]
    limit_set = every.partition("Limit set")[2].partition("</tr>")[0]
    assert limit_set
    assert "sandbox time" not in limit_set
