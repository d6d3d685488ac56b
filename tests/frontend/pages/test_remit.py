"""Changing a remit on its page: the form, what it says it would do, who has to agree, and what nobody loses."""

from __future__ import annotations

import html as entities
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from html.parser import HTMLParser
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from agents import services as agents
from agents.grants import Grant, parse_grants
from agents.models import Mission, MissionVersion
from budgets import selectors as budgets
from controlplane.audit.models import Entry
from controlplane.tenancy.models import User
from controlplane.tenancy.types import Principal
from governance import services as governance
from governance.models import Action, Escalation
from governance.selectors import left_to_answer
from governance.types import Proposal

SignIn = Callable[..., Client]
HOSTILE = "<script>alert(1)</script>\u202egnp.exe{{ 7|add:7 }}"


class _Fields(HTMLParser):
    """What a browser without script would send back from the form, without any button."""

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[str, str] = {}
        self._select = self._area = ""

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = dict(attributes)
        name = given.get("name") or ""
        if tag == "input" and name and given.get("type") not in ("checkbox", "radio", "submit"):
            self.found[name] = given.get("value") or ""
        if tag == "select":
            self._select = name
        if tag == "option" and self._select and ("selected" in given or self._select not in self.found):
            self.found[self._select] = given.get("value") or ""
        if tag == "textarea":
            self._area, self.found[name] = name, ""

    def handle_data(self, data: str) -> None:
        if self._area:
            self.found[self._area] += data

    def handle_endtag(self, tag: str) -> None:
        if tag == "select":
            self._select = ""
        if tag == "textarea":
            self.found[self._area] = self.found[self._area].removeprefix("\n")
            self._area = ""


def fields_of(html: str) -> dict[str, str]:
    parser = _Fields()
    parser.feed(html.split('id="remit-form"')[1].split("</form>")[0])
    return parser.found


def words_of(html: str) -> str:
    return " ".join(entities.unescape(re.sub(r"<[^>]+>", " ", html)).split())


class Page:
    """The change page of one mission in one person's browser."""

    def __init__(self, browser: Client, mission: Mission) -> None:
        self.browser, self.path = browser, reverse("mission-change", args=[mission.pk])
        self.fields: dict[str, str] = {}
        self.html = ""
        self.status = 0

    def open(self) -> Page:
        return self._read(self.browser.get(self.path))

    def press(self, button: str, **changes: str) -> Page:
        """`changes` of fields, by name; `__` stands for the dash in the names of grants."""
        typed = {name.replace("__", "-"): value for name, value in changes.items()}
        return self._read(self.browser.post(self.path, {**self.fields, **typed, "do": button}))

    def preview(self, **changes: str) -> Page:
        return self.press("preview", **changes)

    def send(self, **changes: str) -> Page:
        return self.press("send", **changes)

    def _read(self, response: Any) -> Page:
        self.status, self.html = response.status_code, response.content.decode()
        if 'id="remit-form"' in self.html:
            self.fields = fields_of(self.html)
        return self

    @property
    def words(self) -> str:
        return words_of(self.html)


@pytest.fixture
def opened(world: Any, alice: User, signed_in: SignIn) -> Page:
    return Page(signed_in(alice), world.mission).open()


def number_of_versions(world: Any) -> int:
    return MissionVersion.objects.filter(mission=world.mission).count()


def test_an_untouched_form_changes_nothing(opened: Page, world: Any) -> None:
    assert opened.status == 200
    opened.preview()
    assert "Nothing would change" in opened.html
    assert 'value="send"' not in opened.html
    opened.send()
    assert number_of_versions(world) == 1


@pytest.mark.parametrize(
    "constraints",
    [
        {"a": {"equals": 1}, "b": {"equals": "1"}, "c": {"equals": True}, "d": {"equals": ""}},
        {"a": {"equals": 0.5}, "b": {"equals": 1e-6}, "c": {"min": "5", "max": "10.50"}},
        {"a": {"one_of": ["x", "y z"]}, "b": {"one_of": ["two\nlines", " spaces "]}},
        {"a": {"starts_with": "tickets/ ", "max_length": 12}, "b": {"like": "INV-*"}},
        {"a": {"equals": HOSTILE}, HOSTILE[:100]: {"like": "</textarea>*"}},
    ],
)
def test_whatever_a_grant_says_comes_back_as_it_was(
    world: Any, alice: User, signed_in: SignIn, constraints: dict[str, Any], make_remit: Callable[..., Any]
) -> None:
    grant = Grant("books__customer", "escalate", constraints, max_calls=3, sentence="Look (“up”) a <b>customer</b>")
    mission = world.draft("Odd")
    agents.change_mission(
        actor=world.owner, mission_id=mission.pk, remit=make_remit(grants=(grant,)), note="", expected_version=1
    )
    page = Page(signed_in(alice), mission).open()
    assert "Nothing would change" in page.preview().html
    page.preview(goal="Another goal")
    page.send()
    assert parse_grants(mission.versions.get(number=3).grants) == [grant]


