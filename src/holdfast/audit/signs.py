"""The checks of data that another trainer has prepared. Documents with roles get those of every audit; without, what
ids alone show.

A document of which nothing or everything is paid, or only the last turn, is said to be that, and not to have unpaid
answers or a paid prompt beside. Ids of another tokenizer make every other check senseless, so then it is the only one.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any

from holdfast.audit import findings
from holdfast.audit.findings import Check, stretches
from holdfast.audit.matching import Match
from holdfast.audit.record import AuditContext, AuditRow, Case, Kind
from holdfast.records import PROMPT_ROLES, Ids, Role

_SAMPLE = 200
"""Documents by which the tokenizer is judged."""
_FEW = 16
"""Ids below which a document says nothing about its tokenizer."""
_SAME = 0.7
"""Text of one tokenizer has nearly all of its pairs of ids again when it is decoded and encoded."""
_MARK = "@~0~@"


@dataclass(frozen=True)
class Signs:
    """What a chat template prints where: ids of the header after which the model answers, ids with which a system
    message begins, and whether the tokenizer's EOS and BOS stand between two turns (or there is no telling). Empty and
    False without a chat template.
    """

    opening: Ids = ()
    system: Ids = ()
    eos_between_turns: bool = False
    bos_between_turns: bool = False


def signs_of(context: AuditContext) -> Signs:
    """Return the signs of a tokenizer's chat template, as far as it renders the simplest conversations."""
    tokenizer = context.tokenizer
    if not getattr(tokenizer, "chat_template", None):
        return Signs()
    user, answer = {"role": "user", "content": _MARK}, {"role": "assistant", "content": _MARK}
    asked = _rendered(tokenizer, [user], prompt=True)
    before = _rendered(tokenizer, [user])
    opening = _behind(tokenizer, before, asked).partition("<think>")[0] if before else ""
    system = _rendered(tokenizer, [{"role": "system", "content": _MARK}, user]).partition(_MARK)[0]
    turns = _rendered(tokenizer, [user, answer, user])
    between = turns.partition(_MARK)[2].rpartition(_MARK)[0]
    ids = {name: _ids(tokenizer, text) for name, text in (("opening", opening), ("system", system))}
    special = {*tokenizer.all_special_ids, *tokenizer.get_added_vocab().values()}
    while ids["system"][:1] == (context.bos_id,):
        ids["system"] = ids["system"][1:]
    kept = {name: value if special & {*value} else () for name, value in ids.items()}
    all_turns = _ids(tokenizer, turns)
    if len(kept["opening"]) == 1 and all_turns.count(kept["opening"][0]) != 1:  # no token of the assistant alone
        kept["opening"] = ()
    if len(_places(all_turns, kept["system"])) > 1:  # other turns begin so; one is a default of its own
        kept["system"] = ()
    unclear = turns.count(_MARK) != 3
    ends = [unclear or (bool(token) and token in between) for token in (tokenizer.eos_token, tokenizer.bos_token)]
    return Signs(kept["opening"], kept["system"], *ends)


def _rendered(tokenizer: Any, turns: Sequence[Mapping[str, str]], *, prompt: bool = False) -> str:
    with contextlib.suppress(Exception):  # templates raise what they like
        return str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=prompt))
    return ""


def _behind(tokenizer: Any, before: str, asked: str) -> str:
    """What a generation prompt has more; a template without one may end in an EOS in its place (Phi 3)."""
    if asked.startswith(before):
        return asked[len(before) :]
    eos = tokenizer.eos_token or ""
    before = before.removesuffix(eos)
    return asked[len(before) :] if eos and asked.startswith(before) else ""


def _ids(tokenizer: Any, text: str) -> Ids:
    return tuple(tokenizer(text, add_special_tokens=False)["input_ids"]) if text else ()


def checks(
    rows: Sequence[AuditRow], matches: Mapping[int, Match], shifted: Collection[int], context: AuditContext
) -> tuple[Check, ...]:
    """Return the checks of prepared documents. ``matches`` has what documents are of the data, and ``shifted`` which
    have shifted labels, by the ``id`` of the row.
    """
    alien = [] if matches else alien_rows(rows, context)
    if alien:
        cases = [Case(Kind.OTHER_TOKENIZER, row, 0, len(row)) for row in alien]
        return (lambda _rows, _context: iter(cases), findings.beyond)
    signs = signs_of(context)
    whole = {id(row): kind for row in rows if (kind := whole_kind(row, signs, context)) is not None}
    return (
        partial(_by_role, whole=whole),
        partial(_ends, matches=matches),
        partial(_without_roles, whole=whole, signs=signs),
        findings.doubled,
        _second_eos,
        findings.beyond,
        findings.dated,
        findings.repeated,
        findings.contradicting,
        partial(_whole, whole=whole),
        partial(_shifted, shifted=shifted),
        partial(_joined, matches=matches, signs=signs),
    )


