"""What the section of a study says about its settings: which plane holds the chosen one, whose numbers are whose, and
in what unit.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from holdfast.report.export import names
from holdfast.report.pages import sections
from holdfast.report.parts import FactList, Figure, Note, Section, Tabs
from holdfast.report.reading import read_run
from holdfast.tables.record import Interval, Table
from report_runs import make_study, write_json, write_rows


def section_of(path: Path) -> Section:
    (section,) = sections([read_run(str(path))], limit=2)
    return section


def found(section: Section, kind: type) -> list[Any]:
    """Parts of one kind, also inside choices."""
    made: list[Any] = []
    todo = list(section.parts)
    while todo:
        part = todo.pop(0)
        if isinstance(part, Tabs):
            todo = [inner for _, parts in part.options for inner in parts] + todo
        if isinstance(part, kind):
            made.append(part)
    return made


def with_selection(path: Path, **changed: Any) -> None:
    summary = json.loads((path / "summary.json").read_text())
    write_json(path / "summary.json", summary | {"selection": summary["selection"] | changed})


def test_only_the_plane_with_the_chosen_setting_speaks_of_its_frame(tmp_path: Path) -> None:
    study = make_study(tmp_path / "s", seeds=1, rates=(0.1, 0.2))
    conventional = json.loads((study / "summary.json").read_text())["selection"]["conventional"]
    with_selection(study, chosen=conventional)
    planes = [part for part in found(section_of(study), Figure) if part.title.startswith("Weight plane: exact_match")]
    framed = ["which is also the chosen one" in plane.caption for plane in planes]
    assert framed == [bool(plane.layout["shapes"]) for plane in planes] == [True, False]


def test_the_conventional_setting_as_the_best_on_test_is_no_warning(tmp_path: Path) -> None:
    study = make_study(tmp_path / "s", seeds=1)
    naive = json.loads((study / "summary.json").read_text())["selection"]["naive"]
    notes = [note for note in found(section_of(study), Note) if "best on the test split" in note.text]
    assert [note.tone for note in notes] == ["warning"]
    assert naive["warning"] in notes[0].text
    with_selection(study, naive=naive | {"setting_name": "(0, 0.2)", "test": 0.5, "gain": 0.0})
    notes = [note for note in found(section_of(study), Note) if "best on the test split" in note.text]
    assert [(note.tone, note.text) for note in notes] == [
        ("plain", "The best on the test split is the conventional setting itself, (0, 0.2) (0.500).")
    ]


def test_values_behind_figures_name_their_points_and_keep_their_intervals(tmp_path: Path) -> None:
    figures = {part.title: part for part in found(section_of(make_study(tmp_path / "s", seeds=2)), Figure)}
    trade = figures["Fit against steadiness"].values
    assert trade.columns[-1].title == "about"
    assert {len(row) for row in trade.rows} == {4}
    assert all("prompt share" in row[3] and "; sd " in row[3] for row in trade.rows)
    plane = figures["Weight plane: exact_match"].values
    cells = [cell for row in plane.rows for cell in row[1:] if cell is not None]
    assert all(isinstance(cell, Interval) and cell.low is not None for cell in cells)
    assert all(
        isinstance(value, float | None) for line in figures["Weight plane: exact_match"].data[0]["z"] for value in line
    )
    assert not [figure.title for figure in figures.values() if "tooltip" in figure.caption]


def test_axes_and_colour_bars_say_their_unit(tmp_path: Path) -> None:
    figures = {part.title: part for part in found(section_of(make_study(tmp_path / "s", seeds=1)), Figure)}
    assert figures["Weight plane: exact_match"].data[0]["colorbar"]["title"]["text"] == "exact_match, share of items"
    assert figures["Weight plane: posix"].data[0]["colorbar"]["title"]["text"] == "posix, nats per token"
    assert (
        figures["exact_match against the prompt share of the loss"].layout["yaxis"]["title"]["text"]
        == "exact_match, share of items"
    )
    assert (
        figures["Difference to conventional tuning"].layout["yaxis"]["title"]["text"]
        == "difference in exact_match, share of items"
    )


def test_of_several_models_each_has_its_own_counts_titles_and_files(tmp_path: Path) -> None:
    section = section_of(two_models(tmp_path))
    counts = [dict(facts.pairs) for facts in found(section, FactList) if "trials done" in dict(facts.pairs)]
    assert [(facts["trials planned"], facts["trials done"], facts["trials failed"]) for facts in counts] == [
        (22, 21, 1)
    ] * 2
    titles = [part.title for part in found(section, Figure | Table)]  # type: ignore[arg-type]
    assert "Settings: small" in titles
    assert "Weight plane: posix: big" in titles
    assert len(set(titles)) == len(titles)
    assert [name[3:] for name in names([section], ["csv"]) if "-settings" in name] == [
        "s-settings-small.csv",
        "s-settings-big.csv",
    ]


def two_models(folder: Path) -> Path:
    """One study of two models, each with trials of its own."""
    rows, groups, trials = [], {}, []
    for name in ("small", "big"):
        path = make_study(folder / name, seeds=1)
        rows += [json.loads(line) | {"group": name} for line in (path / "rows.jsonl").read_text().splitlines()]
        summary = json.loads((path / "summary.json").read_text())
        groups[name] = {key: summary[key] for key in ("base", "selection", "finding")}
        planned = json.loads((path / "config.json").read_text())["resolved"]["trials"]
        trials += [trial | {"group": name} for trial in planned]
    study = folder / "s"
    write_rows(study / "rows.jsonl", rows)
    resolved = {"metric": "exact_match", "trials": trials}
    write_json(study / "config.json", {"command": "study run", "config": {}, "resolved": resolved})
    counts = {"planned": 44, "done": 42, "failed": 2, "merged_from": 70}
    write_json(
        study / "summary.json", {"command": "study run", "metric": "exact_match", "groups": groups, "trials": counts}
    )
    return study
