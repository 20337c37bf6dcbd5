"""The router loss of mixtures of experts: in the loss where the config asks for it, equal to transformers' own forward,
logged, never in an evaluation."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as tf

from holdfast.config import TuneConfig
from holdfast.errors import HoldfastError
from holdfast.records import Role, Tokens
from holdfast.tune import train
from holdfast.tune.batches import collate
from holdfast.tune.router import router_loss
from materials import make_tokenizer, write_jsonl
from training_steps import gradient, relative, some_tokens, trainer

FAMILIES: dict[str, Any] = {
    "mixtral": (tf.MixtralForCausalLM, {"num_local_experts": 4}),
    "qwen2_moe": (
        tf.Qwen2MoeForCausalLM,
        {"num_experts": 4, "moe_intermediate_size": 32, "shared_expert_intermediate_size": 32},
    ),
    "qwen3_moe": (tf.Qwen3MoeForCausalLM, {"num_experts": 4, "moe_intermediate_size": 32, "head_dim": 8}),
    "olmoe": (tf.OlmoeForCausalLM, {"num_experts": 4}),
    "gpt_oss": (tf.GptOssForCausalLM, {"num_local_experts": 4, "head_dim": 8}),
    "granitemoe": (tf.GraniteMoeForCausalLM, {"num_local_experts": 4}),
    "phimoe": (tf.PhimoeForCausalLM, {"num_local_experts": 4}),
    "jetmoe": (tf.JetMoeForCausalLM, {"num_local_experts": 4, "aux_loss_coef": 0.5}),
}


def make_moe(family: str = "mixtral", coefficient: float = 0.5, asked: bool = True, **changes: Any) -> Any:
    kind, own = FAMILIES[family]
    torch.manual_seed(0)
    small = {
        "vocab_size": 400,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
    }
    small |= {
        "num_key_value_heads": 2,
        "max_position_embeddings": 128,
        "num_experts_per_tok": 2,
        "pad_token_id": 2,
        "bos_token_id": 0,
    }
    small |= {"eos_token_id": 1, "router_aux_loss_coef": coefficient, "output_router_logits": asked}
    model = kind._from_config(
        kind.config_class(**small | own | changes), experts_implementation="eager"
    )  # float64, too
    for parameter in model.parameters():  # larger than the usual start, so that routers have preferences
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.2)
    return model.eval()


def own_loss(model: Any, tokens: list[Tokens]) -> Any:
    """transformers' own forward with labels, all targets of weight 1."""
    batch = collate(tokens, pad_id=2)
    labels = batch["input_ids"].masked_fill(batch["roles"] == Role.PAD, -100)
    return model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], labels=labels)


@pytest.mark.parametrize("family", FAMILIES)
def test_value_is_that_of_the_models_own_forward(tmp_path: Path, family: str) -> None:
    tokens = some_tokens(6)
    model = make_moe(family).double()
    own = own_loss(make_moe(family).double(), tokens)
    for head in ("auto", "plain"):
        made = trainer(tokens, tmp_path, pair=(1, 1), model=model, head=head)
        loss, outputs = made.compute_loss(made.model, collate(tokens, pad_id=2), return_outputs=True)
        torch.testing.assert_close(loss, own.loss, rtol=1e-6, atol=1e-6, check_dtype=False)
        torch.testing.assert_close(outputs["router_loss"], own.aux_loss, rtol=1e-6, atol=1e-6, check_dtype=False)
        assert float(own.aux_loss) > 1


