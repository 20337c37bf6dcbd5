"""A ``crosstask label`` run -> how many labels, from where, how sure, and how good where that is known."""

from __future__ import annotations

from holdfast.report.crosstask import unfinished
from holdfast.report.figures import Axis, Series, bars
from holdfast.report.parts import Facts, Note, Part
from holdfast.report.reading import Run, read_rows
from holdfast.tables.record import Cell, Column, Table

_MOST_INPUTS = 500


def labelled(run: Run, limit: int) -> list[Part]:
    """What pseudo-labelling a pool has given."""
    found = run.summary
    if not found:
        return unfinished(run)
    count = f"{found['labelled']} of {found['pool']} inputs got a label; {found['abstained']} were left without one."
    facts: list[tuple[str, Cell]] = [
        ("model", run.config.get("model")),
        ("target", found.get("target")),
        ("sources", run.config.get("sources")),
        ("asked of the model", found.get("asked_of_the_model")),
        ("least margin of a vote", run.config.get("least_margin")),
        ("propagation", run.config.get("propagate")),
        ("tokens through the model", found.get("cost", {}).get("tokens")),
    ]
    labels = found["labels"]
    caption = f"How often each label was given, over {found['labelled']} labelled inputs (counts, no intervals)."
    series = [Series("inputs", [], list(labels.values()), colour="@accent")]
    figure = bars("Label distribution", caption, list(labels), series, Axis("inputs", digits=0))
    return [
        Note(count, "finding"),
        Facts([pair for pair in facts if pair[1] is not None]),
        figure,
        *run.tables.values(),
        *_inputs(run),
    ]


def _inputs(run: Run) -> list[Part]:
    kept, _ = read_rows(run.path / "labels.jsonl")
    keys = ("id", "prompt", "answer", "confidence", "method")
    rows: list[list[Cell]] = [[row.get(key) for key in keys] for row in kept[:_MOST_INPUTS]]
    if not rows:
        return []
    columns = [
        Column("id"),
        Column("prompt", kind="code"),
        Column("label", kind="code"),
        Column("confidence", 2),
        Column("method"),
    ]
    return [Table("Labelled inputs", columns, rows, f"The first {len(rows)} of {len(kept):,}.", filterable=True)]
