"""Rows -> what is wrong with them. Pure functions over ``AuditRow``; no model is run.

A check looks at all rows and yields a ``Case`` per place. ``find`` gathers the cases of a kind into one finding.
Whoever has further checks hands them to ``find`` beside ``CHECKS``.
"""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from holdfast.audit.record import (
    PAID,
    UNPAID,
    Audit,
    AuditContext,
    AuditRow,
    Case,
    Finding,
    Kind,
    RoleLine,
    TextToken,
)
from holdfast.records import RESPONSE_ROLES, Role

Check = Callable[[Sequence[AuditRow], AuditContext], Iterator[Case]]

_FIRST = 10
"""Rows that a finding names."""
_BEFORE, _AFTER, _LONGEST = 16, 8, 64
"""Tokens of an example before and behind what is wrong, and of it at most."""
_EMPTY_THOUGHT = re.compile(r"\s*<think>\s*</think>\s*")
_THOUGHT_TOKENS = 12
"""An empty thought of a generation prompt has at most so many tokens."""


def audit(
    rows: Sequence[AuditRow],
    context: AuditContext,
    checks: Sequence[Check] | None = None,
    unseen: Sequence[str] = (),
) -> Audit:
    """Return what the rows pay for, by role, and what is wrong with them by ``checks`` (default: ``CHECKS``)."""
    tokens = sum(map(len, rows))
    findings = find(rows, context, CHECKS if checks is None else checks)
    return Audit(context.model, len(rows), tokens, role_lines(rows), tuple(findings), tuple(unseen))


def find(rows: Sequence[AuditRow], context: AuditContext, checks: Sequence[Check] | None = None) -> list[Finding]:
    """Return one finding per kind that occurs, in the order of ``Kind``."""
    cases: dict[Kind, list[Case]] = {}
    for check in CHECKS if checks is None else checks:
        for case in check(rows, context):
            cases.setdefault(case.kind, []).append(case)
    return [_finding(kind, cases[kind], context) for kind in Kind if kind in cases]


def role_lines(rows: Sequence[AuditRow]) -> tuple[RoleLine, ...]:
    """Return a line for every role that is a target in the rows; a last one for tokens of rows without roles."""
    tokens, paid = Counter[Role | None](), Counter[Role | None]()
    mass: Counter[Role | None] = Counter()
    for row in rows:
        roles: Sequence[Role | None] = row.roles if row.roles is not None else [None] * len(row)
        for role, weight in itertools.islice(zip(roles, row.weights, strict=True), 1, None):
            tokens[role] += 1
            paid[role] += weight != 0
            mass[role] += weight  # type: ignore[assignment]
    total = sum(mass.values())
    return tuple(
        RoleLine(role, tokens[role], paid[role], float(mass[role]), mass[role] / total if total else math.nan)
        for role in (*Role, None)
        if tokens[role]
    )


def runs_of(row: AuditRow, role: Role) -> Iterator[tuple[int, int]]:
    """Yield begin and end of every stretch of tokens of one role."""
    at = 0
    for is_role, tokens in itertools.groupby(row.roles or (), key=lambda other: other is role):
        end = at + len(list(tokens))
        if is_role:
            yield at, end
        at = end


def responses(row: AuditRow) -> list[tuple[int, int]]:
    """Return begin and end of every response of a row with roles: tokens that the model writes, up to a stop run."""
    parts: list[tuple[int, int]] = []
    begin, before = None, None
    for at, role in enumerate(row.roles or ()):
        ends = role not in RESPONSE_ROLES or (before is Role.EOS and role is not Role.EOS)
        if begin is not None and ends:
            parts.append((begin, at))
            begin = None
        if begin is None and role in RESPONSE_ROLES:
            begin = at
        before = role
    return parts if begin is None else [*parts, (begin, len(row))]


def stretches(
    row: AuditRow, wrong: Callable[[int], bool], begin: int = 0, end: int | None = None
) -> Iterator[tuple[int, int]]:
    """Yield begin and end of every stretch of positions for which ``wrong`` holds."""
    at = begin
    for is_wrong, positions in itertools.groupby(range(begin, len(row) if end is None else end), key=wrong):
        stop = at + len(list(positions))
        if is_wrong:
            yield at, stop
        at = stop


# checks


def unpaid(rows: Sequence[AuditRow], context: AuditContext) -> Iterator[Case]:
    """What the model has to write and no loss looks at, by role.

    Where a config says what is asked for, only roles that it sets to 0; else every token of weight 0.
    """
    asked = context.role_weights
    never = not any(_pays_a_stop(row) for row in rows)
    for row in rows:
        for role, kind in UNPAID.items():
            if asked is not None and asked[role]:
                continue
            for begin, end in runs_of(row, role):
                name = Kind.STOP_NEVER_PAID if kind is Kind.STOP_UNPAID and never else kind
                for first, last in stretches(row, lambda i: i > 0 and not row.weights[i], begin, end):  # noqa: B023
                    yield Case(name, row, first, last)


def paid(rows: Sequence[AuditRow], context: AuditContext) -> Iterator[Case]:
    """What the model is given and is paid in full, in data that was prepared by others."""
    if context.role_weights is not None:
        return
    for row in rows:
        thoughts = [_thought_before(row, begin, context) for begin, _ in responses(row)]
        for role, kind in PAID.items():
            for begin, end in runs_of(row, role):
                for first, last in stretches(row, lambda i: row.weights[i] >= 1, begin, end):  # noqa: B023
                    cut = next((at for at, stop in thoughts if first < stop and at < last), last)
                    if first < cut:
                        yield Case(kind, row, first, cut)
                    if cut < last:
                        yield Case(Kind.GIVEN_THOUGHT_PAID, row, max(first, cut), last)


