"""One chat endpoint: messages -> an answer, in OpenAI's form (/chat/completions) or Anthropic's (/messages).

    Chat("http://localhost:8000/v1", "name", max_tokens=64).ask([{"role": "user", "content": "Hi"}]) -> ChatAnswer(...)

What a model will not take is said in another way, or left out with a note: ``max_tokens`` or
``max_completion_tokens``; a temperature of 0; log-probs of the answer. What the user asked for is never left out.
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from holdfast import http
from holdfast.errors import HoldfastError, redacted

Message = Mapping[str, Any]
"""``role`` and ``content``, and whatever else the form allows."""
_ANTHROPIC = re.compile(r"/messages/?$|://[^/]*\banthropic\.|/anthropic(/|$)")
_METHODS = re.compile(r"/(chat/completions|messages)/?$")
_FORMS = {"openai": "/chat/completions", "anthropic": "/messages"}


@dataclass(frozen=True)
class ChatAnswer:
    """What an endpoint said.

    Attributes:
        text: of the answer, without thoughts that the server keeps apart.
        is_cut: whether the longest answer was reached.
        tokens_in, tokens_out: as the server counts them, thoughts included; None where it does not.
        first: token -> log-prob (nats), the most likely first tokens of the answer; empty where the server gives none.
        token: the first token of the answer; None where the server does not say.
    """

    text: str
    is_cut: bool = False
    tokens_in: int | None = None
    tokens_out: int | None = None
    first: dict[str, float] = field(default_factory=dict)
    token: str | None = None


class Chat:
    """Asks one model for answers. May be used from many threads.

    Args:
        address: of the server, such as ``http://localhost:8000/v1``; with or without the name of the method.
        model: the name that the server knows.
        max_tokens: of an answer, thoughts included.
        api: ``openai``, ``anthropic``, or ``auto``: Anthropic's where the address says so.
        temperature: None: 0, or unset for a model that refuses it.
        logprobs: whether log-probs of the answer are asked for, where the server gives them.
        extra: further fields of the request, as the server names them.
        effort: how long a reasoning model may think: a word of OpenAI's, or a number of tokens for Anthropic's form.
        timeout, retries: see ``http.Client``.

    Raises:
        HoldfastError: no such address, or an effort that the form does not have.
    """

    def __init__(
        self,
        address: str,
        model: str,
        *,
        max_tokens: int,
        api: str = "auto",
        temperature: float | None = None,
        logprobs: bool = False,
        extra: Mapping[str, Any] | None = None,
        effort: str | None = None,
        timeout: float = 120.0,
        retries: int = 4,
    ) -> None:
        self.api = api if api != "auto" else "anthropic" if _ANTHROPIC.search(address) else "openai"
        self.base, self.model, self.max_tokens = _METHODS.sub("", address.rstrip("/")), model, max_tokens
        self.fixed: dict[str, Any] = {"model": model, **(extra or {}), **_thinking(self.api, effort, max_tokens)}
        ladders: list[list[dict[str, Any]]] = []
        if self.api == "openai":
            ladders.append([{"max_tokens": max_tokens}, {"max_completion_tokens": max_tokens}])
        else:
            self.fixed["max_tokens"] = max_tokens
        if temperature is not None:
            self.fixed["temperature"] = temperature
        elif "thinking" not in self.fixed:  # thoughts of Anthropic's form leave no temperature to choose
            ladders.append([{"temperature": 0}, {}])
        if logprobs and self.api == "openai":
            ladders.append([{"logprobs": True, "top_logprobs": n} for n in (20, 5)] + [{}])
        self.client = http.Client(
            self.base, timeout=timeout, retries=retries, key=_key(self.api), headers=_headers(self.api)
        )
        self.optional = http.Optional(self.client, {}, *ladders)

    def identity(self) -> dict[str, Any]:
        """Return everything of a request that an answer depends on, but for the messages."""
        return {"api": self.api, "address": redacted(self.base), "max_tokens": self.max_tokens, **self.fixed}

    def is_greedy(self) -> bool:
        """Return whether temperature 0 is asked for, as far as the model has not refused it."""
        return {**self.fixed, **self.optional.fields}.get("temperature") == 0

    def ask(self, messages: Sequence[Message]) -> ChatAnswer:
        """Return the answer to messages, the last of which is the user's.

        Raises:
            RefusedError: the server will not have it; its own reason is in the message.
            HoldfastError: it does not answer within all retries.
        """
        body = {**self.fixed, **self._messages(messages)}
        read, kind = (_openai, "chat completion") if self.api == "openai" else (_anthropic, "message")
        try:
            answer: ChatAnswer = self.optional.post(_FORMS[self.api], lambda more: body | more, read, kind)
        except http.RefusedError as error:
            raise self._explained(error) from error
        return answer

    def tell_model(self) -> None:
        """Say where a server has answered that lists other models alone: some answer whatever the name."""
        served = served_models(self.client)
        if served and self.model not in served:
            names = ", ".join(sorted(served)[:8])
            print(
                f"note: {redacted(self.base)} lists no model '{self.model}' (it lists {names}), and answers all the "
                "same: whatever model it is, that is what is measured",
                file=sys.stderr,
            )

    def _messages(self, messages: Sequence[Message]) -> dict[str, Any]:
        if self.api == "openai":
            return {"messages": list(messages)}
        system = "\n\n".join(str(m["content"]) for m in messages if m["role"] == "system")
        rest = [m for m in messages if m["role"] != "system"]
        return {"messages": rest} | ({"system": system} if system else {})

    def _explained(self, error: http.RefusedError) -> http.RefusedError:
        """Return the refusal with a hint for the two usual mistakes: a forgotten /v1, and another model's name."""
        hint, served = error.hint, served_models(self.client)
        if error.code == 404 and served and self.model not in served:
            hint = f"--model {self.model} is not served there; it serves {', '.join(sorted(served)[:8])}"
        elif error.code in (404, 405) and not re.search(r"/v\d", self.base):
            hint = f"such servers usually answer under /v1: --endpoint {redacted(self.base)}/v1"
        elif error.code in (401, 403) and self.api == "anthropic":
            hint = "set ANTHROPIC_API_KEY to the server's key"
        return http.RefusedError(error.message, hint=hint, code=error.code, text=error.text)


