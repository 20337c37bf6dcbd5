"""A report's page as a parser reads it."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from holdfast.config import ReportConfig
from holdfast.report import report


class Page(HTMLParser):
    """Elements, texts of interest, and the data of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__(convert_charrefs=True)
        self.source = path.read_text(encoding="utf-8")
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(self.source)
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "link", "input"):
            self.open.append(tag)
        self.texts.append((tag, ""))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append((self.open[-1] if self.open else "", data))

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    def headings(self, tag: str = "h3") -> list[str]:
        return [
            "".join(re.findall(r"[^<]+", re.sub(r"<[^>]+>", "", h)))
            for h in re.findall(f"<{tag} [^>]*>(.*?)</{tag}>", self.source)
        ]

    @property
    def text(self) -> str:
        return "".join(text for tag, text in self.texts if tag not in ("script", "style"))

    @property
    def data(self) -> Any:
        return json.loads(
            re.search(r'<script type="application/json" id="data">(.*?)</script>', self.source, re.DOTALL)[1]
        )  # type: ignore[index]


def page_of(tmp_path: Path, *directories: Path, **options: Any) -> Page:
    config = ReportConfig(
        directories=[str(d) for d in directories], output=str(tmp_path / "page.html"), json=True, **options
    )
    return Page(Path(report(config)["path"]))
