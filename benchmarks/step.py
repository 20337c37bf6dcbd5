"""Whole optimizer steps on the same examples: Holdfast, a plain ``transformers.Trainer``, TRL's ``SFTTrainer``, and the
WIT reference form; padded, packed and padding-free.

    python benchmarks/step.py [--quick] [--json out.json]

Random Llama models made in place, real text lengths: dolly (``../shared/data/dolly_3k``) if it is there, else
``pocket:instructions``, tokenised once by a byte-level BPE that is trained on these texts. All trainers see the same
ids in the same order, with the same optimizer, in float32; that the losses agree step by step is printed. Each
(trainer, weights, model) runs in its own process, rounds are interleaved. The clocks (wall, and processor time for
machines that do other work too) run from the end of the first step to the end of the last. The base of the ratios is
the plain Trainer at (0, 1) and the reference form at (0.2, 0.8), within each round.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import measure

Pair = tuple[float, float]
DOLLY = Path(__file__).resolve().parents[2] / "shared/data/dolly_3k/data.jsonl"
VOCABULARY, LONGEST = 32000, 512


@dataclass(frozen=True)
class Job:
    """A model's shape and the batch: ``micro`` examples per forward pass, ``accumulate`` of them per step, ``steps``
    after the first.
    """

    name: str
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    intermediate: int
    vocabulary: int
    micro: int
    accumulate: int
    steps: int


JOBS = {
    "small": Job("small", 128, 4, 4, 4, 384, VOCABULARY, micro=4, accumulate=2, steps=5),
    "smollm2": Job("SmolLM2-135M with 4 of its 30 layers", 576, 4, 9, 3, 1536, 49152, micro=4, accumulate=2, steps=3),
    "quick": Job("tiny", 64, 2, 2, 2, 128, VOCABULARY, micro=4, accumulate=2, steps=3),
}
WAYS: dict[str, tuple[str, Pair]] = {
    "holdfast (0, 1)": ("auto", (0, 1)),
    "holdfast packed (0, 1)": ("packed", (0, 1)),
    "holdfast padded (0, 1)": ("padded", (0, 1)),
    "Trainer (0, 1)": ("trainer", (0, 1)),
    "Trainer padding-free (0, 1)": ("flattened", (0, 1)),
    "TRL SFTTrainer (0, 1)": ("trl", (0, 1)),
    "TRL SFTTrainer padding-free (0, 1)": ("trl-free", (0, 1)),
    "WIT reference form (0, 1)": ("reference", (0, 1)),
    "holdfast (0.2, 0.8)": ("auto", (0.2, 0.8)),
    "WIT reference form (0.2, 0.8)": ("reference", (0.2, 0.8)),
}


def prepare(folder: Path, examples: int) -> dict[str, Any]:
    """Train the tokenizer, tokenise with roles, save both; say what the data is like."""
    import torch
    from tokenizers import ByteLevelBPETokenizer
    from transformers import PreTrainedTokenizerFast

    from holdfast.data.examples import load_examples
    from holdfast.records import RESPONSE_ROLES
    from holdfast.tune.roles import tokenize
    from holdfast.tune.weights import role_weights

    found = load_examples(str(DOLLY) if DOLLY.exists() else "pocket:instructions")
    bpe = ByteLevelBPETokenizer()
    texts = [m.content for e in found for m in e.messages]
    bpe.train_from_iterator(
        texts, vocab_size=VOCABULARY, min_frequency=1, special_tokens=["<pad>", "<eos>"], show_progress=False
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe._tokenizer, pad_token="<pad>", eos_token="<eos>")
    tokenizer.save_pretrained(folder / "tokenizer")
    tokens, _ = tokenize(found[:examples], tokenizer, role_weights(0, 1), template="dialogue", max_length=LONGEST)
    torch.save([[torch.from_numpy(t.ids), torch.from_numpy(t.roles)] for t in tokens], folder / "tokens.pt")
    response = sum(int(sum((t.roles == r).sum() for r in RESPONSE_ROLES)) for t in tokens)
    total = sum(map(len, tokens))
    return {
        "data": "dolly_3k" if DOLLY.exists() else "pocket:instructions",
        "examples": len(tokens),
        "mean_tokens": round(total / len(tokens), 1),
        "response_share": round(response / total, 3),
        "tokenizer_entries": len(tokenizer),
    }


def case(trainer: str, pair: Pair, job: Job, folder: Path) -> dict[str, Any]:
    """One process: train, and report speed, peak memory and the loss of every step."""
    import torch
    import transformers

    from holdfast.records import Tokens

    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        hidden_size=job.hidden,
        num_hidden_layers=job.layers,
        num_attention_heads=job.heads,
        num_key_value_heads=job.kv_heads,
        intermediate_size=job.intermediate,
        vocab_size=job.vocabulary,
        tie_word_embeddings=True,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=1,
    )
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    tokens = [Tokens(ids.numpy(), roles.numpy()) for ids, roles in torch.load(folder / "tokens.pt")]
    arguments = {
        "output_dir": str(folder / "out"),
        "per_device_train_batch_size": job.micro,
        "gradient_accumulation_steps": job.accumulate,
        "max_steps": 1 + job.steps,
        "learning_rate": 1e-4,
        "lr_scheduler_type": "constant",
        "bf16": False,
        "use_cpu": True,
        "gradient_checkpointing": False,
        "report_to": [],
        "save_strategy": "no",
        "logging_steps": 1,
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
        "remove_unused_columns": False,
        "seed": 0,
    }
    made = TRAINERS[trainer](model, tokens, pair, arguments, folder)
    clock = _clock(model)
    made.add_callback(clock)
    with measure.peak_rise() as rise:
        made.train()
    return {
        "tokens_per_second": clock.real / clock.seconds,
        "tokens_per_cpu_second": clock.real / clock.cpu_seconds,
        "positions_per_second": clock.positions / clock.seconds,
        "step_seconds": clock.seconds / job.steps,
        "rise_mb": rise(),
        "peak_mb": measure.peak() / 1e6,
        "losses": [row["loss"] for row in made.state.log_history if "loss" in row],
    }


def _clock(model: Any) -> Any:
    """A callback that measures time and counts positions and tokens from the end of the first step on. Padding has id
    0, text has not.
    """
    from transformers import TrainerCallback

    class Clock(TrainerCallback):
        positions = real = 0
        started = seconds = cpu_started = cpu_seconds = 0.0

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step == 1:
                self.positions = self.real = 0
                self.started, self.cpu_started = time.perf_counter(), time.process_time()
            self.seconds, self.cpu_seconds = time.perf_counter() - self.started, time.process_time() - self.cpu_started

        def count(self, _: Any, inputs: Any) -> None:
            self.positions += inputs[0].numel()
            self.real += int((inputs[0] != 0).sum())

    clock = Clock()
    model.get_input_embeddings().register_forward_pre_hook(clock.count)
    return clock


def _holdfast(batching: str, model: Any, tokens: list[Any], pair: Pair, arguments: dict[str, Any], folder: Path) -> Any:
    import transformers

    from holdfast.tune.batches import TokenDataset, collate
    from holdfast.tune.trainer import Objective, WeightedTrainer
    from holdfast.tune.weights import role_weights

    return WeightedTrainer(
        objective=Objective(role_weights(*pair)),
        batching=batching,
        model=model,
        args=transformers.TrainingArguments(**arguments),
        train_dataset=TokenDataset(tokens),
        data_collator=collate,
    )


def _rows(tokens: list[Any], pair: Pair) -> list[dict[str, Any]]:
    """input_ids, labels (-100 where the weight is 0, and at the first token) and weights, as lists."""
    import numpy as np

    from holdfast.records import RESPONSE_ROLES

    rows = []
    for t in tokens:
        weights = np.where(np.isin(t.roles, RESPONSE_ROLES), pair[1], pair[0])
        weights[0] = 0
        labels = np.where(weights != 0, t.ids, -100)
        rows.append({"input_ids": t.ids.tolist(), "labels": labels.tolist(), "weights": weights.tolist()})
    return rows


def _pad(batch: list[dict[str, Any]]) -> dict[str, Any]:
    """The usual collator: right padding, mask, labels; weights stay beside them."""
    import torch

    width = max(len(row["input_ids"]) for row in batch)
    fill = {"input_ids": 0, "labels": -100, "weights": 0.0}
    made = {key: torch.tensor([row[key] + [fill[key]] * (width - len(row[key])) for row in batch]) for key in batch[0]}
    return made | {"attention_mask": (made["input_ids"] != 0).long()}


def _trainer(model: Any, tokens: list[Any], pair: Pair, arguments: dict[str, Any], folder: Path) -> Any:
    import transformers

    rows = [{key: row[key] for key in ("input_ids", "labels")} for row in _rows(tokens, pair)]
    return transformers.Trainer(
        model=model, args=transformers.TrainingArguments(**arguments), train_dataset=rows, data_collator=_pad
    )


def _flattened(model: Any, tokens: list[Any], pair: Pair, arguments: dict[str, Any], folder: Path) -> Any:
    import transformers

    rows = [{key: row[key] for key in ("input_ids", "labels")} for row in _rows(tokens, pair)]
    collate = transformers.DataCollatorWithFlattening(return_tensors="pt")
    return transformers.Trainer(
        model=model, args=transformers.TrainingArguments(**arguments), train_dataset=rows, data_collator=collate
    )


def _trl(padding_free: bool, model: Any, tokens: list[Any], pair: Pair, arguments: dict[str, Any], folder: Path) -> Any:
    import datasets
    import transformers
    import trl

    tokenizer = transformers.AutoTokenizer.from_pretrained(folder / "tokenizer")
    rows = datasets.Dataset.from_list(
        [{key: row[key] for key in ("input_ids", "labels")} for row in _rows(tokens, pair)]
    )
    config = trl.SFTConfig(
        **arguments, dataset_kwargs={"skip_prepare_dataset": True}, max_length=None, padding_free=padding_free
    )
    return trl.SFTTrainer(model=model, args=config, train_dataset=rows, processing_class=tokenizer)


def _reference(model: Any, tokens: list[Any], pair: Pair, arguments: dict[str, Any], folder: Path) -> Any:
    import torch
    import transformers

    class ReferenceForm(transformers.Trainer):
        """The order of operations of the WIT authors' script, inside a Trainer."""

        loss_is_scaled_for_ga = True

        def compute_loss(
            self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
        ) -> Any:
            labels, weights = inputs.pop("labels"), inputs.pop("weights")
            logits = model(**inputs, use_cache=False).logits.float()
            flat = logits[:, :-1, :].contiguous().view(-1, logits.shape[-1])
            labels, weights = labels[:, 1:].contiguous().view(-1), weights[:, 1:].contiguous().view(-1)
            active = labels != -100
            logp = torch.nn.functional.log_softmax(flat[active], dim=-1)
            at_target = logp[range(len(logp)), labels[active]]
            return -(weights[active] * at_target).sum() / num_items_in_batch

    made = ReferenceForm(
        model=model,
        args=transformers.TrainingArguments(**arguments),
        train_dataset=_rows(tokens, pair),
        data_collator=_pad,
    )
    made.model_accepts_loss_kwargs = True
    return made


