"""Variants -> the text that the model reads: exemplars in front, and a chat template around them.

All variants of a set have the same exemplars: the first k of the dev file, from those with the prompt's own header if
any have one (the subjects of MMLU). Their layout is that of the variant (``same``) or their own (``fixed``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from holdfast.data.chat_template import generation_prompt, template_name
from holdfast.errors import HoldfastError
from holdfast.records import Message, Role
from holdfast.sensitivity.sets import Variant
from holdfast.sensitivity.variants.items import MARKER, PromptItem, load_items, without_options
from holdfast.tables.text import counted


class Renderer:
    """Turns variants into text.

    ``special_tokens``: whether the tokenizer is to add its own; a chat template writes them itself.
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
        """Return the text that the model is to continue."""
        examples = self._examples(variant)
        if self.chat:
            return self._chat(variant, examples)
        header = examples[0].header if examples else ""
        text = header
        for item in examples:
            part, answer = self._laid_out(item, variant).removeprefix(header), str(item.expected)
            gap = "" if part[-1:].isspace() or answer[:1].isspace() else " "
            text += part + gap + answer + "\n\n"
        return text + variant.prompt.removeprefix(header)

    def _chat(self, variant: Variant, examples: Sequence[PromptItem]) -> str:
        messages = [Message(Role.SYSTEM, self.system)] if self.system else []
        for item in examples:
            messages += [Message(Role.USER, self._laid_out(item, variant)), Message(Role.ASSISTANT, str(item.expected))]
        return generation_prompt([*messages, Message(Role.USER, variant.prompt)], "chat", self.tokenizer)

    def _examples(self, variant: Variant) -> list[PromptItem]:
        if not self.shots:
            return []
        near = [item for item in self.pool if item.header and variant.prompt.startswith(item.header)]
        chosen = [item for item in near or self.pool if item.question not in variant.prompt][: self.shots]
        if len(chosen) < self.shots:
            raise HoldfastError(
                f"{variant.where or variant.variant_id}: only {counted(len(chosen), 'exemplar')} for "
                f"--shots {self.shots}"
            )
        return chosen

    def _laid_out(self, item: PromptItem, variant: Variant) -> str:
        layout = variant.meta.get("layout") if self.layout == "same" else None
        if layout is None:
            return item.prompt()
        layout = layout if item.choices else without_options(layout)
        return item.prompt(layout, variant.meta.get("marker") or MARKER)


def _pool(shots: int, source: str | None) -> list[PromptItem]:
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
