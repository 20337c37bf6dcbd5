"""Cross-task scoring against a plain re-creation of the released flow, on the same prompts.

    released    one prompt at a time, nothing reused, 15 greedy tokens each, text parsed afterwards
    holdfast    log-probs of all labels, every distinct prefix once, no decoding step
    answers     15 greedy tokens each: transformers' `generate` in left-padded batches of 16, against the engine

The grid has the shape of the paper's: 10 sources x 5 targets, one retrieved example, pieces of the lengths measured
there on the Llama-2 tokenizer, the share of distinct demonstrations as there (1,050 of 2,502). The model is a random
Llama of 15 M parameters, float32.

    python benchmarks/crosstask.py [--items 8] [--rounds 3] [--threads 2]
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from typing import Any

import numpy as np
import torch
import transformers

from holdfast.lm import LM, plain
from holdfast.lm.engine import Cost, Engine, Request, Scored
from holdfast.lm.tree import distinct_tokens

SOURCES = {
    "sst2": 183,
    "qqp": 250,
    "arc_easy": 246,
    "ag_news": 267,
    "pos": 266,
    "ner": 291,
    "mnli": 292,
    "csqa": 316,
    "boolq": 377,
    "race": 631,
}
"""Mean tokens of a prompt with one example of this source."""
TARGETS, VOCABULARY = 5, 16_384
DEFINITION_S, DEFINITION_T, INPUT = 40, 77, 55
DISTINCT, COMMON = 1050 / 2502, 0.2
"""Distinct demonstrations per (source, target) and prompt, and how many of them serve other targets too. With these the
counted grid shares what the real prompts share: 46.7 % of their tokens are distinct per pair, 44 % over the grid."""


class Tokenizer:
    """Only what ``LM`` asks of a tokenizer when prompts are ids already."""

    model_max_length, pad_token_id, eos_token_id = 2048, 0, None


def model() -> LM:
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=384, intermediate_size=768, num_hidden_layers=6, num_attention_heads=6,
        num_key_value_heads=6, max_position_embeddings=2048, tie_word_embeddings=True, bos_token_id=1,
        eos_token_id=None, pad_token_id=0,
    )  # fmt: skip
    return LM(transformers.LlamaForCausalLM(config).eval(), Tokenizer(), "random llama")


def prompts(items: int, *, fixed: bool = False, seed: int = 0) -> list[Request]:
    """A grid of ``items`` test items per target. ``fixed``: one demonstration per source for all of them."""
    rng = random.Random(seed)

    def piece(mean: float, spread: float = 0.3) -> tuple[int, ...]:
        return tuple(rng.randrange(3, VOCABULARY) for _ in range(max(4, round(rng.gauss(mean, spread * mean)))))

    targets = [
        (piece(DEFINITION_T, 0.2), [piece(INPUT) for _ in range(items)], labels(n, rng)) for n in (4, 3, 4, 4, 3)
    ]
    requests = []
    for mean in SOURCES.values():
        definition = piece(DEFINITION_S, 0.2)
        length = mean - DEFINITION_S - DEFINITION_T - INPUT - 1
        count = 1 if fixed else max(1, round(DISTINCT * items))
        common = [piece(length) for _ in range(1 if fixed else max(1, round(COMMON * count)))]
        for target, inputs, space in targets:
            demos = [*common, *(piece(length) for _ in range(count - len(common)))]
            shown = demos + [rng.choice(demos) for _ in range(items - len(demos))]  # every demonstration at least once
            requests += [Request((1, *definition, *demo, *target, *text), space) for text, demo in zip(inputs, shown)]
    return requests


def labels(count: int, rng: random.Random) -> tuple[tuple[int, ...], ...]:
    """Labels of one token, as all labels of the paper are with the Llama-2 tokenizer."""
    return tuple((token,) for token in rng.sample(range(3, VOCABULARY), count))


def released(lm: LM, requests: list[Request]) -> tuple[float, int]:
    """Seconds and token-forwards of the released flow."""
    started, tokens = time.perf_counter(), 0
    for request in requests:
        ids = torch.tensor([request.prompt])
        made = lm.model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=15,
            min_new_tokens=15,
            do_sample=False,
            pad_token_id=0,
        )
        tokens += made.shape[1] - 1
    return time.perf_counter() - started, tokens


def ours(lm: LM, requests: list[Request]) -> tuple[float, Any]:
    started = time.perf_counter()
    _, cost = score(lm, requests)
    return time.perf_counter() - started, cost


def score(lm: LM, requests: list[Request]) -> tuple[list[Scored], Cost]:
    engine = Engine(lm.model, lm.context)
    return engine.score(requests), engine.cost


def batched(lm: LM, requests: list[Request], size: int = 16) -> tuple[float, list[tuple[int, ...]]]:
    """Seconds and answers of transformers' own batched generation, prompts of like length together."""
    started, answers = time.perf_counter(), {}
    order = sorted(dict.fromkeys(request.prompt for request in requests), key=len)
    for start in range(0, len(order), size):
        batch = order[start : start + size]
        width = max(map(len, batch))
        ids, mask = torch.zeros(len(batch), width, dtype=torch.long), torch.zeros(len(batch), width, dtype=torch.long)
        for row, prompt in enumerate(batch):
            ids[row, width - len(prompt) :], mask[row, width - len(prompt) :] = torch.tensor(prompt), 1
        out = lm.model.generate(
            input_ids=ids, attention_mask=mask, max_new_tokens=15, min_new_tokens=15, do_sample=False, pad_token_id=0
        )
        answers |= {prompt: tuple(row[width:].tolist()) for prompt, row in zip(batch, out, strict=True)}
    return time.perf_counter() - started, [answers[request.prompt] for request in requests]


