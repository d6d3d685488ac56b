"""The table of the cache that processes share: limits of sign-ins, codes that were used. As Django's own command makes
it, so that one command still brings an installation up."""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("tenancy", "0002_identity")]

    operations = [
        migrations.RunSQL(
            """
            CREATE UNLOGGED TABLE tenancy_shared_cache (
                cache_key varchar(255) PRIMARY KEY,
                value text NOT NULL,
                expires timestamptz NOT NULL
            );
            CREATE INDEX tenancy_shared_cache_expires ON tenancy_shared_cache (expires);
            """,
            "DROP TABLE tenancy_shared_cache",
        )
    ]