def test_less_counts_at_once_and_says_so(opened: Page, world: Any) -> None:
    opened.preview(budget="1.50", g0__removed="on")
    assert "Narrows The budget is 1.50 USD, was 2.00 USD" in opened.words
    assert "Narrows May no longer call books__" in opened.words
    assert "It counts at once." in opened.words
    assert number_of_versions(world) == 1
    opened.send(g0__removed="on")
    assert opened.status == 302
    world.mission.refresh_from_db()
    assert world.mission.version == 2
    assert budgets.mission_spend(mission_ids=[world.mission.pk])[world.mission.pk].limits.money == Decimal("1.50")


def test_more_waits_for_a_second_person_who_is_named(
    opened: Page, world: Any, bob: User, dana: User, as_bob: Principal
) -> None:
    opened.preview(budget="3.00", note="Twelve more customers")
    assert "Widens The budget is 3.00 USD, was 2.00 USD" in opened.words
    assert "It waits for a second person. It waits for Bob or Dana." in opened.words
    opened.send()
    world.mission.refresh_from_db()
    assert world.mission.version == 1
    question = Escalation.objects.get(kind="mission.widen")
    governance.decide(approver=as_bob, escalation_id=question.pk, version=1, approve=True, reason="Agreed")
    world.mission.refresh_from_db()
    assert world.mission.version == 2
    made = world.mission.versions.get(number=2)
    assert (made.signed_off_by_id, made.change_note) == (bob.pk, "Twelve more customers")


def test_whoever_a_route_asks_is_named_and_nobody_else(
    opened: Page, bob: User, dana: User, as_nadia: Principal
) -> None:
    desk = governance.save_group(actor=as_nadia, name="Directors", member_ids=[dana.pk])
    route = governance.Route(name="Large", kind="mission.widen", amount_above=Decimal("2.50"), group_id=desk.pk)
    governance.save_route(actor=as_nadia, route=route)
    opened.preview(budget="2.40")
    assert "It waits for Bob, Dana or Nadia." in opened.words
    opened.preview(budget="3.00")
    assert "It waits for Dana (Directors)." in opened.words
    opened.send()
    asked = Escalation.objects.get(kind="mission.widen")
    assert [person.name for person in left_to_answer([asked])[asked.pk]] == ["Dana"]


def test_a_grant_is_added_limited_and_said_in_sentences(opened: Page, world: Any) -> None:
    opened.press("add-grant")
    last = int(opened.fields["grants"]) - 1
    opened.press(f"add-limit-{last}")
    assert opened.fields[f"g{last}-rules"] == "2"
    opened.preview(
        **{
            f"g{last}__tool": "books__search",
            f"g{last}__effect": "escalate",
            f"g{last}__calls": "5",
            f"g{last}__r0__argument": "text",
            f"g{last}__r0__code": "one_of",
            f"g{last}__r0__value": "INV-1\r\nINV-2\r\n",
        }
    )
    said = "Widens May call books__search with text one of INV-1, INV-2, at most 5 times, once a person agrees"
    assert said in opened.words
    opened.send()
    added = parse_grants(world.mission.versions.get(number=2).grants)[-1]
    assert added == Grant("books__search", "escalate", {"text": {"one_of": ["INV-1", "INV-2"]}}, 5)


def test_a_limit_on_all_calls_together_is_set_like_any_other(opened: Page, world: Any) -> None:
    opened.press("add-grant")
    last = int(opened.fields["grants"]) - 1
    opened.preview(
        **{
            f"g{last}__tool": "books__write_reminder",
            f"g{last}__r0__argument": "amount",
            f"g{last}__r0__code": "max_total",
            f"g{last}__r0__value": "500.00",
        }
    )
    assert "Widens May call books__write_reminder with amount at most 500.00 in all" in opened.words
    opened.send()
    added = parse_grants(world.mission.versions.get(number=2).grants)[-1]
    assert added == Grant("books__write_reminder", constraints={"amount": {"max_total": "500.00"}})


