"""Django's own view of the project: nothing to complain about, no model without its migration, templates that parse."""

from pathlib import Path

import pytest
from django.core.management import call_command
from django.template import engines

TEMPLATES = Path(__file__).resolve().parents[2] / "frontend" / "templates"


def test_system_checks_pass() -> None:
    call_command("check", fail_level="ERROR")


@pytest.mark.django_db
def test_every_model_change_has_its_migration() -> None:
    call_command("makemigrations", check=True, dry_run=True, verbosity=1)


def test_every_template_parses_and_is_whole() -> None:
    for path in TEMPLATES.rglob("*.*"):
        text = path.read_text()
        assert not any(mark in text for mark in ("<<<<<<< ", ">>>>>>> ")), path
        engines["django"].from_string(text)
