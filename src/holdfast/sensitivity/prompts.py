"""Variants -> exactly what the model sees: exemplars in front, a chat template around, then ids.

The exemplars of a set are the same for all its variants: the first k of the dev file, from those with the prompt's own
header if any have one (the subjects of MMLU). Their layout follows the variant's (``same``) or stays their own
(``fixed``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from holdfast.data.chat_template import generation_prompt, template_name
from holdfast.errors import HoldfastError
from holdfast.records import Message, Role
from holdfast.sensitivity.sets import Variant
from holdfast.sensitivity.variants.items import Item, load_items, without_options


class Renderer:
    """Turns variants into text. ``special_tokens``: whether the tokenizer is to add its own (a chat template prints
    them itself).
    """

    def __init__(
        self,
        tokenizer: Any,
        *,
        chat_template: bool,
        system: str | None,
        shots: int,
        shots_data: str | None,
        layout: Literal["same", "fixed"],
    ) -> None:
        self.tokenizer, self.chat, self.system, self.layout = tokenizer, chat_template, system, layout
        self.special_tokens = not chat_template
        if chat_template:
            template_name("chat", "chat", tokenizer)  # refuses a tokenizer without one
        elif system:
            raise HoldfastError("--system needs --chat: without a chat template there is no system message")
        self.shots = shots
        self.pool = _pool(shots, shots_data)

    def render(self, variant: Variant) -> str:
        """The text that the model is to continue."""
        examples = self._examples(variant)
        if self.chat:
            return self._chat(variant, examples)
        header = examples[0].header if examples else ""
        parts = [self._shown(item, variant).removeprefix(header) for item in examples]
        answered = [
            part + _gap(part, str(item.expected)) + str(item.expected)
            for part, item in zip(parts, examples, strict=True)
        ]
        return header + "".join(part + "\n\n" for part in answered) + variant.prompt.removeprefix(header)

    def _chat(self, variant: Variant, examples: Sequence[Item]) -> str:
        messages = [Message(Role.SYSTEM, self.system)] if self.system else []
        for item in examples:
            messages += [Message(Role.USER, self._shown(item, variant)), Message(Role.ASSISTANT, str(item.expected))]
        return generation_prompt([*messages, Message(Role.USER, variant.prompt)], "chat", self.tokenizer)

    def _examples(self, variant: Variant) -> list[Item]:
        if not self.shots:
            return []
        near = [item for item in self.pool if item.header and variant.prompt.startswith(item.header)]
        chosen = [item for item in near or self.pool if item.question not in variant.prompt][: self.shots]
        if len(chosen) < self.shots:
            raise HoldfastError(
                f"{variant.where or variant.variant_id}: only {len(chosen)} exemplars for --shots {self.shots}"
            )
        return chosen

    def _shown(self, item: Item, variant: Variant) -> str:
        layout = variant.meta.get("layout") if self.layout == "same" else None
        if layout is None:
            return item.prompt()
        marker = variant.meta.get("marker")
        layout = layout if item.choices else without_options(layout)
        return item.prompt(layout, marker) if marker else item.prompt(layout)


def _pool(shots: int, source: str | None) -> list[Item]:
    if not shots:
        return []
    if source is None:
        raise HoldfastError(
            f"--shots {shots} needs --shots-data", hint="a file of answered items, in any form that --prompts takes"
        )
    pool = load_items(source)
    for item in pool:
        if item.expected is None:
            raise HoldfastError(f"{item.where}: an exemplar needs its answer")
    return pool


def _gap(part: str, answer: str) -> str:
    return "" if part[-1:].isspace() or answer[:1].isspace() else " "
