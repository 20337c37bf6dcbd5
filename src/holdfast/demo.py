"""``holdfast demo``: the study that ships with the package, then its report. No network, a few minutes on two cores.

In: nothing but the package. Out: a study directory with ``report.html`` in it; on stdout a story in this order: one
question in several wordings, how often the answer changes, which weights are best and what luck would have sold, the
one thing that is decided, cross-task prompting, the test scores, what to do next, and the path to open.
"""

from __future__ import annotations

import statistics
import sys
import textwrap
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

from holdfast import lm as models
from holdfast import pocket, runs
from holdfast.config import DemoConfig, ReportConfig, SensitivityConfig, StudyConfig
from holdfast.crosstask.showcase import zero_shot_against_cross_task
from holdfast.report import report
from holdfast.runs import read_json, write_json
from holdfast.sensitivity import measure
from holdfast.stats import paired_t
from holdfast.study import run
from holdfast.study.outcomes import item_values, read_rows
from holdfast.tables import MORE_TABLES, lines, with_tables
from holdfast.tables.demo import sentences


def demo(config: DemoConfig) -> dict[str, Any]:
    """Run the study, ask 120 questions in several wordings before and after tuning, and make the report.

    Returns ``study`` (its summary), ``scores`` (by setting and seed), ``wording`` (both models on one question, and how
    many answers change), ``decided`` (the one question that was asked before anything was trained), ``cross_task``,
    ``tables`` and ``table`` (the same as lines of text), and ``report``, the path of the page.

    A demo that is there is shown again, not repeated.

    Raises:
        HoldfastError: --output holds something else.
    """
    output = Path(config.output)
    study = _complete(config) or run(
        StudyConfig(
            study="pocket",
            output=config.output,
            limit=config.limit,
            seed=config.seed,
            overwrite=config.overwrite,
            dry_run=config.dry_run,
            calibrate=0,
            json=config.json or not config.dry_run,  # the demo prints a story of its own
        )
    )
    if config.dry_run:
        return {"command": "demo", **study}
    summary = {"command": "demo", "study": study, "scores": scores(output), "wording": _wording(output, study)}
    summary |= {"decided": _decided(output), "cross_task": _cross_task(output / "cross_task.json")}
    summary = with_tables(summary)
    write_json(output / MORE_TABLES, summary["tables"])
    asked = [str(output / WORDING / name) for name in ("base", "tuned") if summary["wording"]]
    directories = [config.output, *asked]
    page = report(
        ReportConfig(directories=directories, output=str(output / "report.html"), title="Holdfast demo", json=True)
    )["path"]
    table = lines(summary)
    if not config.json:
        print("\n".join([_told(summary), "", *NEXT, "", page]))
    return summary | {"table": table.splitlines(), "report": page}


def _complete(config: DemoConfig) -> dict[str, Any] | None:
    """Return the summary of the same demo that has ended. It is shown again as it is, though a later version may train
    at more seeds.
    """
    folder = Path(config.output)
    if config.overwrite or config.dry_run or not (folder / "summary.json").is_file():
        return None
    asked = read_json(folder / "config.json").get("config") or {}
    if (asked.get("study"), asked.get("limit"), asked.get("seed")) != ("pocket", config.limit, config.seed):
        return None
    summary: dict[str, Any] = read_json(folder / "summary.json")
    return summary


WORDING = "wording"
"""Folder of the two sensitivity runs, in the study directory."""
QUESTION = "opposite-0"
"""The question that is shown: the first of a task whose wordings are short. Named before anything was measured."""
NEXT = (
    "Next, on your own model and data:",
    "  holdfast sensitivity run --model MODEL --prompts questions.jsonl --output runs/wording",
    "  holdfast tune --model MODEL --data rows.jsonl --prompt-weight 0.1 --output runs/tuned --dry-run",
    "  holdfast study plan study.yaml",
)


def _told(summary: dict[str, Any]) -> str:
    """Return the story for the terminal: the question, what may be said, and the scores it rests on."""
    parts = [lines(summary, "One question")]
    for question, answer in sentences(summary):
        wrapped = textwrap.wrap(answer, 110, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False)
        parts.append("\n".join([question, *wrapped]))
    return "\n\n".join([*parts, lines(summary, "Test scores")])


