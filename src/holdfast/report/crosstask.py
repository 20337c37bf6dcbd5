"""The runs of ``crosstask`` -> which source helps which target, what the labels look like, and whether similarity
explains it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from holdfast.report.figures import Axis, Look, Series, level, points
from holdfast.report.heatmap import Matrix, heat_map
from holdfast.report.parts import Choice, Facts, Figure, Note, Part
from holdfast.report.reading import Run
from holdfast.tables.crosstask import finite, means, share
from holdfast.tables.record import Cell, Column, Table
from holdfast.tables.text import counted, number

_BASELINES = ("zero-shot", "in-task")
_OTHERS = ("mixed", "vote")


def transferred(run: Run, limit: int) -> list[Part]:
    """A grid of sources and targets: accuracy beside validity, label distributions, choices of a source, all with
    intervals.
    """
    targets = run.summary.get("targets")
    if not targets:
        return [_facts(run), *unfinished(run)]
    sources = list(run.summary.get("sources") or ())
    parts: list[Part] = [
        *_finding(run),
        _facts(run),
        *(_grid(targets, sources, what) for what in ("accuracy", "validity")),
    ]
    options: list[tuple[str, list[Part]]] = [
        (name, [_accuracy(name, target), *_labels(name, target), *run.titled(f"Conditions: {name}")])
        for name, target in targets.items()
    ]
    return [*parts, Choice("Target", options), *run.titled("Choosing a source")]


def analysed(run: Run, limit: int) -> list[Part]:
    """Rank correlation of a source's accuracy with similarity of hidden states, layer by layer."""
    targets = run.summary.get("targets") or {}
    if not targets:
        return [_facts(run), *unfinished(run)]
    known = {name: found for name, found in targets.items() if found}
    options = [(name, _explained(run, name, found)) for name, found in known.items()]
    return [
        _facts(run),
        *_left_out([name for name in targets if name not in known]),
        *([Choice("Target", options)] if options else []),
    ]


def _left_out(names: Sequence[str]) -> list[Part]:
    """Targets without enough sources to correlate anything, such as those with free answers."""
    if not names:
        return []
    said = f"{counted(len(names), 'target')} had fewer than 3 sources to compare (known answers and hidden states are needed)"
    return [Note(f"{said} and {'is' if len(names) == 1 else 'are'} left out: {', '.join(names)}.")]


def _explained(run: Run, name: str, found: dict[str, Any]) -> list[Part]:
    layers = {predictor: rows for predictor, rows in found.get("layers", {}).items() if rows}
    n = len(found["sources"])
    figures = (
        (
            "Rank correlation by layer",
            "rho",
            "Spearman's rho",
            f"Correlation over {n} sources of accuracy with similarity",
        ),
        (
            "Similarity by layer",
            "mean_similarity",
            "mean cosine",
            f"Mean similarity of the {n} sources with the target",
        ),
    )
    drawn: list[Part] = [
        _by_layer(f"{title}: {name}", said, unit, key, layers) for title, key, unit, said in figures if layers
    ]
    titles = (f"{what}: {name}" for what in ("Best layers", "Predictors of accuracy", "Accuracy of the sources"))
    return [*drawn, *run.titled(*titles)]


def _by_layer(title: str, said: str, unit: str, key: str, layers: dict[str, Any]) -> Figure:
    series = [
        Series(
            predictor,
            [r["layer"] for r in rows],
            [finite(r[key]) for r in rows],
            [f"p = {number(finite(r['p']), 4)}, q = {number(finite(r['q']), 4)}" for r in rows],
            "both",
            dash="dot" if predictor.endswith("raw") else "solid",
        )
        for predictor, rows in layers.items()
    ]
    caption = f"{said}; no intervals, and the best of many layers always looks good."
    return points(title, caption, series, Axis("layer", {"dtick": 1}, 0), Axis(unit), height=340, shapes=[level(0.0)])


def _facts(run: Run) -> Facts:
    found, cost = run.summary, run.summary.get("cost", {})
    pairs: list[tuple[str, Cell]] = [
        ("model", run.config.get("model")),
        ("run analysed", run.config.get("run")),
        ("decoding", found.get("decode")),
        ("calibration", found.get("calibration")),
        ("examples per prompt (k)", found.get("k")),
        ("retriever", run.config.get("retriever")),
        ("targets", len(found["targets"]) if "targets" in found else None),
        ("sources", len(found["sources"]) if "sources" in found else None),
        ("tokens through the model", cost.get("tokens")),
        ("% of the prompts' tokens", cost.get("share_of_plain_percent")),
        ("seconds", found.get("seconds")),
        ("seed", run.config.get("seed")),
    ]
    return Facts([(name, value) for name, value in pairs if value is not None])


def _finding(run: Run) -> list[Part]:
    said = means(run.summary)
    more = "Accuracy is never shown without validity: part of a gain may be that answers are labels at all."
    return [Note(said, "finding"), Note(more)] if said else []


