"""Starts the node: `python <this folder> --socket … --state …`, or `python -m controlplane.clusters.node …`."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

if not __package__:
    # Started by path: an empty parent package keeps Celery, which the real one imports, out of this process.
    project = Path(__file__).resolve().parents[2]
    sys.path[0] = str(project.parent)
    parent = ModuleType("controlplane")
    parent.__path__ = [str(project)]
    sys.modules["controlplane"] = parent

from controlplane.clusters.node.server import main

sys.exit(main())
