"""``holdfast bench run``, top to bottom: config -> tasks -> answers -> judge -> rows, scores, run directory.

OUTPUT/rows.jsonl      one row per item
OUTPUT/lm-eval/        results.json and samples_*.jsonl, as the harness writes them
OUTPUT/alpaca_eval/    answers and verdicts
OUTPUT/mt_bench/       answers and grades, in FastChat's files
OUTPUT/cache*.db       answers so far, so that a killed run continues
"""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, TextIO

from holdfast import http, runs
from holdfast import lm as models
from holdfast.bench import harness, judges, openended
from holdfast.bench.items import RAW, Row, Score, benchmark_scores, item_rows, main_metric, remarks, task_scores
from holdfast.bench.local import digest
from holdfast.bench.suites import OPEN_ENDED, PAPER, Pin, chosen
from holdfast.config import BenchConfig
from holdfast.data.chat_template import template_for
from holdfast.errors import HoldfastError
from holdfast.progress import begin, end
from holdfast.runs import Run, RunDir, write_text
from holdfast.stats import FEW
from holdfast.tables import lines, with_tables
from holdfast.tables.text import counted

_LISTED = 12


def run(config: BenchConfig) -> dict[str, Any]:
    """Measure a model on benchmarks and write a run directory.

    Returns:
        The summary: the pinned score of every benchmark, all scores by task and metric with 95 % intervals, averages,
        and what was pinned. It is that of the run in ``config.output`` if that is complete and model and data are the
        same. Of an incomplete run, items that have answers are not asked again.

    Raises:
        HoldfastError: bad input (nothing has been written then), or a judge that failed (its verdicts so far are kept).

    >>> from holdfast.bench import BenchConfig, run
    >>> summary = run(BenchConfig(model="pocket", tasks="my_sums", data_dir="tasks", template="none",
    ...     output="runs/bench"))
    >>> summary["benchmarks"]["my_sums"]["n"]
    6
    """
    pins = chosen(config.suite, config.tasks)
    _check(config)
    with runs.command(config, "bench run") as run:
        closed, opened = [p for p in pins if p.task not in OPEN_ENDED], [p for p in pins if p.task in OPEN_ENDED]
        if closed:
            harness.check_extra(closed)
        questions = {pin.task: openended.read(pin.task, config) for pin in opened}
        for name, asked in questions.items():
            judges.check_judge(name, asked, config)
        tokenizer = models.load_tokenizer(config.model, trust_remote_code=config.trust_remote_code)
        template = template_for(config.model, config.template, tokenizer)
        settings = harness.Settings(
            template, run.path, config.data_dir, config.limit, config.seed, config.batch_size, config.max_new_tokens
        )  # fmt: skip
        if config.dry_run:
            return _preview(closed, questions, settings, tokenizer, sys.stderr if config.json else sys.stdout)
        with tempfile.TemporaryDirectory() as folder:  # nothing is written to --output before a model is there
            loaded = harness.find_tasks(closed, replace(settings, folder=Path(folder))) if closed else {}
            return _run(config, pins, loaded, Path(folder), questions, settings, run)


def _run(
    config: BenchConfig,
    pins: list[Pin],
    loaded: dict[str, Any],
    folder: Path,
    questions: dict[str, Any],
    settings: harness.Settings,
    out: Run,
) -> dict[str, Any]:
    """Load the model, measure it and write the run. ``loaded``: the harness's tasks; ``folder`` has their files."""
    closed, template = [pin for pin in pins if pin.task not in OPEN_ENDED], settings.template
    lm = models.load(config.model, trust_remote_code=config.trust_remote_code)
    resolved = _resolved(config, closed, lm, template)
    if summary := out.finished(resolved=resolved):
        return summary
    out.open(resolved)
    begin(_start(lm, template, loaded, questions, config))
    started = time.perf_counter()
    if closed:
        harness.keep_files(loaded, folder, out.path)
    cached = replace(settings, cache=str(out.path / f"cache-{resolved['model_sha'][:12]}"))
    rows, scores, benchmarks, notes = _closed(closed, loaded, lm, cached, out)
    for name, asked in questions.items():
        answers = openended.answer(name, asked, lm, template, out, config, resolved["model_sha"])
        answer_rows, remark = judges.judge(name, asked, answers, out, config)
        rows += answer_rows
        benchmarks[name] = [row["task"] for row in answer_rows[:1]]
        notes += remark
    about = {"resolved": resolved, "notes": notes, "seconds": time.perf_counter() - started}
    return _write(out, config, pins, rows, scores, benchmarks, about)


def _check(config: BenchConfig) -> None:
    if config.data_dir is not None and not Path(config.data_dir).is_dir():
        raise HoldfastError(f"--data-dir {config.data_dir}: no such folder")
    if (config.judge_url is None) != (config.judge_model is None):
        raise HoldfastError("a judge needs both --judge-url and --judge-model")
    if config.judge_url is not None:
        http.check_address(config.judge_url, "--judge-url")
        http.api_key("OPENAI_API_KEY")


