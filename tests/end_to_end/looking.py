"""A look at a page as it stands, whatever led to it: axe in both themes, and whether it fits a phone."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from axe_playwright_python.sync_playwright import Axe

RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}
WIDE, PHONE = {"width": 1600, "height": 1000}, {"width": 360, "height": 780}
STILL = "() => Promise.all(document.getAnimations().map(animation => animation.finished.catch(() => {})))"


def look(page: Any, name: str) -> None:
    """Nothing is loaded again, so that what was typed, opened or answered is looked at too."""
    chosen = page.evaluate("document.documentElement.dataset.theme ?? ''")
    for theme in ("light", "dark"):
        page.evaluate("theme => { document.documentElement.dataset.theme = theme }", theme)
        page.evaluate(STILL)  # colours on their way are no colours to judge
        page.evaluate("scrollTo(0, 0)")  # what the bar that stays in place happens to cover is not too small
        found = Axe().run(page, options=RULES)
        assert found.violations_count == 0, f"{name}, {theme}: {found.generate_report()}"
        _picture(page, f"{name}-{theme}")
    page.set_viewport_size(PHONE)
    width = page.evaluate("document.documentElement.scrollWidth")
    assert width <= PHONE["width"], f"{name} is {width} pixels wide on a phone"
    _picture(page, f"{name}-phone")
    page.set_viewport_size(WIDE)
    page.evaluate("theme => { document.documentElement.dataset.theme = theme }", chosen)


def _picture(page: Any, name: str) -> None:
    if folder := os.environ.get("REMIT_SCREENSHOTS"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        page.screenshot(path=str(Path(folder) / f"{name}.png"))
