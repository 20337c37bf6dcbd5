"""Rows -> what is wrong with them. Pure functions over ``AuditRow``; no model is run.

A check looks at all rows and yields a ``Case`` per place; ``find`` gathers the cases of a kind into one finding.
Whoever has further checks hands them over beside ``CHECKS``.
"""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from hashlib import blake2b

import numpy as np

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
from holdfast.records import RESPONSE_ROLES, Ids, Role

Check = Callable[[Sequence[AuditRow], AuditContext], Iterator[Case]]

_FIRST = 10
"""Rows that a finding names."""
_BEFORE, _AFTER, _LONGEST = 16, 8, 64
"""Tokens of an example before and behind what is wrong, and of it at most."""
_EMPTY_THOUGHT = re.compile(r"\s*<think>\s*</think>\s*")
_THOUGHT_TOKENS = 32
"""An empty thought of a generation prompt has at most so many tokens."""
_HEAD_TOKENS = 128
"""In rows without roles a date is looked for in so many tokens."""
_DATE_PARTS = {"Y": r"\d{4}", "y": r"\d\d", "m": r"\d\d", "d": r"\d\d", "B": r"[A-Z][a-z]+", "b": r"[A-Z][a-z]+"}
_DATE_PARTS |= {"-m": r"\d\d?", "-d": r"\d\d?"}
_SAID = frozenset({Role.ASSISTANT, Role.THINK, Role.TOOL_CALL})


def audit(
    rows: Sequence[AuditRow],
    context: AuditContext,
    checks: Sequence[Check] | None = None,
    unseen: Sequence[str] = (),
    cases: Iterable[Case] = (),
) -> Audit:
    """Return what the rows pay for, by role, and what is wrong with them by ``checks`` (default: ``CHECKS``).

    Args:
        unseen: sentences about what was not looked at.
        cases: what was seen to be wrong before there were rows.
    """
    places = (*cases, *cases_of(rows, context, checks))
    findings = tuple(gathered(places, context))
    tokens = sum(map(len, rows))
    return Audit(context.model, len(rows), tokens, role_lines(rows, context), findings, tuple(unseen), places)


def find(rows: Sequence[AuditRow], context: AuditContext, checks: Sequence[Check] | None = None) -> list[Finding]:
    """Return one finding per kind that occurs, in the order of ``Kind``."""
    return gathered(cases_of(rows, context, checks), context)


def cases_of(rows: Sequence[AuditRow], context: AuditContext, checks: Sequence[Check] | None = None) -> Iterator[Case]:
    """Yield every place at which a check sees something wrong, check by check."""
    for check in CHECKS if checks is None else checks:
        yield from check(rows, context)


def gathered(cases: Iterable[Case], context: AuditContext) -> list[Finding]:
    """Return the cases of each kind as one finding, in the order of ``Kind``."""
    by_kind: dict[Kind, list[Case]] = {}
    for case in cases:
        by_kind.setdefault(case.kind, []).append(case)
    return [_finding(kind, by_kind[kind], context) for kind in Kind if kind in by_kind]


def role_lines(rows: Sequence[AuditRow], context: AuditContext) -> tuple[RoleLine, ...]:
    """Return a line for every role that is a target in the rows; a last one for tokens of rows without roles."""
    tokens, paid = Counter[Role | None](), Counter[Role | None]()
    mass: dict[Role | None, float] = dict.fromkeys((*Role, None), 0.0)
    for row in rows:
        weights = np.asarray(row.weights)
        for role, begin, end in row.runs or ((None, 0, len(row)),):
            part = weights[max(begin, 1) : end]
            tokens[role] += len(part)
            paid[role] += int(np.count_nonzero(part))
            mass[role] += float(part.sum())
    parts = mass
    if context.normalizer == "role-mean":  # as the trainer does: each role counts by its mean
        parts = {role: weight / paid[role] if paid[role] else 0.0 for role, weight in mass.items()}
    total = sum(parts.values())
    return tuple(
        RoleLine(role, tokens[role], paid[role], mass[role], parts[role] / total if total else math.nan)
        for role in (*Role, None)
        if tokens[role]
    )


def runs_of(row: AuditRow, role: Role) -> Iterator[tuple[int, int]]:
    """Yield begin and end of every stretch of tokens of one role."""
    for other, begin, end in row.runs:
        if other is role:
            yield begin, end


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
    kinds = {role: kind for role, kind in UNPAID.items() if asked is None or not asked[role]}
    if not any(map(_pays_a_stop, rows)):
        kinds = {role: Kind.STOP_NEVER_PAID if role is Role.EOS else kind for role, kind in kinds.items()}
    for row in rows if kinds else ():
        for role, begin, end in row.runs:
            if role not in kinds or all(row.weights[max(begin, 1) : end]):
                continue
            for first, last in stretches(row, lambda i: not row.weights[i], max(begin, 1), end):  # noqa: B023
                yield Case(kinds[role], row, first, last)


