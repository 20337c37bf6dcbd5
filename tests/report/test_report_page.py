"""What is on the report's page, for studies in every state: finished, unfinished, begun, broken."""

from __future__ import annotations

import itertools
import json
import re
import shlex
from pathlib import Path

import pytest

from holdfast import cli
from holdfast.config.options import read_arguments
from holdfast.report import palette
from holdfast.report.command_line import CONFIGS, command_line
from holdfast.report.export import picture
from holdfast.report.figures import Axis, Series, bars
from holdfast.report.lead import four_facts
from holdfast.report.palette import THEMES, paint
from holdfast.report.reading import ReadRun, read_run
from report_page import page_of
from report_runs import make_sensitivity, make_study, write_json, write_rows


def test_a_study_page_says_what_was_found_and_shows_what_it_rests_on(tmp_path: Path) -> None:
    page = page_of(tmp_path, make_study(tmp_path / "s"))
    assert "(0.2, 0.8) is better than conventional tuning on this data." in page.text
    assert re.search(
        r"Warning\. The best on the test split is \(.*\): picked on the split it is reported on, from 21 settings\.",
        page.text,
    )
    wanted = [
        "Weight plane: exact match",
        "Exact match against the prompt share of the loss",
        "Difference to conventional tuning",
    ]
    wanted += ["Settings", "Fit against steadiness", "Learning curves: response NLL", "Learning curves: prompt NLL"]
    assert [title for title in page.headings() if title in wanted] == wanted
    assert page.headings()[-3:] == ["Cost of a trial", "Cost", "Every trial"]
    assert "out of memory" in page.text


def test_cells_of_equal_ratio_have_one_value_and_a_line_through_them(tmp_path: Path) -> None:
    plane = page_of(tmp_path, make_study(tmp_path / "s")).data["figures"][0]
    z = plane["data"][0]["z"]
    places = [(row, column) for row, line in enumerate(z) for column, value in enumerate(line) if value is not None]
    tips = [plane["data"][0]["customdata"][row][column] for row, column in places]
    cells = [f"{note}: {value}" for _, _, note, value in tips]
    assert len(cells) == 35
    assert len(set(cells)) == 21
    lines = [trace for trace in plane["data"][1:] if trace["line"]["color"] == "@ink"]
    assert len(lines) == 5  # rays with more than one cell: the two axes, 1:1, 1:2 and 2:1
    for line in lines:
        values = {z[round(y - 0.01)][round(x)] for x, y in zip(line["x"], line["y"])}
        assert len(values) == 1
    frames = plane["layout"]["shapes"]
    assert [frame["line"]["dash"] for frame in frames] == ["dot"] * 5 + ["solid"]


def test_every_figure_has_a_caption_with_its_n_and_its_interval_and_a_table_of_values(tmp_path: Path) -> None:
    page = page_of(tmp_path, make_study(tmp_path / "s"), make_sensitivity(tmp_path / "p", ["yes", "no", "maybe"]))
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", page.source)
    assert len(captions) == len(page.of("figure")) == len(page.data["figures"])
    for caption in captions:
        assert re.search(r"\d", caption), caption
        assert re.search(r"interval|exact values|spread", caption), caption
    assert page.source.count("<summary>Values</summary>") == len(captions)


def test_every_figure_is_a_valid_one_in_both_themes(tmp_path: Path) -> None:
    from plotly.graph_objects import Figure

    page = page_of(tmp_path, make_study(tmp_path / "s"), make_sensitivity(tmp_path / "p", ["yes", "no", "maybe"]))
    assert page.data["themes"].keys() == THEMES.keys()
    for figure in page.data["figures"]:
        for theme in THEMES.values():
            Figure(paint(figure, theme))  # raises where a name or a value is not plotly's


