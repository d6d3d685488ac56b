"""The one call that writes a decision, the one that consumes a permit, and the triggers that keep both honest."""

from django.db import migrations

FUNCTIONS = """
CREATE FUNCTION governance_active_bundle(organisation uuid) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT sha256 FROM governance_policybundle
    WHERE state = 'active' AND (organisation_id = organisation OR organisation_id IS NULL)
    ORDER BY organisation_id NULLS LAST LIMIT 1
$$;

-- Everything of one decision. Writes nothing and says why when the rules it was made with are no longer in force
-- ('bundle_changed') or this idempotency key was used before ('repeated'). Waits two seconds at most for one in flight.
CREATE FUNCTION governance_commit(document jsonb) RETURNS text LANGUAGE plpgsql SET lock_timeout = '2s' AS $$
BEGIN
    IF coalesce(governance_active_bundle((document->'decision'->>'organisation_id')::uuid), '')
       <> (document->'decision'->>'bundle_sha256') THEN
        RETURN 'bundle_changed';
    END IF;
    IF document ? 'action' THEN
        INSERT INTO governance_action
        SELECT * FROM jsonb_populate_record(NULL::governance_action, document->'action')
        ON CONFLICT (proposer_id, idempotency_key) WHERE idempotency_key IS NOT NULL DO NOTHING;
        IF NOT FOUND THEN
            RETURN 'repeated';
        END IF;
    END IF;
    INSERT INTO governance_decision
    SELECT * FROM jsonb_populate_record(NULL::governance_decision, document->'decision');
    IF document ? 'permit' THEN
        INSERT INTO governance_permit
        SELECT * FROM jsonb_populate_record(NULL::governance_permit, document->'permit');
    END IF;
    IF document ? 'escalation' THEN
        INSERT INTO governance_escalation
        SELECT * FROM jsonb_populate_record(NULL::governance_escalation, document->'escalation');
    END IF;
    INSERT INTO audit_entry
    SELECT * FROM jsonb_populate_record(NULL::audit_entry, document->'entry');
    RETURN 'done';
END $$;

-- One use, once: consumes the live permit, moves its action to executing and writes the entry, or does nothing.
CREATE FUNCTION governance_consume(which uuid, held_by uuid, enforced_by text, seen_digest text, nonce text,
                                   bundle text, moment timestamptz, entry jsonb) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    used uuid;
BEGIN
    UPDATE governance_permit SET consumed_at = moment
    WHERE action_id = which AND consumed_at IS NULL AND voided_at IS NULL AND expires_at > moment
      AND holder_id = held_by AND audience = enforced_by AND digest = seen_digest
      AND (nonce IS NULL OR nonce_sha256 = nonce)
      AND governance_active_bundle(organisation_id) = bundle
    RETURNING id INTO used;
    IF used IS NULL THEN
        RETURN 'refused';
    END IF;
    UPDATE governance_action SET state = 'executing', executing_at = moment WHERE id = which AND state = 'permitted';
    IF NOT FOUND THEN
        RAISE EXCEPTION 'a live permit for action % that is not permitted', which USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    INSERT INTO audit_entry SELECT * FROM jsonb_populate_record(NULL::audit_entry, entry);
    RETURN 'consumed';
END $$;
"""

DROP_FUNCTIONS = """
DROP FUNCTION governance_consume(uuid, uuid, text, text, text, text, timestamptz, jsonb);
DROP FUNCTION governance_commit(jsonb);
DROP FUNCTION governance_active_bundle(uuid);
"""

