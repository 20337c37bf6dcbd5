"""One prompt set of a sensitivity run in full: its matrix, its variants against the original word by word, and which
tokens moved.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any
from zipfile import BadZipFile

import numpy as np

from holdfast.report.heatmap import Matrix, difference_map
from holdfast.report.parts import Figure, Note, Part, Passage, Piece
from holdfast.report.reading import Run, read_rows
from holdfast.tables.record import Cell, Column, Table
from holdfast.tables.text import number

_MOST_VARIANTS = 40
_MOST_WORDS = 1000
"""Words, spaces and marks up to which two prompts are compared in full."""
_MOST_PAIRS = 250_000
"""Pairs of letters up to which a replaced stretch is compared letter by letter: comparing takes as long as there are
pairs.
"""


def prompts_of(run: Run) -> dict[tuple[str, str], str]:
    """Prompts by (set, variant), from the run's own copy of its sets."""
    rows, _ = read_rows(run.path / "sets.jsonl")
    return {(str(row.get("set_id")), str(row.get("variant_id"))): str(row.get("prompt", "")) for row in rows}


def chosen_set(run: Run, row: Mapping[str, Any], prompts: Mapping[tuple[str, str], str]) -> list[Part]:
    """Matrix, wordings and tokens of one set."""
    made = [_matrix(run, row), _wordings(row, prompts), _tokens(row), _responses(row)]
    return [part for part in made if part is not None] or [Note("Nothing more is stored of this set.")]


def word_diff(original: str, variant: str) -> list[Piece]:
    """The variant as pieces that are equal, removed or added against the original: by words, and within replaced words
    by characters.
    """
    a, b = re.findall(r"\s+|\w+|[^\w\s]", original), re.findall(r"\s+|\w+|[^\w\s]", variant)
    start, end = _shared(a, b), _shared(a[::-1], b[::-1])
    many = max(len(a), len(b)) > _MOST_WORDS
    if (start or end) and many:  # exemplars in front of a question, say; comparing all words with all would take long
        end = min(end, len(a) - start, len(b) - start)
        middle = word_diff("".join(a[start : len(a) - end]), "".join(b[start : len(b) - end]))
        return [
            piece for piece in (Piece("".join(a[:start])), *middle, Piece("".join(a[len(a) - end :]))) if piece.text
        ]
    if many:
        return _pieces("replace", original, variant)
    pieces: list[Piece] = []
    for tag, a0, a1, b0, b1 in difflib.SequenceMatcher(None, a, b, autojunk=False).get_opcodes():
        old, new = "".join(a[a0:a1]), "".join(b[b0:b1])
        pieces += _by_characters(old, new) if tag == "replace" else _pieces(tag, old, new)
    return pieces


def _shared(a: Sequence[str], b: Sequence[str]) -> int:
    """How many words both begin with."""
    return next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))


def _by_characters(old: str, new: str) -> list[Piece]:
    """Inside a replaced stretch letters are compared only if most of them stay; otherwise the whole stretch is shown as
    replaced.
    """
    matcher = difflib.SequenceMatcher(None, old, new, autojunk=False)
    if len(old) * len(new) > _MOST_PAIRS or matcher.ratio() < 0.6:
        return _pieces("replace", old, new)
    return [piece for tag, a0, a1, b0, b1 in matcher.get_opcodes() for piece in _pieces(tag, old[a0:a1], new[b0:b1])]


def _pieces(tag: str, old: str, new: str) -> list[Piece]:
    if tag == "equal":
        return [Piece(old)]
    return [Piece(text, role) for text, role in ((old, "removed"), (new, "added")) if text]


def _matrix(run: Run, row: Mapping[str, Any]) -> Figure | None:
    """Log-prob per token of every response (columns) after every prompt (rows), relative to its own prompt."""
    names = [str(v.get("variant_id")) for v in row.get("variants", [])]
    found = _stored(run, row)
    if found is None or found.shape != (len(names), len(names)):
        return None
    values = [[float(v) if np.isfinite(v) else None for v in line] for line in found]
    responses = [str(v.get("response", "")) for v in row["variants"]]
    notes = [[f"response: {response}" for response in responses] for _ in names]
    rest = (
        "The mean of the absolute values off the diagonal is psi."
        if "all" in row["indices"]
        else "Pairs that were not scored are blank."
    )
    caption = (
        "How much less likely each response (column) becomes after each other prompt (row) than after its own, nats "
        "per token; "
        f"{len(names)} prompts, exact values. {rest}"
    )
    return difference_map(
        f"Matrix: {row['set_id']}", caption, Matrix(values, names, names, notes, ("prompt", "response of", "shift"))
    )


