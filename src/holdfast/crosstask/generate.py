"""Prompts -> greedy text, up to the first newline: by the model in this process, or by an OpenAI-compatible server."""

from __future__ import annotations

import http.client
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from holdfast import servers
from holdfast.errors import HoldfastError, from_json

if TYPE_CHECKING:
    from holdfast.lm import LM

_PATIENCE = (408, 409, 429, 500, 502, 503, 504)


def generate(lm: LM, written: Sequence[str], *, max_new_tokens: int, rule: str = "normalised", batch_size: int = 32) -> list[str]:
    """Greedy continuations; each row stops by itself. Equal prompts are answered once."""
    distinct = list(dict.fromkeys(written))
    texts = lm.generate(distinct, max_new_tokens=max_new_tokens, batch_size=batch_size, stop=lambda text: answered(text, rule))
    found = dict(zip(distinct, texts, strict=True))
    return [found[prompt] for prompt in written]


def answered(text: str, rule: str = "normalised") -> bool:
    """Whether nothing that follows can change the parsed answer. The paper's rule forgives two newlines at the start, ours any."""
    if rule == "paper":
        return text != "\n" and "\n" in text.removeprefix("\n\n")
    return "\n" in text.lstrip()


@dataclass(frozen=True)
class Endpoint:
    """An OpenAI-compatible server: greedy completions, concurrent, with retries. A key is taken from HOLDFAST_API_KEY or OPENAI_API_KEY."""

    url: str
    model: str
    max_new_tokens: int = 15
    timeout: float = 60.0
    retries: int = 5
    concurrency: int = 8
    pause: float = 0.5
    """Seconds before the first retry; doubles each time, and a Retry-After of the server counts."""
    fields: dict[str, Any] = field(default_factory=lambda: dict(servers.NEUTRAL), compare=False)
    """What keeps answers greedy, as far as the server takes it."""

    def generate(self, prompts: Sequence[str]) -> list[str]:
        """Answers to prompts, in their order. The server stops at the first newline, so an answer that begins with one is empty.

        Raises:
            HoldfastError: the server refuses, or does not answer within all retries.
        """
        distinct = list(dict.fromkeys(prompts))
        with ThreadPoolExecutor(self.concurrency) as pool:
            found = dict(zip(distinct, pool.map(self._complete, distinct), strict=True))
        return [found[prompt] for prompt in prompts]

    def _complete(self, prompt: str) -> str:
        asked = {"model": self.model, "prompt": prompt, "max_tokens": self.max_new_tokens, "temperature": 0, "stop": ["\n"]}
        problem = ""
        for attempt in range(self.retries + 1):
            if attempt:
                time.sleep(self.pause * 2 ** (attempt - 1))
            try:
                answer = self._taken(asked)
                return str(answer["choices"][0]["text"])
            except servers.StatusError as error:
                problem = str(error)
                if error.code not in _PATIENCE:
                    break
                time.sleep(_seconds(error.wait))
            except (OSError, http.client.HTTPException) as error:
                problem = f"{type(error).__name__}: {error}"
            except (ValueError, KeyError, IndexError, TypeError) as error:
                problem = f"the answer is no completion ({type(error).__name__})"
        raise HoldfastError(f"--endpoint {self.url}: {problem}", hint="it must serve POST /completions as OpenAI, vLLM and llama.cpp do")

    def _taken(self, asked: dict[str, Any]) -> Any:
        """The answer, to a request without the fields that the server does not take."""
        while True:
            fields = dict(self.fields)
            try:
                return self._post(fields | asked)
            except servers.StatusError as error:
                refused = servers.refused_fields(error.code, error.text, fields)
                if not refused:
                    raise
                kept = servers.without_fields(self.fields, refused, self.url)
                for name in self.fields.keys() - kept.keys():
                    self.fields.pop(name, None)

    def _post(self, content: dict[str, Any]) -> Any:
        return from_json(servers.post(self.url, "/completions", content, key=servers.api_key(), timeout=self.timeout))


def _seconds(given: str | None) -> float:
    return min(30.0, float(given)) if given and given.replace(".", "", 1).isdigit() else 0.0
