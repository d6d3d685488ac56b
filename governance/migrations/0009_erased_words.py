"""What was said beside a question is never changed, except that erasing a person takes their words and name out of it."""

from django.db import migrations

GUARD = """
CREATE FUNCTION governance_message_guard() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    erased uuid := nullif(current_setting('remit.erasing', true), '')::uuid;
BEGIN
    IF TG_OP = 'UPDATE' AND EXISTS (
        SELECT FROM tenancy_user u WHERE u.id = erased AND NOT u.is_active
           AND u.email = 'erased-' || replace(u.id::text, '-', '') || '@erased.invalid'
    ) AND (OLD.id, OLD.organisation_id, OLD.escalation_id, OLD.kind, OLD.author_id, OLD.answers_id, OLD.created_at)
          IS NOT DISTINCT FROM
          (NEW.id, NEW.organisation_id, NEW.escalation_id, NEW.kind, NEW.author_id, NEW.answers_id, NEW.created_at)
      AND (CASE WHEN OLD.author_id = erased
          THEN NEW.text = '[erased with the person who wrote it]' AND NEW.author_name LIKE 'Erased person %'
          ELSE NEW.text = OLD.text OR NEW.text LIKE '%Erased person %' END)
    THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION '% on % is refused: its rows are never changed', TG_OP, TG_TABLE_NAME
        USING ERRCODE = 'restrict_violation';
END $$;
DROP TRIGGER message_immutable ON governance_escalationmessage;
CREATE TRIGGER message_immutable BEFORE UPDATE OR DELETE ON governance_escalationmessage
    FOR EACH ROW EXECUTE FUNCTION governance_message_guard();
"""
AS_BEFORE = """
DROP TRIGGER message_immutable ON governance_escalationmessage;
CREATE TRIGGER message_immutable BEFORE UPDATE OR DELETE ON governance_escalationmessage
    FOR EACH ROW EXECUTE FUNCTION governance_refuse();
DROP FUNCTION governance_message_guard();
"""


class Migration(migrations.Migration):
    dependencies = (("governance", "0008_actions_at_size"), ("tenancy", "0002_identity"))

    operations = (migrations.RunSQL(GUARD, AS_BEFORE),)