def test_a_limit_raised_behind_an_old_sentence_is_called_out(opened: Page, world: Any) -> None:
    index = next(
        i for i, grant in enumerate(parse_grants(world.mission.versions.get().grants)) if "100.00" in str(grant)
    )
    name = next(key for key, value in opened.fields.items() if key.startswith(f"g{index}-") and value == "100.00")
    opened.preview(**{name.replace("-", "__"): "900.00"})
    assert re.search(r"Widens books__apply_credit: amount .*900.00, was .*100.00", opened.words)
    assert "It is still described as" in opened.words


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"goal": " "}, "This field is required."),
        ({"goal": "x" * 4001}, "at most 4000 characters"),
        ({"criteria": "\n \n"}, "This field is required."),
        ({"criteria": "\n".join("abcdefghijklmnopqrstuvwxyz12345")}, "1 to 30 lines"),
        ({"criteria": "x" * 301}, "at most 300 characters a line"),
        ({"budget": "-1"}, "an amount above 0"),
        ({"budget": "1e3000"}, "an amount above 0"),
        ({"budget": "NaN"}, "an amount above 0"),
        ({"budget": "0.0000001"}, "an amount above 0"),
        ({"steps": "0"}, "greater than or equal to 1"),
        ({"deadline": "yesterday"}, "Enter a valid date/time."),
        ({"deadline": "2001-01-01T10:00"}, "still to come"),
        ({"deadline": "9999-12-31T23:59"}, "of this century"),
        ({"importance": "godlike"}, "Select a valid choice"),
        ({"note": "x" * 301}, "at most 300 characters"),
        ({"g0__tool": "rm -rf"}, "Tool: a tool&#x27;s full name"),
        ({"g0__effect": "always"}, "How: allow or escalate"),
        ({"g0__calls": "many"}, "Calls: a whole number"),
        ({"g0__calls": "0"}, "Calls: a whole number from 1"),
        ({"g0__sentence": "x" * 301}, "In words: text of at most 300 characters"),
        ({"g0__rules": "1", "g0__r0__argument": "a", "g0__r0__value": "much"}, "a: a plain number"),
        ({"g0__rules": "1", "g0__r0__argument": "", "g0__r0__value": "5"}, "A limit names an argument"),
        (
            {"g0__rules": "1", "g0__r0__argument": "a", "g0__r0__code": "drop", "g0__r0__value": "5"},
            "names an argument",
        ),
        (
            {"g0__rules": "1", "g0__r0__argument": "a", "g0__r0__code": "json", "g0__r0__value": "[" * 5000},
            "JSON such as",
        ),
        (
            {"g0__rules": "1", "g0__r0__argument": "a", "g0__r0__code": "json", "g0__r0__value": '{"regex": "."}'},
            "not a rule",
        ),
    ],
)
def test_refused_input_changes_nothing_and_stays_in_the_form(
    opened: Page, world: Any, changes: dict[str, str], words: str
) -> None:
    for button in ("preview", "send"):
        opened.press(button, **changes)
        assert opened.status == 422
        assert words in opened.html, opened.words
    assert 'value="send"' not in opened.html
    name, typed = list(changes.items())[-1]
    if typed.strip() and name not in ("importance", "g0__effect"):
        assert opened.fields[name.replace("__", "-")].strip() in (typed.strip(), " ".join(typed.split()))
    assert number_of_versions(world) == 1


def test_nothing_is_sent_that_was_not_previewed(opened: Page, world: Any) -> None:
    opened.send(budget="1.00")
    assert opened.status == 409
    opened.preview(budget="1.50")
    opened.send(budget="1.00")
    assert opened.status == 409
    assert "You changed something after the last preview." in opened.html
    assert "The budget is 1.00 USD" in opened.words
    assert number_of_versions(world) == 1
    opened.send()
    assert number_of_versions(world) == 2


