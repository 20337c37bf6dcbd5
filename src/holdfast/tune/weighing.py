"""Data and one or two models -> the same data with a weight for every token of its responses.

The weights are kept as runs of characters.

    excess       nll of the model - nll of the reference     token cleaning (arXiv 2502.01968), Rho-1 (arXiv 2404.07965)
    surprise     nll of the model                             what the model does not know yet
    confidence   - nll of the model                           what it knows already: leaves out noise, and what is new

The share of tokens with the highest score keeps weight 1, the others get --rest. Characters, not tokens, carry the
weights, so a model with another tokenizer can be trained on them: there, too, a token takes the weight of its last
character.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, islice, pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from holdfast import lm as models
from holdfast import runs
from holdfast.config import WeighConfig
from holdfast.data.agent import texts_beside
from holdfast.data.chat_template import prepare, template_name, with_kwargs
from holdfast.data.columns import all_unused, tell
from holdfast.data.examples import examples_of
from holdfast.data.read import read_rows, source_digest
from holdfast.data.shapes import shape_of
from holdfast.data.sources import name_of, sources_of
from holdfast.data.weights import TOKEN_WEIGHTS, check_weight
from holdfast.errors import HoldfastError, set_aside
from holdfast.lm.batched import sequence_nlls
from holdfast.records import CharWeights, Example, Message, Role, Span
from holdfast.runs import RunDir, write_text
from holdfast.tune.roles import render_example, text_of, with_offsets

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ScoredTokens:
    """Where a text of one assistant message, or a piece of it, lies in the tokens of its example.

    ``part``: which text of the message (``records.Span``); ``token_N``: the places of its tokens; ``chars_N2``: first
    and last character of each.
    """

    message: int
    part: int
    token_N: npt.NDArray[np.int64]
    chars_N2: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Encoded:
    """An example as the models see it. ``responses`` name the tokens that are scored."""

    ids: list[int]
    responses: list[ScoredTokens]

    @property
    def scored_N(self) -> npt.NDArray[np.int64]:
        """The places of all scored tokens."""
        return np.concatenate([np.empty(0, dtype=np.int64), *(response.token_N for response in self.responses)])


def weigh(config: WeighConfig) -> dict[str, Any]:
    """Score a data set and write it again, with weights, to ``OUTPUT/data.jsonl``, or where there are several to the
    folder ``OUTPUT/data``, which `tune` takes, a file for each.

    Args:
        config: see ``holdfast.config.WeighConfig``.

    Returns:
        The summary: counts, mean NLLs, the lowest score that was kept, the file.

    Raises:
        HoldfastError: bad input; nothing has been written then.

    >>> from holdfast.tune import WeighConfig, weigh
    >>> summary = weigh(WeighConfig(model="pocket", reference="runs/first", data="pocket:instructions", limit=20,
    ...     output="runs/weighed"))
    >>> summary["by"], summary["examples"], summary["kept"] < summary["tokens"]
    ('excess', 20, True)
    """
    with runs.command(config, "weigh") as run:
        digest = source_digest(config.data)
        if run.summary is not None:
            run.check_data(lambda: digest)
        if summary := run.finished():
            return summary
        by = _check(config)
        parts, examples = _read(config)
        unused = all_unused(examples)
        tell(name_of(config.data), unused)
        tokenizer = models.load_tokenizer(config.model, trust_remote_code=config.trust_remote_code)
        examples = with_kwargs(examples, prepare(tokenizer, config.chat_template, config.chat_template_kwargs))
        roles = _ROLES[config.scored]
        encoded = [encode(example, config.template, tokenizer, roles) for example in examples]
        _check_reference(config, tokenizer)
        tokens = sum(len(e.scored_N) for e in encoded)
        figures: dict[str, Any] = {
            "command": "weigh",
            "by": by,
            "data_digest": digest,
            "examples": len(examples),
            "tokens": tokens,
        }
        figures["columns_not_used"] = unused
        if config.dry_run:
            return _preview(config, figures, tokenizer, encoded)
        nlls = _nlls(config, tokenizer, encoded)
        run.open({"by": by})
        return run.finish(_write(config, run, parts, examples, encoded, nlls, figures))


def _read(config: WeighConfig) -> tuple[list[list[dict[str, Any]]], list[Example]]:
    """Return the rows of each source as they stand there, and the examples of all."""
    parts, examples = [], list[Example]()
    for source in sources_of(config.data):
        rows = list(islice(read_rows(source), config.limit))
        examples += examples_of(rows, source, layout=config.layout, shape=shape_of(config))
        parts.append([row for row, _ in rows])
    return parts, examples


_ROLES = {"all": (Role.ASSISTANT, Role.THINK, Role.TOOL_CALL), "text": (Role.ASSISTANT,)}
"""Value of --scored -> roles whose texts are scored."""


def encode(example: Example, template: str, tokenizer: Any, roles: Sequence[Role] = _ROLES["all"]) -> Encoded:
    """Render and tokenise an example, and say which tokens are those of its responses' texts of these roles.

    What stands in no text of the row keeps weight 1: ends of turns, and what the model writes around its texts.

    Raises:
        HoldfastError: the template refuses the example, which is named.
    """
    with set_aside(None, example.where):
        spans = render_example(example, template_name(template, example.layout, tokenizer), tokenizer)
    encoding = with_offsets([text_of(spans)], tokenizer)
    offsets = np.asarray(encoding["offset_mapping"][0], dtype=np.int64).reshape(-1, 2)
    responses, begin = [], 0
    for span in spans:
        end = begin + len(span.text)
        if span.role in roles and span.message is not None:
            responses.append(_response(example, span, begin, offsets))
        begin = end
    return Encoded(list(encoding["input_ids"][0]), responses)


def _response(example: Example, span: Span, begin: int, offsets: npt.NDArray[np.int64]) -> ScoredTokens:
    """A token is of the response if its last character is."""
    last = offsets[:, 1] - 1
    token_N = np.flatnonzero((last >= begin) & (last < begin + len(span.text)))
    token_N = token_N[token_N > 0]  # the first token of all is no target
    chars_N2 = np.stack([np.maximum(offsets[token_N, 0], begin), last[token_N]], axis=1) - begin + span.start
    message = next(i for i, m in enumerate(example.messages) if m is span.message)
    return ScoredTokens(message, span.part, token_N, chars_N2)


def _nlls(config: WeighConfig, tokenizer: Any, encoded: list[Encoded]) -> list[list[Floats]]:
    """Return the NLLs of all tokens for the model, and for the reference if there is one; NaN beyond the context.

    One model is loaded after the other, so that only one is in memory.
    """
    nlls = []
    for name in [config.model] + ([config.reference] if config.reference else []):
        model = models.load(name, trust_remote_code=config.trust_remote_code)
        ids = [e.ids for e in encoded]
        nlls.append(
            sequence_nlls(
                model.model, ids, models.pad_id(tokenizer), batch_size=config.batch_size, context=model.context
            )
        )
        del model
    return nlls


def _write(
    config: WeighConfig, run: RunDir, parts: list[list[Any]], examples: list[Example], encoded: list[Encoded],
    nlls: list[list[Floats]], figures: dict[str, Any],
) -> dict[str, Any]:  # fmt: skip
    places = [e.scored_N for e in encoded]
    response_nlls = [[nll[at] for nll, at in zip(of_model, places, strict=True)] for of_model in nlls]
    scores = [-s if figures["by"] == "confidence" else s for s in response_nlls[0]]
    if figures["by"] == "excess":  # nll of the model - nll of the reference
        scores = [s - reference for s, reference in zip(scores, response_nlls[1], strict=True)]
    kept = keep_highest(scores, config.keep, config.scope)
    lines = []
    for row, example, e, keep in zip(chain.from_iterable(parts), examples, encoded, kept, strict=True):
        weighted = row | {TOKEN_WEIGHTS: _field(example.messages, e, keep, config.rest)}
        # str: Parquet files hold times, which JSON does not have
        lines.append(json.dumps(weighted, ensure_ascii=False, default=str) + "\n")
    data = run.path / ("data" if len(parts) > 1 else "data.jsonl")
    write_text(run.rows, "".join(map(_row, range(1, len(scores) + 1), scores, kept)))
    whole = iter(lines)
    for number, part in enumerate(parts, 1):
        file = data / f"part-{number}.jsonl" if len(parts) > 1 else data
        file.parent.mkdir(exist_ok=True)
        write_text(file, "".join(islice(whole, len(part))))
    scored = np.concatenate(scores)
    within = ~np.isnan(scored)
    kept_scores = scored[within & np.concatenate(kept)]
    return figures | {
        "kept": len(kept_scores),
        "beyond_context": int((~within).sum()),
        "lowest_kept_score": float(kept_scores.min()) if len(kept_scores) else None,
        "mean_nll": [float(np.nanmean(np.concatenate(of_model))) for of_model in response_nlls],
        "data_path": str(data),
    }


def _field(messages: Sequence[Message], encoded: Encoded, kept_N: npt.NDArray[np.bool_], rest: float) -> list[Any]:
    """The column of a row: one entry for each message, None where all weights are 1."""
    runs: dict[tuple[int, int], list[list[float]]] = {}
    at = 0
    for response in encoded.responses:
        part = char_runs(response.chars_N2, kept_N[at : at + len(response.token_N)], rest)
        runs.setdefault((response.message, response.part), []).extend(map(list, part))
        at += len(response.token_N)
    return [_entry(message, number, runs) for number, message in enumerate(messages)]


def _entry(message: Message, number: int, runs: dict[tuple[int, int], list[list[float]]]) -> Any:
    texts = texts_beside(message.extras)
    own, *beside = (sorted(runs.get((number, part), [])) or None for part in range(1 + len(texts)))
    return {"content": own, "beside": beside} if any(beside) else own


def _row(number: int, scores_N: Floats, kept_N: npt.NDArray[np.bool_]) -> str:
    within = ~np.isnan(scores_N)
    mean = float(scores_N[within].mean()) if within.any() else None
    row = {
        "kind": "example",
        "row": number,
        "tokens": len(scores_N),
        "kept": int((kept_N & within).sum()),
        "mean_score": mean,
    }
    return json.dumps(row) + "\n"


def _check(config: WeighConfig) -> str:
    """What the score is; the weight of the other tokens is one."""
    check_weight(config.rest, "--rest")
    by = config.by or ("excess" if config.reference else "surprise")
    if (by == "excess") != bool(config.reference):
        hint = "--reference names it" if by == "excess" else "leave --reference out"
        raise HoldfastError(f"--by {by} takes {'two models' if by == 'excess' else 'one model'}", hint=hint)
    return by


def _check_reference(config: WeighConfig, tokenizer: Any) -> None:
    """Scores are compared token by token, so both models must have one vocabulary."""
    if config.reference is None:
        return
    other = models.load_tokenizer(config.reference, trust_remote_code=config.trust_remote_code)
    if other.get_vocab() != tokenizer.get_vocab():
        raise HoldfastError(
            f"{config.model} and {config.reference} have different tokenizers, so their scores cannot be compared "
            "token by token",
            hint="the reference is best the model itself, tuned on good data",
        )


def _preview(config: WeighConfig, figures: dict[str, Any], tokenizer: Any, encoded: list[Encoded]) -> dict[str, Any]:
    if not config.json:
        first = encoded[0]
        scored = [tokenizer.decode([first.ids[i]]) for i in first.scored_N.tolist()]
        print(f"first row, the tokens that are scored: {scored}")
        passes = 2 if config.reference else 1
        total = sum(len(e.ids) for e in encoded)
        print(
            f"{figures['tokens']:,} response tokens of {len(encoded):,} rows by {figures['by']}; {passes} x {total:,} "
            "tokens forward"
        )
    return figures | {"dry_run": True}


def keep_highest(scores: Sequence[Floats], share: float, scope: str) -> list[npt.NDArray[np.bool_]]:
    """Which tokens to keep: the ``share`` with the highest scores, of all (``global``) or of each array (``sample``).

    The count is rounded half up, at least one; among equal scores the earlier token is kept. NaN scores stand outside:
    kept, not counted.
    """
    if scope == "sample":
        return [_keep(s, share) for s in scores]
    ends = np.cumsum([len(s) for s in scores])[:-1]
    return np.split(_keep(np.concatenate([*scores, np.empty(0)]), share), ends)


def _keep(scores_N: Floats, share: float) -> npt.NDArray[np.bool_]:
    scored = np.flatnonzero(~np.isnan(scores_N))
    kept = np.isnan(scores_N)
    count = max(int(share * len(scored) + 0.5), min(1, len(scored)))
    kept[scored[np.argsort(-scores_N[scored], kind="stable")[:count]]] = True
    return kept


def char_runs(chars_N2: npt.NDArray[np.int64], kept_N: npt.NDArray[np.bool_], rest: float) -> CharWeights:
    """Return runs of characters whose tokens were not kept, merged.

    A character that several tokens share counts as kept if one of them is.
    """
    if not len(chars_N2):
        return ()
    weights = np.full(int(chars_N2[:, 1].max()) + 1, np.nan)
    for (first, last), keep in zip(chars_N2.tolist(), kept_N.tolist(), strict=True):
        piece = weights[first : last + 1]
        weights[first : last + 1] = np.fmax(piece, 1.0 if keep else rest)
    weights = np.nan_to_num(weights, nan=1.0)
    edges = [0, *(np.flatnonzero(np.diff(weights)) + 1).tolist(), len(weights)]
    return tuple((a, b, float(weights[a])) for a, b in pairwise(edges) if weights[a] != 1)
