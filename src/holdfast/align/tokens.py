"""Pairs -> token ids, rendered by the templates of ``tune``.

So the second stage sees texts in the form that the first one was trained on.

    prompt ids | chosen ids
    prompt ids | rejected ids

An answer begins at the first token whose last character is the answer's, and ends with the end-of-turn token.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from holdfast.data.chat_template import render, template_name
from holdfast.data.pairs import Pair
from holdfast.errors import HoldfastError, set_aside
from holdfast.progress import Progress
from holdfast.records import RESPONSE_ROLES, Message, Role, Tokens
from holdfast.tables.text import counted
from holdfast.tune.roles import assign_roles, stop_ids

_BATCH = 256


@dataclass(frozen=True)
class PairTokens:
    """A tokenised pair: ids of the prompt, and of the two answers that follow it.

    ``ends`` are the ids with which its turns end. ``source``: see ``records.Example``.
    """

    prompt: list[int]
    chosen: list[int]
    rejected: list[int]
    where: str
    ends: tuple[int, ...] = ()
    source: int = 0

    def __len__(self) -> int:
        return len(self.prompt) + max(len(self.chosen), len(self.rejected))

    @property
    def tokens(self) -> int:
        """Of both sequences."""
        return 2 * len(self.prompt) + len(self.chosen) + len(self.rejected)


@dataclass
class PairReport:
    """What happened to the pairs. Written into the summary."""

    pairs: int = 0
    tokens: int = 0
    truncated: int = 0
    dropped: int = 0
    left_out: list[str] = field(default_factory=list)
    longest: int = 0
    templates: Counter[str] = field(default_factory=Counter)
    columns_not_used: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "pairs": self.pairs,
            "tokens": self.tokens,
            "truncated": self.truncated,
            "dropped_too_long": self.dropped,
            "nothing_left_to_compare": len(self.left_out),
            "longest": self.longest,
            "templates": dict(self.templates),
            "columns_not_used": self.columns_not_used,
        }


def tokenize_pairs(
    pairs: Sequence[Pair],
    tokenizer: Any,
    *,
    template: str = "auto",
    max_length: int,
    truncation: str = "keep-start",
    bad_rows: list[str] | None = None,
) -> tuple[list[PairTokens], PairReport]:
    """Render and tokenise.

    Args:
        template: see ``holdfast.data.chat_template.template_name``.
        max_length: of prompt and answer, in tokens.
        truncation: ``keep-start`` cuts the ends of answers; ``drop`` leaves longer pairs out. Where the prompt fills
            the context, or the answers differ only in what is cut, the pair is left out and listed.
        bad_rows: collects the messages of bad pairs; None raises at the first one.

    Raises:
        HoldfastError: names the row: the template refuses it, or both answers are the same tokens.
    """
    report = PairReport()
    done = []
    progress = Progress("pair", len(pairs), doing="tokenising")
    for start in range(0, len(pairs), _BATCH):
        for pair in _encode(pairs[start : start + _BATCH], tokenizer, template, report, bad_rows):
            kept = _fit(pair, max_length, truncation, report)
            if kept is not None:
                report.pairs += 1
                report.tokens += kept.tokens
                done.append(kept)
        progress.add(len(pairs[start : start + _BATCH]))
    progress.close()
    return done, report


def _encode(
    pairs: Sequence[Pair], tokenizer: Any, template: str, report: PairReport, bad_rows: list[str] | None
) -> list[PairTokens]:
    rendered, done = [], []
    for pair in pairs:
        with set_aside(bad_rows, pair.where):
            name = template_name(template, pair.layout, tokenizer)
            rendered += [_render(pair, answer, name, tokenizer) for answer in (pair.chosen, pair.rejected)]
            done.append(pair)
            report.templates[name] += 1
    tokens = assign_roles(rendered, tokenizer)
    encoded = []
    for pair, chosen, rejected in zip(done, tokens[::2], tokens[1::2], strict=True):
        with set_aside(bad_rows, pair.where):
            pair_tokens = replace(_split(chosen, rejected, pair.where), source=pair.source)
            if pair_tokens.chosen == pair_tokens.rejected:
                raise HoldfastError("'chosen' and 'rejected' are the same tokens to this tokenizer and template")
            encoded.append(pair_tokens)
    return encoded


def _render(pair: Pair, answer: Message, template: str, tokenizer: Any) -> Any:
    messages = (*pair.prompt, answer)
    if template == "alpaca" and [m.role for m in messages] != [Role.USER, Role.ASSISTANT]:
        raise HoldfastError(
            "the alpaca template holds one user message and its answer", hint="choose another with --template"
        )
    return render(messages, template, tokenizer, pair.tools, pair.template_kwargs)


def _split(chosen: Tokens, rejected: Tokens, where: str) -> PairTokens:
    """Cut both sequences where the answer begins; a token across the border that differs belongs to the answers."""
    (begin_a, end_a), (begin_b, end_b) = _answer(chosen), _answer(rejected)
    begin = min(begin_a, begin_b)
    differ = np.flatnonzero(chosen.ids[:begin] != rejected.ids[:begin])
    begin = int(differ[0]) if len(differ) else begin
    a, b = chosen.ids.tolist(), rejected.ids.tolist()
    return PairTokens(a[:begin], a[begin:end_a], b[begin:end_b], where, tuple(sorted(stop_ids(chosen))))


def _answer(tokens: Tokens) -> tuple[int, int]:
    """Return the first token and the end of the last turn's response.

    What the template prints after the response is not the model's to write.
    """
    response = np.isin(tokens.roles, RESPONSE_ROLES)
    end = int(np.flatnonzero(response)[-1]) + 1
    before = np.flatnonzero(~response[:end])
    return (int(before[-1]) + 1 if len(before) else 0), end


def _fit(pair: PairTokens, max_length: int, truncation: str, report: PairReport) -> PairTokens | None:
    report.longest = max(report.longest, len(pair))
    if len(pair) <= max_length:
        return pair
    if truncation == "drop":
        report.dropped += 1
        return None
    room = max(max_length - len(pair.prompt), 0)
    kept = replace(pair, chosen=pair.chosen[:room], rejected=pair.rejected[:room])
    if kept.chosen == kept.rejected:
        report.left_out.append(
            f"{pair.where}: the prompt has {counted(len(pair.prompt), 'token')}; of the answers {room} "
            "remain, and they are equal"
        )
        return None
    report.truncated += 1
    return kept
