"""One optimizer step of the trainer, its gradient, and the same gradient by the plain formula in float64."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers

from holdfast.lm.batched import token_nll
from holdfast.records import Role, Tokens
from holdfast.tune.batches import TokenDataset, collate
from holdfast.tune.trainer import Objective, WeightedTrainer
from holdfast.tune.weights import NORMALIZERS, role_weights, token_weights
from materials import make_model


def some_tokens(count: int = 16, seed: int = 0, scale: bool = False) -> list[Tokens]:
    """Random examples of ragged lengths: template, user, assistant, eos."""
    rng = torch.Generator().manual_seed(seed)
    made = []
    for _ in range(count):
        prompt, response = (int(n) for n in torch.randint(1, 12, (2,), generator=rng))
        ids = torch.randint(5, 400, (prompt + response + 2,), generator=rng)
        roles = [Role.TEMPLATE] + [Role.USER] * prompt + [Role.ASSISTANT] * response + [Role.EOS]
        factors = torch.rand(len(ids), generator=rng).numpy().astype("float32") if scale else None
        made.append(
            Tokens(ids.numpy().astype("int32"), torch.tensor([int(r) for r in roles]).numpy().astype("int8"), factors)
        )
    return made


def trainer(
    tokens: list[Tokens],
    tmp_path: Path,
    *,
    pair: Any = (0.2, 0.8),
    normalizer: str = "nonzero",
    head: str = "auto",
    model: Any = None,
    micro: int = 16,
    pad_id: int = 2,
    step: int = 16,
    batching: str = "padded",
    **changes: Any,
) -> WeightedTrainer:
    arguments = {
        "output_dir": str(tmp_path), "per_device_train_batch_size": micro, "gradient_accumulation_steps": step // micro,
        "max_steps": 1, "learning_rate": 1e-3, "weight_decay": 0.0, "max_grad_norm": 0.0, "report_to": [],
        "remove_unused_columns": False, "use_cpu": True, "disable_tqdm": True, "save_strategy": "no",
        "dataloader_pin_memory": False, "average_tokens_across_devices": False,
    }  # fmt: skip
    return WeightedTrainer(
        objective=Objective(role_weights(*pair), normalizer, head),
        batching=batching,
        model=model if model is not None else make_model(),
        args=transformers.TrainingArguments(**arguments | changes),
        train_dataset=TokenDataset(tokens),
        eval_dataset=TokenDataset(tokens),
        data_collator=partial(collate, pad_id=pad_id),
    )


def gradient(tokens: list[Tokens], tmp_path: Path, **options: Any) -> torch.Tensor:
    """The gradient of one optimizer step, through the Trainer's own loop (SGD, learning rate 1: the step is the
    gradient).
    """
    model = options.pop("model", None) or make_model()
    before = torch.cat([p.detach().double().flatten().clone() for p in model.parameters() if p.requires_grad])
    made = trainer(
        tokens, tmp_path, model=model, optim="sgd", learning_rate=1.0, lr_scheduler_type="constant", **options
    )
    made.train()
    after = torch.cat([p.detach().double().flatten() for p in model.parameters() if p.requires_grad])
    return before - after


def exact(tokens: list[Tokens], pair: Any, normalizer: str) -> torch.Tensor:
    """The same gradient in float64, one example at a time, by the plain formula."""
    model = make_model().double()
    total, divisor = torch.zeros((), dtype=torch.float64), 0.0
    counts = torch.zeros(len(Role), dtype=torch.float64)  # of role-mean: how many targets of its role have a weight
    for one in tokens:
        weights = token_weights(torch.tensor(one.roles)[None], role_weights(*pair), dtype=torch.float64)
        weights *= 1 if one.scale is None else torch.tensor(one.scale)
        for role, weight in zip(one.roles.tolist(), weights[0].tolist()):
            counts[role] += weight != 0
    for one in tokens:
        batch = collate([one])
        weights = token_weights(batch["roles"], role_weights(*pair), batch.scale_NT, dtype=torch.float64)
        if normalizer == "role-mean":
            entering, part = weights / counts.clamp(min=1)[batch["roles"].long()], torch.tensor(1 / len(tokens))
        else:
            entering, part = NORMALIZERS[normalizer](weights, batch["roles"])
        total = total + (entering * token_nll(model(input_ids=batch["input_ids"]).logits, batch["input_ids"])).sum()
        divisor += float(part.sum())
    (total / divisor).backward()
    return torch.cat([p.grad.flatten() for p in model.parameters()])


def relative(ours: torch.Tensor, oracle: torch.Tensor) -> float:
    return float((ours - oracle).norm() / oracle.norm())
