"""Entry point of every Remit process. Puts `platform/` on the import path and hands over to Django."""

import os
import sys
from pathlib import Path

if sys.version_info < (3, 11):  # noqa: UP036 - the person who meets this has not installed anything yet
    sys.exit(
        f"Remit needs Python 3.11 or newer; this is {sys.version.split()[0]}. Install a newer Python, then `make run`."
    )

# Position 1, after the script's own folder: the standard library's `platform` still wins (docs/architecture.md).
sys.path.insert(1, str(Path(__file__).resolve().parent / "platform"))


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "controlplane.settings")
    if sys.argv[1:2] == ["up"]:
        # It starts the servers that the settings point to, so it runs before they are read.
        from controlplane.embedded.supervisor import main as up

        sys.exit(up(sys.argv[2:]))

    from django.core.management import execute_from_command_line

    execute_from_command_line(sys.argv)


if __name__ == "__main__":
    main()
