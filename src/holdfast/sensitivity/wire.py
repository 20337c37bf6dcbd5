"""Two ways to ask a server: for a greedy response, and for the log-probs of given response tokens after given prompt
tokens.

Both send token ids, never text, and check in every answer that the log-probs are those of the ids that were sent; a
response says how far its tokens were below the most likely ones. What would bend a greedy response is sent as neutral
(``http.NEUTRAL``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from holdfast.errors import HoldfastError
from holdfast.http import NEUTRAL, Client, Optional
from holdfast.records import Ids

A = TypeVar("A")


@dataclass(frozen=True)
class Generated:
    """A greedy response, with the server's log-probs for it (nats). ``text``: in the server's own words, where it says.

    ``below``: largest distance of a token from the most likely one at its place, 0 where all are that; None where a
    server does not say.
    """

    ids: Ids
    logp: list[float]
    margin: float | None
    below: float | None
    text: str | None


@dataclass(frozen=True)
class Scored:
    """Log-probs of a response. ``text``: prompt, response and perhaps more in the server's own words, where it says."""

    logp: list[float]
    text: str | None


class Wire(Protocol):
    """A protocol."""

    def generate(self, prompt: Ids, max_new_tokens: int) -> Generated:
        """Greedy response; the end-of-sequence token, if reached, is the last one."""

    def score(self, prompt: Ids, response: Ids) -> Scored:
        """Log-prob of each response token after the prompt."""

    def spell(self, ids: Ids) -> str | None:
        """These ids in the server's own words, or None where it has none."""


class Completions:
    """OpenAI-compatible completions with ``echo`` and ``logprobs`` (vLLM): the whole of prompt and response is scored
    every time.

    Tokens must come back as ids (``token_id:17``, vLLM's ``return_tokens_as_token_ids``), or as text that is exactly
    that of the ids.
    """

    def __init__(
        self,
        client: Client,
        model: str,
        ends: frozenset[int],
        show: Callable[[int], str],
        find: Callable[[str], int | None],
    ) -> None:
        self.client, self.model, self.ends, self.show, self.find = client, model, ends, show, find
        self.optional = Optional(client, NEUTRAL | {"return_tokens_as_token_ids": True})

    def generate(self, prompt: Ids, max_new_tokens: int) -> Generated:
        """See ``Wire``."""
        return self._ask(prompt, max_new_tokens, self._generated, echo=False)

    def score(self, prompt: Ids, response: Ids) -> Scored:
        """See ``Wire``."""
        return self._ask(prompt + response, 1, lambda choice: self._scored(choice, prompt, response), echo=True)

    def spell(self, ids: Ids) -> str | None:
        """See ``Wire``: the texts of single tokens, put together."""
        tokens = self._ask(
            ids, 1, lambda choice: _column(choice, "tokens"), echo=True, return_tokens_as_token_ids=False
        )
        plain = len(tokens) >= len(ids) and all(
            isinstance(t, str) and not t.startswith(("token_id:", "bytes:")) for t in tokens
        )
        return "".join(tokens[: len(ids)]) if plain else None

    def _ask(self, ids: Ids, max_tokens: int, read: Callable[[dict[str, Any]], A], *, echo: bool, **more: Any) -> A:
        body = {
            "model": self.model,
            "prompt": list(ids),
            "max_tokens": max_tokens,
            "temperature": 0,
            "logprobs": 2,
            "echo": echo,
        }
        return self.optional.post(
            "/completions",
            lambda extra: body | extra | more,
            lambda answer: read(answer["choices"][0]),
            "completion with log-probs",
        )

    def _generated(self, choice: dict[str, Any]) -> Generated:
        tokens, logp = _column(choice, "tokens"), _column(choice, "token_logprobs")
        ids = [self._id(token) for token in tokens]
        if choice.get("finish_reason") == "stop" and (not ids or ids[-1] not in self.ends):
            raise Misaligned(
                "the server stops at the end of the sequence but leaves its token out, so that it cannot be scored"
            )
        numbers = _finite(logp)
        tops = choice.get("logprobs", {}).get("top_logprobs")
        listed = (
            [_numbers(top.values()) if isinstance(top, dict) else [] for top in tops] if isinstance(tops, list) else []
        )
        return Generated(tuple(ids), numbers, _margin(listed), _below(numbers, listed), _text(choice))

    def _scored(self, choice: dict[str, Any], prompt: Ids, response: Ids) -> Scored:
        tokens, logp = _column(choice, "tokens"), _column(choice, "token_logprobs")
        wanted = prompt + response
        if len(tokens) < len(wanted):
            raise Misaligned(
                f"{len(wanted)} tokens were sent, log-probs of {len(tokens)} came back: the server does not echo the "
                "prompt"
            )
        if not all(self._same(token, i) for token, i in zip(tokens, wanted)):
            if (
                self._same(str(tokens[0]), wanted[0])
                and self._same(str(tokens[1]), wanted[0])
                and not wanted[0] == wanted[1]
            ):
                raise Misaligned("the server puts a second BOS in front of the prompt")
            raise Misaligned("the tokens that came back are not those that were sent")
        return Scored(_finite(logp[len(prompt) : len(wanted)]), _text(choice))

    def _id(self, token: str) -> int:
        found = int(token.removeprefix("token_id:")) if token.startswith("token_id:") else self.find(token)
        if found is None:
            raise Misaligned(f"the server returns the text of tokens, and {token!r} is not one token")
        return found

    def _same(self, token: str, wanted: int) -> bool:
        return token == f"token_id:{wanted}" if token.startswith("token_id:") else token == self.show(wanted)


