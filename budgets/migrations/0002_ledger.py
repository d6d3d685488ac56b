"""The ledger's append-only tables, triggers and functions."""

from pathlib import Path

from django.db import migrations

SQL = (Path(__file__).parent / "sql" / "0002_ledger.sql").read_text()
REVERSE = """
DROP FUNCTION IF EXISTS budgets_note_result, budgets_sweep, budgets_void, budgets_settle, budgets_extend, budgets_dispatch,
    budgets_reserve_batch, budgets_reserve, budgets_replay, budgets_refusal, budgets_request_hash, budgets_digest,
    budgets_set_frozen, budgets_set_limit, budgets_follow_limit, budgets_make_chain, budgets_make_windows, budgets_ends_at, budgets_starts_at,
    budgets_make_partitions;
DROP TYPE IF EXISTS budgets_answer;
DROP TABLE IF EXISTS budgets_posting, budgets_journal;
DROP TRIGGER IF EXISTS budgets_allocation_append_only ON budgets_allocation;
DROP FUNCTION IF EXISTS budgets_check_balance, budgets_refuse_change;
"""


class Migration(migrations.Migration):
    dependencies = [("budgets", "0001_initial"), ("tenancy", "0001_initial")]

    operations = [migrations.RunSQL(SQL, REVERSE)]
