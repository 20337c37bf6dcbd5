"""A headless Chromium that may load one file and nothing else, and remembers everything that it complains about."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
COMPLAINTS = ("error", "warning", "trace")
"""Kinds of messages on the console; plotly warns by traces."""


@contextlib.contextmanager
def chromium() -> Iterator[Any]:
    """A browser with an empty profile; skips where there is none."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    found = os.environ.get("CHROMIUM") or next(
        filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
    )
    if found is None:
        pytest.skip("no Chromium is installed")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=FLAGS)
        yield browser
        browser.close()


@dataclass
class Visit:
    """A loaded page, what it said on the console, and what it asked for beyond itself."""

    page: Any
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def scroll(self) -> None:
        """Down to the end, so that every visible figure is drawn."""
        self.page.evaluate(
            """async () => {
                for (const plot of document.querySelectorAll(".plot")) {
                    if (!plot.offsetParent) continue;
                    plot.scrollIntoView({ behavior: "instant" });
                    for (let i = 0; i < 200 && !plot.querySelector(".main-svg"); i++)
                        await new Promise((r) => setTimeout(r, 10));
                }
                scrollTo({ top: 0, behavior: "instant" });
            }"""
        )

    def unfold(self) -> None:
        """Open what is folded, and wait until its figures are drawn."""
        self.page.evaluate("document.querySelectorAll('details.fold').forEach((fold) => { fold.open = true; })")
        self.settle(
            "![...document.querySelectorAll('.plot')].some((p) => p.offsetParent && !p.querySelector('.main-svg'))"
        )

    def settle(self, condition: str) -> None:
        """Wait until a condition in JavaScript holds (playwright's own waiting would need eval, which the page
        forbids).
        """
        for _ in range(100):
            if self.page.evaluate(condition):
                return
            self.page.wait_for_timeout(50)
        raise AssertionError(f"never true: {condition}")

    def undrawn(self) -> int:
        """Visible places of figures without a figure."""
        found: int = self.page.evaluate(
            '[...document.querySelectorAll(".plot")].filter((p) => p.offsetParent && '
            '!p.querySelector(".main-svg")).length'
        )
        return found


@contextlib.contextmanager
def visit(browser: Any, file: Path, **options: Any) -> Iterator[Visit]:
    """Open the file; at the end nothing may have been asked for elsewhere, and nothing complained about."""
    context = browser.new_context(**{"viewport": {"width": 1200, "height": 900}, "offline": True, **options})
    made = Visit(context.new_page())
    address = file.resolve().as_uri()

    def route(request: Any) -> None:
        if request.request.url.split("#")[0] == address:
            request.continue_()
        else:
            made.requests.append(request.request.url)
            request.abort()

    context.route("**/*", route)
    made.page.on(
        "console", lambda message: made.complaints.append(message.text) if message.type in COMPLAINTS else None
    )
    made.page.on("pageerror", lambda error: made.complaints.append(str(error)))
    made.page.on("dialog", lambda dialog: (made.complaints.append(f"dialog: {dialog.message}"), dialog.dismiss()))
    made.page.goto(address)
    yield made
    made.page.wait_for_timeout(50)
    assert made.complaints == []
    assert made.requests == []
    context.close()
