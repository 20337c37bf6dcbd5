"""Two runs -> pass or fail, for CI: fail where a model became more sensitive, beyond a tolerance and beyond the noise.

A view fails if its mean psi, or of chat endpoints the share of answers that change, rose by more than ``max_increase``
and the 95 % interval of the rise, over sets, lies above 0. Exit codes: docs/exit-codes.md.
"""

from __future__ import annotations

from typing import Any
from xml.sax.saxutils import escape, quoteattr

from holdfast.compare import write_files
from holdfast.config import CheckConfig
from holdfast.errors import HoldfastError
from holdfast.runs import to_json
from holdfast.sensitivity.comparison import check_alike, difference, open_finished
from holdfast.tables import tables_of, with_tables
from holdfast.tables.render import as_markdown as as_markdown_table
from holdfast.tables.sensitivity import MEASURES


def check(config: CheckConfig) -> dict[str, Any]:
    """Compare a run with a baseline and judge.

    Returns:
        ``exit_code`` (0 or 1), ``failed`` views, and the comparison. With --output also check.json, junit.xml and
        summary.md.

    Raises:
        NotComparableError: see ``comparison.compare``.
        HoldfastError: no finished runs there.

    >>> from holdfast.sensitivity import CheckConfig, check
    >>> check(CheckConfig(run="runs/posix", baseline="runs/posix", json=True))["exit_code"]  # no worse than itself
    0
    """
    if config.dry_run:
        raise HoldfastError("--dry-run: a check reads two runs and costs nothing; leave it out")
    baseline, run = open_finished(config.baseline), open_finished(config.run)
    check_alike(baseline, run, gated=True)
    change = difference(baseline, run, config.seed, config.bootstrap)
    by_kind = change["by_kind"].items()
    failed = [view for view, row in by_kind if row["difference"] > config.max_increase and row["low"] > 0]
    verdict = {"exit_code": int(bool(failed)), "failed": failed, "max_increase": config.max_increase}
    result = with_tables({"command": "sensitivity check"} | verdict | change)
    markdown = as_markdown(result)
    if config.output:
        files = {"check.json": to_json(result, indent=1) + "\n", "junit.xml": as_junit(result), "summary.md": markdown}
        write_files(config.output, files)
    if not config.json:
        print(markdown, end="")
    return result


def as_markdown(result: dict[str, Any]) -> str:
    """Return the summary for a pull request."""
    verdict = f"**worse** in {', '.join(result['failed'])}" if result["failed"] else "no worse than the baseline"
    lines = [
        f"### Prompt sensitivity: {verdict}",
        "",
        f"Tolerance {result['max_increase']} {MEASURES[result['measure']][1]}; intervals are 95 %, over sets.",
        "",
        *as_markdown_table(tables_of("sensitivity check", result)[0]),
    ]
    moved = [f"{m['set_id']} ({m['kind']}, {m['difference']:+.4f})" for m in result["moved_most"][:5]]
    lines += ["", "Sets that moved most: " + "; ".join(moved)] if moved else []
    notes = result["notes"] if result["measure"] != "psi" else []
    lines += ["", *(f"{note[0].upper()}{note[1:]}." for note in notes)] if notes else []
    return "\n".join(lines) + "\n"


def as_junit(result: dict[str, Any]) -> str:
    """Return JUnit XML with one test case per view."""
    cases = []
    for view, row in result["by_kind"].items():
        interval = f"[{row['low']:+.6f}, {row['high']:+.6f}]"
        change = f"change {row['difference']:+.6f} {interval}, p {row['p']:.4f}"
        text = f"{result['measure']} {row['a']:.6f} -> {row['b']:.6f}, {change}"
        if view in result["failed"]:
            inside = f"<failure message={quoteattr('more sensitive than the baseline')}>{escape(text)}</failure>"
        else:
            inside = f"<system-out>{escape(text)}</system-out>"
        cases.append(f'  <testcase classname="holdfast.sensitivity" name={quoteattr(view)}>{inside}</testcase>')
    head = f'<testsuite name="holdfast sensitivity" tests="{len(cases)}" failures="{len(result["failed"])}" errors="0">'
    return "\n".join(['<?xml version="1.0" encoding="utf-8"?>', head, *cases, "</testsuite>", ""])
