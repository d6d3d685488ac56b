"""The health of approvals: how long people took for their answers, as numbers and as a table to take away."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from django.urls import reverse

from controlplane.tenancy.models import User
from governance.models import Escalation

from .browsing import SignIn, page, send
from .questions import edited


def test_health_shows_numbers_and_a_table_to_take_away(world: Any, bob: User, signed_in: SignIn) -> None:
    escalation = world.ask_credit()
    browser = signed_in(bob)
    send(browser, "approval-decide", escalation.pk, answer="approve", version="1")
    User.objects.filter(pk=bob.pk).update(name="=HYPERLINK(1)")
    html = page(browser, reverse("approval-health"), days="7")
    assert "100 %" in html
    response = browser.get(reverse("approval-health"), {"format": "csv"})
    body = b"".join(response.streaming_content).decode()
    assert "'=HYPERLINK(1),1,1,1.000" in body


def test_an_edited_answer_took_as_long_as_the_question_was_open(
    world: Any, alice: User, bob: User, asked_before: Callable[[timedelta], None], signed_in: SignIn
) -> None:
    escalation, browser = world.ask_credit("240.00"), signed_in(bob)
    asked_before(timedelta(seconds=90))
    send(browser, "approval-edit", escalation.pk, **edited("150.00", "send"))
    html = page(browser, reverse("approval-health"))
    assert len(re.findall(r'data-label="Median time">1 min 3\d s<', html)) == 2  # of the person and of whom it asked
    assert 'data-label="In under 10 s">0<' in html
    assert re.search(r"after 1 min 3\d s", page(signed_in(alice), reverse("mission", args=[world.mission.pk])))


def test_an_edit_that_nobody_else_had_to_be_asked_about_is_an_answer_too(
    world: Any, bob: User, asked_before: Callable[[timedelta], None], signed_in: SignIn
) -> None:
    escalation, browser = world.ask_credit("240.00"), signed_in(bob)
    asked_before(timedelta(seconds=90))
    send(browser, "approval-edit", escalation.pk, **edited("40.00", "send", reason="Less is enough"))
    assert Escalation.objects.count() == 1  # the edited one needed nobody
    html = page(browser, reverse("approval-health"))
    assert len(re.findall(r'data-label="Median time">1 min 3\d s<', html)) == 2  # of the person and of whom it asked
    assert html.count("100 %") == 2
    assert "Less is enough" in page(browser, reverse("approval", args=[escalation.pk]))