def ends(rows: Sequence[AuditRow], context: AuditContext) -> Iterator[Case]:
    """Responses without the token that generation stops on, and such that hold nothing but it."""
    said = {Role.ASSISTANT, Role.THINK, Role.TOOL_CALL}
    for row in rows:
        for begin, end in responses(row):
            roles = (row.roles or ())[begin:end]
            stops = roles[-1] is Role.EOS and (not context.stop_ids or row.ids[end - 1] in context.stop_ids)
            if not stops:
                yield Case(Kind.CUT_BEFORE_STOP if end == len(row) else Kind.STOP_MISSING, row, end - 1, end)
            elif not said & {*roles}:
                yield Case(Kind.EMPTY_RESPONSE, row, begin, end)


def doubled(rows: Sequence[AuditRow], context: AuditContext) -> Iterator[Case]:
    """Two BOS side by side, and a paid EOS or stop directly behind another. Unpaid ones behind an EOS are padding."""
    stops = {*context.stop_ids, *([] if context.eos_id is None else [context.eos_id])}
    for row in rows:
        for at, (one, two) in enumerate(itertools.pairwise(row.ids), 1):
            if one == two == context.bos_id and (at == 1 or one not in stops) and {*row.ids[at + 1 :]} - {one}:
                yield Case(Kind.SECOND_BOS, row, at, at + 1)
            elif one in stops and two in stops and row.weights[at]:
                yield Case(Kind.SECOND_EOS, row, at, at + 1)


def beyond(rows: Sequence[AuditRow], context: AuditContext) -> Iterator[Case]:
    """Ids that have no row in the embedding."""
    size = context.embedding_rows
    for row in rows if size is not None else ():
        if row.ids and (max(row.ids) >= size or min(row.ids) < 0):
            for begin, end in stretches(row, lambda i: not 0 <= row.ids[i] < size):  # noqa: B023
                yield Case(Kind.BEYOND_EMBEDDING, row, begin, end)


def repeated(rows: Sequence[AuditRow], context: AuditContext) -> Iterator[Case]:
    """Rows of the same ids."""
    first: dict[tuple[int, ...], AuditRow] = {}
    for row in rows:
        if first.setdefault(row.ids, row) is not row:
            yield Case(Kind.DUPLICATE_ROWS, row, 0, len(row), f"as {first[row.ids].place}")


def contradicting(rows: Sequence[AuditRow], context: AuditContext) -> Iterator[Case]:
    """Paid responses that differ behind the same prompt. A prompt without anything said by a user or a tool is none."""
    first: dict[tuple[int, ...], tuple[AuditRow, tuple[int, ...]]] = {}
    for row in rows:
        for begin, end in responses(row):
            asks = {Role.USER, Role.TOOL} & {*(row.roles or ())[:begin]}
            if not asks or not any(row.weights[begin:end]):
                continue
            before, answer = first.setdefault(row.ids[:begin], (row, row.ids[begin:end]))
            if answer != row.ids[begin:end]:
                yield Case(Kind.CONTRADICTING_ROWS, row, begin, end, f"other than {before.place}")


CHECKS: tuple[Check, ...] = (unpaid, paid, ends, doubled, beyond, repeated, contradicting)
"""The checks of every audit. Those that need roles find nothing in rows without."""


# from cases to findings


def _finding(kind: Kind, cases: Sequence[Case], context: AuditContext) -> Finding:
    places = list(dict.fromkeys(f"{case.row.place} ({case.note})" if case.note else case.row.place for case in cases))
    rows = len({id(case.row) for case in cases})
    tokens = sum(case.tokens for case in cases)
    return Finding(kind, rows, tuple(places[:_FIRST]), window(cases[0], context), kind.cure, tokens)


def window(case: Case, context: AuditContext) -> tuple[TextToken, ...]:
    """Return the tokens of a case with those around it; of a long case its beginning."""
    row = case.row
    begin, end = max(case.begin - _BEFORE, 0), min(min(case.end, case.begin + _LONGEST) + _AFTER, len(row))
    return tuple(
        TextToken(
            token_text(context, row.ids, at),
            row.roles[at] if row.roles is not None else None,
            row.weights[at],
            case.begin <= at < case.end,
        )
        for at in range(begin, end)
    )


def token_text(context: AuditContext, ids: Sequence[int], at: int) -> str:
    """Return the text that a token adds after the one before it; decoded alone, many tokens lose a leading space."""
    size = len(context.tokenizer)
    if not 0 <= ids[at] < size:
        return f"<{ids[at]}>"
    before = [token for token in ids[max(at - 1, 0) : at] if 0 <= token < size]
    whole = str(context.tokenizer.decode([*before, ids[at]]))
    return whole[len(context.tokenizer.decode(before)) if before else 0 :]


def _pays_a_stop(row: AuditRow) -> bool:
    return any(row.weights[end - 1] for _, end in runs_of(row, Role.EOS))


def _thought_before(row: AuditRow, end: int, context: AuditContext) -> tuple[int, int]:
    """Where the empty thought lies that the generation prompt gives before a response; (end, end) if there is none."""
    for begin in range(end - 1, max(end - _THOUGHT_TOKENS, -1), -1):
        if (row.roles or ())[begin] is not Role.TEMPLATE:
            break
        if _EMPTY_THOUGHT.fullmatch(str(context.tokenizer.decode(list(row.ids[begin:end])))):
            return begin, end
    return end, end
