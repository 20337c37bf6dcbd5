"""Scores of the sets -> one row per set -> the summary: every index over every view, with intervals over sets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from holdfast.records import Ids
from holdfast.sensitivity import index, metrics
from holdfast.sensitivity.answers import Rule, gold
from holdfast.sensitivity.attribution import attribution
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
class Reading:
    """How scores are read: ``rule`` makes answers of responses, ``show`` text of token ids.

    ``released``: None for the paper's definition; else ``max_new_tokens``, for that of the released package.
    """

    rule: Rule
    show: Callable[[int], str]
    released: int | None = None


def measure_set(s: PromptSet, prompts: Sequence[Ids], scores: Scores, views: Views, reading: Reading) -> dict[str, Any]:
    """The row of a set, whose prompts have these ids."""
    answers = [reading.rule(r.text, v) for r, v in zip(scores.responses, s.variants, strict=True)]
    own_Y = np.diag(scores.logp_XY)
    row: dict[str, Any] = {
        "set_id": s.set_id,
        "prompts": len(s.variants),
        "indices": {
            name: _indices(scores.part(i), [answers[k] for k in i], reading.released)
            | {"prompts": len(i), "distinct_prompts": len({prompts[k] for k in i})}
            for name, i in views.items()
        },
        "variants": [
            {
                "variant_id": v.variant_id,
                "kind": v.kind,
                "response": r.text,
                "tokens": len(r.ids),
                "logp": round(float(logp), 6),
                "margin": None if r.margin is None else round(r.margin, 6),
                **({} if v.target is None else {"answer": answer, "gold": gold(v), "right": answer == gold(v)}),
            }
            for v, r, logp, answer in zip(s.variants, scores.responses, own_Y, answers, strict=True)
        ],
    }
    row["attribution"] = {
        name: attribution(scores.part(i), [s.variants[k].variant_id for k in i], reading.show)
        for name, i in _attributed(views).items()
    }
    return row


def _attributed(views: Views) -> Views:
    """Attribution is over everything where that was scored, else per view."""
    return {"all": views["all"]} if "all" in views else views


def _indices(scores: Scores, answers: Sequence[str | None], released: int | None) -> dict[str, float | int]:
    logp_XY, len_Y = scores.logp_XY, scores.len_Y
    ids = [r.ids for r in scores.responses]
    return {
        "psi": index.psi(logp_XY, len_Y) if released is None else index.psi_released(logp_XY, released),
        "psi_signed": index.psi_signed(logp_XY, len_Y),
        "unique_responses": index.unique_responses(ids),
        "response_entropy": index.response_entropy(ids),
        "logp_spread": index.logp_spread(logp_XY, len_Y),
        "variation_ratio": index.variation_ratio(ids),
        "consistency_rate": index.consistency_rate(
            [object() if a is None else a for a in answers]
        ),  # no answer agrees with nothing
        "answered": sum(a is not None for a in answers) / len(answers),
    }


def summarise(rows: Sequence[dict[str, Any]], seed: int, draws: int) -> dict[str, Any]:
    """All measures, by view, over the sets that have the view: mean, 95 % bootstrap interval over sets, spread,
    median.
    """
    names = dict.fromkeys(name for row in rows for name in row["indices"])
    made: dict[str, Any] = {"posix": {}, "indices": {}}
    for name in names:
        found = [row["indices"][name] for row in rows if name in row["indices"]]
        made["posix"][name] = bootstrap_mean([f["psi"] for f in found], seed, draws)
        made["indices"][name] = {
            key: _rounded(bootstrap_mean([f[key] for f in found], seed, draws)) for key in MEASURES
        }
    made["posix"] = {name: _rounded(value) for name, value in made["posix"].items()}
    return made


def task_metrics(sets: Sequence[PromptSet], rows: Sequence[dict[str, Any]], views: Sequence[Views]) -> dict[str, Any]:
    """What targets allow, by view. Empty without targets."""
    return {
        name: made
        for name in dict.fromkeys(name for v in views for name in v)
        if (made := _metrics_of([(s, row, v[name]) for s, row, v in zip(sets, rows, views, strict=True) if name in v]))
    }


def _metrics_of(items: Sequence[tuple[PromptSet, dict[str, Any], tuple[int, ...]]]) -> dict[str, Any]:
    graded = [(s, [row["variants"][i] for i in chosen]) for s, row, chosen in items]
    graded = [(s, [v for v in variants if "right" in v]) for s, variants in graded]
    graded = [(s, variants) for s, variants in graded if len(variants) > 1]
    if not graded:
        return {}
    columns = list(dict.fromkeys(v["variant_id"] for _, variants in graded for v in variants))
    score_QK = np.full((len(graded), len(columns)), np.nan)
    for q, (_, variants) in enumerate(graded):
        for v in variants:
            score_QK[q, columns.index(v["variant_id"])] = float(v["right"])
    originals = {v["variant_id"] for _, variants in graded for v in variants if v["kind"] == ORIGINAL}
    made: dict[str, Any] = {
        "items": len(graded),
        "accuracy": _named(columns, metrics.accuracy_by_variant(score_QK)),
        "prompt_sensi_score": metrics.prompt_sensi_score(score_QK),
        "spread": metrics.spread(score_QK),
        **metrics.combined_performance(score_QK),
        "per_case": metrics.per_case(score_QK),
    }
    if len(originals) == 1:
        made["performance_drop"] = _named(columns, metrics.performance_drop(score_QK, columns.index(originals.pop())))
    return made | _class_metrics([variants for _, variants in graded])


def _class_metrics(graded: Sequence[Sequence[dict[str, Any]]]) -> dict[str, Any]:
    """Sensitivity and consistency of predicted classes, where the right answers form a small closed set."""
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
