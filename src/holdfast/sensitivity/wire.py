"""Two ways to ask a server: for a greedy response, and for the log-probs of given response tokens after given prompt tokens.

Both send token ids, never text, and check in every answer that the log-probs are those of the ids that were sent.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from holdfast.errors import HoldfastError
from holdfast.sensitivity.client import Client
from holdfast.sensitivity.responses import Ids


@dataclass(frozen=True)
class Generated:
    """A greedy response, with the server's log-probs for it (nats)."""

    ids: Ids
    logp: list[float]
    margin: float | None


class Wire(Protocol):
    """A protocol."""

    def generate(self, prompt: Ids, max_new_tokens: int) -> Generated:
        """Greedy response; the end-of-sequence token, if reached, is the last one."""

    def score(self, prompt: Ids, response: Ids) -> list[float]:
        """Log-prob of each response token after the prompt."""


class Completions:
    """OpenAI-compatible completions with ``echo`` and ``logprobs`` (vLLM): the whole of prompt and response is scored every time.

    Tokens must come back as ids (``token_id:17``, vLLM's ``return_tokens_as_token_ids``), or as text that is exactly that of the ids.
    """

    def __init__(
        self, client: Client, model: str, ends: frozenset[int], show: Callable[[int], str], find: Callable[[str], int | None]
    ) -> None:
        self.client, self.model, self.ends, self.show, self.find = client, model, ends, show, find

    def generate(self, prompt: Ids, max_new_tokens: int) -> Generated:
        """See ``Wire``."""
        choice = self._ask(prompt, max_new_tokens, echo=False)
        tokens, logp = _column(choice, "tokens"), _column(choice, "token_logprobs")
        ids = [self._id(token) for token in tokens]
        if choice.get("finish_reason") == "stop" and (not ids or ids[-1] not in self.ends):
            raise HoldfastError(
                f"{self.client.base}: the server stops at the end of the sequence but leaves its token out, so that it cannot be scored"
            )
        return Generated(tuple(ids), [float(x) for x in logp], _margin(choice.get("logprobs", {}).get("top_logprobs")))

    def score(self, prompt: Ids, response: Ids) -> list[float]:
        """See ``Wire``."""
        choice = self._ask(prompt + response, 1, echo=True)
        tokens, logp = _column(choice, "tokens"), _column(choice, "token_logprobs")
        wanted = prompt + response
        if len(tokens) < len(wanted):
            raise Misaligned(f"{len(wanted)} tokens were sent, log-probs of {len(tokens)} came back: the server does not echo the prompt")
        if not all(self._same(token, i) for token, i in zip(tokens, wanted)):
            if self._same(str(tokens[0]), wanted[0]) and self._same(str(tokens[1]), wanted[0]) and not wanted[0] == wanted[1]:
                raise Misaligned("the server puts a second BOS in front of the prompt")
            raise Misaligned("the tokens that came back are not those that were sent")
        return _finite(logp[len(prompt) : len(wanted)])

    def _ask(self, ids: Ids, max_tokens: int, *, echo: bool) -> dict[str, Any]:
        body = {
            "model": self.model,
            "prompt": list(ids),
            "max_tokens": max_tokens,
            "temperature": 0,
            "logprobs": 2,
            "echo": echo,
            "return_tokens_as_token_ids": True,
        }
        answer = self.client.post("/completions", body)
        try:
            choice = answer["choices"][0]
            return choice if isinstance(choice, dict) else {}
        except (KeyError, IndexError, TypeError) as error:
            raise HoldfastError(f"{self.client.base}: not the answer of a completions server") from error

    def _id(self, token: str) -> int:
        found = int(token.removeprefix("token_id:")) if token.startswith("token_id:") else self.find(token)
        if found is None:
            raise Misaligned(f"the server returns the text of tokens, and {token!r} is not one token")
        return found

    def _same(self, token: str, wanted: int) -> bool:
        return token == f"token_id:{wanted}" if token.startswith("token_id:") else token == self.show(wanted)


class SGLang:
    """SGLang's native ``/generate``: scored from the last prompt token on, so that its prefix cache serves the prompt."""

    def __init__(self, client: Client) -> None:
        self.client = client

    def generate(self, prompt: Ids, max_new_tokens: int) -> Generated:
        """See ``Wire``."""
        meta = self._ask(prompt, max_new_tokens, len(prompt) - 1)
        found = _entries(meta, "output_token_logprobs")
        tops = meta.get("output_top_logprobs")
        margin = min((abs(t[0][0] - t[1][0]) for t in tops if t and len(t) > 1), default=None) if tops else None
        return Generated(tuple(int(entry[1]) for entry in found), [float(entry[0]) for entry in found], margin)

    def score(self, prompt: Ids, response: Ids) -> list[float]:
        """See ``Wire``. Entry 0 is the last prompt token itself; response token t is entry t + 1, which the ids must confirm."""
        found = _entries(self._ask(prompt + response, 0, len(prompt) - 1), "input_token_logprobs")
        got = [int(entry[1]) for entry in found]
        if got == list(response):  # versions differ in whether the start token has an entry
            return _finite([entry[0] for entry in found])
        if len(found) != len(response) + 1:
            raise Misaligned(f"log-probs of {len(response) + 1} tokens were asked for, {len(found)} came back")
        if got[1:] != list(response) or got[0] != prompt[-1]:
            raise Misaligned("the tokens that came back are not those that were sent")
        return _finite([entry[0] for entry in found[1:]])

    def _ask(self, ids: Ids, max_new_tokens: int, start: int) -> dict[str, Any]:
        body = {
            "input_ids": list(ids),
            "sampling_params": {"max_new_tokens": max_new_tokens, "temperature": 0},
            "return_logprob": True,
            "logprob_start_len": start,
            "top_logprobs_num": 2,
        }
        answer = self.client.post("/generate", body)
        meta = answer.get("meta_info") if isinstance(answer, dict) else None
        if not isinstance(meta, dict):
            raise HoldfastError(f"{self.client.base}: not the answer of an SGLang server")
        return meta


class Misaligned(HoldfastError):
    """The log-probs of a server are not those of the tokens that were sent."""


def _column(choice: dict[str, Any], key: str) -> list[Any]:
    found = (choice.get("logprobs") or {}).get(key)
    if not isinstance(found, list):
        raise Misaligned("the server returns no log-probs")
    return found


def _entries(meta: dict[str, Any], key: str) -> list[Any]:
    found = meta.get(key)
    if not isinstance(found, list):
        raise Misaligned(f"the server returns no {key}")
    return found


def _finite(values: Sequence[float | None]) -> list[float]:
    if any(value is None or not math.isfinite(value) for value in values):
        raise Misaligned("a log-prob of a response token is missing or not finite")
    return [float(value) for value in values if value is not None]


def _margin(tops: Any) -> float | None:
    """Smallest gap between the two most probable tokens."""
    gaps = []
    for top in tops or []:
        if isinstance(top, dict) and len(top) > 1:
            best, second = sorted(top.values(), reverse=True)[:2]
            gaps.append(float(best - second))
    return min(gaps, default=None)
