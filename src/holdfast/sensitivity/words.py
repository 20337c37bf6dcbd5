"""A finished measurement -> what it says in words, and the figures of these sentences.

    changed     how many prompts change their answer, and by which kind of variant
    scale       copies 0.00 | yours 0.41 | unrelated prompts 2.9 nats per token
    selectivity whether the answer depends on the prompt at all: a model that ignores its input has a psi of 0

Unrelated prompts are pairs of first prompts of different sets, scored like two wordings of one prompt. Of a chat
endpoint the scale is in pairs of answers that differ: repeats of one wording, wordings of a prompt, unrelated prompts.
"""

from __future__ import annotations

import itertools
import math
import shlex
import statistics
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any

from holdfast.records import Ids
from holdfast.sensitivity import index
from holdfast.sensitivity.responses import Scores
from holdfast.sensitivity.sets import ORIGINAL
from holdfast.sensitivity.task import SetTask
from holdfast.tables.sensitivity import ALL, psi
from holdfast.tables.text import counted, number, shorten

_MOST_PAIRS = 16
_ALIKE = 0.9
"""From this share of unrelated prompts with the same answer on, a model is said to look at its prompt hardly at all."""
_NO_SHIFT = 0.01
"""Nats per token between unrelated prompts below which the same is said."""
_FEWEST_SETS = 3
_QUOTED = 60


def unrelated_pairs(set_ids: Sequence[str], prompts: Sequence[Sequence[Ids]], seed: int) -> list[SetTask]:
    """Return at most 16 pairs of first prompts of different sets, drawn with the seed; none where there is one set."""
    drawn = Random(f"{seed}:unrelated").sample(range(len(set_ids)), min(_MOST_PAIRS, len(set_ids)))
    around = zip(drawn, drawn[1:] + drawn[:1]) if len(drawn) > 2 else [tuple(drawn)] if len(drawn) == 2 else []
    return [
        SetTask.of(f"{set_ids[a]} and {set_ids[b]}", [prompts[a][0], prompts[b][0]])
        for a, b in around
        if prompts[a][0] != prompts[b][0]
    ]


def scale(rows: Sequence[dict[str, Any]], unrelated: Sequence[Scores]) -> dict[str, Any]:
    """Return what is on the scale of psi: copies (0), this run's sets, and unrelated prompts with their pairs."""
    values = [index.psi(s.logp_XY, s.len_Y) for s in unrelated if math.isfinite(s.logp_XY.sum())]
    yours = statistics.fmean(map(psi, rows))
    return {
        "copies": 0.0,
        "yours": round(yours, 6) if math.isfinite(yours) else None,
        "unrelated": round(statistics.fmean(values), 6) if values else None,
        "unrelated_pairs": len(values),
    }


def answer_scale(
    changes: Mapping[str, Any], rows: Sequence[dict[str, Any]], are_comparable: bool
) -> dict[str, float | int | None]:
    """Return what is on the scale of answers, shares of pairs that differ: repeats of one wording (``copies``),
    wordings of one prompt (``yours``), and first prompts of different sets.

    ``are_comparable``: whether answers of different sets can be compared; by meaning or a judge they were not.
    """
    whole = [changes[ALL]] if ALL in changes else list(changes.values())
    same = alike(rows)["same_answer"] if are_comparable else None
    noise = [one["noise"]["mean"] for one in whole if one["noise"]]
    return {
        "copies": round(statistics.fmean(noise), 6) if noise else None,
        "yours": round(statistics.fmean(one["differ"]["mean"] for one in whole), 6),
        "unrelated": None if same is None else round(1 - same, 6),
        "unrelated_pairs": 0 if same is None else math.comb(len(rows), 2),
    }


