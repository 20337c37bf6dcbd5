"""A real model behind a real vLLM server, started here on a free port: chat in both forms, and log-probs as in this
process. Needs ``vllm`` on the PATH or its program in HOLDFAST_VLLM, and a model folder in HOLDFAST_REAL_MODEL.
"""

from __future__ import annotations

import json
import os
import shutil
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
_SECONDS = 420


@pytest.fixture(scope="module")
def folder() -> str:
    model = os.environ.get("HOLDFAST_REAL_MODEL", "")
    if not (Path(model) / "config.json").is_file():
        pytest.skip("HOLDFAST_REAL_MODEL names no folder of a model (shared/tools/real_model.py makes one)")
    return model


@pytest.fixture(scope="module")
def url(folder: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    program = os.environ.get("HOLDFAST_VLLM") or shutil.which("vllm")
    if not program:
        pytest.skip("vllm is not installed: neither on the PATH nor in HOLDFAST_VLLM")
    line = [program, "serve", folder, "--served-model-name", "real", "--host", "127.0.0.1"]
    line += ["--dtype", "float32", "--enforce-eager", "--max-num-seqs", "8", "--max-model-len", "2048", "--port"]
    own = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": "1"}
    with serving(line, own, tmp_path_factory.mktemp("vllm") / "log.txt", _SECONDS) as address:
        yield address


@pytest.fixture
def config(tmp_path: Path) -> dict[str, Any]:
    return {"sets": str(write_jsonl(tmp_path / "sets.jsonl", SETS)), "max_new_tokens": 8, "concurrency": 4}


def responses(run: Path) -> list[list[str]]:
    rows = [json.loads(line) for line in (run / "rows.jsonl").read_text(encoding="utf-8").splitlines()]
    return [[v["response"].strip() for v in row["variants"]] for row in rows]


def test_a_chat_endpoint_answers_as_the_model_in_this_process(
    url: str, folder: str, config: dict[str, Any], tmp_path: Path
) -> None:
    measure(SensitivityConfig(**config, model=folder, chat=True, output=str(tmp_path / "hf")))
    for api in ("openai", "anthropic"):
        served = {"model": "real", "backend": "chat", "endpoint": url, "api": api, "repeats": 2}
        summary = measure(SensitivityConfig(**config, **served, output=str(tmp_path / api)))
        changes = next(iter(summary["answer_changes"].values()))
        assert responses(tmp_path / api) == responses(tmp_path / "hf")
        assert changes["noise"]["mean"] == 0
        assert changes["effect"]["mean"] == changes["differ"]["mean"] > 0
        assert (changes["first_token"] is not None) == (api == "openai")
        assert (summary["psi"], summary["cost"]["answers"]) == (None, 14)


def test_psi_is_that_of_this_process_with_many_cells_a_request(
    url: str, folder: str, config: dict[str, Any], tmp_path: Path
) -> None:
    here = measure(SensitivityConfig(**config, model=folder, chat=True, output=str(tmp_path / "hf")))
    served = {"model": "real", "backend": "openai", "endpoint": url, "tokenizer": folder, "chat": True}
    there = measure(SensitivityConfig(**config, **served, output=str(tmp_path / "openai")))
    assert there["posix"]["all"]["mean"] == pytest.approx(here["posix"]["all"]["mean"], abs=2e-3)
    assert there["cost"]["requests"] < 7 + 17 + 5 + 4  # responses, cells, preflight, audit
    with pytest.raises(HoldfastError, match="the 2048 tokens that"):
        measure(SensitivityConfig(**config, **served, context=4096, output=str(tmp_path / "long")))


def test_another_name_is_refused_with_the_one_that_is_served(url: str, config: dict[str, Any], tmp_path: Path) -> None:
    served = {"model": "other", "backend": "chat", "endpoint": url}
    with pytest.raises(HoldfastError) as caught:
        measure(SensitivityConfig(**config, **served, output=str(tmp_path / "out")))
    assert "it serves real" in str(caught.value.hint)
