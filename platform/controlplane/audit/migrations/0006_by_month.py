"""Entries by month. PL/pgSQL that months of other append-only tables are made with as well."""

from pathlib import Path

from django.db import migrations

SQL = (Path(__file__).parent / "sql" / "0006_by_month.sql").read_text()


class Migration(migrations.Migration):
    dependencies = (("audit", "0005_guard_after_erasure"),)

    operations = (migrations.RunSQL(SQL),)
