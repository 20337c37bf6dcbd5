"""Names of colours -> colours, for light and dark. Figures hold the names; the page and the export of pictures replace
them by colours.

The six series colours are those of Okabe and Ito, which people with any kind of colour vision can tell apart, lightened
for the dark theme. Scales run in lightness, so that they also read in grey.
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
    "@sequential": [[0, "#f1f5f4"], [0.25, "#b9d9d3"], [0.5, "#6fb3a8"], [0.75, "#2b857a"], [1, "#07433c"]],
    "@better": [[0, "#a54400"], [0.25, "#eda06a"], [0.5, "#eef0ef"], [0.75, "#6fb3a8"], [1, "#0b6b60"]],
    "@worse": [[0, "#0b6b60"], [0.25, "#6fb3a8"], [0.5, "#eef0ef"], [0.75, "#eda06a"], [1, "#a54400"]],
    "@neutral": [[0, "#eef0ef"], [1, "#eef0ef"]],
    "@diverging": [[0, "#0b4f86"], [0.25, "#79aed2"], [0.5, "#f6f6f4"], [0.75, "#eda06a"], [1, "#a54400"]],
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
    "@sequential": [[0, "#1b2523"], [0.25, "#1f4f48"], [0.5, "#2f8377"], [0.75, "#63b9aa"], [1, "#c5f0e6"]],
    "@better": [[0, "#f7a66b"], [0.25, "#97532a"], [0.5, "#232c2b"], [0.75, "#2f8377"], [1, "#7fd8c8"]],
    "@worse": [[0, "#7fd8c8"], [0.25, "#2f8377"], [0.5, "#232c2b"], [0.75, "#97532a"], [1, "#f7a66b"]],
    "@neutral": [[0, "#232c2b"], [1, "#232c2b"]],
    "@diverging": [[0, "#8cc4ee"], [0.25, "#34688f"], [0.5, "#20282a"], [0.75, "#97532a"], [1, "#f7a66b"]],
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
