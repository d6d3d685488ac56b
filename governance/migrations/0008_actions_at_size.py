"""An index for lists at size: the newest actions that are no calls of tools, which are few among many.

Built concurrently: nobody waits for it. A build that was broken off leaves an invalid index, which is to be dropped
before the migration is repeated.
"""

from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


class Migration(migrations.Migration):
    atomic = False
    dependencies = [("governance", "0007_indexes_at_size")]

    operations = [
        AddIndexConcurrently(
            "action",
            models.Index(
                fields=["organisation", "-id"], name="action_not_a_call", condition=~models.Q(kind="tool.call")
            ),
        ),
    ]
