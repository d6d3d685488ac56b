"""Entry point of every Remit process. Puts `platform/` on the import path and hands over to Django."""

import os
import sys
from pathlib import Path

# Position 1, after the script's own folder: the standard library's `platform` still wins (docs/architecture.md).
sys.path.insert(1, str(Path(__file__).resolve().parent / "platform"))


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "controlplane.settings")
    from django.core.management import execute_from_command_line

    execute_from_command_line(sys.argv)


if __name__ == "__main__":
    main()
