"""A text -> the places that no generator may touch, and the words that it may change.

Protected are placeholders, numbers, code, paths, links, quotations, alternatives to choose from, and the right answer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

_PROTECTED = re.compile(
    r"""```.*?(?:```|\Z)               # code blocks
      | `[^`\n]+`                     # code spans
      | (?m:^(?:[ ]{4}|\t)[^\n]*)     # indented code, and lines that can only be code
      | (?m:^[ ]*(?:def|class|import|from|return|for|while|if|elif|else|try|except|function|const|let|var)\b
          [^\n]*[:;{}()=]$)
      | (?m:^(?=[^\n]*[;{}]$)[^\n=()]*[=()][^\n]*$ | ^[ ]*[{}][;,]?$)
      | \{\{.{0,200}?\}\} | \{[^{}\n]*\}    # placeholders
      | <[^<>\s][^<>\n]*> | \[[A-Z_]+\] | %\(?\w*\)?[sd] | %\w+%
      | \$(?=\S)[^$\n]+(?<=\S)\$(?!\d)   # formulas, and no sums of money
      | \$\w+ | \$\{\w+\}            # shell variables
      | https?://\S+ | (?<![\w.+-])[\w.+-]+@[\w.-]+\.\w+
      | (?<![\w/])[~.]{0,2}/[\w.~+-]+(?:/[\w.~+-]*)* | ~/[\w./~+-]* | \b[A-Za-z]:\\\S*\w   # paths
      | (?<!\S)--?[A-Za-z][\w-]*      # switches of a command
      # quotations
      | "[^"\n]{1,80}" | \u201c[^\u201d\n]{1,80}\u201d | \u2018[^\u2019\n]{1,80}\u2019 | \u00ab[^\u00bb\n]{1,80}\u00bb
      | (?<![\w'])'[^'\n]{1,80}'(?![\w'])
      # rows of numbers
      | [(\[]\s*[-+]?\d[\d.]*(?:\s*,\s*[-+]?\d[\d.]*)+\s*[)\]]
      | [-+]?\d+(?:\.\d+)?(?:,\s*[-+]?\d+(?:\.\d+)?)+(?!\w)
      | \b\w+\s*(?:==|!=|<=|>=|\+=|-=|:=|=)\s*[^\s,;]*\w   # assignments
      | (?<!\w)[A-Za-z_][\w.]*\([^()\n]*\)   # calls
      | \b[^\W\d_]\w*(?:\.[^\W\d_]\w*)+   # names with dots, names of files
      | \b[^\W\d_]+(?:/[^\W\d_]+)+   # yes/no
      # positive, negative or neutral
      | (?<![\w'\u2019])(?:(?:[^\W\d_]+,\s){1,12}[^\W\d_]+,?|[^\W\d_]+)\s(?:or|vs\.?)\s(?:not\s)?[^\W\d_]+
          (?![\w'\u2019])
      # labels: positive, negative
      | \b(?i:labels?|categor(?:y|ies)|classes|tags|choices|one\sof)\b[^.:,\n]{0,30}?:?\s
          (?:[^\W\d_]+,\s){1,12}(?:(?:and|or)\s)?[^\W\d_]+(?:\s(?:and|or)\s[^\W\d_]+)?(?![\w'\u2019])
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
    """Return the places [start, end) that must stay as they are. ``keep``: further whole words, such as the answer."""
    spans = [m.span() for m in _PROTECTED.finditer(text)]
    for words in filter(None, keep):
        spans += [m.span() for m in re.finditer(rf"(?<!\w){re.escape(words)}(?!\w)", text, re.IGNORECASE)]
    return sorted(spans)


def outside(match: re.Match[str], spans: Spans) -> bool:
    """Whether a match overlaps none of the places."""
    return not any(start < match.end() and match.start() < end for start, end in spans)


def holds(text: str, piece: str) -> bool:
    """Whether a text has a protected piece in it, whatever its case and quotation marks; alternatives in any order."""
    words = re.split(r",?\s(?:or|vs\.?)\s|,\s", piece) if re.search(r"\s(?:or|vs\.?)\s", piece) else [piece]
    plain = _plain(text)
    return all(re.search(rf"(?<!\w){re.escape(_plain(word))}(?!\w)", plain) for word in words)


def _plain(text: str) -> str:
    return text.lower().translate(_CURLY)


def free_words(text: str, keep: Sequence[str] = ()) -> Spans:
    """Return the places of the words that may be changed."""
    closed = protected_spans(text, keep)
    return [word.span() for word in WORD.finditer(text) if outside(word, closed)]


def change_free_text(text: str, keep: Sequence[str], change: Callable[[str], str]) -> str:
    """Apply ``change`` to everything between the protected places."""
    changed, at = "", 0
    for start, end in [*protected_spans(text, keep), (len(text), len(text))]:
        if start >= at:
            changed += change(text[at:start]) + text[start:end]
        elif end > at:  # overlaps the place before
            changed += text[at:end]
        at = max(at, end)
    return changed
