"""A folder as a mission's for the shipped servers: they want their files to be there even to say which tools they
have."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator

from agents.catalogue.templates import TEMPLATES, folder_of
from agents.catalogue.types import Template
from agents.servers.types import NO_RUN, RunContext, ServerAddress
from controlplane.common.ids import new_id


@contextlib.contextmanager
def sample_folder(server: ServerAddress) -> Iterator[RunContext]:
    """Filled with the samples of the template that ships this very program, gone afterwards; no folder for others."""
    item = _template_of(server)
    if item is None or item.files is None:
        yield NO_RUN
        return
    stand_in = new_id()
    folder = folder_of(stand_in)
    try:
        item.files(folder)
        yield RunContext(mission_id=stand_in)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _template_of(server: ServerAddress) -> Template | None:
    for item in TEMPLATES.values():
        for need in item.servers:
            if (need.environment, tuple(need.command)) == (server.environment, tuple(server.command)):
                return item
    return None
