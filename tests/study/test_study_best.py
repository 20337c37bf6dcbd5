"""``holdfast study best``: the published grids, tables from elsewhere good and bad, and the config of a chosen
setting.
"""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from holdfast import cli
from holdfast.config import TuneConfig
from holdfast.errors import HoldfastError
from holdfast.study.reanalysis import analyse, as_text
from holdfast.study.table import read_table
from study_worlds import trial

PUBLISHED = Path(__file__).parents[2] / "examples" / "paper" / "published" / "wit_grids.csv"


@pytest.fixture(scope="module")
def published() -> dict[str, Any]:
    return analyse(read_table(PUBLISHED, "average", "stage=sft"), higher_is_better=True)


def test_the_published_grid_is_21_trainings_in_15_settings(published: dict[str, Any]) -> None:
    assert (published["cells"], published["classes"], len(published["settings"])) == (35, 21, 15)
    assert published["setting_columns"] == ["data", "model"]


def test_noise_within_twins_of_the_published_runs(published: dict[str, Any]) -> None:
    """Standard deviation between runs of equal ratio, 14 degrees of freedom per setting."""
    noise = {s["setting"]: s["noise_sd"] for s in published["settings"]}
    assert {s["noise_df"] for s in published["settings"]} == {14}
    expected = {
        "Tulu-v2 Llama-3.2-1B": 0.21,
        "Alpaca-Cleaned Llama-3.2-1B": 0.90,
        "LIMA Llama-3.2-1B": 0.14,
        "Tulu-v2 Gemma-2-2B": 0.78,
        "Alpaca-Cleaned Gemma-2-2B": 0.29,
        "LIMA Gemma-2-2B": 0.75,
        "Tulu-v2 Llama-3.2-3B": 0.46,
        "Alpaca-Cleaned Llama-3.2-3B": 0.45,
        "LIMA Llama-3.2-3B": 0.30,
        "Tulu-v2 Mistral-7B": 2.02,
        "Alpaca-Cleaned Mistral-7B": 1.71,
        "LIMA Mistral-7B": 0.76,
        "Tulu-v2 Llama-3-8B": 1.31,
        "Alpaca-Cleaned Llama-3-8B": 2.34,
        "LIMA Llama-3-8B": 1.08,
    }
    assert noise == pytest.approx(expected, abs=0.006)


def test_seven_published_optima_are_re_runs_of_conventional_tuning(published: dict[str, Any]) -> None:
    again = {s["setting"] for s in published["settings"] if s["rerun"]}
    assert again == {
        "LIMA Llama-3.2-1B",
        "LIMA Gemma-2-2B",
        "LIMA Llama-3.2-3B",
        "LIMA Mistral-7B",
        "Tulu-v2 Llama-3.2-3B",
        "Tulu-v2 Mistral-7B",
        "Alpaca-Cleaned Llama-3.2-3B",
    }


def test_published_gains_in_hindsight_by_luck_and_honestly(published: dict[str, Any]) -> None:
    assert published["fixed"]["name"] == "(0.2, 0.8)"
    assert published["fixed"]["gain"] == pytest.approx(2.30, abs=0.005)
    assert published["fixed"]["gains"]["(1, 1)"] == pytest.approx(1.45, abs=0.005)
    assert published["identical"] == {"runs": 5, "gain": pytest.approx(1.9, abs=0.05)}
    left_out = {found["left_out"]: found["gain"] for found in published["left_out"]}
    assert left_out == pytest.approx({"setting": 1.7, "model": 0.16, "data": 1.8}, abs=0.05)
    assert sum(s["gain"] for s in published["settings"]) / 15 == pytest.approx(6.76, abs=0.005)


def test_what_the_published_grid_supports(published: dict[str, Any]) -> None:
    clear = {s["setting"] for s in published["settings"] if s["p"] <= 0.05}
    assert clear == {
        "Tulu-v2 Llama-3.2-1B",
        "Tulu-v2 Llama-3-8B",
        "Alpaca-Cleaned Gemma-2-2B",
        "Alpaca-Cleaned Mistral-7B",
    }
    assert not clear & {s["setting"] for s in published["settings"] if s["rerun"]}
    assert all(r["low"] < 0 for r in published["ratios"])
    assert published["finding"] == (
        "Supported: in 4 of 15 settings a weighting beats conventional tuning beyond the noise of identical runs. "
        "Not supported: that one fixed weighting beats it across settings ((0.2, 0.8) +2.30 % in hindsight, +1.72 % "
        "when chosen on other "
        "settings); the size of the best cells' gain (+6.76 %; the best of 5 identical runs gains +1.89 %)."
    )


