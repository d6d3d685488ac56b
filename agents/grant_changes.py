"""How two lists of grants differ, one sentence a grant, made of what the gate enforces and never of a grant's own
sentence."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from agents.choices import ChangeKind
from agents.grants import Grant, covers


@dataclass(frozen=True)
class Change:
    """One difference between two wordings of a remit."""

    kind: ChangeKind
    text: str
    note: str = ""


def grant_changes(old: Sequence[Grant], new: Sequence[Grant]) -> list[Change]:
    """Some change widens exactly when `grants.widens(old=old, new=new)`."""
    left, added, changes = list(old), [], []
    for after in new:
        same = next((before for before in left if _same(before, after)), None)
        if same is None:
            added.append(after)
            continue
        left.remove(same)
        if same.sentence != after.sentence:
            changes.append(Change(ChangeKind.REWORDS, f"{after.tool} is described as “{after.in_words()}”"))
    for after in added:
        before = _closest(left, after)
        if before is None:
            changes.append(_added(old, after))
        else:
            left.remove(before)
            changes.append(_changed(old, before, after))
    changes += [Change(ChangeKind.NARROWS, f"May no longer {_to_do(before)}") for before in left]
    return changes


def _same(before: Grant, after: Grant) -> bool:
    return covers(before, after) and covers(after, before)


def _closest(left: Iterable[Grant], after: Grant) -> Grant | None:
    """The removed grant of the same tool that the new one most likely was."""
    alike = [before for before in left if before.tool == after.tool]
    return max(alike, key=lambda before: (before.effect == after.effect, _shared(before, after)), default=None)


def _shared(before: Grant, after: Grant) -> int:
    return sum(
        2 if after.constraints[name] == rules else 1
        for name, rules in before.constraints.items()
        if name in after.constraints
    )


def _added(old: Sequence[Grant], after: Grant) -> Change:
    text = f"May {_to_do(after)}"
    if _covered(old, after):
        return Change(ChangeKind.REWORDS, text, "Nothing new: another grant allowed this already.")
    said = f"It is described as “{after.sentence}”. Check that this holds." if after.sentence else ""
    return Change(ChangeKind.WIDENS, text, said)


def _changed(old: Sequence[Grant], before: Grant, after: Grant) -> Change:
    kind = ChangeKind.NARROWS if _covered(old, after) else ChangeKind.WIDENS
    kept = bool(after.sentence) and after.sentence == before.sentence
    note = f"It is still described as “{after.sentence}”. Check that this holds." if kept else ""
    return Change(kind, f"{after.tool}: " + "; ".join(_differences(before, after)), note)


def _covered(old: Sequence[Grant], after: Grant) -> bool:
    return any(covers(before, after) for before in old)


def _differences(before: Grant, after: Grant) -> list[str]:
    words = []
    if before.effect != after.effect:
        words.append("now asks a person" if after.effect == "escalate" else "no longer asks a person")
    was, now = before.limits_in_words(), after.limits_in_words()
    for name in dict.fromkeys((*was, *now)):
        if name not in now:
            words.append(f"{name} is free, was {was[name]}")
        elif name not in was:
            words.append(f"{name} {now[name]}, was free")
        elif was[name] != now[name]:
            words.append(f"{name} {now[name]}, was {was[name]}")
    if before.max_calls != after.max_calls:
        words.append(f"{_calls(after)}, was {_calls(before)}")
    # Two spellings of rules that read alike: the gate is the judge, so say what stands there.
    return words or [after.exactly()]


def _to_do(grant: Grant) -> str:
    words = grant.exactly()
    return words[0].lower() + words[1:] + (", once a person agrees" if grant.effect == "escalate" else "")


def _calls(grant: Grant) -> str:
    return "any number of calls" if grant.max_calls is None else f"at most {grant.max_calls} calls"
