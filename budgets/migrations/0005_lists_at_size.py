"""Indexes for lists at size: an organisation's newest lines, the rare ones among them, all accounts below one, and the
last days' sums, which are written day after day.

New months inherit those of the journal. PostgreSQL builds no index of a partitioned table without holding up its
writers: that takes about a second per million lines.
"""

import django.contrib.postgres.indexes
from django.db import migrations

JOURNAL = """
CREATE INDEX budget_journal_by_organisation ON budgets_journal (organisation_id, id);
CREATE INDEX budget_journal_rare ON budgets_journal (organisation_id, id)
    WHERE kind IN ('allocation', 'freeze', 'unfreeze', 'guard', 'overrun');
"""


class Migration(migrations.Migration):
    dependencies = [("budgets", "0004_costs")]

    operations = [
        migrations.AddIndex(
            "account", django.contrib.postgres.indexes.GinIndex(fields=["path"], name="budget_by_path")
        ),
        migrations.AddIndex(
            "dailyspend",
            django.contrib.postgres.indexes.BrinIndex(
                autosummarize=True, fields=["day"], name="budget_day_newest", pages_per_range=32
            ),
        ),
        migrations.RunSQL(JOURNAL, "DROP INDEX budget_journal_by_organisation; DROP INDEX budget_journal_rare"),
    ]