def test_after_preference_tuning_luck_alone_gives_more() -> None:
    found = analyse(read_table(PUBLISHED, "average", "stage=dpo"), higher_is_better=True)
    assert found["identical"]["gain"] == pytest.approx(4.6, abs=0.05)
    assert sum(s["gain"] for s in found["settings"]) / 15 == pytest.approx(8.01, abs=0.005)


def test_smaller_published_posix_is_better(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["study", "best", str(PUBLISHED), "--metric", "posix", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["higher_is_better"] is False
    tulu = next(s for s in found["settings"] if s["setting"] == "Tulu-v2 Llama-3.2-1B")
    assert (tulu["best"], tulu["best_name"]) == (0.463, "(0.6, 0)")
    assert tulu["gain"] > 0


def test_the_command_on_the_published_grid(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert (
        cli.main(["study", "best", str(PUBLISHED), "--metric", "average", "--where", "stage=sft", "--output", str(out)])
        == 0
    )
    text = capsys.readouterr().out
    assert "35 pairs of weights, 21 distinct trainings" in text
    assert "re-run of conventional tuning: 7 of 15" in text
    assert json.loads((out / "best.json").read_text())["finding"] in text


# tables from elsewhere


def write(path: Path, text: str) -> Path:
    path.write_text("\n".join(line.strip() for line in text.strip().splitlines()) + "\n", encoding="utf-8")
    return path


def test_the_wide_form_with_seeds(tmp_path: Path) -> None:
    """Two models, two seeds; 0.1 + 0.2 : 0.3 is 1 : 1."""
    lines = ["model,prompt_weight,response_weight,seed,accuracy,posix"]
    for model, base in (("small", 50), ("large", 70)):
        for seed in (0, 1):
            lines += [
                f"{model},0,1,{seed},{base + seed},0.5",
                f"{model},0.30000000000000004,0.3,{seed},{base + 8 + seed * 1.1},0.4",
                f"{model},0,0,,{base - 40},0.9" if seed == 0 else f"{model},1,1,{seed},{base + 7},0.4",
            ]
    path = write(tmp_path / "results.csv", "\n".join(lines))
    table = read_table(path, "accuracy")
    assert table.columns == ("model",)
    found = analyse(table, higher_is_better=True)
    assert found["classes"] == 2
    assert found["settings"][0]["base"] == 10
    assert found["fixed"]["name"] == "(0.3, 0.3)"
    assert found["settings"][0]["gain"] == pytest.approx(100 * (58.55 - 50.5) / 50.5)
    assert "accuracy (higher is better): 2 settings" in as_text(found)


def test_a_single_setting_without_repeats_supports_nothing(tmp_path: Path) -> None:
    path = write(tmp_path / "one.csv", "prompt_weight,response_weight,score\n0,1,50\n0.2,0.8,60\n1,1,55")
    found = analyse(read_table(path), higher_is_better=True)
    assert found["finding"].startswith("Nothing is supported: no cell was run twice")
    assert found["left_out"] == found["ratios"] == []
    assert "p" in as_text(found)


def said(path: Path, text: str, **options: Any) -> str:
    path.write_text(text, encoding="utf-8")
    return as_text(analyse(read_table(path, **options), higher_is_better=True))


def test_runs_that_scored_exactly_alike_say_nothing(tmp_path: Path) -> None:
    value = 6.160732982384342
    lines = [f"{p},{r},{seed},{value}" for p, r in ((0, 1), (0, 0.4), (0.2, 0.8), (1, 1)) for seed in (0, 1, 2)]
    text = said(tmp_path / "c.csv", "\n".join(["prompt_weight,response_weight,seed,acc", *lines]))
    assert "Nothing can be said: all runs of a setting scored exactly alike." in text
    assert "  noise sd\n" in text, "the last column: no noise, so no column of p-values"
    assert "  (0, 1)    0.00         0\n" in text
    spread = said(tmp_path / "d.csv", "prompt_weight,response_weight,seed,acc\n0,1,0,5\n0,1,1,5\n1,1,0,6\n1,1,1,6")
    assert "Nothing is supported: no noise is seen between runs of one ratio" in spread


def test_a_table_without_a_comparison_does_not_speak_of_one(tmp_path: Path) -> None:
    head = "prompt_weight,response_weight,seed,acc\n"
    assert "identical runs" not in said(tmp_path / "one.csv", head + "0,1,0,50\n0.2,0.8,0,60\n")
    assert "no other training than conventional tuning" in said(
        tmp_path / "usual.csv", head + "0,1,0,50\n0,1,1,51\n0,0.4,0,50\n"
    )
    text = said(tmp_path / "other.csv", head + "0,0.4,0,50\n0,0.4,1,52\n0.2,0.8,0,40\n0.2,0.8,1,41\n")
    assert "conv. is (0, 0.4), as there is no (0, 1)" in text
    assert "the size of the best cells' gain" not in text, "there is none"


@pytest.mark.parametrize(
    ("metric", "higher"),
    [
        ("glossary_accuracy", True),
        ("word_error_rate", False),
        ("evalLoss", False),
        ("WER", False),
        ("ppl", False),
        ("power", True),
        ("empty_answers", False),
        ("posix wording", False),
        ("acceptance", True),
        ("valloss", False),
        ("evalloss", False),
        ("logloss", False),
        ("testnll", False),
        ("valppl", False),
        ("word_perplexity", False),
        ("gloss_bleu", True),
    ],
)
def test_the_direction_of_a_score_is_told_by_whole_words_and_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], metric: str, higher: bool
) -> None:
    path = write(tmp_path / "t.csv", f"prompt_weight,response_weight,{metric}\n0,1,5\n1,1,6\n")
    shown = {True: f"{metric} (higher is better)", False: f"{metric} (lower is better)"}
    assert cli.main(["study", "best", str(path)]) == 0
    assert shown[higher] in capsys.readouterr().out
    for flag, told in (("--higher-is-better", True), ("--lower-is-better", False)):
        assert cli.main(["study", "best", str(path), flag]) == 0
        assert shown[told] in capsys.readouterr().out
    assert cli.main(["study", "best", str(path), "--lower-is-better", "--higher-is-better"]) == 2


def test_a_study_knows_the_direction_of_its_metrics(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = make_study(tmp_path / "study", {(0, 1): [0.5, 0.51], (1, 1): [0.8, 0.82]})
    text = (study / "rows.jsonl").read_text()
    (study / "rows.jsonl").write_text(text.replace('"score"', '"mm:words"'))
    plan = {"metric": "score", "higher_is_better": True, "measured": {"score": True, "mm:words": False}}
    (study / "config.json").write_text(json.dumps({"command": "study run", "config": {}, "resolved": plan}))
    for flags in ([], ["--lower-is-better"]):
        assert cli.main(["study", "best", str(study), "--metric", "mm:words", "--json", *flags]) == 0
        found = json.loads(capsys.readouterr().out)
        assert (found["higher_is_better"], found["chosen"]) == (False, "(0, 1)")
    assert cli.main(["study", "best", str(study), "--metric", "mm:words", "--higher-is-better"]) == 2
    assert "of mm:words lower is better, says the study" in capsys.readouterr().err


def test_a_column_may_be_called_setting(tmp_path: Path) -> None:
    """It is left out value by value, beside every setting in turn."""
    lines = ["setting,data,prompt_weight,response_weight,seed,acc"]
    for place, (setting, data) in enumerate((s, d) for s in "ab" for d in "xy"):
        for p, seed in ((0, 0), (0, 1), (1, 0), (1, 1)):
            lines.append(f"{setting},{data},{p},1,{seed},{50 + place + 2 * p + 0.5 * seed * p}")
    result = analyse(read_table(write(tmp_path / "t.csv", "\n".join(lines))), higher_is_better=True)
    assert [left["left_out"] for left in result["left_out"]] == ["setting", "setting", "data"]


def test_options_of_tune_are_settings_even_as_numbers(tmp_path: Path) -> None:
    lines = [f"{p},{1 - p},{lr},{seed},{50 + 5 * p + seed}" for p in (0, 0.2) for lr in (1e-4, 1e-3) for seed in (0, 1)]
    table = read_table(
        write(tmp_path / "lr.csv", "\n".join(["prompt_weight,response_weight,learning_rate,seed,acc", *lines]))
    )
    assert (table.columns, table.metric) == (("learning_rate",), "acc")
    assert len(analyse(table, higher_is_better=True)["settings"]) == 2


GOOD = "model,prompt_weight,response_weight,score\na,0,1,50\na,1,1,60\n"


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        (
            "model,prompt_weigth,response_weight,score\na,0,1,5",
            {},
            r"no column 'prompt_weight'(.|\n)*did you mean 'prompt_weigth'",
        ),
        (GOOD.replace("1,1,60", "one,1,60"), {}, r"line 3: prompt_weight is 'one', not a finite number"),
        (GOOD.replace("1,1,60", "-1,1,60"), {}, r"line 3: prompt_weight is -1\.0; a weight is a finite number"),
        (GOOD.replace("60", "6O"), {}, r"line 3: score is '6O', not a finite number"),
        (GOOD.replace("50", "NA"), {}, r"no setting has a run with prompt weight 0 and a score"),
        (
            "x,prompt_weight,response_weight,seed,f1\na,0,1,0,5\na,0,1,0,6",
            {},
            r"stand on line 2 already(.|\n)*a column of its own",
        ),
        (GOOD.replace("60", "60,7"), {}, r"line 3: 5 values for 4 columns"),
        (
            GOOD + "a,1,1,61\n",
            {},
            r"line 4: weights \(1, 1\) of this setting stand on line 3 already(.|\n)*column 'seed'",
        ),
        (GOOD.replace("score", "model"), {}, r"column 'model' appears twice"),
        ("prompt_weight,response_weight\n0,1", {}, "no column of scores"),
        ("prompt_weight,response_weight,score\n", {}, "no data"),
        ("", {}, "no data"),
        ("prompt_weight,response_weight,f1,accuracy\n0,1,2,3", {}, r"several scores: f1, accuracy(.|\n)*--metric"),
        (GOOD, {"metric": "scor"}, r"no scores 'scor'(.|\n)*did you mean 'score'"),
        (GOOD, {"where": "modle=a"}, r"no column 'modle'(.|\n)*did you mean 'model'"),
        (GOOD, {"where": "model=b"}, r"no line has model b; there are a"),
        (GOOD, {"where": "model"}, "'model' is not column=value"),
        (GOOD.replace("a,0,1,50\n", ""), {}, "no run with prompt weight 0"),
        (GOOD.replace("50", "0"), {}, "conventional tuning scores 0 in score"),
        (
            "model,prompt_weight,response_weight,score\na,0,1,5\na,1,1,5\nb,0,0.5,5",
            {},
            "no pair of weights was run in every setting",
        ),
    ],
)
def test_bad_tables_say_where_and_what(tmp_path: Path, text: str, options: dict[str, str], message: str) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(HoldfastError, match=message):
        analyse(read_table(path, **options), higher_is_better=True)


