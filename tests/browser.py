"""A real browser on the page: pages of one's own, and what a visitor does on them."""

import base64
import io
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support import Server, until

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
SLOW = 180_000  # ms that a busy machine may take

Open = Callable[..., "Page"]  # noqa: F821


@contextmanager
def chromium() -> Iterator:
    """Chromium while the block runs.

    A person's machine need not have one, as no package of Python's brings it: there the tests are skipped, with
    what to install. `.ci/run` installs it and says by SCANWISE_NEEDS_BROWSER=1 that its lack is an error.
    """
    if not CHROMIUM:
        words = "no Chromium here; install `chromium` to run the browser tests"
        assert os.environ.get("SCANWISE_NEEDS_BROWSER") != "1", words
        pytest.skip(words)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield started
        started.close()


@contextmanager
def visiting(browser, server: Server) -> Iterator[Open]:
    """Opens pages of one's own, each a person's; a script's error or a request to elsewhere fails the test."""
    contexts, problems = [], []

    def go(width: int = 1280, height: int = 900, maps: bool = False, **wishes):
        context = browser.new_context(
            viewport={"width": width, "height": height}, **({"locale": "en-GB"} | wishes)
        )
        context.set_default_timeout(SLOW)
        if not maps:  # a visitor who switched the heat map off before: the other tests need not wait for one
            context.add_init_script("localStorage.setItem('scanwise.map', 'off')")
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on(
            "console",
            lambda told: "Content Security Policy" in told.text and problems.append(told.text),
        )
        page.on(
            "request",
            lambda request: (
                request.url.startswith((server.url, "data:", "blob:"))
                or problems.append(f"asked for {request.url}")
            ),
        )
        page.goto(server.url)
        page.wait_for_selector("html[data-view=start]")
        return page

    yield go
    for context in contexts:  # the pages first: each says goodbye, and what it says would go with its context
        for page in context.pages:
            page.close()
    until(lambda: server.files() == [], what="the uploads of closed pages to go")
    for context in contexts:
        context.close()
    assert problems == []


def result_of(page) -> None:
    page.wait_for_selector("html[data-view=result]")
    page.wait_for_selector("#viewer[data-ready=yes]")


def send(page, *files: Path | dict) -> None:
    page.set_input_files("#files", list(files))


def pixels(page, plane: str) -> np.ndarray:
    """What stands on a plane's canvas: (rows, columns, 3)."""
    url = page.evaluate("plane => document.querySelector(`.pane.${plane} canvas`).toDataURL('image/png')", plane)
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(url.split(",")[1]))).convert("RGB"))


def drawn_after(page, action: Callable[[], object]) -> None:
    """Do something to the viewer and wait until it has drawn again."""
    before = page.get_attribute("#viewer", "data-drawn")
    action()
    page.wait_for_function("before => document.querySelector('#viewer').dataset.drawn !== before", arg=before)