def test_a_study_of_two_models_shows_one_at_a_time_and_all_trials_together(tmp_path: Path) -> None:
    study = make_study(tmp_path / "s", seeds=1)
    base, *trials = [json.loads(line) for line in (study / "rows.jsonl").read_text().splitlines()]
    rows = [row | {"group": name} for name in ("small", "large") for row in (base, *trials)]
    write_rows(study / "rows.jsonl", rows)
    summary = json.loads((study / "summary.json").read_text())
    chosen = {
        name: {"base": summary["base"], "selection": summary["selection"] | {"finding": f"{name} says so."}}
        for name in ("small", "large")
    }
    write_json(study / "summary.json", summary | {"groups": chosen, "finding": "small: yes.\nlarge: no."})
    page = page_of(tmp_path, study)
    assert re.findall(r'<option value="\d">(small|large)</option>', page.source) == ["small", "large"]
    for said in ("small: yes.", "large: no.", "small says so.", "large says so.", "44 trials, as they finished."):
        assert said in page.text
    assert {"Settings: small", "Settings: large"} <= set(page.headings())


def test_an_unfinished_study_says_so_and_shows_its_rows(tmp_path: Path) -> None:
    page = page_of(tmp_path, make_study(tmp_path / "s", seeds=1, complete=False))
    assert "This run is not complete: it has no summary yet. Shown is what its 23 rows hold." in page.text
    assert "Nothing has been selected yet" in page.text
    assert "Weight plane: exact match" in page.headings()
    assert "to conventional" not in page.headings()


def test_a_run_that_has_only_begun_is_no_error(tmp_path: Path) -> None:
    for command in (
        "study run",
        "sensitivity run",
        "crosstask run",
        "crosstask label",
        "crosstask analyse",
        "tune",
        "align",
        "bench run",
        "x",
    ):
        write_json(
            tmp_path / command.replace(" ", "-") / "config.json",
            {"command": command, "config": {"model": "m"}, "resolved": {}},
        )
    folders = sorted(p.parent for p in tmp_path.glob("*/config.json"))
    page = page_of(tmp_path, *folders)
    assert page.text.count("This run is not complete") == len(folders)
    assert "Shown plainly" not in page.text


def test_a_summary_that_no_command_wrote_is_shown_plainly(tmp_path: Path) -> None:
    write_json(tmp_path / "s" / "config.json", {"command": "study run", "config": {}, "resolved": {}})
    write_json(
        tmp_path / "s" / "summary.json",
        {"selection": {"settings": ["oops"]}, "answer": {"value": 1.5, "low": 1.25, "high": 1.75, "n": 3}},
    )
    page = page_of(tmp_path, tmp_path / "s")
    assert "Shown plainly, as its files are not those that `study run` writes" in page.text
    assert "1.5000 [1.2500, 1.7500]" in page.text


def test_a_page_of_benchmarks_says_what_the_run_says_about_its_scores(tmp_path: Path) -> None:
    score = {"value": 0.5, "low": 0.25, "high": 0.75, "n": 8}
    write_json(tmp_path / "b" / "config.json", {"command": "bench run", "config": {"model": "m"}, "resolved": {}})
    summary = {
        "benchmarks": {
            "arc": {"metric": "acc", "choice": "the usual ranking, 5 shots"} | score,
            "mt": {"metric": "rating", "value": None},
        },
        "averages": {"mean": 50.0, "of": ["arc"], "paper_average": 62.5},
        "items": 8,
        "scores": {"arc": {"acc": score}},
        "notes": ["8 of 8 prompts were cut from the left"],
    }
    write_json(tmp_path / "b" / "summary.json", summary)
    page = page_of(tmp_path, tmp_path / "b")
    assert '<p class="note warning"><b>Warning.</b> 8 of 8 prompts were cut from the left.</p>' in page.source
    assert "mean of 1 benchmark, %50" in page.text
    assert "sum of its five over four, %62.5" in page.text
    assert "the usual ranking, 5 shots" in page.text
    assert "<bdi>mt</bdi>" in page.source  # it has no score, and is named all the same
    assert "acc by task over 8 items per task" in page.text


