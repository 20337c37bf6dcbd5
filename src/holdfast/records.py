"""The records that pass between the rooms of the package. Plain frozen data, no torch.

    Example -> Tokens(ids, roles, scale) -> batches -> WeightedNLL

Every token has a role, not a prompt length: weights and masks are functions of the role, so a sweep over weights
tokenises once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

import numpy as np
import numpy.typing as npt

Ids = tuple[int, ...]
"""Token ids."""


class Role(IntEnum):
    """What a token is.

    ``TEMPLATE`` is what the template gives to the model (role headers, separators, tools, BOS). A response is made
    of ``ASSISTANT`` (its content), ``THINK``, ``TOOL_CALL`` (names and arguments), ``FORMAT`` (what the model
    writes around them), ``EMPTY_THINK`` (thoughts that hold nothing) and ``EOS`` (the whole stop run). Numbers are
    stored in token files, so they stay.
    """

    PAD = 0
    TEMPLATE = 1
    SYSTEM = 2
    USER = 3
    TOOL = 4
    ASSISTANT = 5
    EOS = 6
    THINK = 7
    TOOL_CALL = 8
    FORMAT = 9
    EMPTY_THINK = 10

    @property
    def label(self) -> str:
        """The name used in config files and tables."""
        return self.name.lower()


PROMPT_ROLES = (Role.TEMPLATE, Role.SYSTEM, Role.USER, Role.TOOL)
RESPONSE_ROLES = (Role.ASSISTANT, Role.EOS, Role.THINK, Role.TOOL_CALL, Role.FORMAT, Role.EMPTY_THINK)


_OLDEST = frozenset(range(1, 7))


def named_roles(counts: Mapping[Role, float]) -> tuple[Role, ...]:
    """The roles that a summary names: those that every version had, and of the newer ones those that the data has."""
    return tuple(role for role in Role if role in _OLDEST or counts.get(role, 0) > 0)


CharWeights = tuple[tuple[int, int, float], ...]
"""Weights of characters: (start, end, weight), in order and without overlap.

Characters outside all of them have weight 1.
"""


@dataclass(frozen=True)
class Message:
    """One turn. ``role`` is system, user, assistant or tool; ``weight`` multiplies the weight of its tokens,
    ``char_weights`` that of the tokens whose last character is in them. ``joint`` is what stands between it and the
    message before where the plain template prints both; None: a space where the texts need one.

    ``extras`` are further keys as a chat template takes them (the thought, ``tool_calls``, ``name``); ``absent`` says
    that the row has no content beside them. ``beside_weights`` are those of the characters of the texts in ``extras``,
    in the order of ``data.agent.texts_beside``.
    """

    role: Role
    content: str
    weight: float = 1.0
    char_weights: CharWeights = ()
    joint: str | None = None
    extras: Mapping[str, Any] = field(default_factory=dict, hash=False)
    absent: bool = False
    beside_weights: tuple[CharWeights, ...] = ()

    def weights_of(self, part: int) -> CharWeights:
        """Return the weights of the characters of the content (part 0), or of the text beside it of that number."""
        if part == 0:
            return self.char_weights
        return self.beside_weights[part - 1] if 0 < part <= len(self.beside_weights) else ()


@dataclass(frozen=True)
class Example:
    """One training or evaluation example.

    ``layout`` says which columns it came from and so which template suits it: ``chat``, ``alpaca``, ``pair``, ``text``
    or ``prompt``. ``where`` is the place to name in an error, such as ``data.jsonl, row 3``. ``unused`` names the
    columns of metadata. ``tools`` and ``template_kwargs`` are what its chat template is given beside the messages.
    ``source`` is the number of the --data that it is of, from 0. ``asks``: it is a prompt alone, so its text ends where
    the model is to write.
    """

    messages: tuple[Message, ...]
    layout: str
    where: str
    weight: float = 1.0
    unused: tuple[str, ...] = ()
    tools: tuple[Any, ...] = ()
    template_kwargs: Mapping[str, Any] = field(default_factory=dict, hash=False)
    source: int = 0
    asks: bool = False


@dataclass(frozen=True)
class Span:
    """A piece of rendered text whose every character has one role and one weight (message weight times example weight).

    Where it is the content of a message (``part`` 0), a text beside that (1, 2, ...: see ``Message.beside_weights``),
    or a piece of one, ``message`` is that message and ``start`` the place in the text.
    """

    text: str
    role: Role
    weight: float = 1.0
    message: Message | None = None
    start: int = 0
    part: int = 0


@dataclass(frozen=True)
class Tokens:
    """A tokenised example: ids, roles and weight factors of its T tokens.

    ``ids`` is int32, ``roles`` int8, ``scale`` float32, or None where every factor is 1. ``source``: see ``Example``.
    """

    ids: npt.NDArray[np.int32]
    roles: npt.NDArray[np.int8]
    scale: npt.NDArray[np.float32] | None = None
    source: int = 0

    def __len__(self) -> int:
        return len(self.ids)
