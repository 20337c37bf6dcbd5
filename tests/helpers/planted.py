"""Data that TRL's own SFTTrainer prepares, the bugs that are planted into it, and what the audit says of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset
from trl import SFTConfig, SFTTrainer

from holdfast.audit import findings
from holdfast.audit.live import context_of_model, references_of
from holdfast.audit.prepared import material_of, read_prepared
from holdfast.audit.record import Audit
from materials import make_model
from template_matrix import TOOLS, tokenizer_of

METALS = ("iron", "copper", "tin", "lead", "zinc", "gold", "silver", "nickel")


def chats(count: int = 6, *, turns: int = 1, system: str | None = None) -> list[dict[str, Any]]:
    """Conversations that all differ."""
    rows = []
    for metal in METALS[:count]:
        messages = [{"role": "system", "content": system}] if system else []
        for turn in range(turns):
            messages += [
                {"role": "user", "content": f"Question {turn} about {metal}: is it heavy or light?"},
                {"role": "assistant", "content": f"Answer {turn}: {metal} weighs {3 * len(metal) + turn} grams."},
            ]
        rows.append({"messages": messages})
    return rows


def pairs(count: int = 6, *, chat: bool = False) -> list[dict[str, Any]]:
    """Prompts and completions, as text or as messages."""
    rows = []
    for row in chats(count):
        user, answer = row["messages"]
        rows.append(
            {"prompt": [user], "completion": [answer]}
            if chat
            else {"prompt": user["content"] + "\n", "completion": answer["content"]}
        )
    return rows


def agents(count: int = 6, *, thought: bool = True) -> list[dict[str, Any]]:
    """Conversations with a thought, a call, its result and an answer."""
    rows = []
    for metal in METALS[:count]:
        call = {"type": "function", "function": {"name": "weather", "arguments": {"place": metal}}}
        think = {"reasoning_content": f"I have to look up {metal} first."} if thought else {}
        messages = [
            {"role": "user", "content": f"Rain on the hill of {metal}?"},
            {"role": "assistant", "content": "", "tool_calls": [call], **think},
            {"role": "tool", "name": "weather", "content": f"drizzle on {metal} {len(metal)}C"},
            {"role": "assistant", "content": f"It drizzles on {metal}."}
            | ({"reasoning_content": f"The result for {metal} is wet."} if thought else {}),
        ]
        rows.append({"messages": messages, "tools": TOOLS})
    return rows


def tokenizer_for(name: str) -> Any:
    """A tokenizer with a chat template of TRL that takes rows of any length here."""
    tokenizer = tokenizer_of(name)
    tokenizer.model_max_length = 1024
    return tokenizer


def model_for(tokenizer: Any) -> Any:
    """A tiny model that stops where the tokenizer's turns end."""
    model = make_model(
        vocab_size=len(tokenizer), max_position_embeddings=1024, bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    return model


def trainer_for(tokenizer: Any, rows: Sequence[dict[str, Any]], folder: Path, **options: Any) -> SFTTrainer:
    """TRL's own trainer, which prepares the rows when it is made."""
    config = {
        "output_dir": str(folder), "use_cpu": True, "bf16": False, "report_to": [], "save_strategy": "no",
        "disable_tqdm": True, "max_length": 1024, "max_steps": 2, "per_device_train_batch_size": 2, "seed": 0,
    }  # fmt: skip
    callbacks = options.pop("callbacks", None)
    return SFTTrainer(
        model_for(tokenizer),
        SFTConfig(**config | options),
        train_dataset=Dataset.from_list([*rows]),
        processing_class=tokenizer,
        callbacks=callbacks,
    )


def prepared_by_trl(
    tokenizer: Any, rows: Sequence[dict[str, Any]], folder: Path, **options: Any
) -> list[dict[str, Any]]:
    """The rows of TRL's prepared data set: input_ids, labels, and seq_lengths where it packs."""
    columns = ("input_ids", "labels", "seq_lengths")
    data = trainer_for(tokenizer, rows, folder, **options).train_dataset
    return [{name: row[name] for name in columns if name in row} for row in data]


def audited(rows: Sequence[dict[str, Any]], tokenizer: Any, data: Sequence[dict[str, Any]] | None = None) -> Audit:
    """The audit of prepared rows, with the data or without."""
    context = context_of_model(tokenizer, model_for(tokenizer))
    read = read_prepared([(row, f"prepared, row {i}") for i, row in enumerate(rows, 1)], context)
    references = None if data is None else references_of(data, tokenizer)
    material = material_of(read, context, references)
    return findings.audit(material.rows, material.context, material.checks, material.unseen)


def kinds(audit: Audit) -> list[str]:
    """The names of the findings."""
    return [finding.kind.value for finding in audit.findings]
