"""The form of a whole remit: goal, criteria, budget, deadline, importance; its grants are rows of their own."""

from __future__ import annotations

from dataclasses import asdict, replace
from datetime import datetime, tzinfo
from decimal import Decimal
from typing import Any, Final

from django import forms
from django.utils.timezone import is_naive, make_aware

from agents.choices import Importance
from agents.grants import Grant
from agents.remits import DEADLINES_BEFORE, MOST_BUDGET, Remit
from controlplane.common.canonical import digest
from controlplane.common.clock import now
from controlplane.common.typed_amounts import NotAnAmount, typed_amount_up_to
from controlplane.common.written_amounts import written_amount

MOST_CRITERIA: Final = 30
_MINUTES: Final = "%Y-%m-%dT%H:%M"
_ONE_LINE: Final = {"autocomplete": "off"}


class RemitForm(forms.Form):
    """Values come and go as people write them; `remit` puts them together again."""

    goal = forms.CharField(label="Goal", max_length=4000, widget=forms.Textarea(attrs={"rows": 4}))
    criteria = forms.CharField(
        label="Accepted when",
        max_length=12_000,
        widget=forms.Textarea(attrs={"rows": 6}),
        help_text="A criterion a line. The agent claims each, you accept or reject.",
    )
    budget = forms.CharField(
        label="Budget", max_length=30, widget=forms.TextInput(attrs={"inputmode": "decimal", **_ONE_LINE})
    )
    steps = forms.IntegerField(
        label="Steps",
        required=False,
        min_value=1,
        max_value=10**9,
        widget=forms.TextInput(attrs={"inputmode": "numeric", **_ONE_LINE}),
        help_text="Governed calls. Empty: no limit of its own.",
    )
    tokens = forms.IntegerField(
        label="Tokens",
        required=False,
        min_value=1,
        max_value=10**12,
        widget=forms.TextInput(attrs={"inputmode": "numeric", **_ONE_LINE}),
        help_text="Empty: no limit of its own.",
    )
    deadline = forms.DateTimeField(
        label="Ends",
        input_formats=[_MINUTES, "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M"],
        widget=forms.DateTimeInput(attrs={"type": "datetime-local", **_ONE_LINE}, format=_MINUTES),
    )
    importance = forms.ChoiceField(label="Importance", choices=Importance.choices)
    note = forms.CharField(
        label="Why",
        max_length=300,
        required=False,
        widget=forms.TextInput(attrs=_ONE_LINE),
        help_text="Whoever signs it off reads this, and so does the history.",
    )

    def __init__(self, data: Any = None, *, current: Remit, zone: tzinfo) -> None:
        self._current, self._zone = current, zone
        super().__init__(data, initial=initial_of(current, zone))

    def clean_criteria(self) -> list[str]:
        lines = [" ".join(line.split()) for line in self.cleaned_data["criteria"].splitlines()]
        found = [line for line in lines if line]
        if not 1 <= len(found) <= MOST_CRITERIA:
            raise forms.ValidationError(f"1 to {MOST_CRITERIA} lines")
        if any(len(line) > 300 for line in found):
            raise forms.ValidationError("at most 300 characters a line")
        return found

    def clean_budget(self) -> Decimal:
        try:
            return typed_amount_up_to(self.cleaned_data["budget"], MOST_BUDGET)
        except NotAnAmount as error:
            raise forms.ValidationError(str(error)) from error

    def clean_deadline(self) -> datetime:
        typed: datetime = self.cleaned_data["deadline"]
        if self["deadline"].data == _minutes(self._current.deadline, self._zone):
            return self._current.deadline  # untouched: its seconds stay
        wall = typed if is_naive(typed) else typed.replace(tzinfo=None)
        if not 2000 < wall.year < DEADLINES_BEFORE:
            raise forms.ValidationError("a moment of this century")
        chosen = make_aware(wall, self._zone)
        if chosen <= now():
            raise forms.ValidationError("a moment that is still to come")
        return chosen

    def remit(self, grants: list[Grant]) -> Remit:
        """Of a valid form."""
        data = self.cleaned_data
        return replace(
            self._current,
            goal=data["goal"].strip().replace("\r\n", "\n"),
            criteria=data["criteria"],
            grants=grants,
            budget_money=data["budget"],
            budget_steps=data["steps"],
            budget_tokens=data["tokens"],
            deadline=data["deadline"],
            importance=Importance(data["importance"]),
        )


def mark_of(remit: Remit, note: str, base: int) -> str:
    """What was previewed, so that nothing else is sent by the button beside it."""
    facts = {
        **asdict(remit),
        "grants": [grant.as_dict() for grant in remit.grants],
        "budget_money": str(remit.budget_money),
        "deadline": remit.deadline.isoformat(),
        "note": note,
        "base": base,
    }
    return digest(facts)


def initial_of(remit: Remit, zone: tzinfo) -> dict[str, str]:
    """The fields as the form shows them before anything is typed."""
    return {
        "goal": remit.goal,
        "criteria": "\n".join(" ".join(text.split()) for text in remit.criteria),
        "budget": written_amount(remit.budget_money),
        "steps": "" if remit.budget_steps is None else str(remit.budget_steps),
        "tokens": "" if remit.budget_tokens is None else str(remit.budget_tokens),
        "deadline": _minutes(remit.deadline, zone),
        "importance": remit.importance,
    }


def _minutes(moment: datetime, zone: tzinfo) -> str:
    return f"{moment.astimezone(zone):{_MINUTES}}"
