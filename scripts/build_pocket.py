"""Rebuild the embedded model: tokenizer, random initialisation, pre-training with ``holdfast tune`` at weights (1, 1),
card.

    python scripts/build_pocket.py --work /tmp/pocket [--documents 128000] [--threads 1]

About one hour on one core. A killed build continues from its last checkpoint. The result is copied to
src/holdfast/pocket/model. The text is made by the package beside this file, `pocket`; `make_pocket_rows.py` writes the
rows that are shipped.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
from pathlib import Path

HOME = Path(__file__).resolve().parents[1] / "src" / "holdfast" / "pocket" / "model"
SPECIAL = ["<|pad|>", "<|begin|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>", "<|tool|>"]
# The answer's leading space stands inside the turn, so that words keep the token they have in running text.
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ '<|' + message['role'] + '|>' }}"
    "{% if message['role'] == 'assistant' %}{% generation %}{{ ' ' + message['content'] + eos_token }}{% "
    "endgeneration %}"
    "{% else %}{{ ' ' + message['content'] }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def build_tokenizer(texts: list[str], folder: Path, vocabulary: int) -> None:
    """Byte-level BPE, digits apart."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|begin|>",
        eos_token="<|end|>",
        pad_token="<|pad|>",
        additional_special_tokens=SPECIAL[3:],
        model_max_length=512,
        clean_up_tokenization_spaces=False,
    )
    wrapped.chat_template = CHAT_TEMPLATE
    wrapped.save_pretrained(folder)


def build_random_model(folder: Path, vocabulary: int) -> None:
    """A Llama of 1.3 M parameters."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=128,
        intermediate_size=352,
        num_hidden_layers=6,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=SPECIAL.index("<|begin|>"),
        eos_token_id=SPECIAL.index("<|end|>"),
        pad_token_id=SPECIAL.index("<|pad|>"),
        initializer_range=0.04,
    )
    LlamaForCausalLM(config).save_pretrained(folder)


def pretrain(start: Path, corpus: Path, output: Path, precision: str) -> dict:
    """``holdfast tune`` on plain text: everything is response, weights (1, 1)."""
    from holdfast.config import TuneConfig
    from holdfast.tune import train

    return train(
        TuneConfig(
            model=str(start),
            data=str(corpus),
            output=str(output),
            preset="continual",
            eval_share=0.004,
            learning_rate=3e-3,
            warmup_ratio=0.03,
            max_grad_norm=1.0,
            batch_size=32,
            micro_batch_size=4,
            precision=precision,
            log_steps=50,
            eval_steps=1000,
            save_steps=250,
            training={"adam_beta2": "0.98"},
        )
    )


def measure(work: Path) -> dict:
    """What the card says of the model: exact answers before and after ``holdfast tune`` at its defaults, and the time
    that takes.
    """
    from holdfast import lm, pocket
    from holdfast.config import TuneConfig
    from holdfast.tune import train

    rows = pocket.rows("pocket:instructions/test")
    tuned = train(TuneConfig(model="pocket", data="pocket:instructions", output=str(work / "tuned"), overwrite=True))
    return {
        "test_rows": len(rows),
        "base": evaluate(lm.load("pocket"), rows),
        "tuned": evaluate(lm.load(work / "tuned"), rows),
        "seconds": tuned["seconds"],
        "steps": tuned["steps"],
    }


def evaluate(model, rows: list[dict]) -> dict[str, float]:
    """Share of exact answers on new items in wordings known from training (``new_items``) and in new wordings
    (``new_wordings``).
    """
    from holdfast.data.chat_template import generation_prompt
    from holdfast.records import Message, Role
    from holdfast.study.measures import exact_match

    turns = [[Message(Role[m["role"].upper()], m["content"]) for m in row["messages"]] for row in rows]
    answers = model.generate([generation_prompt(t[:-1], "chat", model.tokenizer) for t in turns], max_new_tokens=24)
    right = [exact_match(answer, t[-1].content) for answer, t in zip(answers, turns, strict=True)]
    known, new = (
        [r for r, row in zip(right, rows, strict=True) if row["held_out_wording"] is held] for held in (False, True)
    )
    return {"new_items": sum(known) / len(known), "new_wordings": sum(new) / len(new)}


def card(summary: dict, figures: dict, threads: int) -> str:
    """The model card, from measured figures only."""
    base, tuned = figures["base"], figures["tuned"]
    items, wordings = tuned["new_items"], tuned["new_wordings"]
    before, after = (summary[when]["response_nll"] for when in ("before", "after"))
    return f"""---
library_name: transformers
license: apache-2.0
tags: [holdfast]
---
# pocket

The embedded base model of Holdfast: a Llama of 1.3 M parameters (hidden size 128, 6 layers, 4 heads, context 512),
byte-level BPE of 1,024 tokens with digits apart, pre-trained from random initialisation by `holdfast tune` at
weights (1, 1) on text that `scripts/pocket/corpus.py` generates. It knows a small made-up English world and
is for trying things without a network, and for tests. It knows nothing else.

| | |
|---|---|
| documents | {summary["train_examples"]:,} |
| tokens seen | {summary["data_report"]["tokens"]:,} (one pass, {summary["steps"]:,} steps) |
| held-out NLL, nats per token | {before:.3f} before, {after:.3f} after |
| time | {summary["seconds"] / 60:.0f} minutes, {threads} thread(s), on a shared machine |

Exact greedy answers on the {figures["test_rows"]} rows of `pocket:instructions/test` (items never trained on;
half in new wordings):

| | known wordings | new wordings |
|---|---|---|
| as it is, asked in chat | {base["new_items"]:.1%} | {base["new_wordings"]:.1%} |
| after `holdfast tune` on `pocket:instructions`, {figures["steps"]} steps | {items:.1%} | {wordings:.1%} |

Rebuild: `python scripts/build_pocket.py --work FOLDER`.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--documents", type=int, default=104_000)
    parser.add_argument("--vocabulary", type=int, default=1024)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--precision", default="fp32")
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(args.threads)
    import torch

    torch.set_num_threads(args.threads)
    from pocket.corpus import corpus

    args.work.mkdir(parents=True, exist_ok=True)
    start, data, run = args.work / "random", args.work / "corpus.jsonl", args.work / "run"
    if not (start / "config.json").exists():
        with data.open("w", encoding="utf-8") as file:
            for text in corpus(args.documents):
                file.write(json.dumps({"text": text}) + "\n")
        build_tokenizer(list(corpus(20_000)), start, args.vocabulary)
        build_random_model(start, args.vocabulary)
    summary = pretrain(start, data, run, args.precision)
    shutil.rmtree(HOME, ignore_errors=True)
    shutil.copytree(run / "model", HOME)
    figures = measure(args.work)
    (HOME / "README.md").write_text(card(summary, figures, args.threads), encoding="utf-8")
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