def test_files_that_are_no_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "binary.csv").write_bytes(b"\x89PNG\x00\xff")
    for name, message in (
        ("binary.csv", "neither UTF-8 nor another text"),
        ("absent.csv", "no such file or directory"),
        (".", "not a study"),
    ):
        assert cli.main(["study", "best", str(tmp_path / name)]) == 2
        assert message in capsys.readouterr().err


# what is read as a setting, what as a score, and which runs are left out


def shown(path: Path, text: str, *flags: str) -> list[str]:
    """The lines that the command prints about a table."""
    path.write_text(text.replace(" ", ""), encoding="utf-8")
    with contextlib.redirect_stdout(io.StringIO()) as out:
        assert cli.main(["study", "best", str(path), *flags]) == 0
    return out.getvalue().splitlines()


def grid(name: str, values: Sequence[object]) -> str:
    """A table of two weightings and two seeds at every value of a column."""
    lines = [f"prompt_weight,response_weight,{name},seed,acc"]
    for i, value in enumerate(values):
        lines += [
            f"{p},{1 - p},{value},{2 * i + s},{50 + 5 * p + 20 * i + s + p * s}" for p in (0, 0.2) for s in (0, 1)
        ]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize(
    "name", ["rank", "beta", "alpha", "lora_rank", "lr", "Learning Rate", "epochs", "batch-size", "warmup", "dropout"]
)
def test_a_known_hyperparameter_is_a_setting_and_unlike_runs_are_not_pooled(tmp_path: Path, name: str) -> None:
    path = tmp_path / "t.csv"
    path.write_text(grid(name, (8, 64)), encoding="utf-8")
    with contextlib.redirect_stdout(io.StringIO()) as out:
        assert cli.main(["study", "best", str(path)]) == 0
    lines = out.getvalue().splitlines()
    assert lines[0] == f"settings: {name}; scores: acc; runs of one setting differ in seed"
    assert "2 settings, 2 pairs of weights" in lines[1]


