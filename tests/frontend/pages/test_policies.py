"""The page of policies: the rules in force with their cases, and what every page says where there are none."""

from __future__ import annotations

from typing import Any

from django.core.cache import cache
from django.urls import reverse

from controlplane.tenancy.models import Organisation, User
from controlplane.tenancy.types import Principal, Role
from governance import services as governance
from governance.bundles import BundleSource, forget
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


FREEZE = """
@id("no-writes <b>in</b> december")
@message("Nothing is written during the <i>freeze</i>.")
forbid (principal, action == Action::"tool.call", resource)
when { !resource.read_only && context.importance == "none" };
"""


def test_a_bundle_that_waits_for_its_second_person_says_who_loaded_it_and_what_it_changes(
    world: Any,
    alice: User,
    nadia: User,
    charlie: User,
    as_nadia: Principal,
    make_person: Any,
    acting: Any,
    signed_in: SignIn,
) -> None:
    base = PolicyBundle.objects.get()
    changed = base.policies.replace("More budget is given by a person, never taken.", "A person gives more.")
    assert changed != base.policies
    loaded = governance.load_bundle(
        actor=as_nadia,
        name="Freeze <b>",
        source=BundleSource(f"// laid out anew\n\n{changed}\n{FREEZE}", base.schema, base.golden_cases[1:]),
    )
    for viewer in (alice, nadia):
        html = page(signed_in(viewer), reverse("policies"))
        card = html.split("Freeze &lt;b&gt;</h2>")[1].split("</section>")[0]
        assert "Loaded by Nadia" in card
        assert "it changes 2 policies" in card
        assert "1 golden case differs." in card
        rows = [row.split("</tr>")[0] for row in card.split("<tbody>")[1].split("<tr>")[1:]]
        assert [row.split("</td>")[0] for row in rows] == ["<td>Changes", "<td>Adds"]
        assert "A person gives more." in rows[0]
        assert "Nothing is written during the &lt;i&gt;freeze&lt;/i&gt;." in rows[1]
        assert f"./manage.py bundle promote {loaded.pk}" in card
        assert ("You loaded it" in card) is (viewer == nadia)
        assert "./manage.py bundle load FOLDER" in html
    governance.promote_bundle(actor=acting(make_person("Olga", world.organisation, Role.ADMIN)), bundle_id=loaded.pk)
    assert "Waits for a second person" not in page(signed_in(alice), reverse("policies"))
    back = governance.load_bundle(
        actor=as_nadia, name="Back", source=BundleSource(base.policies, base.schema, base.golden_cases)
    )
    card = page(signed_in(alice), reverse("policies")).split(f"promote {back.pk}")[1].split("</section>")[0]
    assert "<td>Removes</td>" in card


def test_bundles_of_other_organisations_are_not_shown(
    world: Any, make_person: Any, acting: Any, alice: User, signed_in: SignIn
) -> None:
    base = PolicyBundle.objects.get()
    elsewhere = Organisation.objects.create(name="Southwind", slug="southwind")
    other_admin = acting(make_person("Zoe", elsewhere, Role.ADMIN))
    governance.load_bundle(
        actor=other_admin, name="Secret", source=BundleSource(base.policies, base.schema, base.golden_cases)
    )
    html = page(signed_in(alice), reverse("policies"))
    assert "Secret" not in html
    assert "Waits for a second person" not in html
