"""Runs a sample by name, from this folder alone: `python <this folder> receivables`.

A sandbox shows a program nothing but its own files, so the samples can't count on the project being importable.
"""

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

PROGRAMS = {
    "receivables": "receivables.agent",
    "caretaker": "caretaker.agent",
    "books": "receivables.books_server",
}


def main() -> int:
    folder = Path(__file__).resolve().parent
    if len(sys.argv) < 2 or sys.argv[1] not in PROGRAMS:
        sys.stderr.write(f"Usage: python {folder} {'|'.join(PROGRAMS)} [arguments]\n")
        return 2
    _make_importable(folder)
    program = importlib.import_module(f"agents.samples.{PROGRAMS[sys.argv[1]]}")
    return int(program.main(sys.argv[2:]))


def _make_importable(folder: Path) -> None:
    """Let `agents.samples` be found in `folder`, without the rest of `agents` and without searching its parents."""
    agents = ModuleType("agents")
    agents.__path__ = []
    sys.modules["agents"] = agents
    init, name = folder / "__init__.py", "agents.samples"
    spec = importlib.util.spec_from_file_location(name, init, submodule_search_locations=[str(folder)])
    if spec is None:
        raise ImportError(f"The samples are not at {folder}")
    sys.modules[name] = importlib.util.module_from_spec(spec)


if __name__ == "__main__":
    sys.exit(main())
