"""Which turns are trained on, and weights of parts of a message.

    spans: [{match: "\\\\bTODO\\\\b", role: assistant, weight: 0.3}]

The weights of spans multiply that of the role; where several match a character, the first counts.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from holdfast.data.weights import check_weight
from holdfast.errors import HoldfastError
from holdfast.records import Example, Role, Span

_SAID = (Role.SYSTEM, Role.USER, Role.TOOL, Role.ASSISTANT, Role.THINK, Role.TOOL_CALL)
"""Roles of what messages say, to which a rule without a role applies."""


@dataclass(frozen=True)
class SpanRule:
    """Characters that ``match`` finds, in texts of one role or (None) in all that messages say, have ``weight``."""

    match: re.Pattern[str]
    weight: float
    role: Role | None = None


def span_rules(entries: Sequence[Mapping[str, Any]]) -> list[SpanRule]:
    """The rules of the option ``spans``.

    Raises:
        HoldfastError: an unknown key or role, no regular expression, a bad weight; the entry is named.
    """
    return [_rule(entry, f"spans, entry {number}") for number, entry in enumerate(entries, 1)]


def _rule(entry: Mapping[str, Any], place: str) -> SpanRule:
    unknown = entry.keys() - {"match", "role", "weight"}
    if unknown or not {"match", "weight"} <= entry.keys():
        raise HoldfastError(f"{place}: the keys are match, weight and role (optional), not {', '.join(entry)}")
    try:
        match = re.compile(str(entry["match"]))
    except re.error as error:
        raise HoldfastError(f"{place}: {entry['match']!r} is no regular expression ({error})") from error
    name = entry.get("role")
    role = Role.__members__.get(str(name).upper()) if name is not None else None
    if name is not None and role in (None, Role.PAD):
        names = ", ".join(r.label for r in Role if r)
        raise HoldfastError(f"{place}: unknown role '{name}'; roles are {names}")
    try:
        weight = float(entry["weight"])
    except (TypeError, ValueError) as error:
        raise HoldfastError(f"{place}: the weight is {entry['weight']!r}, no number") from error
    return SpanRule(match, check_weight(weight, "the weight", place), role)


def of_turns(example: Example, turns: str) -> Example:
    """The example, of which with ``last`` only the last response is trained on: earlier ones have weight 0."""
    if turns == "all":
        return example
    last = max((i for i, m in enumerate(example.messages) if m.role is Role.ASSISTANT), default=-1)
    messages = tuple(
        replace(m, weight=0.0) if m.role is Role.ASSISTANT and i != last else m for i, m in enumerate(example.messages)
    )
    return replace(example, messages=messages)


def weighed_by(spans: Iterable[Span], rules: Sequence[SpanRule]) -> list[Span]:
    """The spans, cut where a rule begins or ends and with its weight multiplied in."""
    return list(itertools.chain.from_iterable(_pieces(span, rules) for span in spans)) if rules else list(spans)


def unmatched(spans: Sequence[Span], rules: Sequence[SpanRule]) -> list[SpanRule]:
    """The rules of which no text has a match."""
    return [rule for rule in rules if not any(map(partial(_matches, rule), spans))]


def _matches(rule: SpanRule, span: Span) -> bool:
    return _concerns(rule, span) and rule.match.search(span.text) is not None


def _concerns(rule: SpanRule, span: Span) -> bool:
    return span.role is rule.role or (rule.role is None and span.role in _SAID)


def _pieces(span: Span, rules: Sequence[SpanRule]) -> Iterator[Span]:
    """The texts of a call lie in several spans, so a rule sees them one by one."""
    factors = np.full(len(span.text), np.nan)
    for rule in rules:
        if _concerns(rule, span):
            for match in rule.match.finditer(span.text):
                stretch = factors[match.start() : match.end()]
                stretch[np.isnan(stretch)] = rule.weight
    factors = np.nan_to_num(factors, nan=1.0)
    edges = [0, *(np.flatnonzero(np.diff(factors)) + 1).tolist(), len(span.text)]
    for begin, end in itertools.pairwise(edges):
        if end > begin:
            weight = span.weight * float(factors[begin])
            yield replace(span, text=span.text[begin:end], weight=weight, start=span.start + begin)
