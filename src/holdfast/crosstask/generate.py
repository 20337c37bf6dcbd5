"""Prompts -> greedy text, up to the first newline: by the model in this process, or by an OpenAI-compatible server."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from holdfast import http
from holdfast.chat import Chat, ChatAnswer, is_chat, without_thoughts
from holdfast.errors import HoldfastError
from holdfast.runs import read_rows
from holdfast.tables.text import counted

if TYPE_CHECKING:
    from holdfast.lm import LM

_SERVED = "it must serve POST /completions as OpenAI, vLLM and llama.cpp do; the same command asks for the rest only"


def generate(lm: LM, written: Sequence[str], *, max_new_tokens: int, rule: str = "normalised") -> list[str]:
    """Greedy continuations; each row stops by itself. Equal prompts are answered once."""
    distinct = list(dict.fromkeys(written))
    texts = lm.generate(distinct, max_new_tokens=max_new_tokens, stop=lambda text: answered(text, rule))
    answers = dict(zip(distinct, texts, strict=True))
    return [answers[prompt] for prompt in written]


def answered(text: str, rule: str = "normalised") -> bool:
    """Whether nothing that follows can change the parsed answer. The paper's rule forgives two newlines at the start,
    ours any.
    """
    if rule == "paper":
        return text != "\n" and "\n" in text.removeprefix("\n\n")
    return "\n" in text.lstrip()


class Endpoint:
    """A server that answers greedily, some prompts at a time: by OpenAI's completions, or by a chat endpoint where the
    address ends in its method (``/chat/completions``, ``/messages``); there a prompt is a user's message, and thoughts
    are no part of an answer. A key is taken from HOLDFAST_API_KEY or OPENAI_API_KEY; for a chat endpoint see ``Chat``.

    Args:
        file: where answers are kept as they come, so that none is asked for twice if the server fails half way.
    """

    def __init__(
        self,
        url: str,
        model: str,
        max_new_tokens: int = 15,
        *,
        timeout: float = 60.0,
        retries: int = 5,
        concurrency: int = 8,
        file: Path | None = None,
    ) -> None:
        self.asked = {"model": model, "max_tokens": max_new_tokens, "temperature": 0, "stop": ["\n"]}
        self.concurrency, self.file = concurrency, file
        self.cut_in_thoughts: list[str] = []
        self.chat = (
            Chat(url, model, max_tokens=max_new_tokens, timeout=timeout, retries=retries) if is_chat(url) else None
        )
        self.server = http.Optional(
            http.Client(url, timeout=timeout, retries=retries, key=http.api_key()), http.NEUTRAL
        )

    def generate(self, prompts: Sequence[str]) -> list[str]:
        """Answers to prompts, in their order. The server stops at the first newline, so an answer that begins with one
        is empty.

        Raises:
            HoldfastError: the server refuses, or does not answer within all retries.
        """
        texts = self._kept()
        keys = [hashlib.sha256(json.dumps(prompt).encode()).hexdigest() for prompt in prompts]
        missing = {key: prompt for key, prompt in zip(keys, prompts, strict=True) if key not in texts}

        def keep(key: str, text: str) -> None:
            texts[key] = text
            if self.file:
                with self.file.open("a", encoding="utf-8") as opened:
                    # the new line stands in front: behind what a kill has cut off
                    opened.write("\n" + json.dumps({"prompt": key, "text": text}))

        try:
            http.together(lambda key: self._complete(missing[key]), missing, self.concurrency, keep)
        except HoldfastError as error:
            hint = error.hint if isinstance(error, http.RefusedError) else _SERVED
            raise HoldfastError(f"--endpoint {error.message}", hint=hint) from error
        if self.cut_in_thoughts:
            said = f"{counted(len(self.cut_in_thoughts), 'answer')} reached --max-new-tokens before anything was said"
            print(f"note: {said}; thoughts count among these tokens", file=sys.stderr)
            self.cut_in_thoughts.clear()
        return [texts[key] for key in keys]

    def _complete(self, prompt: str) -> str:
        if self.chat:
            return self._without_thoughts(self.chat.ask([{"role": "user", "content": prompt}]), prompt)
        request = self.asked | {"prompt": prompt}
        return self.server.post("/completions", lambda fields: fields | request, http.completion_text, "completion")

    def _without_thoughts(self, answer: ChatAnswer, prompt: str) -> str:
        """Return the first line of an answer, and remember those that the longest answer left without one."""
        text = without_thoughts(answer.text, prompt)[0].strip().partition("\n")[0]
        if answer.is_cut and not text:
            self.cut_in_thoughts.append(prompt)
        return text

    def _kept(self) -> dict[str, str]:
        """SHA-256 of a prompt -> its answer."""
        texts: dict[str, str] = {}
        if self.file:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            for row in read_rows(self.file, problems=[]):  # one that a kill has cut off is asked for again
                if isinstance(row.get("prompt"), str) and isinstance(row.get("text"), str):
                    texts[row["prompt"]] = row["text"]
        return texts
