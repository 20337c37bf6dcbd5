"""Scores of the sets -> one row per set -> the summary: every index over every view, with intervals over sets.

A row also says what its sensitivity is due to: which variants, which pairs, and which tokens of the responses.
Axes: X prompts, Y responses, T response tokens, Q sets, K variants.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from holdfast.records import Ids
from holdfast.sensitivity import index, metrics, noise
from holdfast.sensitivity.answers import Rule, gold
from holdfast.sensitivity.planning import Views
from holdfast.sensitivity.responses import Scores
from holdfast.sensitivity.sets import ORIGINAL, PromptSet
from holdfast.stats import bootstrap_mean

MEASURES = (
    "psi",
    "psi_signed",
    "unique_responses",
    "response_entropy",
    "logp_spread",
    "variation_ratio",
    "consistency_rate",
    "answered",
)
_MANY_CLASSES = 50


@dataclass(frozen=True)
class AnswerReading:
    """How scores are read: ``rule`` turns responses into answers, ``token_text`` token ids into text.

    ``released``: None for the paper's definition; ``max_new_tokens`` for that of the released package.
    """

    rule: Rule
    token_text: Callable[[int], str]
    released: int | None = None


def measure_set(
    s: PromptSet, prompts: Sequence[Ids], scores: Scores, views: Views, reading: AnswerReading
) -> dict[str, Any]:
    """Return the row of a set, whose prompts have these ids."""
    answers = [reading.rule(r.text, v) for r, v in zip(scores.responses, s.variants, strict=True)]
    row: dict[str, Any] = {"set_id": s.set_id, "prompts": len(s.variants), "indices": {}, "answers": {}, "variants": []}
    for name, view in views.items():
        counts = {"prompts": len(view), "distinct_prompts": len(set(map(prompts.__getitem__, view)))}
        row["indices"][name] = _indices(scores.part(view), [answers[i] for i in view], reading.released) | counts
        distinct = {prompts[i]: answers[i] for i in reversed(view)}
        row["answers"][name] = _changes(list(distinct.values()))
    for v, r, logp, answer in zip(s.variants, scores.responses, np.diag(scores.logp_XY), answers, strict=True):
        about = {"variant_id": v.variant_id, "kind": v.kind, "response": r.text, "tokens": len(r.ids)}
        margin = None if r.margin is None else round(r.margin, 6)
        right = gold(v, reading.rule)
        target = {} if right is None else {"gold": right, "right": answer == right}
        row["variants"].append(about | {"logp": round(float(logp), 6), "margin": margin, "answer": answer} | target)
    # Attribution is over everything where that was scored, else per view.
    row["attribution"] = {}
    for name, view in {"all": views["all"]}.items() if "all" in views else views.items():
        names = [s.variants[i].variant_id for i in view]
        row["attribution"][name] = attribution(scores.part(view), names, reading.token_text)
    return row


def _changes(answers: Sequence[str | None]) -> dict[str, float]:
    """Return how often the answers to different prompts differ. Greedy answers have no noise: all of it is effect."""
    share = noise.differ([[object() if answer is None else answer] for answer in answers]) if len(answers) > 1 else 0.0
    return {"differ": round(share, 6), "noise": 0.0, "effect": round(share, 6)}


def _indices(scores: Scores, answers: Sequence[str | None], released: int | None) -> dict[str, float | int]:
    logp_XY, len_Y = scores.logp_XY, scores.len_Y
    ids = [r.ids for r in scores.responses]
    # A response without an answer agrees with no other, so each has a value of its own.
    comparable = [object() if answer is None else answer for answer in answers]
    return {
        "psi": index.psi(logp_XY, len_Y) if released is None else index.psi_released(logp_XY, released),
        "psi_signed": index.psi_signed(logp_XY, len_Y),
        "unique_responses": index.unique_responses(ids),
        "response_entropy": index.response_entropy(ids),
        "logp_spread": index.logp_spread(logp_XY, len_Y),
        "variation_ratio": index.variation_ratio(ids),
        "consistency_rate": index.consistency_rate(comparable),
        "answered": sum(answer is not None for answer in answers) / len(answers),
    }


def summarise(rows: Sequence[dict[str, Any]], seed: int, draws: int) -> dict[str, Any]:
    """Return all measures, by view, over the sets that have the view.

    Each has its mean, 95 % bootstrap interval over sets, spread and median.
    """
    by_view: dict[str, list[dict[str, float]]] = {}
    for row in rows:
        for name, values in row["indices"].items():
            by_view.setdefault(name, []).append(values)
    indices = {}
    for name, measured in by_view.items():
        indices[name] = {
            key: _rounded(bootstrap_mean([values[key] for values in measured], seed, draws)) for key in MEASURES
        }
    return {"posix": {name: values["psi"] for name, values in indices.items()}, "indices": indices}


def task_metrics(rows: Sequence[dict[str, Any]], views: Sequence[Views]) -> dict[str, Any]:
    """Return the metrics that targets allow, by view. They are empty without targets."""
    by_view: dict[str, list[list[dict[str, Any]]]] = {}
    for row, of_set in zip(rows, views, strict=True):
        for name, view in of_set.items():
            graded = [row["variants"][i] for i in view if "right" in row["variants"][i]]
            by_view.setdefault(name, [])
            if len(graded) > 1:
                by_view[name].append(graded)
    return {name: _metrics_of(graded) for name, graded in by_view.items() if graded}


def _metrics_of(graded: Sequence[Sequence[dict[str, Any]]]) -> dict[str, Any]:
    everything = list(itertools.chain.from_iterable(graded))
    columns = list(dict.fromkeys(v["variant_id"] for v in everything))
    originals = {v["variant_id"] for v in everything if v["kind"] == ORIGINAL}
    score_QK = np.full((len(graded), len(columns)), np.nan)
    for q, variants in enumerate(graded):
        for v in variants:
            score_QK[q, columns.index(v["variant_id"])] = float(v["right"])
    result: dict[str, Any] = {
        "items": len(graded),
        "accuracy": _named(columns, metrics.accuracy_by_variant(score_QK)),
        "prompt_sensi_score": metrics.prompt_sensi_score(score_QK),
        "spread": metrics.spread(score_QK),
        **metrics.combined_performance(score_QK),
        "per_case": metrics.per_case(score_QK),
    }
    if len(originals) == 1:
        result["performance_drop"] = _named(columns, metrics.performance_drop(score_QK, columns.index(originals.pop())))
    return result | _class_metrics(graded)


def _class_metrics(graded: Sequence[Sequence[dict[str, Any]]]) -> dict[str, Any]:
    """Return sensitivity and consistency of predicted classes, where the right answers form a small closed set."""
    gold_Q = [variants[0]["gold"] for variants in graded]
    classes = sorted(set(gold_Q))
    if not 2 <= len(classes) <= min(_MANY_CLASSES, len(gold_Q) // 2):
        return {}
    answers_Q = [[v["answer"] for v in variants] for variants in graded]
    return {
        "class_sensitivity": metrics.class_sensitivity(answers_Q, classes),
        "class_consistency": metrics.class_consistency(answers_Q, gold_Q, classes),
    }


def _named(columns: Sequence[str], values: metrics.Array) -> dict[str, float | None]:
    return {
        name: None if np.isnan(value) else round(float(value), 6)
        for name, value in zip(columns, values.tolist(), strict=True)
    }


def _rounded(values: dict[str, float | int]) -> dict[str, float | int]:
    return {key: round(value, 6) for key, value in values.items()}


def token_shift(scores: Scores) -> metrics.Array:
    """Return the own log-prob of each token minus that after a foreign prompt [X, Y, T], nats; NaN after the end.

    Summed over T and divided by the length it is ``index.shift``.
    """
    own_YT = np.einsum("yyt->yt", scores.token_logp)
    return np.asarray(own_YT[None] - scores.token_logp)


def attribution(scores: Scores, names: Sequence[str], token_text: Callable[[int], str], top: int = 3) -> dict[str, Any]:
    """Return the shares of one set.

    Args:
        scores: of the set, complete.
        names: of the variants.
        token_text: token id -> text.
        top: pairs and responses to list.

    Returns:
        ``by_prompt`` and ``by_response`` (means over the other side, nats per token), the ``pairs`` with the largest
        shifts, and for the responses that moved most their ``tokens`` with the mean absolute shift of each over the
        foreign prompts.
    """
    shift_XY = index.shift(scores.logp_XY, scores.len_Y)
    by_response_Y = index.psi_by_response(scores.logp_XY, scores.len_Y)
    return {
        "by_prompt": dict(zip(names, _rounded_shares(index.psi_by_prompt(scores.logp_XY, scores.len_Y)))),
        "by_response": dict(zip(names, _rounded_shares(by_response_Y))),
        "pairs": [
            {"prompt": names[x], "response_of": names[y], "shift": round(float(shift_XY[x, y]), 6)}
            for x, y in _largest(shift_XY, top)
        ],
        "tokens": [_tokens(scores, int(y), names, token_text) for y in np.argsort(-by_response_Y, kind="stable")[:top]],
    }


def _tokens(scores: Scores, y: int, names: Sequence[str], token_text: Callable[[int], str]) -> dict[str, Any]:
    length = int(scores.len_Y[y])
    foreign = [x for x in range(len(names)) if x != y]
    shifts_T = np.abs(token_shift(scores)[foreign, y, :length]).mean(0)
    return {
        "response_of": names[y],
        "tokens": [[token_text(i), round(float(s), 6)] for i, s in zip(scores.responses[y].ids, shifts_T, strict=True)],
    }


def _largest(shift_XY: metrics.Array, top: int) -> list[tuple[int, int]]:
    order = np.argsort(-np.abs(shift_XY), axis=None, kind="stable")
    places = [divmod(int(i), len(shift_XY)) for i in order]
    return [(x, y) for x, y in places if x != y][:top]


def _rounded_shares(values: metrics.Array) -> list[float]:
    return [round(float(v), 6) for v in values]
