"""Which row of the data a prepared document is, by its ids, so that it gets the roles of that row.

the same ids                              the roles of the row
the same but for BOS and EOS, or cut      the roles, shifted to where the ids stand
else                                      the row with which it shares most runs of ids, in order; ids between the
                                          runs get the role of the same place, or are what the model is given
several rows in one document              one after the other; it is said where each begins
"""

from __future__ import annotations

import bisect
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from holdfast.audit.record import AuditContext, AuditRow
from holdfast.records import RESPONSE_ROLES, Ids, Role

_GRAM = 6
"""Ids in a row by which rows are looked up."""
_COMMON = 64
"""A gram that stands in more rows than this says nothing."""
_MANY = 4_000_000
"""From so many ids on, one gram in eight is kept."""
_SHARE = 0.8
"""A document is a row if so much of the shorter of both is in the other."""
_START = 2
"""A row begins in a document where so many of its first ids are missing at most."""


@dataclass(frozen=True)
class Match:
    """What a document is of the data.

    ``roles`` has one for each id. ``begins`` are the places at which further rows begin in it. ``rest`` are the roles
    of what the last row has behind the document's end. ``unlike`` counts ids that are in no run.
    """

    roles: tuple[Role, ...]
    begins: tuple[int, ...] = ()
    rest: tuple[Role, ...] = ()
    unlike: int = 0


@dataclass(frozen=True)
class _SharedRun:
    """Ids ``begin`` to ``end`` of a document are those of row ``number`` from ``begin + offset`` on."""

    begin: int
    end: int
    number: int
    offset: int


class Matcher:
    """Finds the rows of documents. ``rows`` must have roles."""

    def __init__(self, rows: Sequence[AuditRow], context: AuditContext) -> None:
        self.rows = rows
        self._used: set[int] = set()
        self._context = context
        self._whole = {row.ids: number for number, row in reversed([*enumerate(rows)])}
        self._bare = {self._core(row.ids): number for number, row in reversed([*enumerate(rows)])}
        self._sorted = sorted(self._whole)
        self._grams: dict[Ids, list[tuple[int, int]]] | None = None

    def unused(self) -> int:
        """How many rows are in no document so far. A row that says what another says is used with it."""
        ids = {self.rows[number].ids for number in self._used}
        return sum(row.ids not in ids for row in self.rows)

    def match(self, document: AuditRow) -> Match | None:
        """Return what a document is, or None if it is no row of the data."""
        if not self.rows:
            return None
        ids = document.ids
        number = self._whole.get(ids)
        if number is not None:
            self._used.add(number)
            return Match(self.rows[number].roles or ())
        simple = self._simple(ids)
        runs = self._runs(ids) if simple is None else [simple]
        numbers = {run.number for run in runs}
        size = min(len(ids), sum(len(self.rows[number]) for number in numbers))
        if sum(run.end - run.begin for run in runs) < max(_SHARE * size, 1):
            return None
        self._used |= {run.number for run in runs}
        return self._told(document, runs)

    # the easy ways

    def _edges(self, ids: Ids) -> tuple[int, int]:
        """Begin and end of what is neither BOS in front nor EOS or padding behind."""
        ends = {*self._context.stop_ids, self._context.eos_id, getattr(self._context.tokenizer, "pad_token_id", None)}
        begin, end = 0, len(ids)
        while begin < end and ids[begin] == self._context.bos_id:
            begin += 1
        while end > begin and ids[end - 1] in ends:
            end -= 1
        return begin, end

    def _core(self, ids: Ids) -> Ids:
        begin, end = self._edges(ids)
        return ids[begin:end]

    def _simple(self, ids: Ids) -> _SharedRun | None:
        begin, end = self._edges(ids)
        number = self._bare.get(ids[begin:end]) if end > begin else None
        if number is not None:
            row = self.rows[number].ids
            offset = self._edges(row)[0] - begin
            return _widened(ids, row, _SharedRun(begin, end, number, offset), max(0, -offset))
        place = bisect.bisect_left(self._sorted, ids)
        if place < len(self._sorted) and self._sorted[place][: len(ids)] == ids:
            return _SharedRun(0, len(ids), self._whole[self._sorted[place]], 0)
        return None

    # runs of ids

    def _index(self) -> dict[Ids, list[tuple[int, int]]]:
        if self._grams is None:
            step = 8 if sum(map(len, self.rows)) > _MANY else 1
            grams: dict[Ids, list[tuple[int, int]]] = defaultdict(list)
            for number in self._whole.values():
                for at, gram in _grams(self.rows[number].ids, step):
                    if len(grams[gram]) <= _COMMON:
                        grams[gram].append((number, at))
            self._step = step
            self._grams = {gram: places for gram, places in grams.items() if len(places) <= _COMMON}
        return self._grams

    def _runs(self, ids: Ids) -> list[_SharedRun]:
        """The runs that a document shares with rows: of the row with most votes, then of others in what is left."""
        index = self._index()
        free, runs = np.ones(len(ids), bool), list[_SharedRun]()
        places = [(at, index[gram]) for at, gram in _grams(ids, self._step) if gram in index]
        while places:
            votes = Counter[int]()
            for _, others in places:
                votes.update({number for number, _ in others})
            best = max(votes, key=lambda number: (votes[number], -number))
            pairs: list[tuple[int, int]] = []
            for at, others in places:
                pairs += [(at, place) for number, place in others if number == best]
            fresh = self._of_row(ids, best, _anchors(pairs), free)
            runs += fresh
            if fresh:  # what stands between the runs of a row is no other row
                free[fresh[0].begin : fresh[-1].end] = False
            places = [(at, others) for at, others in places if free[at : at + _GRAM].all()] if fresh else []
        return sorted(runs, key=lambda run: run.begin)

    def _of_row(
        self, ids: Ids, number: int, anchors: Sequence[tuple[int, int]], free: npt.NDArray[np.bool_]
    ) -> list[_SharedRun]:
        """The runs of one row around the anchors, each behind the one before in the document and in the row."""
        runs = list[_SharedRun]()
        for at, place in anchors:
            before = runs[-1] if runs else _SharedRun(0, 0, number, 0)
            if at >= before.end:
                offset = place - at
                first = max(before.end, before.end + before.offset - offset, -offset)
                run = _SharedRun(at, at + _GRAM, number, offset)
                runs.append(_widened(ids, self.rows[number].ids, run, first, free))
        return runs

    # runs -> roles

    def _told(self, document: AuditRow, runs: Sequence[_SharedRun]) -> Match:
        roles: list[Role] = [Role.PAD] * len(document)  # what is in no run and in no row: there is no telling
        begins = []
        for run, before in zip(runs, (None, *runs), strict=False):
            roles[run.begin : run.end] = self._roles(run, run.begin, run.end)
            if before is not None and run.number == before.number and _in_order(run, before):
                for at in range(before.end, run.begin):
                    roles[at] = self._between(before, run, at)
            elif before is not None and run.begin + run.offset <= _START:
                begins.append(run.begin)
        last = runs[-1]
        for at in range(last.end, len(document)):
            roles[at] = self._behind(document, last, at)
        for at in range(runs[0].begin):
            roles[at] = Role.TEMPLATE if document.ids[at] == self._context.bos_id else Role.PAD
        rest = (self.rows[last.number].roles or ())[last.offset + len(document) :]
        unlike = len(document) - sum(run.end - run.begin for run in runs)
        return Match(tuple(roles), tuple(begins), rest, unlike)

    def _roles(self, run: _SharedRun, begin: int, end: int) -> tuple[Role, ...]:
        return (self.rows[run.number].roles or ())[begin + run.offset : end + run.offset]

    def _between(self, before: _SharedRun, after: _SharedRun, at: int) -> Role:
        """An id between two runs of a row: as the one that it stands for, else as both sides are. Between what is given
        and what is written there is no telling (``PAD``): a template of the other trainer prints more there.
        """
        if before.offset == after.offset:
            return self._roles(before, at, at + 1)[0]
        ends = (*self._roles(before, before.end - 1, before.end), *self._roles(after, after.begin, after.begin + 1))
        written = [role in RESPONSE_ROLES and role is not Role.EOS for role in ends]
        if all(written):
            return Role.FORMAT
        return Role.PAD if any(written) else Role.TEMPLATE

    def _behind(self, document: AuditRow, last: _SharedRun, at: int) -> Role:
        """An id behind the last run: that of the same place of the row, but no stop is a template's."""
        roles = self._roles(last, at, at + 1)
        is_end = document.ids[at] in (*self._context.stop_ids, self._context.eos_id)
        return roles[0] if roles and not (is_end and roles[0] is Role.TEMPLATE) else Role.PAD


