"""The tables of the ``crosstask`` commands: conditions by target, choices of a source, where labels come from, what
predicts accuracy; of their rows: accuracy so far, labelled inputs.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from holdfast.tables.record import Cell, Column, Interval, Table
from holdfast.tables.text import counted, number


def of_run(summary: dict[str, Any]) -> list[Table]:
    """Return the conditions of each target, then how a source would have been chosen."""
    targets = summary.get("targets") or {}
    return [*(_conditions(name, target) for name, target in targets.items()), *([_choices(targets)] if targets else [])]


def of_labels(summary: dict[str, Any]) -> list[Table]:
    """Return how many labels each way of labelling has given, and how good they are."""
    rows: list[list[Cell]] = []
    for method, count in summary["by_method"].items():
        agreement = summary["agreement_with_given_answers"].get(method)
        rows.append([method, count, Interval.of(agreement), agreement["count"] if agreement else None])
    columns = [
        Column("method"),
        Column("labels given"),
        Column("agree with known answers, %", 1),
        Column("known answers"),
    ]
    caption = (
        "Known answers were not used to label; they only say how good the labels are. In brackets: 95 % intervals."
    )
    return [Table("Where labels come from", columns, rows, caption)]


def of_analysis(summary: dict[str, Any]) -> list[Table]:
    """Return for each target the best layer of each predictor, every layer, and the accuracy to predict."""
    tables = []
    for name, target in (summary.get("targets") or {}).items():
        if target:
            tables += [_best_layers(name, target), _predictors(name, target), _accuracy(name, target)]
    return tables


def means(summary: dict[str, Any]) -> str:
    """Return the mean accuracies in a sentence; empty where no target has answers."""
    grand = summary.get("grand")
    if not grand:
        return ""
    zero, cross, vote = (number(grand[key], 1) for key in ("zero_shot", "cross_task", "vote"))
    return (
        f"Mean accuracy over targets: zero-shot {zero} %, cross-task {cross} % ({grand['points']:+.1f} points), "
        f"vote of the sources {vote} %."
    )


def so_far(rows: Iterable[dict[str, Any]]) -> Table:
    """Return the accuracy of every target and condition, from the rows of a run that has not finished."""
    right: dict[tuple[str, str], list[bool]] = {}
    for row in rows:
        if row.get("split", "test") == "test" and isinstance(row.get("correct"), bool):
            right.setdefault((str(row.get("target")), str(row.get("condition"))), []).append(row["correct"])
    cells: list[list[Cell]] = [[*pair, 100 * statistics.fmean(hits), len(hits)] for pair, hits in right.items()]
    columns = [Column("target"), Column("condition"), Column("accuracy, %", 1), Column("items")]
    return Table("So far", columns, cells)


def labelled_inputs(rows: Sequence[dict[str, Any]], most: int) -> list[Table]:
    """Return a table of the first ``most`` inputs with their labels, how sure they are and where they come from; no
    table where there are no inputs.
    """
    keys = ("id", "prompt", "answer", "confidence", "method")
    cells: list[list[Cell]] = [list(map(row.get, keys)) for row in rows[:most]]
    texts = [Column("prompt", kind="code"), Column("label", kind="code")]
    columns = [Column("id"), *texts, Column("confidence", 2), Column("method")]
    caption = f"The first {len(cells)} of {len(rows):,}."
    return [Table("Labelled inputs", columns, cells, caption, filterable=True)] if cells else []


def share(estimate: dict[str, Any] | None) -> Interval | None:
    """Return a share with its interval."""
    return Interval.of(estimate) if estimate else None


def finite(value: float | None) -> float | None:
    """Return the number, or None where a correlation is not defined."""
    return None if value is None or value != value else float(value)


def _conditions(name: str, target: dict[str, Any]) -> Table:
    rows: list[list[Cell]] = []
    for row in target["conditions"]:
        test = row.get("against_zero_shot") or {}
        shares = [share(row.get(key)) for key in ("accuracy", "validity")]
        change = Interval.of(test, "difference") if test else None
        batch = share(row.get("accuracy_batch_calibrated"))
        distinct = row["labels"].get("distinct answers") if target.get("free_answers") else None
        rows.append([row["condition"], *shares, change, test.get("p"), row.get("mass"), batch, distinct])
    columns = [
        Column("condition", kind="code"),
        Column("accuracy, %", 1),
        Column("validity, %", 1),
        Column("points over zero-shot", 1),
        Column("p, one-tailed", 4),
        Column("label mass", 2),
        Column("batch-calibrated, %", 1),
        Column("distinct answers"),
    ]
    return Table(f"Conditions: {name}", columns, rows, f"{target['items']} items; in brackets: 95 % intervals.")


def _choices(targets: dict[str, Any]) -> Table:
    rows: list[list[Cell]] = []
    for name, target in targets.items():
        for way, choice in target["choice"].items():
            looks = "yes: no result" if choice["uses_test_labels"] else "no"
            rows.append([name, way, choice["source"], share(choice.get("accuracy")), looks])
    columns = [
        Column("target"),
        Column("chosen by"),
        Column("source"),
        Column("accuracy, % [95 %]", 1),
        Column("looks at test labels"),
    ]
    return Table("Choosing a source", columns, rows)


_PREDICTOR = (Column("predictor"), Column("layer"), Column("rho", 2), Column("p", 4), Column("q over layers", 4))


def _best_layers(name: str, target: dict[str, Any]) -> Table:
    """One row per predictor; ``raw`` similarities, all near 1, are in the full table."""
    rows: list[list[Cell]] = []
    below = 0
    for predictor, layers in target.get("layers", {}).items():
        ranked = sorted((layer for layer in layers if finite(layer["rho"]) is not None), key=lambda layer: layer["p"])
        if not predictor.endswith("raw"):
            rows += [[*_predicted(predictor, layer), len(layers)] for layer in ranked[:1]]
        if predictor.endswith("centred"):
            below += sum(layer["q"] is not None and layer["q"] < 0.05 for layer in layers)
    rows += [[*_predicted(predictor, value), None] for predictor, value in target.get("simple", {}).items()]
    nothing = "" if below else "; no correlation is shown here"
    caption = f"Over {counted(len(target['sources']), 'source')}. Layers with q < 0.05: {below}{nothing}."
    return Table(f"Best layers: {name}", [*_PREDICTOR, Column("best of")], rows, caption)


def _predictors(name: str, target: dict[str, Any]) -> Table:
    rows: list[list[Cell]] = []
    for predictor, layers in target.get("layers", {}).items():
        rows += [[*_predicted(predictor, layer), finite(layer["mean_similarity"])] for layer in layers]
    rows += [[*_predicted(predictor, value), None] for predictor, value in target.get("simple", {}).items()]
    return Table(f"Predictors of accuracy: {name}", [*_PREDICTOR, Column("mean similarity")], rows)


def _predicted(predictor: str, test: dict[str, Any]) -> list[Cell]:
    return [predictor, test.get("layer"), *(finite(test.get(key)) for key in ("rho", "p", "q"))]


def _accuracy(name: str, target: dict[str, Any]) -> Table:
    rows: list[list[Cell]] = [
        [source, value] for source, value in zip(target["sources"], target["accuracy"], strict=True)
    ]
    return Table(f"Accuracy of the sources: {name}", [Column("source", kind="code"), Column("accuracy, %", 1)], rows)
