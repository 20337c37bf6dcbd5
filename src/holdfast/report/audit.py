"""An ``audit`` run -> what the loss looks at, and every finding with its example coloured by role."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any

from holdfast.report.figures import Axis, Series, bars
from holdfast.report.parts import FactList, Figure, Note, Part, Passage, TextPiece
from holdfast.report.reading import ReadRun
from holdfast.report.tune import COLOURS, MEANINGS
from holdfast.tables.audit import FINDINGS, ROLES
from holdfast.tables.text import counted, number


def audited(run: ReadRun, limit: int) -> list[Part]:
    """Return the parts of one audit."""
    findings = run.summary.get("findings", [])
    if not run.summary:
        return [Note("The audit has not ended.")]
    verdict = Note(f"{counted(len(findings), 'finding')}." if findings else "No findings.", "finding")
    unseen = [Note(f"{sentence[:1].upper()}{sentence[1:]}.") for sentence in run.summary["not_seen"]]
    examples = chain.from_iterable(map(_finding, findings))
    return [_facts(run), verdict, _shares(run), *run.titled(ROLES, FINDINGS), *unseen, *examples]


def _facts(run: ReadRun) -> FactList:
    summary = run.summary
    return FactList.of(
        ("model", summary["model"]),
        ("data", summary["data"]),
        ("prepared data", summary["prepared"]),
        ("rows", summary["rows"]),
        ("tokens", summary["tokens"]),
        ("templates", ", ".join(summary.get("templates") or {}) or None),
        ("generation stops on", ", ".join(summary.get("stops") or []) or None),
        ("date in the template", summary.get("date")),
        ("columns not used", ", ".join(summary.get("columns_not_used") or []) or None),
    )


def _shares(run: ReadRun) -> Figure:
    colours = {role.label: colour for role, colour in COLOURS.items()}
    total = sum(line["tokens"] for line in run.summary["roles"])
    series = []
    for line in run.summary["roles"]:
        parts = [100 * line["tokens"] / total, None if line["share"] is None else 100 * line["share"]]
        series.append(Series(line["role"], [], parts, colour=colours.get(line["role"], "@2")))
    return bars(
        "Where the loss looks",
        f"Share of each role in the {total:,} target tokens, and in the weighted targets that the gradient comes from.",
        ["of the tokens", "of the weighted targets"],
        series,
        Axis("percent", {"range": [0, 100]}, 1),
        height=190,
    )


def _finding(finding: dict[str, Any]) -> Iterator[Part]:
    tokens = f", {counted(finding['tokens'], 'token')}" if finding["tokens"] else ""
    said = f"{finding['kind']}: {finding['sentence']}. {counted(finding['count'], 'row')}{tokens}."
    yield Note(f"{said} Cure: {finding['cure']}.", "warning")
    pieces = list(map(_piece, finding["example"]))
    if pieces:
        roles = {piece.role for piece in pieces}
        legend = [(role.label, meaning) for role, meaning in MEANINGS.items() if role.label in roles]
        caption = (
            f"Framed by ⟦ and ⟧: what is wrong. From {finding['rows'][0]}; a pointer over a token shows its weight."
        )
        yield Passage(finding["kind"], caption, [("example", _framed(finding["example"], pieces))], legend)


def _piece(token: dict[str, Any]) -> TextPiece:
    role = str(token["role"] or "")
    hint = f"{role or 'token'}, weight {number(token['weight'], 2)}"
    return TextPiece(str(token["text"]), role, hint=hint)


def _framed(tokens: list[dict[str, Any]], pieces: list[TextPiece]) -> list[TextPiece]:
    """The pieces with marks where what is wrong begins and ends."""
    framed: list[TextPiece] = []
    inside = False
    for token, piece in zip(tokens, pieces, strict=True):
        if token["is_wrong"] is not inside:
            framed.append(TextPiece("⟦" if token["is_wrong"] else "⟧"))
            inside = token["is_wrong"]
        framed.append(piece)
    return [*framed, TextPiece("⟧")] if inside else framed