def test_times_of_several_slots_say_that_they_are_sums(tmp_path: Path) -> None:
    study = make_study(tmp_path / "s", seeds=1)
    assert "spent measuring<" in page_of(tmp_path, study).source
    summary = json.loads((study / "summary.json").read_text())
    write_json(study / "summary.json", summary | {"cost": summary["cost"] | {"slots": 2}})
    source = page_of(tmp_path, study).source
    assert "<dt>time from start to end</dt>" in source
    assert "<dt>spent measuring, over 2 slots</dt>" in source


def test_only_what_plotly_takes_for_a_colour_is_painted() -> None:
    figure = {
        "name": "@1",
        "marker": {"color": "@1", "line": {"color": "#123456"}},
        "ticktext": ["@2"],
        "gridcolor": "@grid",
    }
    assert paint(figure, THEMES["light"]) == figure | {
        "marker": {"color": THEMES["light"]["@1"], "line": {"color": "#123456"}},
        "gridcolor": THEMES["light"]["@grid"],
    }


def test_a_picture_keeps_the_order_of_its_legend() -> None:
    figure = bars("Cost", "Two parts.", ["a"], [Series("train", [], [1.0]), Series("measure", [], [2.0])], Axis("s"))
    assert picture(figure)["layout"]["legend"] == {
        "orientation": "h",
        "x": 0,
        "y": 1.02,
        "yanchor": "bottom",
        "traceorder": "normal",
    }


@pytest.mark.parametrize(("theme", "ground"), [("light", "#fbfcfc"), ("dark", "#111615")])
def test_marks_of_figures_stand_out_from_the_ground(theme: str, ground: str) -> None:
    """3:1, as WCAG 2.2 (1.4.11) asks of what carries meaning; a grid carries none."""
    assert ground in (Path(palette.__file__).parent / "page.css").read_text()
    for name, colour in THEMES[theme].items():
        if name not in ("@grid", "@paper") and isinstance(colour, str):
            low, high = sorted((luminance(colour), luminance(ground)))
            assert (high + 0.05) / (low + 0.05) >= 3, name


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_broken_rows_are_skipped_and_counted(tmp_path: Path) -> None:
    study = make_study(tmp_path / "s", seeds=1)
    with (study / "rows.jsonl").open("a") as file:
        file.write('[1, 2]\n{"kind": "trial", "tri')
    assert "2 rows of rows.jsonl could not be read and were skipped." in page_of(tmp_path, study).text


def test_the_last_of_two_rows_for_one_trial_counts(tmp_path: Path) -> None:
    study = make_study(tmp_path / "s", seeds=1, complete=False)
    rows = [json.loads(line) for line in (study / "rows.jsonl").read_text().splitlines()]
    again = rows[1] | {"test": rows[1]["test"] | {"exact_match": 0.987}}
    write_rows(study / "rows.jsonl", [*rows, again])
    table = page_of(tmp_path, study).data["figures"][0]["data"][0]["text"]
    assert "0.99" in [value for row in table for value in row]


def test_shares_close_to_zero_get_a_logarithmic_axis_with_a_place_for_zero(tmp_path: Path) -> None:
    study = make_study(tmp_path / "s", seeds=1, complete=False)
    rows = [json.loads(line) for line in (study / "rows.jsonl").read_text().splitlines()]
    write_rows(
        study / "rows.jsonl",
        [row | {"prompt_share": row["prompt_share"] ** 6} if row["kind"] == "trial" else row for row in rows],
    )
    page = page_of(tmp_path, study)
    figure = next(f for f in page.data["figures"] if f["layout"]["xaxis"]["title"]["text"].startswith("prompt share"))
    axis, places = figure["layout"]["xaxis"], [x for trace in figure["data"] for x in trace["x"]]
    assert axis["ticktext"][0] == "0"
    assert axis["ticktext"][-1] == "1"
    assert axis["tickvals"][0] == min(places)
    assert axis["tickvals"][-1] == max(places) == 0
    assert all(axis["range"][0] <= x <= axis["range"][1] for x in places)
    assert figure["data"][0]["customdata"][0][0] == "0.0000"  # a tooltip names the share, not its place


