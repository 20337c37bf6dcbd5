"""The report room: run directories -> one offline HTML page (and Markdown, CSV, PNG). It knows files, not wings.

All of ``holdfast report`` is ``pipeline.make``: reading -> pages (a file per command) -> parts -> html, export.
"""

from typing import TYPE_CHECKING, Any

from holdfast import lazily
from holdfast.config import ReportConfig

if TYPE_CHECKING:
    from holdfast.report.pipeline import make as report

__all__ = ["ReportConfig", "report"]
_HOMES = {"report": "holdfast.report.pipeline:make"}


def __getattr__(name: str) -> Any:
    return lazily(__name__, _HOMES, name)
