"""Variants -> the text that the model reads: exemplars in front, and a chat template around them.

All variants of a set have the same exemplars: the first k of the dev file, from those with the prompt's own header if
any have one (the subjects of MMLU). Their layout is that of the variant (``same``) or their own (``fixed``).
"""

from __future__ import annotations

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
        template_options: dict[str, Any] | None = None,
    ) -> None:
        self.tokenizer, self.chat, self.system, self.layout = tokenizer, chat_template, system, layout
        self.special_tokens = not chat_template
        self.template_options = template_options or {}
        if self.template_options and not chat_template:
            raise HoldfastError("--chat-template-kwargs needs --chat: without it there is no chat template")
        if chat_template and tokenizer is not None:
            template_name("chat", "chat", tokenizer)  # refuses a tokenizer without one
        elif system and not chat_template:
            raise HoldfastError("--system needs --chat: without a chat template there is no system message")
        self.shots = shots
        self.pool = _pool(shots, shots_data)

    def render(self, variant: Variant) -> str:
        """Return the text that the model is to continue."""
        if self.chat:
            return generation_prompt(self.messages(variant), "chat", self.tokenizer, kwargs=self.template_options)
        examples = self._examples(variant)
        if turns_before(variant):
            raise HoldfastError(f"{variant.where}: a prompt of several turns needs a chat template", hint="give --chat")
        header = examples[0].header if examples else ""
        text = header
        for item in examples:
            part, answer = self._laid_out(item, variant).removeprefix(header), str(item.expected)
            gap = "" if part[-1:].isspace() or answer[:1].isspace() else " "
            text += part + gap + answer + "\n\n"
        return text + variant.prompt.removeprefix(header)

    def messages(self, variant: Variant) -> list[Message]:
        """Return the turns of a variant: system message, exemplars, the turns before its last one, and that."""
        before = turns_before(variant)
        own_system = bool(before) and before[0].role is Role.SYSTEM
        messages = before[:1] if own_system else [Message(Role.SYSTEM, self.system)] if self.system else []
        for item in self._examples(variant):
            messages += [Message(Role.USER, self._laid_out(item, variant)), Message(Role.ASSISTANT, str(item.expected))]
        return [*messages, *before[own_system:], Message(Role.USER, variant.prompt)]

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


def turns_before(variant: Variant) -> list[Message]:
    """Return the turns that stand before the last one, where a row of the sets file has ``messages``."""
    turns: list[Message] = []
    for turn in variant.meta.get("before", ()):
        turns.append(Message(Role[str(turn["role"]).upper()], str(turn["content"])))
    return turns


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
