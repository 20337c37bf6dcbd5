"""The records that pass between the rooms of the package. Plain frozen data, no torch.

    Example -> Tokens(ids, roles, scale) -> batches -> WeightedNLL

Every token has a role, not a prompt length: weights and masks are functions of the role, so a sweep over weights
tokenises once.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import numpy.typing as npt

Ids = tuple[int, ...]
"""Token ids."""


class Role(IntEnum):
    """What a token is.

    ``TEMPLATE`` is text that the template adds (role headers, separators, BOS); ``EOS`` is the end of a response.
    """

    PAD = 0
    TEMPLATE = 1
    SYSTEM = 2
    USER = 3
    TOOL = 4
    ASSISTANT = 5
    EOS = 6

    @property
    def label(self) -> str:
        """The name used in config files and tables."""
        return self.name.lower()


PROMPT_ROLES = (Role.TEMPLATE, Role.SYSTEM, Role.USER, Role.TOOL)
RESPONSE_ROLES = (Role.ASSISTANT, Role.EOS)


CharWeights = tuple[tuple[int, int, float], ...]
"""Weights of characters: (start, end, weight), in order and without overlap.

Characters outside all of them have weight 1.
"""


@dataclass(frozen=True)
class Message:
    """One turn. ``role`` is system, user, assistant or tool; ``weight`` multiplies the weight of its tokens,
    ``char_weights`` that of the tokens whose last character is in them. ``joint`` is what stands between it and the
    message before where the plain template prints both; None: a space where the texts need one."""

    role: Role
    content: str
    weight: float = 1.0
    char_weights: CharWeights = ()
    joint: str | None = None


@dataclass(frozen=True)
class Example:
    """One training or evaluation example.

    ``layout`` says which columns it came from, and so which template fits: ``chat``, ``alpaca``, ``pair``, ``text`` or
    ``prompt``. ``where`` is the place that an error names, such as ``data.jsonl, row 3``. ``unused`` names the columns
    of metadata.
    """

    messages: tuple[Message, ...]
    layout: str
    where: str
    weight: float = 1.0
    unused: tuple[str, ...] = ()


@dataclass(frozen=True)
class Span:
    """A piece of rendered text whose every character has one role and one weight (message weight times example weight).

    Where it is the content of a message, or a part of it, ``message`` is that message and ``start`` the place in its
    content.
    """

    text: str
    role: Role
    weight: float = 1.0
    message: Message | None = None
    start: int = 0


@dataclass(frozen=True)
class Tokens:
    """A tokenised example: ids, roles and weight factors of its T tokens.

    ``ids`` is int32, ``roles`` int8, ``scale`` float32, or None where every factor is 1.
    """

    ids: npt.NDArray[np.int32]
    roles: npt.NDArray[np.int8]
    scale: npt.NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.ids)
