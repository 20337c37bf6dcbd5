"""The report room: run directories -> one offline HTML page (and Markdown, CSV, PNG). It knows files, not wings."""

from typing import Any

from holdfast.config import ReportConfig

__all__ = ["ReportConfig", "report"]


def report(config: ReportConfig) -> dict[str, Any]:
    """Make a report of run directories; returns what was written. See ``report.pipeline.make``."""
    from holdfast.report.pipeline import make  # imports numpy

    return make(config)
