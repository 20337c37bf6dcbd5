"""The column ``token_weights`` of a row -> messages whose characters have weights. Written by ``holdfast weigh``, or by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from holdfast.errors import HoldfastError
from holdfast.records import CharWeights, Message
from holdfast.tune.weights import check_weight

TOKEN_WEIGHTS = "token_weights"
"""Name of the column."""


def with_char_weights(messages: tuple[Message, ...], row: dict[str, Any], where: str) -> tuple[Message, ...]:
    """Messages with what the column says: for each message null, or a list of [start, end, weight] over the characters of its content.

    Raises:
        HoldfastError: not one entry per message, or a run that does not fit the text; ``where`` and the entry are named.
    """
    given = row.get(TOKEN_WEIGHTS)
    if given is None:
        return messages
    if not isinstance(given, list) or len(given) != len(messages):
        raise HoldfastError(
            f"{where}: '{TOKEN_WEIGHTS}' is {str(given)[:40]!r}; it must be a list with one entry for each of the {len(messages)} messages",
            hint="null, or a list of [start, end, weight]; `holdfast weigh` writes them",
        )
    return tuple(
        replace(message, char_weights=_char_weights(runs, len(message.content), f"{where}, {TOKEN_WEIGHTS} {number}"))
        for number, (message, runs) in enumerate(zip(messages, given, strict=True), 1)
    )


def _char_weights(runs: Any, length: int, place: str) -> CharWeights:
    made: list[tuple[int, int, float]] = []
    for run in runs if isinstance(runs, list) else [] if runs is None else [runs]:
        fits = isinstance(run, list) and len(run) == 3 and all(isinstance(v, int | float) for v in run)
        start, end, weight = run if fits else (0, 0, 0)
        if not (made[-1][1] if made else 0) <= start < end <= length or start != int(start) or end != int(end):
            raise HoldfastError(
                f"{place}: {run!r} is no [start, end, weight] within the {length} characters, in order and without overlap",
                hint="weights belong to the text that they were made for; make them anew if it has changed",
            )
        made.append((int(start), int(end), check_weight(float(weight), "the weight", place)))
    return tuple(made)
