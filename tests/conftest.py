"""One thread (two beside another load are many times slower), no network, and small real models and tokenizers."""

from __future__ import annotations

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import settings

from materials import make_model, make_tokenizer, write_jsonl

torch.set_num_threads(1)
settings.register_profile("holdfast", deadline=None, derandomize=True)
settings.load_profile("holdfast")

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data and models beside the checkout."""
    if not SHARED.is_dir():
        pytest.skip("the folder ../shared with real data is absent")
    return SHARED


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    return make_tokenizer()


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model with its tokenizer, on disk."""
    folder = tmp_path_factory.mktemp("tiny")
    make_model().save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def chat_file(tmp_path: Path) -> Path:
    """Forty chat examples, as JSONL."""
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"Count to {n}."},
                {"role": "assistant", "content": " ".join(map(str, range(1, n + 1)))},
            ]
        }
        for n in range(1, 41)
    ]
    return write_jsonl(tmp_path / "chat.jsonl", rows)
