"""The documented configuration is the one that is read."""

from __future__ import annotations

import io
import json
from pathlib import Path

from django.core.management import call_command

from controlplane.config import Configuration

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
