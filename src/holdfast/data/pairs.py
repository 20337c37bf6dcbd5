"""Files -> preference pairs. A row says what was asked, which answer was preferred and which was rejected.

| columns | read as |
|---|---|
| ``prompt``, ``chosen``, ``rejected``, all text | one question and two answers |
| ``prompt`` (text or messages), ``chosen``, ``rejected`` (one assistant message each) | a conversation, two answers |
| ``chosen``, ``rejected`` as whole conversations, with ``prompt`` or without | the last message of each is the answer |
| ``chosen``, ``rejected`` as whole texts | where they part (before a space, as TRL does) the answers begin |
| ``conversations``, ``chosen``, ``rejected`` of ShareGPT's form | a conversation, two answers |

``question`` and its like are taken as ``prompt``; ``--columns`` names others.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from typing import Any

from holdfast.data.agent import ROW_KEYS, kwargs_of, tools_of
from holdfast.data.columns import blank, unused_columns
from holdfast.data.examples import read_each, read_messages, read_response, read_text
from holdfast.data.read import read_rows
from holdfast.data.shapes import USUAL, Shape, as_openai
from holdfast.errors import HoldfastError
from holdfast.records import Message, Role

_ACCEPTED = "prompt + chosen + rejected (text or messages) | chosen + rejected (whole conversations or texts)"
_PROMPTS = ("prompt", "question", "query", "instruction", "input", "conversations")


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
    source: int = 0


def load_pairs(
    source: str, *, limit: int | None = None, bad_rows: list[str] | None = None, shape: Shape = USUAL
) -> list[Pair]:
    """Read a data source into pairs.

    Args:
        source: as for ``holdfast.data.examples.load_examples``.
        limit: only the first rows.
        bad_rows: collects the messages of bad rows; None raises at the first one.

    Raises:
        HoldfastError: names file and row, what was found, what is allowed.
    """
    rows = list(islice(read_rows(source, bad_rows), limit))
    return read_each(rows, source, partial(read_pair, shape=shape), bad_rows)


def read_pair(row: dict[str, Any], where: str, shape: Shape = USUAL) -> Pair:
    """One row as a pair.

    Raises:
        HoldfastError: a column is missing or of the wrong kind, the answers are equal, or the prompt is not how they
            begin.
    """
    row, prompt = _in_our_names(row, where, shape)
    for column in ("chosen", "rejected"):
        if row.get(column) is None:
            columns = ", ".join(name for name, value in row.items() if value is not None) or "no columns"
            raise HoldfastError(f"{where}: no column '{column}'; the row has {columns}", hint=f"accepted: {_ACCEPTED}")
    if isinstance(row["chosen"], list) != isinstance(row["rejected"], list):
        raise HoldfastError(f"{where}: 'chosen' and 'rejected' must both be text or both be messages")
    used = [prompt, "chosen", "rejected", *(("system",) if "system" in shape.columns else ())]
    converses = isinstance(row["chosen"], list) or isinstance(row.get(prompt), list)
    beside = ROW_KEYS if converses else ()
    unused = unused_columns(row, used, where, beside=beside, weighted=False)
    row = row if prompt == "prompt" else {"prompt": row[prompt]} | row
    pair = _of_messages(row, where) if isinstance(row["chosen"], list) else _of_text(row, where, shape)
    if "system" in used and not blank(row.get("system")):
        if pair.prompt[:1] and pair.prompt[0].role is Role.SYSTEM:
            raise HoldfastError(f"{where}: column 'system' beside a system message", hint="keep one of the two")
        system = Message(Role.SYSTEM, read_text(row, "system", where))
        pair = replace(pair, prompt=(system, *pair.prompt), layout="chat")
    if _plain((pair.chosen,)) == _plain((pair.rejected,)):
        raise HoldfastError(
            f"{where}: 'chosen' and 'rejected' are equal, so there is no preference",
            hint="--skip-bad-rows leaves such rows out",
        )
    if not converses:
        return replace(pair, unused=unused)
    return replace(pair, unused=unused, tools=tools_of(row, where), template_kwargs=kwargs_of(row, where))


def _in_our_names(row: dict[str, Any], where: str, shape: Shape) -> tuple[dict[str, Any], str]:
    """Return the row with the columns that --columns names under our names and with messages as OpenAI has them, and
    the name of the column that holds the prompt.
    """
    ours = {theirs: name for name, theirs in shape.columns.items()}
    twice = [name for theirs, name in ours.items() if theirs in row and name != theirs and not blank(row.get(name))]
    if twice:
        raise HoldfastError(f"{where}: a column '{twice[0]}' is there beside the one that --columns names so")
    named = {name: value for name, value in row.items() if name not in shape.columns or name in ours}
    named = {ours.get(name, name): value for name, value in named.items()}
    named = as_openai(named, (*_PROMPTS, "chosen", "rejected"), shape, where)
    if "prompt" not in named and isinstance(named.get("instruction"), str) and isinstance(named.get("input"), str):
        asked = [named.pop("instruction"), named.pop("input")]  # Alpaca's columns are one turn
        named["prompt"] = "\n\n".join(filter(str.strip, asked))
    prompts = [name for name in _PROMPTS if named.get(name) is not None]
    return named, prompts[0] if "prompt" in prompts or len(prompts) == 1 else "prompt"


def _of_text(row: dict[str, Any], where: str, shape: Shape) -> Pair:
    chosen, rejected = (read_response(row, column, where) for column in ("chosen", "rejected"))
    if row.get("prompt") is None:
        begin = _where_they_part(chosen, rejected)
        if not chosen[:begin].strip() or not (chosen[begin:].strip() and rejected[begin:].strip()):
            raise HoldfastError(
                f"{where}: no column 'prompt', and the answers are text that does not begin with one",
                hint=f"accepted: {_ACCEPTED}",
            )
        prompt: tuple[Message, ...] = (Message(Role.USER, chosen[:begin]),)
        chosen, rejected, shape = chosen[begin:], rejected[begin:], Shape(joint="")
    else:
        prompt = _prompt(row, where)
    layout = "chat" if isinstance(row.get("prompt"), list) else "pair"
    first, second = (Message(Role.ASSISTANT, text, joint=shape.joint) for text in (chosen, rejected))
    return Pair(prompt, first, second, layout, where)


def _where_they_part(chosen: str, rejected: str) -> int:
    """Return the length of the beginning that two texts share, without a space at its end, as TRL cuts it."""
    length = next((i for i, (a, b) in enumerate(zip(chosen, rejected, strict=False)) if a != b), None)
    length = min(len(chosen), len(rejected)) if length is None else length
    return length - (chosen[length - 1 : length] == " ")


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
