"""The page of policies: the rules in force with their cases, and what every page says where there are none."""

from __future__ import annotations

from typing import Any

from django.core.cache import cache
from django.urls import reverse

from controlplane.tenancy.models import User
from governance.bundles import forget
from governance.models import PolicyBundle

from .browsing import SignIn, page


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
