"""A page in Chromium as it stands: axe in both themes at both widths, what is too wide, what the console says of it."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from axe_playwright_python.base import AXE_SCRIPT

RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
EVERYTHING = {"runOnly": RULES, "resultTypes": ["violations"]}
# What a theme can break without breaking it in the other width as well.
COLOURS = {"runOnly": {"type": "rule", "values": ["color-contrast", "link-in-text-block"]}}
WIDTHS = (1600, 360)
_RUN = """async options => (await axe.run(options)).violations.map(
  found => `${found.id}: ${found.help}; ${found.nodes.slice(0, 3).map(node => node.html.slice(0, 160)).join(" | ")}`)"""
_STILL = "() => Promise.all(document.getAnimations().map(animation => animation.finished.catch(() => {})))"


def problems(page: Any, name: str, *, all_colours: bool = False) -> list[str]:
    """All rules in light and wide, and in dark and narrow; `all_colours`: those about colours in the other two too."""
    page.evaluate(AXE_SCRIPT)
    wrong = []
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 900})
        # As tall as the page: what a bar that stays in place happens to cover is not too small.
        height = page.evaluate("document.documentElement.scrollHeight")
        page.set_viewport_size({"width": width, "height": max(height, 900)})
        if page.evaluate("document.documentElement.scrollWidth") > width:
            wrong.append(f"{name} is wider than {width}")
        for theme in ("light", "dark"):
            whole = (width, theme) in ((1600, "light"), (360, "dark"))
            if not whole and not all_colours:
                continue
            page.emulate_media(color_scheme=theme, reduced_motion="reduce")
            page.evaluate(_STILL)
            found = page.evaluate(_RUN, EVERYTHING if whole else COLOURS)
            wrong += [f"{name}, {theme}, {width}: {each}" for each in found]
            if whole and (folder := os.environ.get("REMIT_SCREENSHOTS")):
                page.screenshot(path=Path(folder, re.sub(r"[^a-z0-9]+", "-", f"{name} {theme} {width}") + ".png"))
    page.set_viewport_size({"width": 1600, "height": 900})
    page.emulate_media(color_scheme="light", reduced_motion="reduce")
    wrong += [f"{name}: {complaint}" for complaint in page.complaints]
    page.complaints.clear()
    return wrong
