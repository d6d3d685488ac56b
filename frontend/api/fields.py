"""Field types of this interface: strict where something comes in, exact where something goes out."""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final, cast

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema_field
from rest_framework import fields as drf
from rest_framework import serializers

from controlplane.common.ids import parse_id

_AMOUNT: Final = re.compile(r"[0-9]{1,15}(\.[0-9]{1,12})?\Z")
_MOMENT: Final = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)\Z")


class Text(serializers.CharField):
    """Text as it was sent; numbers and booleans are not text."""

    def __init__(self, **options: Any) -> None:
        options.setdefault("trim_whitespace", False)
        super().__init__(**options)

    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, str):
            self.fail("invalid")
        return super().to_internal_value(data)


class Whole(serializers.IntegerField):
    def to_internal_value(self, data: Any) -> int:
        if isinstance(data, bool) or not isinstance(data, int):
            self.fail("invalid")
        return super().to_internal_value(data)


class Flag(serializers.BooleanField):
    def to_internal_value(self, data: Any) -> bool:
        if not isinstance(data, bool):
            self.fail("invalid", input=data)
        return data


class Choice(serializers.ChoiceField):
    def to_internal_value(self, data: Any) -> Any:
        if not isinstance(data, str):
            self.fail("invalid_choice", input=data)
        return super().to_internal_value(data)


@extend_schema_field(OpenApiTypes.UUID)
class Id(serializers.Field):  # type: ignore[type-arg]
    """An id in its canonical text form."""

    default_error_messages = {"invalid": "an id, as answers give it"}

    def to_internal_value(self, data: Any) -> uuid.UUID:
        found = parse_id(data)
        if found is None:
            self.fail("invalid")
        return found

    def to_representation(self, value: Any) -> str:
        return str(value)


@extend_schema_field(OpenApiTypes.DATETIME)
class Moment(serializers.Field):  # type: ignore[type-arg]
    """RFC 3339. Answers are in UTC with a `Z`."""

    default_error_messages = {"invalid": "a moment such as 2031-05-04T12:00:00Z"}

    def to_internal_value(self, data: Any) -> datetime:
        if not isinstance(data, str) or not _MOMENT.match(data):
            self.fail("invalid")
        try:
            found = datetime.fromisoformat(data.upper().replace("Z", "+00:00"))
            return found.astimezone(UTC)
        except (ValueError, OverflowError):
            self.fail("invalid")
        raise AssertionError("fail() raises")

    def to_representation(self, value: datetime) -> str:
        return moment(value)


class Money(serializers.Serializer):  # type: ignore[type-arg]
    """An exact amount, to twelve places, in a currency."""

    amount = serializers.RegexField(r"^-?[0-9]{1,16}(\.[0-9]{1,12})?$")
    currency = serializers.RegexField(r"^[A-Z]{3}$")


class MoneyIn(serializers.Serializer):  # type: ignore[type-arg]
    """An amount coming in, of at least nothing. Without a currency it is the organisation's."""

    amount = serializers.RegexField("^" + _AMOUNT.pattern.replace("\\Z", "$"), max_length=28)
    currency = serializers.RegexField(r"^[A-Z]{3}$", required=False)

    def to_internal_value(self, data: Any) -> Any:
        refuse_unknown(self, data)
        if isinstance(data, Mapping) and any(
            not isinstance(data.get(name, ""), str) for name in ("amount", "currency")
        ):
            raise serializers.ValidationError({"amount": ["text, such as 12.50"]})
        return super().to_internal_value(data)


@extend_schema_field({"type": "object", "additionalProperties": True})
class Json(serializers.Field):  # type: ignore[type-arg]
    """An object of any shape. What comes in has passed the strict parser."""

    default_error_messages = {"invalid": "an object"}

    def to_internal_value(self, data: Any) -> dict[str, Any]:
        if not isinstance(data, dict):
            self.fail("invalid")
        return cast(dict[str, Any], data)

    def to_representation(self, value: Any) -> Any:
        return value


class Body(serializers.Serializer):  # type: ignore[type-arg]
    """What a request sends. A field it does not know is refused: a misspelt limit must not quietly be none."""

    def to_internal_value(self, data: Any) -> Any:
        refuse_unknown(self, data)
        return super().to_internal_value(data)


class Query(serializers.Serializer):  # type: ignore[type-arg]
    """Parameters of a query."""


class ListQuery(Query):
    limit = serializers.IntegerField(min_value=1, max_value=200, default=50, help_text="How many at most.")
    cursor = serializers.CharField(
        required=False, max_length=200, help_text="`next` of the page before; without it the newest come first."
    )


def refuse_unknown(serializer: serializers.Serializer[Any], data: Any) -> None:
    if isinstance(data, Mapping):
        unknown = sorted(str(name)[:80] for name in data if name not in serializer.fields)
        if unknown:
            raise serializers.ValidationError({name: ["not a field of this request"] for name in unknown})


def moment(value: datetime) -> str:
    return value.astimezone(UTC).isoformat().replace("+00:00", "Z")


def money(amount: Decimal | None, currency: str) -> dict[str, str] | None:
    return None if amount is None else {"amount": f"{amount:.12f}", "currency": currency}


@extend_schema_field(Money)
class MoneyOut(serializers.Field):  # type: ignore[type-arg]
    """Amount and currency from attributes of the object; dots go through related objects."""

    def __init__(self, amount: str, currency: str = "currency", **options: Any) -> None:
        self._amount, self._currency = amount.split("."), currency.split(".")
        super().__init__(source="*", read_only=True, **options)

    def to_representation(self, value: Any) -> dict[str, str] | None:
        amount = drf.get_attribute(value, self._amount)
        return money(amount, drf.get_attribute(value, self._currency))


class Name(Text):
    """A line of text that names something."""

    def __init__(self, **options: Any) -> None:
        options.setdefault("max_length", 120)
        super().__init__(**options)
