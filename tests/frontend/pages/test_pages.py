"""What each page shows and does: agents, budgets, audit, policies, the profile, search, missions, home."""

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
from django.db import connection
from django.test import Client
from django.urls import reverse

from agents import services as agents
from agents.choices import MissionState
from agents.models import Agent, Mission
from controlplane.audit.models import Entry
from controlplane.audit.sealing import seal_all
from controlplane.clusters.models import Cluster
from controlplane.common.clock import now
from controlplane.tenancy.models import Membership, Organisation, User
from controlplane.tenancy.types import Principal
from frontend import strips
from governance.bundles import forget
from governance.models import Action, Escalation, PolicyBundle

SignIn = Callable[..., Client]


def page(browser: Client, path: str, status: int = 200) -> str:
    response = browser.get(path)
    assert response.status_code == status, path
    return str(response.content.decode())


def rows_of(browser: Client, path: str) -> list[list[str]]:
    response: Any = browser.get(path)
    assert response["Content-Type"].startswith("text/csv")
    return list(csv.reader(io.StringIO(b"".join(response).decode())))


# Agents ----------------------------------------------------------------------


def test_registering_an_agent_with_a_form(world: Any, alice: User, signed_in: SignIn) -> None:
    body = {"team": str(world.team.pk), "name": "Buyer", "runtime": "external", "capabilities": "buying, haggling"}
    response = signed_in(alice).post(reverse("agent-new"), {**body, "limit": "12.50"})
    agent = Agent.objects.get(name="Buyer")
    assert response["Location"] == reverse("agent", args=[agent.pk])
    assert agent.capabilities == ["buying", "haggling"]
    html = page(signed_in(alice), reverse("budget", args=[agent.account_id]))
    assert "$12.50" in html


def test_without_any_team_the_forms_say_what_to_do(northwind: Organisation, nadia: User, signed_in: SignIn) -> None:
    for name in ("agent-new", "server-new"):
        assert "There is no team yet. An administrator adds one" in page(signed_in(nadia), reverse(name))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": ""}, "This field is required."),
        ({"name": "Receivables clerk"}, "An agent is already called"),
        ({"runtime": "managed", "program": ""}, "what to start"),
        ({"limit": "a lot"}, "An amount such as 5.00: digits only."),
        ({"limit": "-1"}, "An amount such as 5.00: digits only."),
        ({"team": "0190a000-0000-7000-8000-000000000000"}, "Select a valid choice"),
        ({"runtime": "moon"}, "Select a valid choice"),
    ],
)
def test_a_bad_registration_keeps_what_was_typed(
    world: Any, alice: User, signed_in: SignIn, change: dict[str, str], words: str
) -> None:
    body = {"team": str(world.team.pk), "name": "Buyer", "runtime": "external", "description": "Buys paper"}
    response = signed_in(alice).post(reverse("agent-new"), {**body, **change})
    assert response.status_code == 422
    html = response.content.decode()
    assert words in html
    assert "Buys paper" in html
    assert Agent.objects.count() == 1


def test_an_agents_page_has_its_health_credentials_and_refusals(busy: Any, alice: User, signed_in: SignIn) -> None:
    html = page(signed_in(alice), reverse("agent", args=[busy.agent.pk]))
    for words in ("Alive", "rmt_run_…", "Chase overdue invoices", "grant.missing", "$0.12", "goodwill credits"):
        assert words in html, words
    Agent.objects.update(last_seen_at=now() - timedelta(minutes=5))
    quiet = page(signed_in(alice), reverse("agent", args=[busy.agent.pk]))
    assert "Alive" not in quiet
    assert "5 min ago" in quiet


def test_a_busy_agent_is_not_retired(world: Any, alice: User, signed_in: SignIn) -> None:
    response = signed_in(alice).post(reverse("agent-retire", args=[world.agent.pk]), follow=True)
    assert "This agent still has missions." in response.content.decode()
    assert Agent.objects.get().state == "active"


