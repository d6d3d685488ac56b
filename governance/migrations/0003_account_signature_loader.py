from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("governance", "0002_initial")]

    operations = [
        migrations.AddField("action", "account_id", models.UUIDField(null=True)),
        migrations.AddField("action", "signature", models.BinaryField(default=bytes)),
        migrations.AddIndex(
            "action",
            models.Index(fields=["decided_at"], name="action_permitted", condition=models.Q(("state", "permitted"))),
        ),
        migrations.AddField("policybundle", "loaded_by_id", models.UUIDField(null=True)),
    ]
