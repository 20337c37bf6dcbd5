"""Tables go through JSON and back, are drawn alike wherever they are drawn, and the report shows those that a run has
written down.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from golden_case import RUNS
from holdfast.report.pages import sections
from holdfast.report.parts import Tabs
from holdfast.report.reading import read_run
from holdfast.tables import lines, tables_of, with_tables
from holdfast.tables.record import Column, Interval, Table, from_json, to_json
from holdfast.tables.render import as_csv, as_markdown, as_text
from report_runs import make_sensitivity

TABLE = Table(
    "Scores",
    [
        Column("task", kind="code"),
        Column("value", 2, hint="a share"),
        Column("n"),
        Column("p", None),
        Column("nothing"),
    ],
    [["a|b\x1b[31m", Interval(-0.125, -0.5, 0.25), 12345, 1e-9, None], ["b", Interval(0.5), None, 0.25, None]],
    "In brackets: 95 % intervals.",
    filterable=True,
)
COMMANDS = {
    "tune": ["Target tokens by role"],
    "align": ["Preferences before and after", "Where the model comes from"],
    "sensitivity": ["POSIX", "All indices", "Accuracy over wordings"],
    "crosstask": ["Conditions: sentiment", "Choosing a source"],
    "label": ["Where labels come from"],
    "analyse": ["Best layers: sentiment", "Predictors of accuracy: sentiment", "Accuracy of the sources: sentiment"],
    "bench": ["Benchmarks", "Scores"],
    "study": ["Settings"],
}


def old(name: str) -> dict[str, Any]:
    """A summary of a version that wrote no tables."""
    summary: dict[str, Any] = json.loads((RUNS / name / "summary.json").read_text(encoding="utf-8"))
    assert "tables" not in summary
    return summary


def test_a_table_is_the_same_after_json() -> None:
    again = from_json(json.loads(json.dumps(to_json(TABLE), allow_nan=False)))
    assert to_json(again) == to_json(TABLE)
    assert as_text(again) == as_text(TABLE)
    assert as_csv(again) == as_csv(TABLE)
    odd = Table("t", [Column("x")], [[math.nan], [Interval(math.inf, 0.0, 1.0)]])
    assert to_json(odd)["rows"] == [[None], [{"value": None, "low": 0.0, "high": 1.0}]]


@pytest.mark.parametrize(
    "change",
    [
        {"rows": [["only one cell"]]},
        {"rows": [[[1], 1, 1, 1, 1]]},
        {"rows": [["a", {"value": "0.5", "low": 0, "high": 1}, 1, 1, 1]]},
        {"columns": [{"title": "x", "digits": -1}] * 5},
        {"columns": ["x"]},
        {"rows": None},
    ],
)
def test_what_is_no_table_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises((ValueError, TypeError, KeyError)):
        from_json(to_json(TABLE) | change)


def test_one_cell_reads_alike_on_a_terminal_and_in_markdown() -> None:
    text = as_text(TABLE)
    assert text == [
        "Scores",
        "  task                           value       n      p",
        "  a|b[U+001B][31m  -0.12 [-0.50, 0.25]  12,345  1e-09",
        "  b                               0.50           0.25",
        "  In brackets: 95 % intervals.",
    ]
    minus = "\N{MINUS SIGN}"
    assert as_markdown(TABLE)[2] == rf"| a\|b\[U+001B\]\[31m | {minus}0.12 [{minus}0.50, 0.25] | 12,345 | 1e{minus}09 |"
    assert as_csv(TABLE).splitlines()[1] == "a|b[U+001B][31m,-0.125,-0.5,0.25,12345,1e-09"


@pytest.mark.parametrize("name", COMMANDS)
def test_a_summary_of_before_gives_the_tables_that_are_written_now(name: str) -> None:
    summary = old(name)
    now = with_tables(summary)
    assert {key: value for key, value in now.items() if key != "tables"} == summary
    assert [table["title"] for table in now["tables"]] == COMMANDS[name]
    json.dumps(now["tables"], allow_nan=False)
    assert [to_json(table) for table in tables_of(summary["command"], summary)] == now["tables"]
    for table in tables_of(summary["command"], now):
        assert table.title in lines(now)


def tables_on_page(run: Path) -> list[Table]:
    (section,) = sections([read_run(str(run))], limit=2)
    assert list(section.problems) == []
    parts = [
        part
        for whole in section.parts
        for part in ([p for _, ps in whole.options for p in ps] if isinstance(whole, Tabs) else [whole])
    ]
    return [part for part in parts if isinstance(part, Table)]


@pytest.mark.parametrize("name", COMMANDS)
def test_the_report_shows_the_tables_of_a_summary_of_before(name: str) -> None:
    shown = [table.title for table in tables_on_page(RUNS / name)]
    assert set(COMMANDS[name]) <= set(shown)


def test_the_report_shows_what_the_run_has_written_down_and_makes_nothing_anew(tmp_path: Path) -> None:
    run = make_sensitivity(tmp_path / "p", ["one", "two", "three"])
    summary = json.loads((run / "summary.json").read_text())
    written = with_tables(summary | {"command": "sensitivity run"})
    written["tables"][0]["caption"] = "As the run says it."
    (run / "summary.json").write_text(json.dumps(written))
    assert "As the run says it." in [table.caption for table in tables_on_page(run)]


def test_a_table_in_a_summary_that_is_none_is_said_and_the_rest_is_shown(tmp_path: Path) -> None:
    run = make_sensitivity(tmp_path / "p", ["one", "two", "three"])
    summary = json.loads((run / "summary.json").read_text())
    (run / "summary.json").write_text(json.dumps(summary | {"tables": [{"title": "x"}]}))
    (section,) = sections([read_run(str(run))], limit=2)
    assert any("Shown plainly" in problem for problem in section.problems)
