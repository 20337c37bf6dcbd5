"""The files of a report on disk: the page, its Markdown, and numbered tables and pictures. A file in the way that no
report has written is kept, and the report is refused.

CSV and PNG cannot say who wrote them. So the page and the Markdown end in a line that names the report's numbered
files:

    <!-- Holdfast report 0.1.0: 01-study-settings.csv 02-study-cost-of-a-trial.csv -->
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import holdfast
from holdfast.errors import HoldfastError
from holdfast.report.html import GENERATOR

_MARK = f"<!-- {GENERATOR} "
_NUMBERED = re.compile(r"\d{2,}-[a-z0-9-]+\.(?:csv|png)")


def mark(numbered: Iterable[str]) -> str:
    """Return the last line of a page or a Markdown file. It says that this file and the ``numbered`` files beside it
    are a report's.
    """
    return f"{_MARK}{' '.join([f'{holdfast.__version__}:', *numbered])} -->\n"


def page_path(stem: Path, ending: str) -> Path:
    """Return the path of the page (``html``) or the Markdown (``md``) of a report."""
    return stem.with_name(f"{stem.name}.{ending}")


def numbered_path(stem: Path, name: str) -> Path:
    """Return the path of a table or a picture of a report."""
    return stem.with_name(f"{stem.name}-{name}")


def earlier(stem: Path) -> list[str]:
    """Return the names of the numbered files that a report of this stem has left, as its page or its Markdown says."""
    lines = [_last_line(page_path(stem, ending)) for ending in ("html", "md")]
    names = dict.fromkeys(_NUMBERED.findall(" ".join(lines)))
    return [name for name in names if numbered_path(stem, name).is_file()]


def check(stem: Path, formats: Iterable[str], numbered: Iterable[str], overwrite: bool) -> None:
    """Look at every file that will be written, before the first is.

    Raises:
        HoldfastError: a directory is in the way, or a file that no report has written, without ``overwrite``.
    """
    ours = {numbered_path(stem, name) for name in earlier(stem)}
    pages = [page_path(stem, ending) for ending in ("html", "md") if ending in formats]
    for path in (*pages, *(numbered_path(stem, name) for name in numbered)):
        if path.is_dir():
            raise HoldfastError(f"--output: {path} is a directory", hint="choose another name")
        if path.exists() and not overwrite and not (path in ours or (path in pages and _last_line(path))):
            raise HoldfastError(
                f"--output: {path} exists and is no report's", hint="choose another name, or --overwrite"
            )


def _last_line(path: Path) -> str:
    """Return the line that ``mark`` has made; empty if the file is absent or not a report's."""
    if not path.is_file():
        return ""
    line = path.read_text(encoding="utf-8", errors="replace").rstrip().rpartition("\n")[2]
    return line if line.startswith(_MARK) else ""