@pytest.mark.parametrize("head", ["auto", "plain"])
@pytest.mark.parametrize("batching", ["padded", "packed", "padding-free"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradient_is_that_of_the_models_own_forward(
    tmp_path: Path, head: str, batching: str, checkpointing: bool
) -> None:
    """Padding counts nowhere, and examples that share a row count as if each had its own."""
    tokens = some_tokens(8)
    model = make_moe("qwen3_moe").double()
    own_loss(model, tokens).loss.backward()
    oracle = torch.cat(
        [p.grad.flatten() if p.grad is not None else torch.zeros_like(p).flatten() for p in model.parameters()]
    )
    options = {
        "head": head,
        "batching": batching,
        "gradient_checkpointing": checkpointing,
        "pair": (1, 1),
        "micro": 8,
        "step": 8,
    }
    ours = gradient(tokens, tmp_path, model=make_moe("qwen3_moe").double(), **options)
    assert relative(ours, oracle) < 1e-6
    without = gradient(tokens, tmp_path, model=make_moe("qwen3_moe", asked=False).double(), **options)
    assert relative(without, oracle) > 1e-2


def test_micro_batches_are_averaged(tmp_path: Path) -> None:
    """As transformers' Trainer does. With one micro-batch per step the loss is the whole batch's."""
    tokens = some_tokens(8)
    model = make_moe().double()
    made = trainer(tokens, tmp_path, pair=(1, 1), model=model, micro=4, step=8)
    batches, divisor = made.get_batch_samples(iter([collate(tokens[:4]), collate(tokens[4:])]), 2, torch.device("cpu"))
    losses = sum(float(made.compute_loss(model, batch, num_items_in_batch=divisor)) for batch in batches)
    model.config.output_router_logits = False
    bare = trainer(tokens, tmp_path, pair=(1, 1), model=make_moe(asked=False).double(), micro=4, step=8)
    nll = float(bare.compute_loss(bare.model, collate(tokens)))
    routed = []
    for batch in batches:
        longest = int(batch["attention_mask"].sum(1).max())
        out = make_moe().double()(
            input_ids=batch["input_ids"][:, :longest], attention_mask=batch["attention_mask"][:, :longest]
        )
        routed.append(float(out.aux_loss))
    assert losses == pytest.approx(nll + 0.5 * sum(routed) / 2, rel=1e-6)


def moe_folder(folder: Path, **changes: Any) -> Path:
    make_moe(**changes).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


def rows(output: Path, kind: str) -> list[dict[str, Any]]:
    return [row for row in map(json.loads, (output / "rows.jsonl").read_text().splitlines()) if row["kind"] == kind]


@pytest.mark.parametrize("lora_rank", [0, 2])
def test_tune_logs_both_and_evaluates_the_nll_alone(tmp_path: Path, lora_rank: int) -> None:
    """The case of an even router: total 11.906 = 10.906 + 0.5 x 2.000 in its proportions."""
    data = write_jsonl(
        tmp_path / "p.jsonl", [{"prompt": f"Say {n}.", "response": "a b " * (n % 4 + 1)} for n in range(40)]
    )
    made = {}
    for name, asked in (("with", True), ("without", False)):
        model = moe_folder(tmp_path / name, asked=asked)
        output = tmp_path / f"run-{name}"
        settings = {
            "learning_rate": 1e-9,
            "batch_size": 8,
            "micro_batch_size": 4,
            "max_steps": 2,
            "log_steps": 1,
            "eval_share": 0.2,
        }
        train(TuneConfig(model=str(model), data=str(data), output=str(output), lora_rank=lora_rank, **settings))
        made[name] = output
    for ours, bare in zip(rows(made["with"], "train"), rows(made["without"], "train"), strict=True):
        assert "router_loss" not in bare
        assert ours["router_loss"] > 1
        assert ours["loss"] == pytest.approx(bare["loss"] + 0.5 * ours["router_loss"], rel=1e-5)
        assert ours["response_nll"] == pytest.approx(bare["response_nll"], rel=1e-5)
    assert rows(made["with"], "eval")[0] == rows(made["without"], "eval")[0]


def test_routers_learn_to_balance(tmp_path: Path) -> None:
    data = write_jsonl(
        tmp_path / "p.jsonl", [{"prompt": f"Say {n}.", "response": "a b " * (n % 4 + 1)} for n in range(40)]
    )
    model = moe_folder(tmp_path / "model", coefficient=20.0)
    settings = {"learning_rate": 1e-2, "batch_size": 8, "max_steps": 12, "log_steps": 1, "eval_share": 0.0}
    train(TuneConfig(model=str(model), data=str(data), output=str(tmp_path / "run"), **settings))
    losses = [row["router_loss"] for row in rows(tmp_path / "run", "train")]
    assert losses[-1] < losses[0] - 0.1


def test_a_coefficient_of_zero_or_a_config_that_does_not_ask_changes_nothing() -> None:
    assert router_loss(make_moe(coefficient=0.0)) is None
    assert router_loss(make_moe(asked=False)) is None
    made = router_loss(make_moe(coefficient=0.25))
    assert made is not None
    assert made.coefficient == 0.25


def test_what_cannot_be_computed_is_refused(tmp_path: Path) -> None:
    class Odd(tf.MixtralForCausalLM):
        def forward(self, *args: Any, **kwargs: Any) -> Any:
            made = super().forward(*args, **kwargs)
            if made.aux_loss is not None:
                made.aux_loss = made.aux_loss + 1
            return made

    odd = Odd(make_moe().config)
    with pytest.raises(HoldfastError, match="asks for a router loss"):
        trainer(some_tokens(), tmp_path, model=odd)


def test_trl_adapter(tmp_path: Path) -> None:
    pytest.importorskip("trl", reason="the extra trl is not installed")
    from trl import SFTConfig

    from holdfast.integrations.trl import WITSFTTrainer

    tokens = some_tokens(8)
    made = {}
    for coefficient in (0.5, 0.0):
        args = SFTConfig(
            str(tmp_path / str(coefficient)), per_device_train_batch_size=8, max_steps=1, learning_rate=1e-9,
            logging_steps=1,
            report_to=[], use_cpu=True, bf16=False, save_strategy="no", router_aux_loss_coef=coefficient,
        )  # fmt: skip
        adapter = WITSFTTrainer(
            make_moe(),
            args,
            train_dataset=tokens,
            processing_class=make_tokenizer(),
            prompt_loss_weight=1.0,
            completion_loss_weight=1.0,
        )
        adapter.train()
        made[coefficient] = next(logs for logs in adapter.state.log_history if "loss" in logs)
    own = own_loss(make_moe(), tokens)
    assert made[0.5]["router_loss"] == pytest.approx(float(own.aux_loss), rel=1e-4)
    assert made[0.5]["loss"] == pytest.approx(float(own.loss), rel=1e-4)
    assert "router_loss" not in made[0.0]
    assert made[0.5]["loss"] - made[0.0]["loss"] == pytest.approx(0.5 * float(own.aux_loss), rel=1e-3)


def test_align_logs_what_trl_adds(tmp_path: Path) -> None:
    pytest.importorskip("trl", reason="the extra align (trl) is not installed")
    from holdfast.align import align
    from holdfast.config import AlignConfig

    data = write_jsonl(
        tmp_path / "p.jsonl", [{"prompt": f"Count {n}.", "chosen": "1 2 3", "rejected": "3 2 1"} for n in range(16)]
    )
    settings = {"learning_rate": 1e-9, "batch_size": 4, "max_steps": 1, "log_steps": 1, "eval_share": 0.0}
    align(
        AlignConfig(model=str(moe_folder(tmp_path / "moe")), data=str(data), output=str(tmp_path / "run"), **settings)
    )
    (row,) = rows(tmp_path / "run", "train")
    assert row["loss"] == pytest.approx(math.log(2) + 0.5 * row["router_loss"], rel=1e-4)
