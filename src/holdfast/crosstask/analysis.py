"""The whole of ``holdfast crosstask analyse``: a run with states -> which similarity goes with which accuracy, per
target and layer.

    rho_l = Spearman over the sources s of  ( sim_l(s, t), accuracy of s on t )      p by permutation, q =
    Benjamini-Hochberg over layers

Beside the layers stand two simpler predictors: encoder similarity of the definitions, and share of valid outputs. All
of it is correlation over a handful of sources: with 10 of them |rho| must exceed 0.65 for p < .05, before any
correction.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from holdfast import runs
from holdfast.config import AnalyseConfig
from holdfast.crosstask.blocks import Block, read
from holdfast.errors import HoldfastError
from holdfast.runs import finite, read_json, write_text
from holdfast.stats import benjamini_hochberg, spearman
from holdfast.tables import lines, with_tables


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
        targets = {name: _target(name, found, blocks, config) for name, found in summary["targets"].items()}
        if not any(targets.values()):
            raise HoldfastError(
                f"{config.run}: no target has answers, sums of states and at least 3 sources",
                hint="run `holdfast crosstask run --states` on labelled test items",
            )
        made = {"command": "crosstask analyse", "run": config.run, "targets": targets}
        if config.dry_run:
            print(f"{len(targets)} targets, {sum(1 for t in targets.values() if t)} of them with sums of states")
            return made | {"dry_run": True}
        run.open({"targets": list(targets)})
        write_text(run.rows, "".join(json.dumps(finite(row), ensure_ascii=False) + "\n" for row in _rows(targets)))
        made = with_tables(finite(made))
        if not config.json:
            print(lines(made, "Best layers"))
        return run.finish(made)


def load_run(path: Path) -> tuple[dict[str, Any], list[Block]]:
    """The summary and the blocks of a finished ``crosstask run``."""
    summary = path / "summary.json"
    if not summary.is_file():
        raise HoldfastError(f"--run {path}: no finished run there (no summary.json)")
    found = read_json(summary)
    if found.get("command") != "crosstask run":
        raise HoldfastError(f"--run {path}: a run of '{found.get('command')}', not of 'crosstask run'")
    return found, [read(file) for file in sorted((path / "blocks").glob("*.npz"))]


def _target(name: str, found: Mapping[str, Any], blocks: Sequence[Block], config: AnalyseConfig) -> dict[str, Any]:
    rows = {row["condition"]: row for row in found["conditions"]}
    similar = {
        r.condition: r.similarity
        for block in blocks
        for r in block.results
        if r.target == name and r.similarity and r.condition in found["choice"]["definition"]["scores"]
    }
    sources = [s for s in similar if rows[s]["accuracy"] is not None]
    if len(sources) < 3:
        return {}
    accuracy = [rows[s]["accuracy"]["value"] for s in sources]
    made: dict[str, Any] = {"sources": sources, "accuracy": accuracy, "layers": {}}
    for kind in ("centred", "raw"):
        for pair, per_layer in next(iter(similar.values()))[kind].items():  # type: ignore[index]
            columns = [
                [similar[s][kind][pair][layer] / similar[s]["count"] for s in sources]
                for layer in range(len(per_layer))
            ]  # type: ignore[index]
            tests = [
                spearman(column, accuracy, permutations=config.permutations, seed=config.seed) for column in columns
            ]
            q = benjamini_hochberg([p for _, p in tests])
            made["layers"][f"{pair}, {kind}"] = [
                {"layer": layer, "mean_similarity": sum(column) / len(column), "rho": rho, "p": p, "q": q[layer]}
                for layer, (column, (rho, p)) in enumerate(zip(columns, tests))
            ]
    definitions = found["choice"]["definition"]["scores"]
    simple = {
        "definitions, encoder": [definitions[s] for s in sources],
        "valid outputs": [rows[s]["validity"]["value"] for s in sources],
    }
    made["simple"] = {}
    for predictor, values in simple.items():
        rho, p = spearman(values, accuracy, permutations=config.permutations, seed=config.seed)
        made["simple"][predictor] = {"rho": rho, "p": p}
    return made


def _rows(targets: Mapping[str, Any]) -> list[dict[str, Any]]:
    rows = []
    for name, found in targets.items():
        for predictor, layers in found.get("layers", {}).items():
            rows += [{"target": name, "predictor": predictor} | layer for layer in layers]
        rows += [
            {"target": name, "predictor": predictor} | value for predictor, value in found.get("simple", {}).items()
        ]
    return rows
