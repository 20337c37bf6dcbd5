"""Batches without waste: packed equals apart, for every token and gradient, or is refused. Layouts keep what they lay
out.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as tf
from hypothesis import given
from hypothesis import strategies as st

from holdfast.config import TuneConfig
from holdfast.errors import HoldfastError
from holdfast.records import Role
from holdfast.tune import train
from holdfast.tune.attention import NAME, document_arguments, leaks, settle
from holdfast.tune.batches import collate, regroup
from holdfast.tune.layouts import LAYOUTS, balance, best_fit_decreasing, lay_out
from materials import make_model
from training_steps import exact, gradient, relative, some_tokens, trainer

SMALL: dict[str, Any] = {
    "vocab_size": 400, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 128, "pad_token_id": 2, "bos_token_id": 0, "eos_token_id": 1,
}  # fmt: skip
WAYS = [*LAYOUTS, "auto"]


def other(family: str) -> Any:
    """Families that ``make_model`` has not: sliding windows of 4 tokens, absolute positions, ALiBi, states that run
    on.
    """
    configs: dict[str, Any] = {
        "mistral": lambda: tf.MistralConfig(**SMALL, sliding_window=4),
        "qwen3": lambda: tf.Qwen3Config(**SMALL, head_dim=8),
        "gemma3": lambda: tf.Gemma3TextConfig(**SMALL, head_dim=8, sliding_window=4),
        "neox": lambda: tf.GPTNeoXConfig(**{k: v for k, v in SMALL.items() if k != "num_key_value_heads"}),
        "bloom": lambda: tf.BloomConfig(vocab_size=400, hidden_size=32, n_layer=2, n_head=4),
        "mamba": lambda: tf.MambaConfig(vocab_size=400, hidden_size=32, num_hidden_layers=2, state_size=4),
        "lfm2": lambda: tf.Lfm2Config(**SMALL, layer_types=["conv", "full_attention"]),
    }
    torch.manual_seed(0)
    model = tf.AutoModelForCausalLM.from_config(configs[family]())
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.2)
    return model.eval()


KEEP_APART = ["llama", "gemma2", "cohere", "granite", "phi", "gpt2", "mistral", "qwen3", "gemma3", "neox"]
LET_MIX = ["bloom", "mamba", "lfm2"]


def model_of(family: str) -> Any:
    return other(family) if family in ("mistral", "qwen3", "gemma3", "neox", *LET_MIX) else make_model(family)


@pytest.mark.parametrize("family", KEEP_APART)
def test_packed_equals_apart_to_a_millionth_in_float64_and_float32(family: str) -> None:
    """Documents longer than the sliding windows, one of a single token; the oracle is eager attention, one document at
    a time. (The families keep their norms and softmaxes in float32 inside a float64 model.)"""
    lengths = [20, 1, 9, 30, 2]
    ids_NT = torch.randint(0, 400, (5, 30), generator=torch.Generator().manual_seed(0))
    for dtype in (torch.float64, torch.float32):
        model = model_of(family).to(dtype)
        model.set_attn_implementation("eager")
        with torch.no_grad():
            apart = [model(input_ids=ids_NT[i : i + 1, :n]).logits[0] for i, n in enumerate(lengths)]
            model = model_of(family).to(dtype)  # attends as it does by default
            for way in WAYS:
                kind, _ = settle(model, way)
                layout = lay_out(lengths, LAYOUTS[kind](lengths), 30)
                logits_RWV = model(
                    input_ids=layout.pack(ids_NT), use_cache=False, **document_arguments(layout, model)
                ).logits
                for i, logits_TV in enumerate(apart):
                    at = (layout.index_RW // 30 == i).nonzero(as_tuple=True)
                    error = (logits_RWV[at] - logits_TV).abs().max() / logits_TV.abs().max()
                    assert error < (1e-6 if dtype is torch.float64 else 2e-6), (way, i)


@pytest.mark.parametrize("family", LET_MIX)
def test_a_model_that_mixes_documents_is_refused_and_padded_by_auto(family: str, tmp_path: Path) -> None:
    model = model_of(family)
    for way in LAYOUTS:
        with pytest.raises(HoldfastError, match=f"--batching {way} cannot be used .* see each other"):
            settle(model, way)
    assert settle(model, "auto")[0] == "padded"
    assert "see each other" in str(settle(model, "auto")[1])
    assert model.config._attn_implementation != NAME
    made = trainer(some_tokens(), tmp_path, model=model, batching="auto")
    assert made.batching == "padded"


def test_unknown_batching_is_an_error() -> None:
    with pytest.raises(HoldfastError, match="unknown batching 'dense'; known: auto, padded, packed, padding-free"):
        settle(make_model(), "dense")


def test_auto_takes_the_least_work_that_is_proven() -> None:
    assert settle(make_model("llama"), "auto") == ("padding-free", None)
    eager = make_model("llama")
    eager.set_attn_implementation("eager")
    assert settle(eager, "auto") == ("packed", None)  # a dense mask: rows no wider than the longest example
    assert settle(eager, "padding-free") == ("padding-free", None)
    assert settle(eager, "padded") == ("padded", "asked for")


def test_the_probe_sees_a_leak() -> None:
    """The same model, its documents hidden from it: positions that run on."""

    class Blind(tf.LlamaForCausalLM):
        def forward(self, *args: Any, position_ids: Any = None, cu_seq_lens_q: Any = None, **kwargs: Any) -> Any:
            return super().forward(*args, **kwargs)

    torch.manual_seed(0)
    blind = Blind(make_model().config)
    blind.load_state_dict(make_model().state_dict())
    assert "see each other" in str(leaks(blind, LAYOUTS["padding-free"]))
    assert leaks(make_model(), LAYOUTS["padding-free"]) is None


def test_a_model_made_ready_still_pads_and_generates_as_before() -> None:
    ids, mask = torch.randint(5, 400, (3, 9)), torch.ones(3, 9, dtype=torch.long)
    mask[1, :4] = 0
    model = make_model()
    before = model(input_ids=ids, attention_mask=mask).logits, model(input_ids=ids).logits
    text = model.generate(ids, attention_mask=mask, max_new_tokens=5, do_sample=False)
    settle(model, "auto")
    assert model.config._attn_implementation == NAME
    seen = mask.bool()
    torch.testing.assert_close(model(input_ids=ids, attention_mask=mask).logits[seen], before[0][seen])
    torch.testing.assert_close(model(input_ids=ids).logits, before[1])
    assert torch.equal(model.generate(ids, attention_mask=mask, max_new_tokens=5, do_sample=False), text)


@pytest.mark.parametrize("batching", WAYS)
@pytest.mark.parametrize("head", ["torch", "plain"])
def test_the_gradient_does_not_depend_on_the_batching(tmp_path: Path, batching: str, head: str) -> None:
    tokens = some_tokens(scale=True)
    oracle = exact(tokens, (0.2, 0.8), "example")
    for micro in (16, 4, 1):
        made = gradient(tokens, tmp_path, batching=batching, head=head, micro=micro, normalizer="example")
        assert relative(made, oracle) < 3e-6, micro


def test_whole_runs_agree_step_by_step(tmp_path: Path) -> None:
    """The same examples in every step, in the same order: the loss curves differ by rounding."""
    curves = []
    for batching in ("padded", *LAYOUTS):
        made = trainer(some_tokens(64), tmp_path, batching=batching, max_steps=4, micro=4, step=16, logging_steps=1)
        made.train()
        curves.append(
            [
                (r["loss"], r["prompt_nll"], r["response_nll"], r["tokens"])
                for r in made.state.log_history
                if "loss" in r
            ]
        )
    assert len(curves[0]) == 4
    for curve in curves[1:]:
        assert torch.allclose(torch.tensor(curve), torch.tensor(curves[0]), rtol=1e-5)


@pytest.mark.parametrize("batching", ["padded", *LAYOUTS])
def test_evaluation_is_the_same_in_every_form_and_batch_size(tmp_path: Path, batching: str) -> None:
    tokens = some_tokens(13, scale=True)
    plain = trainer(tokens, tmp_path, batching="padded", per_device_eval_batch_size=1).evaluate()
    for size in (1, 4, 13):
        made = trainer(tokens, tmp_path, batching=batching, per_device_eval_batch_size=size).evaluate()
        for name in (
            "eval_loss",
            "eval_prompt_nll",
            "eval_response_nll",
            "eval_prompt_targets",
            "eval_response_targets",
        ):
            assert made[name] == pytest.approx(plain[name], rel=1e-6)


def test_the_option_reaches_the_run_and_changes_nothing_but_speed(
    model_folder: Path, chat_file: Path, tmp_path: Path
) -> None:
    settings = {
        "model": str(model_folder),
        "data": str(chat_file),
        "learning_rate": 5e-3,
        "batch_size": 8,
        "micro_batch_size": 4,
    }
    made = {
        b: train(TuneConfig(output=str(tmp_path / b), batching=b, **settings)) for b in ("auto", "padded", "packed")
    }
    assert {name: summary["batching"] for name, summary in made.items()} == {
        "auto": "padding-free",
        "padded": "padded",
        "packed": "packed",
    }
    for summary in made.values():
        assert summary["after"] == pytest.approx(made["padded"]["after"], rel=1e-4)
        assert summary["steps"] == made["padded"]["steps"]


def test_gradient_checkpointing_and_adapters_keep_documents_apart(tmp_path: Path) -> None:
    tokens = some_tokens()
    padded = gradient(tokens, tmp_path, batching="padded")
    assert relative(gradient(tokens, tmp_path, batching="padding-free", gradient_checkpointing=True), padded) < 2e-6
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

    grads = [gradient(tokens, tmp_path, model=adapted(), batching=b) for b in ("padded", "packed", "padding-free")]
    assert max(relative(g, grads[0]) for g in grads[1:]) < 2e-6


def test_bf16_autocast_is_proven_in_bf16(tmp_path: Path) -> None:
    made = trainer(some_tokens(), tmp_path, bf16=True, batching="auto")
    assert made.batching == "padding-free"
    made.train()


LENGTHS = st.lists(st.integers(1, 50), min_size=1, max_size=40)


@given(LENGTHS)
def test_best_fit_decreasing_packs_everything_once_and_well(lengths: list[int]) -> None:
    bins = best_fit_decreasing(lengths, 50)
    assert sorted(i for one in bins for i in one) == list(range(len(lengths)))
    assert all(sum(lengths[i] for i in one) <= 50 for one in bins)
    assert bins == best_fit_decreasing(lengths, 50)
    assert len(bins) <= 11 / 9 * -(-sum(lengths) // 50) + 1 + sum(length > 25 for length in lengths)
    half = [sum(lengths[i] for i in one) for one in bins]
    assert sum(load <= 25 for load in half) <= 1  # two half-empty rows would be one


def test_best_fit_decreasing_by_hand() -> None:
    assert best_fit_decreasing([5, 3, 4, 2, 1, 5], 8) == [[0, 1], [5, 3, 4], [2]]
    with pytest.raises(ValueError, match="length 9 does not fit into 8"):
        best_fit_decreasing([9], 8)


def test_rows_are_as_few_as_those_of_trl() -> None:
    datasets, trl = pytest.importorskip("datasets"), pytest.importorskip("trl")
    lengths = torch.randint(1, 300, (500,), generator=torch.Generator().manual_seed(1)).tolist()
    theirs = trl.pack_dataset(datasets.Dataset.from_dict({"input_ids": [[7] * n for n in lengths]}), 512, "bfd")
    assert len(best_fit_decreasing(lengths, 512)) == len(theirs)


@given(LENGTHS, st.integers(1, 8))
def test_balanced_groups_are_nearly_equal_and_none_is_empty(lengths: list[int], groups: int) -> None:
    made = balance(lengths, groups)
    loads = [sum(lengths[i] for i in one) for one in made]
    assert sorted(i for one in made for i in one) == list(range(len(lengths)))
    assert max(loads) - min(loads) <= max(lengths)
    assert len(lengths) < groups or all(made)


@given(LENGTHS, st.sampled_from(sorted(LAYOUTS)))
def test_a_layout_gives_back_what_it_took(lengths: list[int], kind: str) -> None:
    width = max(lengths)
    layout = lay_out(lengths, LAYOUTS[kind](lengths), width)
    real = torch.arange(width)[None] < torch.tensor(lengths)[:, None]
    values = torch.where(real, torch.arange(1, len(lengths) * width + 1).view(len(lengths), width), 0)
    packed = layout.pack(values)
    assert torch.equal(layout.unpack(packed), values)
    assert (packed > 0).sum() == sum(lengths)
    assert layout.positions_RW[packed > 0].sum() == sum(n * (n - 1) // 2 for n in lengths)
    assert layout.bounds[-1] == packed.numel()
    assert layout.longest == int(layout.bounds.diff().max())
    starts = layout.positions_RW.flatten()[layout.bounds[:-1].long()]
    assert (starts == 0).all()


def test_a_layout_moves_to_the_device_of_its_batch() -> None:
    layout = lay_out([3, 4], [[0, 1]], 4)
    assert layout.to(torch.device("cpu")) is layout
    moved = layout.to(torch.device("meta"))
    assert {moved.index_RW.device.type, moved.positions_RW.device.type, moved.bounds.device.type} == {"meta"}
    assert (moved.longest, moved.shape_NT) == (layout.longest, layout.shape_NT)


def test_a_layout_must_hold_every_example() -> None:
    with pytest.raises(ValueError, match="every example exactly once"):
        lay_out([3, 4], [[0]], 4)


@pytest.mark.parametrize("kind", LAYOUTS)
def test_regroup_balances_tokens_and_keeps_roles_and_factors_with_their_ids(kind: str) -> None:
    tokens = some_tokens(12, scale=True)
    made = regroup([collate(tokens[i : i + 4]) for i in (0, 4, 8)], kind)
    assert len(made) == 3
    found = []
    for batch in made:
        layout = batch.layout
        assert batch.laid_out(kind) is batch
        roles, factors = layout.pack(batch["roles"]).flatten(), layout.pack(batch.scale_NT).flatten()
        ids, positions = layout.pack(batch["input_ids"]).flatten(), layout.positions_RW.flatten()
        for start, end in zip(layout.bounds[:-1].tolist(), layout.bounds[1:].tolist()):
            if roles[start] != Role.PAD:
                assert positions[start:end].tolist() == list(range(end - start))
                found.append((ids[start:end].tolist(), roles[start:end].tolist(), factors[start:end].tolist()))
    assert sorted(found) == sorted((t.ids.tolist(), t.roles.tolist(), t.scale.tolist()) for t in tokens)
    loads = [int(b["attention_mask"].sum()) for b in made]
    assert max(loads) - min(loads) <= max(map(len, tokens))