def _resolved(config: BenchConfig, closed: list[Pin], lm: models.LM, template: str) -> dict[str, Any]:
    from importlib.metadata import version

    from holdfast.sensitivity.identity import tokenizer_digest, weights_digest

    return {
        "harness": version("lm-eval") if closed else None,
        # Older runs took means where the harness does not, so a run without this mark is scored anew.
        "values": "the harness's own" if closed else None,
        "template": template,
        "model_sha": hashlib.sha256((weights_digest(lm.model) + tokenizer_digest(lm.tokenizer)).encode()).hexdigest(),
        "data_sha": digest(config.data_dir),
        "judge": config.judge_model,
    }


def _closed(
    pins: list[Pin], loaded: dict[str, Any], lm: models.LM, settings: harness.Settings, out: RunDir
) -> tuple[list[Row], dict[str, dict[str, Score]], dict[str, list[str]], list[str]]:
    """Return rows and scores of the harness's tasks, the tasks of each benchmark, and notes for the reader."""
    if not pins:
        return [], {}, {}, []
    results = harness.evaluate(lm, loaded, settings)
    _write_harness_files(out.path / "lm-eval", results)
    rows = item_rows(results)
    tasks = loaded["tasks"]
    settled = {name: _settled(task) for name, task in tasks.items()}
    write_text(out.path / "lm-eval" / "tasks.json", json.dumps(settled, indent=1, default=str) + "\n")
    for row in rows:
        row |= {"version": str(settled[row["task"]]["version"]), "shots": settled[row["task"]].get("num_fewshot") or 0}
    scores, notes = _scored(pins, rows, results, loaded, settings.seed)
    for row in rows:
        del row[RAW]
    # A rolling log-likelihood reads a text in windows, so nothing of it is cut.
    asked = [row for row in rows if tasks[row["task"]].OUTPUT_TYPE != "loglikelihood_rolling"]
    return rows, scores, loaded["benchmarks"], [*notes, *_cut(asked, lm)]


def _settled(task: Any) -> dict[str, Any]:
    """Return the options of a task that say what was asked, and its version."""
    names = {"version", "num_fewshot", "dataset_path", "dataset_name", "generation_kwargs"}
    options = {name: value for name, value in task.dump_config().items() if name in names}
    return options | {"version": task.VERSION}


def _scored(
    pins: list[Pin], rows: list[Row], results: dict[str, Any], loaded: dict[str, Any], seed: int
) -> tuple[dict[str, dict[str, Score]], list[str]]:
    """Return the scores of every benchmark and of every task in it, and notes for the reader."""
    scores: dict[str, dict[str, Score]] = {}
    notes: dict[str, None] = {}
    for pin in pins:
        tasks = loaded["benchmarks"][pin.task]
        for name in dict.fromkeys([pin.task, *tasks]):
            own = [row for row in rows if row["task"] in (tasks if name == pin.task else (name,))]
            if name not in scores:
                scores[name] = benchmark_scores(name, own, results, loaded, seed)
        own = [row for row in rows if row["task"] in tasks]
        notes |= dict.fromkeys(remarks(pin.task, main_metric(pin, own), scores, own, results, loaded))
    return scores, list(notes)


def _cut(rows: list[Row], lm: models.LM) -> list[str]:
    """Return a note on how many prompts the harness cut from the left, which it does without saying so."""
    prompts = [row["prompt"] for row in rows]
    ids = lm.tokenizer(prompts, add_special_tokens=False, verbose=False)["input_ids"]
    long = sum(len(one) >= lm.context for one in ids)
    note = (
        f"{long} of {counted(len(rows), 'prompt')} are longer than the model's {lm.context} tokens "
        "and were cut from the left"
    )
    return [note] if long else []


def _write_harness_files(folder: Path, results: dict[str, Any]) -> None:
    from lm_eval.utils import handle_non_serializable

    folder.mkdir(parents=True, exist_ok=True)
    for task, samples in results["samples"].items():
        lines = (json.dumps(sample, default=handle_non_serializable, ensure_ascii=False) + "\n" for sample in samples)
        write_text(folder / f"samples_{task}.jsonl", "".join(lines))
    whole = {key: value for key, value in results.items() if key not in ("samples", "failed")}
    write_text(
        folder / "results.json", json.dumps(whole, indent=1, default=handle_non_serializable, ensure_ascii=False) + "\n"
    )


