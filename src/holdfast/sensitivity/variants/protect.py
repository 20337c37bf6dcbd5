"""What no generator may touch: placeholders, numbers, code, paths, links, quotations, alternatives to choose from, and
the right answer.

In: a text. Out: its words with their places, protected ones left out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

_PROTECTED = re.compile(
    r"""```.*?(?:```|\Z)               # code blocks
      | `[^`\n]+`                     # code spans
      | (?m:^(?:[ ]{4}|\t)[^\n]*)     # indented code, and lines that can only be code
      | (?m:^[ ]*(?:def|class|import|from|return|for|while|if|elif|else|try|except|function|const|let|var)\b[^\n]*[:;{}()=]$)
      | (?m:^(?=[^\n]*[;{}]$)[^\n=()]*[=()][^\n]*$ | ^[ ]*[{}][;,]?$)
      | \{\{.{0,200}?\}\} | \{[^{}\n]*\}    # placeholders
      | <[^<>\s][^<>\n]*> | \[[A-Z_]+\] | %\(?\w*\)?[sd]
      | \$(?=\S)[^$\n]+(?<=\S)\$(?!\d)   # formulas, and no sums of money
      | \$\w+ | \$\{\w+\}            # shell variables
      | https?://\S+ | (?<![\w.+-])[\w.+-]+@[\w.-]+\.\w+
      | (?<![\w/])[~.]{0,2}/[\w.~+-]+(?:/[\w.~+-]*)* | ~/[\w./~+-]* | \b[A-Za-z]:\\\S*\w   # paths
      | (?<!\S)--?[A-Za-z][\w-]*      # switches of a command
      | "[^"\n]{1,80}" | \u201c[^\u201d\n]{1,80}\u201d | \u2018[^\u2019\n]{1,80}\u2019 | \u00ab[^\u00bb\n]{1,80}\u00bb   # quotations
      | (?<![\w'])'[^'\n]{1,80}'(?![\w'])
      | [(\[]\s*[-+]?\d[\d.]*(?:\s*,\s*[-+]?\d[\d.]*)+\s*[)\]] | [-+]?\d+(?:\.\d+)?(?:,\s*[-+]?\d+(?:\.\d+)?)+(?!\w)   # rows of numbers
      | \b\w+\s*(?:==|!=|<=|>=|\+=|-=|:=|=)\s*[^\s,;]*\w   # assignments
      | (?<!\w)[A-Za-z_][\w.]*\([^()\n]*\)   # calls
      | \b[^\W\d_]\w*(?:\.[^\W\d_]\w*)+   # names with dots, names of files
      | \b[^\W\d_]+(?:/[^\W\d_]+)+   # yes/no
      # positive, negative or neutral
      | (?<![\w'\u2019])(?:(?:[^\W\d_]+,\s){1,12}[^\W\d_]+,?|[^\W\d_]+)\s(?:or|vs\.?)\s[^\W\d_]+(?![\w'\u2019])
      | (?<!\w)\w*\d(?:[\w.,:/-]*\w)?%?      # numbers, and words with digits
      | (?<!\w)\w+_\w+                       # identifiers
      | \b[^\W\d_A-Z]+[A-Z]\w* | \b[A-Z][a-z]+[A-Z]\w*
      | \.{3,}                        # a gap to fill
      | \([A-Z]\)                     # option markers
    """,
    re.VERBOSE | re.DOTALL,
)
WORD = re.compile(r"[^\W\d_]+(?:['\u2019][^\W\d_]+)*")
_CURLY = str.maketrans("\u2018\u2019\u201c\u201d", "''\"\"")

Spans = list[tuple[int, int]]


def protected_spans(text: str, keep: Sequence[str] = ()) -> Spans:
    """Places [start, end) that must stay as they are. ``keep``: further texts, such as the right answer, found as whole
    words.
    """
    spans = [m.span() for m in _PROTECTED.finditer(text)]
    for piece in keep:
        if piece:
            spans += [m.span() for m in re.finditer(rf"(?<!\w){re.escape(piece)}(?!\w)", text, re.IGNORECASE)]
    return sorted(spans)


def holds(text: str, piece: str) -> bool:
    """Whether a protected piece is in a text: word for word, case and kinds of quotation marks aside; alternatives in
    any order.
    """
    words = re.split(r",?\s(?:or|vs\.?)\s|,\s", piece) if re.search(r"\s(?:or|vs\.?)\s", piece) else [piece]
    plain, wanted = _plain(text), [_plain(word) for word in words]
    return all(re.search(rf"(?<!\w){re.escape(word)}(?!\w)", plain) for word in wanted)


def _plain(text: str) -> str:
    return text.lower().translate(_CURLY)


def free_words(text: str, keep: Sequence[str] = ()) -> Spans:
    """Words that may be changed."""
    closed = protected_spans(text, keep)
    return [
        m.span() for m in WORD.finditer(text) if not any(start < m.end() and m.start() < end for start, end in closed)
    ]


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
