"""What a tool answered, in a line a person can read: the first facts of a JSON answer instead of its punctuation."""

from __future__ import annotations

import re

LONGEST = 200
_FACTS = 4
# A key with a plain value, in JSON or as Python prints it. Answers are cut to a length, so they rarely parse whole.
_FACT = re.compile(
    r"""["'](?P<key>[A-Za-z_][\w -]{0,40})["']\s*:\s*"""
    r"""(?:"(?P<double>(?:[^"\\]|\\.){0,200})"|'(?P<single>(?:[^'\\]|\\.){0,200})'|"""
    r"""(?P<bare>-?\d+(?:\.\d+)?|true|false|True|False)(?![\w.]))"""
)
_EMPTY = frozenset({"[]", "{}", "null", "None", '""'})


def in_words(summary: str) -> str:
    """`{"invoice": "INV-0113", "open": 95}` → "invoice INV-0113, open 95". Prose stays as it is, shortened."""
    text = " ".join(summary.split())
    if text in _EMPTY:
        return "an empty result"
    if text[:1] not in ("{", "["):
        return text[:LONGEST]
    facts = []
    for found in _FACT.finditer(text[:2000]):
        value = found["double"] or found["single"] or found["bare"] or ""
        if value:
            facts.append(f"{found['key'].replace('_', ' ')} {value}")
        if len(facts) == _FACTS:
            break
    return ", ".join(facts)[:LONGEST] if facts else text[:LONGEST]
