"""The garbage collector of a process that serves: code and templates are kept for good, so it need not look at them."""

from __future__ import annotations

import gc


def keep_what_is_loaded() -> None:
    """Call once everything is loaded. A full collection looks at every object of the process and everything waits for
    it, a tenth of a second and more for what Django and the pages bring; afterwards it looks at newer objects only."""
    gc.collect()
    gc.freeze()
