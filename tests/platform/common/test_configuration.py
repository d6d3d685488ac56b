"""The documented configuration is the one that is read."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from django.core.management import call_command

from controlplane.config import Configuration, ConfigurationError, configuration

OPERATIONS = Path(__file__).resolve().parents[3] / "docs" / "operations.md"


def printed(*arguments: str) -> str:
    said = io.StringIO()
    call_command("configuration", *arguments, stdout=said)
    return said.getvalue().strip()


def test_the_table_in_the_documents_is_what_the_command_prints() -> None:
    text = OPERATIONS.read_text()
    table = text.split("<!-- manage.py configuration -->\n")[1].split("\n<!-- end -->")[0]
    assert table == printed()


def test_every_variable_says_what_it_means() -> None:
    found = json.loads(printed("--json"))
    assert len(found) == len(Configuration.model_fields)
    assert not [item["name"] for item in found if not item["meaning"]]


def test_no_value_of_this_process_is_shown(settings) -> None:
    assert settings.CONFIG.secret_key not in printed()
    assert settings.CONFIG.database_url not in printed()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"DATABASE_URL": "mysql://somebody:geheim@host/remit"}, "DATABASE_URL"),
        ({"DATABASE_URL": "postgresql://somebody:geheim@host:many/remit"}, "DATABASE_URL"),
        ({"REDIS_URL": "localhost:6379"}, "REDIS_URL"),
        ({"PUBLIC_URL": "https://remit.example/below"}, "PUBLIC_URL"),
        ({"PUBLIC_URL": "https://remit.example:port"}, "PUBLIC_URL"),
        ({"PUBLIC_URL": "https://"}, "PUBLIC_URL"),
        ({"ALLOWED_HOSTS": "localhost, https://remit.example"}, "ALLOWED_HOSTS"),
        ({"EMAIL_URL": "smtp://mail.example:999999"}, "EMAIL_URL"),
        ({"OTLP_ENDPOINT": "collector:4318"}, "OTLP_ENDPOINT"),
        ({"REMIT_SAMPLE_PACE": "quick"}, "REMIT_SAMPLE_PACE"),
        ({"JUDGE_URL": "https://a/v1,https://b/v1", "JUDGE_MODEL": "one,two,three"}, "JUDGE_MODEL"),
        ({"JUDGE_URL": "https://a/v1,https://b/v1", "JUDGE_MODEL": "one", "JUDGE_KEY": "one,two,three"}, "JUDGE_KEY"),
    ],
)
def test_what_can_not_work_ends_every_process_at_its_start_by_name(
    given: dict[str, str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError) as ended:
        configuration.__wrapped__()
    assert ended.value.code == 2
    assert said in (told := capsys.readouterr().err)
    assert "geheim" not in told


@pytest.mark.parametrize(
    "given",
    [
        {"DATABASE_URL": "postgresql:///remit?host=/run/remit", "REDIS_URL": "rediss://host:6379/1"},
        {"DATABASE_URL": "host=/run/remit dbname=remit", "REDIS_URL": "unix:///run/valkey.sock?db=1"},
        {"PUBLIC_URL": "https://remit.example:8443/", "ALLOWED_HOSTS": ".remit.example,[::1]"},
        {"JUDGE_URL": "https://a/v1,https://b/v1", "JUDGE_MODEL": "one", "JUDGE_KEY": "one,two"},
        {"OTLP_ENDPOINT": "https://collector:4318", "REMIT_SAMPLE_PACE": "0.2"},
    ],
)
def test_every_documented_form_of_an_address_is_taken(given: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert configuration.__wrapped__()
