import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("governance", "0009_erased_words"),
    ]

    operations = [
        migrations.AlterField(
            model_name="breakglass",
            name="action",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.PROTECT, related_name="broken_glass", to="governance.action"
            ),
        ),
        migrations.AlterField(
            model_name="breakglass",
            name="escalation",
            field=models.OneToOneField(
                on_delete=django.db.models.deletion.PROTECT, related_name="+", to="governance.escalation"
            ),
        ),
    ]
