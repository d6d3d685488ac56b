"""Request bodies: one strict JSON object, the same for every reader."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rest_framework.parsers import BaseParser

from controlplane.common.canonical import MAX_BYTES, parse_strict
from controlplane.common.errors import FieldError, RemitError, invalid


class StrictJSONParser(BaseParser):
    media_type = "application/json"

    def parse(
        self, stream: Any, media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        del media_type, parser_context
        raw = stream.read(MAX_BYTES + 1)
        if len(raw) > MAX_BYTES:
            raise too_large()
        if not raw:
            return {}
        value = parse_strict(raw)
        if not isinstance(value, dict):
            raise invalid("request.malformed", "The body is one JSON object.", FieldError("", "an object"))
        return value


def too_large() -> RemitError:
    return RemitError("body.too_large", f"At most {MAX_BYTES} bytes are read.", 413, remedies=("Send less at a time.",))
