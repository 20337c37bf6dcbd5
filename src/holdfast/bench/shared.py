"""The harness's model class over our engine: requests that share a prefix (few-shot examples, the question) pay for it
once.

In: the harness's (context ids, continuation ids), or a context and where its answer ends. Out: log P(continuation |
context) and whether greedy decoding would write it; or the answer. Where little is shared the harness's own batches
are as fast at scoring, and are used; so are they for answers that are not greedy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from holdfast.data.chat_template import generation_prompt
from holdfast.errors import HoldfastError
from holdfast.lm import LM, stop_ids
from holdfast.lm.engine import Engine, Request
from holdfast.lm.tree import distinct_tokens
from holdfast.progress import Progress
from holdfast.records import Message, Role

_WORTH = 1.5
"""Tokens of the plain way over tokens of the shared way from which on sharing pays for its bookkeeping."""
_SLICE = 4096
"""Requests per call: what a killed run can lose, and how far apart two requests may stand and still share."""
_ANSWERS = 256
"""The same for answers, which take longer."""
_GREEDY = {"until", "do_sample", "temperature", "max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens"}
"""Settings of generation that the engine serves."""

Ask = tuple[Any, list[int], list[int]]


def harness_model(
    lm: LM, *, batch_size: int, template: str, sharing: bool = True, progress: Progress | None = None
) -> Any:
    """The model as lm-evaluation-harness takes it: its own ``HFLM`` with our templates, and our scorer where that is
    faster.

    Args:
        template: name of a template of ``holdfast.data.chat_template``, or ``none``.
        sharing: False leaves all scoring to the harness.
        progress: is told of every request and every answer.
    """
    from lm_eval.models.huggingface import HFLM

    render = chat_renderer(lm.tokenizer, template)
    line = progress or Progress("request")

    class Shared(HFLM):  # made here, since the harness is an extra
        def _loglikelihood_tokens(
            self, requests: list[Ask], disable_tqdm: bool = False, override_bs: int | None = None
        ) -> Any:
            _check_answers(requests)
            if not sharing or not _shares(requests, self.max_length):
                return super()._loglikelihood_tokens(requests, disable_tqdm=disable_tqdm, override_bs=override_bs)
            return _scored(lm, requests, self.max_length, self.cache_hook)

        def set_cache_hook(self, cache_hook: Any) -> None:
            super().set_cache_hook(_CountedAnswers(cache_hook, line))

        def loglikelihood(self, requests: list[Any], disable_tqdm: bool = False) -> Any:
            line.expect(len(requests))
            return super().loglikelihood(requests, disable_tqdm=disable_tqdm)

        def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = False) -> Any:
            line.expect(len(requests))
            return super().loglikelihood_rolling(requests, disable_tqdm=disable_tqdm)

        def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
            line.expect(len(requests))
            plain_greedy = self.think_end_token is None and all(_is_greedy(request.args[1]) for request in requests)
            if not sharing or not plain_greedy or not Engine(lm.model, lm.context).fits(lm.context):
                return list(super().generate_until(requests, disable_tqdm=disable_tqdm))
            return _written(self, lm, [request.args for request in requests])

        def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
            return render(chat_history, add_generation_prompt)

        def chat_template(self, chat_template: bool | str = False) -> str | None:
            return super().chat_template(chat_template) if template == "chat" else f"holdfast template '{template}'"

    return Shared(
        pretrained=lm.model,
        tokenizer=lm.tokenizer,
        batch_size=batch_size,
        max_length=lm.context,
        device=str(lm.model.device),
        backend="causal",
    )


class _CountedAnswers:
    """The harness's hook, which is given every answer as it comes, and counts it."""

    def __init__(self, hook: Any, progress: Progress) -> None:
        self.hook, self.progress = hook, progress

    def add_partial(self, *answer: Any) -> None:
        """Pass an answer on."""
        self.progress.add()
        self.hook.add_partial(*answer)


def chat_renderer(tokenizer: Any, template: str) -> Callable[..., str]:
    """Messages as the harness holds them -> the prompt, in one of our templates. An open last answer is continued, not
    closed.
    """

    def render(history: list[dict[str, str]], add_generation_prompt: bool = True, **_: Any) -> str:
        asked, begun = (history, "") if add_generation_prompt else (history[:-1], history[-1]["content"])
        messages = [Message(Role[m["role"].upper()], m["content"]) for m in asked]
        return generation_prompt(messages, template, tokenizer) + begun

    return render


