"""Tokens are replaced without downtime and never may more than who made them; the organisation says how long they
live."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import pytest

from controlplane.audit.models import Entry
from controlplane.common.clock import now
from controlplane.common.errors import RemitError
from controlplane.tenancy import credentials, organisations, services, tokens
from controlplane.tenancy.models import Membership, Organisation, Token
from controlplane.tenancy.types import Permission, Role

DAY = timedelta(days=1)


def code_of(work) -> str:
    with pytest.raises(RemitError) as refused:
        work()
    return refused.value.code


def personal(principal, user, **more):
    given = {"name": "Laptop", "expires_at": now() + 30 * DAY, "scopes": {Permission.MISSION_VIEW}, **more}
    return credentials.issue_personal_token(principal=principal, user=user, **given)


def test_the_old_token_works_for_the_overlap_and_no_longer(as_alice, alice) -> None:
    old, old_text = personal(as_alice, alice)
    new, text = credentials.rotate_token(principal=as_alice, token_id=old.pk, overlap=timedelta(hours=1))
    assert tokens.recognise(old_text).id == old.pk
    assert services.principal_of_token(text).scopes == {Permission.MISSION_VIEW}
    assert abs(new.expires_at - now() - 30 * DAY) < timedelta(minutes=1)
    assert new.replaces_id == old.pk
    Token.objects.filter(pk=old.pk).update(expires_at=now())
    assert code_of(lambda: tokens.recognise(old_text)) == "token.expired"
    assert list(Entry.objects.order_by("pk").values_list("event", flat=True)) == ["token.issued", "token.rotated"]


def test_at_once_means_at_once_and_an_overlap_never_lengthens_the_old_one(as_alice, alice) -> None:
    old, text = personal(as_alice, alice)
    credentials.rotate_token(principal=as_alice, token_id=old.pk, overlap=timedelta(0))
    assert code_of(lambda: tokens.recognise(text)) == "token.expired"
    short, _ = personal(as_alice, alice, expires_at=now() + timedelta(hours=1))
    credentials.rotate_token(principal=as_alice, token_id=short.pk, overlap=7 * DAY)
    assert Token.objects.get(pk=short.pk).expires_at == short.expires_at


def test_a_token_is_replaced_once_and_not_when_it_is_dead(as_alice, alice) -> None:
    old, _ = personal(as_alice, alice)
    rotate = lambda: credentials.rotate_token(principal=as_alice, token_id=old.pk, overlap=DAY)  # noqa: E731
    rotate()
    assert code_of(rotate) == "token.dead"
    revoked, _ = personal(as_alice, alice)
    credentials.revoke_token(principal=as_alice, token_id=revoked.pk)
    dead = lambda: credentials.rotate_token(principal=as_alice, token_id=revoked.pk, overlap=DAY)  # noqa: E731
    assert code_of(dead) == "token.dead"
    assert Token.objects.count() == 3


@pytest.mark.parametrize("overlap", [-DAY, 8 * DAY])
def test_an_overlap_is_a_week_at_most(overlap, as_alice, alice) -> None:
    old, _ = personal(as_alice, alice)
    attempt = lambda: credentials.rotate_token(principal=as_alice, token_id=old.pk, overlap=overlap)  # noqa: E731
    assert code_of(attempt) == "token.overlap"


def test_nobody_gets_a_token_that_acts_as_somebody_else(as_alice, alice, as_nadia, as_bob, as_charlie, as_run) -> None:
    old, text = personal(as_alice, alice)
    rotate = lambda who: code_of(lambda: credentials.rotate_token(principal=who, token_id=old.pk, overlap=DAY))  # noqa: E731
    assert rotate(as_nadia) == "permission.denied"  # may revoke it, not replace it
    assert {rotate(who) for who in (as_bob, as_charlie, as_run)} == {"token.not_found"}
    assert Token.objects.filter(kind="pat").count() == 1
    assert tokens.recognise(text)


def test_a_builder_of_the_whole_organisation_does_not_revoke_tokens_of_people(
    as_alice, alice, make_person, northwind, acting
) -> None:
    old, _ = personal(as_alice, alice)
    olga = acting(make_person("Olga", northwind, Role.BUILDER))
    assert code_of(lambda: credentials.revoke_token(principal=olga, token_id=old.pk)) == "token.not_found"


def test_a_token_cannot_make_a_token_that_may_more(as_alice, alice) -> None:
    small = services.principal_of_token(personal(as_alice, alice)[1])
    for scopes in (None, {Permission.MISSION_WRITE}, {Permission.MISSION_VIEW, Permission.AGENT_VIEW}):
        assert code_of(lambda wanted=scopes: personal(small, alice, scopes=wanted)) == "token.narrowed"
    whole, _ = personal(as_alice, alice, scopes=None)
    attempt = lambda: credentials.rotate_token(principal=small, token_id=whole.pk, overlap=DAY)  # noqa: E731
    assert code_of(attempt) == "token.narrowed"


def test_who_may_issue_service_tokens_gives_no_more_than_they_read(make_person, northwind, acting) -> None:
    olga = acting(make_person("Olga", northwind, Role.BUILDER))
    issue = lambda scopes: credentials.issue_service_token(  # noqa: E731
        principal=olga, name="CI", expires_at=now() + DAY, scopes=scopes
    )
    for scopes in (None, {Permission.AUDIT_VIEW}):
        assert code_of(lambda wanted=scopes: issue(wanted)) == "permission.denied"
    assert services.principal_of_token(issue({Permission.MISSION_VIEW})[1]).has(Permission.MISSION_VIEW)
    assert Permission.AUDIT_VIEW not in credentials.may_hold(olga, "svc")


def test_no_scopes_is_not_every_scope(as_alice, alice) -> None:
    assert code_of(lambda: personal(as_alice, alice, scopes=set())) == "token.invalid"


def test_the_organisation_says_how_long_a_token_lives(as_alice, alice, northwind) -> None:
    earlier, _ = personal(as_alice, alice)
    Organisation.objects.filter(pk=northwind.pk).update(token_days_max=7)
    assert code_of(lambda: personal(as_alice, alice, expires_at=now() + 8 * DAY)) == "token.invalid"
    assert personal(as_alice, alice, expires_at=now() + 6 * DAY)
    new, _ = credentials.rotate_token(principal=as_alice, token_id=earlier.pk, overlap=DAY)
    assert new.expires_at - now() <= 7 * DAY


def test_people_see_their_own_tokens_and_administrators_all(as_alice, alice, as_bob, bob, as_nadia, as_charlie) -> None:
    first, second = personal(as_alice, alice)[0], personal(as_bob, bob)[0]
    service, _ = credentials.issue_service_token(principal=as_nadia, name="CI", expires_at=now() + DAY)
    assert [token.pk for token in credentials.listed(as_alice)] == [first.pk]
    assert [token.pk for token in credentials.listed(as_bob)] == [second.pk]
    assert {token.pk for token in credentials.listed(as_nadia)} == {first.pk, second.pk, service.pk}
    assert not credentials.listed(as_charlie).exists()


def settings(principal, **more):
    shown = organisations.settings_of(principal)
    given = {
        "name": "Northwind Ltd",
        "time_zone": "Europe/Berlin",
        "sign_off_above": Decimal("12.50"),
        "token_days_max": 90,
        "second_factor_required": False,
        "seen": organisations.version_of(shown),
        **more,
    }
    return organisations.change_settings(principal=principal, **given)


def test_settings_are_changed_with_what_they_were_before_on_record(as_nadia) -> None:
    settings(as_nadia)
    entry = Entry.objects.get()
    assert (entry.event, entry.payload["values"]["time_zone"]) == (
        "organisation.changed",
        {"before": "UTC", "after": "Europe/Berlin"},
    )
    settings(as_nadia)
    assert Entry.objects.count() == 1  # nothing changed


@pytest.mark.parametrize(
    "bad",
    [
        {"name": " "},
        {"name": "x" * 121},
        {"time_zone": "Mars/Olympus"},
        {"time_zone": "../../etc/passwd"},
        {"sign_off_above": Decimal(-1)},
        {"sign_off_above": Decimal("NaN")},
        {"sign_off_above": Decimal("1e30")},
        {"token_days_max": 0},
        {"token_days_max": 10_000},
    ],
    ids=str,
)
def test_settings_that_make_no_sense_are_refused(bad, as_nadia) -> None:
    assert code_of(lambda: settings(as_nadia, **bad)) == "organisation.invalid"
    assert Organisation.objects.get(slug="northwind").name == "Northwind"


def test_settings_somebody_changed_meanwhile_are_not_overwritten(as_nadia) -> None:
    stale = organisations.version_of(organisations.settings_of(as_nadia))
    settings(as_nadia)
    assert code_of(lambda: settings(as_nadia, seen=stale, name="Mine")) == "organisation.changed"


def test_who_asks_for_a_second_factor_has_one(as_nadia) -> None:
    assert code_of(lambda: settings(as_nadia, second_factor_required=True)) == "organisation.own_second_factor"
    assert not Organisation.objects.filter(second_factor_required=True).exists()


def test_who_may_not_change_settings_changes_none(as_alice, as_bob, as_finn, as_run, northwind) -> None:
    for principal in (as_alice, as_bob, as_finn, as_run):
        assert code_of(lambda who=principal: settings(who)) == "permission.denied"
    assert Organisation.objects.get(pk=northwind.pk).name == "Northwind"
    assert Membership.objects.count() == 3