TRAINERS = {
    **{batching: partial(_holdfast, batching) for batching in ("auto", "packed", "padded")},
    "trainer": _trainer,
    "flattened": _flattened,
    "trl": partial(_trl, False),
    "trl-free": partial(_trl, True),
    "reference": _reference,
}


def loss_difference(runs: list[dict[str, Any]], base: list[dict[str, Any]]) -> float:
    """Largest difference between the losses of two ways at the same step."""
    return max(abs(a - b) for a, b in zip(runs[0]["losses"], base[0]["losses"], strict=True))


def table(job: Job, results: measure.Results) -> str:
    lines = [
        f"\n{job.name}: H = {job.hidden}, {job.layers} layers, V = {job.vocabulary}; {job.micro} x {job.accumulate} "
        "examples per step\n",
        "| | tokens/s | spread | x base | tokens/processor s | spread | x base | positions/s | peak rise, MB | peak, "
        "MB | loss diff. |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for way, runs in results.items():
        base = results["Trainer (0, 1)" if way.endswith("(0, 1)") else "WIT reference form (0.2, 0.8)"]
        cells = []
        for clock in ("tokens_per_second", "tokens_per_cpu_second"):
            spread = measure.spread(runs, clock) if len(runs) > 1 else "one run"
            cells += [f"{measure.median(runs, clock):.0f}", spread, f"{measure.ratio(runs, base, clock):.2f}"]
        cells += [
            f"{measure.median(runs, 'positions_per_second'):.0f}",
            f"{measure.median(runs, 'rise_mb'):.0f}",
            f"{measure.median(runs, 'peak_mb'):.0f}",
            "" if runs is base else f"{loss_difference(runs, base):.0e}",
        ]
        lines.append(f"| {way} | {' | '.join(cells)} |")
    gain = measure.ratio(results["holdfast (0, 1)"], results["Trainer (0, 1)"], "tokens_per_second")
    lines.append(
        f"\ntokens/s without padding over the padded Trainer's, at least 1.5: {gain:.2f} "
        f"{'met' if gain >= 1.5 else 'MISSED'}"
    )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tiny model, one round")
    parser.add_argument("--json", help="also write the figures to this file")
    parser.add_argument("--job", choices=JOBS, action="append", help="only this model (may be repeated)")
    parser.add_argument("--repetitions", type=int, help="rounds; default 3")
    for hidden in ("--case", "--folder", "--prepare"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.prepare:
        print(json.dumps(prepare(Path(given.folder), int(given.prepare))))
        return
    if given.case:
        trainer, pair = WAYS[given.case]
        print("\n" + json.dumps(case(trainer, pair, JOBS[given.job[0]], Path(given.folder))))
        return
    names = given.job or (["quick"] if given.quick else [name for name in JOBS if name != "quick"])
    about = measure.machine("torch", "transformers", "trl") | {"load": round(os.getloadavg()[0], 2)}
    print(", ".join(f"{key} {value}" for key, value in about.items()))
    saved = []
    with tempfile.TemporaryDirectory() as folder:
        data = measure.run_case([__file__, "--folder", folder, "--prepare", "300"])
        print(", ".join(f"{key} {value}" for key, value in data.items()))
        for name in names:
            cases = {way: [__file__, "--folder", folder, "--job", name, "--case", way] for way in WAYS}
            results = measure.rounds(cases, given.repetitions or (1 if given.quick else 3))
            print(table(JOBS[name], results), flush=True)
            saved.append({"job": asdict(JOBS[name]), "ways": results})
    measure.finish({"about": about, "data": data, "results": saved}, given.json)


if __name__ == "__main__":
    main()
