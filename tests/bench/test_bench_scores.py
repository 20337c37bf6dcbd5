"""Every score of ``bench run`` is the harness's own, however a task makes one number of its items; and those of compare
and studies.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("lm_eval", reason="lm-evaluation-harness is not installed: pip install 'holdfast[bench]'")

from bench_tasks import ITEMS, metrics, write_group, write_task, write_tasks
from holdfast.bench import compare, harness_scores, run
from holdfast.bench.pipeline import finding
from holdfast.cli import main
from holdfast.config import BenchCompareConfig, BenchConfig
from holdfast.errors import HoldfastError
from materials import make_model, make_tokenizer, write_jsonl
from study_case import make_case, rows_of, run_study

OURS = ("empty", "words")
"""Of generated answers; the harness has no such metrics."""
ALL = "t_labels,t_likely,t_text,t_filtered,t_several,t_median,t_rolling,g_by_size,g_alike,g_plain,g_nested"


def save_model(folder: Path, seed: int) -> str:
    make_model(seed=seed).save_pretrained(folder)
    tokenizer = make_tokenizer(chat_template=None)
    tokenizer.model_max_length = 128
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models, the tasks, and a run of each model over all tasks."""
    folder = tmp_path_factory.mktemp("scores")
    write_tasks(folder / "tasks")
    for name, seed in (("a", 0), ("b", 3)):
        model = save_model(folder / f"model-{name}", seed)
        run(BenchConfig(model=model, tasks=ALL, data_dir=str(folder / "tasks"), output=str(folder / name)))
    return folder


