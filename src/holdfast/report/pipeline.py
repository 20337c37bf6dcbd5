"""The whole of ``holdfast report``, top to bottom: directories -> runs -> sections -> files."""

from __future__ import annotations

import itertools
import sys
import time
from pathlib import Path
from typing import Any

from holdfast.config import ReportConfig
from holdfast.errors import HoldfastError
from holdfast.report import export, files, html
from holdfast.report.pages import sections as make_sections
from holdfast.report.pages import titles
from holdfast.report.parts import Figure, Section
from holdfast.report.reading import read_run
from holdfast.runs import write_text

FORMATS = ("html", "md", "png", "csv")
_SETS_SHOWN = 12


def make(config: ReportConfig) -> dict[str, Any]:
    """Write the report.

    Args:
        config: see ``holdfast.config.ReportConfig``.

    Returns:
        The summary: runs by directory and command, the files that were written, seconds, the size of the page in bytes,
            and ``path``, the file to open.

    Raises:
        HoldfastError: there is no directory to report on, or one that holds no run; a format is unknown; the folder of
            the output does not exist; a file is in the way that no report has written.

    >>> from holdfast.report import ReportConfig, report
    >>> summary = report(ReportConfig(directories=["runs/first"], output="page.html", json=True))
    >>> summary["runs"][0]["command"], summary["bytes"] > 1000
    ('tune', True)
    """
    started = time.perf_counter()
    formats = _formats(config)
    stem = _stem(config, formats)
    runs = [read_run(directory) for directory in dict.fromkeys(config.directories)]
    sections = make_sections(runs, _SETS_SHOWN if config.limit is None else config.limit)
    summary: dict[str, Any] = {
        "command": "report",
        "runs": [
            {"directory": str(run.path), "command": run.command, "complete": bool(run.summary), "rows": len(run.rows)}
            for run in runs
        ],
    }
    parts = list(itertools.chain.from_iterable(export.figures_and_tables(section.parts) for section in sections))
    summary["figures"] = sum(isinstance(part, Figure) for part in parts)
    summary["tables"] = len(parts) - summary["figures"]
    numbered = export.names(sections, formats)
    files.check(stem, formats, numbered, config.overwrite)
    if config.dry_run:
        return _preview(config, summary, sections)
    written = _write(formats, stem, config.title or _title(titles(runs)), sections, numbered)
    summary |= {"files": list(map(str, written)), "path": str(written[0].resolve())}
    summary |= {"bytes": written[0].stat().st_size, "seconds": round(time.perf_counter() - started, 2)}
    for problem in itertools.chain.from_iterable(section.problems for section in sections):
        print(f"note: {problem}", file=sys.stderr)
    if not config.json:
        print(summary["path"])
    return summary


def _formats(config: ReportConfig) -> list[str]:
    wanted = [name.strip() for name in config.format.split(",") if name.strip()]
    if not wanted or not set(wanted) <= set(FORMATS):
        raise HoldfastError(f"--format {config.format}: allowed are {', '.join(FORMATS)}, comma separated")
    return [name for name in FORMATS if name in wanted]


def _stem(config: ReportConfig, formats: list[str]) -> Path:
    """The path of the page without its ending, with which all files of the report begin.

    Raises:
        HoldfastError: there is no directory to report on, or the path names a format that is not written, a directory,
            or a folder that does not exist.
    """
    if not config.directories:
        raise HoldfastError("no run directory given", hint="holdfast report DIR [DIR ...] --output report.html")
    path = Path(config.output)
    if path.is_dir():
        raise HoldfastError(f"--output {path} is a directory", hint=f"name a file, such as {path / 'report.html'}")
    if not path.parent.is_dir():
        raise HoldfastError(f"--output {path}: the folder {path.parent} does not exist")
    ending = path.suffix.removeprefix(".")
    if ending in ("md", "png", "csv") and ending not in formats:
        raise HoldfastError(
            f"--output {path}: the report is written as {', '.join(formats)}, not as {ending}",
            hint=f"add --format {ending}, or name the file {path.stem}.{formats[0]}",
        )
    if ending.isalpha() and ending not in FORMATS:
        raise HoldfastError(
            f"--output {path}: a report is not written as {ending}",
            hint=f"formats are {', '.join(FORMATS)} (--format); name it {path.stem}.html",
        )
    return path.with_suffix("") if ending in FORMATS else path


def _title(names: list[str]) -> str:
    if len(names) <= 2:
        return f"Report on {' and '.join(names)}"
    return f"Report on {', '.join(names[:2])} and {len(names) - 2} more"


def _write(formats: list[str], stem: Path, title: str, sections: list[Section], numbered: list[str]) -> list[Path]:
    """Write the files and return their paths in the order of the formats; pictures come before the Markdown that links
    to them. Files that an earlier report of this name has left in these formats are removed.
    """
    if not {"html", "md"} & set(formats) and not numbered:
        nothing = "there is nothing to write, as these runs give no figure and no table"
        raise HoldfastError(f"--format {','.join(formats)}: {nothing}")
    old = [name for name in files.earlier(stem) if name not in numbered]
    gone = [name for name in old if name.rpartition(".")[2] in formats]
    mark = files.mark(numbered + [name for name in old if name not in gone])
    written: list[Path] = []
    try:
        if "html" in formats:
            written.append(_put(files.page_path(stem, "html"), html.page(title, sections) + mark))
        drawn = export.pictures(sections, stem) if "png" in formats else {}
        if "md" in formats:
            links = {key: path.name for key, path in drawn.items()}
            written.append(_put(files.page_path(stem, "md"), f"{export.markdown(title, sections, links)}\n{mark}"))
        written += drawn.values()
        if "csv" in formats:
            written += [_put(files.numbered_path(stem, name), text) for name, text in export.tables(sections)]
        for name in gone:
            files.numbered_path(stem, name).unlink(missing_ok=True)
    except OSError as error:
        raise HoldfastError(f"cannot write to {stem.parent}: {error.strerror}") from error
    return written


def _put(path: Path, text: str) -> Path:
    write_text(path, text)
    return path


def _preview(config: ReportConfig, summary: dict[str, Any], sections: list[Section]) -> dict[str, Any]:
    if not config.json:
        for section in sections:
            print(f"{section.kind}: {section.title}")
            for part in export.figures_and_tables(section.parts):
                print(f"  {type(part).__name__.lower():<6}  {part.title}")
    return summary | {"dry_run": True}
