"""Text from anywhere -> text that is safe and visible on a page. Every string of a run passes through here before it
reaches a file.

A model may write anything: markup, control characters, characters that turn the writing direction round. All of it is
made visible, and none of it acts.
"""

from __future__ import annotations

import html
import math
import unicodedata
from typing import Any

MINUS = "\N{MINUS SIGN}"
_LONGEST = 4000
"""Characters of one text that a page shows."""
_MANY_DIGITS = 1e12
_ROUNDING = 1e-12
"""A number smaller than this is a zero with rounding errors."""

# Marks of writing direction and joiners that hide or reorder what follows; ordinary letters of any script are left
# alone.
_HIDDEN = frozenset(
    "\u00ad\u061c\u180e\u200b\u200e\u200f\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u2060\u2066\u2067\u2068\u2069\ufeff"
)


def visible(text: object, *, lines: bool = False) -> str:
    """Return text with every control character made visible: a bell as ``[U+0007]``, a bidi override as ``[U+202E]``.

    Args:
        text: anything; converted by ``str``.
        lines: keep line breaks, after a mark that shows them; otherwise only the mark stays.
    """
    return "".join(
        character if character.isalnum() or character == " " else _marked(character, lines) for character in str(text)
    )


def escape(text: object, *, lines: bool = False) -> str:
    """Return ``visible`` text for HTML, inside elements and quoted attributes; very long text is ``clipped``."""
    return html.escape(visible(clipped(str(text)), lines=lines), quote=True)


def label(text: object, longest: int = 60) -> str:
    """Return ``visible`` text for a figure, shortened in its middle. plotly.js reads some markup and ``%{...}`` in
    labels: both are escaped.
    """
    return html.escape(shorten(visible(shorten(str(text), longest)), longest), quote=False).replace("%{", "%&#123;")


def clipped(text: str) -> str:
    """Return text that a page can carry: of more than 4,000 characters the middle is left out, and it says how much."""
    if len(text) <= _LONGEST:
        return text
    return f"{text[: _LONGEST // 2]} […{len(text) - _LONGEST:,} characters left out…] {text[-_LONGEST // 2 :]}"


def shorten(text: str, longest: int) -> str:
    """Return at most ``longest`` characters; of longer text an ellipsis replaces the middle."""
    if len(text) <= longest:
        return text
    head = (longest - 1) * 2 // 3
    return f"{text[:head]}…{text[len(text) - (longest - 1 - head) :]}"


def number(value: Any, digits: int | None = 3) -> str:
    """Return a number for people, with ``digits`` after the point, or more where these would all be zeros; None means
    three significant digits.

    Files may hold anything in a number's place: what is not a number is returned as text, which must still be escaped.
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "\N{EN DASH}"
    if not isinstance(value, float | int):
        return str(value)
    if isinstance(value, float) and math.isinf(value):
        return "∞" if value > 0 else f"{MINUS}∞"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if abs(value) < _ROUNDING:
        value = type(value)(0)
    if isinstance(value, int):
        text = f"{value:,}"
    elif abs(value) >= _MANY_DIGITS:  # a perplexity may be of any size
        text = f"{value:.3g}"
    elif abs(value) >= 10_000:
        text = f"{value:,.0f}"
    elif digits is None:
        text = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    elif 0 < abs(value) < 0.5 * 10.0**-digits:
        text = f"{value:.2g}"
    else:
        text = f"{value:,.{digits}f}"
    return text.replace("-", MINUS)


def counted(count: int, what: str) -> str:
    """Return a count with its noun: ``1 set``, ``2 sets``."""
    return f"{count:,} {what}{'s' * (count != 1)}"


def duration(seconds: float) -> str:
    """Return a time for people: ``8.2 s``, ``3 min 20 s``, ``5 h 07 min``."""
    if seconds < 60:
        return f"{seconds:.3g} s"
    if seconds < 3600:
        return f"{int(seconds) // 60} min {int(seconds) % 60:02d} s"
    return f"{int(seconds) // 3600:,} h {int(seconds) % 3600 // 60:02d} min"


def slug(text: str) -> str:
    """Return a name for a file or an anchor: lower-case ASCII letters, digits and hyphens."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    return "-".join("".join(c if c.isalnum() else " " for c in plain).split())[:60].rstrip("-") or "part"


def _marked(character: str, lines: bool) -> str:
    code = ord(character)
    if character == "\n":
        return "↵\n" if lines else "↵"
    if character == "\t":
        return "⇥"
    hidden = character in _HIDDEN or 0xE0000 <= code < 0xE0080  # the latter are tags: invisible letters
    return f"[U+{code:04X}]" if hidden or unicodedata.category(character) in ("Cc", "Cs", "Cn") else character
