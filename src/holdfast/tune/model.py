"""The model of a training: loaded, with its adapters new, continued or merged; and saved, whole or not at all.

Beside the model stand a card that names the weights, and the checkpoints, of which the last whole one is found here. A
full disk becomes one clear error.
"""

from __future__ import annotations

import errno
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import holdfast
from holdfast import lm as models
from holdfast.config import AlignConfig, TuneConfig
from holdfast.errors import HoldfastError
from holdfast.runs import read_json
from holdfast.tables.text import counted

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def load_base(config: TuneConfig | AlignConfig) -> Any:
    """The model to train, on the CPU: the Trainer places it."""
    return models.load(config.model, device="cpu", trust_remote_code=config.trust_remote_code).model


def adapted(model: Any, config: TuneConfig | AlignConfig) -> Any:
    """Return the model with the adapters that are to be trained: new ones, or those that it has.

    Without --lora-rank its adapters are merged.

    Raises:
        HoldfastError: the model has adapters of another rank.
    """
    import transformers

    transformers.set_seed(config.seed)  # adapters are drawn at random
    has_adapters = hasattr(model, "merge_and_unload")
    if not config.lora_rank:
        return model.merge_and_unload().requires_grad_() if has_adapters else model
    if has_adapters:
        _continue_adapters(model, config)
    else:
        import peft

        shape = peft.LoraConfig(
            r=config.lora_rank,
            lora_alpha=config.lora_alpha or 2 * config.lora_rank,
            lora_dropout=config.lora_dropout,
            target_modules="all-linear",
            task_type="CAUSAL_LM",
        )
        model = peft.get_peft_model(model, shape)
    if config.gradient_checkpointing:
        model.enable_input_require_grads()
    return model


def _continue_adapters(model: Any, config: TuneConfig | AlignConfig) -> None:
    """Train the adapters that are there: new ones on top would be saved without those that they build on."""
    rank = next(iter(model.peft_config.values())).r
    if rank != config.lora_rank:
        raise HoldfastError(
            f"{config.model} has adapters of rank {rank}, --lora-rank is {config.lora_rank}",
            hint=f"--lora-rank {rank} continues them; --lora-rank 0 merges them and trains all weights",
        )
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("lora_" in name)


def save_model(trainer: Any, folder: Path, card: str, ends: Iterable[int]) -> None:
    """Write model, tokenizer and card beside ``folder``, then move them there in one step.

    ``ends``: ids that ended the responses of the training data; the model will stop at them.
    """
    model = trainer.accelerator.unwrap_model(trainer.model)
    models.teach_stops(model, trainer.processing_class, ends)
    partial = folder.with_name(folder.name + ".partial")
    if trainer.is_world_process_zero():
        shutil.rmtree(partial, ignore_errors=True)
    trainer.accelerator.wait_for_everyone()
    trainer.save_model(str(partial))  # every rank takes part: sharded weights are gathered here
    trainer.accelerator.wait_for_everyone()
    if trainer.is_world_process_zero():
        (partial / "training_args.bin").unlink(missing_ok=True)  # a pickle; config.json says the same
        model.generation_config.save_pretrained(partial)  # adapters are saved without one
        (partial / "README.md").write_text(card, encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)


def weights_line(summary: dict[str, Any]) -> list[str]:
    """For a card: which step the weights are of, where that is not the last one as a matter of course."""
    if "best_step" not in summary:
        return []
    return [
        "",
        f"These are the weights of step {summary['best_step']}, the best on held-out data.",
    ]


def model_card(summary: dict[str, Any]) -> str:
    """Return the card in the hub's form.

    It says what was trained on what, with which weights, and the held-out NLLs before and after.
    """
    weights = summary["weights"]
    lines = [
        "---",
        "library_name: transformers",
        "tags: [holdfast, weighted-instruction-tuning]",
        "---",
        f"# {Path(summary['model']).name} tuned with weighted losses",
        "",
        f"Base model `{summary['model']}`, data `{summary['data']}`, {counted(summary['train_examples'], 'example')}, "
        f"{counted(summary['steps'], 'step')}, "
        f"peak learning rate {summary['learning_rate']:.2g}, loss divided by `{summary['normalizer']}`.",
        "",
        "| role | " + " | ".join(weights) + " |",
        "|---|" + "---|" * len(weights),
        "| weight | " + " | ".join(f"{w:g}" for w in weights.values()) + " |",
        "",
        f"Effective prompt share of the weighted targets: {summary['prompt_share']:.4f}.",
        *weights_line(summary),
    ]
    if summary["before"] and summary["after"]:
        lines += ["", "| held-out, nats per token | before | after |", "|---|---|---|"]
        for name in ("prompt_nll", "response_nll"):
            before, after = summary["before"][name], summary["after"][name]
            if before is not None and after is not None:
                lines.append(f"| {name.replace('_nll', '')} NLL | {before:.4f} | {after:.4f} |")
    lines += ["", f"Made with holdfast {holdfast.__version__} (weighted instruction tuning, arXiv 2507.07817).", ""]
    return "\n".join(lines)


def whole_checkpoint(folder: Path) -> Path | None:
    """Return the newest checkpoint that was written to its end, and remove later fragments.

    It is whole if its trainer state, which is written last, can be read. Folders with other names, such as a copy that
    somebody made, are left alone.
    """
    checkpoints = {
        int(match[1]): path
        for path in folder.glob("checkpoint-*")
        if (match := re.fullmatch(r"checkpoint-(\d+)", path.name))
    }
    for _, checkpoint in sorted(checkpoints.items(), reverse=True):
        try:
            read_json(checkpoint / "trainer_state.json")
        except HoldfastError:
            shutil.rmtree(checkpoint, ignore_errors=True)
            continue
        return checkpoint
    return None


@contextmanager
def explain_full_disk(path: Path) -> Iterator[None]:
    """Turn a failed write into one clear error that says what survived.

    safetensors and torch raise errors of their own kinds, which are known by their texts.
    """
    try:
        yield
    except HoldfastError:
        raise
    except Exception as error:
        full = isinstance(error, OSError) and error.errno in _DISK_FULL
        if not full and not any(
            sign in str(error) for sign in ("No space left", "File too large", "Disk quota", "file write failed")
        ):
            raise
        shutil.rmtree(path / "model.partial", ignore_errors=True)
        survivor = whole_checkpoint(path / "checkpoints")
        kept = (
            f"the checkpoint {survivor} is whole" if survivor else "no checkpoint had been written (see --save-steps)"
        )
        raise HoldfastError(
            f"{path}: the disk is full or a quota is reached; {kept}",
            hint="make room and give the same command again: it continues",
        ) from error
