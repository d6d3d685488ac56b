"""Bearer tokens: only the exact, live text opens anything; what is stored opens nothing."""

from __future__ import annotations

import hmac
from datetime import timedelta

import pytest
from django.conf import settings

from controlplane.common.clock import now
from controlplane.common.errors import RemitError
from controlplane.tenancy import services, tokens
from controlplane.tenancy.models import Token, TokenKind


def code_of(text: str) -> str:
    with pytest.raises(RemitError) as refused:
        tokens.recognise(text)
    assert refused.value.status == 401
    return refused.value.code


@pytest.mark.parametrize("kind", list(TokenKind))
def test_a_token_has_the_announced_form_and_is_recognised(kind, issue_token) -> None:
    text = issue_token(kind)
    prefix, found, rest = text.split("_", 2)
    assert (prefix, found) == ("rmt", kind.value)
    assert len(rest) == 43 + 1 + 8
    assert tokens.recognise(text).kind == kind


def test_the_database_holds_a_keyed_hash_and_four_characters(issue_token, monkeypatch) -> None:
    text = issue_token(TokenKind.SERVICE)
    stored = Token.objects.get()
    values = " ".join(str(value) for value in Token.objects.values_list().get())
    assert text not in values
    assert text[8:40] not in values
    assert stored.hint == text[8:51][-4:]
    monkeypatch.setattr(settings, "SECRET_KEY", "another key of more than thirty-two characters")
    assert code_of(text) == "token.unknown"  # a hash made under another key is another hash


def test_a_stored_hash_is_no_token(issue_token) -> None:
    issue_token(TokenKind.SERVICE)
    assert code_of(Token.objects.get().hash) == "token.malformed"


def test_a_mistyped_token_costs_no_query(issue_token, django_assert_num_queries) -> None:
    text = issue_token(TokenKind.RUN)
    with django_assert_num_queries(0):
        for wrong in (
            text[:-1] + ("0" if text[-1] != "0" else "1"),
            text[:20] + ("A" if text[20] != "A" else "B") + text[21:],
        ):
            assert code_of(wrong) == "token.malformed"


@pytest.mark.parametrize(
    "change",
    [
        lambda text: "",
        lambda text: text.upper(),
        lambda text: f" {text}",
        lambda text: f"{text}\n",
        lambda text: f"{text}\x00",
        lambda text: text[:-9],
        lambda text: text * 2,
        lambda text: text.replace("rmt_", "ghp_"),
        lambda text: "rmt_" + "x" * 100_000,
        lambda text: text.replace("_svc_", "_adm_"),
        lambda text: text.replace("_", "＿"),
    ],
)
def test_anything_but_the_exact_text_is_refused(change, issue_token) -> None:
    assert code_of(change(issue_token(TokenKind.SERVICE))) == "token.malformed"


def test_another_kind_cannot_be_claimed(issue_token) -> None:
    secret = issue_token(TokenKind.SERVICE).split("_", 2)[2][:43]
    claimed = f"rmt_pat_{secret}_{tokens._checksum('pat', secret)}"
    assert code_of(claimed) == "token.unknown"


def test_a_guessed_token_with_a_right_checksum_is_unknown(db) -> None:
    secret = "A" * 43
    assert code_of(f"rmt_run_{secret}_{tokens._checksum('run', secret)}") == "token.unknown"


def test_an_expired_token_is_dead(issue_token) -> None:
    assert code_of(issue_token(TokenKind.SERVICE, expires_at=now() - timedelta(seconds=1))) == "token.expired"


def test_a_revoked_token_is_dead_at_once_and_others_live_on(issue_token, run_token, run) -> None:
    other = issue_token(TokenKind.SERVICE)
    assert tokens.revoke(run_id=run.pk) == 1
    assert code_of(run_token) == "token.revoked"
    assert tokens.recognise(other)
    assert tokens.revoke(run_id=run.pk) == 0


def test_revoking_says_which(db) -> None:
    with pytest.raises(ValueError, match="which"):
        tokens.revoke()


def test_two_tokens_never_share_a_text(issue_token) -> None:
    assert len({issue_token(TokenKind.SERVICE) for _ in range(50)}) == 50


def test_last_use_is_noted_at_most_once_a_minute(issue_token, django_assert_num_queries) -> None:
    text = issue_token(TokenKind.SERVICE)
    tokens.recognise(text)
    first = Token.objects.get().last_used_at
    assert first is not None
    with django_assert_num_queries(1):
        tokens.recognise(text)
    Token.objects.update(last_used_at=now() - timedelta(minutes=2))
    tokens.recognise(text)
    assert Token.objects.get().last_used_at >= first


def test_a_token_is_looked_up_by_its_hash_and_never_compared_as_text(issue_token, django_assert_num_queries) -> None:
    """No early exit on the first wrong character can be timed: the database sees a keyed hash of the whole text."""
    text = issue_token(TokenKind.SERVICE)
    with django_assert_num_queries(2) as asked:
        tokens.recognise(text)
    statement = asked.captured_queries[0]["sql"]
    assert hmac.new(settings.SECRET_KEY.encode(), b"token:" + text.encode(), "sha256").hexdigest() in statement
    assert text[8:30] not in statement


def test_the_principal_of_a_run_carries_what_it_is_bound_to(as_run, run, mission) -> None:
    assert (as_run.run_id, as_run.mission_id, as_run.agent_id) == (run.pk, mission.pk, mission.agent_id)
    assert as_run.organisation_id == mission.organisation_id
    assert as_run.user_id is None


def test_a_scope_this_version_does_not_know_grants_nothing(issue_token, alice) -> None:
    text = issue_token(TokenKind.PERSON, user_id=alice.pk)
    Token.objects.update(scopes=["moon.land"])
    assert services.principal_of_token(text).scopes == frozenset()
