"""Credentials never reach the audit trail or the log, wherever somebody or some agent has put them."""

from __future__ import annotations

import json
import logging

import pytest
import structlog
from django.db import connection

from controlplane.audit.models import Entry
from controlplane.audit.sealing import seal_all
from controlplane.audit.verification import verify_organisation
from controlplane.common.observability import configure_logging

SECRETS = {
    "remit": "rmt_run_Zk3vQ9sPw2xLr7Yt5Hn8",
    "bearer": "Bearer abcdef0123456789abcdef",
    "url": "postgres://clerk:S3cr3t-Pa55@db.example/books",
    "query": "https://books.example/?api_key=Zk3vQ9sPw2xLr7Yt&page=2",
    "aws": "AKIAIOSFODNN7EXAMPLE",
    "github": "ghp_0123456789abcdefghijABCDEFGHIJ012345",
    "model": "sk-proj-0123456789abcdefABCDEF",
    "jwt": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N",
    "said": "the password is Hunter2-Hunter2",
    "json": '{"grant": "x", "password": "Hunter2-Hunter2", "accessToken":"Zk3vQ9sPw2xLr7Yt"}',
    "json in json": '{"body": "{\\"client_secret\\": \\"S3cr3t-Pa55\\"}"}',
    "python": "{'api_key': 'Zk3vQ9sPw2xLr7Yt'}",
    "environment": "DB_PASSWORD=Hunter2-Hunter2 AWS_SECRET_ACCESS_KEY=S3cr3t-Pa55",
    "backslash": "password: abcdef\\Hunter2",
    "pem": "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASC\n-----END PRIVATE KEY-----",
}
PIECES = (
    *("Zk3vQ9sPw2xLr7Yt5Hn8", "abcdef0123456789abcdef", "S3cr3t-Pa55", "Zk3vQ9sPw2xLr7Yt", "IOSFODNN7EXAMPLE"),
    *("0123456789abcdefghijABCDEFGHIJ", "proj-0123456789", "dozjgNryP4J3jVmNHl0w5N", "Hunter2", "MIIEvQIBADANBg"),
)


def everything_in_the_trail() -> str:
    with connection.cursor() as cursor:
        cursor.execute("SELECT string_agg(e::text, ' ') FROM audit_entry e")
        return str(cursor.fetchone()[0])


@pytest.mark.parametrize("kind", SECRETS)
def test_a_credential_in_a_note_is_not_stored(kind, record, northwind) -> None:
    record(reason=f"It failed with {SECRETS[kind]}, see the log", name=f"Fetch {SECRETS[kind]}")
    stored = everything_in_the_trail()
    assert "[removed]" in stored
    assert not [piece for piece in PIECES if piece in stored]
    seal_all()
    assert verify_organisation(organisation_id=northwind.pk).intact, "what is hashed is what is stored"


def test_a_value_under_a_secret_name_is_not_stored_at_any_depth(record) -> None:
    record(
        claim={"steps": [{"headers": {"Authorization": "Zk3vQ9sPw2xLr7Yt5Hn8", "Accept": "text/html"}}]},
        settings={"PASSWORD": "Hunter2", "client-secret": ["S3cr3t-Pa55"], "token": {"value": "proj-0123456789"}},
        camel={"accessToken": "Zk3vQ9sPw2xLr7Yt", "clientSecret": "S3cr3t-Pa55", "privateKey": "MIIEvQIBADANBg"},
        set={"password": True, "api_key": None},
    )
    kept = Entry.objects.get().payload
    assert kept["claim"]["steps"][0]["headers"] == {"Authorization": "[removed]", "Accept": "text/html"}
    assert set(kept["settings"].values()) == set(kept["camel"].values()) == {"[removed]"}
    assert kept["set"] == {"password": True, "api_key": None}
    assert not [piece for piece in PIECES if piece in everything_in_the_trail()]


def test_ordinary_words_stay_as_they_are(record) -> None:
    facts = {
        "reason": "The token was revoked; a basic key account, password unchanged",
        "hint": "Hn8a",
        "word": "The argument “token” or 'token' is unknown",
        "digest": "sha256:" + "ab12" * 16,
        "url": "https://books.example/invoices?page=2",
        "scopes": ["token.write", "member.view"],
        "amount": 12.5,
    }
    record(**facts)
    assert Entry.objects.get().payload == facts


def test_credentials_in_log_lines_are_not_written(capsys) -> None:
    handlers, level = logging.getLogger().handlers[:], logging.getLogger().level
    configure_logging({"format": "json", "level": "INFO"})
    try:
        log = structlog.get_logger("test")
        for name, secret in SECRETS.items():
            log.info("tool.failed", kind=name, error=f"upstream said {secret}", arguments={"password": "Hunter2"})
            logging.getLogger("other").warning("it failed with %s", secret)
    finally:
        logging.getLogger().handlers[:] = handlers
        logging.getLogger().setLevel(level)
    written = capsys.readouterr().err
    assert len([json.loads(line) for line in written.splitlines()]) == 2 * len(SECRETS)
    assert not [piece for piece in PIECES if piece in written]
