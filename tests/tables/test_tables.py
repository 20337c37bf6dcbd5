"""Tables go through JSON and back, are drawn alike wherever they are drawn, and the report shows those that a run has
written down.
"""

from __future__ import annotations

import csv
import html
import io
import json
import math
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from golden_case import RUNS
from holdfast.compare import Finished
from holdfast.config import ReportConfig
from holdfast.report import report
from holdfast.report.pages import sections
from holdfast.report.parts import Tabs
from holdfast.report.reading import read_run
from holdfast.sensitivity.comparison import difference
from holdfast.tables import MORE_TABLES, lines, tables_of, with_tables
from holdfast.tables.record import Column, Interval, MeanSd, Table, from_json, to_json, without_empty
from holdfast.tables.render import as_csv, as_markdown, as_text
from holdfast.tables.text import number, slug
from report_runs import make_sensitivity, make_study

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
    "best": ["Settings"],
    "best-table": ["Settings", "One weighting for all settings"],
}


def old(name: str) -> dict[str, Any]:
    """A summary of a version that wrote no tables."""
    file = "best.json" if name.startswith("best") else "summary.json"
    summary: dict[str, Any] = json.loads((RUNS / name / file).read_text(encoding="utf-8"))
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


# one table, four renderings

DASHES = str.maketrans({"\N{MINUS SIGN}": "-", "\N{EN DASH}": ""})
SPREAD = Table("Spreads", [Column("what"), Column("score", 1)], [["a", MeanSd(71.62, 1.4)], ["b", MeanSd(3.0)]])


def typed(cells: list[str]) -> list[str]:
    """Cells with the signs of a keyboard and single spaces."""
    return [" ".join(cell.translate(DASHES).split()) for cell in cells]


def from_terminal(table: Table) -> list[str]:
    """Rows without the columns' widths; empty cells cannot be told from spaces."""
    return [" ".join(line.split()) for line in as_text(table)[1 : len(table.rows) + 2]]


def from_markdown(text: str, title: str) -> list[list[str]]:
    """Heads and rows of the first table under a title."""
    _, _, below = text.partition(f"### {title}\n")
    rows = [line for line in below.partition("\n#")[0].splitlines() if line.startswith("|")]
    cells = [re.split(r"(?<!\\)\|", line)[1:-1] for line in rows]
    return [typed([html.unescape(re.sub(r"\\(.)", r"\1", cell)) for cell in row]) for row in [cells[0], *cells[2:]]]


def from_page(text: str, title: str) -> list[list[str]]:
    """Heads and rows of the table under a heading."""
    below = next(part for part in text.split("<h3 ")[1:] if re.match(rf"[^>]*>{re.escape(html.escape(title))}<", part))
    rows = re.findall(r"<tr>(.*?)</tr>", below.partition("</table>")[0], re.DOTALL)
    cells = [re.findall(r"<t[hd][ >].*?</t[hd]>", row, re.DOTALL) for row in rows]
    return [typed([html.unescape(re.sub(r"<[^>]*>", "", cell)) for cell in row]) for row in cells]


def from_csv(text: str, table: Table) -> list[list[str]]:
    """Heads and rows, with the values of an estimate put together as people read them."""
    heads, *rows = csv.reader(io.StringIO(text))
    own = [head for head in heads if head in {column.title for column in table.columns}]
    return [own, *(typed(joined(row, cells, table)) for row, cells in zip(rows, table.rows, strict=True))]


def joined(values: list[str], cells: Any, table: Table) -> list[str]:
    texts, left = [], iter(values)
    for place, (cell, column) in enumerate(zip(cells, table.columns, strict=True)):
        several = [row[place] for row in table.rows if isinstance(row[place], Interval | MeanSd)]
        own = [next(left) for _ in range(1 + (2 if several and isinstance(several[0], Interval) else len(several) > 0))]
        if isinstance(cell, str):
            texts.append(own[0].removeprefix("'"))
            continue
        value, *beside = [number(json.loads(text.lower()) if text else None, column.digits) for text in own]
        if own[1:] and own[1]:
            value += f" [{', '.join(beside)}]" if len(beside) == 2 else f" ± {beside[0]}"
        texts.append(value)
    assert not list(left)
    return texts


