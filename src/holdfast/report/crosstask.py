"""The runs of ``crosstask`` -> which source helps which target, what the labels look like, and whether similarity
explains it; of ``crosstask label``, how many labels there are, from where, how sure, and how good where that is known.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

from holdfast.report.figures import Axis, Look, Series, Value, bars, level, points
from holdfast.report.heatmap import Matrix, Noise, heat_map, noise_map
from holdfast.report.parts import FactList, Figure, Note, Part, Tabs
from holdfast.report.reading import ReadRun, read_rows
from holdfast.tables.crosstask import finite, labelled_inputs, means, share, so_far
from holdfast.tables.record import Interval
from holdfast.tables.text import counted, number

_BASELINES = ("zero-shot", "in-task")
_OTHERS = ("mixed", "vote")
_MOST_INPUTS = 500
"""Labelled inputs that a page lists; all of them are in ``labels.jsonl``."""


def transferred(run: ReadRun, limit: int) -> list[Part]:
    """Return the parts of a ``crosstask run``: sources by targets with accuracy and validity, then the labels of each
    target, then the ways of choosing a source.
    """
    targets = run.summary.get("targets")
    if not targets:
        return [_facts(run), *_unfinished(run)]
    sources = list(run.summary.get("sources") or ())
    grids = [_grid(targets, sources, what) for what in ("accuracy", "validity")]
    tabs = [(name, _target(run, name, target)) for name, target in targets.items()]
    return [*_finding(run), _facts(run), *grids, Tabs("Target", tabs), *run.titled("Choosing a source")]


def _target(run: ReadRun, name: str, target: dict[str, Any]) -> list[Part]:
    return [_accuracy(name, target), *_labels(name, target), *run.titled(f"Conditions: {name}")]


def analysed(run: ReadRun, limit: int) -> list[Part]:
    """Return the parts of a ``crosstask analyse``: the rank correlation of the sources' accuracy with the similarity of
    their hidden states, layer by layer.
    """
    targets = run.summary.get("targets") or {}
    if not targets:
        return [_facts(run), *_unfinished(run)]
    tabs = [(name, _explained(run, name, target)) for name, target in targets.items() if target]
    left_out = _left_out([name for name, target in targets.items() if not target])
    return [_facts(run), *left_out, *([Tabs("Target", tabs)] if tabs else [])]


def labelled(run: ReadRun, limit: int) -> list[Part]:
    """Return the parts of a ``crosstask label``: how many labels there are, how often each is given, and inputs."""
    summary = run.summary
    if not summary:
        return _unfinished(run)
    count = (
        f"{summary['labelled']} of {summary['pool']} inputs got a label; {summary['abstained']} were left without one."
    )
    facts = FactList.of(
        ("model", run.config.get("model")),
        ("target", summary.get("target")),
        ("sources", run.config.get("sources")),
        ("asked of the model", summary.get("asked_of_the_model")),
        ("least margin of a vote", run.config.get("least_margin")),
        ("propagation", run.config.get("propagate")),
        ("tokens through the model", summary.get("cost", {}).get("tokens")),
    )
    labels = summary["labels"]
    caption = f"How often each label was given, over {summary['labelled']} labelled inputs (counts, no intervals)."
    series = [Series("inputs", [], list(labels.values()), colour="@accent")]
    figure = bars("Label distribution", caption, list(labels), series, Axis("inputs", digits=0))
    rows, _ = read_rows(run.path / "labels.jsonl")
    return [Note(count, "finding"), facts, figure, *run.tables.values(), *labelled_inputs(rows, _MOST_INPUTS)]


def _left_out(names: Sequence[str]) -> list[Part]:
    """Return a note on targets that have too few sources to correlate anything, such as those with free answers."""
    if not names:
        return []
    few = f"{counted(len(names), 'target')} had fewer than 3 sources to compare"
    are = "is" if len(names) == 1 else "are"
    return [Note(f"{few} (known answers and hidden states are needed) and {are} left out: {', '.join(names)}.")]


def _explained(run: ReadRun, name: str, target: dict[str, Any]) -> list[Part]:
    layers = {predictor: rows for predictor, rows in target.get("layers", {}).items() if rows}
    n = len(target["sources"])
    drawn: list[Part] = []
    if layers:
        said = f"Correlation over {n} sources of accuracy with similarity"
        drawn.append(_by_layer(f"Rank correlation by layer: {name}", said, "Spearman's rho", "rho", layers))
        said = f"Mean similarity of the {n} sources with the target"
        drawn.append(_by_layer(f"Similarity by layer: {name}", said, "mean cosine", "mean_similarity", layers))
    titles = (f"{what}: {name}" for what in ("Best layers", "Predictors of accuracy", "Accuracy of the sources"))
    return [*drawn, *run.titled(*titles)]


def _by_layer(title: str, said: str, unit: str, key: str, layers: dict[str, Any]) -> Figure:
    series = [_of_predictor(predictor, rows, key) for predictor, rows in layers.items()]
    caption = f"{said}; no intervals, and the best of many layers always looks good."
    return points(title, caption, series, Axis("layer", {"dtick": 1}, 0), Axis(unit), height=340, shapes=[level(0.0)])


def _of_predictor(predictor: str, rows: Sequence[dict[str, Any]], key: str) -> Series:
    places, values = [row["layer"] for row in rows], [finite(row[key]) for row in rows]
    notes = [f"p = {number(finite(row['p']), 4)}, q = {number(finite(row['q']), 4)}" for row in rows]
    return Series(predictor, places, values, notes, "both", dash="dot" if predictor.endswith("raw") else "solid")


def _facts(run: ReadRun) -> FactList:
    summary, cost = run.summary, run.summary.get("cost", {})
    return FactList.of(
        ("model", run.config.get("model")),
        ("run analysed", run.config.get("run")),
        ("decoding", summary.get("decode")),
        ("calibration", summary.get("calibration")),
        ("examples per prompt (k)", summary.get("k")),
        ("retriever", run.config.get("retriever")),
        ("targets", len(summary["targets"]) if "targets" in summary else None),
        ("sources", len(summary["sources"]) if "sources" in summary else None),
        ("tokens through the model", cost.get("tokens")),
        ("% of the prompts' tokens", cost.get("share_of_plain_percent")),
        ("seconds", summary.get("seconds")),
        ("seed", run.config.get("seed")),
    )


def _finding(run: ReadRun) -> list[Part]:
    said = means(run.summary)
    more = "Accuracy is never shown without validity: part of a gain may be that answers are labels at all."
    return [Note(said, "finding"), Note(more)] if said else []


def _unfinished(run: ReadRun) -> list[Part]:
    """Return the accuracy so far, from the rows alone."""
    return [so_far(run.rows) if run.rows else Note("There are no rows yet.")]


def _grid(targets: dict[str, Any], sources: Sequence[str], what: str) -> Figure:
    """Return a heat map of sources (rows) by targets (columns), the baselines above and what combines sources below."""
    by_target = {name: _by_condition(target, what) for name, target in targets.items()}
    # A target is no source of its own. In the order of the run's sources, the one that the first target lacks keeps its
    # place, and the diagonal stays a diagonal.
    names = list(itertools.chain.from_iterable(by_target.values()))
    conditions = _ordered([*(source for source in sources if source in names), *names])
    values = [_across(by_target, condition, share) for condition in conditions]
    notes = [_across(by_target, condition, _ends) for condition in conditions]
    items = [target["items"] for target in targets.values()]
    n = f"{min(items)}" if min(items) == max(items) else f"{min(items)} to {max(items)}"
    said = {"accuracy": "Share of right answers", "validity": "Share of outputs that are a label at all"}[what]
    caption = (
        f"{said}, in percent, for every source (row) and target (column), {n} items per cell; baselines stand above "
        "the sources, what combines sources below. Green is above zero-shot and orange below, where the 95 % "
        "intervals of both lie apart; what these explain has one neutral shade. The intervals stand with the values."
    )
    above = sum(condition in _BASELINES for condition in conditions)
    below = len(conditions) - sum(condition in _OTHERS for condition in conditions)
    line = {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "line": {"color": "@ink", "width": 1.5}}
    shapes = [line | {"y0": y - 0.5, "y1": y - 0.5} for y in sorted({above, below}) if 0 < y < len(conditions)]
    matrix = Matrix(values, conditions, list(by_target), notes, ("condition", "target", f"{what}, %"), 1)
    zero_shot = [rows.get("zero-shot") for rows in by_target.values()]
    bands = [list(map(_band, _across(by_target, condition, Interval.of), zero_shot)) for condition in conditions]
    noise = Noise([Interval.of(one).value for one in zero_shot], bands, False, "points above zero-shot")
    return noise_map(what.capitalize(), caption, matrix, noise, shapes=shapes)


def _band(own: Interval, zero_shot: dict[str, Any] | None) -> float | None:
    """How far a share must be from zero-shot for the intervals of both to lie apart; None: unknown."""
    other = Interval.of(zero_shot)
    if own.low is None or own.high is None or other.low is None or other.high is None:
        return None
    return (own.high - own.low + other.high - other.low) / 2


def _by_condition(target: dict[str, Any], what: str) -> dict[str, Any]:
    return {row["condition"]: row.get(what) or {} for row in target["conditions"]}


def _across(
    by_target: dict[str, dict[str, Any]], condition: str, what: Callable[[dict[str, Any] | None], Any]
) -> list[Any]:
    """Apply ``what`` to one condition of every target."""
    return [what(rows.get(condition)) for rows in by_target.values()]


def _ordered(conditions: Sequence[str]) -> list[str]:
    """Return the distinct conditions: baselines, then sources, then what combines sources."""
    distinct = dict.fromkeys(conditions)
    sources = [name for name in distinct if name not in (*_BASELINES, *_OTHERS)]
    baselines, others = (filter(distinct.__contains__, names) for names in (_BASELINES, _OTHERS))
    return [*baselines, *sources, *others]


def _accuracy(name: str, target: dict[str, Any]) -> Figure:
    """Accuracy and validity of each condition, side by side, with intervals."""
    names = _ordered([row["condition"] for row in target["conditions"]])
    series = []
    looks: tuple[tuple[str, Look, str, float], ...] = (
        ("accuracy", "dots", "@accent", -0.09),
        ("validity", "rings", "@2", 0.09),
    )
    for what, look, colour, shift in looks:
        shares = _by_condition(target, what)
        if conditions := [condition for condition in names if shares[condition]]:
            estimates = [Interval.of(shares[condition]) for condition in conditions]
            series.append(Series(what, conditions, estimates, look=look, colour=colour, shift=shift))
    caption = (
        f"Accuracy (filled) beside validity (rings) on {name}, {target['items']} items, with 95 % Wilson intervals."
    )
    axes = Axis("condition", names=names), Axis("percent", {"range": [0, 103]}, 1)
    return points(f"Accuracy and validity: {name}", caption, series, *axes, height=400)


def _labels(name: str, target: dict[str, Any]) -> list[Part]:
    """How often each label is predicted; free answers have no labels."""
    if target.get("free_answers"):
        return []
    rows = _by_condition(target, "labels")
    names = _ordered(list(rows))
    labels = list(dict.fromkeys(itertools.chain.from_iterable(rows.values())))
    values = [_shares(rows[condition], labels) for condition in names]
    caption = (
        f"How often each label is predicted on {name}, in percent of {target['items']} items (no intervals); a column "
        "that fills or empties shows the bias of a source."
    )
    matrix = Matrix(values, names, labels, None, ("condition", "label", "share, %"), 0)
    return [heat_map(f"Label distribution: {name}", caption, matrix)]


def _shares(counts: dict[str, int], labels: Sequence[str]) -> list[Value | Interval]:
    """Return how often each label was predicted, in percent."""
    total = max(1, sum(counts.values()))
    return [100 * counts.get(label, 0) / total for label in labels]


def _ends(estimate: dict[str, Any] | None) -> str:
    if not estimate:
        return ""
    return f"95 %: {number(estimate['low'], 1)} to {number(estimate['high'], 1)}, n = {estimate['count']}"
