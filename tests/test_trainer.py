"""The trainer: exact whatever the micro-batches, padding and order; equal to the losses people know; evaluation
token-exact.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from conftest import make_model
from holdfast.lm.batched import token_nll
from holdfast.records import Role, Tokens
from holdfast.tune.batches import TokenDataset, collate, regroup
from holdfast.tune.head import LossRows, attach, logit_transform
from holdfast.tune.trainer import Objective, WeightedTrainer
from holdfast.tune.weights import NORMALIZERS, role_weights, token_weights

PAIRS = [(0.0, 1.0), (0.2, 0.8), (1.0, 1.0), (1.0, 0.0)]


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
        "output_dir": str(tmp_path), "per_device_train_batch_size": micro, "gradient_accumulation_steps": step // micro, "max_steps": 1,
        "learning_rate": 1e-3, "weight_decay": 0.0, "max_grad_norm": 0.0, "report_to": [], "remove_unused_columns": False, "use_cpu": True,
        "disable_tqdm": True, "save_strategy": "no", "dataloader_pin_memory": False, "average_tokens_across_devices": False,
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


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("normalizer", NORMALIZERS)
def test_gradient_is_exact_for_every_split_into_micro_batches(tmp_path: Path, pair: Any, normalizer: str) -> None:
    tokens = some_tokens()
    oracle = exact(tokens, pair, normalizer)
    for micro in (16, 4, 1):
        made = gradient(tokens, tmp_path, pair=pair, normalizer=normalizer, micro=micro)
        assert relative(made, oracle) < 2e-6, micro


@pytest.mark.parametrize("head", ["plain", "torch"])
def test_gradient_does_not_depend_on_padding_order_or_pad_id(tmp_path: Path, head: str) -> None:
    tokens = some_tokens(scale=True)
    oracle = exact(tokens, (0.2, 0.8), "nonzero")
    assert relative(gradient(tokens[::-1], tmp_path, head=head), oracle) < 2e-6
    assert relative(gradient(tokens, tmp_path, head=head, pad_id=1, micro=4), oracle) < 2e-6  # pad = EOS
    assert relative(gradient(tokens, tmp_path, head=head, pad_id=77), oracle) < 2e-6


def test_micro_batches_without_any_target(tmp_path: Path) -> None:
    """Three quarters of the examples have no response: at (0, 1) whole micro-batches have nothing to learn from."""
    tokens = some_tokens()
    bare = [Tokens(t.ids, torch.full((len(t),), int(Role.USER)).numpy().astype("int8")) for t in tokens[4:]]
    mixed = tokens[:4] + bare
    assert relative(gradient(mixed, tmp_path, pair=(0, 1), micro=1), exact(mixed, (0, 1), "nonzero")) < 2e-6


@pytest.mark.parametrize("family", ["llama", "gemma2", "cohere", "granite", "phi", "gpt2"])
@pytest.mark.parametrize("tied", [False, True])
def test_fused_equals_plain_on_every_family(tmp_path: Path, family: str, tied: bool) -> None:
    if family == "phi" and tied:
        pytest.skip("phi's head has a bias and is not tied")
    tokens = some_tokens(8)
    grads = []
    for head in ("torch", "plain"):
        model = make_model(family, tie_word_embeddings=tied) if family != "gpt2" else make_model(family)
        grads.append(gradient(tokens, tmp_path, model=model, head=head, micro=8, step=8))
    assert relative(*grads) < 2e-5


def test_logit_transforms_are_read_from_the_config() -> None:
    assert logit_transform(make_model("llama").config) == (1.0, None)
    assert logit_transform(make_model("gemma2").config) == (1.0, 2.0)
    assert logit_transform(make_model("cohere").config) == (0.25, None)
    assert logit_transform(make_model("granite").config) == (0.25, None)


def test_a_head_we_do_not_understand_is_found_out_and_goes_the_plain_way(tmp_path: Path) -> None:
    class Odd(transformers.LlamaForCausalLM):
        def forward(self, *args: Any, **kwargs: Any) -> Any:
            made = super().forward(*args, **kwargs)
            made.logits = made.logits * 1.5
            return made

    torch.manual_seed(0)
    odd = Odd(make_model().config)
    odd.load_state_dict(make_model().state_dict())
    assert "logits are not the product" in str(attach(odd))
    assert trainer(some_tokens(), tmp_path, model=odd).plain_reason is not None


def test_attached_model_still_makes_logits() -> None:
    model, ids = make_model(), torch.arange(5, 15)[None]
    before = model(input_ids=ids).logits
    assert attach(model) is None
    assert attach(model) is None  # twice does no harm
    torch.testing.assert_close(model(input_ids=ids).logits, before)


def test_equal_weights_are_transformers_own_loss(tmp_path: Path) -> None:
    tokens = some_tokens()
    made, batch = trainer(tokens, tmp_path, pair=(1, 1)), collate(tokens, pad_id=2)
    labels = batch["input_ids"].masked_fill(batch["roles"] == Role.PAD, -100)
    theirs = make_model()(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], labels=labels).loss
    torch.testing.assert_close(made.compute_loss(made.model, batch), theirs, rtol=1e-6, atol=1e-6)


def test_zero_one_is_completion_only_loss(tmp_path: Path) -> None:
    tokens = some_tokens()
    made, batch = trainer(tokens, tmp_path, pair=(0, 1)), collate(tokens, pad_id=2)
    response = (batch["roles"] == Role.ASSISTANT) | (batch["roles"] == Role.EOS)
    theirs = make_model()(input_ids=batch["input_ids"], labels=batch["input_ids"].masked_fill(~response, -100)).loss
    torch.testing.assert_close(made.compute_loss(made.model, batch), theirs, rtol=1e-6, atol=1e-6)


def test_evaluation_is_token_exact_whatever_the_batch_size(tmp_path: Path) -> None:
    tokens = some_tokens(13, scale=True)
    model = make_model().double()
    prompt = response = weighted = 0.0
    counts = [0, 0, 0]
    for one in tokens:
        batch = collate([one])
        with torch.no_grad():
            nll = token_nll(model(input_ids=batch["input_ids"]).logits, batch["input_ids"])[0]
        roles = batch["roles"][0]
        weights = token_weights(batch["roles"], role_weights(0.2, 0.8), batch.scale_NT, dtype=torch.float64)[0]
        is_response = (roles == Role.ASSISTANT) | (roles == Role.EOS)
        prompt += float(nll[1:][~is_response[1:]].sum())
        response += float(nll[is_response].sum())
        weighted += float((weights * nll).sum())
        counts = [
            counts[0] + int((~is_response[1:]).sum()),
            counts[1] + int(is_response.sum()),
            counts[2] + int((weights != 0).sum()),
        ]
    for size in (1, 4, 13):
        metrics = trainer(tokens, tmp_path, per_device_eval_batch_size=size).evaluate()
        assert metrics["eval_prompt_nll"] == pytest.approx(prompt / counts[0], rel=1e-6)
        assert metrics["eval_response_nll"] == pytest.approx(response / counts[1], rel=1e-6)
        assert metrics["eval_loss"] == pytest.approx(weighted / counts[2], rel=1e-6)
        assert (metrics["eval_prompt_targets"], metrics["eval_response_targets"]) == (counts[0], counts[1])


def parameters_after(tmp_path: Path, pair: Any, **changes: Any) -> torch.Tensor:
    model = make_model()
    trainer(some_tokens(), tmp_path, pair=pair, model=model, seed=3, **{"max_steps": 4} | changes).train()
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def test_scaled_weights_train_the_same_model_under_adamw_and_not_with_clipping(tmp_path: Path) -> None:
    start = torch.cat([p.detach().flatten() for p in make_model().parameters()])
    exactly = {
        "adam_epsilon": 1e-30,
        "optim": "adamw_torch",
    }  # as good as 0, but embeddings that saw no token are 0 / 0 otherwise
    one, quarter = (parameters_after(tmp_path, pair, **exactly) for pair in ((1, 1), (0.25, 0.25)))
    assert torch.equal(one, quarter)  # a power of two: bit for bit
    fifth = parameters_after(tmp_path, (0.2, 0.2), **exactly)
    assert float((one - fifth).norm() / (one - start).norm()) < 1e-4
    clipped, clipped_quarter = (
        parameters_after(tmp_path, pair, **exactly, max_grad_norm=1.0) for pair in ((1, 1), (0.25, 0.25))
    )
    assert not torch.allclose(clipped, clipped_quarter, atol=1e-6)
    sgd_one, sgd_fifth = (
        parameters_after(tmp_path, pair, optim="sgd", max_steps=1) - start for pair in ((1, 1), (0.2, 0.2))
    )
    torch.testing.assert_close(0.2 * sgd_one, sgd_fifth, rtol=1e-3, atol=1e-7)


def test_lora_trains_adapters_only_and_exactly(tmp_path: Path) -> None:
    import peft

    def adapted() -> Any:
        torch.manual_seed(5)
        made = peft.get_peft_model(
            make_model(), peft.LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM")
        )
        for name, parameter in made.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.1)
        return made

    tokens = some_tokens()
    grads = [
        gradient(tokens, tmp_path, model=adapted(), micro=m, head=h)
        for m, h in ((16, "torch"), (4, "torch"), (16, "plain"))
    ]
    assert relative(grads[0], grads[2]) < 2e-6
    assert relative(grads[1], grads[2]) < 2e-6
    made = trainer(tokens, tmp_path, model=adapted())
    assert made.plain_reason is None


def test_gradient_checkpointing_changes_nothing(tmp_path: Path) -> None:
    tokens = some_tokens()
    assert relative(gradient(tokens, tmp_path, gradient_checkpointing=True), gradient(tokens, tmp_path)) < 1e-6


def test_bf16_autocast_keeps_fp32_masters(tmp_path: Path) -> None:
    tokens, model = some_tokens(), make_model()
    made = gradient(tokens, tmp_path, model=model, bf16=True)
    assert all(p.dtype is torch.float32 for p in model.parameters())
    assert relative(made, exact(tokens, (0.2, 0.8), "nonzero")) < 0.05


def test_regroup_keeps_every_row_and_sorts_by_length() -> None:
    tokens = some_tokens(12, scale=True)
    batches = [collate(tokens[i : i + 4]) for i in (0, 4, 8)]
    batches[1] = replace(batches[1], scale_NT=None)
    made = regroup(batches)

    def rows(all_batches: Any) -> list[Any]:
        found = []
        for b in all_batches:
            scale = b.scale_NT
            for i, n in enumerate(b["attention_mask"].sum(1).tolist()):
                factors = [1.0] * n if scale is None else scale[i, :n].tolist()
                found.append((b["input_ids"][i, :n].tolist(), b["roles"][i, :n].tolist(), factors))
        return sorted(found)

    assert rows(made) == rows(batches)
    widths = [b["roles"].shape[1] for b in made]
    assert widths == sorted(widths, reverse=True)
    assert sum(b["roles"].numel() for b in made) < sum(b["roles"].numel() for b in batches)


def test_scale_survives_bit_for_bit() -> None:
    tokens = some_tokens(3, scale=True)
    scale = collate(tokens).scale_NT
    for row, one in enumerate(tokens):
        assert scale[row, : len(one)].numpy().tobytes() == one.scale.tobytes()


def test_nan_loss_stops_with_a_hint(tmp_path: Path) -> None:
    from holdfast.errors import HoldfastError

    model = make_model()
    model.lm_head.weight.data[3] = float("nan")
    with pytest.raises(HoldfastError, match="loss is nan at step 1"):
        trainer(some_tokens(), tmp_path, model=model, logging_steps=1, logging_nan_inf_filter=False).train()


def test_loss_rows_through_the_wrapped_forward() -> None:
    """The keyword passes through a wrapper's forward, as DDP's and PEFT's do."""
    model = make_model()
    attach(model)
    ids = torch.arange(6)[None] + 5
    rows = LossRows(ids, torch.ones(1, 6), 5.0)
    torch.testing.assert_close(torch.nn.ModuleList([copy.deepcopy(model)])[0](input_ids=ids, loss_rows=rows)["loss"],
                               token_nll(model(input_ids=ids).logits, ids).sum() / 5)  # fmt: skip


