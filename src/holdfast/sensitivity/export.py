"""Rows and summary -> ``results_*.json`` and ``samples_*.jsonl`` in the format of lm-evaluation-harness."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import holdfast
from holdfast.config import SensitivityConfig
from holdfast.runs import write_json, write_text
from holdfast.sensitivity.planning import SensitivityPlan

TASK = "holdfast_sensitivity"


def write_harness_files(
    folder: Path,
    plan: SensitivityPlan,
    rows: Sequence[dict[str, Any]],
    summary: dict[str, Any],
    config: SensitivityConfig,
) -> None:
    """Write both files, in place of older ones. A sample is a variant; POSIX of a view is ``posix_VIEW,none``."""
    for old in [*folder.glob("results_*.json"), *folder.glob("samples_*.jsonl")]:
        old.unlink()
    stamp = datetime.now(UTC).strftime("%Y-%m-%dT%H-%M-%S.%f")
    write_json(folder / f"results_{stamp}.json", _results(plan, summary, config, stamp))
    write_text(
        folder / f"samples_{TASK}_{stamp}.jsonl",
        "".join(json.dumps(s, ensure_ascii=False) + "\n" for s in _samples(plan, rows, config)),
    )


def _results(plan: SensitivityPlan, summary: dict[str, Any], config: SensitivityConfig, stamp: str) -> dict[str, Any]:
    scores: dict[str, Any] = {"alias": TASK}
    for view, value in summary["posix"].items():
        scores[f"posix_{view},none"] = value["mean"]
        if f"{view}_stderr" not in summary["posix"]:  # a kind may have this name; its mean stands there then
            scores[f"posix_{view}_stderr,none"] = value["sd"] / value["sets"] ** 0.5
    for view, metrics in summary.get("targets", {}).items():
        scores[f"acc_{view},none"] = metrics["avg_p"]
    sizes = {"original": len(plan.sets), "effective": len(plan.sets)}
    return {
        "results": {TASK: scores},
        "group_subtasks": {TASK: []},
        "configs": {TASK: {"task": TASK, "output_type": "generate_until", "metadata": {"version": 1}}},
        "versions": {TASK: 1},
        "n-shot": {TASK: config.shots},
        "higher_is_better": {TASK: {f"posix_{view}": False for view in summary["posix"]}},
        "n-samples": {TASK: sizes},
        "config": {
            "model": config.backend,
            "model_args": f"pretrained={config.model},dtype={config.dtype}",
            "limit": config.limit,
        },
        "task_hashes": {TASK: plan.digest},
        "chat_template_sha": summary["resolved"]["template_sha"],
        "model_name": config.model,
        "model_source": config.backend,
        "date": stamp,
        "holdfast_version": holdfast.__version__,
    }


def _samples(plan: SensitivityPlan, rows: Sequence[dict[str, Any]], config: SensitivityConfig) -> list[dict[str, Any]]:
    samples: list[dict[str, Any]] = []
    generation = {"do_sample": False, "max_gen_toks": config.max_new_tokens}
    for s, texts, row in zip(plan.sets, plan.texts, rows, strict=True):
        for variant, text, answered in zip(s.variants, texts, row["variants"], strict=True):
            doc = {"set_id": s.set_id, "variant_id": variant.variant_id, "kind": variant.kind, "prompt": variant.prompt}
            match = {"exact_match": float(answered["right"])} if "right" in answered else {}
            sample = {
                "doc_id": len(samples),
                "doc": doc,
                "target": variant.target,
                "arguments": {"gen_args_0": {"arg_0": text, "arg_1": generation}},
                "resps": [[answered["response"]]],
                "filtered_resps": [answered["response"]],
                "filter": "none",
                "metrics": list(match),
                "doc_hash": _sha(json.dumps(doc, ensure_ascii=False)),
                "prompt_hash": _sha(text),
                "target_hash": _sha(str(variant.target)),
            }
            samples.append(sample | match)
    return samples


def _sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
