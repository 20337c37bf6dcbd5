"""Files -> preference pairs. A row says what was asked, which answer was preferred and which was rejected.

| columns | read as |
|---|---|
| ``prompt``, ``chosen``, ``rejected``, all text | one question and two answers |
| ``prompt`` (text or messages), ``chosen``, ``rejected`` (one assistant message each) | a conversation, two answers |
| ``chosen``, ``rejected`` as whole conversations, with ``prompt`` or without | the last message of each is the answer |
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

from holdfast.data.agent import ROW_KEYS, kwargs_of, tools_of
from holdfast.data.columns import unused_columns
from holdfast.data.examples import read_each, read_messages, read_response, read_text
from holdfast.data.read import read_rows
from holdfast.errors import HoldfastError
from holdfast.records import Message, Role

_ACCEPTED = "prompt + chosen + rejected (text or messages) | chosen + rejected (whole conversations)"


@dataclass(frozen=True)
class Pair:
    """A conversation up to the answer, and two answers to it.

    The other fields are those of ``records.Example``.
    """

    prompt: tuple[Message, ...]
    chosen: Message
    rejected: Message
    layout: str
    where: str
    unused: tuple[str, ...] = ()
    tools: tuple[Any, ...] = ()
    template_kwargs: Mapping[str, Any] = field(default_factory=dict, hash=False)


def load_pairs(source: str, *, limit: int | None = None, bad_rows: list[str] | None = None) -> list[Pair]:
    """Read a data source into pairs.

    Args:
        source: as for ``holdfast.data.examples.load_examples``.
        limit: only the first rows.
        bad_rows: collects the messages of bad rows; None raises at the first one.

    Raises:
        HoldfastError: names file and row, what was found, what is allowed.
    """
    return read_each(list(islice(read_rows(source, bad_rows), limit)), source, read_pair, bad_rows)


def read_pair(row: dict[str, Any], where: str) -> Pair:
    """One row as a pair.

    Raises:
        HoldfastError: a column is missing or of the wrong kind, the answers are equal, or the prompt is not how they
            begin.
    """
    for column in ("chosen", "rejected"):
        if row.get(column) is None:
            columns = ", ".join(name for name, value in row.items() if value is not None) or "no columns"
            raise HoldfastError(f"{where}: no column '{column}'; the row has {columns}", hint=f"accepted: {_ACCEPTED}")
    if isinstance(row["chosen"], list) != isinstance(row["rejected"], list):
        raise HoldfastError(f"{where}: 'chosen' and 'rejected' must both be text or both be messages")
    converses = isinstance(row["chosen"], list) or isinstance(row.get("prompt"), list)
    beside = ROW_KEYS if converses else ()
    unused = unused_columns(row, ("prompt", "chosen", "rejected"), where, beside=beside, weighted=False)
    pair = _of_messages(row, where) if isinstance(row["chosen"], list) else _of_text(row, where)
    if _plain((pair.chosen,)) == _plain((pair.rejected,)):
        raise HoldfastError(
            f"{where}: 'chosen' and 'rejected' are equal, so there is no preference",
            hint="--skip-bad-rows leaves such rows out",
        )
    if not converses:
        return replace(pair, unused=unused)
    return replace(pair, unused=unused, tools=tools_of(row, where), template_kwargs=kwargs_of(row, where))


def _of_text(row: dict[str, Any], where: str) -> Pair:
    if row.get("prompt") is None:
        raise HoldfastError(f"{where}: no column 'prompt', and the answers are text", hint=f"accepted: {_ACCEPTED}")
    prompt = _prompt(row, where)
    chosen, rejected = (Message(Role.ASSISTANT, read_response(row, column, where)) for column in ("chosen", "rejected"))
    return Pair(prompt, chosen, rejected, "chat" if isinstance(row["prompt"], list) else "pair", where)


def _of_messages(row: dict[str, Any], where: str) -> Pair:
    chosen, rejected = (read_messages(row, column, where) for column in ("chosen", "rejected"))
    prompt = _prompt(row, where) if row.get("prompt") is not None else None
    if prompt is None or len(chosen) > 1 or len(rejected) > 1:  # whole conversations
        begin = _common(chosen, rejected) if prompt is None else prompt
        for column, messages in (("chosen", chosen), ("rejected", rejected)):
            if _plain(messages[: len(begin)]) != _plain(begin):
                raise HoldfastError(
                    f"{where}: 'prompt' is not how '{column}' begins", hint="give the answers alone, without the prompt"
                )
        if not begin:
            raise HoldfastError(
                f"{where}: 'chosen' and 'rejected' begin with different messages", hint="both must answer one prompt"
            )
        prompt, chosen, rejected = begin, chosen[len(begin) :], rejected[len(begin) :]
    for column, messages in (("chosen", chosen), ("rejected", rejected)):
        if [m.role for m in messages] != [Role.ASSISTANT]:
            roles = ", ".join(m.role.label for m in messages) or "nothing"
            raise HoldfastError(
                f"{where}: after the prompt '{column}' must hold one assistant message; it holds {roles}"
            )
    return Pair(prompt, chosen[0], rejected[0], "chat", where)


def _prompt(row: dict[str, Any], where: str) -> tuple[Message, ...]:
    if isinstance(row["prompt"], list):
        messages = read_messages(row, "prompt", where)
        if messages[-1].role is Role.ASSISTANT:
            raise HoldfastError(
                f"{where}: 'prompt' ends with an assistant message; it must end with what is to be answered"
            )
        return messages
    text = read_text(row, "prompt", where)
    if not text.strip():
        raise HoldfastError(f"{where}: 'prompt' is empty", hint="leave such rows out")
    return (Message(Role.USER, text),)


def _common(chosen: tuple[Message, ...], rejected: tuple[Message, ...]) -> tuple[Message, ...]:
    """The messages with which both begin, at most all but the last."""
    length = 0
    while length < min(len(chosen), len(rejected)) - 1 and _plain(chosen[: length + 1]) == _plain(
        rejected[: length + 1]
    ):
        length += 1
    return chosen[:length]


def _plain(messages: tuple[Message, ...]) -> list[tuple[Role, str, str]]:
    return [(m.role, m.content, json.dumps(m.extras, sort_keys=True, default=str)) for m in messages]