def _wording(output: Path, study: dict[str, Any]) -> dict[str, Any] | None:
    """Ask every question of ``pocket:intents`` in its wordings, of the base model and of the setting that was chosen on
    dev (its first seed). The runs are kept, and shown again. None where the tuned model is gone.
    """
    selection = next(iter(study["groups"].values()))["selection"]
    setting = selection["chosen"]
    trial = min(
        (row for row in read_rows(output) if row.get("status") == "done" and row.get("setting_name") == setting),
        key=lambda row: row["seed"],
    )["trial"]
    if not (output / "trials" / trial / "model").is_dir():
        return None
    models = {"base": "pocket", "tuned": str(output / "trials" / trial)}
    result: dict[str, Any] = {"setting": setting}
    answers: dict[str, list[dict[str, Any]]] = {}
    for name, model in models.items():
        folder = output / WORDING / name
        summary = _asked(folder, model, output / "logs" / f"wording-{name}.txt")
        changed = summary["changed"]
        result[name] = {"sets": changed["sets"], "changed": changed["changed"]}
        result[name]["posix"] = summary["posix"]["all"]["mean"]
        rows = runs.read_rows(folder / "rows.jsonl")
        answers[name] = next(row["variants"] for row in rows if row["set_id"] == QUESTION)
    prompts = [row for row in runs.read_rows(output / WORDING / "base" / "sets.jsonl") if row["set_id"] == QUESTION]
    rows = [
        {"prompt": prompt["prompt"], "base": base["answer"] or "", "tuned": tuned["answer"] or ""}
        for prompt, base, tuned in zip(prompts, answers["base"], answers["tuned"], strict=True)
    ]
    return result | {"question": {"set_id": QUESTION, "target": prompts[0]["target"], "show": 5, "rows": rows}}


def _asked(folder: Path, model: str, log: Path) -> dict[str, Any]:
    """Return the summary of a run over ``pocket:intents``: the one that is there (the folder may have been moved, and
    its models with it), or a new one. What it says while it runs goes into the log.
    """
    if (folder / "summary.json").is_file():
        stored: dict[str, Any] = read_json(folder / "summary.json")
        return stored
    print(f"asking 120 questions in eight wordings each: {folder.name} model", file=sys.stderr)
    options = {"model": model, "sets": "pocket:intents", "chat": True, "max_new_tokens": 12, "output": str(folder)}
    with log.open("a", encoding="utf-8") as stream, redirect_stderr(stream):
        return measure(SensitivityConfig(**options))  # type: ignore[arg-type]


def _decided(output: Path) -> dict[str, Any]:
    """Return what the weights (1, 1) change in the prompt NLL of the test split, against (0, 1), seed by seed."""
    by_setting = scores(output)
    after = [seed["prompt_nll"] for seed in by_setting["(1, 1)"]]
    before = [seed["prompt_nll"] for seed in by_setting["(0, 1)"]]
    test = paired_t(after, before)
    ends = {key: test[key] / 100 if len(after) > 1 else None for key in ("low", "high")}
    return {
        "setting": "(1, 1)",
        "conventional": "(0, 1)",
        "difference": test["difference"] / 100,
        **ends,
        "seeds": len(after),
    }


def scores(study: Path) -> dict[str, list[dict[str, float]]]:
    """Return the scores on the test split by setting, one dict per seed; the base model is a setting of its own."""
    groups: dict[str, list[dict[str, float]]] = {}
    for row in read_rows(study):
        if row.get("status") == "done":
            groups.setdefault(row.get("setting_name", "base model"), []).append(row["test"] | _by_wording(row, study))
    return groups


def _by_wording(row: dict[str, Any], study: Path) -> dict[str, float]:
    """Return the shares of exact answers on new items, in wordings of the training and in wordings never trained on."""
    right = item_values(row, "test", "exact_match", study)
    assert right is not None
    hits: dict[bool, list[float]] = {False: [], True: []}
    for hit, item in zip(right, pocket.rows("pocket:instructions/test"), strict=False):
        hits[item["held_out_wording"]].append(float(hit))
    return {"new items": statistics.fmean(hits[False]), "new wordings": statistics.fmean(hits[True])}


def _cross_task(file: Path) -> dict[str, Any]:
    """Return what the embedded model, untuned, makes of examples of other tasks. The result is kept in a file, as it
    does not depend on the study.
    """
    if not file.is_file():
        write_json(file, zero_shot_against_cross_task(models.load("pocket")))
    transfer: dict[str, Any] = read_json(file)
    return transfer
