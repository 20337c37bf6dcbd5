"""Names of suites -> pinned benchmarks: task of the harness, number of shots, metric that counts.

The paper (arXiv 2507.07817) names MMLU, BBH, IFEval, AlpacaEval and MT-Bench, but says only in part which tasks of the
harness it ran; ``choice`` is what is known. Every run records the versions of its tasks and of the harness.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from holdfast.errors import HoldfastError, nearest


@dataclass(frozen=True)
class Pin:
    """One benchmark of a suite. ``metric`` is as the harness writes it, with its filter. Without ``shots`` the task's
    own number of shots is used. ``choice`` is where the three come from."""

    task: str
    metric: str
    shots: int | None
    choice: str


_KNOWLEDGE = Pin(
    "mmlu_flan_n_shot_generative", "exact_match,flexible-extract", 0,
    "the paper: harness, zero-shot, 'flexible exact match'; which of the generative tasks is not stated",
)  # fmt: skip
_RANKED = Pin(
    "mmlu", "acc,none", 5, "not the paper's: the usual ranking of the four letters by log-likelihood, 5 shots"
)
_REASONING = Pin(
    "bbh_zeroshot", "exact_match,flexible-extract", 0, "the paper: harness, zero-shot, no chain of thought, 'flexible'"
)
_INSTRUCTIONS = Pin(
    "ifeval", "inst_level_strict_acc,none", 0,
    "the paper's values are multiples of 1/834, so instruction level; strict or loose is not stated",
)  # fmt: skip
ALPACA_EVAL = Pin(
    "alpaca_eval", "win_rate", None, "the paper: AlpacaEval 1.0 against text-davinci-003, judge GPT-4o-mini"
)
MT_BENCH = Pin("mt_bench", "rating", None, "the paper: single-answer grades 1-10 over two turns, judge Llama-3.3-70B")

SUITES: dict[str, tuple[Pin, ...]] = {
    "knowledge": (_KNOWLEDGE,),
    "knowledge-ranked": (_RANKED,),
    "reasoning": (_REASONING,),
    "instructions": (_INSTRUCTIONS,),
    "chat": (ALPACA_EVAL, MT_BENCH),
    "alpaca_eval": (ALPACA_EVAL,),
    "mt_bench": (MT_BENCH,),
}
OPEN_ENDED = (ALPACA_EVAL.task, MT_BENCH.task)
PAPER = (_KNOWLEDGE, _REASONING, ALPACA_EVAL, _INSTRUCTIONS, MT_BENCH)
"""The five benchmarks of the paper's average."""


def chosen(suite: str, tasks: str) -> list[Pin]:
    """Return the benchmarks of ``--suite`` and ``--tasks``, both comma separated, each once.

    Raises:
        HoldfastError: unknown suite, or nothing chosen.
    """
    pins: dict[str, Pin] = {}
    for name in names(suite):
        if name not in SUITES:
            raise HoldfastError(f"--suite {name}: unknown; known are {', '.join(SUITES)}", hint=nearest(name, SUITES))
        pins |= {pin.task: pin for pin in SUITES[name]}
    for pin in pins_of(names(tasks)):
        pins.setdefault(pin.task, pin)
    if not pins:
        raise HoldfastError("nothing to run: --suite or --tasks is needed", hint=f"suites are {', '.join(SUITES)}")
    return list(pins.values())


def pins_of(tasks: Sequence[str]) -> list[Pin]:
    """Return pins of harness tasks. Parts of a pinned group, such as ``mmlu_anatomy``, are pinned like the group."""
    return [_pin(task) for task in tasks]


def names(text: str) -> list[str]:
    """Return the names in a comma separated text."""
    return [part.strip() for part in text.split(",") if part.strip()]


def _pin(task: str) -> Pin:
    pins = [*itertools.chain.from_iterable(SUITES.values())]
    own = next((pin for pin in pins if pin.task == task), None)
    if own is not None:
        return own
    if task.startswith(("mmlu_flan_n_shot_generative_", "bbh_zeroshot_")):
        group = next(pin for pin in pins if task.startswith(pin.task))
        return Pin(task, group.metric, group.shots, group.choice)
    others = ("mmlu_flan", "mmlu_pro", "mmlu_prox", "mmlu_redux", "mmlu_continuation")
    if task.startswith("mmlu_") and not task.startswith(others) and not task.endswith("_generative"):
        return Pin(task, _RANKED.metric, _RANKED.shots, _RANKED.choice)
    return Pin(task, "", None, "the task's own settings")
