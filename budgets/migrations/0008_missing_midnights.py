"""Windows of days that have no midnight."""

from __future__ import annotations

from pathlib import Path

from django.db import migrations

SQL = (Path(__file__).parent / "sql" / "0008_missing_midnights.sql").read_text()


class Migration(migrations.Migration):
    dependencies = [("budgets", "0007_zones")]

    operations = [migrations.RunSQL(SQL, migrations.RunSQL.noop)]
