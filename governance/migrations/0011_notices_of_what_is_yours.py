import django.db.models.deletion
from django.db import migrations, models

import governance.choices


class Migration(migrations.Migration):
    dependencies = [
        ("governance", "0010_glass_broken_twice"),
    ]

    operations = [
        migrations.AlterField(
            model_name="notice",
            name="escalation",
            field=models.ForeignKey(
                null=True, on_delete=django.db.models.deletion.PROTECT, related_name="+", to="governance.escalation"
            ),
        ),
        migrations.AlterField(
            model_name="notice",
            name="kind",
            field=models.CharField(choices=governance.choices.NoticeKind.choices, max_length=12),
        ),
        migrations.AddField(model_name="notice", name="team_id", field=models.UUIDField(null=True)),
        migrations.AddField(
            model_name="notice",
            name="subject_type",
            field=models.CharField(blank=True, db_default="", max_length=8),
        ),
        migrations.AddField(model_name="notice", name="subject_id", field=models.UUIDField(null=True)),
        migrations.AddField(
            model_name="notice",
            name="text",
            field=models.CharField(blank=True, db_default="", max_length=300),
        ),
    ]
