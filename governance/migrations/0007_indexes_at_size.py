"""Indexes for lists at size: the questions that were decided last, and those a mission waits for.

Built concurrently: nobody waits for them. A build that was broken off leaves an invalid index, which is to be dropped
before the migration is repeated.
"""

from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


class Migration(migrations.Migration):
    atomic = False
    dependencies = [("governance", "0006_escalations_complete")]

    operations = [
        AddIndexConcurrently(
            "escalation",
            models.Index(
                fields=["organisation", "-closed_at", "-id"],
                name="escalation_decided",
                condition=~models.Q(state="open"),
            ),
        ),
        AddIndexConcurrently(
            "escalation",
            models.Index(
                fields=["mission_id", "opened_at"], name="escalation_open_by_mission", condition=models.Q(state="open")
            ),
        ),
    ]