def assert_alike(table: Table, page: str, markdown: str, csv_text: str) -> None:
    """The cells of a table are the same in all four."""
    table = without_empty(table)
    rows = from_markdown(markdown, re.sub(r"([|\[\]_*`#!])", r"\\\1", table.title))
    assert len(rows) == len(table.rows) + 1
    assert from_page(page, table.title) == rows
    assert from_csv(csv_text, table) == rows
    assert from_terminal(table) == [" ".join(filter(None, row)) for row in rows]


def written(tmp_path: Path, *runs: Path) -> tuple[list[Table], list[tuple[Table, str, str, str]]]:
    """The tables of a report, and each with the page, the Markdown and the CSV that the report has written."""
    config = ReportConfig(directories=list(map(str, runs)), output=str(tmp_path / "r"), format="html,md,csv", json=True)
    report(config)
    page, markdown = ((tmp_path / f"r.{ending}").read_text(encoding="utf-8") for ending in ("html", "md"))
    tables: list[Table] = []
    for section in sections([read_run(str(run)) for run in runs], limit=12):
        for part in section.parts:
            inner = [p for _, parts in part.options for p in parts] if isinstance(part, Tabs) else [part]
            tables += [one for one in inner if isinstance(one, Table)]
    files = [next(tmp_path.glob(f"r-*-{slug(table.title)}.csv")).read_text(encoding="utf-8") for table in tables]
    return tables, [(table, page, markdown, text) for table, text in zip(tables, files, strict=True)]


@pytest.mark.parametrize(
    ("name", "titles"),
    [
        ("best", {"Settings"}),
        ("best-table", {"Settings", "One weighting for all settings"}),
        ("label", {"Where labels come from", "Labelled inputs"}),
        ("align", {"Preferences before and after", "Where the model comes from"}),
        ("study", {"Settings", "Every trial"}),
        ("compare", {"POSIX of both", "Sets that moved most"}),
    ],
)
def test_terminal_markdown_csv_and_page_show_the_same_cells(tmp_path: Path, name: str, titles: set[str]) -> None:
    tables, files = written(tmp_path, RUNS / name)
    assert titles <= {table.title for table in tables}
    for table, *texts in files:
        assert_alike(table, *texts)


def test_the_rows_of_sensitivity_runs_are_alike_everywhere(tmp_path: Path) -> None:
    one, other = (make_sensitivity(tmp_path / name, ["a | b", name], sets=2) for name in ("p", "q"))
    _, files = written(tmp_path, one)
    titles = [table.title for table, *_ in files]
    assert titles[:3] == ["All sets", *titles[1:3]]
    assert all(title.startswith("Responses: set-") for title in titles[1:3])
    for table, *texts in files:
        assert_alike(table, *texts)
    _, files = written(tmp_path, one, other)
    assert [table.title for table, *_ in files[-2:]] == [
        "Psi of every shared set",
        "Side by side: Sensitivity to wording",
    ]
    assert_alike(*files[-2])


def test_the_table_of_the_demo_is_on_its_page_as_on_the_terminal(tmp_path: Path) -> None:
    study = make_study(tmp_path / "s", seeds=1)
    keys = ("response_nll", "prompt_nll", "new items", "new wordings", "posix")
    scores = {"base model": [dict.fromkeys(keys, 0.25)], "(0, 1)": [dict.fromkeys(keys, x) for x in (0.5, 0.625)]}
    summary = with_tables({"command": "demo", "scores": scores})
    (study / MORE_TABLES).write_text(json.dumps(summary["tables"]))
    tables, files = written(tmp_path, study)
    assert tables[0].title == "Test scores", "what the demo adds stands first on its page"
    assert_alike(*files[0])
    assert "0.562 ± 0.088" in lines(summary)
    assert "56.2 ± 8.8" in lines(summary)
    assert "±" not in lines(summary).splitlines()[2], "one seed has no spread"


