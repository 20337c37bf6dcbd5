"""A real model behind a real llama.cpp server (llama-cpp-python), started here on a free port: chat, repeats, budget.

Needs the Python of an environment with ``llama-cpp-python[server]`` in HOLDFAST_LLAMACPP, and a GGUF file of an
instruct model in HOLDFAST_REAL_GGUF.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from holdfast.config import SensitivityConfig
from holdfast.errors import HoldfastError
from holdfast.sensitivity import measure
from materials import write_jsonl
from real_server import serving

pytestmark = pytest.mark.full
SETS = [
    ["What is the capital of France? Answer with one word.", "Name the capital of France in one word."],
    ["Is iron a metal? Answer yes or no.", "Yes or no: is iron a metal?", "iron a metal?? yes/no"],
    ["What is 2 plus 3?", "Add 2 and 3."],
]
PROMPTS = 7


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    python, model = os.environ.get("HOLDFAST_LLAMACPP", ""), os.environ.get("HOLDFAST_REAL_GGUF", "")
    if not python:
        pytest.skip("HOLDFAST_LLAMACPP names no Python with llama-cpp-python[server]")
    if not Path(model).is_file():
        pytest.skip("HOLDFAST_REAL_GGUF names no GGUF file")
    line = [python, "-m", "llama_cpp.server", "--model", model, "--model_alias", "real", "--host", "127.0.0.1"]
    line += ["--n_ctx", "1024", "--n_threads", "2", "--port"]
    with serving(line, {"OMP_NUM_THREADS": "2"}, tmp_path_factory.mktemp("llamacpp") / "log.txt", 120) as address:
        yield address


@pytest.fixture
def config(url: str, tmp_path: Path) -> dict[str, Any]:
    sets = str(write_jsonl(tmp_path / "sets.jsonl", SETS))
    return {"sets": sets, "max_new_tokens": 8, "model": "real", "backend": "chat", "endpoint": url}


def test_answers_repeat_and_cost_nothing_twice(config: dict[str, Any], tmp_path: Path) -> None:
    first = measure(SensitivityConfig(**config, repeats=2, output=str(tmp_path / "a"), cache=str(tmp_path / "cache")))
    changes = first["answer_changes"]["all"]
    assert (first["cost"]["requests"], first["cost"]["answers"]) == (2 * PROMPTS, 2 * PROMPTS)
    assert changes["noise"]["mean"] == 0, "the same wording gets the same answer at temperature 0"
    assert changes["effect"]["mean"] == changes["differ"]["mean"] > 0
    assert changes["first_token"]["mean"] > 0, "this server gives the log-probs of its own answer"
    assert first["psi"] is None
    assert first["psi_reason"]
    rows = [json.loads(line) for line in (tmp_path / "a" / "rows.jsonl").read_text(encoding="utf-8").splitlines()]
    assert "Paris" in rows[0]["variants"][0]["response"]
    again = measure(SensitivityConfig(**config, repeats=2, output=str(tmp_path / "b"), cache=str(tmp_path / "cache")))
    assert (again["cost"]["requests"], again["cost"]["answers_stored_before"]) == (0, 2 * PROMPTS)
    assert again["answer_changes"] == first["answer_changes"]


def test_a_stop_is_gone_on_from(config: dict[str, Any], tmp_path: Path) -> None:
    output = str(tmp_path / "run")
    with pytest.raises(HoldfastError, match="max-requests"):
        measure(SensitivityConfig(**config, max_requests=3, output=output))
    summary = measure(SensitivityConfig(**config, output=output))
    assert summary["cost"]["answers_stored_before"] == 3
    assert summary["cost"]["requests"] == PROMPTS - 3


def test_what_it_cannot_do_is_said(config: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = os.environ.get("HOLDFAST_REAL_MODEL", "")
    if folder:
        psi = config | {"backend": "openai", "tokenizer": folder}
        with pytest.raises(HoldfastError, match="takes prompts as text, and psi needs them as token ids") as caught:
            measure(SensitivityConfig(**psi, output=str(tmp_path / "psi")))
        assert "--backend chat" in str(caught.value.hint)
    measure(SensitivityConfig(**(config | {"model": "other"}), output=str(tmp_path / "other")))
    assert "lists no model 'other' (it lists real), and answers all the same" in capsys.readouterr().err
    with pytest.raises(HoldfastError, match="404") as caught:
        measure(SensitivityConfig(**(config | {"endpoint": config["endpoint"][:-3]}), output=str(tmp_path / "v1")))
    assert "/v1" in str(caught.value.hint)
    long = str(write_jsonl(tmp_path / "long.jsonl", [["word " * 3000 + "?", "Say a word."]]))
    with pytest.raises(HoldfastError, match="context length is 1024 tokens"):
        measure(SensitivityConfig(**(config | {"sets": long}), output=str(tmp_path / "long")))
