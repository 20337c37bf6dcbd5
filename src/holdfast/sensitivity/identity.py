"""Model and tokenizer -> digests, the keys of the cache: what a number depends on beside token ids."""

from __future__ import annotations

import hashlib
from typing import Any

import torch

CODE_VERSION = "1"
"""To be raised when the numbers that this package computes change."""


def weights_digest(model: Any) -> str:
    """Return the SHA-256 of all parameters and buffers, by name."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def tokenizer_digest(tokenizer: Any) -> str:
    """Return the SHA-256 of the vocabulary, the special tokens, the tokenizer's program and its chat template."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    parts = [backend.to_str() if backend is not None else repr(sorted(tokenizer.get_vocab().items()))]
    parts += [repr(sorted((k, str(v)) for k, v in tokenizer.special_tokens_map.items())), str(tokenizer.chat_template)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