def paid(rows: Sequence[AuditRow], context: AuditContext) -> Iterator[Case]:
    """What the model is given and is paid in full, in data that was prepared by others. A weight below 1 is a number
    that somebody chose.
    """
    for row in rows if context.role_weights is None else ():
        thoughts = {end: begin for begin, end in _given_thoughts(row, context)}
        for role, begin, end in row.runs:
            if role not in PAID or not any(row.weights[begin:end]):
                continue
            for first, last in stretches(row, lambda i: row.weights[i] >= 1, begin, end):  # noqa: B023
                cut = max(first, min(last, thoughts.get(end, last)))
                if first < cut:
                    yield Case(PAID[role], row, first, cut)
                if cut < last:
                    yield Case(Kind.GIVEN_THOUGHT_PAID, row, cut, last)


def ends(rows: Sequence[AuditRow], context: AuditContext) -> Iterator[Case]:
    """Responses without the token that generation stops on, and such that hold nothing but it. Where a config pays
    for responses, a row without any is cut within its prompt.
    """
    asked = context.role_weights
    pays = asked is not None and any(asked[role] for role in RESPONSE_ROLES)
    for row in rows:
        roles = row.roles or ()
        if pays and roles and not row.responses:
            yield Case(Kind.CUT_BEFORE_STOP, row, len(row) - 1, len(row), "within its prompt")
        for begin, end in row.responses:
            is_end = roles[end - 1] is Role.EOS
            if is_end and (not context.stop_ids or row.ids[end - 1] in context.stop_ids):
                if not _SAID & {*roles[begin:end]}:
                    yield Case(Kind.EMPTY_RESPONSE, row, begin, end)
            elif end == len(row) and not is_end:
                yield Case(Kind.CUT_BEFORE_STOP, row, end - 1, end)
            else:
                note = f"ends with {token_text(context, row.ids, end - 1)!r}" if is_end else ""
                yield Case(Kind.STOP_MISSING, row, end - 1, end, note)


def doubled(rows: Sequence[AuditRow], context: AuditContext) -> Iterator[Case]:
    """Two BOS side by side, and a paid EOS or stop directly behind another. Unpaid ones behind an EOS are padding."""
    stops = {*context.stop_ids, *([] if context.eos_id is None else [context.eos_id])}
    for row in rows:
        for at, (one, two) in enumerate(itertools.pairwise(row.ids), 1):
            if one == two == context.bos_id and (at == 1 or one not in stops) and {*row.ids[at + 1 :]} - {one}:
                yield Case(Kind.SECOND_BOS, row, at, at + 1)
            elif two in stops and one in stops and row.weights[at]:
                yield Case(Kind.SECOND_EOS, row, at, at + 1)


def beyond(rows: Sequence[AuditRow], context: AuditContext) -> Iterator[Case]:
    """Ids that have no row in the embedding."""
    size = math.inf if context.embedding_rows is None else context.embedding_rows
    for row in rows:
        if row.ids and (max(row.ids) >= size or min(row.ids) < 0):
            for begin, end in stretches(row, lambda i: not 0 <= row.ids[i] < size):  # noqa: B023
                yield Case(Kind.BEYOND_EMBEDDING, row, begin, end)


def dated(rows: Sequence[AuditRow], context: AuditContext) -> Iterator[Case]:
    """A day that the chat template prints of itself and that nobody chose."""
    formats = re.findall(r"strftime_now\(\s*['\"](.+?)['\"]", str(getattr(context.tokenizer, "chat_template", None)))
    if not formats or context.date is not None:
        return
    pattern = re.compile("|".join(map(_date_pattern, formats)))

    @lru_cache(maxsize=1024)
    def prints(ids: Ids) -> bool:
        return bool(pattern.search(str(context.tokenizer.decode(list(ids)))))

    for row in rows:
        heads = runs_of(row, Role.TEMPLATE) if row.roles else iter([(0, min(len(row), _HEAD_TOKENS))])
        for begin, end in heads:
            if end - begin > 2 and prints(row.ids[begin:end]):
                yield Case(Kind.DATE_IN_TEMPLATE, row, *_narrowed(row.ids, begin, end, prints))
                break


