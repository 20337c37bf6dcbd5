"""Token ids -> a greedy response of a server, or the log-probs of response tokens after prompt tokens.

Both protocols send token ids, never text, and check in every answer that the log-probs are those of the ids that were
sent. A response has the distance of its tokens from the most likely ones. Penalties and the like, which would change a
greedy response, are sent as neutral (``http.NEUTRAL``).
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from holdfast.chat import served_models
from holdfast.errors import HoldfastError, redacted
from holdfast.http import NEUTRAL, Client, Optional, RefusedError
from holdfast.records import Ids

A = TypeVar("A")
_MOST_CELLS = 16
_NO_LISTS = frozenset({400, 413, 422, 501})
"""Statuses by which a server refuses a list of prompts."""


@dataclass(frozen=True)
class Generated:
    """A greedy response with the server's log-probs for it (nats), and its ``text`` as the server writes it, or None.

    ``below``: largest distance of a token from the most likely one at its place; None where a server does not say.
    """

    ids: Ids
    logp: list[float]
    margin: float | None
    below: float | None
    text: str | None


@dataclass(frozen=True)
class ScoredResponse:
    """Log-probs of a response. ``text``: prompt, response and perhaps more as the server writes them, or None."""

    logp: list[float]
    text: str | None


class Wire(Protocol):
    """A protocol by which a server is asked."""

    def generate(self, prompt: Ids, max_new_tokens: int) -> Generated:
        """Return the greedy response; the end-of-sequence token, if reached, is the last one."""

    def score(self, prompt: Ids, response: Ids) -> ScoredResponse:
        """Return the log-prob of each response token after the prompt."""

    def score_all(self, pairs: Sequence[tuple[Ids, Ids]]) -> list[ScoredResponse]:
        """Return what ``score`` does of each pair, by one request where the server takes lists of prompts."""

    def context(self) -> int | None:
        """Return the most tokens of a request as the server states it, or None where it does not."""

    most_cells: int
    """How many pairs one request holds; those of a request that fails are lost together."""
    added: int
    """Tokens that the server generates when it scores, which need room in its context, too."""

    def spell(self, ids: Ids) -> str | None:
        """Return these ids as the server writes them, or None where it does not say."""


class Completions:
    """OpenAI-compatible completions with ``echo`` and ``logprobs`` (vLLM). Prompt and response are scored every time.

    Tokens must come back as ids (``token_id:17``, vLLM's ``return_tokens_as_token_ids``), or as exactly the text of the
    ids.
    """

    added = 1

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
        self.most_cells = _MOST_CELLS

    def generate(self, prompt: Ids, max_new_tokens: int) -> Generated:
        """See ``Wire``."""
        return self._ask(prompt, max_new_tokens, self._generated, echo=False)

    def score(self, prompt: Ids, response: Ids) -> ScoredResponse:
        """See ``Wire``."""
        return self._ask(prompt + response, 1, lambda choice: self._scored(choice, prompt, response), echo=True)

    def score_all(self, pairs: Sequence[tuple[Ids, Ids]]) -> list[ScoredResponse]:
        """See ``Wire``. A server that refuses a list, or answers one of its prompts only, is asked one by one."""
        if self.most_cells > 1 and len(pairs) > 1:
            try:
                choices = self._post([list(p + r) for p, r in pairs], 1, lambda answer: answer["choices"], echo=True)
            except RefusedError as error:
                if error.code not in _NO_LISTS:
                    raise
                choices = []
            if len(choices) == len(pairs):
                choices = sorted(choices, key=lambda choice: int(choice.get("index", 0)))
                return [self._scored(choice, *pair) for choice, pair in zip(choices, pairs, strict=True)]
            self.most_cells = 1
            note = "does not take lists of prompts: it is asked for one cell at a time"
            print(f"note: {redacted(self.client.base)} {note}", file=sys.stderr)
        return [self.score(*pair) for pair in pairs]

    def context(self) -> int | None:
        """See ``Wire``: vLLM's ``max_model_len``."""
        length = served_models(self.client).get(self.model, {}).get("max_model_len")
        return length if isinstance(length, int) and length > 0 else None

    def spell(self, ids: Ids) -> str | None:
        """See ``Wire``: the texts of single tokens, put together."""
        tokens = self._ask(
            ids, 1, lambda choice: _column(choice, "tokens"), echo=True, return_tokens_as_token_ids=False
        )
        plain = all(isinstance(t, str) and not t.startswith(("token_id:", "bytes:")) for t in tokens)
        return "".join(tokens[: len(ids)]) if plain and len(tokens) >= len(ids) else None

    def _ask(self, ids: Ids, max_tokens: int, read: Callable[[dict[str, Any]], A], *, echo: bool, **more: Any) -> A:
        return self._post(list(ids), max_tokens, lambda answer: read(answer["choices"][0]), echo=echo, **more)

    def _post(self, prompt: Sequence[Any], max_tokens: int, read: Callable[[Any], A], *, echo: bool, **more: Any) -> A:
        body = {
            "model": self.model,
            "prompt": prompt,
            "max_tokens": max_tokens,
            "temperature": 0,
            "logprobs": 2,
            "echo": echo,
        }
        return self.optional.post(
            "/completions",
            lambda extra: body | extra | more,
            read,
            "completion with log-probs",
        )

    def _generated(self, choice: dict[str, Any]) -> Generated:
        tokens, logp = _column(choice, "tokens"), _column(choice, "token_logprobs")
        ids = [self._id(token) for token in tokens]
        if choice.get("finish_reason") == "stop" and (not ids or ids[-1] not in self.ends):
            raise Misaligned(
                "the server stops at the end of the sequence but leaves its token out, so that it cannot be scored"
            )
        tops = choice.get("logprobs", {}).get("top_logprobs")
        values = [top.values() if isinstance(top, dict) else () for top in tops] if isinstance(tops, list) else []
        return _response(ids, logp, values, choice)

    def _scored(self, choice: dict[str, Any], prompt: Ids, response: Ids) -> ScoredResponse:
        tokens, logp = _column(choice, "tokens"), _column(choice, "token_logprobs")
        wanted = prompt + response
        if len(tokens) < len(wanted):
            raise Misaligned(
                f"{len(wanted)} tokens were sent, log-probs of {len(tokens)} came back: the server does not echo the "
                "prompt"
            )
        if not all(self._same(token, i) for token, i in zip(tokens, wanted)):
            if wanted[0] != wanted[1] and all(self._same(str(token), wanted[0]) for token in tokens[:2]):
                raise Misaligned("the server puts a second BOS in front of the prompt")
            raise Misaligned("the tokens that came back are not those that were sent")
        return ScoredResponse(_finite(logp[len(prompt) : len(wanted)]), _text(choice))

    def _id(self, token: str) -> int:
        token_id = int(token.removeprefix("token_id:")) if token.startswith("token_id:") else self.find(token)
        if token_id is None:
            raise Misaligned(f"the server returns the text of tokens, and {token!r} is not one token")
        return token_id

    def _same(self, token: str, wanted: int) -> bool:
        return token == f"token_id:{wanted}" if token.startswith("token_id:") else token == self.show(wanted)


class SGLang:
    """SGLang's native ``/generate``, scored from the last prompt token on, so that its prefix cache is used."""

    added, most_cells = 0, 1

    def __init__(self, client: Client) -> None:
        self.client = client
        self.optional = Optional(client, NEUTRAL)

    def generate(self, prompt: Ids, max_new_tokens: int) -> Generated:
        """See ``Wire``."""
        return self._ask(prompt, max_new_tokens, len(prompt) - 1, self._generated)

    def score(self, prompt: Ids, response: Ids) -> ScoredResponse:
        """See ``Wire``. Entry 0 is the last prompt token; response token t is entry t + 1, and has its id."""
        return self._ask(prompt + response, 0, len(prompt) - 1, lambda answer: self._scored(answer, prompt, response))

    def score_all(self, pairs: Sequence[tuple[Ids, Ids]]) -> list[ScoredResponse]:
        """See ``Wire``: one by one."""
        return [self.score(*pair) for pair in pairs]

    def context(self) -> int | None:
        """See ``Wire``: SGLang's ``context_length``, or that of the model."""
        info = self.client.get("/get_server_info")
        length = info.get("context_length") if isinstance(info, dict) else None
        return length if isinstance(length, int) and length > 0 else None

    def spell(self, ids: Ids) -> str | None:
        """See ``Wire``."""
        return self._ask(ids, 0, 0, _spelled, return_text_in_logprobs=True)

    def _generated(self, answer: dict[str, Any]) -> Generated:
        entries, tops = _entries(answer, "output_token_logprobs"), answer["meta_info"].get("output_top_logprobs")
        values: list[list[Any]] = []
        for top in tops if isinstance(tops, list) else ():
            values.append([entry[0] for entry in top or ()])
        return _response([int(entry[1]) for entry in entries], [entry[0] for entry in entries], values, answer)

    def _scored(self, answer: dict[str, Any], prompt: Ids, response: Ids) -> ScoredResponse:
        entries = _entries(answer, "input_token_logprobs")
        got = [int(entry[1]) for entry in entries]
        if got == list(response):  # versions differ in whether the start token has an entry
            return ScoredResponse(_finite([entry[0] for entry in entries]), None)
        if len(entries) != len(response) + 1:
            raise Misaligned(f"log-probs of {len(response) + 1} tokens were asked for, {len(entries)} came back")
        if got[1:] != list(response) or got[0] != prompt[-1]:
            raise Misaligned("the tokens that came back are not those that were sent")
        return ScoredResponse(_finite([entry[0] for entry in entries[1:]]), None)

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


def _response(
    ids: Sequence[int], logp: Sequence[float | None], tops: Sequence[Iterable[Any]], answer: dict[str, Any]
) -> Generated:
    """Return the response with these log-probs; ``tops`` are those of the most likely tokens at each place."""
    numbers = _finite(logp)
    below, gaps = list[float](), list[float]()
    for own, top in zip(numbers, tops):
        likely = sorted((v for v in top if isinstance(v, int | float) and not math.isnan(v)), reverse=True)
        below += [likely[0] - own] if likely else []
        gaps += [float(likely[0] - likely[1])] if len(likely) > 1 else []
    return Generated(tuple(ids), numbers, min(gaps, default=None), max(below, default=None), _text(answer))


def _text(answer: dict[str, Any]) -> str | None:
    text = answer.get("text")
    return text if isinstance(text, str) else None


def _spelled(answer: dict[str, Any]) -> str | None:
    """Return the texts in SGLang's entries (log-prob, id, text), put together; None where they are left out."""
    entries = _entries(answer, "input_token_logprobs")
    texts = [entry[2] if len(entry) > 2 else None for entry in entries]
    return "".join(map(str, texts)) if texts and all(isinstance(text, str) for text in texts) else None
