"""One supervised process: started, found ready, stopped, and started again with growing pauses when it dies."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable
from typing import Protocol

from controlplane.embedded.failures import StartError, ended_early
from controlplane.embedded.processes import Program, shorten, spawn, stop, tail

FIRST_PAUSE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 10.0
# Whoever ran this long had a good start: the next death is a new story.
SETTLED_SECONDS = 30.0

Pause = Callable[[float], None]


class Service(Protocol):
    """What is run: a server or a Django command."""

    name: str
    stop_signal: signal.Signals
    stop_seconds: float

    def program(self) -> Program:
        """Called before every start, also the ones after a death: clears away what the last run left behind."""

    def is_ready(self, pid: int) -> bool: ...


class Child:
    def __init__(self, service: Service) -> None:
        self.service = service
        self.process: subprocess.Popen[bytes] | None = None
        self._started_at = 0.0
        self._pause = FIRST_PAUSE_SECONDS
        self._start_again_at = 0.0

    @property
    def pid(self) -> int | None:
        return self.process.pid if self.process else None

    def start(self) -> None:
        program = self.service.program()
        shorten(program.log)
        self._log = program.log
        self._log_from = program.log.stat().st_size if program.log.exists() else 0
        self.process = spawn(program)
        self._started_at = time.monotonic()

    def wait_ready(self, *, seconds: float, pause: Pause = time.sleep) -> None:
        """StartError when it ends before it is ready, or is not ready in time. `pause` may raise to give up."""
        if self.process is None:
            raise RuntimeError("start() comes first")
        deadline = time.monotonic() + seconds
        while not self.service.is_ready(self.process.pid):
            code = self.process.poll()
            if code is not None:
                raise ended_early(self.service.name, code, self._log, self.output())
            if time.monotonic() > deadline:
                raise StartError(
                    f"{self.service.name} was not ready after {seconds:.0f} seconds.", f"Its log is in {self._log}."
                )
            pause(0.02)

    def output(self) -> str:
        """What the current run wrote last."""
        written = self._log.stat().st_size - self._log_from if self._log.exists() else 0
        return tail(self._log, max_bytes=max(0, min(written, 4096)))

    def stop(self) -> None:
        if self.process is not None:
            stop(self.process, with_signal=self.service.stop_signal, seconds=self.service.stop_seconds)
            self.process = None

    def ask_to_stop(self) -> None:
        """Send the stop signal and return at once, so that several can stop side by side."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(self.service.stop_signal)

    def heal(self) -> str:
        """Start again if it died and its pause is over. Returns a sentence for people when there is news, else ""."""
        now = time.monotonic()
        if self.process is not None:
            code = self.process.poll()
            if code is None:
                return ""
            self.process = None
            if now - self._started_at > SETTLED_SECONDS:
                self._pause = FIRST_PAUSE_SECONDS
            self._start_again_at = now + self._pause
            self._pause = min(self._pause * 2, LONGEST_PAUSE_SECONDS)
            how = f"signal {-code}" if code < 0 else f"code {code}"
            return f"{self.service.name} ended ({how}); starting it again. Log: {self._log}"
        if now < self._start_again_at:
            return ""
        try:
            self.start()
        except (OSError, StartError) as error:
            self._start_again_at = now + self._pause
            self._pause = min(self._pause * 2, LONGEST_PAUSE_SECONDS)
            return f"{self.service.name} could not be started again: {error}"
        return ""