def repeated(rows: Sequence[AuditRow], context: AuditContext) -> Iterator[Case]:
    """Rows of the same ids."""
    first: dict[Ids, AuditRow] = {}
    for row in rows:
        if first.setdefault(row.ids, row) is not row:
            yield Case(Kind.DUPLICATE_ROWS, row, 0, len(row), f"as {first[row.ids].place}")


def contradicting(rows: Sequence[AuditRow], context: AuditContext) -> Iterator[Case]:
    """Paid responses that differ behind the same prompt. A prompt without anything said by a user or a tool is none."""
    first: dict[bytes, tuple[AuditRow, Ids]] = {}
    for row in rows:
        asked = next((begin for role, begin, _ in row.runs if role in (Role.USER, Role.TOOL)), len(row))
        for begin, end in row.responses:
            if begin < asked or not any(row.weights[begin:end]):
                continue
            prompt = blake2b(np.asarray(row.ids[:begin], dtype=np.int64).tobytes(), digest_size=16).digest()
            before, answer = first.setdefault(prompt, (row, row.ids[begin:end]))
            if answer != row.ids[begin:end]:
                yield Case(Kind.CONTRADICTING_ROWS, row, begin, end, f"other than {before.place}")


CHECKS: tuple[Check, ...] = (unpaid, paid, ends, doubled, beyond, dated, repeated, contradicting)
"""The checks of every audit. Those that need roles see nothing in rows without."""


# from cases to findings


def _finding(kind: Kind, cases: Sequence[Case], context: AuditContext) -> Finding:
    places: dict[str, str] = {}
    for case in cases:
        places.setdefault(case.row.place, case.note)
    rows = [f"{place} ({note})" if note else place for place, note in itertools.islice(places.items(), _FIRST)]
    tokens = sum(case.tokens for case in cases)
    return Finding(kind, len(places), tuple(rows), window(cases[0], context), _cure(cases[0], context), tokens)


def _cure(case: Case, context: AuditContext) -> str:
    """What to do: of a role that a config sets to 0, how that is said there."""
    if context.role_weights is None or case.kind not in {*UNPAID.values(), Kind.STOP_NEVER_PAID}:
        return case.kind.cure
    role = (case.row.roles or ())[case.begin].label
    return f"give {role} a weight above 0 (--weights {role} 1, or in the file weights: {{{role}: 1}})"


def window(case: Case, context: AuditContext) -> tuple[TextToken, ...]:
    """Return the tokens of a case with those around it; of a long case its beginning."""
    row = case.row
    begin, end = max(case.begin - _BEFORE, 0), min(case.end + _AFTER, case.begin + _LONGEST, len(row))
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
    """Return the text that a token adds after the one before it; decoded alone, many tokens lose a leading space. An
    id that the tokenizer does not have is shown as a number.
    """
    size = len(context.tokenizer)
    if not 0 <= ids[at] < size:
        return f"<{ids[at]}>"
    before = [token for token in ids[max(at - 1, 0) : at] if 0 <= token < size]
    whole = str(context.tokenizer.decode([*before, ids[at]]))
    return whole[len(context.tokenizer.decode(before)) if before else 0 :]


def _pays_a_stop(row: AuditRow) -> bool:
    return any(row.weights[end - 1] for _, end in runs_of(row, Role.EOS))


def _given_thoughts(row: AuditRow, context: AuditContext) -> Iterator[tuple[int, int]]:
    """Where empty thoughts lie that a generation prompt gives, directly before a response."""
    roles = row.roles or ()
    for _, end in runs_of(row, Role.TEMPLATE):
        if end == len(row) or roles[end] not in RESPONSE_ROLES:
            continue
        for begin in range(end - 1, max(end - _THOUGHT_TOKENS, -1), -1):
            if roles[begin] is not Role.TEMPLATE:
                break
            if _EMPTY_THOUGHT.fullmatch(str(context.tokenizer.decode(list(row.ids[begin:end])))):
                yield begin, end
                break


def _date_pattern(text: str) -> str:
    """The days that a format of ``strftime_now`` prints, as a regular expression."""
    parts = re.split(r"%(-?[A-Za-z])", text)
    return "".join(_DATE_PARTS.get(part, ".+?") if place % 2 else re.escape(part) for place, part in enumerate(parts))


def _narrowed(ids: Ids, begin: int, end: int, holds: Callable[[Ids], bool]) -> tuple[int, int]:
    """The shortest stretch of tokens within another that still holds what is looked for."""
    last = next(at for at in range(begin + 1, end + 1) if holds(ids[begin:at]))
    first = next(at for at in range(last - 1, begin - 1, -1) if holds(ids[at:last]))
    return first, last
