from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("clusters", "0002_applied_under"),
    ]

    operations = [
        migrations.AddField(
            model_name="sandbox",
            name="former_sizes",
            field=models.JSONField(db_default=models.Value([], models.JSONField()), default=list),
        ),
    ]