def test_the_card_of_align_holds_the_table_of_its_summary() -> None:
    from holdfast.align.pipeline import _card

    summary = old("align")
    (table, _) = tables_of("align", summary)
    card = _card(summary)
    text = f"### {table.title}\n{card[card.index('|') :]}"
    assert from_terminal(table) == [" ".join(filter(None, row)) for row in from_markdown(text, table.title)]


def test_a_mean_with_its_standard_deviation_is_two_columns_of_csv() -> None:
    assert from_json(json.loads(json.dumps(to_json(SPREAD)))) == from_json(to_json(SPREAD))
    assert as_csv(SPREAD).splitlines() == ["what,score,score sd", "a,71.62,1.4", "b,3.0,"]
    assert as_text(SPREAD)[2:] == ["  a     71.6 ± 1.4", "  b            3.0"]


def test_cells_are_cut_on_a_terminal_only_and_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    long = "x" * 60 + "y" * 60
    summary = {"command": "tune", "tables": [to_json(Table("t", [Column("x")], [[long]]))]}
    assert long in lines(summary)
    assert "…" not in lines(summary)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    cut = lines(summary).splitlines()
    assert len(cut[2].strip()) == 48
    assert "…" in cut[2]
    assert cut[-1].strip() == "…: cells are cut for the terminal; files hold them whole."


def test_the_most_frequent_response_is_whole_in_files(tmp_path: Path) -> None:
    long = "word " * 60
    run = make_sensitivity(tmp_path / "p", [long, "short"], sets=1)
    report(ReportConfig(directories=[str(run)], output=str(tmp_path / "r"), format="csv", json=True))
    assert long in next(tmp_path.glob("r-*-all-sets.csv")).read_text()


def measured(path: str, shift: float, kinds: list[str], sets: int) -> Finished:
    psi = {view: {"psi": 0.5} for view in ("all", *kinds)}
    rows = []
    for place in range(sets):
        rows.append({"set_id": f"s{place}", "indices": json.loads(json.dumps(psi))})
        for view in ("all", *kinds):
            rows[-1]["indices"][view]["psi"] += shift * place * (1 if view != "all" or len(kinds) == 1 else 0.5)
    about = {"model": "m", "backend": "local", "shots": 0, "resolved": {"dtype": "float32"}}
    summary = {"posix": {view: {"sets": sets} for view in ("all", *kinds)}} | about
    return Finished(path, summary, rows)


@pytest.mark.parametrize("kinds", [["casing"], ["casing", "spelling"]])
def test_a_comparison_lists_a_set_once_where_there_is_one_kind(kinds: list[str]) -> None:
    result = difference(measured("a", 0.0, kinds, 3), measured("b", 0.1, kinds, 3), 0, 100)
    assert list(result["by_kind"]) == ["all", *kinds]
    names = [(row["set_id"], row["kind"]) for row in result["moved_most"]]
    assert len(names) == (2 if len(kinds) == 1 else 6)
    assert {kind for _, kind in names} == (set(kinds) if len(kinds) == 1 else {"all", *kinds})
    table, moved = tables_of("sensitivity compare", result)
    assert [row[0] for row in table.rows] == ["all", *kinds]
    assert len(moved.rows) == len(names)


@pytest.mark.parametrize(("sets", "said"), [(3, "Few sets (3): such an interval is only a rough one."), (10, "")])
def test_an_interval_over_few_sets_says_so(sets: int, said: str) -> None:
    result = difference(measured("a", 0.0, ["casing"], sets), measured("b", 0.1, ["casing"], sets), 0, 100)
    (table, _) = tables_of("sensitivity compare", result)
    assert table.caption.endswith(said or "over sets.")
    estimate = {"mean": 0.5, "low": 0.4, "high": 0.6, "sets": sets}
    (posix, *_) = tables_of("sensitivity run", {"posix": {"all": estimate}})
    assert posix.caption.endswith(said or "over sets.")