def _grams(ids: Ids, step: int) -> Iterator[tuple[int, Ids]]:
    for at in range(len(ids) - _GRAM + 1):
        gram = ids[at : at + _GRAM]
        if step == 1 or hash(gram) % step == 0:
            yield at, gram


def _anchors(pairs: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Of (place in a document, place in a row) the longest chain that rises in both, of places that occur once; where
    none does, of all.

    >>> _anchors([(0, 5), (1, 1), (2, 2), (9, 4)])
    [(1, 1), (2, 2), (9, 4)]
    """
    ours, theirs = Counter(at for at, _ in pairs), Counter(place for _, place in pairs)
    once = [(at, place) for at, place in pairs if ours[at] == theirs[place] == 1]
    ends: list[int] = []  # by length of a chain, the smallest place at which it ends, and which pair that is
    which: list[int] = []
    before: list[int] = []
    chosen = sorted(once or pairs, key=lambda pair: (pair[0], -pair[1]))
    for number, (_, place) in enumerate(chosen):
        size = bisect.bisect_left(ends, place)
        ends[size : size + 1] = [place]
        which[size : size + 1] = [number]
        before.append(which[size - 1] if size else -1)
    chain, number = [], which[-1] if which else -1
    while number >= 0:
        chain.append(chosen[number])
        number = before[number]
    return chain[::-1]


def _widened(ids: Ids, row: Ids, run: _SharedRun, first: int, free: npt.NDArray[np.bool_] | None = None) -> _SharedRun:
    """A run with what is the same before it, from ``first`` on, and behind it, as far as it is free."""
    begin, end, offset = run.begin, run.end, run.offset
    while begin > first and (free is None or free[begin - 1]) and ids[begin - 1] == row[begin - 1 + offset]:
        begin -= 1
    last = min(len(ids), len(row) - offset)
    while end < last and (free is None or free[end]) and ids[end] == row[end + offset]:
        end += 1
    return _SharedRun(begin, end, run.number, offset)


def _in_order(one: _SharedRun, two: _SharedRun) -> bool:
    first, second = sorted((one, two), key=lambda run: run.begin)
    return first.end <= second.begin and first.end + first.offset <= second.begin + second.offset
