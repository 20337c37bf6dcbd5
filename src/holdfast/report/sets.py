"""One prompt set of a sensitivity run in full: its matrix, its variants against the original word by word, and the
tokens that moved.
"""

from __future__ import annotations

import difflib
import itertools
import math
import operator
import re
from collections.abc import Mapping, Sequence
from typing import Any
from zipfile import BadZipFile

import numpy as np

from holdfast.report.heatmap import Matrix, difference_map
from holdfast.report.parts import Figure, Note, Part, Passage, TextPiece
from holdfast.report.reading import ReadRun, read_rows
from holdfast.tables.sensitivity import ALL, attribution, responses
from holdfast.tables.text import counted, number

_MOST_VARIANTS = 40
_MOST_WORDS = 1000
"""The most words, spaces and marks of a prompt that is compared in full."""
_MOST_PAIRS = 250_000
"""The most pairs of letters of a replaced stretch that is compared letter by letter. The time grows with the pairs."""


def prompts_of(run: ReadRun) -> dict[tuple[str, str], str]:
    """Return the prompts by (set, variant), from the run's own copy of its sets."""
    rows, _ = read_rows(run.path / "sets.jsonl")
    return {(str(row.get("set_id")), str(row.get("variant_id"))): str(row.get("prompt", "")) for row in rows}


def chosen_set(run: ReadRun, row: Mapping[str, Any], prompts: Mapping[tuple[str, str], str]) -> list[Part]:
    """Return matrix, wordings, tokens and responses of one set, as far as they are stored."""
    parts = [_matrix(run, row), _wordings(row, prompts), _tokens(row), responses(row)]
    return [part for part in parts if part is not None] or [Note("Nothing more is stored of this set.")]


def word_diff(original: str, variant: str) -> list[TextPiece]:
    """Return the variant as pieces that are equal, removed or added against the original, compared by words, and within
    replaced words by characters.
    """
    a, b = re.findall(r"\s+|\w+|[^\w\s]", original), re.findall(r"\s+|\w+|[^\w\s]", variant)
    start, end = _shared(a, b), _shared(a[::-1], b[::-1])
    many = max(len(a), len(b)) > _MOST_WORDS
    if (start or end) and many:  # exemplars in front of a question, say; comparing all words with all would take long
        end = min(end, len(a) - start, len(b) - start)
        middle = word_diff("".join(a[start : len(a) - end]), "".join(b[start : len(b) - end]))
        whole = [TextPiece("".join(a[:start])), *middle, TextPiece("".join(a[len(a) - end :]))]
        return [piece for piece in whole if piece.text]
    if many:
        return _pieces("replace", original, variant)
    pieces: list[TextPiece] = []
    for tag, a0, a1, b0, b1 in difflib.SequenceMatcher(None, a, b, autojunk=False).get_opcodes():
        old, new = "".join(a[a0:a1]), "".join(b[b0:b1])
        pieces += _by_characters(old, new) if tag == "replace" else _pieces(tag, old, new)
    return pieces


def _shared(a: Sequence[str], b: Sequence[str]) -> int:
    """Return how many words both begin with."""
    return next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))


def _by_characters(old: str, new: str) -> list[TextPiece]:
    """Inside a replaced stretch letters are compared only if most of them stay; otherwise the whole stretch is shown as
    replaced.
    """
    matcher = difflib.SequenceMatcher(None, old, new, autojunk=False)
    if len(old) * len(new) > _MOST_PAIRS or matcher.ratio() < 0.6:
        return _pieces("replace", old, new)
    pieces: list[TextPiece] = []
    for tag, a0, a1, b0, b1 in matcher.get_opcodes():
        pieces += _pieces(tag, old[a0:a1], new[b0:b1])
    return pieces


def _pieces(tag: str, old: str, new: str) -> list[TextPiece]:
    if tag == "equal":
        return [TextPiece(old)]
    return [TextPiece(text, role) for text, role in ((old, "removed"), (new, "added")) if text]