def _scored(lm: LM, asks: Sequence[Ask], longest: int, hook: Any) -> list[tuple[float, bool]]:
    answers: list[tuple[float, bool]] = []
    engine = Engine(lm.model, lm.context)
    for start in range(0, len(asks), _SLICE):
        part = asks[start : start + _SLICE]
        requests = [
            Request(tuple(_kept(context, continuation, longest)), (tuple(continuation),))
            for _, context, continuation in part
        ]
        for (texts, _, _), scored in zip(part, engine.score(requests), strict=True):
            answers.append((float(scored.total[0]), scored.is_greedy[0]))
            if texts is not None:
                hook.add_partial("loglikelihood", texts, answers[-1])
    return answers


def _is_greedy(settings: dict[str, Any]) -> bool:
    sampled = settings.get("do_sample") or settings.get("temperature")
    return not sampled and settings.keys() <= _GREEDY


def _written(model: Any, lm: LM, asks: Sequence[tuple[str, dict[str, Any]]]) -> list[str]:
    """Greedy answers, cut where the harness cuts them. ``asks``: contexts and their settings."""
    from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs, postprocess_generated_text

    answers = [""] * len(asks)
    engine, ends = Engine(lm.model, lm.context), stop_ids(lm.model, lm.tokenizer)
    order = sorted(range(len(asks)), key=lambda i: (repr(asks[i][1]), asks[i][0]))  # one setting, then what is shared
    while order:
        settings = asks[order[0]][1]
        part = [i for i in order[:_ANSWERS] if asks[i][1] == settings]
        del order[: len(part)]
        kwargs = normalize_gen_kwargs(settings, model.max_gen_toks)
        eos = model.tok_decode(model.eot_token_id, skip_special_tokens=False)
        until = handle_stop_sequences(kwargs["until"], eos=eos)
        room = model.max_length - kwargs["max_gen_toks"]
        prompts = [tuple(model.tok_batch_encode([asks[i][0]])[0][0].tolist()[-room:]) for i in part]
        ended = _ender(model, until)
        for i, answer in zip(part, engine.generate(prompts, kwargs["max_gen_toks"], ends, ended=ended), strict=True):
            answers[i] = postprocess_generated_text(model.tok_decode(list(answer.ids)), until, None)
            model.cache_hook.add_partial("generate_until", asks[i], answers[i])
    return answers


def _ender(model: Any, until: Sequence[str]) -> Callable[[tuple[int, ...]], bool]:
    """Whether an answer so far holds one of these texts. Only its end is read: what stands before was looked at."""
    tail = 8 + 4 * max(map(len, until), default=0)  # a character may take four tokens of one byte

    def ended(ids: tuple[int, ...]) -> bool:
        text = model.tok_decode(list(ids[-tail:]))
        return any(stop and stop in text for stop in until)

    return ended


def _kept(context: list[int], continuation: list[int], longest: int) -> list[int]:
    """The end of the context that fits beside the continuation, whose last token need not be read: the harness's
    cut.
    """
    return context[-max(1, longest + 1 - len(continuation)) :]


def _check_answers(requests: Sequence[Ask]) -> None:
    """The harness asserts that there is something to score.

    Raises:
        HoldfastError: an answer of no token, with its prompt.
    """
    for texts, _, answer in requests:
        if not answer:
            prompt = str(texts[0]) if texts else ""
            raise HoldfastError(
                f"an answer is empty after {prompt if len(prompt) <= 60 else '...' + prompt[-60:]!r}: it has no token "
                "to score",
                hint="leave such items out of the task's data",
            )


def _shares(asks: Sequence[Ask], longest: int) -> bool:
    """Whether the tree of prefixes is so much smaller than its sequences that it pays."""
    sequences = [_kept(context, continuation, longest) + continuation[:-1] for _, context, continuation in asks]
    return bool(asks) and sum(map(len, sequences)) >= _WORTH * distinct_tokens(sequences)
