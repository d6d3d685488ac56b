"""Titles of actions as people read them, made of the tool's registered name and the exact arguments: nothing that an
agent or a server wrote to be read is trusted to say what a call does."""

from __future__ import annotations

from typing import Any

_LONGEST_VALUE = 40
_MOST_VALUES = 3
_LONGEST = 140


def briefly(item: Any) -> str:
    """`books__apply_credit` → "Apply credit"; other kinds of action bring a title of Remit's own."""
    tool = str(_action(item).tool)
    if not tool:
        return str(item.title)
    words = tool.partition("__")[2].replace("_", " ").replace("-", " ").strip() or tool
    return words[0].upper() + words[1:]


def in_words(item: Any) -> str:
    """ "Apply credit: amount 240.00, invoice INV-0131": an action, or the question about one."""
    action = _action(item)
    title = briefly(item)
    if not action.tool or not isinstance(action.arguments, dict):
        return title
    values = [f"{name} {value}" for name, value in action.arguments.items() if _tells(name) and _tells(value)]
    return (title + (": " + ", ".join(values[:_MOST_VALUES]) if values else ""))[:_LONGEST]


def _tells(value: Any) -> bool:
    """Numbers and names of things. Free text is shown with the arguments, where it can't pose as part of the title."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return False
    text = str(value)
    return 0 < len(text) <= _LONGEST_VALUE and text.isprintable() and not any(map(str.isspace, text))


def _action(item: Any) -> Any:
    return item if hasattr(item, "arguments") else item.action
