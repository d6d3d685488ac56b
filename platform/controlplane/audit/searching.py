"""A search for words in the trail: in names, codes, sentences, and what these show of the payload."""

from __future__ import annotations

import string
from typing import Final

from django.db.models import Q

from controlplane.audit import sentences
from controlplane.audit.events import Event
from controlplane.audit.reasons import IN_WORDS
from controlplane.tenancy.types import PrincipalKind

_MOST_WORDS: Final = 8
_BESIDE_NAMES: Final = ".,:;“”"  # a sentence sets them there: who copies its words finds it again
_REASON_CODE: Final = "reason_code"
# Which entries the sentence of a case stands for; the same questions as `sentences` asks of one entry.
_CASES: Final = [
    *((said, Q(event=event, payload__has_key="stop")) for event, said in sentences.BY_A_STOP.items()),
    *((said, Q(event=event, payload__has_key="stood_in_for")) for event, said in sentences.IN_THE_PLACE_OF.items()),
    *(
        (said, Q(event=event, actor_kind=PrincipalKind.USER.value, payload__approved__0__isnull=False))
        for event, said in sentences.AFTER_AN_ANSWER.items()
    ),
    *((said, Q(event=Event.ACTION_DENIED, payload__reason_code=code)) for code, said in sentences.UNANSWERED.items()),
    (sentences.GLASS_BROKEN, Q(event=Event.ACTION_ALLOWED, payload__glass_broken=True)),
]


def holds_text(text: str) -> Q:
    """Every word in a name, in the code or sentence of the event, or in what a sentence shows of the payload."""
    conditions = Q()
    for word in text.replace("\x00", "").split()[:_MOST_WORDS]:
        conditions &= _holds_word((word.strip(_BESIDE_NAMES) or word).lower())
    return conditions


def _holds_word(word: str) -> Q:
    events = [code for code in Event.values if word in code or word in _SAID[code]]
    found = Q(actor_name__icontains=word) | Q(subject_name__icontains=word) | Q(event__in=events)
    # People's own words, also where the sentence leaves them to the entry's page.
    found |= Q(payload__reason__icontains=word)
    for field, showing in _SHOWN_BY.items():
        found |= Q(event__in=showing) & Q(**{f"payload__{field}__icontains": word})
    codes = [code for code, said in IN_WORDS.items() if word in said]
    if codes:
        found |= Q(event__in=_SHOWN_BY[_REASON_CODE], payload__reason_code__in=codes)
    for said, case in _CASES:
        if word in _own_words(said):
            found |= case
    return found


def _own_words(said: str) -> str:
    """Without the places that names are filled in."""
    return "".join(text for text, *_ in string.Formatter().parse(said)).lower()


def _shown_by() -> dict[str, list[str]]:
    """The payload's fields that sentences show, each with the events whose sentence does."""
    shown: dict[str, list[str]] = {}
    special = [*sentences.BY_A_STOP.items(), *sentences.IN_THE_PLACE_OF.items()]
    for code, said in [*Event.choices, *((event.value, said) for event, said in special)]:
        for _, field, *_ in string.Formatter().parse(str(said)):
            if field and field not in ("actor", "subject", "reason"):
                shown.setdefault(field, []).append(code)
    return shown


_SAID: Final = {code: _own_words(str(said)) for code, said in Event.choices}
_SHOWN_BY: Final = _shown_by()
