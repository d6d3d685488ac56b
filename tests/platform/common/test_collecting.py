"""What a serving process keeps out of the garbage collector's way."""

from __future__ import annotations

import gc

from controlplane.common.collecting import keep_what_is_loaded


class Loaded:
    pass


def test_what_is_loaded_is_looked_at_no_more_and_what_comes_later_is() -> None:
    loaded, before = Loaded(), gc.get_freeze_count()
    try:
        keep_what_is_loaded()
        assert gc.get_freeze_count() > before
        later = Loaded()
        looked_at = {id(each) for each in gc.get_objects()}
        assert id(later) in looked_at
        assert id(loaded) not in looked_at
    finally:
        gc.unfreeze()