def test_trials_that_diverged_and_weights_with_rounding_noise_do_no_harm(tmp_path: Path) -> None:
    study = make_study(tmp_path / "s", seeds=2, complete=False)
    rows = [json.loads(line) for line in (study / "rows.jsonl").read_text().splitlines()]
    lost = float("nan")
    rows[1] |= {"test": dict.fromkeys(rows[1]["test"], lost), "members": [[0.1 + 0.2, 1.0], [0.0, 0.2]]}
    rows[3] |= {"members": [[0.3, 0.2]]}
    write_rows(study / "rows.jsonl", rows)
    plane = page_of(tmp_path, study).data["figures"][0]
    assert plane["layout"]["xaxis"]["ticktext"].count("0.3") == 1
    assert "NaN" not in json.dumps(plane)
    assert all(value == "" or 0.2 < float(value) < 0.6 for row in plane["data"][0]["text"] for value in row)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_numbers_can_be_read_on_every_shade_of_a_scale(theme: str) -> None:
    """4.5:1, on the named shades and half-way between them."""
    ink = luminance(THEMES[theme]["@ink"])
    for name, scale in THEMES[theme].items():
        shades = [luminance(colour) for _, colour in scale] if isinstance(scale, list) else []
        for shade in (*shades, *((a + b) / 2 for a, b in itertools.pairwise(shades))):
            low, high = sorted((ink, shade))
            assert (high + 0.05) / (low + 0.05) >= 4.5, name


def test_a_key_never_reaches_the_command_of_a_page(tmp_path: Path) -> None:
    config = {"model": "m", "endpoint": "http://me:secret@host/v1?api_key=abc123", "backend": "http", "output": "o"}
    write_json(tmp_path / "s" / "config.json", {"command": "sensitivity run", "config": config, "resolved": {}})
    page = page_of(tmp_path, tmp_path / "s")
    assert "holdfast sensitivity run --model m --endpoint" in page.text
    assert "secret" not in page.source
    assert "abc123" not in page.source


def test_every_command_with_a_run_directory_has_a_line(tmp_path: Path) -> None:
    """And from the line the same options are read again."""
    assert {name: cli.COMMANDS[name][0] for name in CONFIGS} == CONFIGS
    config = {"model": "m", "data": "d.jsonl", "weights": {"user": 0.5}, "lora_rank": 4, "output": "my run"}
    write_json(tmp_path / "t" / "config.json", {"command": "tune", "config": config | {"epochs": 1.0}, "resolved": {}})
    line = command_line(read_run(str(tmp_path / "t")))
    assert line == "holdfast tune --model m --data d.jsonl --weights user 0.5 --lora-rank 4 --output 'my run'"
    parsed = read_arguments(cli.configs.TuneConfig, shlex.split(line)[2:], {}, "holdfast tune")
    assert {name: getattr(parsed, name) for name in config} == config


def test_an_audit_begins_with_its_four_facts_and_its_command(tmp_path: Path) -> None:
    finding = {"kind": "stop-never-paid", "count": 2, "cure": "pay it"}
    summary = {"command": "audit", "data": "a.jsonl", "model": "pocket", "rows": 2, "findings": [finding]}
    config = {"model": "pocket", "data": "a.jsonl", "epochs": 2, "weights": {"eos": 0}}
    run = ReadRun(tmp_path, "audit", config, {}, [], summary)
    assert dict(four_facts(run))["Main result"] == "1 finding: stop-never-paid (2 rows)."
    assert dict(four_facts(run))["What to do next"] == "Before the training: pay it."
    assert command_line(run) == "holdfast audit --model pocket --data a.jsonl --weights eos 0"
    none = ReadRun(tmp_path, "audit", config, {}, [], {**summary, "findings": []})
    assert dict(four_facts(none))["Main result"].startswith("No findings")