def test_lines_of_one_cell_that_differ_in_another_number_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "t.csv"
    path.write_text(grid("gamma", (8, 64)), encoding="utf-8")
    assert cli.main(["study", "best", str(path), "--metric", "acc"]) == 2
    err = capsys.readouterr().err
    assert "line 6: 'gamma' is '64', but '8' on line 2" in err
    assert "--settings gamma" in err
    lines = shown(path, grid("gamma", (8, 64)), "--settings", "gamma")
    assert lines[0].startswith("settings: gamma; scores: acc;")
    assert "2 settings" in lines[1]
    lines = shown(path, grid("gamma", (8, 64)), "--settings", "none", "--metric", "acc")
    assert lines[0].startswith("settings: none; scores: gamma, acc;")
    assert "1 setting," in lines[1]


def test_two_scores_of_one_run_need_no_telling(tmp_path: Path) -> None:
    text = "prompt_weight,response_weight,seed,accuracy,rougeL,val_loss\n" + "".join(
        f"{p},1,{s},{50 + s + 5 * p},{20 + 3 * s},{2 - s}\n" for p in (0, 1) for s in (0, 1)
    )
    assert shown(tmp_path / "t.csv", text, "--metric", "accuracy")[0].startswith(
        "settings: none; scores: accuracy, rougeL, val_loss;"
    )