def _stored(run: Run, row: Mapping[str, Any]) -> Any:
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
    variants = [(v, prompts.get((str(row["set_id"]), str(v.get("variant_id"))))) for v in row.get("variants", [])]
    known = [(v, prompt) for v, prompt in variants if prompt is not None]
    if len(known) < 2:
        return None
    origin, first = next(((v, p) for v, p in known if v.get("kind") == "original"), known[0])
    lines: list[tuple[str, Sequence[Piece]]] = [(f"{origin['variant_id']}  original", [Piece(first)])]
    others = [(v, p) for v, p in known if v is not origin]
    lines += [(f"{v['variant_id']}  {v.get('kind', '')}", word_diff(first, p)) for v, p in others[:_MOST_VARIANTS]]
    cut = f" The first {_MOST_VARIANTS} of {len(others)} variants." if len(others) > _MOST_VARIANTS else ""
    caption = f"What each variant changes against the original.{cut}"
    return Passage(
        f"Wordings: {row['set_id']}",
        caption,
        lines,
        [("removed", "only in the original"), ("added", "only in the variant")],
    )


def _tokens(row: Mapping[str, Any]) -> Passage | None:
    """The responses that moved most, each token shaded by its mean absolute shift."""
    found = _attribution(row).get("tokens") or []
    largest = max((_known(shift) for one in found for _, shift in one["tokens"]), default=0.0) or 1.0
    lines = [
        (
            f"response of {one['response_of']}",
            [Piece(_readable(t), heat=_known(s) / largest, hint=f"{number(s)} nats") for t, s in one["tokens"]],
        )
        for one in found
    ]
    caption = (
        f"Tokens of the {len(lines)} responses that moved most, shaded by the mean absolute change of their log-prob "
        "after foreign prompts "
        f"(darkest: {number(largest)} nats)."
    )
    return Passage(f"Which tokens move: {row['set_id']}", caption, lines) if lines else None


def _known(shift: float | None) -> float:
    """A shift to shade by; one that could not be computed is left unshaded."""
    return shift if shift is not None and math.isfinite(shift) else 0.0


def _attribution(row: Mapping[str, Any]) -> dict[str, Any]:
    views = row.get("attribution") or {}
    found: dict[str, Any] = views.get("all") or next(iter(views.values()), {})
    return found


def _readable(token: object) -> str:
    """A token as vocabularies write it, with its spaces and line breaks."""
    return str(token).replace("Ġ", " ").replace("▁", " ").replace("Ċ", "\n").replace("ĉ", "\t")


def _responses(row: Mapping[str, Any]) -> Table:
    found = _attribution(row)
    by_prompt, by_response = found.get("by_prompt", {}), found.get("by_response", {})
    rows: list[list[Cell]] = []
    for v in row.get("variants", []):
        name = str(v.get("variant_id"))
        right = None if v.get("right") is None else "right" if v["right"] else "wrong"
        logp = v["logp"] / v["tokens"] if v.get("tokens") and v.get("logp") is not None else None
        rows.append(
            [
                name,
                v.get("kind"),
                v.get("response"),
                v.get("answer"),
                right,
                logp,
                by_prompt.get(name),
                by_response.get(name),
            ]
        )
    columns = [
        Column("variant", kind="code"),
        Column("kind"),
        Column("response", kind="code"),
        Column("read as", kind="code"),
        Column("answer is"),
        Column("log-prob per token"),
        Column("shift as prompt", hint="mean shift of foreign responses after this prompt"),
        Column("shift as response", hint="mean shift of this response after foreign prompts"),
    ]
    return Table(f"Responses: {row['set_id']}", columns, rows)
