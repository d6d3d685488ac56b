"""The audit log: sentences, filters, pages that join, one entry with its proof, and the file to take away."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.urls import reverse

from controlplane.audit.models import Entry
from controlplane.audit.sealing import seal_all
from controlplane.common.clock import now
from controlplane.tenancy.models import Organisation, Team, User
from controlplane.tenancy.types import Principal, Role
from governance.escalations import conversing

from .browsing import SignIn, page, rows_of


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


def test_an_entry_links_to_its_question_only_for_who_may_open_it(
    world: Any, finn: User, dana: User, as_bob: Principal, signed_in: SignIn
) -> None:
    question = world.ask_credit()
    conversing.comment(actor=as_bob, escalation_id=question.pk, text="Is there a ticket?")
    link = f'href="{reverse("approval", args=[question.pk])}"'
    entry = Entry.objects.filter(subject_type="escalation", subject_id=question.pk)[0]
    for reader, linked in ((dana, True), (finn, False)):
        browser = signed_in(reader)
        for path in (reverse("audit") + "?subject=escalation", reverse("audit-entry", args=[entry.pk])):
            assert (link in page(browser, path)) is linked, (reader, path)
        assert (browser.get(reverse("approval", args=[question.pk])).status_code == 200) is linked


def test_an_auditor_of_one_team_does_not_verify_the_whole(world: Any, bob: User, signed_in: SignIn) -> None:
    browser = signed_in(bob)
    assert "Verify the chain" not in page(browser, reverse("audit"))
    assert browser.post(reverse("audit-verify")).status_code == 403


def test_the_log_offers_only_people_that_its_reader_sees(
    world: Any, bob: User, nadia: User, northwind: Organisation, other_team: Team, make_person: Any, signed_in: SignIn
) -> None:
    make_person("Lars", northwind, Role.BUILDER, team=other_team)
    offered = {person.name for person in signed_in(bob).get(reverse("audit")).context["people"]}
    assert {"Alice", "Bob", "Nadia"} <= offered
    assert "Lars" not in offered
    assert "Lars" in {person.name for person in signed_in(nadia).get(reverse("audit")).context["people"]}


def test_the_exported_log_is_no_formula(world: Any, dana: User, signed_in: SignIn) -> None:
    world.draft("=HYPERLINK(1)")
    rows = rows_of(signed_in(dana), reverse("audit") + "?format=csv")
    assert any(cell.startswith("'=HYPERLINK") for row in rows for cell in row)
    assert not any(cell.startswith("=") for row in rows for cell in row)