def changed_answers(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return how many sets change their answer, and per kind of variant how many of its sets do.

    A set changes under a kind where an answer differs from that of the original, or without an original from another
    of the kind. Answers that could not be read say nothing.
    """
    changed: dict[str, list[bool]] = {}
    for row in rows:
        for kind in dict.fromkeys(v["kind"] for v in row["variants"] if v["kind"] != ORIGINAL):
            answers = {v["answer"] for v in row["variants"] if v["kind"] in (ORIGINAL, kind)}
            changed.setdefault(kind, []).append(len(answers - {None}) > 1)
    return {
        "sets": len(rows),
        "changed": sum(len(_read(row)) > 1 for row in rows),
        "kinds": {kind: {"sets": len(flags), "changed": sum(flags)} for kind, flags in changed.items()},
    }


def worst(
    rows: Sequence[dict[str, Any]], moves: Callable[[dict[str, Any]], float] = psi, name: str = "psi"
) -> dict[str, Any] | None:
    """Return the set that moves most of those that change their answer, with two variants whose answers differ, and
    how far it ``moves`` under this ``name``.
    """
    candidates = [row for row in rows if len(_read(row)) > 1]
    if not candidates:
        return None
    row = max(candidates, key=lambda row: value if math.isfinite(value := moves(row)) else -math.inf)
    read = [v for v in row["variants"] if v["answer"] is not None]
    one = next((v for v in read if v["kind"] == ORIGINAL), read[0])
    other = next(v for v in read if v["answer"] != one["answer"])
    return {
        "set_id": row["set_id"],
        "psi": None,
        name: round(moves(row), 6) if math.isfinite(moves(row)) else None,
        "variants": [one["variant_id"], other["variant_id"]],
        "answers": [one["answer"], other["answer"]],
    }


def readable(rows: Sequence[dict[str, Any]], rule: str) -> dict[str, Any]:
    """Return the rule of reading, how many responses it could not read, and the first few of them."""
    variants = list(itertools.chain.from_iterable(row["variants"] for row in rows))
    unread = [v["response"] for v in variants if v["answer"] is None]
    return {
        "rule": rule,
        "responses": len(variants),
        "unread": len(unread),
        "unread_share": round(len(unread) / len(variants), 6),
        "unread_first": [shorten(" ".join(text.split()), _QUOTED) for text in list(dict.fromkeys(unread))[:3]],
    }


def alike(rows: Sequence[dict[str, Any]]) -> dict[str, float | None]:
    """Return the share of pairs of sets with the same answer to their first prompts, and with the same right answer."""
    first = [row["variants"][0] for row in rows]
    answers = [v["answer"] if v["answer"] is not None else object() for v in first]
    right = [v.get("gold") for v in first]
    return {
        "same_answer": round(index.consistency_rate(answers), 6) if len(rows) > 1 else None,
        "same_right_answer": round(index.consistency_rate(right), 6) if len(rows) > 1 and None not in right else None,
    }


def in_words(summary: dict[str, Any]) -> list[str]:
    """Return the sentences of a summary that holds the figures above: answers first, then numbers, then warnings."""
    changes, answers = summary.get("answer_changes"), summary["answers"]
    if answers["rule"] not in ("auto", "first-line") and 2 * answers["unread"] >= answers["responses"]:
        share = f"{answers['unread']:,} of {counted(answers['responses'], 'answer')} could not be read"
        rule = f"(--answers {answers['rule']}), such as {_quoted(answers)}"
        unknown = f"Whether answers change with the wording is unknown: {share} {rule}."
        line = scale_line(summary["scale"]) if changes is None else None
        return [unknown, line] if line else [unknown]
    sentences = [_changed(summary["changed"], "most frequent answer" if summary.get("repeats", 1) > 1 else "answer")]
    if summary["worst"]:
        sentences.append(_worst(summary["worst"]))
    if effect := _effect(changes or {}):
        sentences.append(effect)
    if line := scale_line(summary["scale"]) if changes is None else answer_scale_line(summary["scale"]):
        sentences.append(line)
    if answers["unread"]:
        share = f"{answers['unread']:,} of {counted(answers['responses'], 'response')} ({_percent(answers)})"
        sentences.append(
            f"{share} could not be read as an answer (--answers {answers['rule']}), such as {_quoted(answers)}."
        )
    warning = _ignores(summary)
    return [*sentences, warning] if warning else sentences


def _quoted(answers: Mapping[str, Any]) -> str:
    return ", ".join(f'"{text}"' for text in answers["unread_first"])


def page_of(output: str) -> str:
    """Return the command that makes a page of a run."""
    return f"As a page: {shlex.join(['holdfast', 'report', output, '--output', f'{output}.html'])}"


def scale_line(figures: dict[str, Any]) -> str | None:
    """Return the scale on one line, or None where psi has no value."""
    if figures["yours"] is None:
        return None
    ends = f"copies 0.00 | yours {_nats(figures['yours'])}"
    if figures["unrelated"] is None:
        return f"Scale: {ends} nats per token (two sets or more are needed to measure unrelated prompts)."
    pairs = counted(figures["unrelated_pairs"], "pair")
    how = f"measured on {pairs} of prompts of different sets"
    return f"Scale: {ends} | unrelated prompts {_nats(figures['unrelated'])} nats per token (the last {how})."


def answer_scale_line(figures: dict[str, Any]) -> str:
    """Return the scale of answers on one line."""
    copies = "not measured (--repeats 3)" if figures["copies"] is None else f"{figures['copies']:.2f}"
    ends = f"Scale: copies {copies} | yours {figures['yours']:.2f}"
    if figures["unrelated"] is None:
        return f"{ends} of the pairs of answers differ."
    pairs = counted(figures["unrelated_pairs"], "pair")
    how = f"copies are repeats of one wording; the last is of {pairs} of prompts of different sets"
    return f"{ends} | unrelated prompts {figures['unrelated']:.2f} of the pairs of answers differ ({how})."


def _effect(changes: Mapping[str, Any]) -> str | None:
    """Return what the wording does beyond the noise, or None where it was not told from it."""
    change = changes.get(ALL) or (next(iter(changes.values())) if len(changes) == 1 else None)
    if change is None or change["effect"] is None:
        return None
    mean, low, high = (f"{change['effect'][key]:.2f}" for key in ("mean", "low", "high"))
    differ, floor = change["differ"]["mean"], change["noise"]["mean"]
    return (
        f"Answers to two wordings differ in {differ:.2f} of the pairs, those to one wording in {floor:.2f}: "
        f"the effect of the wording is {mean} (95 % interval {low} to {high})."
    )


def _changed(figures: dict[str, Any], answer: str) -> str:
    if not figures["changed"]:
        if figures["sets"] == 1:
            return f"The {answer} to the 1 prompt stays the same in every wording."
        return f"No prompt of {figures['sets']:,} changes its {answer} with the wording."
    verb = "changes its" if figures["changed"] == 1 else "change their"
    by_kind = sorted(figures["kinds"].items(), key=lambda one: -one[1]["changed"] / one[1]["sets"])
    kinds = ", ".join(f"{kind} {one['changed']:,} of {one['sets']:,}" for kind, one in by_kind)
    total = f"{figures['changed']:,} of {counted(figures['sets'], 'prompt')}"
    return f"{total} {verb} {answer} with the wording" + (f": {kinds}." if len(by_kind) > 1 else ".")


def _worst(figures: dict[str, Any]) -> str:
    said = [
        f'"{shorten(answer, _QUOTED)}" to variant {variant}'
        for answer, variant in zip(figures["answers"], figures["variants"], strict=True)
    ]
    moves = "" if figures["psi"] is None else f" (psi {_nats(figures['psi'])})"
    if figures.get("differ") is not None:
        moves = f" ({figures['differ']:.2f} of the pairs of wordings differ)"
    return f"The worst is '{figures['set_id']}'{moves}: the answer is {said[0]}, and {said[1]}."


def _ignores(summary: dict[str, Any]) -> str | None:
    """Return a warning where unrelated prompts are answered alike."""
    unrelated, same = summary["scale"]["unrelated"], summary["scale"]["same_answer"]
    right = summary["scale"]["same_right_answer"]
    reasons = []
    alike = same is not None and same >= _ALIKE and (right is None or right < _ALIKE)
    if summary["sets"] >= _FEWEST_SETS and alike and not _follows_wording(summary):
        reasons.append(f"{same:.0%} of the pairs of different prompts get the same answer")
    if unrelated is not None and unrelated < _NO_SHIFT and "answer_changes" not in summary:
        reasons.append(f"unrelated prompts move the log-probs by {_nats(unrelated)} nats per token only")
    if not reasons:
        return None
    small = "Few changes are" if "answer_changes" in summary else "A small psi is"
    return (
        f"Warning: the model hardly looks at its prompt: {' and '.join(reasons)}. {small} then no sign of steadiness."
    )


def _follows_wording(summary: dict[str, Any]) -> bool:
    """Return whether the answers of a chat run change with the wording more than by noise: such a model reads it."""
    changes = summary.get("answer_changes", {}).get(ALL)
    if changes is None or summary["changed"]["changed"] <= (1 - _ALIKE) * summary["sets"]:
        return False
    return changes["effect"] is None or changes["effect"]["mean"] > 1 - _ALIKE


def _read(row: dict[str, Any]) -> set[str]:
    return {v["answer"] for v in row["variants"]} - {None}


def _percent(answers: dict[str, Any]) -> str:
    return f"{100 * answers['unread_share']:.3g} %"


def _nats(value: float) -> str:
    return number(value, 2)