def unfinished(run: Run) -> list[Part]:
    """Accuracy so far, from the rows alone."""
    if not run.rows:
        return [Note("There are no rows yet.")]
    cells: dict[tuple[str, str], list[bool]] = {}
    for row in run.rows:
        if row.get("split", "test") == "test" and isinstance(row.get("correct"), bool):
            cells.setdefault((str(row.get("target")), str(row.get("condition"))), []).append(row["correct"])
    rows: list[list[Cell]] = [[t, c, 100 * sum(found) / len(found), len(found)] for (t, c), found in cells.items()]
    return [Table("So far", [Column("target"), Column("condition"), Column("accuracy, %", 1), Column("items")], rows)]


def _grid(targets: dict[str, Any], sources: Sequence[str], what: str) -> Figure:
    """Sources (rows) by targets (columns), with the baselines above and what combines sources below."""
    by = {
        name: {row["condition"]: row.get(what) or {} for row in target["conditions"]}
        for name, target in targets.items()
    }
    # A target is no source of its own: the order of the sources keeps what the first target lacks in its place, and the
    # diagonal whole.
    conditions = _ordered(
        [*(s for s in sources if any(s in rows for rows in by.values())), *(c for rows in by.values() for c in rows)]
    )
    values = [[share(by[target].get(condition)) for target in by] for condition in conditions]
    notes = [[_ends(by[target].get(condition)) for target in by] for condition in conditions]
    items = [target["items"] for target in targets.values()]
    n = f"{min(items)}" if min(items) == max(items) else f"{min(items)} to {max(items)}"
    said = {"accuracy": "Share of right answers", "validity": "Share of outputs that are a label at all"}[what]
    caption = (
        f"{said}, in percent, for every source (row) and target (column), {n} items per cell; baselines stand above "
        "the sources, what "
        "combines sources below. 95 % intervals stand with the values."
    )
    above = sum(condition in _BASELINES for condition in conditions)
    below = len(conditions) - sum(condition in _OTHERS for condition in conditions)
    line = {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "line": {"color": "@ink", "width": 1.5}}
    shapes = [line | {"y0": y - 0.5, "y1": y - 0.5} for y in sorted({above, below}) if 0 < y < len(conditions)]
    matrix = Matrix(values, conditions, list(by), notes, ("condition", "target", f"{what}, %"), 1)
    return heat_map(what.capitalize(), caption, matrix, (0.0, 100.0) if what == "validity" else None, shapes=shapes)


def _ordered(conditions: Sequence[str]) -> list[str]:
    """Baselines, then sources, then what combines sources."""
    found = list(dict.fromkeys(conditions))
    return sorted(
        found,
        key=lambda c: (_BASELINES.index(c) - 10) if c in _BASELINES else (_OTHERS.index(c) + 10) if c in _OTHERS else 0,
    )


def _accuracy(name: str, target: dict[str, Any]) -> Figure:
    """Accuracy and validity of each condition, side by side, with intervals."""
    rows = {row["condition"]: row for row in target["conditions"]}
    names = _ordered(list(rows))
    series = []
    looks: tuple[tuple[str, Look, str, float], ...] = (
        ("accuracy", "dots", "@accent", -0.09),
        ("validity", "rings", "@2", 0.09),
    )
    for what, look, colour, shift in looks:
        known = [(condition, value) for condition in names if (value := share(rows[condition].get(what))) is not None]
        if known:
            series.append(
                Series(
                    what, [c for c, _ in known], [value for _, value in known], look=look, colour=colour, shift=shift
                )
            )
    caption = (
        f"Accuracy (filled) beside validity (rings) on {name}, {target['items']} items, with 95 % Wilson intervals."
    )
    axes = Axis("condition", names=names), Axis("percent", {"range": [0, 103]}, 1)
    return points(f"Accuracy and validity: {name}", caption, series, *axes, height=400)


def _labels(name: str, target: dict[str, Any]) -> list[Part]:
    """How often each label is predicted; free answers have no labels."""
    if target.get("free_answers"):
        return []
    rows = {row["condition"]: row["labels"] for row in target["conditions"]}
    names = _ordered(list(rows))
    labels = list(dict.fromkeys(label for counts in rows.values() for label in counts))
    values = [[100 * rows[c].get(label, 0) / max(1, sum(rows[c].values())) for label in labels] for c in names]
    caption = (
        f"How often each label is predicted on {name}, in percent of {target['items']} items (no intervals); a column "
        "that fills or "
        "empties shows the bias of a source."
    )
    matrix = Matrix(values, names, labels, None, ("condition", "label", "share, %"), 0)
    return [heat_map(f"Label distribution: {name}", caption, matrix)]


def _ends(found: dict[str, Any] | None) -> str:
    return f"95 %: {number(found['low'], 1)} to {number(found['high'], 1)}, n = {found['count']}" if found else ""
