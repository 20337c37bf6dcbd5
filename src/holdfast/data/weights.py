"""What a weight may be, and the weights that a row gives.

``weight`` is that of the row or of a message, ``token_weights`` that of the characters of the messages.

``token_weights`` is written by ``holdfast weigh``, or by hand.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from holdfast.data.agent import texts_beside
from holdfast.errors import HoldfastError
from holdfast.records import CharWeights, Message

SMALLEST_WEIGHT = 1e-6
"""Weights in (0, 1e-6) are refused: the token would count fully in the divisor and not at all in the sum."""

TOKEN_WEIGHTS = "token_weights"
"""Name of the column."""


def check_weight(value: float, name: str, where: str = "") -> float:
    """Return ``value`` if it is a usable weight: finite, 0 or at least 1e-6.

    Raises:
        HoldfastError: negative, NaN, infinite, or between 0 and 1e-6.
    """
    place = f"{where}: " if where else ""
    try:
        value = float(value)
    except OverflowError:  # a whole number that no float can hold
        value = math.inf
    if not math.isfinite(value) or value < 0:
        raise HoldfastError(f"{place}{name} is {value}; a weight is a finite number >= 0")
    if 0 < value < SMALLEST_WEIGHT:
        raise HoldfastError(
            f"{place}{name} is {value}; weights between 0 and {SMALLEST_WEIGHT:g} are refused, because the divisor "
            "jumps there",
            hint="use 0 to leave these tokens out",
        )
    return value


def with_char_weights(messages: tuple[Message, ...], row: dict[str, Any], where: str) -> tuple[Message, ...]:
    """Return the messages with the weights of their characters.

    The column has one entry per message: null, a list of [start, end, weight] over the characters of its content, or
    {content: that list, beside: such lists of the texts of ``texts_beside``, in their order}.

    Raises:
        HoldfastError: not one entry per message, or a run that does not fit the text; ``where`` and the entry are
            named.
    """
    column = row.get(TOKEN_WEIGHTS)
    if column is None:
        return messages
    if not isinstance(column, list) or len(column) != len(messages):
        raise HoldfastError(
            f"{where}: '{TOKEN_WEIGHTS}' is {str(column)[:40]!r}; it must be a list with one entry for each of the "
            f"{len(messages)} messages",
            hint="null, or a list of [start, end, weight]; `holdfast weigh` writes them",
        )
    places = (f"{where}, {TOKEN_WEIGHTS} {number}" for number in range(1, len(messages) + 1))
    return tuple(map(_weighed, messages, column, places))


def _weighed(message: Message, entry: Any, place: str) -> Message:
    if not isinstance(entry, dict):
        return replace(message, char_weights=_char_weights(entry, len(message.content), place))
    unknown = entry.keys() - {"content", "beside"}
    texts, lists = texts_beside(message.extras), entry.get("beside") or []
    if unknown or not isinstance(lists, list) or len(lists) not in (0, len(texts)):
        raise HoldfastError(
            f"{place}: {str(entry)[:60]}: it may have 'content', and 'beside' with one entry for each of the "
            f"{len(texts)} texts beside the content",
            hint="these are the thought, then of each call its name and the texts of its arguments",
        )
    beside = tuple(_char_weights(runs, len(text), f"{place}, beside") for text, runs in zip(texts, lists, strict=False))
    own = _char_weights(entry.get("content"), len(message.content), place)
    return replace(message, char_weights=own, beside_weights=beside)


def _char_weights(runs: Any, length: int, place: str) -> CharWeights:
    weights: list[tuple[int, int, float]] = []
    for run in runs if isinstance(runs, list) else [] if runs is None else [runs]:
        fits = isinstance(run, list) and len(run) == 3 and all(isinstance(v, int | float) for v in run)
        start, end, weight = run if fits else (0, 0, 0)
        if not (weights[-1][1] if weights else 0) <= start < end <= length or start != int(start) or end != int(end):
            raise HoldfastError(
                f"{place}: {run!r} is no [start, end, weight] within the {length} characters, in order and without "
                "overlap",
                hint="weights belong to the text that they were made for; make them anew if it has changed",
            )
        weights.append((int(start), int(end), check_weight(weight, "the weight", place)))
    return tuple(weights)