TRIGGERS = """
CREATE FUNCTION governance_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% on % is refused: its rows are never changed', TG_OP, TG_TABLE_NAME
        USING ERRCODE = 'restrict_violation';
END $$;

CREATE TRIGGER decision_immutable BEFORE UPDATE OR DELETE ON governance_decision
    FOR EACH ROW EXECUTE FUNCTION governance_refuse();
CREATE TRIGGER vote_immutable BEFORE UPDATE OR DELETE ON governance_vote
    FOR EACH ROW EXECUTE FUNCTION governance_refuse();
CREATE TRIGGER action_kept BEFORE DELETE ON governance_action
    FOR EACH ROW EXECUTE FUNCTION governance_refuse();
CREATE TRIGGER permit_kept BEFORE DELETE ON governance_permit
    FOR EACH ROW EXECUTE FUNCTION governance_refuse();
CREATE TRIGGER escalation_kept BEFORE DELETE ON governance_escalation
    FOR EACH ROW EXECUTE FUNCTION governance_refuse();

CREATE TRIGGER decision_not_emptied BEFORE TRUNCATE ON governance_decision
    FOR EACH STATEMENT EXECUTE FUNCTION governance_refuse();
CREATE TRIGGER vote_not_emptied BEFORE TRUNCATE ON governance_vote
    FOR EACH STATEMENT EXECUTE FUNCTION governance_refuse();

CREATE FUNCTION governance_action_guard() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT (CASE OLD.state
        WHEN 'proposed' THEN NEW.state IN ('denied', 'waiting', 'permitted')
        WHEN 'waiting' THEN NEW.state IN ('permitted', 'denied', 'expired', 'withdrawn')
        WHEN 'permitted' THEN NEW.state IN ('executing', 'waiting', 'denied', 'expired', 'withdrawn')
            OR (NEW.state = 'succeeded' AND NEW.tool = '')
        WHEN 'executing' THEN NEW.state IN ('succeeded', 'failed', 'unknown')
        WHEN 'unknown' THEN NEW.state IN ('succeeded', 'failed')
        ELSE false
    END) THEN
        RAISE EXCEPTION 'an action can not go from % to %', OLD.state, NEW.state USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER action_state BEFORE UPDATE OF state ON governance_action
    FOR EACH ROW WHEN (OLD.state IS DISTINCT FROM NEW.state) EXECUTE FUNCTION governance_action_guard();
CREATE TRIGGER action_judged BEFORE UPDATE ON governance_action FOR EACH ROW
    WHEN ((OLD.id, OLD.organisation_id, OLD.team_id, OLD.kind, OLD.tool, OLD.digest, OLD.proposer_id, OLD.arguments,
           OLD.envelope, OLD.idempotency_key, OLD.request_sha256)
          IS DISTINCT FROM
          (NEW.id, NEW.organisation_id, NEW.team_id, NEW.kind, NEW.tool, NEW.digest, NEW.proposer_id, NEW.arguments,
           NEW.envelope, NEW.idempotency_key, NEW.request_sha256))
    EXECUTE FUNCTION governance_refuse();

-- A permit ends once: consumed or voided. Its nonce may be replaced while it is live (a repeated request gets a new token).
CREATE TRIGGER permit_ends_once BEFORE UPDATE ON governance_permit FOR EACH ROW
    WHEN (OLD.consumed_at IS NOT NULL OR OLD.voided_at IS NOT NULL
          OR (OLD.id, OLD.organisation_id, OLD.action_id, OLD.decision_id, OLD.digest, OLD.audience, OLD.holder_id,
              OLD.created_at, OLD.expires_at)
             IS DISTINCT FROM
             (NEW.id, NEW.organisation_id, NEW.action_id, NEW.decision_id, NEW.digest, NEW.audience, NEW.holder_id,
              NEW.created_at, NEW.expires_at))
    EXECUTE FUNCTION governance_refuse();
CREATE TRIGGER escalation_closes_once BEFORE UPDATE ON governance_escalation FOR EACH ROW
    WHEN (OLD.state <> 'open' OR OLD.action_id <> NEW.action_id OR OLD.policies <> NEW.policies
          OR OLD.excluded_user_ids <> NEW.excluded_user_ids OR OLD.needed <> NEW.needed)
    EXECUTE FUNCTION governance_refuse();
"""

DROP_TRIGGERS = """
DROP TRIGGER escalation_closes_once ON governance_escalation;
DROP TRIGGER permit_ends_once ON governance_permit;
DROP TRIGGER action_judged ON governance_action;
DROP TRIGGER action_state ON governance_action;
DROP FUNCTION governance_action_guard();
DROP TRIGGER vote_not_emptied ON governance_vote;
DROP TRIGGER decision_not_emptied ON governance_decision;
DROP TRIGGER escalation_kept ON governance_escalation;
DROP TRIGGER permit_kept ON governance_permit;
DROP TRIGGER action_kept ON governance_action;
DROP TRIGGER vote_immutable ON governance_vote;
DROP TRIGGER decision_immutable ON governance_decision;
DROP FUNCTION governance_refuse();
"""


class Migration(migrations.Migration):
    dependencies = [("governance", "0003_account_signature_loader"), ("audit", "0002_initial")]

    operations = [
        migrations.RunSQL(FUNCTIONS, DROP_FUNCTIONS),
        migrations.RunSQL(TRIGGERS, DROP_TRIGGERS),
    ]
