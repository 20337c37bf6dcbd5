"""A folder of small tasks in the harness's own form: every kind of aggregation, of answer and of group; and a
run directory of one benchmark.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from materials import write_jsonl

ITEMS = 30
_WORDS = ["Red", "green", "blue", "three", "France", "capital", "hello", "fine", "Paris", "name"]
_CHOICE = {
    "output_type": "multiple_choice",
    "doc_to_text": "{{q}}",
    "doc_to_target": "{{gold}}",
    "doc_to_choice": ["yes", "no"],
}
_ANSWER = {
    "output_type": "generate_until",
    "doc_to_text": "{{q}}",
    "doc_to_target": "{{a}}",
    "generation_kwargs": {"until": ["\n"], "max_gen_toks": 6, "do_sample": False},
}
_FUNCTIONS = '''
def several(doc, results):
    """Two values of one item, in the ways that tasks of the harness have them: a list of checks, a dict, and what not
    every item has.
    """
    right = len(results[0]) % 2 == 0
    n = int(doc["n"])
    made = {"checks": [right, True, False][: 1 + n % 3], "parts": {"length": len(results[0]), "n": n}}
    return made | ({"now_and_then": 1.0} if int(doc["n"]) % 4 == 0 else {})


def flat(items):
    every = [value for item in items for value in item]
    return sum(every) / len(every)


def longest(items):
    return max(item["length"] + item["n"] for item in items)


def broken(items):
    raise ZeroDivisionError("nothing to divide by")


def pair(items):
    return {"low": min(items), "high": max(items)}
'''


def write_tasks(folder: Path) -> Path:
    """The folder, with its tasks, groups and rows."""
    folder.mkdir(exist_ok=True)
    rows = [
        {"n": n, "q": f"Is {n} more than {n * 7 % 11}?", "gold": n * 5 % 3 % 2, "a": f"one {n} two three four"}
        for n in range(ITEMS)
    ]
    write_jsonl(folder / "rows.jsonl", rows)
    write_jsonl(folder / "few.jsonl", rows[:6])
    texts = [
        {"text": "".join(f"{word} colours and {word}. " for word in _WORDS[n:] * (1 + 2 * (n % 3)))} for n in range(4)
    ]
    write_jsonl(folder / "texts.jsonl", texts)
    (folder / "functions.py").write_text(_FUNCTIONS, encoding="utf-8")
    for name, task in {
        "t_labels": _CHOICE | {"metric_list": metrics("acc", "mcc", "f1", "brier_score")},
        "t_few": _CHOICE | {"metric_list": metrics("acc", "brier_score"), "file": "few.jsonl"},
        "t_likely": _CHOICE
        | {"output_type": "loglikelihood", "doc_to_target": "{{a}}", "metric_list": metrics("perplexity", "acc")},
        "t_text": _ANSWER | {"metric_list": metrics("chrf", "bleu", "ter", "exact_match")},
        "t_filtered": _ANSWER | {"metric_list": metrics("exact_match"), "filter_list": _filters()},
        "t_several": _ANSWER | {"process_results": "several", "metric_list": _own()},
        "t_pick": _CHOICE | {"metric_list": metrics("acc")},
        "t_chosen": _CHOICE | {"doc_to_choice": ["maybe", "never"], "metric_list": metrics("acc")},
        "t_broken": _CHOICE | {"metric_list": [{"metric": "acc", "aggregation": "broken"}, {"metric": "acc_norm"}]},
        "t_pair": _CHOICE | {"metric_list": [{"metric": "acc", "aggregation": "pair"}, {"metric": "acc_norm"}]},
        "t_median": _CHOICE | {"output_type": "loglikelihood", "doc_to_target": "{{a}}"}
        | {"metric_list": [{"metric": "perplexity", "aggregation": "median", "higher_is_better": True}]},
        "t_rolling": {
            "output_type": "loglikelihood_rolling", "doc_to_text": "", "doc_to_target": "{{text}}",
            "file": "texts.jsonl",
        },
    }.items():  # fmt: skip
        write_task(folder, name, task)
    for name, members, weighted in (
        ("g_by_size", ["t_labels", "t_few"], True),
        ("g_alike", ["t_labels", "t_few"], False),
        ("g_plain", ["t_labels", "t_few"], None),
        ("g_nested", ["g_by_size", "t_filtered"], None),
        ("g_picks", ["t_pick", "t_chosen"], None),
        ("g_own", ["t_several", "t_filtered"], None),
        ("g_pick_alone", ["t_pick"], True),
    ):
        write_group(folder, name, members, weighted)
    return folder


def metrics(*names: str) -> list[dict[str, str]]:
    return [{"metric": name} for name in names]


def write_task(folder: Path, name: str, task: dict) -> None:
    task = {"metadata": {"version": 1}} | task
    file = folder / task.pop("file", "rows.jsonl")
    head = {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(file)}},
        "test_split": "test",
    }
    text = yaml.safe_dump(head | task, sort_keys=False)
    for function in ("several", "flat", "longest", "broken", "pair"):  # YAML that the harness alone can read
        for key in ("aggregation", "process_results"):
            text = text.replace(f"{key}: {function}\n", f"{key}: !function functions.{function}\n")
    (folder / f"{name}.yaml").write_text(text, encoding="utf-8")


def write_group(folder: Path, name: str, members: list[str], weighted: bool | None = None) -> None:
    group: dict = {"group": name, "task": members}
    if weighted is not None:
        group["aggregate_metric_list"] = [
            {"metric": metric, "weight_by_size": weighted} for metric in ("acc", "brier_score")
        ]
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(group, sort_keys=False), encoding="utf-8")


def _filters() -> list[dict]:
    takes_first = {"function": "take_first"}  # the harness keeps the first of repeated answers
    number = {"function": "regex", "regex_pattern": r"(\d+)"}
    return [{"name": "strict", "filter": [takes_first]}, {"name": "flexible", "filter": [number, takes_first]}]


def _own() -> list[dict]:
    return [
        {"metric": "checks", "aggregation": "flat", "higher_is_better": True},
        {"metric": "parts", "aggregation": "longest", "higher_is_better": False},
        {"metric": "now_and_then", "aggregation": "mean", "higher_is_better": True},
    ]


def a_run(folder: Path, values: list[Any], *, metric: str = "acc,none", **more: Any) -> str:
    folder.mkdir()
    about = {"kind": "item", "task": "t", "benchmark": "t", "version": "1.0", "shots": 0}
    rows = [about | {"item": n, "hash": f"h{n}", "scores": {metric: v}} | more for n, v in enumerate(values)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    summary = {"command": "bench run", "benchmarks": {more.get("benchmark", "t"): {"metric": metric}}}
    (folder / "summary.json").write_text(json.dumps(summary))
    return str(folder)
