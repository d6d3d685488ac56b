#!/usr/bin/env python3
"""Entry point of every Remit process. Puts `platform/` on the import path and hands over to Django."""

import importlib.util
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"


def use_own_environment() -> None:
    """Go on in `.venv`, where Remit's packages are, when this Python has none of them: `./manage.py` works as typed."""
    inside = Path(sys.prefix).resolve() == VENV.resolve()
    if (sys.version_info >= (3, 11) and importlib.util.find_spec("django")) or inside:
        return
    python = VENV / "bin" / "python"
    if python.exists():
        os.execv(str(python), [str(python), *sys.argv])  # noqa: S606 - no shell is wanted


use_own_environment()
if sys.version_info < (3, 11):  # noqa: UP036 - the person who meets this has not installed anything yet
    sys.exit(
        f"Remit needs Python 3.11 or newer; this is {sys.version.split()[0]}. Install a newer Python, then `make run`."
    )
if importlib.util.find_spec("django") is None:
    sys.exit(f"Remit's packages are not installed yet. Run `make run` once, in {ROOT}.")

# Position 1, after the script's own folder: the standard library's `platform` still wins.
sys.path.insert(1, str(ROOT / "platform"))


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "controlplane.settings")
    if sys.argv[1:2] == ["up"]:
        # It starts the servers that the settings point to, so it runs before they are read.
        from controlplane.embedded.supervisor import main as up

        sys.exit(up(sys.argv[2:]))

    from controlplane.embedded.running import require_running, said_plainly

    require_running(sys.argv[1:])
    from django.core.management import execute_from_command_line

    with said_plainly():
        execute_from_command_line(sys.argv)


if __name__ == "__main__":
    main()
