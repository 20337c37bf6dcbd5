"""The gradient of one optimizer step against float64 on the whole batch, in every way the step can be cut up.

    python benchmarks/exactness.py [--quick] [--json out.json]

Cells: micro-batches {1, 4, 16} x processes {1, 2, over gloo} x {padded, packed, padding-free} x four weight pairs x
{full, LoRA} x five normalizers; float32, 16 examples of 3 to 41 tokens, some without a response, some with weights per
token. The error of a cell is
|g - g64| / |g64| over all trained parameters; g is read after the all-reduce, before the optimizer. g64 is the plain
formula, one example at a time, in float64. The same for what people use today (they have no normalizers; weights other
than 0 and 1 need a subclass). All cells of a number of processes run in one launch. ``--quick`` takes every 19th cell.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import measure

PAIRS = ((0.0, 1.0), (0.2, 0.8), (1.0, 1.0), (1.0, 0.0))
NORMALIZERS = ("nonzero", "weight-sum", "response-count", "example", "role-mean")
BATCHINGS = ("padded", "packed", "padding-free")
MICRO_BATCHES = (1, 4, 16)
EXAMPLES, VOCABULARY = 16, 512


class Cell(NamedTuple):
    """One way to make the step. ``micro`` counts micro-batches over all processes (at least one each)."""

    way: str
    micro: int
    batching: str
    pair: tuple[float, float]
    lora: bool
    normalizer: str


def cells(stride: int) -> list[Cell]:
    """Every ``stride``-th cell of ours, and the others, which divide by the count of targets (with a stride: Trainers
    that go wrong).
    """
    ours = [
        Cell("holdfast", *rest)
        for rest in itertools.product(MICRO_BATCHES, BATCHINGS, PAIRS, (False, True), NORMALIZERS)
    ]
    theirs = [
        Cell(way, micro, batching, pair, False, "nonzero")
        for way, batching in RIVALS
        for micro in MICRO_BATCHES
        for pair in ((0.0, 1.0), (0.2, 0.8))
        if pair == (0.0, 1.0) or "labels" not in way
    ]
    if stride > 1:
        theirs = [
            cell
            for cell in theirs
            if cell.way.startswith("Trainer") and ("mean" in cell.way or "mask" in cell.batching)
        ]
    return ours[::stride] + theirs


def examples() -> list[Any]:
    """Template, user, assistant, end; every fifth without a response."""
    import numpy as np

    from holdfast.records import Role, Tokens

    rng = np.random.default_rng(0)
    made = []
    for number in range(EXAMPLES):
        prompt, response = rng.integers(1, 20, 2)
        answer = [] if number % 5 == 4 else [Role.ASSISTANT] * response + [Role.EOS]
        roles = np.array([Role.TEMPLATE, *[Role.USER] * prompt, *answer], dtype=np.int8)
        made.append(Tokens(rng.integers(3, VOCABULARY, len(roles), dtype=np.int32), roles))
    return made


def scaled(tokens: list[Any]) -> list[Any]:
    """The same with weights per token on every third example, which only ours can use."""
    import numpy as np

    from holdfast.records import Tokens

    rng = np.random.default_rng(1)
    return [
        Tokens(t.ids, t.roles, rng.uniform(0.5, 2, len(t)).astype(np.float32) if i % 3 == 0 else None)
        for i, t in enumerate(tokens)
    ]


def make_model(lora: bool) -> Any:
    """A random two-layer Llama, or adapters (both factors non-zero) on it."""
    import torch
    import transformers

    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, intermediate_size=64,
            vocab_size=VOCABULARY, tie_word_embeddings=True, pad_token_id=0, bos_token_id=None, eos_token_id=1,
        )
    )  # fmt: skip
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.1)
    if lora:
        import peft

        model = peft.get_peft_model(model, peft.LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.1)
    return model


def oracle(tokens: list[Any], cell: Cell) -> Any:
    """The gradient by the plain formula in float64, one example at a time, flat."""
    import torch

    from holdfast.lm.batched import token_nll
    from holdfast.records import Role
    from holdfast.tune.batches import collate
    from holdfast.tune.weights import NORMALIZERS as RULES
    from holdfast.tune.weights import role_weights, token_weights

    model, role_means = make_model(cell.lora).double(), cell.normalizer == "role-mean"
    total_R, count_R = torch.zeros(2, len(Role), dtype=torch.float64)
    divisor = 0.0
    for one in tokens:
        batch = collate([one])
        weights = token_weights(batch["roles"], role_weights(*cell.pair), batch.scale_NT, dtype=torch.float64)
        # the mean over a role is of all examples, so its sums and counts are taken apart and divided at the end
        entering, part = (weights, torch.zeros(1)) if role_means else RULES[cell.normalizer](weights, batch["roles"])
        nll = token_nll(model(input_ids=batch["input_ids"]).logits, batch["input_ids"])
        roles = batch["roles"][0].long()
        total_R = total_R.index_add(0, roles, (entering * nll)[0])
        count_R = count_R.index_add(0, roles, (weights != 0).double()[0])
        divisor += float(part.sum())
    loss = (total_R / count_R.clamp(min=1)).sum() if role_means else total_R.sum() / divisor
    loss.backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.requires_grad])


def gradient(tokens: list[Any], cell: Cell, folder: str, world: int) -> Any:
    """The gradient through a trainer's own loop, flat, float64."""
    import torch
    from transformers import TrainerCallback

    class Reader(TrainerCallback):
        gradient: Any = None

        def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            found = [p.grad.double().flatten() for p in kwargs["model"].parameters() if p.requires_grad]
            self.gradient = torch.cat(found)

    accumulate = max(1, cell.micro // world)
    arguments = {
        "output_dir": folder, "per_device_train_batch_size": EXAMPLES // world // accumulate,
        "gradient_accumulation_steps": accumulate, "max_steps": 1, "max_grad_norm": 0.0, "optim": "sgd", "bf16": False,
        "use_cpu": True, "report_to": [], "save_strategy": "no", "disable_tqdm": True, "dataloader_pin_memory": False,
        "remove_unused_columns": False, "gradient_checkpointing": False, "ddp_find_unused_parameters": False,
    }  # fmt: skip
    trainer = WAYS[cell.way](make_model(cell.lora), tokens, cell, arguments)
    reader = Reader()
    trainer.add_callback(reader)
    trainer.train()
    return reader.gradient


def _holdfast(model: Any, tokens: list[Any], cell: Cell, arguments: dict[str, Any]) -> Any:
    import transformers

    from holdfast.tune.batches import TokenDataset, collate
    from holdfast.tune.trainer import Objective, WeightedTrainer
    from holdfast.tune.weights import role_weights

    return WeightedTrainer(
        objective=Objective(role_weights(*cell.pair), cell.normalizer),
        batching=cell.batching,
        model=model,
        args=transformers.TrainingArguments(**arguments | {"average_tokens_across_devices": False}),
        train_dataset=TokenDataset(tokens),
        data_collator=collate,
    )


def _rows(tokens: list[Any], cell: Cell) -> list[dict[str, Any]]:
    """input_ids, labels (-100 where the weight is 0, and at the first token), weights."""
    import numpy as np

    from holdfast.records import RESPONSE_ROLES

    rows = []
    for t in tokens:
        weights = np.where(np.isin(t.roles, RESPONSE_ROLES), cell.pair[1], cell.pair[0])
        weights[0] = 0
        rows.append(
            {
                "input_ids": t.ids.tolist(),
                "labels": np.where(weights != 0, t.ids, -100).tolist(),
                "weights": weights.tolist(),
            }
        )
    return rows


def _pad(batch: list[dict[str, Any]]) -> dict[str, Any]:
    import torch

    width = max(len(row["input_ids"]) for row in batch)
    fill = {"input_ids": 0, "labels": -100, "weights": 0.0}
    made = {key: torch.tensor([row[key] + [fill[key]] * (width - len(row[key])) for row in batch]) for key in batch[0]}
    return made | {"attention_mask": (made["input_ids"] != 0).long()}


def _flatten(batch: list[dict[str, Any]]) -> dict[str, Any]:
    import torch

    made = {key: torch.tensor([[x for row in batch for x in row[key]]]) for key in batch[0]}
    return made | {"position_ids": torch.tensor([[i for row in batch for i in range(len(row["input_ids"]))]])}


def _flatten_with_mask(batch: list[dict[str, Any]]) -> dict[str, Any]:
    import torch

    made = _flatten(batch)
    return made | {"attention_mask": torch.ones_like(made["input_ids"])}


COLLATORS: dict[str, Callable[..., Any]] = {
    "padded": _pad,
    "padding-free": _flatten,
    "one row, 2-D mask": _flatten_with_mask,
}


def _labels(model: Any, tokens: list[Any], cell: Cell, arguments: dict[str, Any]) -> Any:
    """Masking by labels, the model's own loss."""
    import transformers

    rows = [{key: row[key] for key in ("input_ids", "labels")} for row in _rows(tokens, cell)]
    arguments = transformers.TrainingArguments(**arguments)
    return transformers.Trainer(model=model, args=arguments, train_dataset=rows, data_collator=COLLATORS[cell.batching])


def _subclass(mean: bool, model: Any, tokens: list[Any], cell: Cell, arguments: dict[str, Any]) -> Any:
    """Weights by a subclass of Trainer: divided by the micro-batch's own count (``mean``), or by the count that the
    Trainer passes.
    """
    import torch
    import transformers

    class Weighted(transformers.Trainer):
        loss_is_scaled_for_ga = not mean

        def compute_loss(
            self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
        ) -> Any:
            labels, weights = inputs.pop("labels")[:, 1:], inputs.pop("weights")[:, 1:]
            logits = model(**inputs, use_cache=False).logits[:, :-1].float()
            nll = torch.nn.functional.cross_entropy(logits.transpose(1, 2), labels, reduction="none")
            total = (weights * nll).sum()
            if mean:
                return total / (labels != -100).sum().clamp(min=1)
            return total / num_items_in_batch * self.accelerator.num_processes

    made = Weighted(
        model=model,
        args=transformers.TrainingArguments(**arguments),
        train_dataset=_rows(tokens, cell),
        data_collator=COLLATORS[cell.batching],
    )
    made.model_accepts_loss_kwargs = not mean
    return made


def _trl(mean: bool, model: Any, tokens: list[Any], cell: Cell, arguments: dict[str, Any]) -> Any:
    """The same over the log-probs of TRL's fused head."""
    import datasets
    import trl

    class Weighted(trl.SFTTrainer):  # type: ignore[misc]
        loss_is_scaled_for_ga = not mean

        def compute_loss(
            self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
        ) -> Any:
            weights = inputs.pop("weights")[:, 1:]
            counted = (inputs["labels"][:, 1:] != -100).sum().clamp(min=1)
            logp = model(**inputs, fused_lm_head=True, use_cache=False).log_probs
            total = -(weights * logp).sum()
            if mean:
                return total / counted
            return total / num_items_in_batch * self.accelerator.num_processes

    return Weighted(
        model=model,
        args=trl.SFTConfig(**arguments, dataset_kwargs={"skip_prepare_dataset": True}, max_length=None),
        train_dataset=datasets.Dataset.from_list(_rows(tokens, cell)),
        processing_class=_tokenizer(),
        data_collator=COLLATORS[cell.batching],
    )


def _tokenizer() -> Any:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = {"<pad>": 0, "<eos>": 1} | {f"w{i}": i for i in range(2, VOCABULARY)}
    inner = Tokenizer(models.WordLevel(words, unk_token="<pad>"))
    return PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="<pad>", eos_token="<eos>")


