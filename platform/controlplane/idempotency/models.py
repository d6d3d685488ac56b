"""What was answered under which idempotency key. Ids only: whoever asks stands above this app."""

from __future__ import annotations

from django.db import models


class IdempotencyKey(models.Model):
    """One request that was made once. `answer` is readable only together with the key, which is not stored: answers may
    hold a token that is shown once. Empty: it began outside a transaction and never said how it ended."""

    organisation_id = models.UUIDField()
    requester_id = models.UUIDField()
    key_hash = models.CharField(max_length=64)
    request_sha256 = models.CharField(max_length=64)
    answer = models.BinaryField(null=True)
    created_at = models.DateTimeField()
    expires_at = models.DateTimeField()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["organisation_id", "requester_id", "key_hash"], name="idempotency_key_once")
        ]
        indexes = [models.Index(fields=["expires_at"], name="idempotency_expiry")]
