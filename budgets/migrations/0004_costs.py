"""Costs, changes of limits that wait for a second person, and alerts."""

import controlplane.common.ids
import django.db.models.deletion
from pathlib import Path

from django.db import migrations, models


SQL = (Path(__file__).parent / "sql" / "0004_costs.sql").read_text()


class Migration(migrations.Migration):

    dependencies = [
        ('budgets', '0003_fewer_statements'),
        ('tenancy', '0001_initial'),
    ]

    operations = [
        migrations.CreateModel(
            name='CostState',
            fields=[
                ('id', models.SmallIntegerField(primary_key=True, serialize=False)),
                ('folded_id', models.BigIntegerField(default=0)),
                ('noted_id', models.BigIntegerField(default=0)),
                ('noted_writers', models.JSONField(default=list)),
                ('folded_at', models.DateTimeField(null=True)),
                ('facts_at', models.DateTimeField(null=True)),
                ('checked_at', models.DateTimeField(null=True)),
                ('checked_id', models.BigIntegerField(default=0)),
                ('wrong', models.JSONField(default=list)),
            ],
        ),
        migrations.CreateModel(
            name='CostMission',
            fields=[
                ('id', models.UUIDField(editable=False, primary_key=True, serialize=False)),
                ('team_id', models.UUIDField()),
                ('agent_id', models.UUIDField()),
                ('goal', models.CharField(max_length=80)),
                ('goal_name', models.CharField(max_length=160)),
                ('title', models.CharField(max_length=160)),
                ('standing', models.CharField(choices=[('accepted', 'Accepted'), ('rejected', 'Rejected'), ('waste', 'Waste'), ('open', 'Open')], max_length=8)),
                ('decided_on', models.DateField(null=True)),
                ('stamp', models.CharField(max_length=80)),
                ('refreshed_at', models.DateTimeField()),
                ('organisation', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='tenancy.organisation')),
            ],
        ),
        migrations.CreateModel(
            name='CostDay',
            fields=[
                ('id', models.BigAutoField(primary_key=True, serialize=False)),
                ('team_id', models.UUIDField(null=True)),
                ('day', models.DateField()),
                ('kind', models.CharField(choices=[('call', 'Tool calls'), ('sandbox', 'Sandbox seconds'), ('other', 'Other')], max_length=10)),
                ('money', models.DecimalField(decimal_places=12, max_digits=28)),
                ('tokens', models.BigIntegerField()),
                ('steps', models.BigIntegerField()),
                ('lines', models.BigIntegerField()),
                ('account', models.ForeignKey(db_constraint=False, db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='budgets.account')),
                ('organisation', models.ForeignKey(db_constraint=False, db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='tenancy.organisation')),
                ('mission', models.ForeignKey(db_constraint=False, null=True, on_delete=django.db.models.deletion.DO_NOTHING, related_name='days', to='budgets.costmission')),
            ],
        ),
        migrations.CreateModel(
            name='CostActivity',
            fields=[
                ('id', models.BigAutoField(primary_key=True, serialize=False)),
                ('team_id', models.UUIDField()),
                ('day', models.DateField()),
                ('attempts', models.IntegerField()),
                ('retries', models.IntegerField()),
                ('calls', models.IntegerField()),
                ('denied', models.IntegerField()),
                ('human_seconds', models.IntegerField()),
                ('organisation', models.ForeignKey(db_constraint=False, db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='tenancy.organisation')),
                ('mission', models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.CASCADE, related_name='activity', to='budgets.costmission')),
            ],
        ),
        migrations.CreateModel(
            name='LimitChange',
            fields=[
                ('id', models.UUIDField(default=controlplane.common.ids.new_id, editable=False, primary_key=True, serialize=False)),
                ('kind', models.CharField(choices=[('total', 'In total'), ('day', 'Each day'), ('week', 'Each week'), ('month', 'Each month')], max_length=8)),
                ('money', models.DecimalField(decimal_places=12, max_digits=28, null=True)),
                ('tokens', models.BigIntegerField(null=True)),
                ('steps', models.BigIntegerField(null=True)),
                ('seen', models.CharField(blank=True, max_length=40)),
                ('reason', models.CharField(max_length=300)),
                ('proposer_id', models.UUIDField()),
                ('proposer_name', models.CharField(max_length=120)),
                ('proposed_at', models.DateTimeField()),
                ('state', models.CharField(choices=[('open', 'Waits for a second person'), ('confirmed', 'Confirmed'), ('refused', 'Refused'), ('withdrawn', 'Withdrawn'), ('superseded', 'Replaced by a later one')], default='open', max_length=10)),
                ('decider_name', models.CharField(blank=True, max_length=120)),
                ('decided_at', models.DateTimeField(null=True)),
                ('account', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='changes', to='budgets.account')),
                ('organisation', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='tenancy.organisation')),
            ],
        ),
        migrations.CreateModel(
            name='Alert',
            fields=[
                ('id', models.BigAutoField(primary_key=True, serialize=False)),
                ('team_id', models.UUIDField(null=True)),
                ('threshold', models.SmallIntegerField()),
                ('spent_money', models.DecimalField(decimal_places=12, max_digits=28)),
                ('limit_money', models.DecimalField(decimal_places=12, max_digits=28)),
                ('at', models.DateTimeField()),
                ('account', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='alerts', to='budgets.account')),
                ('organisation', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='tenancy.organisation')),
                ('window', models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name='alerts', to='budgets.window')),
            ],
            options={
                'indexes': [models.Index(fields=['organisation', '-id'], name='budget_alert_newest')],
                'constraints': [models.UniqueConstraint(fields=('window', 'threshold'), name='budget_alert_once')],
            },
        ),
        migrations.AddIndex(
            model_name='costmission',
            index=models.Index(fields=['organisation', 'decided_on'], name='cost_mission_decided'),
        ),
        migrations.AddIndex(
            model_name='costday',
            index=models.Index(fields=['organisation', 'day'], name='cost_day_by_day'),
        ),
        migrations.AddConstraint(
            model_name='costday',
            constraint=models.UniqueConstraint(fields=('account', 'mission', 'day', 'kind'), name='cost_day_once', nulls_distinct=False),
        ),
        migrations.AddIndex(
            model_name='costactivity',
            index=models.Index(fields=['organisation', 'day'], name='cost_activity_by_day'),
        ),
        migrations.AddConstraint(
            model_name='costactivity',
            constraint=models.UniqueConstraint(fields=('mission', 'day'), name='cost_activity_once'),
        ),
        migrations.AddConstraint(
            model_name='limitchange',
            constraint=models.UniqueConstraint(condition=models.Q(('state', 'open')), fields=('account', 'kind'), name='budget_change_open_once'),
        ),
        migrations.RunSQL(SQL, "DROP INDEX IF EXISTS budget_journal_by_id"),
    ]
