"""Text that strangers wrote, made safe to look at: what is invisible or reorders its neighbours is shown by its number.

Agents, tools and customers write arguments and logs. A person who approves them must see every character that is there.
"""

from __future__ import annotations

import re
import unicodedata

from django.utils.html import escape, format_html
from django.utils.safestring import SafeString, mark_safe

# CSI (colours, cursor), OSC and other strings (titles, links) up to their terminator
# on the same line (an unfinished one must not swallow what follows), and the two-character sequences.
_ANSI = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"
    r"|(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c\n]*(?:\x07|\x1b\\|\x9c)"
    r"|\x1b[ -/]*[0-~]"
)
_HIDDEN_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
# Letters and marks by category, yet drawn as nothing: Hangul fillers, grapheme joiner, Khmer vowels, Braille blank.
_BLANK = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0")
_VISIBLE_CONTROLS = frozenset("\n\t")
_MOST_COMBINING_MARKS = 4
_LONG_WORD = re.compile(r"(\S{33,})")


def mark_hidden(text: str) -> SafeString:
    """Escaped text in which hidden characters appear as ⟨U+202E⟩. Tabs and line ends stay."""
    parts: list[str] = []
    plain: list[str] = []
    for index, character in enumerate(text):
        if not _is_hidden(text, index, character):
            plain.append(character)
            continue
        parts.append(escape("".join(plain)))
        plain.clear()
        name = unicodedata.name(character, "control character" if ord(character) < 0xA0 else "no name")
        parts.append(format_html('<span class="mark" title="{}">⟨U+{}⟩</span>', name, f"{ord(character):04X}"))
    parts.append(escape("".join(plain)))
    return mark_safe("".join(parts))  # noqa: S308 every part was escaped above


def mark_shown(text: str) -> SafeString:
    """As `mark_hidden`; a word that would push the other columns of a table out of sight may break anywhere."""
    parts = _LONG_WORD.split(text)
    if len(parts) == 1:
        return mark_hidden(text)
    marked = (
        format_html('<span class="long">{}</span>', mark_hidden(part)) if index % 2 else mark_hidden(part)
        for index, part in enumerate(parts)
    )
    return mark_safe("".join(marked))  # noqa: S308 every part was escaped above


def spell_hidden(text: str) -> str:
    """The same as plain text, for places that take no markup, such as the options of a list."""
    return "".join(
        f"⟨U+{ord(character):04X}⟩" if _is_hidden(text, index, character) else character
        for index, character in enumerate(text)
    )


def without_ansi(text: str) -> str:
    """The text as a terminal would leave it: without escape sequences, with one kind of line end."""
    return _ANSI.sub("", text).replace("\r\n", "\n")


def _is_hidden(text: str, index: int, character: str) -> bool:
    if character <= "~":  # the common case first
        return character < " " and character not in _VISIBLE_CONTROLS
    if character in _BLANK:
        return True
    if "\ufe00" <= character <= "\ufe0f" or "\U000e0100" <= character <= "\U000e01ef":
        return not _is_emoji_presentation(text, index, character)
    if character == "\u200d":
        return not _joins_emoji(text, index)
    category = unicodedata.category(character)
    if category == "Zs":
        return character not in "\u00a0\u202f\u3000"
    if category == "Mn":
        return _continues_a_pile(text, index)
    return category in _HIDDEN_CATEGORIES


def _is_emoji_presentation(text: str, index: int, character: str) -> bool:
    """Variation selectors carry hidden data unless it is the usual one straight after a symbol."""
    return character in "\ufe0e\ufe0f" and index > 0 and unicodedata.category(text[index - 1]) == "So"


def _joins_emoji(text: str, index: int) -> bool:
    """Between two pictures a joiner makes one of them, such as a person at a computer. Elsewhere it is hidden data."""
    before = text[max(index - 2, 0) : index].rstrip("\ufe0f")[-1:]
    after = text[index + 1 : index + 2]
    pictures = (before, after) if not "\U0001f3fb" <= before <= "\U0001f3ff" else (after,)
    return all(picture and unicodedata.category(picture) == "So" for picture in pictures)


def _continues_a_pile(text: str, index: int) -> bool:
    """More marks on one letter than any writing needs: they climb over neighbouring lines."""
    start = index - _MOST_COMBINING_MARKS
    return start >= 0 and all(unicodedata.category(other) == "Mn" for other in text[start:index])
