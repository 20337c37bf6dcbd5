"""Wall time and token-forwards of scoring one set, against the flow of the released package, re-created plainly.

    python benchmarks/sensitivity.py [--repeats 3] [--threads 2] [--shape 0] [--clock wall] [--json FILE]

The model is a random Llama of 15 M parameters (hidden 384, 6 layers, vocabulary 16,384, float32). The plain flow is
what the package does: one ``generate`` per prompt, then a forward pass over prompt and response for every pair, with
softmax and log over all positions. All flows run in turn, ``repeats`` times, and medians are compared. With 4 distinct
responses, or shared halves, the plain flow does the same work as without (it neither merges nor shares), so it is timed
once per round. Every cell of the first case, and 12 drawn cells of the others, must agree within 1e-4 nats.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import torch

from holdfast.lm.engine import Engine, Request
from holdfast.lm.plain import cell

Ids = tuple[int, ...]
SHAPES = ((11, 200, 30), (21, 120, 5), (21, 600, 5))
TARGETS = {"distinct": (6, 13, 17), "4 distinct": (9, 18, 19), "4 distinct, half shared": (12, 28, 32)}
VOCABULARY = 16_384


def model_of(seed: int = 0) -> Any:
    import transformers

    torch.manual_seed(seed)
    config = transformers.LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=384, intermediate_size=1024, num_hidden_layers=6, num_attention_heads=6,
        num_key_value_heads=6, max_position_embeddings=1024, tie_word_embeddings=True, bos_token_id=0,
        eos_token_id=None, pad_token_id=0,
    )  # fmt: skip
    model = transformers.LlamaForCausalLM(config).eval()
    for parameter in model.parameters():  # larger than the usual start, so that prompts lead to different responses
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.06)
    model.generation_config.eos_token_id = None
    return model


def prompts_of(n: int, length: int, shared: bool, seed: int = 0) -> list[Ids]:
    rng = np.random.default_rng(seed)
    head = rng.integers(1, VOCABULARY, length // 2 if shared else 0)
    return [tuple(int(i) for i in (*head, *rng.integers(1, VOCABULARY, length - len(head)))) for _ in range(n)]


Choose = Callable[[list[Ids]], list[Ids]]


@torch.no_grad()
def released_flow(model: Any, prompts: Sequence[Ids], new_tokens: int, choose: Choose) -> tuple[np.ndarray, int]:
    """One generate per prompt, one pass per pair; log of softmax over all positions; one ``.item()`` per token."""
    tokens, made = 0, []
    for prompt in prompts:
        ids = torch.tensor([prompt])
        out = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=new_tokens,
            pad_token_id=0,
        )
        made.append(tuple(out[0, len(prompt) :].tolist()))
        tokens += len(prompt) + new_tokens - 1
    responses = choose(made)
    logp_XY = np.zeros((len(prompts), len(prompts)))
    for x, prompt in enumerate(prompts):
        for y, response in enumerate(responses):
            logits = model(input_ids=torch.tensor([prompt + response])).logits
            logp = torch.log(torch.softmax(logits, -1))
            logp_XY[x, y] = sum(logp[0, len(prompt) - 1 + t, token].item() for t, token in enumerate(response))
            tokens += len(prompt) + len(response)
    return logp_XY, tokens


def ours(model: Any, prompts: Sequence[Ids], new_tokens: int, choose: Choose) -> tuple[np.ndarray, int]:
    """What ``score`` does for a set, with the responses exchanged between its two steps."""
    engine = Engine(model, 1024)
    responses = choose([answer.ids for answer in engine.generate(prompts, new_tokens, frozenset())])
    distinct = tuple(dict.fromkeys(responses))
    total = {}
    for x, scored in enumerate(engine.score([Request(prompt, distinct) for prompt in prompts])):
        for response, value in zip(distinct, scored.total, strict=True):
            total[x, response] = float(value)
    return np.array([[total[x, r] for r in responses] for x in range(len(prompts))]), engine.cost.tokens


def formula(n: int, length: int, new_tokens: int, responses: Sequence[Ids], shared: bool) -> int:
    """C + N (P - C) + N (R - 1) + N T, where T are the inner nodes of the tree of distinct responses (at most U (R -
    1)).
    """
    common = length // 2 if shared else 0
    nodes = {response[:k] for response in responses for k in range(1, new_tokens)}
    return common + n * (length - common) + n * (new_tokens - 1) + n * len(nodes)


def measure(model: Any, shape: tuple[int, int, int], repeats: int, clock: Callable[[], float]) -> list[dict[str, Any]]:
    n, length, new_tokens = shape
    prompts = {case: prompts_of(n, length, "shared" in case) for case in TARGETS}
    chosen: dict[str, list[Ids]] = {}

    def chooser(case: str) -> Choose:
        def choose(made: list[Ids]) -> list[Ids]:
            chosen[case] = made if case == "distinct" else [made[i % 4] for i in range(len(made))]
            return chosen[case]

        return choose

    seconds: dict[str, list[float]] = {name: [] for name in ("released", *TARGETS)}
    results: dict[str, tuple[np.ndarray, int]] = {}
    ours(model, prompts["distinct"][:3], new_tokens, lambda made: made)  # warm-up
    for _ in range(repeats):
        for name in seconds:
            flow, case = (released_flow, "distinct") if name == "released" else (ours, name)
            started = clock()
            results[name] = flow(model, prompts[case], new_tokens, chooser(case))
            seconds[name].append(clock() - started)
    middle = {name: statistics.median(values) for name, values in seconds.items()}
    rows = []
    for case, targets in TARGETS.items():
        expected = formula(n, length, new_tokens, chosen[case], "shared" in case)
        assert results[case][1] == expected, (results[case][1], expected)
        gap = largest_gap(
            model, prompts[case], chosen[case], results[case][0], results["released"][0] if case == "distinct" else None
        )
        assert gap < 1e-4, gap
        rows.append({
            "shape": shape,
            "case": case,
            "distinct": len(set(chosen[case])),
            "released_tokens": results["released"][1],
            "tokens": results[case][1],
            "released_seconds": round(middle["released"], 3),
            "seconds": round(middle[case], 3),
            "fewer_tokens": round(results["released"][1] / results[case][1], 2),
            "faster": round(middle["released"] / middle[case], 2),
            "target": targets[SHAPES.index(shape)],
            "max_difference": gap,
        })  # fmt: skip
    return rows


def largest_gap(
    model: Any, prompts: list[Ids], responses: list[Ids], logp_XY: np.ndarray, plain_XY: np.ndarray | None
) -> float:
    if plain_XY is not None:
        return float(np.abs(logp_XY - plain_XY).max())
    drawn = np.random.default_rng(0).integers(0, len(prompts), (12, 2))
    return max(abs(float(cell(model, prompts[x], responses[y]).sum()) - logp_XY[x, y]) for x, y in drawn)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--shape", type=int, default=None, help="number of one shape")
    parser.add_argument(
        "--clock", choices=("wall", "cpu"), default="wall", help="cpu: processor time, for a machine with other work"
    )
    parser.add_argument("--json", default=None)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model = model_of()
    rows = []
    for shape in SHAPES if options.shape is None else [SHAPES[options.shape]]:
        for row in measure(
            model, shape, options.repeats, time.process_time if options.clock == "cpu" else time.perf_counter
        ):
            print(json.dumps(row), flush=True)
            rows.append(row)
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump({"threads": options.threads, "torch": torch.__version__, "rows": rows}, file, indent=1)


if __name__ == "__main__":
    main()
