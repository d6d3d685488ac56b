"""Text of strangers for places that show plain text only: mail, log lines, one-line summaries."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

_NOT_SHOWN: Final = frozenset({"Cc", "Cf", "Zl", "Zp", "Co", "Cs"})  # controls, direction and joining signs, separators

# What stands before the sentence in a recorded error, for programs: ours only, as a tool may write anything.
_CODE: Final = re.compile(r"^(?:upstream|tool)\.[a-z_]+: ")


def without_code(text: str) -> str:
    """ "upstream.timeout: It did not answer." → "It did not answer.": as people read it."""
    return _CODE.sub("", text, count=1)


def plain_line(text: str, *, limit: int = 200) -> str:
    """One line: no escape sequences, no characters that hide or turn text around."""
    shown = "".join(
        " " if unicodedata.category(character) in _NOT_SHOWN else character for character in text[: limit * 4]
    )
    return " ".join(shown.split())[:limit]
