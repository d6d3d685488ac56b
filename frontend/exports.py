"""CSV downloads of tables. Cells that a spreadsheet would run as a formula are made plain text, and what is hidden is
spelt as on the pages."""

from __future__ import annotations

import csv
import io
import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from decimal import Decimal
from typing import Any, Protocol, TypeVar

from django.db import models
from django.http import StreamingHttpResponse

from controlplane.common.cursors import LARGEST
from controlplane.common.cursors import page as cursor_page
from controlplane.common.written_amounts import written_amount
from frontend.templatetags.plain_text import spell_hidden

M = TypeVar("M", bound=models.Model)


class _Listed(Protocol):
    @property
    def next(self) -> Any: ...


P = TypeVar("P", bound=_Listed)

# What spreadsheets take for the beginning of a formula, also in full width and behind what they trim.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "|", "\uff1d", "\uff0b", "\uff0d", "\uff20")
# The same behind what begins another cell or line where a spreadsheet divides by semicolons or tabs, as it does in half
# of Europe: it then takes no notice of quotes in the middle of a cell. Numbers are none.
_LATER_FORMULA = re.compile("([;\t\n][ \u00a0]*)(?![+-][0-9.]+(?:[;\t\n]|$))(?=[=+@\uff1d\uff0b\uff0d\uff20-])")
_AT_A_TIME = 16 * 1024  # characters: each piece sent costs as much as many lines


def csv_response(name: str, header: Sequence[str], rows: Iterable[Sequence[object]]) -> StreamingHttpResponse:
    response = StreamingHttpResponse(_lines(header, rows), content_type="text/csv; charset=utf-8")
    response["Content-Disposition"] = f'attachment; filename="{name}.csv"'
    return response


def every_page(read: Callable[[Any], P]) -> Iterator[P]:
    """Page after page to the last, each read when the one before was sent: a file is whole, and nothing long is held in
    memory. `read` takes the cursor of a page."""
    cursor = None
    while True:
        found = read(cursor)
        yield found
        cursor = found.next
        if cursor is None:
            return


def in_pages(rows: models.QuerySet[M], *, beside: Callable[[Sequence[M]], Iterable[Any]] = iter) -> Iterator[Any]:
    """Rows newest id first, read as `every_page` does. `beside` makes of one page what the lines are made of."""
    cursor: str | None = None
    while True:
        found = cursor_page(rows, cursor=cursor, limit=LARGEST)
        yield from beside(found.items)
        cursor = found.older
        if cursor is None:
            return


def _lines(header: Sequence[str], rows: Iterable[Sequence[object]]) -> Iterator[str]:
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    for row in itertools.chain((header,), rows):
        writer.writerow([_plain(cell) for cell in row])
        if buffer.tell() >= _AT_A_TIME:
            yield buffer.getvalue()
            buffer.seek(0)
            buffer.truncate()
    yield buffer.getvalue()


def _plain(cell: object) -> str:
    if isinstance(cell, Decimal):
        return written_amount(cell)
    text = "" if cell is None else _LATER_FORMULA.sub(r"\1'", spell_hidden(str(cell)))
    is_number = text[:1] in "+-" and text[1:].replace(".", "", 1).isdigit()
    return "'" + text if text.lstrip(" \u00a0").startswith(_FORMULA) and not is_number else text
