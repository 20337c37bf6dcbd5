"""The same numbers as others: cells of the released POSIX package 0.0.1 and of lm-evaluation-harness, and what the
package's index is.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from holdfast import lm as models
from holdfast.config import SensitivityConfig
from holdfast.lm import LM
from holdfast.sensitivity import measure
from holdfast.sensitivity.index import psi, psi_released
from holdfast.sensitivity.score import score
from materials import make_model, make_tokenizer
from prompt_ids import ragged

PROMPTS = [
    "What is the capital of France?",
    "Name the capital of France.",
    "Tell me: which city is the capital of France",
    "capital France?",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("peer")
    make_model(seed=1).save_pretrained(path)
    make_tokenizer(bos=True).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def stopping(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model, with one more token that ends a response."""
    path = tmp_path_factory.mktemp("stopping")
    lm = models.load(folder)
    stop = score(lm, PROMPTS, max_new_tokens=6).responses[0].ids[2]
    lm.model.generation_config.eos_token_id = [1, stop]
    lm.model.save_pretrained(path)
    lm.tokenizer.save_pretrained(path)
    return path


def package(folder: Path, prompts: list[str], new: int, batched: bool = False) -> tuple[float, Any]:
    """psi and the trace of the released package."""
    pytest.importorskip(
        "prompt_sensitivity_index", reason="the released package (prompt-sensitivity-index 0.0.1) is not installed"
    )
    from prompt_sensitivity_index.models import HFModel
    from prompt_sensitivity_index.posix import PosixConfig, get_prompt_sensitivity

    model = HFModel(str(folder), dtype="float32")
    return get_prompt_sensitivity(model, [prompts], PosixConfig(max_new_tokens=new, batched=batched, batch_size=2))


@pytest.mark.parametrize("batched", [False, True])
def test_cells_and_compatible_index_equal_those_of_the_released_package(folder: Path, batched: bool) -> None:
    theirs, trace = package(folder, PROMPTS, 6, batched)
    ours = score(models.load(folder), PROMPTS, max_new_tokens=6)
    assert ours.len_Y.tolist() == [6, 6, 6, 6]  # no early stop: the package agrees with itself
    assert ours.logp_XY == pytest.approx(np.array(trace.logprob_matrices[0]), abs=1e-4)
    assert psi_released(ours.logp_XY, 6) == pytest.approx(theirs, abs=1e-5)


def test_early_stops_where_the_package_is_right_about_the_cells(stopping: Path) -> None:
    theirs, trace = package(stopping, PROMPTS, 6)
    ours = score(models.load(stopping), PROMPTS, max_new_tokens=6)
    assert ours.len_Y.min() < 6
    assert ours.logp_XY == pytest.approx(np.array(trace.logprob_matrices[0]), abs=1e-4)
    assert psi_released(ours.logp_XY, 6) == pytest.approx(theirs, abs=1e-5)
    assert psi(ours.logp_XY, ours.len_Y) != pytest.approx(theirs, abs=1e-2)  # the paper's index is another number
    assert package(stopping, PROMPTS, 6, batched=True)[0] != pytest.approx(
        theirs, abs=1e-3
    )  # batched, it scores its own padding


def test_the_compatible_definition_is_an_option_of_the_command(stopping: Path, tmp_path: Path) -> None:
    theirs, _ = package(stopping, PROMPTS, 6)
    (tmp_path / "sets.jsonl").write_text('["' + '", "'.join(PROMPTS) + '"]\n')
    common: dict[str, Any] = {"model": str(stopping), "sets": str(tmp_path / "sets.jsonl"), "max_new_tokens": 6}
    found = measure(SensitivityConfig(**common, output=str(tmp_path / "a"), definition="package-0.0.1"))
    paper = measure(SensitivityConfig(**common, output=str(tmp_path / "b")))
    assert found["posix"]["all"]["mean"] == pytest.approx(theirs, abs=1e-5)
    assert (found["definition"], paper["definition"]) == ("package-0.0.1", "paper")
    assert paper["posix"]["all"]["mean"] != pytest.approx(theirs, abs=1e-2)


def test_cells_equal_those_of_the_evaluation_harness() -> None:
    pytest.importorskip("lm_eval", reason="lm-evaluation-harness (lm-eval 0.4.13) is not installed")
    from lm_eval.models.huggingface import HFLM

    lm = LM(make_model(), make_tokenizer(), "tiny")
    prompts = ragged((5, 3, 8, 6))
    ours = score(lm, prompts, max_new_tokens=6)
    harness = HFLM(pretrained=lm.model, tokenizer=lm.tokenizer, batch_size=3, max_length=128)
    pairs = [(x, y) for x in range(4) for y in range(4)]
    requests = [((str(x), str(y)), list(prompts[x]), list(ours.responses[y].ids)) for x, y in pairs]
    theirs = harness._loglikelihood_tokens(requests, disable_tqdm=True)
    for (x, y), (total, greedy) in zip(pairs, theirs, strict=True):
        assert ours.logp_XY[x, y] == pytest.approx(total, abs=1e-4)
        assert greedy or x != y
