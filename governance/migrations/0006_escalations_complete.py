"""Who is asked and how: groups, routes, tiers, delegations, claims, conversation, notices, broken glass."""

import controlplane.common.ids
import django.db.models.constraints
import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models


# A row written by code older than the columns says nothing of them.
DEFAULTS = """
CREATE FUNCTION governance_escalation_defaults() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.irreversible := coalesce(NEW.irreversible, false);
    NEW.route_name := coalesce(NEW.route_name, '');
    NEW.tier := coalesce(NEW.tier, 1);
    NEW.told_tier := coalesce(NEW.told_tier, 0);
    RETURN NEW;
END $$;
CREATE TRIGGER escalation_defaults BEFORE INSERT ON governance_escalation
    FOR EACH ROW EXECUTE FUNCTION governance_escalation_defaults();
"""
DROP_DEFAULTS = """
DROP TRIGGER escalation_defaults ON governance_escalation;
DROP FUNCTION governance_escalation_defaults();
"""

# Which action another one replaced, what was said, who broke the glass and why: never changed.
KEPT = """
CREATE TRIGGER action_replaces BEFORE UPDATE ON governance_action FOR EACH ROW
    WHEN (OLD.replaces_id IS DISTINCT FROM NEW.replaces_id) EXECUTE FUNCTION governance_refuse();
CREATE TRIGGER message_immutable BEFORE UPDATE OR DELETE ON governance_escalationmessage
    FOR EACH ROW EXECUTE FUNCTION governance_refuse();
CREATE TRIGGER broken_glass_kept BEFORE DELETE ON governance_breakglass
    FOR EACH ROW EXECUTE FUNCTION governance_refuse();
CREATE TRIGGER broken_glass_reviewed_once BEFORE UPDATE ON governance_breakglass FOR EACH ROW
    WHEN (OLD.reviewed_at IS NOT NULL
          OR (OLD.action_id, OLD.escalation_id, OLD.by_id, OLD.reason, OLD.policies, OLD.at, OLD.usable_until)
             IS DISTINCT FROM
             (NEW.action_id, NEW.escalation_id, NEW.by_id, NEW.reason, NEW.policies, NEW.at, NEW.usable_until))
    EXECUTE FUNCTION governance_refuse();
CREATE FUNCTION governance_escalation_route_guard() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'whom a question asks only widens, by its next tier' USING ERRCODE = 'restrict_violation';
END $$;
CREATE TRIGGER escalation_routed_once BEFORE UPDATE ON governance_escalation FOR EACH ROW
    WHEN (NEW.tier < OLD.tier OR (OLD.group_id, OLD.next_group_id, OLD.route_id)
          IS DISTINCT FROM (NEW.group_id, NEW.next_group_id, NEW.route_id))
    EXECUTE FUNCTION governance_escalation_route_guard();
"""
DROP_KEPT = """
DROP TRIGGER escalation_routed_once ON governance_escalation;
DROP FUNCTION governance_escalation_route_guard();
DROP TRIGGER broken_glass_reviewed_once ON governance_breakglass;
DROP TRIGGER broken_glass_kept ON governance_breakglass;
DROP TRIGGER message_immutable ON governance_escalationmessage;
DROP TRIGGER action_replaces ON governance_action;
"""