def test_whoever_comes_second_sees_both_and_loses_nothing(
    opened: Page, world: Any, as_nadia: Principal, make_remit: Callable[..., Any]
) -> None:
    deadline = world.mission.versions.get().deadline
    opened.preview(goal="Only the oldest twenty", budget="1.90")
    agents.change_mission(
        actor=as_nadia,
        mission_id=world.mission.pk,
        remit=replace(make_remit(budget="1.20"), deadline=deadline),
        note="Month end",
        expected_version=1,
    )
    opened.send()
    assert opened.status == 412
    assert "Nadia made version 2" in opened.words
    assert "Month end" in opened.words
    assert "Narrows The budget is 1.20 USD, was 2.00 USD" in opened.words
    assert "Widens The budget is 1.90 USD, was 1.20 USD" in opened.words
    assert opened.fields["goal"] == "Only the oldest twenty"
    assert number_of_versions(world) == 2
    opened.send()
    assert opened.status == 302
    assert world.mission.versions.get(number=3).goal == "Only the oldest twenty"


def test_more_given_on_request_is_not_taken_back_by_an_unrelated_change(
    world: Any, alice: User, as_dana: Principal, signed_in: SignIn
) -> None:
    account = world.account_of("mission", world.mission.pk)
    arguments = {"money": "5.00", "reason": "", "account_id": str(account)}
    asked = governance.propose(proposer=world.owner, proposal=Proposal(kind="budget.topup", arguments=arguments))
    assert asked.escalation is not None
    governance.decide(approver=as_dana, escalation_id=asked.escalation.id, version=1, approve=True, reason="")
    page = Page(signed_in(alice), world.mission).open()
    assert page.fields["budget"] == "7.00"
    page.preview(g0__removed="on")
    assert "It counts at once." in page.words
    page.send(g0__removed="on")
    assert budgets.mission_spend(mission_ids=[world.mission.pk])[world.mission.pk].limits.money == Decimal(7)


def test_a_change_that_still_waits_is_replaced_by_the_next(
    opened: Page, world: Any, alice: User, signed_in: SignIn
) -> None:
    opened.preview(budget="3.00").send()
    page = Page(signed_in(alice), world.mission).open()
    assert "Version 2 by Alice still waits for sign-off." in page.words
    page.preview(budget="4.00").send()
    states = dict(MissionVersion.objects.filter(mission=world.mission).values_list("number", "state"))
    assert states == {1: "active", 2: "superseded", 3: "awaiting_sign_off"}
    assert list(Escalation.objects.order_by("id").values_list("state", flat=True)) == ["withdrawn", "open"]


def test_rewording_what_waits_for_sign_off_withdraws_the_question(
    world: Any, alice: User, as_dana: Principal, signed_in: SignIn
) -> None:
    mission = world.draft("Large", budget="50.00")
    agents.submit_mission(actor=world.owner, mission_id=mission.pk)
    page = Page(signed_in(alice), mission).open()
    assert "start the mission again afterwards" in page.words
    page.preview(budget="900.00").send()
    mission.refresh_from_db()
    assert (mission.state, mission.version) == ("draft", 2)
    question = Escalation.objects.get(kind="mission.sign_off")
    assert question.state == "withdrawn"
    again = agents.submit_mission(actor=world.owner, mission_id=mission.pk)
    assert again.state == "waiting"


def test_an_old_sign_off_never_starts_another_wording(
    world: Any, as_dana: Principal, make_remit: Callable[..., Any]
) -> None:
    """Even if the question about the first wording were still open."""
    mission = world.draft("Large", budget="50.00")
    judgement = agents.submit_mission(actor=world.owner, mission_id=mission.pk)
    assert judgement.escalation is not None
    version = mission.versions.get()
    MissionVersion.objects.filter(pk=version.pk).update(number=7)
    version.pk = None
    version.id = MissionVersion().id
    version.number, version.budget_money = 2, Decimal(900)
    version.save(force_insert=True)
    MissionVersion.objects.filter(mission=mission, number=7).update(number=1)
    Mission.objects.filter(pk=mission.pk).update(version=2)
    decided = governance.decide(
        approver=as_dana, escalation_id=judgement.escalation.id, version=1, approve=True, reason=""
    )
    mission.refresh_from_db()
    assert decided.state == "superseded"
    assert mission.state != "active"


def test_criteria_keep_what_was_claimed_of_them(opened: Page, world: Any) -> None:
    agents.report_progress(principal=world.as_run, position=1, state="claimed", evidence="31 written")
    claimed = opened.fields["criteria"].split("\n")[1]
    opened.preview(criteria=f"Something new\r\n{claimed}")
    assert "Changes Also accepted only when: “Something new”" in opened.words
    opened.send()
    items = list(world.mission.checklist.order_by("position").values_list("text", "state", "evidence"))
    assert items == [("Something new", "open", ""), (claimed, "claimed", "31 written")]