@pytest.mark.parametrize("head", ["torch", "plain"])
@pytest.mark.parametrize("batching", ["padded", "packed"])
def test_weights_are_made_and_packed_once_for_every_micro_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, head: str, batching: str
) -> None:
    from holdfast.tune import trainer as room
    from holdfast.tune.layouts import Layout

    calls = {"made": 0, "packed": 0}
    make, pack = room.token_weights, Layout.pack

    def counted_make(*args: Any) -> torch.Tensor:
        calls["made"] += 1
        return make(*args)

    def counted_pack(self: Layout, values: torch.Tensor, fill: float = 0) -> torch.Tensor:
        calls["packed"] += values.is_floating_point()
        return pack(self, values, fill)

    monkeypatch.setattr(room, "token_weights", counted_make)
    monkeypatch.setattr(Layout, "pack", counted_pack)
    trainer(some_tokens(), tmp_path, micro=4, max_steps=2, head=head, batching=batching).train()
    assert calls == {"made": 2 * 4, "packed": 2 * 4 if batching == "packed" else 0}


def test_the_plain_path_is_the_oracle_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from holdfast.tune import trainer as room

    monkeypatch.setattr(room, "weighted_nll", lambda *args: (torch.tensor(6.0), None, torch.zeros(16, 1)))
    made = trainer(some_tokens(), tmp_path, head="plain")
    assert float(made.compute_loss(made.model, collate(some_tokens()), num_items_in_batch=3)) == 2.0


def test_a_batch_is_one_record_that_answers_by_the_trainers_names() -> None:
    batch = collate(some_tokens(4, scale=True)).laid_out("packed")
    assert batch["input_ids"] is batch.ids_NT
    assert batch["roles"] is batch.roles_NT
    assert batch["attention_mask"].sum(1).tolist() == batch.lengths
    assert ("input_ids" in batch, "labels" in batch, len(batch)) == (True, False, 4)
    assert batch.to("cpu") is batch
    moved = batch.to("meta", non_blocking=True)
    assert {moved.ids_NT.device.type, moved.roles_NT.device.type, moved.scale_NT.device.type} == {"meta"}
    assert moved.layout is None
    with pytest.raises(AttributeError):
        batch.scale_NT = None
