"""An audit -> its summary and its rows -> lines of a terminal.

In an example every line is a stretch of tokens of one role and weight; what is wrong has a mark before it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

from holdfast.audit.record import Audit, Case, Finding, Material
from holdfast.config import AuditConfig
from holdfast.data.sources import name_of
from holdfast.errors import ExitCode
from holdfast.records import Role
from holdfast.tables import lines, with_tables
from holdfast.tables.audit import ROLES
from holdfast.tables.text import counted, number, shorten, visible
from holdfast.tune.preview import COLOURS

_WIDTH = 88
"""Letters of a stretch of text."""
_BRIGHT, _PLAIN = "\x1b[1m", "\x1b[0m"


def summary_of(config: AuditConfig, audit: Audit, material: Material) -> dict[str, Any]:
    """Return the summary with its tables: counts, the roles, the findings and what was not looked at."""
    return with_tables(
        {
            "command": "audit",
            "exit_code": int(ExitCode.NO if audit.findings else ExitCode.FINE),
            "model": audit.model,
            "data": name_of(config.data) if config.data else None,
            "prepared": config.prepared,
            "rows": audit.rows,
            "tokens": audit.tokens,
            "roles": [
                {"role": line.label, "is_given": line.is_given, "tokens": line.tokens, "paid": line.paid}
                | {"mass": line.mass, "share": line.share}
                for line in audit.roles
            ],
            "findings": list(map(_finding, audit.findings)),
            "not_seen": list(audit.unseen),
            **material.resolved,
        }
    )


def row_of(case: Case, material: Material) -> dict[str, Any]:
    """Return a place as a row of rows.jsonl: which row and tokens, and the text of them."""
    tokens = [token for token in case.row.ids[case.begin : case.end] if 0 <= token < len(material.context.tokenizer)]
    text = shorten(str(material.context.tokenizer.decode(tokens)) if tokens else "", 400)
    place = {"kind": case.kind.value, "row": case.row.place, "begin": case.begin, "end": case.end}
    return place | {"text": text, "note": case.note}


def told(summary: Mapping[str, Any], *, colour: bool) -> Iterator[str]:
    """Yield what a summary says, as lines of a terminal."""
    source = summary["prepared"] or summary["data"]
    yield f"{source}: {counted(summary['rows'], 'row')}, {counted(summary['tokens'], 'token')}, for {summary['model']}"
    for name in ("templates", "stops"):
        if summary.get(name):
            yield f"{_HEADS[name]}: {', '.join(map(visible, summary[name]))}"
    yield ""
    yield lines(dict(summary), ROLES)
    yield ""
    yield from (f"note: {visible(sentence)}" for sentence in summary["not_seen"])
    yield counted(len(summary["findings"]), "finding") if summary["findings"] else "no findings"
    for finding in summary["findings"]:
        yield ""
        yield from _lines_of(finding, colour=colour)


_HEADS = {"templates": "rendered by the template", "stops": "generation stops on"}


def _finding(finding: Finding) -> dict[str, Any]:
    example = [
        {"text": token.text, "role": None if token.role is None else token.role.label}
        | {"weight": token.weight, "is_wrong": token.marked}
        for token in finding.example
    ]
    return {
        "kind": finding.kind.value,
        "sentence": finding.sentence,
        "count": finding.count,
        "tokens": finding.tokens,
        "rows": list(finding.rows),
        "example": example,
        "cure": finding.cure,
    }


def _lines_of(finding: Mapping[str, Any], *, colour: bool) -> Iterator[str]:
    head = f"{finding['kind']}: {finding['sentence']}"
    yield f"{_BRIGHT}{head}{_PLAIN}" if colour else head
    tokens = f", {counted(finding['tokens'], 'token')}" if finding["tokens"] else ""
    yield f"  {counted(finding['count'], 'row')}{tokens}; the first: {'; '.join(map(visible, finding['rows'][:3]))}"
    for stretch in _stretches(finding["example"]):
        yield _line(stretch, colour=colour)
    yield f"  cure: {finding['cure']}"


def _stretches(example: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Tokens side by side of one role and weight, as one."""
    for (role, weight, is_wrong), tokens in itertools.groupby(
        example, key=lambda token: (token["role"], token["weight"], token["is_wrong"])
    ):
        text = "".join(token["text"] for token in tokens)
        yield {"role": role, "weight": weight, "is_wrong": is_wrong, "text": text}


def _line(stretch: Mapping[str, Any], *, colour: bool) -> str:
    role = stretch["role"] or "token"
    text = shorten(visible(stretch["text"]), _WIDTH)
    line = f"  {'>' if stretch['is_wrong'] else ' '} {role:<11} {number(stretch['weight'], None):>5}  {text}"
    code = COLOURS.get(Role[role.upper()], 0) if stretch["role"] else 0
    return f"\x1b[{'1;' * stretch['is_wrong']}{code}m{line}{_PLAIN}" if colour else line