def test_only_those_who_operate_it_may_change_it_and_nothing_that_is_over(
    world: Any, alice: User, bob: User, finn: User, nadia: User, charlie: User, signed_in: SignIn
) -> None:
    before = Entry.objects.count()
    for user, status in ((bob, 403), (finn, 403), (charlie, 404)):
        page = Page(signed_in(user), world.mission).open()
        assert page.status == status
        page.fields = Page(signed_in(alice), world.mission).open().fields
        assert page.send(budget="1.00").status == status
    assert Entry.objects.exclude(event__startswith="person.").count() <= before
    assert number_of_versions(world) == 1
    assert (
        "Change the remit"
        not in signed_in(bob).get(reverse("mission-tab", args=[world.mission.pk, "remit"])).content.decode()
    )
    page = Page(signed_in(nadia), world.mission).open()
    agents.stop_mission(actor=world.owner, mission_id=world.mission.pk, reason="enough")
    assert page.preview(budget="1.00").status == 409
    assert "its remit stays as it is" in page.words
    assert number_of_versions(world) == 1


def test_strangers_words_stay_words_in_the_form_and_the_preview(opened: Page, world: Any) -> None:
    opened.preview(goal=HOSTILE, note=HOSTILE, g0__sentence=HOSTILE, criteria=HOSTILE)
    assert "<script>alert" not in opened.html
    assert opened.fields["goal"] == HOSTILE
    sentences = opened.html.split('id="preview"')[1].split("</section>")[0]
    assert "\u202e" not in sentences


def test_every_grant_of_a_new_mission_can_be_edited_before_it_starts(
    world: Any, alice: User, signed_in: SignIn
) -> None:
    browser = signed_in(alice)
    values = {"template": "receivables", "team": str(world.team.pk), "edit": "1"}
    response = browser.post(reverse("mission-new"), values)
    mission = Mission.objects.latest("id")
    assert mission.state == "draft"
    assert response["Location"] == reverse("mission-change", args=[mission.pk])
    page = Page(browser, mission).open().preview(g0__removed="on")
    assert "Nothing has started yet." in page.words
    page.send(g0__removed="on")
    mission.refresh_from_db()
    assert (mission.state, mission.version, mission.versions.get(number=2).state) == ("draft", 2, "draft")


# The tab ----------------------------------------------------------------------


def remit_tab(browser: Client, world: Any, query: str = "") -> str:
    response = browser.get(reverse("mission-tab", args=[world.mission.pk, "remit"]) + query)
    assert response.status_code == 200
    return response.content.decode()


@pytest.fixture
def rewritten(world: Any, as_bob: Principal, make_remit: Callable[..., Any]) -> Any:
    """Version 2 signed off by Bob, version 3 tighter, version 4 refused by Bob."""
    base = replace(make_remit(), deadline=world.mission.versions.get().deadline)

    def change(number: int, note: str, **changes: Any) -> None:
        agents.change_mission(
            actor=world.owner, mission_id=world.mission.pk, remit=replace(base, **changes), note=note,
            expected_version=number - 1,
        )  # fmt: skip

    change(2, "Autumn", budget_money=Decimal(4), goal="Chase the autumn invoices.")
    governance.decide(
        approver=as_bob, escalation_id=Escalation.objects.get().pk, version=1, approve=True, reason="Agreed"
    )
    change(3, "Less", budget_money=Decimal(3), goal="Chase the autumn invoices.")
    change(4, "Much more", budget_money=Decimal(90), deadline=base.deadline + timedelta(days=3))
    question = Escalation.objects.latest("id")
    governance.decide(approver=as_bob, escalation_id=question.pk, version=1, approve=False, reason="Too much")
    return world


def test_the_history_says_who_made_and_who_signed_off_each_version(
    rewritten: Any, finn: User, signed_in: SignIn
) -> None:
    words = words_of(remit_tab(signed_in(finn), rewritten).split('id="versions"')[1])
    assert re.search(r"2 Autumn Superseded Alice .* Bob", words)
    assert re.search(r"3 Less In force Alice .* not needed", words)
    assert re.search(r"4 Much more Refused Alice .* Bob refused .* Too much", words)