def _matrix(run: ReadRun, row: Mapping[str, Any]) -> Figure | None:
    """Log-prob per token of every response (columns) after every prompt (rows), relative to its own prompt."""
    names = [str(v.get("variant_id")) for v in row.get("variants", [])]
    shift_XY = _stored(run, row)
    if shift_XY is None or shift_XY.shape != (len(names), len(names)):
        return None
    values = np.array(np.where(np.isfinite(shift_XY), shift_XY.astype(object), None)).tolist()
    notes = [[f"response: {v.get('response', '')}" for v in row["variants"]]] * len(names)
    rest = "Pairs that were not scored are blank."
    if ALL in row["indices"]:
        rest = "The mean of the absolute values off the diagonal is psi."
    caption = (
        "How much less likely each response (column) becomes after each other prompt (row) than after its own, nats "
        f"per token; {counted(len(names), 'prompt')}, exact values. {rest}"
    )
    matrix = Matrix(values, names, names, notes, ("prompt", "response of", "shift"))
    return difference_map(f"Matrix: {row['set_id']}", caption, matrix)


def _stored(run: ReadRun, row: Mapping[str, Any]) -> Any:
    """Shift [X, Y] of the set: (own log-prob - foreign log-prob) / length; None if the file is absent or broken."""
    place = next((i for i, other in enumerate(run.rows) if other is row), None)
    try:
        with np.load(run.path / "matrices" / f"{place}.npz", allow_pickle=False) as stored:
            logp_XY, len_Y = stored["logp_XY"], stored["len_Y"]
    except (OSError, KeyError, ValueError, BadZipFile):
        return None
    if logp_XY.ndim != 2 or logp_XY.shape[0] != logp_XY.shape[1] or len_Y.shape != logp_XY.shape[1:]:
        return None
    return (np.diagonal(logp_XY)[None] - logp_XY) / np.maximum(len_Y, 1)


def _wordings(row: Mapping[str, Any], prompts: Mapping[tuple[str, str], str]) -> Passage | None:
    keys = [(v, (str(row["set_id"]), str(v.get("variant_id")))) for v in row.get("variants", [])]
    variants = [(v, prompts[key]) for v, key in keys if key in prompts]
    if len(variants) < 2:
        return None
    origin, first = next(((v, p) for v, p in variants if v.get("kind") == "original"), variants[0])
    lines: list[tuple[str, Sequence[TextPiece]]] = [(f"{origin['variant_id']}  original", [TextPiece(first)])]
    others = [(v, p) for v, p in variants if v is not origin]
    lines += [(f"{v['variant_id']}  {v.get('kind', '')}", word_diff(first, p)) for v, p in others[:_MOST_VARIANTS]]
    cut = f" The first {_MOST_VARIANTS} of {len(others)} variants." if len(others) > _MOST_VARIANTS else ""
    legend = [("removed", "only in the original"), ("added", "only in the variant")]
    caption = f"What each variant changes against the original.{cut}"
    return Passage(f"Wordings: {row['set_id']}", caption, lines, legend)


def _tokens(row: Mapping[str, Any]) -> Passage | None:
    """Return the responses that moved most, each token shaded by its mean absolute shift."""
    moved = attribution(row).get("tokens") or []
    tokens = itertools.chain.from_iterable(map(operator.itemgetter("tokens"), moved))
    largest = max((_shade(shift) for _, shift in tokens), default=0.0) or 1.0
    lines = [(f"response of {one['response_of']}", _shaded(one["tokens"], largest)) for one in moved]
    caption = (
        f"Tokens of the {len(lines)} responses that moved most, shaded by the mean absolute change of their log-prob "
        f"after foreign prompts (darkest: {number(largest)} nats)."
    )
    return Passage(f"Which tokens move: {row['set_id']}", caption, lines) if lines else None


def _shaded(tokens: Sequence[tuple[str, float | None]], largest: float) -> list[TextPiece]:
    return [TextPiece(_readable(t), heat=_shade(s) / largest, hint=f"{number(s)} nats") for t, s in tokens]


def _shade(shift: float | None) -> float:
    """Return the shift that a token is shaded by: 0, which is no shade, for one that could not be computed."""
    return shift if shift is not None and math.isfinite(shift) else 0.0


def _readable(token: object) -> str:
    """Return a token of a vocabulary with its spaces and line breaks as they are in text."""
    return str(token).replace("Ġ", " ").replace("▁", " ").replace("Ċ", "\n").replace("ĉ", "\t")
