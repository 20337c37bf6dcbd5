"""The harness's model class over our scorer: requests that share a prefix (few-shot examples, the question) pay for it
once.

In: the harness's (context ids, continuation ids). Out: log P(continuation | context) and whether greedy decoding would
write it. A continuation of n tokens becomes n requests of one token each, after ever longer prompts: the tree of
prefixes holds them all once, and each says what the model itself would write there. Where little is shared the
harness's own batches are as fast, and are used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from holdfast import prefix
from holdfast.data.chat_template import generation_prompt
from holdfast.errors import HoldfastError
from holdfast.lm import LM
from holdfast.records import Message, Role

_WORTH = 1.5
"""Tokens of the plain way over tokens of the shared way from which on sharing pays for its bookkeeping."""
_LONGEST = 64
"""Continuations longer than this (rolling windows of perplexity) are left to the harness."""
_SLICE = 4096
"""Requests per call: what a killed run can lose, and how far apart two requests may stand and still share."""

Ask = tuple[Any, list[int], list[int]]


def harness_model(lm: LM, *, batch_size: int, template: str, sharing: bool = True) -> Any:
    """The model as lm-evaluation-harness takes it: its own ``HFLM`` with our templates, and our scorer where that is
    faster.

    Args:
        template: name of a template of ``holdfast.data.chat_template``, or ``none``.
        sharing: False leaves all scoring to the harness.
    """
    from lm_eval.models.huggingface import HFLM

    render = chat_renderer(lm.tokenizer, template)

    class Shared(HFLM):  # made here, since the harness is an extra
        def _loglikelihood_tokens(
            self, requests: list[Ask], disable_tqdm: bool = False, override_bs: int | None = None
        ) -> Any:
            _check_answers(requests)
            if not sharing or not _shares(requests, self.max_length):
                return super()._loglikelihood_tokens(requests, disable_tqdm=disable_tqdm, override_bs=override_bs)
            return _scored(lm, requests, self.max_length, self.cache_hook)

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
    for start in range(0, len(asks), _SLICE):
        part = asks[start : start + _SLICE]
        requests, owners = [], []
        for number, (_, context, continuation) in enumerate(part):
            prompt = _kept(context, continuation, longest)
            for place, token in enumerate(continuation):
                requests.append(prefix.Request((*prompt, *continuation[:place]), ((token,),)))
                owners.append(number)
        scores, _ = prefix.score(lm, requests)
        totals, greedy = [0.0] * len(part), [True] * len(part)
        for number, request, score in zip(owners, requests, scores, strict=True):
            totals[number] += float(score.total[0])
            greedy[number] &= score.top == request.continuations[0][0]
        for ask, answer in zip(part, zip(totals, greedy, strict=True), strict=True):
            answers.append(answer)
            if ask[0] is not None:
                hook.add_partial("loglikelihood", ask[0], answer)
    return answers


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
    if not asks or any(len(continuation) > _LONGEST for _, _, continuation in asks):
        return False
    sequences = [_kept(context, continuation, longest) + continuation[:-1] for _, context, continuation in asks]
    return sum(map(len, sequences)) >= _WORTH * _tree_size(sequences)


def _tree_size(sequences: Iterable[list[int]]) -> int:
    """Distinct prefixes: in sorted order, every sequence adds what it does not share with the one before."""
    size = 0
    before: list[int] = []
    for ids in sorted(sequences):
        shared = next((i for i, (a, b) in enumerate(zip(ids, before)) if a != b), min(len(ids), len(before)))
        size, before = size + len(ids) - shared, ids
    return size