class Migration(migrations.Migration):

    dependencies = [
        ('governance', '0005_commit_and_end'),
        ('tenancy', '0001_initial'),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name='ApprovalRoute',
            fields=[
                ('id', models.UUIDField(default=controlplane.common.ids.new_id, editable=False, primary_key=True, serialize=False)),
                ('position', models.IntegerField()),
                ('name', models.CharField(max_length=80)),
                ('kind', models.CharField(blank=True, max_length=40)),
                ('amount_above', models.DecimalField(decimal_places=12, max_digits=28, null=True)),
                ('amount_argument', models.CharField(blank=True, max_length=80)),
                ('only_irreversible', models.BooleanField(default=False)),
                ('needed', models.IntegerField(default=1)),
                ('answer_seconds', models.IntegerField(null=True)),
                ('next_seconds', models.IntegerField(null=True)),
                ('created_at', models.DateTimeField(auto_now_add=True)),
            ],
        ),
        migrations.CreateModel(
            name='ApproverGroup',
            fields=[
                ('id', models.UUIDField(default=controlplane.common.ids.new_id, editable=False, primary_key=True, serialize=False)),
                ('name', models.CharField(max_length=80)),
                ('retired_at', models.DateTimeField(null=True)),
                ('created_at', models.DateTimeField(auto_now_add=True)),
            ],
        ),
        migrations.CreateModel(
            name='BreakGlass',
            fields=[
                ('id', models.UUIDField(default=controlplane.common.ids.new_id, editable=False, primary_key=True, serialize=False)),
                ('reason', models.CharField(max_length=500)),
                ('policies', models.JSONField(default=list)),
                ('at', models.DateTimeField()),
                ('usable_until', models.DateTimeField()),
                ('reviewed_at', models.DateTimeField(null=True)),
                ('verdict', models.CharField(blank=True, choices=[('justified', 'Justified'), ('not_justified', 'Not justified')], max_length=13)),
                ('note', models.CharField(blank=True, max_length=500)),
            ],
        ),
        migrations.CreateModel(
            name='Delegation',
            fields=[
                ('id', models.UUIDField(default=controlplane.common.ids.new_id, editable=False, primary_key=True, serialize=False)),
                ('starts_at', models.DateTimeField()),
                ('ends_at', models.DateTimeField()),
                ('reason', models.CharField(blank=True, max_length=200)),
                ('created_at', models.DateTimeField(auto_now_add=True)),
            ],
        ),
        migrations.CreateModel(
            name='EscalationMessage',
            fields=[
                ('id', models.UUIDField(default=controlplane.common.ids.new_id, editable=False, primary_key=True, serialize=False)),
                ('kind', models.CharField(choices=[('comment', 'Comment'), ('question', 'Question to the agent'), ('answer', 'The agent’s own words')], max_length=8)),
                ('author_id', models.UUIDField()),
                ('author_name', models.CharField(max_length=120)),
                ('text', models.CharField(max_length=2000)),
                ('created_at', models.DateTimeField(auto_now_add=True)),
            ],
        ),
        migrations.CreateModel(
            name='Notice',
            fields=[
                ('id', models.UUIDField(default=controlplane.common.ids.new_id, editable=False, primary_key=True, serialize=False)),
                ('kind', models.CharField(choices=[('asked', 'Waits for you'), ('next_tier', 'Waits for you now'), ('answered', 'The agent answered'), ('break_glass', 'Break-glass to review')], max_length=12)),
                ('about_id', models.UUIDField()),
                ('created_at', models.DateTimeField(auto_now_add=True)),
                ('read_at', models.DateTimeField(null=True)),
                ('mail', models.BooleanField(default=False)),
                ('mail_attempts', models.IntegerField(default=0)),
                ('mailed_at', models.DateTimeField(null=True)),
            ],
        ),
        migrations.AddField(
            model_name='action',
            name='replaces',
            field=models.ForeignKey(db_index=False, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='replacements', to='governance.action'),
        ),
        migrations.AddField(
            model_name='escalation',
            name='amount',
            field=models.DecimalField(decimal_places=12, max_digits=28, null=True),
        ),
        migrations.AddField(
            model_name='escalation',
            name='claimed_by',
            field=models.ForeignKey(null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL),
        ),
        migrations.AddField(
            model_name='escalation',
            name='claimed_until',
            field=models.DateTimeField(null=True),
        ),
        migrations.AddField(
            model_name='escalation',
            name='irreversible',
            field=models.BooleanField(db_default=False, default=False),
        ),
        migrations.AddField(
            model_name='escalation',
            name='route_id',
            field=models.UUIDField(null=True),
        ),
        migrations.AddField(
            model_name='escalation',
            name='route_name',
            field=models.CharField(blank=True, db_default='', default='', max_length=80),
        ),
        migrations.AddField(
            model_name='escalation',
            name='tier',
            field=models.IntegerField(db_default=1, default=1),
        ),
        migrations.AddField(
            model_name='escalation',
            name='tier_ends_at',
            field=models.DateTimeField(null=True),
        ),
        migrations.AddField(
            model_name='escalation',
            name='told_tier',
            field=models.IntegerField(db_default=0, default=0),
        ),
        migrations.AddField(
            model_name='vote',
            name='for_user',
            field=models.ForeignKey(null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL),
        ),
        migrations.AddConstraint(
            model_name='action',
            constraint=models.UniqueConstraint(condition=models.Q(('replaces__isnull', False)), fields=('replaces',), name='action_replaced_once'),
        ),
        migrations.AddField(
            model_name='approvalroute',
            name='organisation',
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='tenancy.organisation'),
        ),
        migrations.AddField(
            model_name='approvalroute',
            name='team',
            field=models.ForeignKey(null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='tenancy.team'),
        ),
        migrations.AddField(
            model_name='approvergroup',
            name='members',
            field=models.ManyToManyField(related_name='+', to=settings.AUTH_USER_MODEL),
        ),
        migrations.AddField(
            model_name='approvergroup',
            name='organisation',
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='tenancy.organisation'),
        ),
        migrations.AddField(
            model_name='approvergroup',
            name='team',
            field=models.ForeignKey(null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='tenancy.team'),
        ),
        migrations.AddField(
            model_name='approvalroute',
            name='group',
            field=models.ForeignKey(null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='governance.approvergroup'),
        ),
        migrations.AddField(
            model_name='approvalroute',
            name='next_group',
            field=models.ForeignKey(null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='governance.approvergroup'),
        ),
        migrations.AddField(
            model_name='escalation',
            name='group',
            field=models.ForeignKey(null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='governance.approvergroup'),
        ),
        migrations.AddField(
            model_name='escalation',
            name='next_group',
            field=models.ForeignKey(null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='governance.approvergroup'),
        ),
        migrations.AddIndex(
            model_name='escalation',
            index=models.Index(condition=models.Q(('state', 'open'), ('tier', 1)), fields=['tier_ends_at'], name='escalation_tier'),
        ),
        migrations.AddIndex(
            model_name='escalation',
            index=models.Index(condition=models.Q(('state', 'open'), ('told_tier__lt', models.F('tier'))), fields=['id'], name='escalation_untold'),
        ),
        migrations.AddField(
            model_name='breakglass',
            name='action',
            field=models.OneToOneField(on_delete=django.db.models.deletion.PROTECT, related_name='broken_glass', to='governance.action'),
        ),
        migrations.AddField(
            model_name='breakglass',
            name='by',
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL),
        ),
        migrations.AddField(
            model_name='breakglass',
            name='escalation',
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='governance.escalation'),
        ),
        migrations.AddField(
            model_name='breakglass',
            name='organisation',
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='tenancy.organisation'),
        ),
        migrations.AddField(
            model_name='breakglass',
            name='reviewed_by',
            field=models.ForeignKey(null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL),
        ),
        migrations.AddField(
            model_name='breakglass',
            name='team',
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='tenancy.team'),
        ),
        migrations.AddField(
            model_name='delegation',
            name='from_user',
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL),
        ),
        migrations.AddField(
            model_name='delegation',
            name='organisation',
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='tenancy.organisation'),
        ),
        migrations.AddField(
            model_name='delegation',
            name='to_user',
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL),
        ),
        migrations.AddField(
            model_name='escalationmessage',
            name='answers',
            field=models.OneToOneField(null=True, on_delete=django.db.models.deletion.PROTECT, related_name='answer', to='governance.escalationmessage'),
        ),
        migrations.AddField(
            model_name='escalationmessage',
            name='escalation',
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='messages', to='governance.escalation'),
        ),
        migrations.AddField(
            model_name='escalationmessage',
            name='organisation',
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='tenancy.organisation'),
        ),
        migrations.AddField(
            model_name='notice',
            name='escalation',
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='governance.escalation'),
        ),
        migrations.AddField(
            model_name='notice',
            name='organisation',
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='tenancy.organisation'),
        ),
        migrations.AddField(
            model_name='notice',
            name='user',
            field=models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='+', to=settings.AUTH_USER_MODEL),
        ),
        migrations.AddConstraint(
            model_name='approvergroup',
            constraint=models.UniqueConstraint(condition=models.Q(('retired_at__isnull', True)), fields=('organisation', 'name'), name='approver_group_name_once'),
        ),
        migrations.AddConstraint(
            model_name='approvalroute',
            constraint=models.UniqueConstraint(deferrable=django.db.models.constraints.Deferrable['DEFERRED'], fields=('organisation', 'position'), name='approval_route_order'),
        ),
        migrations.AddConstraint(
            model_name='approvalroute',
            constraint=models.CheckConstraint(condition=models.Q(('needed__gte', 1)), name='approval_route_needs_one'),
        ),
        migrations.AddIndex(
            model_name='breakglass',
            index=models.Index(condition=models.Q(('reviewed_at__isnull', True)), fields=['organisation'], name='break_glass_open'),
        ),
        migrations.AddConstraint(
            model_name='breakglass',
            constraint=models.CheckConstraint(condition=models.Q(('reviewed_by__isnull', True), models.Q(('reviewed_by', models.F('by')), _negated=True), _connector='OR'), name='break_glass_reviewed_by_another'),
        ),
        migrations.AddIndex(
            model_name='delegation',
            index=models.Index(fields=['organisation', 'ends_at'], name='delegation_by_end'),
        ),
        migrations.AddConstraint(
            model_name='delegation',
            constraint=models.CheckConstraint(condition=models.Q(('from_user', models.F('to_user')), _negated=True), name='delegation_to_somebody_else'),
        ),
        migrations.AddIndex(
            model_name='notice',
            index=models.Index(fields=['user', 'organisation', '-id'], name='notice_by_person'),
        ),
        migrations.AddIndex(
            model_name='notice',
            index=models.Index(condition=models.Q(('mail', True), ('mailed_at__isnull', True)), fields=['id'], name='notice_to_mail'),
        ),
        migrations.AddConstraint(
            model_name='notice',
            constraint=models.UniqueConstraint(fields=('user', 'kind', 'about_id'), name='notice_once'),
        ),
        migrations.RunSQL(DEFAULTS, DROP_DEFAULTS),
        migrations.RunSQL(KEPT, DROP_KEPT),
    ]
