"""The callback that audits the first batches of a trainer that others wrote."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import Trainer, TrainingArguments

import holdfast
from holdfast.audit.live import first_batches, references_of, same_randomness
from holdfast.errors import HoldfastError
from materials import make_model, make_tokenizer
from planted import chats, kinds, tokenizer_for, trainer_for

pytest.importorskip("trl")

ASSISTANT = {"assistant_only_loss": True}
IGNORED = -100


def collator(tokenizer: Any, seen: list[list[int]]) -> Callable[[list[dict[str, Any]]], dict[str, torch.Tensor]]:
    """Pads, draws numbers as collators that mask at random do, and notes the first id of each row."""

    def collate(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        draws = [random.random(), float(np.random.rand()), float(torch.rand(()))]
        size = max(len(row["input_ids"]) for row in rows)
        pads = {"input_ids": tokenizer.pad_token_id, "labels": IGNORED}
        batch = {
            name: torch.tensor([row[name] + [pad] * (size - len(row[name])) for row in rows])
            for name, pad in pads.items()
        }
        batch["attention_mask"] = torch.tensor(
            [[i < len(row["input_ids"]) for i in range(size)] for row in rows]
        ).long()
        seen.append([*batch["input_ids"][:, 3].tolist(), *draws])
        return batch

    return collate


def rows_of_ids(count: int = 12) -> list[dict[str, list[int]]]:
    """Prompts of three ids and answers that end with the stop."""
    ids = [[7, 8, 9, 40 + n, *range(60, 60 + n % 4), 1] for n in range(count)]
    return [{"input_ids": row, "labels": [IGNORED] * 3 + row[3:]} for row in ids]


def trained(folder: Path, rows: list[dict[str, Any]], callbacks: list[Any], **options: Any) -> tuple[Trainer, Any]:
    """A run of transformers' own trainer, and what its collator saw."""
    seen: list[Any] = []
    tokenizer = make_tokenizer(chat_template=None)
    arguments = {
        "output_dir": str(folder), "use_cpu": True, "report_to": [], "save_strategy": "no", "disable_tqdm": True,
        "per_device_train_batch_size": 2, "num_train_epochs": 2, "logging_steps": 1, "learning_rate": 1e-2, "seed": 3,
    }  # fmt: skip
    trainer = Trainer(
        make_model(attention_dropout=0.2),
        TrainingArguments(**arguments | options),
        train_dataset=Dataset.from_list(rows),
        data_collator=collator(tokenizer, seen),
        processing_class=tokenizer,
        callbacks=callbacks,
    )
    trainer.train()
    return trainer, seen


@pytest.mark.parametrize("options", [{}, {"accelerator_config": {"use_seedable_sampler": False}}])
def test_the_training_is_the_same_to_the_last_bit(options: dict[str, Any], tmp_path: Path) -> None:
    callback = holdfast.AuditCallback(batches=3)
    without, batches = trained(tmp_path, rows_of_ids(), [], **options)
    with_it, seen = trained(tmp_path, rows_of_ids(), [callback], **options)
    looked_at, of_training = seen[:3], seen[3:]
    assert of_training == batches
    assert [batch[:2] for batch in looked_at] == [batch[:2] for batch in batches[:3]]  # the very first batches
    losses = [[entry["loss"] for entry in run.state.log_history if "loss" in entry] for run in (without, with_it)]
    assert losses[0] == losses[1]
    for one, two in zip(without.model.parameters(), with_it.model.parameters(), strict=True):
        assert torch.equal(one, two)
    assert callback.audit is not None
    assert (callback.audit.rows, kinds(callback.audit)) == (6, [])


def test_it_refuses_on_findings_before_the_first_step(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [row | {"labels": [*row["labels"][:-1], IGNORED]} for row in rows_of_ids()]
    with pytest.raises(HoldfastError, match="the first 2 batches have findings: stop-never-paid"):
        trained(tmp_path, rows, [holdfast.AuditCallback(refuse=True)])
    said = capsys.readouterr()
    assert "stop-never-paid: no response pays for its stop" in said.err
    trainer, _ = trained(tmp_path, rows, [holdfast.AuditCallback()], max_steps=1)
    assert trainer.state.global_step == 1


@pytest.mark.parametrize(
    "options", [{}, {"packing": True, "max_length": 600}, {"padding_free": True, "max_length": None}]
)
def test_batches_of_trl(options: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Padded, packed and padding-free: documents are cut where positions begin anew."""
    tokenizer, data = tokenizer_for("qwen3"), chats()
    alone, with_data = holdfast.AuditCallback(batches=3), holdfast.AuditCallback(batches=3, data=data)
    trainer_for(tokenizer, data, tmp_path, callbacks=[alone, with_data], **ASSISTANT | options).train()
    for callback in (alone, with_data):
        assert callback.audit is not None
        assert (kinds(callback.audit), callback.audit.rows) == ([], len(data))
    assert "the first 3 batches: 6 rows" in capsys.readouterr().err
    assert "assistant" in {line.label for line in with_data.audit.roles}  # type: ignore[union-attr]


def test_a_bug_of_trl_is_seen_before_it_trains(tmp_path: Path) -> None:
    """An empty thought that the generation prompt holds is marked by TRL's own template."""
    data = [row | {"chat_template_kwargs": {"enable_thinking": False}} for row in chats()]
    callback = holdfast.AuditCallback(refuse=True, data=data)
    trainer = trainer_for(tokenizer_for("qwen3"), data, tmp_path, callbacks=[callback], **ASSISTANT)
    with pytest.raises(HoldfastError, match="given-thought-paid"):
        trainer.train()
    assert trainer.state.global_step == 0


def test_what_cannot_be_looked_at_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Stream(torch.utils.data.IterableDataset[dict[str, Any]]):
        def __iter__(self) -> Any:
            return iter(rows_of_ids())

    loader = torch.utils.data.DataLoader(Stream(), batch_size=2)
    callback = holdfast.AuditCallback(make_tokenizer())
    callback.on_train_begin(None, None, None, train_dataloader=loader)
    assert "not audited: the data streams" in capsys.readouterr().err
    assert callback.audit is None
    for refusing in (holdfast.AuditCallback(make_tokenizer(), refuse=True), holdfast.AuditCallback(refuse=True)):
        with pytest.raises(HoldfastError):
            refusing.on_train_begin(None, None, None, train_dataloader=loader)
    with pytest.raises(HoldfastError, match="there must be one"):
        holdfast.AuditCallback(batches=0)
    unlabelled = torch.utils.data.DataLoader([{"input_ids": [1]}], batch_size=1, collate_fn=lambda rows: rows[0])
    with pytest.raises(HoldfastError, match="no input_ids and labels, but input_ids"):
        next(iter(first_batches(unlabelled, 1)))


def test_generators_of_samplers_are_put_back() -> None:
    rows = [{"input_ids": [n], "labels": [n]} for n in range(8)]
    generator = torch.Generator().manual_seed(5)
    loader = torch.utils.data.DataLoader(rows, 2, shuffle=True, generator=generator, collate_fn=lambda part: part[0])
    with same_randomness(loader):
        looked_at = list(first_batches(loader, 4))
    assert list(loader) == looked_at


def test_data_may_be_a_file_or_rows(chat_file: Path) -> None:
    tokenizer = make_tokenizer()
    rows = references_of(str(chat_file), tokenizer)
    assert len(rows) == 40
    assert all(row.roles is not None for row in rows)