def _write(
    out: RunDir,
    config: BenchConfig,
    pins: list[Pin],
    rows: list[Row],
    scores: dict[str, dict[str, Score]],
    benchmarks: dict[str, list[str]],
    about: dict[str, Any],
) -> dict[str, Any]:
    for row in rows:
        owners = [name for name, tasks in benchmarks.items() if row["task"] in tasks]
        row |= {"benchmark": owners[0]} | ({"benchmarks": owners} if len(owners) > 1 else {})
    write_text(out.rows, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    results: dict[str, Any] = {}
    for pin in pins:
        own = [row for row in rows if row["task"] in benchmarks[pin.task]]
        if pin.task not in scores:
            scores[pin.task] = task_scores(own, config.seed)
        metric = main_metric(pin, own)
        score = scores[pin.task].get(metric)
        results[pin.task] = {"metric": metric, "choice": pin.choice} | (score or {"value": None, "n": 0})
    means = averages(results)
    if means.get("left_out"):
        about["notes"].append(
            f"the average of the benchmarks leaves out what is no share of 1: {', '.join(means['left_out'])}"
        )
    for note in about["notes"]:
        print(f"note: {note}", file=sys.stderr)
    summary = with_tables({
        "command": "bench run",
        "model": config.model,
        "benchmarks": results,
        "averages": means,
        "items": len(rows),
        "scores": {task: by_metric for task, by_metric in scores.items() if by_metric},
        **about,
    })  # fmt: skip
    print(lines(summary, "Benchmarks"), file=sys.stderr)
    summary = out.finish(summary)
    end(finding(results), out.path)
    return summary


def _start(
    lm: models.LM, template: str, loaded: dict[str, Any], questions: dict[str, Any], config: BenchConfig
) -> list[str]:
    """Return what is said before a model is asked."""
    asked = [f"{name} ({counted(len(one), 'question')})" for name, one in questions.items()]
    tasks = [f"{name} ({counted(_items(task, config), 'item')})" for name, task in loaded.get("tasks", {}).items()]
    listed = [*tasks, *asked]
    more = f" and {len(listed) - _LISTED} more" if len(listed) > _LISTED else ""
    parameters = sum(parameter.numel() for parameter in lm.model.parameters())
    return [
        f"model {config.model}: {counted(parameters, 'parameter')}; {lm.model.device}, "
        f"{str(lm.model.dtype).removeprefix('torch.')}; template {template}",
        f"benchmarks: {', '.join(listed[:_LISTED])}{more}",
    ]


def _items(task: Any, config: BenchConfig) -> int:
    return min(len(task.eval_docs), config.limit or len(task.eval_docs))


def finding(results: dict[str, Any]) -> str:
    """Return what the scores are good for, and which rest on few items."""
    few = [f"{name} ({r['n']:,})" for name, r in results.items() if r["n"] < FEW]
    items = sum(r["n"] for r in results.values())
    wide = f"; few items, so wide intervals: {', '.join(few)}" if few else ""
    text = f"{counted(len(results), 'benchmark')} on {counted(items, 'item')}{wide}"
    return f"{text}; holdfast bench compare says whether another model is better, beyond chance"


def averages(results: dict[str, Any]) -> dict[str, Any]:
    """Return the mean of the benchmarks that have a score, in percent; a rating of 1-10 counts ten times.

    Where all five of the paper are there, its own average is returned, too: their sum over four, which is 1.25 times
    their mean. Scores that are not shares of 1, or better when lower, such as a perplexity, are left out and named.
    """
    scored = {task: r for task, r in results.items() if r["value"] is not None}
    out = [task for task, r in scored.items() if not r.get("share", True) or r.get("higher_is_better") is False]
    percent = {
        task: float(r["value"]) * (10 if r["metric"] == "rating" else 100)
        for task, r in scored.items()
        if task not in out
    }
    means: dict[str, Any] = {"mean": sum(percent.values()) / len(percent) if percent else None, "of": list(percent)}
    if out:
        means["left_out"] = out
    if all(pin.task in percent for pin in PAPER):
        means["paper_average"] = sum(percent[pin.task] for pin in PAPER) / 4
    return means


def _preview(
    closed: list[Pin], questions: dict[str, Any], settings: harness.Settings, tokenizer: Any, out: TextIO
) -> dict[str, Any]:
    """Print the first prompt of every benchmark as the model will see it; return how many items there are."""
    figures: dict[str, Any] = {"command": "bench run", "template": settings.template, "benchmarks": {}}
    with tempfile.TemporaryDirectory() as folder:
        for pin in closed:
            first, counts = harness.preview(pin, replace(settings, folder=Path(folder)), tokenizer)
            print(f"--- {pin.task}\n{first}", file=out)
            figures["benchmarks"][pin.task] = counts
    for name, asked in questions.items():
        print(f"--- {name}\n{openended.first_prompt(asked, settings.template, tokenizer)}", file=out)
        figures["benchmarks"][name] = {"items": len(asked), "turns": sum(len(q.turns) for q in asked)}
    return figures
