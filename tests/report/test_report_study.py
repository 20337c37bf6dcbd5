"""What the section of a study says about its settings: which plane holds the chosen one, whose numbers are whose, and
in what unit.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from holdfast.report.export import names
from holdfast.report.heatmap import Matrix, Noise, noise_map
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
    planes = [part for part in found(section_of(study), Figure) if part.title.startswith("Weight plane: exact match")]
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
    plane = figures["Weight plane: exact match"].values
    cells = [cell for row in plane.rows for cell in row[1:] if cell is not None]
    assert all(isinstance(cell, Interval) and cell.low is not None for cell in cells)
    assert all(
        isinstance(value, float | None) for line in figures["Weight plane: exact match"].data[0]["z"] for value in line
    )
    assert not [figure.title for figure in figures.values() if "tooltip" in figure.caption]


def test_axes_and_colour_bars_say_their_unit(tmp_path: Path) -> None:
    figures = {part.title: part for part in found(section_of(make_study(tmp_path / "s", seeds=1)), Figure)}
    assert figures["Weight plane: exact match"].data[0]["colorbar"]["title"]["text"] == "difference, share of items"
    assert figures["Weight plane: POSIX"].layout["xaxis"]["title"]["text"] == "prompt weight"
    assert (
        figures["Exact match against the prompt share of the loss"].layout["yaxis"]["title"]["text"]
        == "exact match (share of items)"
    )
    assert (
        figures["Difference to conventional tuning"].layout["yaxis"]["title"]["text"]
        == "difference in exact match (share of items)"
    )


def test_of_several_models_each_has_its_own_counts_titles_and_files(tmp_path: Path) -> None:
    section = section_of(two_models(tmp_path))
    counts = [dict(facts.pairs) for facts in found(section, FactList) if "trials done" in dict(facts.pairs)]
    assert [(facts["trials planned"], facts["trials done"], facts["trials failed"]) for facts in counts] == [
        (22, 21, 1)
    ] * 2
    titles = [part.title for part in found(section, Figure | Table)]  # type: ignore[arg-type]
    assert "Settings: small" in titles
    assert "Weight plane: POSIX: big" in titles
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


def plane_of(study: Path, metric: str = "exact match") -> Figure:
    return next(part for part in found(section_of(study), Figure) if part.title == f"Weight plane: {metric}")


def test_colours_of_a_plane_claim_what_is_beyond_noise_and_nothing_else(tmp_path: Path) -> None:
    study = make_study(tmp_path / "s")
    plane = plane_of(study)
    summary = json.loads((study / "summary.json").read_text())
    reference = next(s for s in summary["selection"]["settings"] if s["conventional"])["test"]["mean"]
    by_cell = {(p, r): s for s in summary["selection"]["settings"] for p, r in s["members"]}
    shades = set()
    for row, response in enumerate(sorted({r for _, r in by_cell}, reverse=True)):
        for column, prompt in enumerate(sorted({p for p, _ in by_cell})):
            setting = by_cell.get((prompt, response))
            shade = plane.data[0]["z"][row][column]
            if setting is None:
                assert shade is None
                continue
            shades.add(shade == 0)
            difference = setting["difference"]
            apart = difference is not None and not difference["low"] <= 0 <= difference["high"]
            wanted = setting["test"]["mean"] - reference if apart else 0.0
            assert shade == pytest.approx(wanted)
            assert plane.data[0]["text"][row][column] == f"{setting['test']['mean']:.3f}"
    assert shades == {True, False}
    assert plane.data[0]["colorscale"] == "@better"
    assert plane_of(study, "POSIX").data[0]["colorscale"] == "@worse"  # lower is better


def test_with_one_seed_or_no_noise_no_colour_claims_anything(tmp_path: Path) -> None:
    one = make_study(tmp_path / "one", seeds=1)
    with_selection(one, noise={"sd": None, "df": 0})
    same = make_study(tmp_path / "same")
    with_selection(same, noise={"sd": 0.0, "df": 42})
    for study, why in ((one, "one seed shows no noise"), (same, "no noise was seen")):
        plane = plane_of(study)
        assert plane.data[0]["colorscale"] == "@neutral"
        assert {shade for line in plane.data[0]["z"] for shade in line} == {0.0, None}
        assert why in plane.caption


def test_cells_that_read_alike_have_one_shade() -> None:
    """However small the noise: a difference that the number does not show is no colour."""
    matrix = Matrix([[1.6859, 1.6862, 1.9]], ["a"], ["x", "y", "z"], None, ("row", "column", "value"), 3)
    figure = noise_map("Title", "Caption.", matrix, Noise([1.6859] * 3, [[1e-9] * 3], True, "difference"))
    assert figure.data[0]["text"] == [["1.686", "1.686", "1.900"]]
    assert figure.data[0]["z"] == [[0.0, 0.0, pytest.approx(0.2141)]]


def test_there_is_no_plane_of_fewer_than_six_cells(tmp_path: Path) -> None:
    study = make_study(tmp_path / "s", seeds=1, complete=False)
    rows = [json.loads(line) for line in (study / "rows.jsonl").read_text().splitlines()]
    cells = [[0.2, 0.2], [0.2, 0.4], [0.4, 0.2], [0.4, 0.6], [0.6, 0.4], [0.6, 0.2]]
    for count in (5, 6):
        trials = [row | {"members": [cell]} for row, cell in zip(rows[1:], cells[:count], strict=False)]
        write_rows(study / "rows.jsonl", [rows[0], *trials])
        planes = [part for part in found(section_of(study), Figure) if part.title.startswith("Weight plane")]
        assert bool(planes) == (count == 6)


def test_no_line_goes_through_two_points_and_curves_come_from_training_rows(tmp_path: Path) -> None:
    for points, has_curves in ((2, False), (5, True)):
        section = section_of(make_study(tmp_path / str(points), curve=points))
        curves = [part for part in found(section, Figure) if part.title.startswith("Learning curves")]
        assert bool(curves) == has_curves
        ends = [part for part in found(section, Table) if part.title == "Before and after training"]
        assert bool(ends) != has_curves
    study = tmp_path / "5"
    for file in study.glob("trials/*/rows.jsonl"):  # held-out data at the start and the end, batches between them
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        kept = [row for row in rows if row["kind"] == "train" or row["step"] in (0, 40)]
        write_rows(file, [row | {"step": row["step"] + 3 * (row["kind"] == "train")} for row in kept])
    curve = next(part for part in found(section_of(study), Figure) if part.title.startswith("Learning curves"))
    assert {row[1] for row in curve.values.rows} == {3, 13, 23, 33, 43}
    for figure in found(section_of(study), Figure):
        drawn = [one for one in figure.data if one["type"] == "scatter" and "lines" in one["mode"] and one.get("name")]
        assert all(len(one["x"]) > 2 or "hoverinfo" in one for one in drawn)  # the plane's rays join equal cells
