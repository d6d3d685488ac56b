"""Changing a remit: what the form takes and keeps, what it says, and what is refused."""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from django.urls import reverse

from agents import services as agents
from agents.grants import Grant, parse_grants
from agents.models import McpTool, Mission
from budgets import selectors as budgets
from controlplane.audit.models import Entry
from controlplane.tenancy.models import User
from controlplane.tenancy.types import Principal
from governance import services as governance
from governance.models import Action, Escalation
from governance.selectors import left_to_answer

from .remit_page import Page, SignIn, fields_of, number_of_versions

HOSTILE = "<script>alert(1)</script>\u202egnp.exe{{ 7|add:7 }}"


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
    assert [person.name for person in left_to_answer([asked])[asked.pk].people] == ["Dana"]


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


def test_another_tool_behind_an_old_sentence_is_called_out_and_named_beside_it(
    opened: Page, world: Any, bob: User, as_bob: Principal, signed_in: SignIn
) -> None:
    sentence = parse_grants(world.mission.versions.get().grants)[0].sentence
    opened.preview(g0__tool="nope__tool")
    assert "No server offers nope__tool to this team now." in opened.words
    opened.preview(g0__tool="sqlite__write_query")
    assert "No server offers" not in opened.words
    assert "Widens May call sqlite__write_query" in opened.words
    assert f"It is described as “{sentence}”. Check that this holds." in opened.words
    opened.send()
    question = Escalation.objects.get(kind="mission.widen")
    card = signed_in(bob).get(reverse("approval", args=[question.pk])).content.decode()
    assert "Check that this holds." in card
    governance.decide(approver=as_bob, escalation_id=question.pk, version=1, approve=True, reason="Agreed")
    html = signed_in(bob).get(reverse("mission", args=[world.mission.pk])).content.decode()
    words = html.split("Remit in words")[1].split("</section>")[0]
    assert "sqlite__write_query" in words.split(sentence)[1].split("</li>")[0]


def test_a_tool_behind_a_thousand_others_is_not_called_unknown(opened: Page, make_server: Any) -> None:
    server = make_server("a", ("first",))
    first = McpTool.objects.get(server=server)
    McpTool.objects.bulk_create(
        McpTool(
            server=server,
            name=f"t{number}",
            qualified_name=f"a__t{number}",
            definition=first.definition,
            definition_sha256=first.definition_sha256,
            state=first.state,
            changed_at=first.changed_at,
        )
        for number in range(1000)
    )
    assert "No server offers" not in opened.preview(budget="1.00").words
    named = opened.preview(g0__tool="a__t7777").words
    assert named.count("No server offers") == 1
    assert "No server offers a__t7777 to this team now." in named


def test_limits_that_let_nothing_pass_are_refused_at_their_grant(opened: Page, world: Any) -> None:
    grants = parse_grants(world.mission.versions.get().grants)
    index = next(i for i, grant in enumerate(grants) if "100.00" in str(grant))
    name = next(key for key, value in opened.fields.items() if key.startswith(f"g{index}-") and value == "100.00")
    opened.preview(**{name.replace("-", "__"): "0.001"})
    assert opened.status == 422
    assert "amount: at most is below at least" in opened.words
    assert number_of_versions(world) == 1


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"goal": " "}, "This field is required."),
        ({"goal": "x" * 4001}, "at most 4000 characters"),
        ({"criteria": "\n \n"}, "This field is required."),
        ({"criteria": "\n".join("abcdefghijklmnopqrstuvwxyz12345")}, "1 to 30 lines"),
        ({"criteria": "x" * 301}, "At most 300 characters a line."),
        ({"budget": "-1"}, "An amount"),
        ({"budget": "1,000"}, "1000 or 1.00?"),
        ({"budget": "1e3000"}, "An amount"),
        ({"budget": "NaN"}, "An amount"),
        ({"budget": "0.0000001"}, "An amount"),
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
        ("books__overdue", "{nonsense", "Not JSON: a name in double quotes is missing at line 1, column 2."),
        ("books__overdue", '{"a": yes}', "a value is missing, or text that is not in double quotes stands there"),
        ("books__overdue", '{"a": 1 "b": 2}', "a comma or a closing bracket is missing at line 1, column 9"),
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


def test_a_call_that_the_remit_refused_leads_its_owner_to_the_form_with_that_tool(
    world: Any, alice: User, bob: User, signed_in: SignIn
) -> None:
    refused = Action.objects.get(pk=world.act("books__close_year", year="2026").action_id)
    assert refused.reason_code == "grant.missing"
    browser, page = signed_in(alice), reverse("action", args=[refused.pk])
    shown = browser.get(page).content.decode()
    to = f"{reverse('mission-change', args=[world.mission.pk])}?tool=books__close_year#grants"
    assert f'<a href="{to}">Change the remit</a>' in shown
    assert f'<a href="{reverse("agent", args=[world.agent.pk])}">{world.agent.name}</a>' in shown
    form = fields_of(browser.get(to).content.decode())
    assert "books__close_year" in form.values()
    plain = fields_of(browser.get(to.partition("?")[0]).content.decode())
    assert int(form["grants"]) == int(plain["grants"]) + 1
    known = plain["g0-tool"]
    assert fields_of(browser.get(f"{to.partition('?')[0]}?tool={known}").content.decode())["grants"] == plain["grants"]
    assert "Change the remit" not in signed_in(bob).get(page).content.decode()