def answered(lm: LM, requests: list[Request]) -> tuple[float, list[tuple[int, ...]]]:
    started = time.perf_counter()
    answers = Engine(lm.model, lm.context).generate([request.prompt for request in requests], 15, frozenset())
    return time.perf_counter() - started, [answer.ids for answer in answers]


def generation(lm: LM, requests: list[Request], rounds: int) -> dict[str, Any]:
    """Both ways to answer, in turn. The model is random, so near-ties may part the answers: their share is told."""
    seconds: dict[str, list[float]] = {"generate": [], "holdfast": []}
    answers: dict[str, list[tuple[int, ...]]] = {}
    for _ in range(rounds):
        for name, way in (("generate", batched), ("holdfast", answered)):
            used, answers[name] = way(lm, requests)
            seconds[name].append(used)
    same = sum(a == b for a, b in zip(answers["generate"], answers["holdfast"], strict=True))
    return {
        "seconds": {name: round(statistics.median(values), 2) for name, values in seconds.items()},
        "times_faster": round(statistics.median(a / b for a, b in zip(seconds["generate"], seconds["holdfast"])), 2),
        "same_answers": f"{same} of {len(requests)}",
    }


def shares(items: int) -> dict[str, Any]:
    """Distinct tokens of a whole grid as a share of its prompt tokens: what exact sharing can save, counted without a
    model.
    """
    found = {}
    for name, fixed in (("retrieved", False), ("fixed", True)):
        ids = [request.prompt for request in prompts(items, fixed=fixed)]
        total, distinct = sum(map(len, ids)), distinct_tokens(ids)
        found[name] = {
            "prompts": len(ids),
            "prompt_tokens": total,
            "distinct_tokens": distinct,
            "percent": round(100 * distinct / total, 1),
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=8, help="test items per target in the timed grid")
    parser.add_argument("--counted-items", type=int, default=500, help="test items per target in the counted grid")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    lm = model()
    made: dict[str, Any] = {
        "parameters": lm.model.num_parameters(),
        "threads": given.threads,
        "counted": shares(given.counted_items),
    }
    for name, fixed in (("retrieved", False), ("fixed", True)):
        requests = prompts(given.items, fixed=fixed)
        score(lm, requests[:20])
        released(lm, requests[:3])
        before, after, tokens, cost = [], [], 0, None
        for _ in range(given.rounds):  # interleaved: whatever else the machine does hits both
            seconds, tokens = released(lm, requests)
            before.append(seconds)
            seconds, cost = ours(lm, requests)
            after.append(seconds)
        assert cost is not None
        sample = requests[:: max(1, len(requests) // 40)]
        fast, expected = score(lm, sample)[0], plain.score(lm.model, sample)
        made[name] = {
            "prompts": len(requests),
            "prompt_tokens": cost.plain_tokens,
            "released": {
                "token_forwards": tokens,
                "calls": 15 * len(requests),
                "seconds": round(statistics.median(before), 2),
            },
            "holdfast": {
                "token_forwards": cost.tokens,
                "padded": cost.padded,
                "calls": cost.calls,
                "seconds": round(statistics.median(after), 2),
            },
            "share_of_prompt_tokens_percent": round(100 * cost.tokens / cost.plain_tokens, 1),
            "times_faster": round(statistics.median(b / a for b, a in zip(before, after)), 1),
            "largest_difference_nats": float(max(np.abs(a.total - b.total).max() for a, b in zip(fast, expected))),
        }
        made[name]["answers"] = generation(lm, requests, given.rounds)
    print(json.dumps(made, indent=1))


if __name__ == "__main__":
    main()
