"""Series -> figures in plotly's own plain form (traces and a layout). Nothing is drawn here: a browser does that.

Every builder also makes the table of values behind the figure, which a reader without JavaScript sees and which becomes
the CSV.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from holdfast.report.palette import SERIES
from holdfast.report.parts import Figure
from holdfast.tables.record import Cell, Column, Interval, Table
from holdfast.tables.text import label, number

Value = float | int | None
Look = Literal["line", "dots", "both", "rings"]
_MODES = {"line": "lines", "dots": "markers", "rings": "markers", "both": "lines+markers"}


@dataclass(frozen=True)
class Series:
    """Points under one name in the legend. A ``y`` with an interval is drawn with its bar. ``notes`` say, point by
    point, what it is; they stand in the tooltip and in the table of values.
    """

    name: str
    x: Sequence[Any]
    y: Sequence[Value | Interval]
    notes: Sequence[str] | None = None
    look: Look = "line"
    colour: str = ""
    dash: str = "solid"
    width: float = 2
    size: float = 9
    legend: bool = True
    shift: float = 0.0
    """How far beside its name a point is drawn, on an axis of names."""
    shade: tuple[str, Sequence[Value]] | None = None
    """The name of a quantity and its value in 0..1 at every point. It colours the points on the sequential scale, and
    ``colour`` is not used.
    """

    @property
    def values(self) -> list[Value]:
        """Return the estimates without their intervals."""
        return [estimate(y) for y in self.y]


def estimate(value: Value | Interval) -> Value:
    """Return a value without its interval."""
    return value.value if isinstance(value, Interval) else value


@dataclass(frozen=True)
class Axis:
    """The title of an axis and, where it needs them, settings in plotly's form. ``digits`` are used in tooltips and in
    the table of values.
    """

    title: str
    more: dict[str, Any] = field(default_factory=dict)
    digits: int = 3
    names: Sequence[str] = ()
    """The names that stand at 0, 1, 2 ... on the axis; where there are any, the series' x are such names."""
    floor: float | None = None
    """The smallest value of a logarithmic axis; smaller values, such as 0, are drawn at it. None: the axis is linear.
    """

    def at(self, value: Any, shift: float = 0.0) -> Any:
        """Return the place of a value on the axis."""
        if self.names:
            return self.names.index(value) + shift
        return math.log10(max(value, self.floor)) if self.floor else value

    @property
    def layout(self) -> dict[str, Any]:
        """Return the axis as plotly takes it."""
        layout: dict[str, Any] = {"title": {"text": label(self.title)}}
        if self.names:
            layout |= name_ticks(self.names) | {"range": [-0.6, len(self.names) - 0.4]}
        elif self.floor:
            ticks = [t for t in (1e-5, 1e-4, 3e-4, 1e-3, 3e-3, 0.01, 0.03, 0.1, 0.3, 1.0) if t > 1.5 * self.floor]
            layout |= {
                "tickvals": list(map(self.at, (self.floor, *ticks))),
                "ticktext": ["0", *map("{:g}".format, ticks)],
            }
            layout |= {"range": [self.at(self.floor) - 0.15, 0.15]}
        return layout | self.more


def points(
    title: str, caption: str, series: Sequence[Series], x: Axis, y: Axis, *, height: int = 380, **layout: Any
) -> Figure:
    """Return a figure of lines, dots, or both, with intervals as bars."""
    traces = [_trace(one, one.colour or SERIES[place % len(SERIES)], x, y) for place, one in enumerate(series)]
    whole = {"xaxis": x.layout, "yaxis": y.layout, "showlegend": sum(one.legend for one in series) > 1} | layout
    rows: list[list[Cell]] = []
    for one in series:
        notes = one.notes if one.notes is not None else [""] * len(one.x)
        rows += [[one.name, at, value, note] for at, value, note in zip(one.x, one.y, notes, strict=True)]
    columns = [Column("series", kind="code"), Column(x.title, x.digits), Column(y.title, y.digits)]
    return Figure(title, caption, traces, whole, Table(title, [*columns, Column("about", kind="code")], rows), height)


