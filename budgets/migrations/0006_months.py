"""The journal's months by the function that makes the trail's: also for a worker whose role owns no table, and out of
reach of every role but the owner's."""

from django.db import migrations

MAKE = """
CREATE OR REPLACE FUNCTION budgets_make_partitions(p_months integer, p_at timestamptz DEFAULT now()) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp SET lock_timeout = '5s' AS $$
BEGIN
    RETURN make_months('budgets_journal', false, 'budgets_refuse_change', p_months, p_at);
END $$;
SELECT guard_month(inhrelid::regclass::text, 'budgets_refuse_change')
FROM pg_inherits WHERE inhparent = 'budgets_journal'::regclass;
"""


class Migration(migrations.Migration):
    dependencies = [("budgets", "0005_lists_at_size"), ("audit", "0006_by_month")]

    operations = [migrations.RunSQL(MAKE, migrations.RunSQL.noop)]
