"""A change of the organisation's time zone neither empties windows under way nor moves days that are over."""

from pathlib import Path

import django.db.models.deletion
from django.db import migrations, models

FOLDER = Path(__file__).parent / "sql"
SQL = (FOLDER / "0007_zones.sql").read_text()
BACK = (
    "DROP FUNCTION IF EXISTS budgets_follow_zone(uuid, text, timestamptz);\n"
    + (FOLDER / "0003_fewer_statements.sql").read_text()
)


class Migration(migrations.Migration):
    dependencies = [("budgets", "0006_months"), ("tenancy", "0001_initial")]

    operations = [
        migrations.CreateModel(
            name="FormerZone",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("zone", models.CharField(max_length=64)),
                ("until", models.DateTimeField()),
                (
                    "organisation",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="tenancy.organisation",
                    ),
                ),
            ],
            options={
                "constraints": [models.UniqueConstraint(fields=("organisation", "until"), name="budget_zone_once")],
            },
        ),
        migrations.RunSQL(SQL, BACK),
    ]
