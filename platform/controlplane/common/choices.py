"""Status enums that carry label, tone and icon, so that badge, filter, API and CSS never disagree."""

from __future__ import annotations

from typing import Self

from django.db import models


class StatusChoices(models.TextChoices):
    """Members are (value, tone, icon, label). Tones: allow, deny, ask, wait, neutral. Icons: names in icons.svg."""

    tone: str
    icon: str

    def __new__(cls, value: str, tone: str = "neutral", icon: str = "off") -> Self:
        member = str.__new__(cls, value)
        member._value_ = value
        member.tone = tone
        member.icon = icon
        return member
