"""Names of colours -> colours, for light and dark. Figures hold the names; the page and the export of pictures replace
them by colours.

The six series colours are those of Okabe and Ito, which people with any kind of colour vision can tell apart, lightened
for the dark theme. Scales run in lightness, so that they also read in grey, and stay far enough from the ink (4.5:1)
for numbers to be read on them.
"""

from __future__ import annotations

from typing import Any

_LIGHT: dict[str, Any] = {
    "@ink": "#1d2524",
    "@muted": "#6a7674",
    "@faint": "#879391",
    "@grid": "#e7ebea",
    "@paper": "#ffffff",
    "@accent": "#0b6b60",
    "@1": "#0072b2",
    "@2": "#d55e00",
    "@3": "#009e73",
    "@4": "#a8518a",
    "@5": "#b27a00",
    "@6": "#3f8fc4",
    "@sequential": [[0, "#f1f5f4"], [0.25, "#cfe5e0"], [0.5, "#a5d3ca"], [0.75, "#79c0b3"], [1, "#4fae9f"]],
    "@better": [[0, "#e8935a"], [0.25, "#f0bf9c"], [0.5, "#eef0ef"], [0.75, "#a5d3ca"], [1, "#4fae9f"]],
    "@worse": [[0, "#4fae9f"], [0.25, "#a5d3ca"], [0.5, "#eef0ef"], [0.75, "#f0bf9c"], [1, "#e8935a"]],
    "@neutral": [[0, "#eef0ef"], [1, "#eef0ef"]],
    "@diverging": [[0, "#5b9fd0"], [0.25, "#a9cbe4"], [0.5, "#f6f6f4"], [0.75, "#f0bf9c"], [1, "#e8935a"]],
}

_DARK: dict[str, Any] = {
    "@ink": "#e4eae8",
    "@muted": "#95a3a0",
    "@faint": "#62706c",
    "@grid": "#2a3331",
    "@paper": "#151b1a",
    "@accent": "#58cbb7",
    "@1": "#5fb0e8",
    "@2": "#f28b46",
    "@3": "#35c79b",
    "@4": "#dd9cc6",
    "@5": "#eab54a",
    "@6": "#a5d5f4",
    "@sequential": [[0, "#1b2523"], [0.25, "#1d3531"], [0.5, "#1e463f"], [0.75, "#1f584f"], [1, "#1f6b60"]],
    "@better": [[0, "#8a4a1c"], [0.25, "#583c24"], [0.5, "#232c2b"], [0.75, "#214b45"], [1, "#1f6b60"]],
    "@worse": [[0, "#1f6b60"], [0.25, "#214b45"], [0.5, "#232c2b"], [0.75, "#583c24"], [1, "#8a4a1c"]],
    "@neutral": [[0, "#232c2b"], [1, "#232c2b"]],
    "@diverging": [[0, "#2a5f8a"], [0.25, "#25455c"], [0.5, "#20282a"], [0.75, "#583c24"], [1, "#8a4a1c"]],
}

THEMES = {"light": _LIGHT, "dark": _DARK}

SERIES = ("@1", "@2", "@3", "@4", "@5", "@6")


def paint(value: Any, theme: dict[str, Any]) -> Any:
    """A figure, or a piece of one, with colours in place of their names. This is done only where plotly takes a colour:
    elsewhere the same text may be a name from the data.
    """
    if isinstance(value, dict):
        return {key: _paint_item(key, item, theme) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [paint(item, theme) for item in value]
    return value


def _paint_item(key: str, item: Any, theme: dict[str, Any]) -> Any:
    is_colour = isinstance(item, str) and key.endswith(("color", "colorscale"))
    return theme.get(item, item) if is_colour else paint(item, theme)
