"""A matrix with names on both sides -> a figure whose cells are colours."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from holdfast.report.figures import Value, colour_bar, estimate, name_ticks
from holdfast.report.parts import Figure
from holdfast.tables.record import Cell, Column, Interval, Table
from holdfast.tables.text import label, number

_MOST_WRITTEN = (30, 16)
"""The most rows and columns with which there is room to write the values into the cells."""


@dataclass(frozen=True)
class Matrix:
    """Values [rows, columns], None where a cell is empty, with the names of rows and columns. A heat map has no room
    for intervals: they are shown in its table of values.
    """

    values: Sequence[Sequence[Value | Interval]]
    rows: Sequence[str]
    columns: Sequence[str]
    notes: Sequence[Sequence[str]] | None
    """A line per cell for the tooltip."""
    axes: tuple[str, str, str]
    """What rows, columns and values are."""
    digits: int = 2


def heat_map(
    title: str, caption: str, matrix: Matrix, limits: tuple[float, float] | None = None, **layout: Any
) -> Figure:
    """Return a figure whose colours run from the smallest to the largest value, or between ``limits``."""
    ends = {} if limits is None else {"zmin": limits[0], "zmax": limits[1]}
    return _figure(title, caption, matrix, {"colorscale": "@sequential"} | ends, layout)


def difference_map(title: str, caption: str, matrix: Matrix) -> Figure:
    """Return a figure with one colour for values above 0 and another below, reaching equally far to both sides."""
    values = filter(None, map(estimate, itertools.chain.from_iterable(matrix.values)))
    reach = max(map(abs, filter(math.isfinite, values)), default=0.0) or 1.0
    return _figure(title, caption, matrix, {"colorscale": "@diverging", "zmin": -reach, "zmax": reach}, {})


@dataclass(frozen=True)
class Noise:
    """What the colours of ``noise_map`` are made from: the value that cells are compared with, one per column, and how
    far a cell must be from it to be more than noise, cell by cell. A cell without such a distance stays neutral.
    """

    references: Sequence[Value]
    bands: Sequence[Sequence[Value]]
    lower_is_better: bool
    unit: str
    """What the key of the colours says."""


def noise_map(title: str, caption: str, matrix: Matrix, noise: Noise, **layout: Any) -> Figure:
    """Return a figure whose colours are differences to a reference beyond noise: one colour for better, another for
    worse, and the same neutral shade for all that noise explains. The numbers in the cells are the values themselves.
    """
    shades: list[list[Value]] = []
    for values, bands in zip(matrix.values, noise.bands, strict=True):
        line = zip(map(estimate, values), noise.references, bands, strict=True)
        shades.append([_shade(value, reference, band, matrix.digits) for value, reference, band in line])
    reach = max((abs(shade) for shade in itertools.chain.from_iterable(shades) if shade), default=0.0)
    scale: dict[str, Any] = {"colorscale": "@neutral", "zmin": -1, "zmax": 1, "showscale": False}
    if reach:
        scale = {"colorscale": "@worse" if noise.lower_is_better else "@better", "zmin": -reach, "zmax": reach}
        scale |= {"colorbar": colour_bar(noise.unit)}
    return _figure(title, caption, matrix, scale | {"z": shades}, layout)


def _shade(value: Value, reference: Value, band: Value, digits: int) -> Value:
    """The difference to the reference; 0 where it is noise, unknown, or smaller than what the cell's number shows."""
    if value is None or reference is None or band is None:
        return None if value is None else 0.0
    difference = value - reference
    return difference if abs(difference) > max(band, 0.5 * 10.0**-digits) else 0.0


def frame(column: float, row: float, colour: str, dash: str) -> dict[str, Any]:
    """Return a frame around one cell."""
    edge = 0.47
    box = {"x0": column - edge, "x1": column + edge, "y0": row - edge, "y1": row + edge}
    return {"type": "rect", "layer": "above", "line": {"color": colour, "width": 2.5, "dash": dash}} | box


def _written(values: Sequence[Value | Interval], digits: int) -> list[str]:
    return ["" if value is None else number(value, digits) for value in map(estimate, values)]


def _figure(title: str, caption: str, matrix: Matrix, scale: dict[str, Any], layout: dict[str, Any]) -> Figure:
    rows, columns, values = (label(axis) for axis in matrix.axes)
    notes = matrix.notes or [[""] * len(matrix.columns)] * len(matrix.rows)
    heads, tips = [label(column, 120) for column in matrix.columns], []
    for row, line in zip(matrix.rows, notes, strict=True):
        tips.append([[label(row, 120), head, label(note, 300)] for head, note in zip(heads, line, strict=True)])
    for tips_of_row, numbers in zip(tips, matrix.values, strict=True):
        for tip, value in zip(tips_of_row, map(estimate, numbers), strict=True):
            tip.append(number(value, matrix.digits + 1))
    trace: dict[str, Any] = {
        "type": "heatmap",
        "x": list(range(len(matrix.columns))),
        "y": list(range(len(matrix.rows))),
        "z": [list(map(estimate, line)) for line in matrix.values],
        "xgap": 2,
        "ygap": 2,
        "hoverongaps": False,
        "colorbar": colour_bar(matrix.axes[2]),
        "customdata": tips,
        "hovertemplate": f"{rows}: %{{customdata[0]}}<br>{columns}: %{{customdata[1]}}<br>{values}: "
        f"<b>%{{customdata[3]}}</b><br>%{{customdata[2]}}<extra></extra>",
    }
    if len(matrix.rows) <= _MOST_WRITTEN[0] and len(matrix.columns) <= _MOST_WRITTEN[1]:
        trace["text"] = [_written(line, matrix.digits) for line in matrix.values]
        trace |= {"texttemplate": "%{text}", "textfont": {"color": "@ink"}}
    around = {
        "xaxis": {"title": {"text": columns}, "showgrid": False} | name_ticks(matrix.columns),
        "yaxis": {"title": {"text": rows}, "showgrid": False, "autorange": "reversed"} | name_ticks(matrix.rows),
        "margin": {"t": 12, "r": 12},
    }
    cells: list[list[Cell]] = [[name, *line] for name, line in zip(matrix.rows, matrix.values, strict=True)]
    corner = Column(f"{matrix.axes[0]} \\ {matrix.axes[1]}", kind="code")
    table = Table(title, [corner, *(Column(c, matrix.digits + 1) for c in matrix.columns)], cells)
    height = min(900, max(260, 120 + 32 * len(matrix.rows)))
    return Figure(title, caption, [trace | scale], around | layout, table, height)