class SGLang:
    """SGLang's native ``/generate``: scored from the last prompt token on, so that its prefix cache serves the
    prompt.
    """

    def __init__(self, client: Client) -> None:
        self.client = client
        self.optional = Optional(client, NEUTRAL)

    def generate(self, prompt: Ids, max_new_tokens: int) -> Generated:
        """See ``Wire``."""
        return self._ask(prompt, max_new_tokens, len(prompt) - 1, self._generated)

    def score(self, prompt: Ids, response: Ids) -> Scored:
        """See ``Wire``. Entry 0 is the last prompt token itself; response token t is entry t + 1, which the ids must
        confirm.
        """
        return self._ask(prompt + response, 0, len(prompt) - 1, lambda answer: self._scored(answer, prompt, response))

    def spell(self, ids: Ids) -> str | None:
        """See ``Wire``."""
        return self._ask(
            ids, 0, 0, lambda answer: _spelled(_entries(answer, "input_token_logprobs")), return_text_in_logprobs=True
        )

    def _generated(self, answer: dict[str, Any]) -> Generated:
        entries, tops = _entries(answer, "output_token_logprobs"), answer["meta_info"].get("output_top_logprobs")
        numbers = _finite([entry[0] for entry in entries])
        listed = [_numbers(entry[0] for entry in top or []) for top in tops] if isinstance(tops, list) else []
        ids = tuple(int(entry[1]) for entry in entries)
        return Generated(ids, numbers, _margin(listed), _below(numbers, listed), _text(answer))

    def _scored(self, answer: dict[str, Any], prompt: Ids, response: Ids) -> Scored:
        entries = _entries(answer, "input_token_logprobs")
        got = [int(entry[1]) for entry in entries]
        if got == list(response):  # versions differ in whether the start token has an entry
            return Scored(_finite([entry[0] for entry in entries]), None)
        if len(entries) != len(response) + 1:
            raise Misaligned(f"log-probs of {len(response) + 1} tokens were asked for, {len(entries)} came back")
        if got[1:] != list(response) or got[0] != prompt[-1]:
            raise Misaligned("the tokens that came back are not those that were sent")
        return Scored(_finite([entry[0] for entry in entries[1:]]), None)

    def _ask(self, ids: Ids, max_new_tokens: int, start: int, read: Callable[[dict[str, Any]], A], **more: Any) -> A:
        body = {"input_ids": list(ids), "return_logprob": True, "logprob_start_len": start, "top_logprobs_num": 2}
        fixed = {"max_new_tokens": max_new_tokens, "temperature": 0}
        return self.optional.post(
            "/generate", lambda extra: body | {"sampling_params": fixed | extra} | more, read, "answer of SGLang"
        )


class Misaligned(HoldfastError):
    """The log-probs of a server are not those of the tokens that were sent."""


def _column(choice: dict[str, Any], key: str) -> list[Any]:
    column = (choice.get("logprobs") or {}).get(key)
    if not isinstance(column, list):
        raise Misaligned("the server returns no log-probs")
    return column


def _entries(answer: dict[str, Any], key: str) -> list[Any]:
    entries = answer["meta_info"].get(key)
    if not isinstance(entries, list):
        raise Misaligned(f"the server returns no {key}")
    return entries


def _finite(values: Sequence[float | None]) -> list[float]:
    if any(value is None or not math.isfinite(value) for value in values):
        raise Misaligned("a log-prob of a response token is missing or not finite")
    return [float(value) for value in values if value is not None]


def _below(logp: Sequence[float], tops: Sequence[Sequence[float]]) -> float | None:
    """Largest distance of a token from the most likely one at its place."""
    return max((max(top) - own for own, top in zip(logp, tops) if top), default=None)


def _margin(tops: Sequence[Sequence[float]]) -> float | None:
    """Smallest gap between the two most probable tokens."""
    pairs = [sorted(top, reverse=True)[:2] for top in tops if len(top) > 1]
    return min((float(best - second) for best, second in pairs), default=None)


def _numbers(values: Iterable[Any]) -> list[float]:
    return [float(value) for value in values if isinstance(value, int | float) and not math.isnan(value)]


def _text(answer: dict[str, Any]) -> str | None:
    text = answer.get("text")
    return text if isinstance(text, str) else None


def _spelled(entries: Sequence[Any]) -> str | None:
    """The texts in SGLang's entries (log-prob, id, text), put together; None where they are left out."""
    texts = [entry[2] if len(entry) > 2 else None for entry in entries]
    return "".join(map(str, texts)) if texts and all(isinstance(text, str) for text in texts) else None