# Budgets ----------------------------------------------------------------------


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
        shown = page(browser, path)
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
    spent = Action.objects.exclude(cost=None).values_list("cost", flat=True)
    assert sum(Decimal(row[5]) for row in settled) == sum(spent)


# Audit ----------------------------------------------------------------------


def test_the_log_reads_as_sentences_and_filters(busy: Any, dana: User, signed_in: SignIn) -> None:
    browser = signed_in(dana)
    assert "Bob refused books__apply_credit: No ticket, no agreement" in page(browser, reverse("audit"))
    only = page(browser, reverse("audit") + "?event=mission.started")
    assert "Alice started Chase overdue invoices" in only
    assert "Bob refused" not in only
    assert "Nothing matches" in page(browser, reverse("audit") + "?q=zeppelin")
    tomorrow = f"{now() + timedelta(days=2):%Y-%m-%d}"
    assert "Nothing matches" in page(browser, reverse("audit") + f"?since={tomorrow}")
    assert "Bob refused" in page(browser, reverse("audit") + "?since=not-a-date&cursor=nonsense&event=drop")


@pytest.mark.parametrize("shown", ["", "each=1"])
def test_pages_of_the_log_join_without_a_gap(
    busy: Any, dana: User, signed_in: SignIn, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("controlplane.audit.selectors.PAGE", 12)
    browser, seen = signed_in(dana), []
    path = reverse("audit") + f"?{shown}"
    for _ in range(10):
        response = browser.get(path)
        for line in response.context["lines"]:
            seen += [each.entry.pk for each in getattr(line, "lines", [line])]
        if response.context["next"] is None:
            break
        path = reverse("audit") + f"?{shown}&cursor={response.context['next']}"
    assert len(seen) == len(set(seen)) == Entry.objects.count()


def test_routine_entries_in_a_row_are_one_line_that_opens_and_nothing_else_is_folded(
    busy: Any, dana: User, signed_in: SignIn
) -> None:
    browser, path = signed_in(dana), reverse("audit")
    html = page(browser, path)
    assert "12 calls allowed, 12 permits used, 13 calls succeeded" in html
    assert "Bob approved books__apply_credit" in html
    lines = browser.get(path).context["lines"]
    folds = [line for line in lines if hasattr(line, "lines")]
    inside = {line.entry.event for fold in folds for line in fold.lines}
    assert inside <= {"action.allowed", "permit.consumed", "action.succeeded"}
    assert all(not line.entry.payload.get("approved") for fold in folds for line in fold.lines)
    for entry in (line.entry for fold in folds for line in fold.lines):
        assert reverse("audit-entry", args=[entry.pk]) in html
    for narrowed in ("?each=1", "?event=action.allowed", "?q=customer", f"?id={folds[0].lines[0].entry.subject_id}"):
        assert not any(hasattr(line, "lines") for line in browser.get(path + narrowed).context["lines"]), narrowed
    assert any(hasattr(line, "lines") for line in browser.get(f"{path}?mission={busy.mission.pk}").context["lines"])


def test_an_entry_proves_its_payload_and_place(busy: Any, dana: User, signed_in: SignIn) -> None:
    entry = Entry.objects.filter(event="escalation.denied").get()
    assert "Not sealed yet" in page(signed_in(dana), reverse("audit-entry", args=[entry.pk]))
    seal_all()
    html = page(signed_in(dana), reverse("audit-entry", args=[entry.pk]))
    assert "Verified" in html
    assert "No ticket, no agreement" in html


def test_verifying_says_that_the_chain_holds_and_where_it_does_not(busy: Any, dana: User, signed_in: SignIn) -> None:
    seal_all()
    browser = signed_in(dana)
    seal_all()
    html = browser.post(reverse("audit-verify")).content.decode()
    assert "Intact" in html
    entry = Entry.objects.filter(event="escalation.denied").get()
    with connection.cursor() as cursor:  # as someone with the owner's rights on the database could
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        cursor.execute("ALTER TABLE audit_entry DISABLE TRIGGER USER")
        cursor.execute('UPDATE audit_entry SET payload = \'{"reason": "fine"}\' WHERE id = %s', [entry.pk])
        cursor.execute("ALTER TABLE audit_entry ENABLE TRIGGER USER")
    html = browser.post(reverse("audit-verify")).content.decode()
    assert "Broken" in html
    assert "The payload is not the one that was recorded." in html
    assert reverse("audit-entry", args=[entry.pk]) in html


def test_an_auditor_of_one_team_does_not_verify_the_whole(world: Any, bob: User, signed_in: SignIn) -> None:
    browser = signed_in(bob)
    assert "Verify the chain" not in page(browser, reverse("audit"))
    assert browser.post(reverse("audit-verify")).status_code == 403


def test_the_exported_log_is_no_formula(world: Any, dana: User, signed_in: SignIn) -> None:
    world.draft("=HYPERLINK(1)")
    rows = rows_of(signed_in(dana), reverse("audit") + "?format=csv")
    assert any(cell.startswith("'=HYPERLINK") for row in rows for cell in row)
    assert not any(cell.startswith("=") for row in rows for cell in row)


# Policies, profile, search ----------------------------------------------------------------------


def test_the_rules_in_force_are_shown_with_their_cases(world: Any, alice: User, signed_in: SignIn) -> None:
    html = page(signed_in(alice), reverse("policies"))
    assert "More budget is given by a person, never taken." in html
    assert PolicyBundle.objects.get().sha256 in html
    assert "a tool without any grant is refused" in html
    assert "Holds" in html
    assert html.count("</tr>") > 20
    judged = html.split('id="policy-judge-writes"')[1].split("</tr>")[0]
    assert "Asks the judge" in judged
    assert "Refuses" not in judged
    assert "Where it is unsure a person is asked" in judged
    assert 'class="status deny' not in judged
    for permit in ("topup-permitted", "sign-off-permitted", "widen-permitted", "lift-permitted"):
        row = html.split(f'id="policy-{permit}"')[1].split("</tr>")[0]
        assert " may " in row.split("<td>")[-1], permit


def test_without_rules_the_page_and_every_page_say_that_all_is_refused(
    world: Any, alice: User, signed_in: SignIn
) -> None:
    PolicyBundle.objects.all().delete()
    forget()
    cache.clear()
    assert "Without rules every action is refused." in page(signed_in(alice), reverse("policies"))
    assert "No policies are loaded." in page(signed_in(alice), reverse("home"))


def test_a_profile_is_saved_and_audited(world: Any, alice: User, signed_in: SignIn) -> None:
    browser = signed_in(alice)
    response = browser.post(reverse("me"), {"name": " Alice  Smith ", "time_zone": "Europe/Helsinki"})
    assert response.status_code == 302
    assert response.cookies["remit_shortcuts"].value == "off"
    alice.refresh_from_db()
    assert (alice.name, alice.time_zone) == ("Alice Smith", "Europe/Helsinki")
    assert alice.preferences == {"single_key_shortcuts": False}
    assert Entry.objects.get(event="person.changed").payload == {
        "changed": ["name", "single_key_shortcuts", "time_zone"]
    }
    assert 'data-shortcuts="off"' in page(browser, reverse("me"))


@pytest.mark.parametrize("body", [{"name": "", "time_zone": "UTC"}, {"name": "A", "time_zone": "../etc"}, {}])
def test_a_bad_profile_is_not_saved(world: Any, alice: User, signed_in: SignIn, body: dict[str, str]) -> None:
    assert signed_in(alice).post(reverse("me"), body).status_code == 422
    alice.refresh_from_db()
    assert alice.name == "Alice"


def test_switching_goes_only_where_one_belongs(world: Any, alice: User, elsewhere: Any, signed_in: SignIn) -> None:
    browser = signed_in(alice)
    browser.post(reverse("switch-organisation"), {"organisation": str(elsewhere.pk)})
    assert "Chase overdue" in page(browser, reverse("missions"))
    Membership.objects.create(organisation=elsewhere, user=alice, role="builder")
    browser.post(reverse("switch-organisation"), {"organisation": str(elsewhere.pk), "next": "//evil.example"})
    html = page(browser, reverse("missions"))
    assert "Elsewhere" in html
    assert "Chase overdue" not in html


def test_search_finds_by_name_and_id(busy: Any, alice: User, signed_in: SignIn) -> None:
    browser = signed_in(alice)
    action = Action.objects.filter(tool="books__overdue").get()
    for text, url in (
        ("chase", reverse("mission", args=[busy.mission.pk])),
        ("CLERK", reverse("agent", args=[busy.agent.pk])),
        (str(busy.mission.pk), reverse("mission", args=[busy.mission.pk])),
        (str(action.pk), reverse("action", args=[action.pk])),
        ("overdue", reverse("action", args=[action.pk])),
    ):
        part = browser.get(
            reverse("search"), {"q": text}, headers={"HX-Request": "true", "HX-Target": "palette-results"}
        )
        assert f'<a href="{url}" role="option"' in part.content.decode(), text
    assert "holds a NUL character" in page(browser, reverse("search") + "?q=c%00", 400)


# Warnings ----------------------------------------------------------------------


def test_a_silent_node_and_a_late_sealer_are_said_on_every_page(
    world: Any, nadia: User, signed_in: SignIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = Cluster.objects.first() or Cluster.objects.create(name="local", driver="local")
    Cluster.objects.filter(pk=cluster.pk).update(seen_at=now() - timedelta(seconds=20))
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        cursor.execute("ALTER TABLE audit_entry DISABLE TRIGGER USER")
        cursor.execute("UPDATE audit_entry SET at = at - interval '30 seconds'")
        cursor.execute("ALTER TABLE audit_entry ENABLE TRIGGER USER")
    cache.clear()
    monkeypatch.setattr(strips, "_STARTED", now())
    assert "does not answer." not in page(signed_in(nadia), reverse("home"))  # Remit, and the node, just started
    cache.clear()
    monkeypatch.setattr(strips, "_STARTED", now() - timedelta(minutes=1))
    html = page(signed_in(nadia), reverse("home"))
    assert "does not answer." in html
    assert "The audit trail is 3" in html
    assert "No judge model is connected." in html
    seal_all()
    Cluster.objects.filter(pk=cluster.pk).update(seen_at=now())
    cache.clear()
    html = page(signed_in(nadia), reverse("home"))
    assert "does not answer." not in html
    assert "The audit trail is" not in html


# Missions, home ----------------------------------------------------------------------


def test_a_mission_that_never_started_has_every_tab(world: Any, alice: User, signed_in: SignIn) -> None:
    draft = world.draft("Later")
    for tab in ("remit", "budget", "output", "checklist", "runs"):
        page(signed_in(alice), reverse("mission-tab", args=[draft.pk, tab]))
    assert "Not started" in page(signed_in(alice), reverse("mission", args=[draft.pk]))


def test_unknown_tabs_parts_and_operations_do_not_exist(world: Any, alice: User, signed_in: SignIn) -> None:
    browser, path = signed_in(alice), reverse("mission", args=[world.mission.pk])
    page(browser, path + "/nonsense", 404)
    page(browser, path + "?part=../../base", 404)
    page(browser, path + "/remit?part=timeline", 404)
    assert browser.post(path + "/do/explode").status_code == 404


def test_pausing_resuming_and_stopping_from_the_page(world: Any, alice: User, signed_in: SignIn) -> None:
    browser = signed_in(alice)
    for what, state in (("pause", "paused"), ("resume", "active"), ("stop", "stopped")):
        browser.post(reverse("mission-operate", args=[world.mission.pk, what]))
        assert Mission.objects.get(pk=world.mission.pk).state == state
    assert browser.post(reverse("mission-operate", args=[world.mission.pk, "pause"])).status_code == 409


def test_home_leads_to_a_claimed_outcome_which_is_accepted_once_asked_as_it_was_read(
    busy: Any, alice: User, signed_in: SignIn
) -> None:
    agents.claim_outcome(principal=busy.as_run, summary="31 reminders written")
    browser = signed_in(alice)
    accept, checklist = (
        reverse("mission-operate", args=[busy.mission.pk, "accept"]),
        reverse("mission-tab", args=[busy.mission.pk, "checklist"]),
    )
    home = page(browser, reverse("home"))
    assert "Accept the outcome of Chase overdue invoices" in home
    assert checklist in home
    assert accept not in home
    asked = page(browser, checklist).split('<dialog id="accept-outcome"')[1].split("</dialog>")[0]
    assert "claims: 31 reminders written" in asked
    assert "can’t be taken up again" in asked
    read = {"claim": asked.split('name="claim" value="')[1].split('"')[0]}
    agents.claim_outcome(principal=busy.as_run, summary="9 reminders written")
    for body in (read, {}):
        refused = browser.post(accept, body)
        assert refused.status_code == 409
        assert "9 reminders written" in refused.content.decode()
    assert Mission.objects.get(pk=busy.mission.pk).outcome == "claimed"
    read = {"claim": page(browser, checklist).split('name="claim" value="')[1].split('"')[0]}
    assert browser.post(accept, read).status_code == 302
    mission = Mission.objects.get(pk=busy.mission.pk)
    assert (mission.state, mission.outcome) == (MissionState.SUCCEEDED, "accepted")


def test_a_question_whose_arguments_are_all_in_sight_is_answered_on_home(
    world: Any, bob: User, signed_in: SignIn
) -> None:
    short, long = world.ask_credit("150.00"), world.ask_credit("160.00", "Late again. " * 15)
    browser = signed_in(bob)
    html = page(browser, reverse("home"))
    assert "2 things wait for you" in html
    assert "amount 150.00" in html
    assert html.count("Approve once") == 1  # the long one is read on its card first
    body = {"answer": "approve", "version": "1", "next": "home"}
    assert browser.post(reverse("approval-decide", args=[short.pk]), body)["Location"] == reverse("home")
    assert Escalation.objects.get(pk=short.pk).state == "approved"
    assert Escalation.objects.get(pk=long.pk).state == "open"


def test_a_sign_off_says_on_home_what_it_costs_and_who_asks(world: Any, bob: User, signed_in: SignIn) -> None:
    mission = world.draft("Large credits", budget="50.00")
    agents.submit_mission(actor=world.owner, mission_id=mission.pk)
    row = page(signed_in(bob), reverse("home")).split('id="waiting-')[1].split("</li>")[0]
    assert "$50.00</data> for Receivables clerk" in row
    assert "Alice" in row
    assert "mission_id" not in row
    assert str(mission.pk) not in row


def test_home_shows_todays_spend_and_the_mix_of_verdicts(busy: Any, alice: User, signed_in: SignIn) -> None:
    html = page(signed_in(alice), reverse("home"))
    assert "spent today" in html
    assert 'aria-label="Spend a day, the last two weeks"' in html
    [mix] = re.findall(r'class="mix"[^>]*aria-label="([^"]*)"', html)
    assert re.fullmatch(r"Allowed \d+, Asks a person 3, Refused 2", mix), mix


def test_the_first_steps_keep_their_progress_until_somebody_decided(
    world: Any, alice: User, bob: User, signed_in: SignIn
) -> None:
    assert "2 of 3 done" in page(signed_in(alice), reverse("home"))
    escalation = world.ask_credit()
    signed_in(bob).post(reverse("approval-decide", args=[escalation.pk]), {"answer": "approve", "version": "1"})
    assert "Start here" not in page(signed_in(alice), reverse("home"))


def test_the_list_of_missions_says_whom_each_waits_for_and_keeps_views(
    world: Any, alice: User, bob: User, signed_in: SignIn
) -> None:
    world.draft("Still a draft")
    browser = signed_in(alice)
    asking = reverse("missions") + "?asking=1"
    assert "Nothing matches" in page(browser, asking)
    world.ask_credit("150.00")
    world.ask_credit("160.00")
    html = page(browser, asking)
    assert "Chase overdue invoices" in html
    assert "Still a draft" not in html
    assert re.search(r"Waits for Bob and 1 more", html)
    assert str(world.mission.versions.get().goal)[:40] in html
    assert "Chase overdue invoices" not in page(browser, reverse("missions") + "?outcome=claimed")
    assert page(browser, reverse("missions") + "?outcome=nonsense").count("data-row ") == 2


def test_an_earlier_page_of_the_timeline_is_not_refreshed_away(
    busy: Any, alice: User, signed_in: SignIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agents.timeline.LENGTH", 5)
    browser, path = signed_in(alice), reverse("mission", args=[busy.mission.pk])
    older = re.search(r"\?before=([0-9a-f-]{36})", page(browser, path))
    assert older
    html = page(browser, f"{path}?before={older[1]}")
    timeline = html[html.index('id="mission-timeline"') :].split(">", 1)[0]
    assert "data-live-part" not in timeline
    assert "Latest" in html


def test_refused_calls_cost_nothing_on_the_timeline(world: Any, alice: User, signed_in: SignIn) -> None:
    world.act("sqlite__write_query", query="DROP TABLE invoices")
    html = page(signed_in(alice), reverse("mission", args=[world.mission.pk]) + "?part=timeline")
    line = next(item for item in html.split("<li") if "sqlite__write_query" in item)
    assert "$0.00" in line
    assert "$0.01" not in line


def test_an_action_shows_its_ladder_and_its_trail(busy: Any, dana: User, signed_in: SignIn) -> None:
    escalation = Escalation.objects.order_by("id").first()
    assert escalation is not None
    html = page(signed_in(dana), reverse("action", args=[escalation.action_id]))
    for words in ("Intake", "Guards", "Policy", "Sequence", "Judge", "Budget", "Judged again after approval"):
        assert words in html, words
    assert "must ask a person for books__apply_credit" in html
    assert (
        reverse("audit-entry", args=[Entry.objects.filter(subject_id=escalation.action_id).earliest("id").pk]) in html
    )


def test_a_builder_reads_the_trail_of_an_action_and_opens_no_entry(busy: Any, alice: User, signed_in: SignIn) -> None:
    escalation = Escalation.objects.order_by("id").first()
    assert escalation is not None
    browser = signed_in(alice)
    html = page(browser, reverse("action", args=[escalation.action_id]))
    assert "must ask a person for books__apply_credit" in html
    entry = reverse("audit-entry", args=[Entry.objects.filter(subject_id=escalation.action_id).earliest("id").pk])
    assert entry not in html
    assert browser.get(entry).status_code == 404


def test_every_list_teaches_when_it_is_empty(charlie: User, signed_in: SignIn) -> None:
    browser = signed_in(charlie)
    for name, words in (
        ("missions", "No missions yet"),
        ("agents", "No agents yet"),
        ("approvals", "Nothing waits for you"),
        ("budgets", "No budgets yet"),
        ("servers", "No servers yet"),
        ("home", "Start the sample mission"),
    ):
        assert words in page(browser, reverse(name)), name
    assert "Nothing is open" in page(browser, reverse("approvals") + "?tab=open")
    assert "Nothing decided yet" in page(browser, reverse("approvals") + "?tab=decided")
