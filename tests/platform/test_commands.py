"""The command line as documents and scripts hold it: every operation speaks JSON and fails with a number."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command, get_commands, load_command_class

from controlplane.tenancy.models import Organisation, Token, User

MANAGE = Path(__file__).resolve().parents[2] / "manage.py"
OPERATIONS = [
    ("demo",),
    ("signin",),
    ("token", "issue"),
    ("token", "revoke"),
    ("audit", "verify"),
    ("audit", "export"),
    ("audit", "key"),
    ("audit", "rotate-key"),
    ("prices", "import"),
    ("bundle", "check"),
    ("bundle", "load"),
    ("bundle", "promote"),
    ("organisation",),
    ("configuration",),
]
FAILURES = [
    ("signin", "--user", "nobody@nowhere.example"),
    ("token", "issue", "--kind", "svc", "--organisation", "nowhere"),
    ("audit", "verify", "--organisation", "nowhere"),
    ("audit", "export", "--organisation", "nowhere", "--output", "nowhere.zip"),
    ("prices", "import", "nowhere.json", "--organisation", "nowhere"),
    ("bundle", "load", "nowhere", "--user", "nobody@nowhere.example"),
    ("worker", "--threads", "0"),
    *(
        ("organisation", "--name", "Zed", "--admin", "ada@acme.example", *wrong)
        for wrong in (
            ("--currency", "EURO"),
            ("--currency", "1!?"),
            ("--monthly-limit", "-3"),
            ("--monthly-limit", "NaN"),
            ("--monthly-limit", "many"),
            ("--team", ""),
            ("--team", "x" * 121),
            ("--time-zone", "Mars"),
            ("--name", ""),
            ("--name", "日本"),
            ("--name", "x" * 121),
            ("--admin", "ada@"),
            ("--admin-name", "x" * 121),
        )
    ),
]


@pytest.mark.parametrize("words", OPERATIONS, ids=" ".join)
def test_every_operation_prints_json_when_asked(words: tuple[str, ...]) -> None:
    command = load_command_class(get_commands()[words[0]], words[0])
    parser = command.create_parser("manage.py", words[0])
    for word in words[1:]:
        choices = next(action.choices for action in parser._actions if action.choices and word in action.choices)
        parser = choices[word]  # type: ignore[call-overload,index]
    assert any("--json" in action.option_strings for action in parser._actions)


@pytest.mark.django_db
@pytest.mark.parametrize("words", FAILURES, ids=lambda words: " ".join(words[:2]))
def test_what_can_not_be_done_says_so_and_fails(words: tuple[str, ...]) -> None:
    with pytest.raises(CommandError) as failure:
        call_command(*words)
    assert failure.value.returncode != 0
    assert str(failure.value).strip()
    assert not Organisation.objects.exists()


@pytest.mark.django_db
def test_a_service_token_with_a_permission_to_change_something_is_not_issued(northwind: Organisation) -> None:
    words = ("token", "issue", "--kind", "svc", "--organisation", northwind.slug, "--scope", "mission.view")
    with pytest.raises(CommandError, match="only reads") as failure:
        call_command(*words, "--scope", "mission.write")
    assert "mission.write" in str(failure.value)
    assert not Token.objects.exists()
    call_command(*words)
    assert Token.objects.count() == 1


@pytest.mark.django_db
@pytest.mark.parametrize(("kind", "option"), [("svc", "--user"), ("svc", "--agent"), ("pat", "--agent")])
def test_a_token_of_another_kind_than_whose_it_was_asked_for_is_not_issued(
    northwind: Organisation, alice: User, kind: str, option: str
) -> None:
    """A service's would read the whole organisation, whoever was named."""
    whose = ("--user", alice.email) if kind == "pat" else ()
    with pytest.raises(CommandError, match=option):
        call_command(*("token", "issue", "--kind", kind, "--organisation", northwind.slug), *whose, option, alice.email)
    assert not Token.objects.exists()


@pytest.mark.django_db
def test_an_erasure_that_nobody_can_be_asked_about_erases_nothing(alice: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO())
    with pytest.raises(CommandError, match="Nothing was erased"):
        call_command("person", "erase", "--user", alice.email)
    alice.refresh_from_db()
    assert alice.is_active


def test_a_failure_is_a_number_to_the_shell() -> None:
    done = subprocess.run(
        [sys.executable, str(MANAGE), "bundle", "check", "nowhere", "--json"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout == ""
