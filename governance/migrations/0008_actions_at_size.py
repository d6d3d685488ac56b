"""Indexes for lists at size: the newest actions that are no calls of tools, which are few among many; and the inbox in
its order.

Built concurrently: nobody waits for them. A build that was broken off leaves an invalid index, which is to be dropped
before the migration is repeated.
"""

from datetime import UTC, datetime, timedelta

from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models
from django.db.models.functions import Coalesce


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
        AddIndexConcurrently(
            "escalation",
            models.Index(
                models.F("organisation"),
                models.Func(
                    models.Value(timedelta(minutes=10)),
                    Coalesce("tier_ends_at", "expires_at"),
                    models.Value(datetime(2000, 1, 1, tzinfo=UTC)),
                    function="date_bin",
                    output_field=models.DateTimeField(),
                ),
                models.F("irreversible").desc(),
                Coalesce("tier_ends_at", "expires_at"),
                models.F("id"),
                name="escalation_inbox",
                condition=models.Q(state="open"),
            ),
        ),
    ]
