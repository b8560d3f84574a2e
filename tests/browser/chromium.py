"""Starts Chromium. Without Chromium the tests are skipped; with CI=true they fail."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, expect, sync_playwright

FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
BINARIES = ("chromium", "chromium-browser", "google-chrome")


@contextmanager
def launched(*flags: str) -> Iterator[Browser]:
    """Chromium with more `flags`, for the tests of one module.

    While Playwright's event loop runs, Django treats every query as a query in an event loop, and no other loop can
    run in this thread.
    """
    path = next(filter(None, map(shutil.which, BINARIES)), None)
    if path is None:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)("chromium is not installed")
    expect.set_options(timeout=20_000)  # pages are slow on a busy machine
    os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "1"
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=path, args=[*FLAGS, *flags])
            yield browser
            browser.close()
    finally:
        del os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"]
