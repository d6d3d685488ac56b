"""Pictures of pages for the documentation: small PNG files with a palette, made from what the browser took."""

from __future__ import annotations

import base64
import os
import struct
import zlib
from pathlib import Path
from typing import Any

FOLDER = os.environ.get("REMIT_SCREENSHOTS", "")
LARGEST_BYTES = 150 * 1024
WIDE = {"width": 1600, "height": 1000}
PHONE = {"width": 360, "height": 780}

# 256 colours that are common or, however rare, bright: a green tick must not turn grey. Those too near one that is in
# are left out; what is left are shades at the edges of letters, which become their nearest neighbour.
_TO_PALETTE = """async (png) => {
  const picture = await createImageBitmap(await (await fetch("data:image/png;base64," + png)).blob());
  const canvas = new OffscreenCanvas(picture.width, picture.height).getContext("2d");
  canvas.drawImage(picture, 0, 0);
  const pixels = new Uint32Array(canvas.getImageData(0, 0, picture.width, picture.height).data.buffer);
  const counts = new Map();
  for (const pixel of pixels) counts.set(pixel, (counts.get(pixel) || 0) + 1);
  const parts = (colour) => [colour & 255, (colour >> 8) & 255, (colour >> 16) & 255];
  const between = (one, other) => parts(one).reduce((sum, part, at) => sum + (part - parts(other)[at]) ** 2, 0);
  const weight = ([colour, count]) => count * (4 + Math.max(...parts(colour)) - Math.min(...parts(colour)));
  const palette = [];
  for (const [colour] of [...counts].sort((one, other) => weight(other) - weight(one))) {
    if (palette.length < 256 && palette.every((other) => between(colour, other) > 27)) palette.push(colour);
  }
  const places = new Map(palette.map((colour, place) => [colour, place]));
  const nearest = (colour) => {
    const distances = palette.map((other) => between(colour, other));
    return distances.indexOf(Math.min(...distances));
  };
  for (const colour of counts.keys()) if (!places.has(colour)) places.set(colour, nearest(colour));
  let text = "";
  for (const pixel of pixels) text += String.fromCharCode(places.get(pixel));
  return { width: picture.width, height: picture.height, palette: palette.flatMap(parts), pixels: btoa(text) };
}"""


def take(page: Any, name: str) -> None:
    """One picture of what is in sight."""
    folder = Path(FOLDER)
    folder.mkdir(parents=True, exist_ok=True)
    helper = page.context.browser.new_page()
    drawn = helper.evaluate(_TO_PALETTE, base64.b64encode(page.screenshot()).decode())
    helper.close()
    picture = _png(drawn["width"], drawn["height"], bytes(drawn["palette"]), base64.b64decode(drawn["pixels"]))
    assert len(picture) <= LARGEST_BYTES, f"{name}: {len(picture)} bytes"
    (folder / f"{name}.png").write_bytes(picture)


def take_in(page: Any, address: str, name: str, *looks: str) -> None:
    """Pictures of the page in several looks: "light", "dark", "phone" (narrow and light)."""
    for look in looks:
        theme = "light" if look == "phone" else look
        page.context.add_cookies([{"name": "remit_theme", "value": theme, "url": address}])
        page.set_viewport_size(PHONE if look == "phone" else WIDE)
        page.reload()
        page.wait_for_load_state("networkidle")
        take(page, f"{name}-{look}")
    page.set_viewport_size(WIDE)


def _png(width: int, height: int, palette: bytes, pixels: bytes) -> bytes:
    rows = b"".join(b"\0" + pixels[start : start + width] for start in range(0, width * height, width))
    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"PLTE", palette), (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
