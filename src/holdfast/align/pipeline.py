"""The whole of ``holdfast align``, top to bottom: config -> plan -> TRL's trainer -> run directory.

The reference is the start point. Its log-probs are computed once, before the first step, so no second model is held in
memory.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import accelerate

import holdfast
from holdfast import lm as models
from holdfast import runs
from holdfast.align.measure import evaluation, finding, gain, lineage, pair_logprobs, stage
from holdfast.align.plan import PreferencePlan, make_plan
from holdfast.align.preview import preview, start
from holdfast.align.tokens import PairTokens
from holdfast.config import AlignConfig
from holdfast.data.sources import name_of
from holdfast.errors import HoldfastError
from holdfast.lm.batched import Floats
from holdfast.progress import end
from holdfast.runs import Run, RunDir, write_text
from holdfast.tables import tables_of, with_tables
from holdfast.tables.render import as_markdown, plain
from holdfast.tables.text import counted
from holdfast.tune.arguments import training_arguments
from holdfast.tune.batches import TokenDataset
from holdfast.tune.continuing import has_evaluation, how_it_ended, keep_tensorboard, saved_step
from holdfast.tune.cost import tell_start
from holdfast.tune.model import adapted, explain_full_disk, load_base, save_model, weights_line, whole_checkpoint
from holdfast.tune.pipeline import open_together
from holdfast.tune.plan import data_digest


def align(config: AlignConfig) -> dict[str, Any]:
    """Train a model on preferences and write a run directory.

    Args:
        config: see ``holdfast.config.AlignConfig``.

    Returns:
        The summary: preference accuracy and rewards on held-out pairs before and after with intervals, lineage, counts,
            the model's
        folder. A run that is already complete in ``config.output`` is returned; an unfinished one is continued from its
        last whole checkpoint.

    Raises:
        HoldfastError: bad input, or TRL is missing; nothing has been written then.

    >>> from holdfast.align import AlignConfig, align
    >>> summary = align(AlignConfig(model="runs/first", data="pocket:preferences", output="runs/aligned", limit=16,
    ...     eval_share=0.5, max_steps=1, batch_size=4))
    >>> summary["after"]["pairs"], summary["losses"]
    (8, ['sigmoid'])
    """
    with runs.command(config, "align") as run:
        run.check_data(lambda: data_digest(config))
        if summary := run.finished():
            return summary
        config = cast(AlignConfig, run.config)  # what it leaves open is as the run had it that is continued
        plan = make_plan(config)
        if config.dry_run:
            return preview(plan)
        tell_start(start(plan))
        base = load_base(plan.config)
        if (
            hasattr(base, "merge_and_unload")
            and not config.lora_rank
            and os.environ.get("ACCELERATE_USE_FSDP") == "true"
        ):
            raise HoldfastError(
                f"{config.model}: adapters cannot be merged under FSDP, where TRL reads the reference from disk",
                hint="continue them with --lora-rank, or train on one device",
            )
        model = adapted(base, plan.config)
        open_together(run, plan.resolved())
        with models.quiet(), _silent(), explain_full_disk(run.path):
            summary = _fit(plan, model, run)
        if accelerate.PartialState().is_main_process:
            end(finding(summary), run.path)
        return summary


def _fit(plan: PreferencePlan, model: Any, run: Run) -> dict[str, Any]:
    pad_id = models.pad_id(plan.tokenizer)
    checkpoint = whole_checkpoint(run.path / "checkpoints")
    try:
        trainer = _trainer(plan, model, run)
    except HoldfastError:
        if checkpoint is None:  # refused before the first step: leave nothing
            run.withdraw()
        raise
    before_N2 = pair_logprobs(trainer.model, plan.held_out, pad_id)
    if checkpoint:
        print(f"continuing from {checkpoint}", file=sys.stderr)
    elif plan.held_out:
        trainer.evaluate()  # the row of step 0
    started = time.perf_counter()
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    seconds = time.perf_counter() - started
    if plan.held_out and not has_evaluation(trainer.state) and saved_step(trainer) == trainer.state.global_step:
        trainer.evaluate()
    after_N2 = pair_logprobs(trainer.model, plan.held_out, pad_id)
    summary = with_tables(_summary(plan, run, before_N2, after_N2)) | {"seconds": round(seconds, 2)}
    summary |= how_it_ended(trainer)
    save_model(trainer, run.model, _card(summary), set[int]().union(*(pair.ends for pair in plan.train)))
    if trainer.is_world_process_zero():
        _write_pairs(run, plan.held_out, before_N2, after_N2)
        run.finish(summary)
    return summary


def _trainer(plan: PreferencePlan, model: Any, run: RunDir) -> Any:
    import datasets
    from trl import DPOConfig

    from holdfast.align.trainer import PreferenceTrainer

    config = plan.config
    arguments = training_arguments(
        plan, run.path / "checkpoints", DPOConfig, beta=config.beta, loss_type=plan.losses, max_length=plan.max_length,
        precompute_ref_log_probs=True, disable_dropout=not config.lora_dropout,
        gradient_checkpointing=config.gradient_checkpointing,
    )  # fmt: skip

    def rows(pairs: list[PairTokens]) -> Any:
        return datasets.Dataset.from_list(
            [{"prompt_ids": p.prompt, "chosen_ids": p.chosen, "rejected_ids": p.rejected} for p in pairs]
        )

    try:
        trainer = PreferenceTrainer(
            run=run,
            model=model,
            args=arguments,
            train_dataset=rows(plan.train),
            eval_dataset=rows(plan.held_out) if plan.held_out else None,
            processing_class=plan.tokenizer,
        )
    except (ValueError, NotImplementedError) as error:
        raise HoldfastError(
            f"TRL refuses this: {error}", hint="settings of a loss are given under 'training'"
        ) from error
    if plan.draws_EN is not None:  # only now: TRL adds the log-probs of the reference to each row once
        trainer.train_dataset = TokenDataset(trainer.train_dataset, plan.draws_EN)
    trainer.patience = config.patience
    keep_tensorboard(trainer, run)
    if "ref" in getattr(model, "peft_config", {}):
        model.delete_adapter("ref")  # TRL's copy of the adapters has done its work, and would be saved with them
    return trainer


def _summary(plan: PreferencePlan, run: RunDir, before_N2: Floats, after_N2: Floats) -> dict[str, Any]:
    config = plan.config
    held_out = {}
    if plan.held_out:
        held_out = {
            "before": evaluation(before_N2, before_N2, plan.held_out, config.beta),
            "after": evaluation(after_N2, before_N2, plan.held_out, config.beta),
            "gain": gain(before_N2, after_N2),
        }
    this = stage("align", str(run.path), {**vars(config)}, plan.resolved())
    return {
        "command": "align",
        "model": config.model,
        "data": name_of(config.data),
        **plan.resolved(),
        "before": None,
        "after": None,
        **held_out,
        "train_examples": len(plan.train),
        "eval_examples": len(plan.held_out),
        "data_report": plan.report.as_dict(),
        "bad_rows": {"count": len(plan.bad_rows), "first": plan.bad_rows[:20]},
        "lineage": [*lineage(config.model), this],
        "model_path": str(run.model),
    }


def _write_pairs(run: RunDir, pairs: list[PairTokens], before_N2: Floats, after_N2: Floats) -> None:
    """``pairs.jsonl``: log-probs of the held-out answers, chosen and rejected, before and after."""
    rows = [
        {"where": pair.where, "before": before.tolist(), "after": after.tolist()}
        for pair, before, after in zip(pairs, before_N2, after_N2, strict=True)
    ]
    write_text(run.path / "pairs.jsonl", "".join(json.dumps(row) + "\n" for row in rows))


@contextmanager
def _silent() -> Iterator[None]:
    """Keep progress bars of data sets and talk among libraries off the terminal.

    TRL's bar of its pass over the reference is left on a terminal.
    """
    import datasets

    was = os.environ.get("TQDM_DISABLE"), datasets.utils.are_progress_bars_disabled()
    if not sys.stderr.isatty():
        os.environ["TQDM_DISABLE"] = "1"
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        os.environ.pop("TQDM_DISABLE", None)
        if was[0] is not None:
            os.environ["TQDM_DISABLE"] = was[0]
        if not was[1]:
            datasets.enable_progress_bars()


def _card(summary: dict[str, Any]) -> str:
    """Markdown in the hub's form."""
    lines = [
        "---",
        "library_name: transformers",
        "tags: [holdfast, dpo, trl]",
        "---",
        f"# {Path(summary['model']).name} trained on preferences",
        "",
        f"Start point and reference `{summary['model']}`, pairs `{summary['data']}` ({summary['train_examples']}), "
        f"TRL's loss `{'+'.join(summary['losses'])}`, beta {summary['beta']:g}, {counted(summary['steps'], 'step')}, "
        f"peak learning rate {summary['learning_rate']:.2g}.",
        *weights_line(summary),
    ]
    for table in tables_of("align", summary):
        if table.title == "Preferences before and after":
            lines += ["", *as_markdown(table), "", plain(table.caption)]
    return "\n".join([*lines, "", f"Made with holdfast {holdfast.__version__}.", ""])