def read(run_folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    summary = json.loads((run_folder / "summary.json").read_text())
    return summary, json.loads((run_folder / "lm-eval" / "results.json").read_text())["results"]


def correlation(pairs: np.ndarray) -> float:
    """Matthews's, of labels and guesses that are 0 or 1: Pearson's, and 0 where one of them never changes."""
    gold, guess = pairs.T
    return float(np.corrcoef(gold, guess)[0, 1]) if gold.std() and guess.std() else 0.0


def test_every_score_is_the_harness_s_own(world: Path) -> None:
    summary, results = read(world / "a")
    compared = 0
    for task, scores in summary["scores"].items():
        for metric, score in scores.items():
            if metric in results[task]:
                assert score["value"] == results[task][metric], (task, metric)
                compared += 1
            else:
                assert metric in OURS or task in ("g_plain", "g_nested"), (task, metric)
    wanted = {(t, m) for t, found in results.items() for m, v in found.items() if "," in m and "_stderr" not in m}
    assert compared == len(wanted) == len({(t, m) for t, m in wanted if m in summary["scores"][t]})
    assert {m for t, m in wanted} >= {
        "mcc,none",
        "f1,none",
        "perplexity,none",
        "chrf,none",
        "word_perplexity,none",
        "parts,none",
    }
    assert summary["scores"]["t_labels"]["mcc,none"]["n"] == ITEMS


def test_a_plain_model_of_the_harness_says_the_same(world: Path) -> None:
    """Same model, tasks and settings through the harness alone: ``HFLM`` and ``evaluate``."""
    import transformers
    from lm_eval.evaluator import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    from holdfast.lm import load

    model = transformers.AutoModelForCausalLM.from_pretrained(world / "model-a")
    tokenizer = transformers.AutoTokenizer.from_pretrained(world / "model-a")
    plain = HFLM(
        pretrained=model,
        tokenizer=tokenizer,
        batch_size=4,
        max_length=load(str(world / "model-a")).context,
        device="cpu",
    )
    manager = TaskManager(include_path=str(world / "tasks"), include_defaults=False)
    summary, _ = read(world / "a")
    for task in ("t_likely", "t_rolling", "t_text", "g_by_size", "g_alike"):
        theirs = simple_evaluate(plain, tasks=[task], task_manager=manager, bootstrap_iters=0)["results"][task]
        for metric, score in summary["scores"][task].items():
            if metric in theirs:
                assert score["value"] == pytest.approx(theirs[metric], rel=1e-4), (task, metric)


def test_n_counts_items_and_values_are_said_beside_it(world: Path) -> None:
    summary, _ = read(world / "a")
    rows = [json.loads(line) for line in (world / "a" / "rows.jsonl").read_text().splitlines()]
    assert len(rows) == summary["items"] == 6 * ITEMS + 6 + 4
    checks = summary["scores"]["t_several"]["checks,none"]
    assert (checks["n"], checks["values"]) == (ITEMS, 60)
    assert summary["scores"]["t_several"]["now_and_then,none"]["n"] == 8
    assert summary["scores"]["t_rolling"]["word_perplexity,none"]["n"] == 4
    assert summary["scores"]["g_by_size"]["acc,none"]["n"] == ITEMS + 6


def test_intervals_come_from_items_through_the_task_s_own_aggregation(world: Path) -> None:
    summary, _ = read(world / "a")
    rows = [json.loads(line) for line in (world / "a" / "rows.jsonl").read_text().splitlines()]
    pairs = np.array([row["scores"]["mcc,none"] for row in rows if row["task"] == "t_labels"])
    rng = np.random.default_rng(1)
    draws = [correlation(pairs[rng.integers(0, ITEMS, ITEMS)]) for _ in range(2000)]
    mcc = summary["scores"]["t_labels"]["mcc,none"]
    assert mcc["value"] == pytest.approx(correlation(pairs))
    assert (mcc["low"], mcc["high"]) == pytest.approx(tuple(np.quantile(draws, (0.025, 0.975))), abs=0.08)
    for task in ("t_labels", "t_likely", "t_text", "t_rolling", "t_several", "g_alike"):
        for metric, score in summary["scores"][task].items():
            if score["low"] is not None:
                assert score["low"] <= score["value"] <= score["high"], (task, metric)
                assert score["low"] < score["high"] or metric.startswith("words"), (task, metric)
    likely = summary["scores"]["t_likely"]["perplexity,none"]
    assert likely["higher_is_better"] is False
    assert likely["low"] < likely["value"] < likely["high"]


def test_averages_hold_shares_only(world: Path) -> None:
    """A perplexity of 10^24 in percent is no part of a mean, nor is a chrF that counts to 100 already."""
    averages = read(world / "a")[0]["averages"]
    assert set(averages["of"]) == {"t_labels", "t_filtered", "t_several", "g_by_size", "g_alike", "g_plain", "g_nested"}
    assert set(averages["left_out"]) == {"t_likely", "t_text", "t_median", "t_rolling"}


def test_compare_draws_items_in_pairs_through_the_aggregation(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = compare(BenchCompareConfig(run_a=str(world / "a"), run_b=str(world / "b"), bootstrap=500))["benchmarks"]
    said = capsys.readouterr().err
    (a, _), (b, _) = read(world / "a"), read(world / "b")
    for name, c in found.items():
        assert c["a"] == pytest.approx(a["benchmarks"][name]["value"]), name
        assert c["b"] == pytest.approx(b["benchmarks"][name]["value"]), name
        assert c["difference"] == pytest.approx(c["b"] - c["a"]), name
    likely = found["t_likely"]
    assert likely["low"] <= likely["difference"] <= likely["high"]
    assert 0 < likely["p"] <= 1
    assert likely["higher_is_better"] is False
    line = next(line for line in said.splitlines() if line.split()[:1] == ["t_likely"])
    assert "lower is better" in line


def test_what_is_the_same_is_not_a_difference(world: Path) -> None:
    found = compare(BenchCompareConfig(run_a=str(world / "a"), run_b=str(world / "a"), bootstrap=200))["benchmarks"]
    for name, c in found.items():
        assert c["difference"] == 0, name
        assert c["p"] in (1.0, None), name


def test_a_function_of_the_task_s_own_is_compared_without_a_test(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_tasks(tmp_path / "tasks")
    own = "def several(doc, results):\n    return {'parts': {'length': len(results[0]), 'n': 0}}\n\n\n"
    own += "def longest(items):\n    return max(item['length'] for item in items)\n"
    (folder / "functions.py").write_text(own)
    write_task(folder, "t_own", {
        "output_type": "generate_until", "doc_to_text": "{{q}}", "doc_to_target": "{{a}}", "process_results": "several",
        "generation_kwargs": {"until": ["\n"], "max_gen_toks": 4},
        "metric_list": [{"metric": "parts", "aggregation": "longest", "higher_is_better": False}],
    })  # fmt: skip
    for name in ("a", "b"):
        run(
            BenchConfig(
                model=str(world / f"model-{name}"), tasks="t_own", data_dir=str(folder), output=str(tmp_path / name)
            )
        )
    values = [
        json.loads((tmp_path / name / "summary.json").read_text())["scores"]["t_own"]["parts,none"]["value"]
        for name in ("a", "b")
    ]
    capsys.readouterr()
    found = compare(BenchCompareConfig(run_a=str(tmp_path / "a"), run_b=str(tmp_path / "b")))["benchmarks"]["t_own"]
    assert [found["a"], found["b"]] == values
    assert (found["p"], found["low"], found["high"]) == (None, None, None)
    assert "no test" in capsys.readouterr().err


def test_a_run_of_before_that_averaged_is_not_compared_as_if_it_were_right(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from bench_tasks import a_run

    a = a_run(tmp_path / "a", [[0.0, 1.0], [1.0, 1.0]] * 8, metric="mcc,none")
    b = a_run(tmp_path / "b", [[0.0, 0.0], [1.0, 0.0]] * 8, metric="mcc,none")
    found = compare(BenchCompareConfig(run_a=a, run_b=b))["benchmarks"]["t"]
    assert (found["difference"], found["p"]) == (None, None)
    assert "measure it again" in capsys.readouterr().err


@pytest.mark.parametrize("order", ["t_pick,g_pick_alone,t_chosen,g_picks", "g_picks,g_pick_alone,t_pick,t_chosen"])
def test_a_task_of_two_benchmarks_counts_in_both(order: str, world: Path, tmp_path: Path) -> None:
    model, data = str(world / "model-a"), str(world / "tasks")
    summary = run(BenchConfig(model=model, tasks=order, data_dir=data, output=str(tmp_path / "both")))
    sizes = {name: 2 * ITEMS if name == "g_picks" else ITEMS for name in order.split(",")}
    assert {name: summary["benchmarks"][name]["n"] for name in sizes} == sizes
    alone = run(BenchConfig(model=model, tasks="g_picks", data_dir=data, output=str(tmp_path / "alone")))
    assert summary["benchmarks"]["g_picks"] == alone["benchmarks"]["g_picks"]
    rows = [json.loads(line) for line in (tmp_path / "both" / "rows.jsonl").read_text().splitlines()]
    assert len(rows) == 2 * ITEMS
    same = compare(BenchCompareConfig(run_a=str(tmp_path / "both"), run_b=str(tmp_path / "both"), bootstrap=100))[
        "benchmarks"
    ]
    assert {name: c["items"] for name, c in same.items()} == sizes


def test_a_task_with_functions_of_its_own_may_be_in_two_benchmarks(world: Path, tmp_path: Path) -> None:
    model, data = str(world / "model-a"), str(world / "tasks")
    summary = run(BenchConfig(model=model, tasks="t_several,g_own", data_dir=data, output=str(tmp_path / "run")))
    own = [summary["scores"][name]["checks,none"] for name in ("t_several", "g_own")]
    assert own[0]["value"] == own[1]["value"]
    assert {score["n"] for score in own} == {ITEMS}
    assert summary["scores"]["g_own"]["exact_match,flexible"]["n"] == ITEMS


def test_a_complete_run_of_before_is_scored_anew_and_not_asked_again(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import transformers

    config = BenchConfig(
        model=str(world / "model-a"), tasks="t_likely", data_dir=str(world / "tasks"), output=str(tmp_path / "run")
    )
    before = run(config)
    file = tmp_path / "run" / "summary.json"
    old = json.loads(file.read_text())
    del old["resolved"]["values"]
    old["scores"]["t_likely"]["perplexity,none"]["value"] = -56.6
    file.write_text(json.dumps(old))
    monkeypatch.setattr(transformers.LlamaForCausalLM, "forward", lambda *_, **__: pytest.fail("asked again"))
    assert run(config)["scores"] == before["scores"]


def test_a_tag_is_a_benchmark_of_its_tasks(world: Path, tmp_path: Path) -> None:
    folder = write_tasks(tmp_path / "tasks")
    for name in ("t_one", "t_two"):
        write_task(folder, name, {
            "tag": "all_of_it", "output_type": "multiple_choice", "doc_to_text": "{{q}}", "doc_to_target": "{{gold}}",
            "doc_to_choice": ["yes", "no"], "metric_list": metrics("acc"),
        })  # fmt: skip
    config = BenchConfig(
        model=str(world / "model-a"), tasks="all_of_it,t_two", data_dir=str(folder), output=str(tmp_path / "run")
    )
    summary = run(config)
    assert summary["benchmarks"]["all_of_it"]["n"] == 2 * ITEMS
    assert summary["benchmarks"]["t_two"]["n"] == ITEMS


def test_one_task_asked_for_in_two_ways_is_refused(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_tasks(tmp_path / "tasks")
    (folder / "shots.yaml").write_text("group: g_shots\ntask:\n- task: t_few\n  num_fewshot: 2\n")
    asked = ["--tasks", "t_few,g_shots", "--data-dir", str(folder), "--output", str(tmp_path / "run")]
    assert main(["bench", "run", "--model", str(world / "model-a"), *asked]) == 2
    assert "t_few" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_an_aggregation_that_fails_costs_its_own_score_only(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_group(folder := write_tasks(tmp_path / "tasks"), "g_broken", ["t_broken", "t_few"], weighted=True)
    asked = "t_broken,t_pair,t_few,g_broken"
    summary = run(
        BenchConfig(model=str(world / "model-a"), tasks=asked, data_dir=str(folder), output=str(tmp_path / "run"))
    )
    assert "acc,none" not in summary["scores"]["t_broken"]
    assert "acc_norm,none" in summary["scores"]["t_broken"]
    assert "acc,none" in summary["scores"]["t_few"]
    assert "acc,none" not in summary["scores"].get("g_broken", {})  # not that of the one task that is left
    assert summary["benchmarks"]["t_broken"]["value"] is None
    assert summary["benchmarks"]["t_pair"]["value"] is None
    said = capsys.readouterr().err
    assert "nothing to divide by" in said
    assert "t_pair acc,none" in said
    assert (tmp_path / "run" / "lm-eval" / "samples_t_few.jsonl").exists()


def test_scoring_that_fails_costs_its_own_task_only(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_tasks(tmp_path / "tasks")
    (folder / "functions.py").write_text(
        (folder / "functions.py").read_text()
        + "\ndef several(doc, results):\n    return {'checks': [1 / (int(doc['n']) - 20)]}\n"
    )
    summary = run(
        BenchConfig(
            model=str(world / "model-a"), tasks="t_several,t_few", data_dir=str(folder), output=str(tmp_path / "run")
        )
    )
    assert summary["benchmarks"]["t_several"]["value"] is None
    assert summary["benchmarks"]["t_few"]["n"] == 6
    assert "division by zero" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("functions", "task", "says"),
    [
        ("import no_such_package\n", {"process_results": "several"}, "no_such_package"),
        ("def several(doc, results):\n    import no_such_package\n", {"process_results": "several"}, "no_such_package"),
        (
            "def flat(items):\n    import no_such_package\n",
            {"metric_list": [{"metric": "acc", "aggregation": "flat"}]},
            "no_such_package",
        ),
        (
            "def several(doc, results):\n    import nltk\n    nltk.data.find('tokenizers/no_such_data')\n",
            {"process_results": "several"},
            "no_such_data",
        ),
        (
            "",
            {"metric_list": [{"metric": "no_such_metric", "aggregation": "mean", "higher_is_better": True}]},
            "no_such_metric",
        ),
        ("", {"unsafe_code": True}, "runs code"),
    ],
)
def test_what_cannot_be_read_is_refused_before_a_model_is_loaded(
    functions: str,
    task: dict[str, Any],
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from holdfast import lm

    monkeypatch.setattr(lm, "load", lambda *_, **__: pytest.fail("a model was loaded"))
    folder = write_tasks(tmp_path / "tasks")
    (folder / "functions.py").write_text(functions)
    choice = {
        "output_type": "multiple_choice",
        "doc_to_text": "{{q}}",
        "doc_to_target": "{{gold}}",
        "doc_to_choice": ["yes", "no"],
    }
    write_task(folder, "t_new", choice | {"metric_list": metrics("acc")} | task)
    asked = ["--tasks", "t_new,t_few", "--data-dir", str(folder), "--output", str(tmp_path / "run")]
    assert main(["bench", "run", "--model", "pocket", *asked]) == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_an_answer_without_a_token_is_refused_with_its_prompt(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_tasks(tmp_path / "tasks")
    write_jsonl(folder / "gap.jsonl", [{"q": f"Is {n} more?", "a": "" if n == 3 else "yes"} for n in range(6)])
    task = {"output_type": "loglikelihood", "doc_to_text": "{{q}}", "doc_to_target": "{{a}}", "target_delimiter": ""}
    write_task(folder, "t_gap", task | {"metric_list": metrics("perplexity"), "file": "gap.jsonl"})
    asked = ["--tasks", "t_gap", "--data-dir", str(folder), "--template", "none", "--output", str(tmp_path / "run")]
    assert main(["bench", "run", "--model", "pocket", *asked]) == 2
    assert "an answer is empty after 'Is 3 more?'" in capsys.readouterr().err


def test_rolling_windows_are_the_harness_s(world: Path) -> None:
    """One window and several, short texts that our scorer may take and long ones, with and without its sharing."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    from holdfast.bench.shared import harness_model
    from holdfast.lm import load

    lm = load(str(world / "model-a"))
    texts = ["Red.", "Red and green.", "Name three colours: red, green and blue. " * 20, "Name three colours.", "x"] * 3
    asks = [Instance(request_type="loglikelihood_rolling", doc={}, arguments=(text,), idx=0) for text in texts]
    plain = HFLM(pretrained=lm.model, tokenizer=lm.tokenizer, batch_size=4, max_length=lm.context, device="cpu")
    theirs = plain.loglikelihood_rolling(asks, disable_tqdm=True)
    for sharing in (True, False):
        ours = harness_model(lm, batch_size=4, template="none", sharing=sharing).loglikelihood_rolling(
            asks, disable_tqdm=True
        )
        np.testing.assert_allclose(ours, theirs, rtol=1e-5)


def test_texts_of_rolling_windows_are_not_cut(world: Path) -> None:
    assert not any("cut from the left" in note for note in read(world / "a")[0]["notes"])


def test_halves_for_a_study(world: Path) -> None:
    """Dev is the even items and test the odd ones, each through the task's own aggregation; an item's values stay
    together.
    """
    from lm_eval.api.metrics import matthews_corrcoef, perplexity

    write_task(world / "tasks", "t_mcc", {
        "output_type": "multiple_choice", "doc_to_text": "{{q}}", "doc_to_target": "{{gold}}",
        "doc_to_choice": ["yes", "no"], "metric_list": metrics("mcc"),
    })  # fmt: skip
    found = harness_scores(str(world / "model-a"), ["t_mcc", "t_likely", "t_several"], data_dir=str(world / "tasks"))
    rows = [json.loads(line) for line in (world / "a" / "rows.jsonl").read_text().splitlines()]
    summary, _ = read(world / "a")
    for task, metric, source, function in (
        ("t_mcc", "mcc,none", "t_labels", matthews_corrcoef),
        ("t_likely", "perplexity,none", "t_likely", perplexity),
    ):
        raw = [row["scores"][metric] for row in rows if row["task"] == source]
        assert found[task]["value"] == pytest.approx(summary["scores"][source][metric]["value"], rel=1e-6)
        assert found[task]["items"] is None
        assert [half["value"] for half in found[task]["halves"]] == pytest.approx(
            [function(raw[0::2]), function(raw[1::2])], rel=1e-6
        )
    several = found["t_several"]
    assert len(several["items"]) == ITEMS
    assert np.mean(several["items"]) == pytest.approx(several["value"])
    lists = [row["scores"]["checks,none"] for row in rows if row["task"] == "t_several"]
    for half, own in zip(several["halves"], (lists[0::2], lists[1::2]), strict=True):
        assert half["value"] == pytest.approx(np.mean([v for item in own for v in item]))
        assert len(half["items"]) == ITEMS // 2
        assert np.mean(half["items"]) == pytest.approx(half["value"])


def test_a_study_takes_the_harness_s_value_of_each_split(world: Path, tmp_path: Path) -> None:
    data = str(world / "tasks")
    measures = [
        {"lm_eval:t_likely": {"data_dir": data, "higher_is_better": False}},
        {"lm_eval:t_several": {"data_dir": data}},
    ]
    case = make_case(tmp_path) | {"vary": {"weights": [[0, 1]]}, "seeds": 1, "measure": measures}
    run_study(case, tmp_path / "out")
    base = next(row for row in rows_of(tmp_path / "out") if row["kind"] == "base")
    wanted = harness_scores(case["model"], ["t_likely", "t_several"], data_dir=data)
    for name in ("t_likely", "t_several"):
        for split, half in zip(("dev", "test"), wanted[name]["halves"], strict=True):
            assert base[split][f"lm_eval:{name}"] == pytest.approx(half["value"]), (name, split)
    items = np.load(tmp_path / "out" / base["items"]["dev"])
    assert "lm_eval:t_likely" not in items
    assert len(items["lm_eval:t_several"]) == ITEMS // 2


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"lm_eval:t_likely": {}}, "lower is better"),
        ({"lm_eval:t_labels": {"higher_is_better": False}}, "higher is better"),
        ({"lm_eval:t_labels": {"limit": 1}}, "two items"),
    ],
)
def test_a_study_refuses_before_it_trains(options: dict[str, Any], says: str, world: Path, tmp_path: Path) -> None:
    from study_case import make_case

    ((name, given),) = options.items()
    case = make_case(tmp_path) | {"measure": [{name: given | {"data_dir": str(world / "tasks")}}]}
    with pytest.raises(HoldfastError, match=says):
        run_study(case, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_end_names_benchmarks_of_few_items() -> None:
    text = finding({"big": {"n": 400}, "small": {"n": 6}})
    assert text.startswith("2 benchmarks on 406 items; few items, so wide intervals: small (6)")
    assert "few items" not in finding({"big": {"n": 400}})
