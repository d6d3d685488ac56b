-- Folding reads the journal by id. Lines are only ever appended, so a summary per block range finds the newest ones and
-- costs the hot path nothing worth measuring. New months inherit it.
CREATE INDEX budget_journal_by_id ON budgets_journal USING brin (id) WITH (pages_per_range = 32, autosummarize = on);

INSERT INTO budgets_coststate (id, folded_id, noted_id, noted_writers, checked_id, wrong) VALUES (1, 0, 0, '[]', 0, '[]')
ON CONFLICT (id) DO NOTHING;
