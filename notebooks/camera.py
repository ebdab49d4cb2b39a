"""Pictures of Bokeh figures and pages, as Chromium draws them: for `build.py`, when it writes notebooks."""

from __future__ import annotations

import contextlib
import io
import shutil
from collections.abc import AsyncIterator
from typing import Any

from bokeh.resources import INLINE
from PIL import Image
from playwright.async_api import async_playwright

WIDTH = 860
DRAWN = (
    "() => window.Bokeh && Bokeh.documents.length && Bokeh.documents.every(one => one.is_idle)"
)
STILL = """() => Bokeh.documents.forEach(one => one.all_models.forEach(model => {
    if (model.type === "Toolbar") model.visible = false
}))"""
"""Buttons do nothing in a picture."""
COLOURS = 255
"""A picture of flat colours needs no more, and is a third of the size."""


class Chromium:
    """Opens a tab for each picture."""

    def __init__(self, browser: Any) -> None:
        """Made by `open_camera`."""
        self._browser = browser

    async def of_html(self, body: str) -> bytes:
        """A PNG of a fragment that BokehJS fills."""
        page = await self._browser.new_page(
            viewport={"width": WIDTH, "height": 600}, device_scale_factor=1.5
        )
        try:
            await page.set_content(
                f"<html><head>{INLINE.render()}</head><body><main>{body}</main></body></html>"
            )
            await page.wait_for_function(DRAWN)
            await page.evaluate(STILL)
            await page.wait_for_function(DRAWN)
            return small(await page.locator("main").screenshot())
        finally:
            await page.close()

    async def of_address(self, address: str) -> bytes:
        """A PNG of a page that is served now."""
        page = await self._browser.new_page(viewport={"width": 1280, "height": 900})
        try:
            await page.goto(address)
            await page.wait_for_function(DRAWN)
            return small(await page.screenshot())
        finally:
            await page.close()


@contextlib.asynccontextmanager
async def open_camera() -> AsyncIterator[Chromium]:
    """The system's Chromium, or the one that playwright installed."""
    found = (
        shutil.which("chromium")
        or shutil.which("chromium-browser")
        or shutil.which("google-chrome")
    )
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        try:
            yield Chromium(browser)
        finally:
            await browser.close()


def small(png: bytes) -> bytes:
    """The picture with few colours."""
    picture = (
        Image.open(io.BytesIO(png)).convert("RGB").quantize(COLOURS, Image.Quantize.FASTOCTREE)
    )
    out = io.BytesIO()
    picture.save(out, "PNG", optimize=True)
    return out.getvalue()
