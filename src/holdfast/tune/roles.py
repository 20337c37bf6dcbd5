"""Examples -> tokens that know their role. Rendered once, tokenised once; boundaries come from character offsets.

A token belongs to the role of its *last* character: where the space before a response fuses with its first word, the
token predicts the response and counts as response. (Tokenising the prompt apart, as the WIT code does, fails wherever a
merge crosses the boundary.)
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from dataclasses import replace as replaced
from itertools import accumulate
from typing import Any

import numpy as np
import numpy.typing as npt

from holdfast.data.chat_template import render, template_name
from holdfast.errors import HoldfastError, set_aside
from holdfast.records import Example, Message, Role, Span, Tokens, named_roles
from holdfast.tables.text import counted
from holdfast.tune.spans import SpanRule, of_turns, unmatched, weighed_by
from holdfast.tune.weights import RoleWeights

_BATCH = 512


@dataclass
class TokenReport:
    """What happened to the data: targets per role, cuts, losses. Written into the summary."""

    examples: int = 0
    tokens: int = 0
    targets: Counter[Role] = field(default_factory=Counter)
    weighted_targets: Counter[Role] = field(default_factory=Counter)
    counted_targets: Counter[Role] = field(default_factory=Counter)
    truncated: int = 0
    tokens_cut: int = 0
    eos_cut: int = 0
    dropped: int = 0
    prompt_too_long: list[str] = field(default_factory=list)
    special_in_content: int = 0
    longest: int = 0
    templates: Counter[str] = field(default_factory=Counter)
    columns_not_used: list[str] = field(default_factory=list)
    places: list[str] = field(default_factory=list)
    """Where each example comes from that is left, in their order; no part of the summary."""

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values, roles by name."""
        named = {r.label: self.targets[r] for r in named_roles(self.targets)}
        return {
            "examples": self.examples,
            "tokens": self.tokens,
            "targets_per_role": named,
            "truncated": self.truncated,
            "tokens_cut": self.tokens_cut,
            "eos_cut": self.eos_cut,
            "dropped_too_long": self.dropped,
            "prompt_too_long": len(self.prompt_too_long),
            "special_tokens_inside_content": self.special_in_content,
            "longest": self.longest,
            "templates": dict(self.templates),
            "columns_not_used": self.columns_not_used,
        }


def tokenize(
    examples: Sequence[Example],
    tokenizer: Any,
    weights: RoleWeights,
    *,
    template: str = "auto",
    max_length: int,
    truncation: str = "keep-start",
    bad_rows: list[str] | None = None,
    turns: str = "all",
    spans: Sequence[SpanRule] = (),
) -> tuple[list[Tokens], TokenReport]:
    """Render, tokenise and assign roles.

    Args:
        weights: only to find examples that would have no target of non-zero weight.
        template: see ``holdfast.data.chat_template.template_name``.
        max_length: in tokens.
        truncation: ``keep-start``, ``keep-end`` (a BOS stays in front) or ``drop``. An example whose prompt fills the
            context, so that no weighted target would be left, is left out and listed in the report.
        bad_rows: collects the messages of bad examples; None raises at the first one.
        turns: ``all``, or ``last``: earlier responses have weight 0.
        spans: weights of parts of what is said, see ``SpanRule``.

    Raises:
        HoldfastError: names the row: no weighted target left, template refused, tokenizer without offsets or EOS.
    """
    report = TokenReport()
    done: list[Tokens] = []
    open_rules = list(spans)
    for start in range(0, len(examples), _BATCH):
        batch, rendered = [], []
        for example in examples[start : start + _BATCH]:
            with set_aside(bad_rows, example.where):
                name = template_name(template, example.layout, tokenizer)
                whole = render_example(of_turns(example, turns), name, tokenizer)
                open_rules = unmatched(whole, open_rules)
                rendered.append(weighed_by(whole, spans))
                batch.append(example)
                report.templates[name] += 1
        fitting = []
        for example, tokens in zip(batch, assign_roles(rendered, tokenizer), strict=True):
            with set_aside(bad_rows, example.where):
                if not _weighted(tokens, weights).any():
                    hint = "--skip-bad-rows leaves such rows out"
                    raise HoldfastError("the example has no token of non-zero weight to learn from", hint=hint)
                kept = _fit(tokens, example, weights, max_length, truncation, tokenizer, report)
                if kept is not None:
                    fitting.append(replaced(kept, source=example.source) if example.source else kept)
                    report.places.append(example.where)
        _count(fitting, tokenizer, report)
        done += fitting
    if examples and open_rules:
        patterns = ", ".join(repr(rule.match.pattern) for rule in open_rules)
        print(f"warning: spans: {patterns} matched nothing", file=sys.stderr)
    return done, report


