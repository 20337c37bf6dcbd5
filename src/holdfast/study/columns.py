"""The name of a column -> a setting (rank, learning_rate, ...), a score (accuracy, ...) or neither."""

from __future__ import annotations

import re
from dataclasses import fields

from holdfast.config import TuneConfig

_LOWER_WORDS = "nll loss perplexity ppl posix psi empty error errors err wer cer ter mse rmse mae bpb"
_LOWER = frozenset(_LOWER_WORDS.split())
"""Words in the name of a metric which say that smaller is better."""
_LOWER_ENDINGS = ("loss", "nll", "perplexity", "ppl")
"""Ends of such words, as in ``valloss``."""
_HIGHER_WORDS = """
score scores accuracy average avg mean f1 em exact match recall auc auroc mcc win winrate pass correct mmlu gsm8k arc
hellaswag winogrande truthfulqa piqa boolq bbh ifeval humaneval mbpp alpacaeval
"""
_HIGHER = frozenset(_HIGHER_WORDS.split())
_HIGHER_STARTS = ("acc", "bleu", "rouge", "chrf", "meteor")

_SETTING_NAMES = """
base base_model dataset group setting stage twin size rank r alpha beta lr bs batch warmup epoch num_epochs
num_train_epochs step steps num_steps temperature top_p top_k dropout momentum beta1 beta2 eps epsilon clip grad_clip
grad_accum gradient_accumulation_steps label_smoothing layers num_layers hidden_size params num_params parameters
model_size context_length seq_len seq_length max_seq_length max_new_tokens shots n_shot num_shots num_fewshot fold
train_size num_examples train_batch_size per_device_train_batch_size scheduler quantization bits
"""
# A tuning option is called precision, but a column of that name may be a score beside one called recall.
_SETTINGS = {f.name for f in fields(TuneConfig)} - {"precision"} | set(_SETTING_NAMES.split())
_SETTINGS_STARTS = ("lora_", "warmup_", "adam_", "learning_rate_", "lr_")
_SETTINGS_ENDINGS = (
    "_seed",
    "_rank",
    "_alpha",
    "_beta",
    "_lr",
    "_learning_rate",
    "_dropout",
    "_epochs",
    "_batch_size",
    "_decay",
    "_steps",
)


def is_setting(column: str) -> bool:
    """Return whether a column is a known hyperparameter, which is no score even if it holds numbers."""
    name = re.sub(r"[^a-z0-9]+", "_", column.lower()).strip("_")
    return name in _SETTINGS or name.startswith(_SETTINGS_STARTS) or name.endswith(_SETTINGS_ENDINGS)


def is_score(column: str) -> bool:
    """Return whether some word of a column's name says that it is measured."""
    words = set(re.findall(r"[a-z0-9]+", column.lower())) | _words(column)
    return lower_is_better(column) or any(word in _HIGHER or word.startswith(_HIGHER_STARTS) for word in words)


def lower_is_better(metric: str) -> bool:
    """Return whether some word of a metric's name, or the end of one, says that smaller is better."""
    return any(word in _LOWER or (word.endswith(_LOWER_ENDINGS) and word != "gloss") for word in _words(metric))


def _words(name: str) -> set[str]:
    return {word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+", name)}