def test_columns_are_what_the_user_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "t.csv"
    named = grid("alpha", (8, 64)).replace("acc", "note")
    lines = shown(path, named, "--metric", "alpha", "--settings", "none")
    assert lines[0].startswith("settings: none; scores: alpha, note;"), (
        "a hyperparameter is a score where it is named as one"
    )
    text = grid("gamma", (8, 64))
    for settings, message in (
        ("gama", "did you mean 'gamma'"),
        ("gamma,seed", "seed"),
        ("prompt_weight", "prompt_weight"),
        ("acc,gamma", "acc"),
    ):
        path.write_text(text, encoding="utf-8")
        assert cli.main(["study", "best", str(path), "--metric", "acc", "--settings", settings]) == 2
        assert message in capsys.readouterr().err
    study = make_study(tmp_path / "study", {(0, 1): [0.5, 0.51], (1, 1): [0.8, 0.82]})
    assert cli.main(["study", "best", str(study), "--settings", "gamma"]) == 2
    assert "--settings" in capsys.readouterr().err


def test_the_columns_of_the_long_form_and_of_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["study", "best", str(PUBLISHED), "--metric", "average", "--where", "stage=sft"]) == 0
    first = capsys.readouterr().out.splitlines()[0]
    scores = "AlpacaEval, BBH, IFEval, MMLU, MT-Bench, average, posix"
    assert (
        first
        == f"settings: stage, data, model; scores (in column metric): {scores}; no column tells runs of one setting "
        "apart"
    )
    assert cli.main(["study", "best", str(PUBLISHED), "--metric", "average", "--where", "stage=sft", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["columns"] == {"settings": ["stage", "data", "model"], "scores": scores.split(", "), "seeds": False}


PLAIN = "prompt_weight,response_weight,seed,acc\n0,1,0,50.5\n0,1,1,51\n1,1,0,60\n1,1,1,62\n"


@pytest.mark.parametrize(
    "text",
    [
        PLAIN.replace("\n", ",\n"),
        PLAIN.replace(",", ";"),
        PLAIN.replace(",", ";").replace(".", ","),
        PLAIN.replace(",", "\t"),
        "".join(line + "%\n" if line[0].isdigit() else line + "\n" for line in PLAIN.splitlines()),
    ],
    ids=["a comma at every end", "semicolons", "decimal commas", "tabs", "percent signs"],
)
def test_what_spreadsheets_write_is_read(tmp_path: Path, text: str) -> None:
    path = tmp_path / "t.csv"
    path.write_text(PLAIN, encoding="utf-8")
    expected = read_table(path)
    path.write_bytes(("\ufeff" + text.replace("\n", "\r\n")).encode())
    table = read_table(path)
    assert (table.metric, table.scores, table.settings) == ("acc", ("acc",), ())
    assert table.runs == expected.runs


@pytest.mark.parametrize("seed", ["Seed", "SEED", "random_seed", "Random Seed"])
def test_columns_with_a_meaning_are_known_in_any_spelling(tmp_path: Path, seed: str) -> None:
    path = tmp_path / "t.csv"
    path.write_text(PLAIN, encoding="utf-8")
    expected = read_table(path)
    path.write_text(
        PLAIN.replace("prompt_weight,response_weight,seed", f"Prompt Weight,response-weight,{seed}"), encoding="utf-8"
    )
    table = read_table(path)
    assert (table.runs, table.seeds, table.settings) == (expected.runs, True, ())


def test_in_the_long_form_every_metric_has_its_own_unit(tmp_path: Path) -> None:
    lines = [f"{p},1,{metric},{value}" for p in (0, 1) for metric, value in (("acc", f"{50 + p}%"), ("ppl", 7 + p))]
    path = tmp_path / "t.csv"
    path.write_text("\n".join(["prompt_weight,response_weight,metric,value", *lines]), encoding="utf-8")
    assert [run.value for name in ("acc", "ppl") for run in read_table(path, name).runs] == [50, 51, 7, 8]


def test_numbers_that_mean_two_things_are_refused(tmp_path: Path) -> None:
    for score, message in (
        ("51%", "'acc' is in percent on some lines only"),
        ("5_1", "acc is '5_1', not a finite number"),
    ):
        path = tmp_path / "t.csv"
        path.write_text(PLAIN.replace("51", score), encoding="utf-8")
        with pytest.raises(HoldfastError, match=message):
            read_table(path)


def test_row_numbers_without_a_name_are_not_read_and_that_is_said(tmp_path: Path) -> None:
    text = ",prompt_weight,response_weight,seed,acc\n0,0,1,0,50\n1,0,1,1,51\n2,1,1,0,60\n3,1,1,1,62\n"
    lines = shown(tmp_path / "t.csv", text)
    assert (
        lines[0]
        == "settings: none; scores: acc; runs of one setting differ in seed; row numbers (a column without a name) "
        "are not read"
    )
    assert "1 setting, 2 pairs" in lines[1]


def test_a_number_is_one_setting_however_it_is_written(tmp_path: Path) -> None:
    text = (
        "prompt_weight,response_weight,lr,seed,acc\n0,1,1e-4,0,50\n0,1,0.0001,1,51\n1,1,1e-4,0,60\n1,1,0.00010,1,62\n"
    )
    assert "1 setting," in shown(tmp_path / "t.csv", text)[1]


@pytest.mark.parametrize("gap", ["", "nan", "NaN", "NA", "N/A", "-", "inf", "-inf", "None", "null"])
def test_a_run_without_a_score_is_left_out_counted_and_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], gap: str
) -> None:
    lines = ["model,prompt_weight,response_weight,seed,acc"]
    lines += [f"{m},{p},1,{s},{50 + 5 * p + s + p * s}" for m in "ab" for p in (0, 1, 3) for s in (0, 1, 2)]
    whole, torn = "\n".join(lines), "\n".join([*lines[:5], f"a,1,1,1,{gap}", *lines[6:]])
    path = tmp_path / "t.csv"
    path.write_text(torn + "\n", encoding="utf-8")
    assert cli.main(["study", "best", str(path)]) == 0
    out = capsys.readouterr().out
    assert f"left out: 1 run without a score: line 6 (a (1, 1) seed 1: '{gap}')" in out
    assert cli.main(["study", "best", str(path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [(run["line"], run["value"]) for run in found["without_score"]] == [(6, gap)]
    path.write_text("\n".join(line for line in torn.splitlines() if line != f"a,1,1,1,{gap}") + "\n", encoding="utf-8")
    assert cli.main(["study", "best", str(path), "--json"]) == 0
    alone = json.loads(capsys.readouterr().out)
    assert (found["settings"], found["finding"]) == (alone["settings"], alone["finding"]), (
        "as if the line were not there"
    )
    path.write_text(whole + "\n", encoding="utf-8")
    assert cli.main(["study", "best", str(path)]) == 0
    assert "left out" not in capsys.readouterr().out


def test_a_setting_whose_conventional_runs_have_no_score_is_left_out_and_named(tmp_path: Path) -> None:
    text = "model,prompt_weight,response_weight,seed,acc\n" + "".join(
        f"{m},{p},1,{s},{'nan' if m == 'b' and p == 0 else 50 + 5 * p + s + p * s}\n"
        for m in "abc"
        for p in (0, 1)
        for s in (0, 1)
    )
    lines = shown(tmp_path / "t.csv", text)
    assert "2 settings, 2 pairs of weights" in lines[1]
    assert any("left out: 2 runs without a score" in line for line in lines)
    assert any(line.startswith("left out: b, ") and "conventional" in line for line in lines)


def test_a_table_without_any_score_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HoldfastError, match=r"no line has a score in 'acc'"):
        said(tmp_path / "t.csv", "prompt_weight,response_weight,acc\n0,1,nan\n1,1,\n", metric="acc")
    with pytest.raises(HoldfastError, match=r"line 3: acc is '5O', not a finite number"):
        said(tmp_path / "t.csv", "prompt_weight,response_weight,acc\n0,1,50\n1,1,5O\n")


def test_an_unclosed_quote_names_its_row_and_long_fields_are_read(tmp_path: Path) -> None:
    head = "model,prompt_weight,response_weight,acc\n"
    for text in (head + 'a,0,1,50\n"a,1,1,60\na,0.5,1,55\n', head + 'a,0,1,50\n"a,1,1,60\na,0.5,"1,55\n'):
        with pytest.raises(HoldfastError, match=r"t\.csv, row 2 \(line 3\): .*quote"):
            said(tmp_path / "t.csv", text)
    long = "x" * 200_000
    assert "1 setting," in said(tmp_path / "t.csv", f'note,{head}"{long}",a,0,1,50\n"{long}",a,1,1,60\n')


def test_noise_that_rounding_hides_is_not_said_to_be_absent(tmp_path: Path) -> None:
    """Whole numbers: runs of one ratio differ by a point, at every ratio by the same one."""
    text = said(tmp_path / "t.csv", "prompt_weight,response_weight,seed,acc\n0,1,0,50\n0,1,1,51\n1,1,0,60\n1,1,1,61")
    assert "no noise is seen between runs of one ratio" not in text
    assert "Nothing is supported: runs of one ratio differ" in text
    assert "rounding" in text
    spread = said(tmp_path / "t.csv", "prompt_weight,response_weight,seed,acc\n0,1,0,5\n0,1,1,5\n1,1,0,6\n1,1,1,6")
    assert "no noise is seen between runs of one ratio" in spread
    mixed = "model,prompt_weight,response_weight,seed,acc\na,0,1,0,50\na,0,1,1,51\na,1,1,0,60\na,1,1,1,61\n"
    mixed += "b,0,1,0,50\nb,0,1,1,51\nb,1,1,0,60\nb,1,1,1,60.5\n"
    assert "none is tested: in 1 of 2 settings no noise can be seen" in said(tmp_path / "t.csv", mixed)


# a study directory


def make_study(path: Path, scores: dict[tuple[float, float], list[float]]) -> Path:
    """What ``holdfast study run`` leaves behind, as far as choosing reads it."""
    lines = []
    for cell, values in scores.items():
        for seed, value in enumerate(values):
            row = trial(cell[0] / sum(cell), seed, value, value - 0.01, cell=list(cell))
            row["trial"] = f"{len(lines):012x}"
            row["path"] = f"trials/{row['trial']}"
            config = TuneConfig(
                model="pocket",
                data="pocket:instructions",
                output="x",
                prompt_weight=cell[0],
                response_weight=cell[1],
                seed=seed,
                limit=64,
            )
            (path / row["path"]).mkdir(parents=True)
            (path / row["path"] / "config.json").write_text(json.dumps({"command": "tune", "config": vars(config)}))
            lines.append(json.dumps(row))
    (path / "rows.jsonl").write_text("\n".join(lines) + '\n{"kind": "tri')  # cut off by a crash
    plan = {"metric": "score", "higher_is_better": True}
    (path / "config.json").write_text(json.dumps({"command": "study run", "config": {}, "resolved": plan}))
    return path


def test_the_chosen_setting_is_printed_as_a_config_that_tune_takes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = make_study(
        tmp_path / "study", {(0, 1): [0.5, 0.51, 0.49], (0.2, 0.8): [0.7, 0.72, 0.71], (1, 1): [0.6, 0.62, 0.6]}
    )
    assert cli.main(["study", "best", str(study), "--output", str(tmp_path / "out")]) == 0
    out, err = capsys.readouterr()
    assert "(0.2, 0.8) beats conventional tuning on the test split by +0.2" in err
    assert yaml.safe_load(out) == {
        "output": "study-best",
        "model": "pocket",
        "data": "pocket:instructions",
        "prompt_weight": 0.2,
        "response_weight": 0.8,
        "limit": 64,
    }
    assert (tmp_path / "out" / "best.yaml").read_text() == out
    config = cli._asked(["tune", "--config", str(tmp_path / "out" / "best.yaml"), "--seed", "7"])[0]
    assert (config.prompt_weight, config.response_weight, config.seed) == (0.2, 0.8, 7)


def test_another_metric_than_the_one_of_the_study(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its direction is that of its name."""
    study = make_study(tmp_path / "study", {(0, 1): [0.9, 0.91, 0.92], (1, 1): [0.5, 0.52, 0.52]})
    text = (study / "rows.jsonl").read_text()
    (study / "rows.jsonl").write_text(text.replace('"score"', '"response_nll"'))
    assert cli.main(["study", "best", str(study), "--metric", "response_nll"]) == 0
    out, err = capsys.readouterr()
    assert yaml.safe_load(out)["prompt_weight"] == 1
    assert "(1, 1) beats conventional tuning on the test split by -0.397" in err


def test_of_several_base_models_one_is_chosen_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = make_study(tmp_path / "study", {(0, 1): [0.5, 0.51], (0.2, 0.8): [0.8, 0.82], (1, 1): [0.1, 0.12]})
    rows = [json.loads(line) | {"group": "small"} for line in (study / "rows.jsonl").read_text().splitlines()[:-1]]
    rows += [
        row | {"group": "large", "trial": "x" + row["trial"]} for row in rows if row["setting_name"] != "(0.2, 0.8)"
    ]
    (study / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert cli.main(["study", "best", str(study)]) == 2
    assert "several base models or data sets: small, large" in capsys.readouterr().err
    for group, prompt_weight in (("small", 0.2), ("large", 0)):
        assert cli.main(["study", "best", str(study), "--where", f"group={group}"]) == 0
        assert yaml.safe_load(capsys.readouterr().out)["prompt_weight"] == prompt_weight
    assert cli.main(["study", "best", str(study), "--where", "group=smal"]) == 2
    assert "no group 'smal'; it has small, large" in capsys.readouterr().err


def test_the_config_is_that_of_the_setting_and_not_of_its_scaled_twin(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = make_study(tmp_path / "study", {(0.1, 0.4): [0.8], (0.2, 0.8): [0.82], (0, 0.5): [0.5], (0, 1): [0.51]})
    rows = [json.loads(line) for line in (study / "rows.jsonl").read_text().splitlines()[:-1]]
    for row in rows:  # as a study with twins writes them: one setting, of which the second run has half the weights
        whole = [0.2, 0.8] if row["ratio"] else [0.0, 1.0]
        row |= {
            "setting_name": str(whole),
            "members": [whole],
            "twin": int(row["setting"]["response_weight"] in (0.4, 0.5)),
        }
    (study / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert cli.main(["study", "best", str(study)]) == 0
    out, err = capsys.readouterr()
    assert yaml.safe_load(out)["response_weight"] == 0.8
    assert "One seed shows no noise" in err


def test_the_selection_of_a_study_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = make_study(tmp_path / "study", {(0, 1): [0.5, 0.51], (0.2, 0.8): [0.5, 0.49]})
    assert cli.main(["study", "best", str(study), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["chosen"] == found["conventional"] == "(0, 1)"
    assert found["tune"]["response_weight"] == 1
    assert cli.main(["study", "best", str(study), "--metric", "scores"]) == 2
    assert "did you mean 'score'" in capsys.readouterr().err


def test_a_choice_after_alignment_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = make_study(tmp_path / "study", {(0, 1): [0.5, 0.51], (1, 1): [0.8, 0.82]})
    then = {"align": {"data": "pocket:preferences", "beta": 0.3}}
    plan = {"metric": "score", "higher_is_better": True, "identity": {"then": then}}
    (study / "config.json").write_text(json.dumps({"command": "study run", "config": {}, "resolved": plan}))
    assert cli.main(["study", "best", str(study)]) == 0
    out = capsys.readouterr().out
    assert "# Measured after `holdfast align` of the tuned model, with data: pocket:preferences, beta: 0.3." in out
    assert yaml.safe_load(out)["prompt_weight"] == 1
    assert cli.main(["study", "best", str(study), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["then"] == then
