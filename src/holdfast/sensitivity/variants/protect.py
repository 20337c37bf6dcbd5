"""What no generator may touch: placeholders, numbers, code, links, quotations, and the right answer.

In: a text. Out: its words with their places, protected ones left out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

_PROTECTED = re.compile(
    r"""```.*?```                     # code blocks
      | `[^`\n]+`                     # code spans
      | \{\{.*?\}\} | \{[^{}\n]*\}    # placeholders
      | <[^<>\s][^<>\n]*> | \[[A-Z_]+\] | %\(?\w*\)?[sd]
      | \$[^$\n]+\$                   # formulas
      | https?://\S+ | \S+@\S+\.\w+
      | "[^"\n]{1,80}"                # quotations
      | \w*\d(?:[\w.,:/-]*\w)?%?      # numbers, and words with digits
      | \w+_\w+                       # identifiers
      | \([A-Z]\)                     # option markers
    """,
    re.VERBOSE | re.DOTALL,
)
_WORD = re.compile(r"[^\W\d_]+(?:['\u2019][^\W\d_]+)*")

Spans = list[tuple[int, int]]


def protected_spans(text: str, keep: Sequence[str] = ()) -> Spans:
    """Places [start, end) that must stay as they are. ``keep``: further texts, such as the right answer, found as whole words."""
    spans = [m.span() for m in _PROTECTED.finditer(text)]
    for piece in keep:
        if piece:
            spans += [m.span() for m in re.finditer(rf"(?<!\w){re.escape(piece)}(?!\w)", text, re.IGNORECASE)]
    return sorted(spans)


def free_words(text: str, keep: Sequence[str] = ()) -> Spans:
    """Words that may be changed."""
    closed = protected_spans(text, keep)
    return [m.span() for m in _WORD.finditer(text) if not any(start < m.end() and m.start() < end for start, end in closed)]


def change_free_text(text: str, keep: Sequence[str], change: Callable[[str], str]) -> str:
    """Apply ``change`` to everything between the protected places."""
    made, at = "", 0
    for start, end in [*protected_spans(text, keep), (len(text), len(text))]:
        if start >= at:
            made += change(text[at:start]) + text[start:end]
        elif end > at:  # overlaps the place before
            made += text[at:end]
        at = max(at, end)
    return made
