"""Where two texts meet: what stands between them, and the BOS or EOS that a text holds already."""

from __future__ import annotations

import re
from dataclasses import replace

from holdfast.records import Message, Span

# Thai, Lao, Tibetan, Myanmar, Khmer, Tai, Balinese, Javanese; Chinese and Japanese with their marks and full-width
# forms; Yi. Korean is written with spaces.
_UNSPACED = re.compile(
    "[\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u1950-\u19ff\u1a20-\u1aaf\u1b00-\u1b7f\u2e80-\u2fdf\u3000-\u312f"
    "\u31a0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\ua000-\ua4cf\ua980-\ua9df\uf900-\ufaff\ufe30-\ufe4f\uff00-\uff9f"
    "\uffe0-\uffe6\U00020000-\U0003ffff]"
)


def between(before: str, message: Message) -> str:
    """Return what stands between the text before a message and the message.

    It is the message's own joint where it has one. Else it is one space, and nothing where either side has white space
    there or is of a script that is written without spaces.
    """
    if message.joint is not None:
        return message.joint
    sides = before[-1:], message.content[:1]
    return "" if any(side.isspace() or _UNSPACED.match(side) for side in sides) else " "


def without_start(spans: list[Span], bos: str) -> list[Span]:
    """Return the spans of a text without the BOS that it begins with."""
    if not spans or not spans[0].text.startswith(bos):
        return spans
    first = spans[0]
    return [replace(first, text=first.text.removeprefix(bos), start=first.start + len(bos)), *spans[1:]]


def without_end(span: Span, eos: str) -> Span:
    """Return a span without the EOS that it ends with."""
    return replace(span, text=span.text.removesuffix(eos))