def bars(
    title: str, caption: str, names: Sequence[str], series: Sequence[Series], value: Axis, *, height: int | None = None
) -> Figure:
    """Return a figure of horizontal bars, one line per name, the series stacked from the left."""
    labels = [[label(name)] for name in names]
    traces = [
        {
            "type": "bar",
            "orientation": "h",
            "name": label(one.name),
            "y": list(range(len(names))),
            "x": one.values,
            "marker": {"color": one.colour or SERIES[place % len(SERIES)]},
            "customdata": labels,
            "hovertemplate": f"%{{customdata[0]}}<br>{label(one.name)}: <b>%{{x:,.{value.digits}f}}</b><extra></extra>",
        }
        for place, one in enumerate(series)
    ]
    lines = {"title": {"text": ""}} | name_ticks(names) | {"autorange": "reversed", "showgrid": False}
    stacked = {"barmode": "stack", "bargap": 0.35, "showlegend": len(series) > 1, "legend": {"traceorder": "normal"}}
    rows: list[list[Cell]] = list(map(list, zip(names, *(one.y for one in series), strict=True)))
    table = Table(title, [Column("name", kind="code"), *(Column(one.name, value.digits) for one in series)], rows)
    height = height or max(200, 110 + 26 * len(names))
    return Figure(title, caption, traces, stacked | {"xaxis": value.layout, "yaxis": lines}, table, height)


def level(value: float) -> dict[str, Any]:
    """Return a dotted horizontal line."""
    ends = {"xref": "paper", "x0": 0, "x1": 1, "y0": value, "y1": value}
    return {"type": "line", "line": {"color": "@muted", "width": 1, "dash": "dot"}} | ends


def level_name(value: float, text: str) -> dict[str, Any]:
    """Return the name of such a line, at its right end."""
    where = {"xref": "paper", "x": 1, "xanchor": "right", "y": value, "yanchor": "bottom", "showarrow": False}
    return where | {"text": label(text), "font": {"color": "@muted", "size": 11}}


def colour_bar(title: str) -> dict[str, Any]:
    """Return the key of a colour scale."""
    return {
        "thickness": 10,
        "len": 0.9,
        "outlinewidth": 0,
        "title": {"text": label(title), "side": "right", "font": {"color": "@muted", "size": 12}},
        "tickfont": {"color": "@muted"},
    }


def name_ticks(names: Sequence[str]) -> dict[str, Any]:
    """Return the ticks of an axis of names at 0, 1, 2 ... There are none where the names are too many to read; tooltips
    have them, too.
    """
    if len(names) > 40:
        return {"showticklabels": False, "zeroline": False}
    ticks = {"tickmode": "array", "tickvals": list(range(len(names))), "ticktext": [label(name, 28) for name in names]}
    return ticks | {"zeroline": False, "ticklabeloverflow": "allow"}


def _trace(one: Series, colour: str, x: Axis, y: Axis) -> dict[str, Any]:
    said = [label(at, 120) if isinstance(at, str) else number(at, x.digits) for at in one.x]
    notes = [f"<br>{label(note, 300)}" for note in one.notes] if one.notes is not None else [""] * len(said)
    where = f"{label(x.title)}: %{{customdata[0]}}<br>{label(y.title)}: <b>%{{y:.{y.digits}f}}</b>%{{customdata[1]}}"
    trace: dict[str, Any] = {
        "type": "scatter",
        "name": label(one.name),
        "mode": _mode(one),
        "x": [x.at(value, one.shift) for value in one.x],
        "y": one.values,
        "customdata": [list(pair) for pair in zip(said, notes, strict=True)],
        "hovertemplate": f"{label(one.name)}<br>{where}<extra></extra>",
        "showlegend": one.legend,
        "line": {"color": colour, "width": one.width, "dash": one.dash},
        "marker": _marker(one, colour),
        "cliponaxis": False,
    }
    ends = [y if isinstance(y, Interval) else Interval(None) for y in one.y]
    if any(end.low is not None for end in ends):
        up, down = [_gap(end.high, end.value) for end in ends], [_gap(end.value, end.low) for end in ends]
        bar = {"type": "data", "symmetric": False, "array": up, "arrayminus": down}
        trace["error_y"] = bar | {"color": colour, "thickness": 1.5, "width": 4}
    return trace


def _mode(one: Series) -> str:
    """A line through two points would say that what lies between them is known: they are dots."""
    return _MODES[one.look] if sum(value is not None for value in one.values) > 2 else "markers"


def _marker(one: Series, colour: str) -> dict[str, Any]:
    if one.look == "rings":
        return {"color": "rgba(0,0,0,0)", "size": one.size, "line": {"color": colour, "width": 2}}
    if one.shade is None:
        return {"color": colour, "size": one.size, "line": {"color": "@paper", "width": 1}}
    scale = {"colorscale": "@sequential", "cmin": 0, "cmax": 1, "showscale": True, "colorbar": colour_bar(one.shade[0])}
    return {"color": list(one.shade[1]), "size": one.size, "line": {"color": "@muted", "width": 1}} | scale


def _gap(upper: Value, lower: Value) -> Value:
    return None if upper is None or lower is None else max(0.0, upper - lower)