def is_chat(address: str) -> bool:
    """Return whether an address ends in the method of a chat endpoint."""
    return _METHODS.search(address) is not None


def served_models(client: http.Client) -> dict[str, dict[str, Any]]:
    """Return what a server says of its models, by name; empty where it does not list them."""
    listed = client.get("/models")
    rows = listed.get("data") if isinstance(listed, dict) else None
    return {str(row["id"]): row for row in rows or () if isinstance(row, dict) and "id" in row}


def tokens_of(messages: Sequence[Message], characters_per_token: float = 3.0) -> int:
    """Return about how many tokens messages have; none of our tokenizers need be the server's."""
    size = sum(len(json.dumps(m.get("content", ""), ensure_ascii=False).encode()) for m in messages)
    return math.ceil(size / characters_per_token) + 8 * len(messages)


def _key(api: str) -> str | None:
    return http.api_key(*(("ANTHROPIC_API_KEY", "HOLDFAST_API_KEY") if api == "anthropic" else ("OPENAI_API_KEY",)))


def _headers(api: str) -> dict[str, str]:
    if api == "openai":
        return {}
    key = _key(api)
    return {"anthropic-version": "2023-06-01"} | ({"x-api-key": key} if key else {})


def _thinking(api: str, effort: str | None, max_tokens: int) -> dict[str, Any]:
    if effort is None:
        return {}
    if api == "openai":
        return {"reasoning_effort": effort}
    if not effort.isdecimal():
        raise HoldfastError(
            f"--reasoning-effort {effort}: Anthropic's form has a number of tokens here",
            hint="such as --reasoning-effort 2048; it must be below --max-new-tokens",
        )
    if int(effort) >= max_tokens:
        raise HoldfastError(
            f"--reasoning-effort {effort} leaves nothing of --max-new-tokens {max_tokens} for the answer",
            hint="thoughts count among the new tokens; give a larger --max-new-tokens",
        )
    return {"thinking": {"type": "enabled", "budget_tokens": int(effort)}}


def _openai(answer: Any) -> ChatAnswer:
    choice = answer["choices"][0]
    text, is_cut = http.chat_text(answer), choice.get("finish_reason") == "length"
    return ChatAnswer(text, is_cut, *_counts(answer, "prompt_tokens", "completion_tokens"), *_first(choice))


def _anthropic(answer: Any) -> ChatAnswer:
    texts = [block["text"] for block in answer["content"] if block.get("type") == "text"]
    is_cut = answer.get("stop_reason") == "max_tokens"
    return ChatAnswer(http.printable("".join(texts)), is_cut, *_counts(answer, "input_tokens", "output_tokens"))


def _counts(answer: Any, sent: str, answered: str) -> tuple[int | None, int | None]:
    """Return how many tokens a server counts, in and out; None for what a budget must not trust."""
    usage = answer.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    return _count(usage.get(sent)), _count(usage.get(answered))


def _count(value: Any) -> int | None:
    return value if type(value) is int and value >= 0 else None


def _first(choice: Any) -> tuple[dict[str, float], str | None]:
    """Return the most likely first tokens and the first token itself.

    An answer is worth its price without them, so where they cannot be read the server counts as giving none.
    """
    try:
        entry = choice["logprobs"]["content"][0]
        token, tops = str(entry["token"]), [*(entry.get("top_logprobs") or ()), entry]
        logprobs = {str(top["token"]): float(top["logprob"]) for top in tops}
    except (LookupError, TypeError, ValueError, AttributeError):
        return {}, None
    finite = {name: logprob for name, logprob in logprobs.items() if math.isfinite(logprob)}
    return (finite, token) if token in finite else ({}, None)


_NAMES = "think|thinking|thoughts?|reasoning|reflection|analysis|scratchpad|seed:think"
_THOUGHT = re.compile(
    rf"<({_NAMES})>.*?</\1>|\[THINK\].*?\[/THINK\]|\u25c1think\u25b7.*?\u25c1/think\u25b7", re.DOTALL | re.IGNORECASE
)
_THOUGHT_ENDS = re.compile(
    rf"</(?:{_NAMES})>|\[/THINK\]|\u25c1/think\u25b7|<\|channel\|>final<\|message\|>", re.IGNORECASE
)
_THOUGHT_STARTS = re.compile(
    rf"<(?:{_NAMES})>|\[THINK\]|\u25c1think\u25b7|<\|channel\|>(?:analysis|commentary)", re.IGNORECASE
)


def without_thoughts(text: str, question: str = "") -> tuple[str, list[str]]:
    """Return an answer without the thoughts before it: between tags, up to a closing tag, or after an open tag.

    Every command reads the answers of a model in this way. Where the ``question`` holds such tags itself, they are no
    thoughts. The second value says that something was left out.
    """
    if _THOUGHT_STARTS.search(question):
        return text, []
    rest = _THOUGHT_STARTS.split(_THOUGHT_ENDS.split(_THOUGHT.sub("", text))[-1])[0]
    return rest, ["(thoughts)"] if rest != text else []