def test_any_two_versions_are_compared_in_sentences(rewritten: Any, finn: User, signed_in: SignIn) -> None:
    browser = signed_in(finn)
    usual = words_of(remit_tab(browser, rewritten))
    assert "From version 3 to version 4" in usual
    assert "Widens The budget is 90.00 USD, was 3.00 USD" in usual
    html = remit_tab(browser, rewritten, "?from=1&to=2")
    assert "Widens The goal is worded differently" in words_of(html)
    assert "<ins>Chase the autumn invoices.</ins>" in html
    back = words_of(remit_tab(browser, rewritten, "?from=2&to=1"))
    assert "Narrows The budget is 2.00 USD, was 4.00 USD" in back
    assert "No difference." in words_of(remit_tab(browser, rewritten, "?from=3&to=3"))
    for nonsense in ("?from=99&to=-1", "?from=x&to=%E2%80%AE", "?from=" + "9" * 40):
        assert "From version 3 to version 4" in words_of(remit_tab(browser, rewritten, nonsense))


def test_an_open_question_names_whom_it_waits_for(opened: Page, world: Any, bob: User, dana: User, nadia: User) -> None:
    opened.preview(budget="3.00").send()
    words = words_of(remit_tab(opened.browser, world))
    assert "Waits for Bob, Dana or Nadia" in words


def test_history_costs_the_same_with_two_versions_and_with_twenty(
    opened: Page, world: Any, finn: User, signed_in: SignIn, queries: Callable[..., int]
) -> None:
    browser, path = signed_in(finn), reverse("mission-tab", args=[world.mission.pk, "remit"])
    form = reverse("mission-change", args=[world.mission.pk])
    opened.preview(budget="1.99").send()
    few, few_of_form = queries(browser, path), queries(opened.browser, form)
    for step in range(18):
        opened.open().preview(budget=f"1.{98 - step}").send()
    assert world.mission.versions.count() == 20
    assert queries(browser, path) == few
    assert queries(opened.browser, form) == few_of_form
    assert max(few, few_of_form) <= 30


def test_a_preview_writes_nothing(opened: Page, world: Any) -> None:
    before = (Entry.objects.count(), Action.objects.count())
    opened.preview(budget="900.00", goal="Everything")
    assert (Entry.objects.count(), Action.objects.count()) == before


def test_the_gate_is_asked_about_a_call_by_the_grants_as_they_stand_in_the_form(opened: Page, world: Any) -> None:
    before = Action.objects.count()
    call = '{"invoice": "INV-0113", "amount": "%s", "reason": "Delivered late"}'
    opened.press("try", try__tool="books__apply_credit", try__arguments=call % "40.00")
    assert "It would run at once" in opened.words
    opened.press("try", try__arguments=call % "240.00", goal="Something else entirely.")
    assert "Asks a person" in opened.words
    assert opened.fields["goal"] == "Something else entirely."
    opened.press("try", try__arguments=call % "4000.00")
    assert "allowed only within limits" in opened.words
    taken_away = {
        name.replace("-tool", "-removed"): "on"
        for name, value in opened.fields.items()
        if value == "books__apply_credit" and name.startswith("g")
    }
    opened.press("try", try__arguments=call % "40.00", **taken_away)
    assert "This mission may not use books__apply_credit" in opened.words
    world.server.team_ids = [world.organisation.pk]
    world.server.save()
    opened.press("try", try__arguments=call % "40.00")
    assert "It would run at once" not in opened.words
    assert "Refused" in opened.words
    assert Action.objects.count() == before
    assert number_of_versions(world) == 1


@pytest.mark.parametrize(
    ("tool", "arguments", "said"),
    [
        ("", "{}", "Choose a tool"),
        ("books__overdue", "{nonsense", "line 1"),
        ("books__overdue", '{"a": 1, "a": 2}', "twice"),
        ("books__overdue", "[1]", "names with values"),
        (HOSTILE, "{}", "Refused"),
    ],
)
def test_a_call_that_cannot_be_tried_says_why_and_stays_in_the_form(
    opened: Page, world: Any, tool: str, arguments: str, said: str
) -> None:
    opened.press("try", try__tool=tool, try__arguments=arguments)
    assert said in opened.words
    assert HOSTILE not in opened.html
    assert (opened.fields["try-tool"], opened.fields["try-arguments"]) == (tool, arguments)
    assert number_of_versions(world) == 1