def stop_ids(tokens: Tokens) -> set[int]:
    """The ids with which the stop runs of an example end: what generation is to stop on."""
    eos = tokens.roles == Role.EOS
    last = eos & ~np.append(eos[1:], False)
    return set(tokens.ids[last].tolist())


def assign_roles(rendered: Sequence[Sequence[Span]], tokenizer: Any) -> list[Tokens]:
    """Tokenise each list of spans as one text; every token takes role and weights of its last character."""
    if not rendered:
        return []
    encoded = with_offsets([text_of(spans) for spans in rendered], tokenizer)
    return list(map(_tokens, encoded["input_ids"], encoded["offset_mapping"], rendered))


def text_of(spans: Sequence[Span]) -> str:
    """The text that the model sees."""
    return "".join(span.text for span in spans)


def with_offsets(texts: list[str], tokenizer: Any) -> Any:
    """Return the ids of each text as they are, and which characters each of them stands for.

    Raises:
        HoldfastError: a tokenizer that cannot say where its tokens lie.
    """
    if not tokenizer.is_fast:
        raise HoldfastError(
            f"tokenizer {type(tokenizer).__name__} gives no character offsets", hint="load its fast version"
        )
    return tokenizer(texts, add_special_tokens=False, return_offsets_mapping=True, verbose=False)


def _tokens(ids: Sequence[int], offsets: Sequence[tuple[int, int]], spans: Sequence[Span]) -> Tokens:
    ends = np.fromiter(accumulate(len(s.text) for s in spans), dtype=np.int64, count=len(spans))
    last = np.maximum(np.asarray([end for _, end in offsets], dtype=np.int64).reshape(-1) - 1, 0)
    span_of = np.searchsorted(ends, last, side="right")
    roles = np.asarray([s.role for s in spans], dtype=np.int8)[span_of]
    scale = np.asarray([s.weight for s in spans], dtype=np.float32)[span_of]
    if any(s.message is not None and s.message.weights_of(s.part) for s in spans):
        scale *= _char_weights(spans)[last]
    return Tokens(np.asarray(ids, dtype=np.int32), roles, None if (scale == 1).all() else scale)


def _char_weights(spans: Sequence[Span]) -> npt.NDArray[np.float32]:
    """Weight of every character of the rendered text."""
    weights = np.ones(sum(len(s.text) for s in spans), dtype=np.float32)
    begin = 0
    for span in spans:
        for start, end, weight in span.message.weights_of(span.part) if span.message is not None else ():
            inside = slice(max(start - span.start, 0), max(min(end - span.start, len(span.text)), 0))
            weights[begin : begin + len(span.text)][inside] = weight
        begin += len(span.text)
    return weights


def joined_turns(example: Example, template: str) -> tuple[Message, ...]:
    """The messages of an example as a template takes them: in a chat, instruction and input are one turn."""
    messages = example.messages
    if template == "chat" and example.layout == "alpaca" and len(messages) > 1 and messages[1].role is Role.USER:
        shift = len(messages[0].content) + 2
        shifted = tuple((start + shift, end + shift, weight) for start, end, weight in messages[1].char_weights)
        joined = replaced(
            messages[0],
            content=f"{messages[0].content}\n\n{messages[1].content}",
            char_weights=messages[0].char_weights + shifted,
        )
        return (joined, *messages[2:])
    return messages


