"""What tests are made of: small real models and tokenizers, and files of rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
TEXT = [
    "What is the capital of France? The capital of France is Paris.",
    "Name three colours. Red, green and blue.",
    "user assistant system tool hello world, how are you today? Fine, thank you!",
    "Below is an instruction that describes a task. ### Instruction: ### Response:",
]


def make_tokenizer(
    *, bos: bool = False, eos: bool = True, pad: str | None = "<|pad|>", chat_template: str | None = CHATML
) -> Any:
    """A byte-level BPE tokenizer trained on a few sentences."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    special = ["<|bos|>", "<|end|>", "<|pad|>", "<|im_start|>", "<|im_end|>"]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXT, trainer)
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(single="<|bos|> $A", special_tokens=[("<|bos|>", 0)])
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|bos|>" if bos else None,
        eos_token="<|end|>" if eos else None,
        pad_token=pad,
        additional_special_tokens=["<|im_start|>", "<|im_end|>"],
        model_max_length=128,
    )
    wrapped.chat_template = chat_template
    return wrapped


def make_model(family: str = "llama", seed: int = 0, **changes: Any) -> Any:
    """A random model of a real family, two layers, float32, in evaluation mode."""
    import transformers as tf

    torch.manual_seed(seed)
    small = {"vocab_size": 400, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    small |= {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128}
    small |= {"pad_token_id": 2, "bos_token_id": 0, "eos_token_id": 1} | changes
    makers: dict[str, Any] = {
        "llama": lambda: tf.LlamaForCausalLM(tf.LlamaConfig(**small)),
        "gemma2": lambda: tf.Gemma2ForCausalLM(tf.Gemma2Config(head_dim=8, final_logit_softcapping=2.0, **small)),
        "cohere": lambda: tf.CohereForCausalLM(tf.CohereConfig(logit_scale=0.25, **small)),
        "granite": lambda: tf.GraniteForCausalLM(tf.GraniteConfig(logits_scaling=4.0, **small)),
        "phi": lambda: tf.PhiForCausalLM(tf.PhiConfig(**small | {"num_key_value_heads": 4})),
        "gpt2": lambda: tf.GPT2LMHeadModel(
            tf.GPT2Config(
                vocab_size=400, n_embd=32, n_layer=2, n_head=4, n_positions=128, bos_token_id=0, eos_token_id=1
            )
        ),
    }
    model = makers[family]()
    for parameter in model.parameters():  # larger than the usual start, so that logits, caps and scales matter
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.2)
    if family == "phi":
        torch.nn.init.normal_(model.lm_head.bias)
    return model.eval()


def write_jsonl(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path