def notes(rows: Sequence[AuditRow], context: AuditContext) -> list[str]:
    """What is no finding, but is to be said, in sentences without full stops."""
    said = []
    white = sum(_idle(case, context) for case in findings.paid(rows, context))
    if white:
        said.append(
            f"white space that the template gives is paid in {white:,} places, which teaches nothing: no finding"
        )
    plain = [row for row in rows if row.roles is None and _all_paid(row)]
    opening = signs_of(context).opening
    plain = [row for row in plain if not _places(row.ids, opening)]
    if plain:
        said.append(
            f"every token of {len(plain):,} documents is paid, which is right for plain text alone; the first: "
            f"{plain[0].place}"
        )
    return said


# a document as a whole


def whole_kind(row: AuditRow, signs: Signs, context: AuditContext) -> Kind | None:
    """Return what is wrong with all of a document: nothing, everything or the last turn alone is paid; or None."""
    if not any(row.weights):
        return Kind.NOTHING_PAID
    if _all_paid(row):
        if row.roles is None:
            return Kind.EVERYTHING_PAID if _places(row.ids, signs.opening) else None
        return Kind.EVERYTHING_PAID if {*PROMPT_ROLES} & {*_behind_start(row, context)} else None
    paid = [any(row.weights[begin:end]) for begin, end in _answers(row, signs)]
    return Kind.LAST_TURN_ONLY if len(paid) > 1 and paid[-1] and not any(paid[:-1]) else None


def _all_paid(row: AuditRow) -> bool:
    return len(row) > 2 and all(weight >= 1 for weight in row.weights[1:])


def _behind_start(row: AuditRow, context: AuditContext) -> Sequence[Role]:
    """The roles of a document without BOS in front and what stands behind its last stop."""
    roles = list(row.roles or ())
    last = max((i for i, role in enumerate(roles) if role is Role.EOS), default=len(roles))
    first = next((i for i, token in enumerate(row.ids) if token != context.bos_id), 0)
    return roles[max(first, 1) : last]


def _answers(row: AuditRow, signs: Signs) -> list[tuple[int, int]]:
    """Begin and end of the responses, by role, or from one header of an answer to the next."""
    if row.roles is not None:
        return [*row.responses]
    begins = [at + len(signs.opening) for at in _places(row.ids, signs.opening)]
    return [*pairwise([*begins, len(row)])] if begins else []


def _whole(_rows: Sequence[AuditRow], _context: AuditContext, whole: Mapping[int, Kind]) -> Iterator[Case]:
    for row in _rows:
        if id(row) in whole:
            yield Case(whole[id(row)], row, 0, len(row))


def _shifted(rows: Sequence[AuditRow], _context: AuditContext, shifted: Collection[int]) -> Iterator[Case]:
    for row in rows:
        if id(row) in shifted:
            begin = next((i for i, weight in enumerate(row.weights) if weight), 0)
            yield Case(Kind.LABELS_SHIFTED, row, begin, max(len(row), begin + 1))


# with roles


def _by_role(rows: Sequence[AuditRow], context: AuditContext, whole: Mapping[int, Kind]) -> Iterator[Case]:
    """What is unpaid or paid by role, where that is not said of the document as a whole."""
    rest = [
        row for row in rows if row.roles is not None and whole.get(id(row), Kind.LAST_TURN_ONLY) is Kind.LAST_TURN_ONLY
    ]
    for case in findings.unpaid(rest, context):
        if id(case.row) not in whole or case.begin >= case.row.responses[-1][0]:
            yield case
    yield from (case for case in findings.paid(rest, context) if not _idle(case, context))


def _idle(case: Case, context: AuditContext) -> bool:
    """Whether a paid part of the template is white space: behind a stop, or the end of a header."""
    ids = [token for token in case.row.ids[case.begin : case.end] if 0 <= token < len(context.tokenizer)]
    return case.kind is Kind.TEMPLATE_PAID and bool(ids) and not str(context.tokenizer.decode(ids)).strip()


def _ends(rows: Sequence[AuditRow], context: AuditContext, matches: Mapping[int, Match]) -> Iterator[Case]:
    """As ``findings.ends``. A document is cut if the row goes on, or if none is longer; else it has no stop."""
    longest = max(map(len, rows), default=0)
    for case in findings.ends(rows, context):
        if case.end < len(case.row) and (case.row.roles or ())[case.end] is Role.PAD:
            continue  # there is no telling how it goes on
        if case.kind is Kind.CUT_BEFORE_STOP:
            rest = matches[id(case.row)].rest if id(case.row) in matches else ()
            cut = {*rest} - {Role.EOS, Role.TEMPLATE} or (len(case.row) == longest and len(rows) > 1)
            yield case if cut else replace(case, kind=Kind.STOP_MISSING)
        else:
            yield case


# without roles


