"""The whole of ``holdfast crosstask analyse``: a run with states -> which similarity goes with which accuracy.

    rho_l = Spearman over the sources s of  ( sim_l(s, t), accuracy of s on t )      per target t and layer l;
            p by permutation, q = Benjamini-Hochberg over layers

Beside the layers stand two simpler predictors: the encoder similarity of the definitions, and the share of valid
outputs. All of it is correlation over a handful of sources: with 10 of them |rho| must exceed 0.65 for p < .05, before
any correction.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from holdfast import runs
from holdfast.config import AnalyseConfig
from holdfast.crosstask.blocks import Block, read
from holdfast.crosstask.tables import results_of
from holdfast.errors import HoldfastError
from holdfast.runs import finite, read_json, write_text
from holdfast.stats import benjamini_hochberg, spearman
from holdfast.tables import lines, with_tables
from holdfast.tables.text import counted


def analyse(config: AnalyseConfig) -> dict[str, Any]:
    """Correlate hidden-state similarity with accuracy and write a run directory.

    Raises:
        HoldfastError: no finished run there, or one without states, or without answers.

    >>> from holdfast.crosstask import AnalyseConfig, CrossTaskConfig, analyse, transfer
    >>> sources = ",".join(f"pocket:tasks/{name}" for name in ("opposite", "plural", "colour_of"))
    >>> _ = transfer(CrossTaskConfig(model="pocket", sources=sources, target="pocket:tasks/sentiment", limit=6,
    ...     pool_limit=20, states=True, output="runs/states", json=True))
    >>> summary = analyse(AnalyseConfig(run="runs/states", permutations=20, output="runs/analysis", json=True))
    >>> summary["targets"]["sentiment"]["sources"]
    ['opposite', 'plural', 'colour_of']
    """
    with runs.command(config, "crosstask analyse") as run:
        if run.summary is not None and not config.dry_run:
            return run.summary
        summary, blocks = load_run(Path(config.run))
        targets = {name: _target(name, target, blocks, config) for name, target in summary["targets"].items()}
        if not any(targets.values()):
            raise HoldfastError(
                f"{config.run}: no target has answers, sums of states and at least 3 sources",
                hint="run `holdfast crosstask run --states` on labelled test items",
            )
        result = {"command": "crosstask analyse", "run": config.run, "targets": targets}
        if config.dry_run:
            with_states = sum(1 for target in targets.values() if target)
            print(f"{counted(len(targets), 'target')}, {with_states} of them with sums of states")
            return result | {"dry_run": True}
        run.open({"targets": list(targets)})
        write_text(run.rows, "".join(json.dumps(finite(row), ensure_ascii=False) + "\n" for row in _rows(targets)))
        result = with_tables(finite(result))
        if not config.json:
            print(lines(result, "Best layers"))
        return run.finish(result)


def load_run(path: Path) -> tuple[dict[str, Any], list[Block]]:
    """Return the summary and the blocks of a finished ``crosstask run``.

    Raises:
        HoldfastError: there is no such run, or it is one of another command.
    """
    file = path / "summary.json"
    if not file.is_file():
        raise HoldfastError(f"--run {path}: no finished run there (no summary.json)")
    summary = read_json(file)
    if summary.get("command") != "crosstask run":
        raise HoldfastError(f"--run {path}: a run of '{summary.get('command')}', not of 'crosstask run'")
    return summary, [read(file) for file in sorted((path / "blocks").glob("*.npz"))]


def _target(name: str, target: Mapping[str, Any], blocks: Sequence[Block], config: AnalyseConfig) -> dict[str, Any]:
    """Return what correlates with the accuracy of the sources on one target; nothing where fewer than 3 have sums."""
    rows = {row["condition"]: row for row in target["conditions"]}
    definitions = target["choice"]["definition"]["scores"]
    scored = {source for source in definitions if rows[source]["accuracy"]}
    of_target = {r.condition: r.similarity or {} for r in results_of(blocks) if r.target == name}
    similar = {condition: sums for condition, sums in of_target.items() if sums and condition in scored}
    sources = list(similar)
    if len(sources) < 3:
        return {}
    accuracy = [rows[s]["accuracy"]["value"] for s in sources]

    def correlated(values: Sequence[float]) -> dict[str, float]:
        rho, p = spearman(values, accuracy, permutations=config.permutations, seed=config.seed)
        return {"rho": rho, "p": p}

    layers = {}
    for kind in ("centred", "raw"):
        for pair, sums in similar[sources[0]][kind].items():
            tests = []
            for layer in range(len(sums)):
                column = [similar[s][kind][pair][layer] / similar[s]["count"] for s in sources]
                tests.append({"layer": layer, "mean_similarity": sum(column) / len(column)} | correlated(column))
            for test, q in zip(tests, benjamini_hochberg([test["p"] for test in tests]), strict=True):
                test["q"] = q
            layers[f"{pair}, {kind}"] = tests
    simple = {
        "definitions, encoder": correlated([definitions[s] for s in sources]),
        "valid outputs": correlated([rows[s]["validity"]["value"] for s in sources]),
    }
    return {"sources": sources, "accuracy": accuracy, "layers": layers, "simple": simple}


def _rows(targets: Mapping[str, Any]) -> list[dict[str, Any]]:
    rows = []
    for name, target in targets.items():
        for predictor, layers in target.get("layers", {}).items():
            rows += [{"target": name, "predictor": predictor} | layer for layer in layers]
        for predictor, test in target.get("simple", {}).items():
            rows.append({"target": name, "predictor": predictor} | test)
    return rows
