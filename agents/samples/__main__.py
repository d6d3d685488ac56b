"""Runs a sample by name, from this folder alone: `python <this folder> receivables`.

A sandbox shows a program nothing but its own files, so the samples can't count on the project being importable.
"""

import importlib
import importlib.util
import sys
from pathlib import Path

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
    spec = importlib.util.spec_from_file_location(
        "samples", folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    if spec is None:
        return 2
    sys.modules["samples"] = importlib.util.module_from_spec(spec)
    program = importlib.import_module(f"samples.{PROGRAMS[sys.argv[1]]}")
    return int(program.main(sys.argv[2:]))


if __name__ == "__main__":
    sys.exit(main())
