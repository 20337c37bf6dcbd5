"""A small model behind real HTTP, in the two wire formats that the back ends speak, with faults to order.

Faults: ``no-echo``, ``shifted`` (log-probs moved by one), ``second-bos``, ``order`` (depends on the request before),
``dropped`` (every third connection), ``429``, ``slow`` (one answer), ``truncated`` (half a body now and then), ``nan``,
``text`` (tokens as text), ``no-eos``, ``penalty`` (on repeated tokens, unless the request says none), ``stubborn``
(whatever it says), ``strict`` (refuses fields that OpenAI does not know), ``strict-penalty`` (both), ``no-lists`` (one
prompt a request); a number: so many requests are answered, then it wants to be paid (402).
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from holdfast.lm import LM, plain, stop_ids
from http_server import Reply, Request, half, serving


class Model:
    """Plain greedy responses and log-probs."""

    def __init__(self, lm: LM) -> None:
        self.lm, self.lock = lm, threading.Lock()
        self.stops = stop_ids(lm.model, lm.tokenizer)

    def respond(self, ids: list[int], new: int) -> list[int]:
        with self.lock:
            return list(plain.respond(self.lm.model, tuple(ids), new, self.stops)[0]) if new else []

    def respond_with_penalty(self, ids: list[int], new: int, penalty: float) -> list[int]:
        """Greedy after a repetition penalty, as vLLM and transformers compute it."""
        made: list[int] = []
        while len(made) < new and not (made and made[-1] in self.stops):
            with self.lock, torch.inference_mode():
                logits_V = self.lm.model(input_ids=torch.tensor([ids + made])).logits[0, -1].float()
                seen = torch.tensor(sorted({*ids, *made}))
                logits_V[seen] = torch.where(logits_V[seen] > 0, logits_V[seen] / penalty, logits_V[seen] * penalty)
            made.append(int(logits_V.argmax()))
        return made

    def logp(self, ids: list[int]) -> list[tuple[float | None, dict[int, float]]]:
        """Per token: log-prob given those before it (None for the first), and the two most probable tokens there."""
        with self.lock, torch.inference_mode():
            logp_TV = self.lm.model(input_ids=torch.tensor([ids])).logits[0].float().log_softmax(-1)
        found: list[tuple[float | None, dict[int, float]]] = [(None, {})]
        for t, token in enumerate(ids[1:]):
            values, tops = logp_TV[t].topk(2)
            found.append((logp_TV[t, token].item(), dict(zip(tops.tolist(), values.tolist(), strict=True))))
        return found


def answer(state: Any, request: Request) -> Reply:
    body, path = request.body, request.path.partition("?")[0]
    if not body:  # GET: what is served, or what is known of the server
        return Reply({"data": [{"id": "pocket", "max_model_len": state.context}]} if state.context else {}, 200)
    with state.counting:
        state.count += 1
        count = state.count
    fault = state.fault
    state.paths.append(path)
    asked = body | body.get("sampling_params", {})
    unknown = sorted(asked.keys() & {"top_k", "min_p", "repetition_penalty", "return_tokens_as_token_ids"})
    if fault in ("strict", "strict-penalty") and unknown:
        return Reply({"error": {"message": f"Unrecognized request argument supplied: {unknown[0]}"}}, 400)
    if path.endswith("/chat/completions"):
        return Reply({"choices": []})
    many = isinstance(body.get("prompt"), list) and isinstance(body["prompt"][0], list)
    if many and fault == "no-lists":
        return Reply({"error": {"message": "a prompt is a list of ids"}}, 400)
    if fault == "dropped" and count % 3 == 0:
        return Reply(drop=True)
    if fault == "429" and count % 2 == 0:
        return Reply({"error": "slow down"}, 429, {"Retry-After": "0.01"})
    if isinstance(fault, int) and count > fault:
        return Reply({"error": "no credit"}, 402)
    if many:
        parts = [completions(state, body | {"prompt": prompt}, count)["choices"][0] for prompt in body["prompt"]]
        said: dict[str, Any] = {"choices": [part | {"index": i} for i, part in enumerate(parts)][::-1]}
    else:
        said = completions(state, body, count) if path.endswith("/completions") else sglang(state, body, count)
    if fault == "truncated" and count % 3 == 0:
        return half(said)
    return Reply(said, wait=1.5 if fault == "slow" and count == 4 else 0)


def completions(state: Any, body: dict[str, Any], count: int) -> dict[str, Any]:
    prompt = list(body["prompt"])
    if state.fault == "second-bos":
        prompt = [prompt[0], *prompt]
    made = response(state, prompt, body["max_tokens"], body)
    stopped = bool(made) and made[-1] in state.model.stops
    if state.fault == "no-eos" and stopped:
        made = made[:-1]
    ids = prompt + made
    found = faulty(state, state.model.logp(ids), count, scoring=bool(body["echo"]))
    first = 0 if body["echo"] and state.fault != "no-echo" else len(prompt)
    as_text = state.fault in ("text", "strict", "strict-penalty")
    show = (lambda i: state.model.lm.tokenizer.decode([i])) if as_text else (lambda i: f"token_id:{i}")
    return {
        "choices": [
            {
                "text": state.model.lm.tokenizer.decode(ids[first:]),
                "finish_reason": "stop" if stopped else "length",
                "logprobs": {
                    "tokens": [show(i) for i in ids[first:]],
                    "token_logprobs": [logp for logp, _ in found[first:]],
                    "top_logprobs": [
                        {f"token_id:{i}": p for i, p in tops.items()} or None for _, tops in found[first:]
                    ],
                },
            }
        ]
    }


def response(state: Any, prompt: list[int], new: int, asked: dict[str, Any]) -> list[int]:
    own = state.fault in ("penalty", "strict-penalty") and "repetition_penalty" not in asked
    penalty = 1.5 if own or state.fault == "stubborn" else asked.get("repetition_penalty", 1)
    return state.model.respond(prompt, new) if penalty == 1 else state.model.respond_with_penalty(prompt, new, penalty)


def sglang(state: Any, body: dict[str, Any], count: int) -> dict[str, Any]:
    prompt, start = list(body["input_ids"]), body["logprob_start_len"]
    made = response(state, prompt, body["sampling_params"]["max_new_tokens"], body["sampling_params"])
    found = faulty(state, state.model.logp(prompt + made), count, scoring=not made)
    entries = [
        [None if i == start else logp, token, None]
        for i, (token, (logp, _)) in enumerate(zip(prompt + made, found, strict=True))
    ]
    if state.fault == "no-echo":
        return {"text": "", "meta_info": {"output_token_logprobs": entries[len(prompt) :]}}
    return {
        "text": state.model.lm.tokenizer.decode(made),
        "meta_info": {
            "input_token_logprobs": entries[start : len(prompt)],
            "output_token_logprobs": entries[len(prompt) :],
            "output_top_logprobs": [[[p, i, None] for i, p in tops.items()] for _, tops in found[len(prompt) :]],
        },
    }


Found = list[tuple[float | None, dict[int, float]]]


def faulty(state: Any, found: Found, count: int, *, scoring: bool) -> Found:
    if state.fault == "shifted" and scoring:
        return [found[0], found[0], *found[1:-1]] if len(found) > 1 else found
    if state.fault == "order":
        return [(None if p is None else p - 0.3 * (count % 2), tops) for p, tops in found]
    if state.fault == "nan":
        return [(p if i < len(found) - 2 else float("nan"), tops) for i, (p, tops) in enumerate(found)]
    return found


@contextmanager
def serve(lm: LM, fault: str | int | None = None, context: int | None = None) -> Iterator[Any]:
    """A running server: ``.address``, ``.count`` of requests, ``.paths``."""
    with serving(lambda request: answer(server, request)) as server:
        server.model, server.fault, server.count, server.paths, server.counting = (
            Model(lm),
            fault,
            0,
            [],
            threading.Lock(),
        )
        server.context = context
        yield server
