"""MMLU by log-likelihood, five shots, through lm-evaluation-harness: its own scoring against ours, on a random Llama.

    python benchmarks/harness.py [--rounds 3] [--subjects 3] [--items 20] [--json out.json]

The clock runs over `loglikelihood` of the same requests (real questions of ../shared/data/mmlu, the embedded model's
tokenizer): no loading, no prompt building. Equal answers are checked in `tests/bench/test_bench_harness.py`, and here
between the ways.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from measure import median, ratio, rounds

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
SUBJECTS = ["abstract_algebra", "anatomy", "astronomy", "marketing", "virology"]
WAYS = {"ours": (True, 8), "harness, batches of 8": (False, 8), "harness, one by one": (False, 1)}
SHAPE = {
    "hidden_size": 256,
    "intermediate_size": 1024,
    "num_hidden_layers": 6,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--subjects", type=int, default=3)
    parser.add_argument("--items", type=int, default=20)
    parser.add_argument("--json")
    parser.add_argument("--case")
    options = parser.parse_args()
    if options.case:
        print(json.dumps(case(*WAYS[options.case], options.subjects, options.items)))
        return
    if not DATA.is_dir():
        sys.exit("the folder ../shared with MMLU is absent")
    size = ["--subjects", str(options.subjects), "--items", str(options.items)]
    found = rounds({way: [__file__, "--case", way, *size] for way in WAYS}, options.rounds)
    sums = [run["sum"] for runs in found.values() for run in runs]
    print(f"sums of log-probs differ by at most {max(sums) - min(sums):.1e} of {abs(sums[0]):.0f}")
    print("| | seconds | x ours | requests | tokens |\n|---|---|---|---|---|")
    for way, runs in found.items():
        times = ratio(runs, found["ours"], "seconds")
        print(f"| {way} | {median(runs, 'seconds'):.2f} | {times:.1f} | {runs[0]['requests']} | {runs[0]['tokens']} |")
    if options.json:
        Path(options.json).write_text(json.dumps(found, indent=1))


def case(sharing: bool, batch_size: int, subjects: int, items: int) -> dict[str, Any]:
    import torch
    import transformers as tf

    from holdfast.bench.harness import Settings, find_tasks
    from holdfast.bench.shared import harness_model
    from holdfast.bench.suites import pins_of
    from holdfast.lm import LM, load_tokenizer

    tokenizer = load_tokenizer("pocket")
    tokenizer.model_max_length = 2048
    torch.manual_seed(0)
    config = tf.LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=2048, **SHAPE)
    model = harness_model(
        LM(tf.LlamaForCausalLM(config).eval(), tokenizer, "random"),
        batch_size=batch_size,
        template="none",
        sharing=sharing,
    )
    with tempfile.TemporaryDirectory() as folder:
        tasks = find_tasks(
            pins_of([f"mmlu_{name}" for name in SUBJECTS[:subjects]]), Settings("none", Path(folder), str(DATA))
        )["tasks"]
        asks = []
        for task in tasks.values():
            task.set_fewshot_seed(seed=0)
            task.build_all_requests(limit=items, rank=0, world_size=1)
            asks += task.instances
    tokens = sum(len(ids) for ids in tokenizer([ask.args[0] for ask in asks])["input_ids"])
    model.loglikelihood(asks[:4], disable_tqdm=True)  # warm
    start = time.perf_counter()
    answers = model.loglikelihood(asks, disable_tqdm=True)
    return {
        "seconds": time.perf_counter() - start,
        "sum": sum(a for a, _ in answers),
        "requests": len(asks),
        "tokens": tokens,
    }


if __name__ == "__main__":
    main()
