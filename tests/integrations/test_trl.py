"""The TRL adapter gives the numbers of ``holdfast tune`` on the same rows, and takes what TRL's users have."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("trl")


from holdfast.config import TuneConfig
from holdfast.errors import HoldfastError
from holdfast.integrations.trl import WITSFTTrainer
from holdfast.tune import train
from materials import make_model, write_jsonl
from training_steps import exact, relative, some_tokens
from trl_trainer import arguments, trainer

PAIRS = [{"prompt": f"Count to {n}.", "completion": " ".join(map(str, range(1, n + 1)))} for n in range(1, 25)]
CHATS = [
    {"messages": [{"role": "user", "content": r["prompt"]}, {"role": "assistant", "content": r["completion"]}]}
    for r in PAIRS
]


def losses(made: Any) -> list[float]:
    return [row["loss"] for row in made.state.log_history if "loss" in row]


@pytest.mark.parametrize("rows", [PAIRS, CHATS], ids=["prompt-completion", "messages"])
def test_same_numbers_as_holdfast_tune(rows: Any, model_folder: Path, tmp_path: Path) -> None:
    """Same rows, same seed, same schedule: the same loss in every step and the same weights after it."""
    import json

    data = write_jsonl(tmp_path / "rows.jsonl", rows)
    settings = {
        "prompt_weight": 0.2,
        "response_weight": 0.8,
        "learning_rate": 5e-3,
        "batch_size": 8,
        "micro_batch_size": 4,
        "max_grad_norm": 0,
        "warmup_ratio": 0,
    }
    train(
        TuneConfig(
            model=str(model_folder),
            data=str(data),
            output=str(tmp_path / "a"),
            joint="none",  # as TRL joins
            eval_share=0,
            max_steps=4,
            log_steps=1,
            **settings,
        )
    )
    ours = [json.loads(line) for line in (tmp_path / "a" / "rows.jsonl").read_text().splitlines()]
    made = trainer(tmp_path / "b", rows, prompt_loss_weight=0.2, completion_loss_weight=0.8)
    made.train()
    assert losses(made) == pytest.approx([row["loss"] for row in ours if row["kind"] == "train"], rel=1e-6)
    from holdfast import lm

    tuned = lm.load(tmp_path / "a").model
    for name, parameter in made.model.state_dict().items():
        torch.testing.assert_close(parameter, tuned.state_dict()[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("batching", "normalizer", "micro"),
    [
        ("padded", "nonzero", 4),
        ("packed", "nonzero", 4),
        ("padding-free", "nonzero", 4),
        ("padded", "role-mean", 16),
        ("packed", "role-mean", 4),
        ("padding-free", "role-mean", 1),
    ],
)
def test_the_gradient_is_exact(batching: str, normalizer: str, micro: int, tmp_path: Path) -> None:
    tokens = some_tokens(scale=True)
    model = make_model()
    before = torch.cat([p.detach().double().flatten() for p in model.parameters()])
    once = {
        "per_device_train_batch_size": micro,
        "gradient_accumulation_steps": 16 // micro,
        "max_steps": 1,
        "optim": "sgd",
        "learning_rate": 1.0,
    }
    once |= {"lr_scheduler_type": "constant", "weight_decay": 0.0, "max_grad_norm": 0.0, "warmup_steps": 0}
    weights = {"prompt_loss_weight": 0.2, "completion_loss_weight": 0.8, "normalizer": normalizer}
    trainer(tmp_path, tokens, model=model, config=once, batching=batching, **weights).train()
    after = torch.cat([p.detach().double().flatten() for p in model.parameters()])
    assert relative(before - after, exact(tokens, (0.2, 0.8), normalizer)) < 3e-6


def test_conversational_prompts_and_a_datasets_dataset(tmp_path: Path) -> None:
    import datasets

    rows = [{"prompt": c["messages"][:1], "completion": c["messages"][1:]} for c in CHATS]
    made = trainer(tmp_path, datasets.Dataset.from_list(rows), eval_dataset=rows[:5])
    made.train()
    same = trainer(tmp_path, CHATS)
    same.train()
    assert losses(made) == losses(same)
    assert made.evaluate()["eval_response_nll"] > 0


def test_defaults_are_completion_only_and_role_weights_refine_them(tmp_path: Path) -> None:
    made = trainer(tmp_path, CHATS, role_loss_weights={"template": 0.5})
    named = {role.label: weight for role, weight in made.objective.weights.items() if weight}
    written = dict.fromkeys(("assistant", "eos", "think", "tool_call", "format", "empty_think"), 1.0)
    assert named == {"template": 0.5} | written
    assert made.batching == "padding-free"


def test_lora_config_is_trls(tmp_path: Path) -> None:
    import peft

    made = trainer(
        tmp_path, CHATS, peft_config=peft.LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM")
    )
    made.train()
    assert made.plain_reason is None
    assert losses(made)[-1] < losses(made)[0]


@pytest.mark.parametrize(
    ("option", "message"),
    [({"packing": True}, "batching='packed'"), ({"padding_free": True}, "padding-free"),
     ({"loss_type": "dft"}, "loss_type='dft'"),
     ({"completion_only_loss": True}, "prompt_loss_weight"), ({"eos_token": "<|end|>"}, "processing_class.eos_token")],
)  # fmt: skip
def test_options_without_effect_are_refused(option: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(HoldfastError) as raised:
        trainer(tmp_path, CHATS, config=option)
    assert message in str(raised.value)


def test_bad_rows_are_named(tmp_path: Path) -> None:
    with pytest.raises(HoldfastError, match="train_dataset, row 2: no assistant message"):
        trainer(tmp_path, [CHATS[0], {"messages": CHATS[1]["messages"][:1]}])
    with pytest.raises(HoldfastError, match="no example is left"):
        trainer(tmp_path, CHATS, config={"max_length": 3})


def test_the_tokenizer_is_found_by_the_models_name(model_folder: Path, tmp_path: Path) -> None:
    made = WITSFTTrainer(str(model_folder), arguments(tmp_path, max_steps=1), train_dataset=CHATS)
    made.train()
    assert len(losses(made)) == 1
    with pytest.raises(HoldfastError, match="give processing_class"):
        WITSFTTrainer(make_model(), arguments(tmp_path), train_dataset=CHATS)


def test_streams_and_images_are_refused(tmp_path: Path) -> None:
    import datasets

    with pytest.raises(HoldfastError, match="train_dataset is a streaming data set"):
        trainer(tmp_path, datasets.Dataset.from_list(CHATS).to_iterable_dataset())
    with pytest.raises(HoldfastError, match="row 1: column 'images' holds an image; Holdfast reads text only"):
        trainer(tmp_path, [{**CHATS[0], "images": ["a.png"]}])


def test_without_trl_the_install_line_is_shown() -> None:
    code = (
        "import sys; sys.modules['trl'] = None\n"
        "from holdfast.errors import HoldfastError\n"
        "try: import holdfast.integrations.trl\n"
        "except HoldfastError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 'pip install "holdfast[trl]"' in done.stdout