def render_example(example: Example, template: str, tokenizer: Any) -> list[Span]:
    """The spans of an example, weighted by message and example.

    Raises:
        HoldfastError: see ``holdfast.data.chat_template.render``.
    """
    messages = joined_turns(example, template)
    spans = render(messages, template, tokenizer, example.tools, example.template_kwargs, asks=example.asks)
    if example.weight == 1:
        return spans
    return [replaced(s, weight=s.weight * example.weight) for s in spans]


def _fit(
    tokens: Tokens,
    example: Example,
    weights: RoleWeights,
    max_length: int,
    truncation: str,
    tokenizer: Any,
    report: TokenReport,
) -> Tokens | None:
    """Truncate. None for an example that is dropped, or of which truncation would leave nothing to learn from."""
    extra = len(tokens) - max_length
    report.longest = max(report.longest, len(tokens))
    if extra <= 0:
        return tokens
    if truncation == "drop":
        report.dropped += 1
        return None
    keep = np.arange(max_length) if truncation == "keep-start" else np.arange(extra, len(tokens))
    if truncation == "keep-end" and tokens.ids[0] == tokenizer.bos_token_id:
        keep[0] = 0
    kept = Tokens(tokens.ids[keep], tokens.roles[keep], None if tokens.scale is None else tokens.scale[keep])
    if not _weighted(kept, weights).any():
        report.prompt_too_long.append(
            f"{example.where}: {counted(len(tokens), 'token')}, of which the first {max_length} hold no weighted target"
        )
        return None
    report.truncated += 1
    report.tokens_cut += extra
    report.eos_cut += truncation == "keep-start" and Role.EOS in tokens.roles[max_length:]
    return kept


def _weighted(tokens: Tokens, weights: RoleWeights) -> npt.NDArray[np.bool_]:
    """Which tokens are targets of non-zero weight."""
    table = np.asarray([weights[r] for r in Role], dtype=np.float32)
    weighted: npt.NDArray[np.bool_] = table[tokens.roles] != 0
    if tokens.scale is not None:
        weighted &= tokens.scale != 0
    weighted[:1] = False
    return weighted


def _count(kept: Sequence[Tokens], tokenizer: Any, report: TokenReport) -> None:
    report.examples += len(kept)
    report.tokens += sum(map(len, kept))
    if not kept:
        return
    roles = np.concatenate([t.roles for t in kept])
    content = ~np.isin(roles, (Role.TEMPLATE, Role.EOS, Role.FORMAT, Role.EMPTY_THINK))
    report.special_in_content += int(
        np.isin(np.concatenate([t.ids for t in kept])[content], tokenizer.all_special_ids).sum()
    )
    targets, counted, weighted = count_targets(kept)
    report.targets += targets
    report.counted_targets += counted
    for role, count in weighted.items():  # += would drop what is 0
        report.weighted_targets[role] += count


def count_targets(
    tokens: Sequence[Tokens], times: npt.NDArray[np.int64] | None = None
) -> tuple[Counter[Role], Counter[Role], Counter[Role]]:
    """Targets by role, those of a weight that is not 0, and their weighted counts.

    ``times``: how often each example counts, by default once.
    """
    lengths = [len(t) for t in tokens]
    roles = np.concatenate([t.roles for t in tokens])
    scale = np.concatenate([np.ones(len(t)) if t.scale is None else t.scale for t in tokens])
    often = np.repeat(np.ones(len(tokens), np.int64) if times is None else times, lengths)
    roles[np.cumsum([0, *lengths[:-1]])] = Role.PAD  # the first token of an example is no target
    counts, counted, weighted = (
        np.bincount(roles, w, minlength=len(Role)).tolist() for w in (often, often * (scale != 0), scale * often)
    )
    there = [role for role in Role if role and counts[role]]
    return (
        Counter({role: int(counts[role]) for role in there}),
        Counter({role: int(counted[role]) for role in there}),
        Counter({role: weighted[role] for role in there}),
    )
