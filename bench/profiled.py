"""Runs `manage.py …` with a profiler in every request thread: `python bench/profiled.py <file> manage.py web …`."""

from __future__ import annotations

import cProfile
import runpy
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

sys.path[0] = str(Path(__file__).resolve().parent.parent)


def main() -> None:
    target, script = sys.argv[1], sys.argv[2]
    profiles: list[cProfile.Profile] = []
    run = threading.Thread.run

    def profiled(thread: threading.Thread) -> Any:
        if not thread.name.startswith("gateway"):
            return run(thread)
        profile = cProfile.Profile(time.thread_time)
        profiles.append(profile)
        return profile.runcall(run, thread)

    threading.Thread.run = profiled  # type: ignore[method-assign]
    sys.argv = sys.argv[2:]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # what the server goes back to once it has stopped
    try:
        profile = cProfile.Profile(time.thread_time)
        profile.runcall(runpy.run_path, script, run_name="__main__")
    finally:
        profile.dump_stats(f"{target}.loop")
        for number, profile in enumerate(profiles):
            profile.dump_stats(f"{target}.{number}")


main()