WAYS: dict[str, Callable[..., Any]] = {
    "holdfast": _holdfast,
    "Trainer, labels": _labels,
    "Trainer, weighted mean of the micro-batch": partial(_subclass, True),
    "Trainer, weighted sum over the Trainer's count": partial(_subclass, False),
    "SFTTrainer, weighted mean of the micro-batch": partial(_trl, True),
    "SFTTrainer, weighted sum over the Trainer's count": partial(_trl, False),
}
RIVALS = [
    ("Trainer, labels", "padded"),
    ("Trainer, labels", "padding-free"),
    ("Trainer, labels", "one row, 2-D mask"),
    *[(way, "padded") for way in list(WAYS)[2:]],
    ("SFTTrainer, weighted sum over the Trainer's count", "padding-free"),
]


def work(stride: int) -> Iterator[dict[str, Any]]:
    """All cells in this process (of one or two), with the error of each."""
    world, plain = int(os.environ.get("WORLD_SIZE", 1)), examples()
    weighted = scaled(plain)
    known: dict[Any, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for cell in cells(stride):
            tokens = weighted if cell.way == "holdfast" else plain
            key = (cell.way == "holdfast", cell.pair, cell.lora, cell.normalizer)
            if key not in known:
                known[key] = oracle(tokens, cell)
            try:
                made = gradient(tokens, cell, folder, world)
                yield cell._asdict() | {
                    "processes": world,
                    "error": float((made - known[key]).norm() / known[key].norm()),
                }
            except (RuntimeError, ValueError) as error:
                if cell.way == "holdfast":
                    raise
                yield cell._asdict() | {"processes": world, "error": None, "reason": str(error).splitlines()[0][:120]}


def launch(processes: int, stride: int) -> list[dict[str, Any]]:
    """Run ``work`` in so many processes; what the first one found."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "cells.json"
        command = [sys.executable, __file__, "--work", str(path), "--stride", str(stride)]
        if processes > 1:
            command[1:1] = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
        quiet = {
            "HF_HUB_OFFLINE": "1",
            "TRANSFORMERS_VERBOSITY": "error",
            "OMP_NUM_THREADS": "1",
            "TOKENIZERS_PARALLELISM": "false",
        }
        done = subprocess.run(command, capture_output=True, text=True, env=os.environ | quiet)
        if done.returncode:
            raise SystemExit(done.stderr[-4000:])
        return json.loads(path.read_text())


def table(found: list[dict[str, Any]]) -> str:
    """Worst error of ours per batching, micro-batches and processes; then the others."""
    columns = [(m, p) for p in (1, 2) for m in MICRO_BATCHES]
    head = " | ".join(
        f"{m} micro-batches, {p} process{'es' * (p > 1)}".replace("1 micro-batches", "1 micro-batch")
        for m, p in columns
    )
    lines = [f"| | weights | {head} |", "|---|---|" + "---|" * len(columns)]
    rows: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for cell in found:
        ours = cell["way"] == "holdfast"
        weights = "all four pairs" if ours else f"({cell['pair'][0]:g}, {cell['pair'][1]:g})"
        rows.setdefault((f"{cell['way']}, {cell['batching']}", weights), []).append(cell)
    for (name, weights), group in rows.items():
        cells_ = []
        for micro, processes in columns:
            some = [c["error"] for c in group if (c["micro"], c["processes"]) == (micro, processes)]
            cells_.append("" if not some else "cannot" if None in some else f"{max(some):.0e}")
        lines.append(f"| {name} | {weights} | {' | '.join(cells_)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="every 19th cell of ours, and fewer of the others")
    parser.add_argument("--json", help="also write every cell to this file")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    parser.add_argument("--stride", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.work:
        found = list(work(given.stride))
        if os.environ.get("RANK", "0") == "0":
            Path(given.work).write_text(json.dumps(found))
        return
    about = measure.machine("torch", "transformers", "trl", "peft", "accelerate")
    print(", ".join(f"{key} {value}" for key, value in about.items()))
    found = [cell for processes in (1, 2) for cell in launch(processes, 19 if given.quick else 1)]
    print(table(found))
    ours = [cell["error"] for cell in found if cell["way"] == "holdfast"]
    worst = max(ours)
    print(f"\nholdfast: {len(ours)} cells, worst error {worst:.1e}; target 1e-6 {'met' if worst <= 1e-6 else 'MISSED'}")
    measure.finish({"about": about, "cells": found}, given.json)


if __name__ == "__main__":
    main()