def _without_roles(
    rows: Sequence[AuditRow], context: AuditContext, whole: Mapping[int, Kind], signs: Signs
) -> Iterator[Case]:
    """Stops that are unpaid behind what is paid, and paid ends without a stop."""
    longest = max(map(len, rows), default=0)
    never = not any(_pays_a_stop(row, context) for row in rows)
    for row in rows:
        if row.roles is not None or (id(row) in whole and whole[id(row)] is not Kind.LAST_TURN_ONLY):
            continue
        for begin, end in stretches(row, lambda i: row.weights[i] > 0):  # noqa: B023
            if end < len(row) and row.ids[end] in context.stop_ids and _is_answer(row, begin, context, signs):
                yield Case(Kind.STOP_NEVER_PAID if never else Kind.STOP_UNPAID, row, end, end + 1)
        last = _last_said(row, context)
        if row.weights[last] and row.ids[last] not in {*context.stop_ids, context.eos_id}:
            yield Case(Kind.CUT_BEFORE_STOP if len(row) == longest else Kind.STOP_MISSING, row, last, last + 1)


def _pays_a_stop(row: AuditRow, context: AuditContext) -> bool:
    return any(weight and token in context.stop_ids for token, weight in zip(row.ids, row.weights, strict=True))


def _is_answer(row: AuditRow, begin: int, context: AuditContext, signs: Signs) -> bool:
    """Whether the last header before a place is that of an answer, where a chat template says how it looks."""
    if not signs.opening:
        return True
    stops = [i for i in range(begin) if row.ids[i] in context.stop_ids]
    opens = _places(row.ids[:begin], signs.opening)
    return bool(opens) and opens[-1] + len(signs.opening) > max(stops, default=-1)


def _last_said(row: AuditRow, context: AuditContext) -> int:
    """The place of the last id that is no white space."""
    size = len(context.tokenizer)
    for at in range(len(row) - 1, 0, -1):
        if not 0 <= row.ids[at] < size or str(context.tokenizer.decode([row.ids[at]])).strip():
            return at
    return 0


# all documents


def _second_eos(rows: Sequence[AuditRow], context: AuditContext) -> Iterator[Case]:
    """A paid EOS behind a stop and white space: an appended one. Side by side they are ``findings.doubled``."""
    stops = {*context.stop_ids, *([] if context.eos_id is None else [context.eos_id])}
    for row in rows:
        last = row.ids[-1]
        if last != context.eos_id or not row.weights[-1] or len(row) < 3 or row.ids[-2] in stops:
            continue
        at = _last_said(replace(row, ids=row.ids[:-1], weights=row.weights[:-1], roles=None, positions=None), context)
        if at < len(row) - 2 and row.ids[at] in stops:
            yield Case(Kind.SECOND_EOS, row, len(row) - 1, len(row))


def _joined(
    rows: Sequence[AuditRow], context: AuditContext, matches: Mapping[int, Match], signs: Signs
) -> Iterator[Case]:
    """Documents that begin inside of one: by the data, else by a BOS, a system message or an EOS between two texts."""
    for row in rows:
        match = matches.get(id(row))
        for at in match.begins if match is not None else _begins(row, context, signs):
            yield Case(Kind.DOCUMENTS_JOINED, row, at, at + 1)


def _begins(row: AuditRow, context: AuditContext, signs: Signs) -> list[int]:
    ids, stops = row.ids, {*context.stop_ids, context.eos_id}
    places = set(_places(ids, signs.system)[1:])
    first = next((i for i, token in enumerate(ids) if token != context.bos_id), 0)
    if context.bos_id is not None and context.bos_id not in stops and not signs.bos_between_turns:
        places |= {at for at in range(first, len(ids)) if ids[at] == context.bos_id != ids[at - 1]}
    if context.eos_id is not None and not signs.eos_between_turns:
        last = _last_said(row, context)
        places |= {at + 1 for at in range(first, last) if ids[at] == context.eos_id and ids[at + 1] not in stops}
    return sorted(places)


def _places(ids: Sequence[int], part: Ids) -> list[int]:
    """Where some ids stand in others."""
    first = part[0] if part else None
    return [at for at, token in enumerate(ids) if token == first and tuple(ids[at : at + len(part)]) == part]


def alien_rows(rows: Sequence[AuditRow], context: AuditContext) -> list[AuditRow]:
    """Return the documents whose ids are of another tokenizer, or none if too few are.

    Ids that the tokenizer does not have are. Else what is decoded is encoded again: text of this tokenizer gives nearly
    all of its pairs of neighbouring ids again, ids of another one give few.
    """
    size, alien, judged = len(context.tokenizer), [], 0
    for row in [row for row in rows if len(row) >= _FEW][:_SAMPLE]:
        judged += 1
        if max(row.ids) >= size or min(row.ids) < 0 or _again(row.ids, context) < _SAME:
            alien.append(row)
    return alien if judged and len(alien) > judged / 2 else []


def _again(ids: Ids, context: AuditContext) -> float:
    """The share of the pairs of neighbouring ids that are there again after decoding and encoding."""
    text = context.tokenizer.decode(list(ids), clean_up_tokenization_spaces=False)
    before, after = Counter(pairwise(ids)), Counter(pairwise(_ids(context.tokenizer, text)))
    return (before & after).total() / max(before.total(), 1)
