"""The words of a page: metrics by name, and one sentence for every term that a reader may not know.

A page, its Markdown and its CSV name metrics in words ("response NLL", with the unit on axes and heads of tables).
Terms get a "?" on the page, which opens their sentence.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Sequence

from holdfast.report.parts import FactList, Figure, Note, Part, Tabs
from holdfast.tables.record import Table

METRICS = {
    "response_nll": ("response NLL", "nats per token"),
    "prompt_nll": ("prompt NLL", "nats per token"),
    "posix": ("POSIX", "nats per token"),
    "exact_match": ("exact match", "share of items"),
    "empty_answers": ("empty answers", "share of items"),
    "crosstask_accuracy": ("cross-task accuracy", "share of items"),
    "token_f1": ("token F1", "mean over items, 0 to 1"),
}
"""Metric -> its name in words and its unit. A study may have other metrics, whose unit is unknown."""

_IDS = re.compile(rf"(?<![\w./-])({'|'.join(METRICS)})(?![\w/-])")
_HEAD = re.compile(rf"(?:(?:dev|test) )?({'|'.join(METRICS)})")

TERMS: dict[str, tuple[str, str]] = {
    "POSIX": (r"POSIX", "How far answers move when only the wording of a prompt changes; the mean of psi over prompt "
              "sets, in nats per token. 0: the wording does not matter."),
    "psi": (r"psi", "The POSIX of one prompt set: the mean change in the log-probability of an answer, per token, from "
            "one wording to another."),
    "nats": (r"nats?", "The unit of log-probabilities with the natural logarithm; 0.69 nats halve a probability."),
    "NLL": (r"NLL", "Negative log-likelihood: how surprised the model is by the right text, per token. Lower is "
            "better."),
    "dev": (r"dev", "The development split: the data that a setting is chosen on. The test split is kept for the "
            "final reading."),
    "test split": (r"test split|(?<=^)test(?= )", "Data that neither training nor the choice of a setting has seen."),
    "prompt share": (r"prompt share", "The part of the weighted loss that comes from prompt tokens; 0 is conventional "
                     "tuning, which learns from responses alone."),
    "prompt weight": (r"prompt weights?", "What a token of the prompt counts in the loss; 0 means that it is not "
                      "trained on."),
    "response weight": (r"response weights?", "What a token of the response counts in the loss."),
    "seed": (r"seeds?", "The number that random choices start from; trainings that differ in nothing else show how "
             "large the noise is."),
    "validity": (r"[Vv]alidity", "The share of outputs that are one of the task's labels at all, right or wrong."),
    "conventional": (r"[Cc]onventional", "Tuning on response tokens alone: prompt weight 0, response weight 1."),
    "95 % interval": (r"95 % (?:bootstrap )?intervals?", "A range that, in 95 of 100 such measurements, holds the "
                      "true value."),
    "noise": (r"noise", "Differences that chance alone makes, such as between two seeds of one setting."),
    "one standard error": (r"one standard error", "How uncertain the best dev score is; of all settings within it, "
                           "the simplest is taken."),
    "ratio": (r"(?<=^)ratio(?=$)", "Prompt weight over the sum of both weights; settings of one ratio are one and "
              "the same training."),
    "trial": (r"trials?", "One training of one setting with one seed, and what was measured on it."),
    "exact match": (r"exact match", "The share of items whose answer is letter for letter the expected one."),
    "zero-shot": (r"zero-shot", "The question alone, without any example in the prompt."),
    "in-task": (r"in-task", "Examples of the task itself in the prompt."),
    "cross-task": (r"[Cc]ross-task", "Examples of another task, the source, in the prompt of the task to solve, the "
                   "target."),
    "source": (r"sources?(?= of|s|$|,| \(row)", "The task that the examples in a prompt come from."),
    "vote": (r"vote", "The label that most sources give."),
    "token-forwards": (r"token-forwards", "Tokens that went through the model; what a measurement costs."),
    "held-out": (r"[Hh]eld[- ]out", "Data kept away from training, to measure on."),
    "p": (r"(?<=^)p(?=$)", "How often chance alone would give a difference as large as this one; small values speak "
          "against chance."),
    "rho": (r"Spearman's rho|(?<=^)rho(?=$)", "Rank correlation: 1 where both orders are the same, -1 where they are "
            "opposite, 0 where they have nothing to do with each other."),
    "implicit reward": (r"[Ii]mplicit reward", "How much more likely the tuned model finds a response than the model "
                        "it started from, times beta."),
    "calibration": (r"(?<=^)calibration(?=$)", "Scores of labels corrected for what a model prefers without a "
                    "question."),
    "step": (r"(?<=^)steps?(?=$)", "One update of the model's weights, from one batch."),
}  # fmt: skip
"""Term -> the pattern by which texts name it, and its sentence."""

_TERM = re.compile("|".join(rf"(?P<t{place}>\b(?:{way})\b)" for place, (way, _) in enumerate(TERMS.values())))
_NAMES = list(TERMS)


def in_words(metric: str) -> str:
    """Return a metric's name in words, as it stands in sentences and titles."""
    return METRICS[metric][0] if metric in METRICS else metric.replace("_", " ")


def as_title(text: str) -> str:
    """Return the text with a capital letter."""
    return f"{text[:1].upper()}{text[1:]}"


def with_unit(metric: str) -> str:
    """Return a metric's name with its unit in brackets, as it stands on axes and over columns."""
    return f"{METRICS[metric][0]} ({METRICS[metric][1]})" if metric in METRICS else in_words(metric)


def marked(text: str) -> Iterator[tuple[str, str, str]]:
    """Yield the text in pieces: what stands before a term, the term as the text has it, and its name in ``TERMS``. A
    term counts where it first stands; the last piece has none.
    """
    start, before = 0, set()
    for match in _TERM.finditer(text):
        term = _NAMES[int(str(match.lastgroup)[1:])]
        if term not in before:
            before.add(term)
            yield text[start : match.start()], match[0], term
            start = match.end()
    yield text[start:], "", ""


def worded(parts: Sequence[Part]) -> list[Part]:
    """Return the parts with metrics in words wherever this program has written them: in notes, titles, captions, facts
    and heads of columns. Cells, which hold text of others, stay as they are.
    """
    return list(map(_worded, parts))


def _worded(part: Part) -> Part:
    match part:
        case Note():
            return dataclasses.replace(part, text=_sentence(part.text))
        case FactList():
            return FactList([(_head(name), value) for name, value in part.pairs], part.title)
        case Figure():
            values = _table(part.values)
            return dataclasses.replace(
                part, title=_sentence(part.title), caption=_sentence(part.caption), values=values
            )
        case Table():
            return _table(part)
        case Tabs():
            return Tabs(_sentence(part.title), [(_sentence(name), worded(inner)) for name, inner in part.options])
    return part


def _table(table: Table) -> Table:
    columns = [dataclasses.replace(column, title=_head(column.title)) for column in table.columns]
    caption = _sentence(table.caption)
    return dataclasses.replace(table, title=_sentence(table.title), columns=columns, caption=caption)


def _sentence(text: str) -> str:
    return _IDS.sub(lambda match: in_words(match[1]), text)


def _head(text: str) -> str:
    """A head that is a metric, with or without its split, gets the unit, too."""
    whole = _HEAD.fullmatch(text)
    return text.replace(whole[1], with_unit(whole[1])) if whole else _sentence(text)
