"""One-time links and passwords: each way in works as announced, once where once is meant, and leaves its entry."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest
from allauth.account.models import EmailAddress
from django.contrib.auth import authenticate, get_user_model
from django.contrib.auth.signals import user_logged_in, user_logged_out, user_login_failed
from django.db import connections
from django.test import RequestFactory

from controlplane.audit.models import Entry
from controlplane.common.clock import now
from controlplane.common.errors import RemitError
from controlplane.tenancy import services
from controlplane.tenancy.models import Membership, SignInLink
from controlplane.tenancy.types import Role
from tests.conftest import PASSWORD


def events() -> list[tuple[str, str]]:
    return list(Entry.objects.order_by("pk").values_list("event", "subject_name"))


def test_a_link_signs_in_its_person_once(alice) -> None:
    secret = services.make_sign_in_link(user=alice)
    assert services.redeem_sign_in_link(secret=secret) == alice
    with pytest.raises(RemitError, match="spent") as refused:
        services.redeem_sign_in_link(secret=secret)
    assert refused.value.status == 410
    assert refused.value.remedies


@pytest.mark.django_db(transaction=True)
def test_a_link_raced_for_by_many_has_one_winner(alice) -> None:
    secret = services.make_sign_in_link(user=alice)
    barrier = threading.Barrier(24)
    outcomes: list[str] = []

    def redeem() -> None:
        try:
            barrier.wait(20)
            services.redeem_sign_in_link(secret=secret)
            outcomes.append("in")
        except RemitError as error:
            outcomes.append(error.code)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=redeem) for _ in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(outcomes) == ["in"] + ["sign_in_link.spent"] * 23


def test_an_expired_link_a_wrong_one_and_one_of_a_deactivated_person_are_spent(alice, bob) -> None:
    late = services.make_sign_in_link(user=alice, ttl=timedelta(seconds=-1))
    gone = services.make_sign_in_link(user=bob)
    bob.is_active = False
    bob.save(update_fields=["is_active"])
    for secret in (late, gone, "", "guess", "x" * 10_000, "\x00", SignInLink.objects.first().hash):
        with pytest.raises(RemitError, match="spent"):
            services.redeem_sign_in_link(secret=secret)


def test_a_link_is_stored_as_a_keyed_hash(alice) -> None:
    secret = services.make_sign_in_link(user=alice)
    link = SignInLink.objects.get()
    assert secret not in " ".join(str(value) for value in SignInLink.objects.values_list().get())
    assert now() < link.expires_at <= now() + timedelta(hours=12)


def test_signing_in_and_out_is_on_record_in_each_organisation_of_the_person(alice, elsewhere, northwind) -> None:
    Membership.objects.create(organisation=elsewhere, user=alice, role=Role.AUDITOR.value)
    request = RequestFactory().get("/", REMOTE_ADDR="192.0.2.7")
    user_logged_in.send(get_user_model(), request=request, user=alice)
    user_logged_out.send(get_user_model(), request=request, user=alice)
    assert events() == [("person.signed_in", "Alice")] * 2 + [("person.signed_out", "Alice")] * 2
    assert {entry.organisation_id for entry in Entry.objects.all()} == {northwind.pk, elsewhere.pk}
    assert Entry.objects.first().payload == {"client": "192.0.2.7"}


def test_a_failed_password_is_on_record_without_the_password(alice, rf) -> None:
    EmailAddress.objects.create(user=alice, email=alice.email, primary=True, verified=True)
    assert authenticate(rf.post("/"), email=alice.email, password="a wrong guess") is None
    assert events() == [("person.sign_in_failed", "Alice")]
    assert "wrong guess" not in str(Entry.objects.get().payload)
    assert authenticate(rf.post("/"), email=alice.email, password=PASSWORD) == alice


@pytest.mark.parametrize("address", ["nobody@northwind.example", "", "'; --", "a" * 5000])
def test_a_failed_sign_in_as_nobody_leaves_no_entry_and_no_crash(address, alice, rf) -> None:
    assert authenticate(rf.post("/"), email=address, password="guess") is None
    assert events() == []


@pytest.mark.parametrize("credentials", [{"email": "a\x00"}, {"username": "a" * 5000}, {}, {"email": None}])
def test_odd_credentials_leave_no_entry_and_no_crash(credentials, alice, rf) -> None:
    user_login_failed.send(__name__, request=rf.post("/"), credentials=credentials)
    assert events() == []


def test_a_session_that_had_ended_signs_out_nobody(db, rf) -> None:
    user_logged_out.send(get_user_model(), request=rf.get("/"), user=None)
    assert events() == []


def test_a_person_without_an_organisation_signs_in_without_an_entry(alice, rf) -> None:
    Membership.objects.all().delete()
    user_logged_in.send(get_user_model(), request=rf.get("/"), user=alice)
    assert events() == []
