"""Whichever transformers is installed: the words that it is about to drop are not used, and batches are left as they
are by what casts.
"""

from __future__ import annotations

import copy
import logging
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from holdfast.lm import LM
from holdfast.lm.cache import cache_argument
from holdfast.lm.engine import Engine
from holdfast.tune.batches import collate
from materials import make_model, make_tokenizer
from prompt_ids import grid
from training_steps import some_tokens, trainer


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_caches_are_passed_by_the_name_that_this_version_wants(family: str, caplog: pytest.LogCaptureFixture) -> None:
    lm = LM(make_model(family), make_tokenizer(), family)
    prompts = [(*range(5, 45), n) for n in (50, 51, 52)]
    with warnings.catch_warnings(record=True) as said, caplog.at_level(logging.WARNING, "transformers"):
        warnings.simplefilter("always")
        logging.getLogger("transformers").addHandler(caplog.handler)  # it does not propagate
        try:
            scorer = Engine(lm.model, 128, token_budget=64, row_tokens=32)
            scorer.score(grid())
            engine = Engine(lm.model, 128)
            engine.generate(prompts, 3, frozenset())
        finally:
            logging.getLogger("transformers").removeHandler(caplog.handler)
    assert scorer.cost.calls > 1  # so there was a cache
    assert engine.cost.calls > 2
    assert [text for text in (*(str(w.message) for w in said), *caplog.messages) if "past_key_values" in text] == []


def test_the_name_is_found_behind_whatever_wraps_a_forward() -> None:
    """A PEFT wrapper, a subclass that passes everything on, and a model that writes the older or the newer name."""
    import peft

    class Passing(type(make_model())):  # type: ignore[misc]
        def forward(self, *args: Any, **kwargs: Any) -> Any:
            return super().forward(*args, **kwargs)

    class Older(torch.nn.Module):
        def forward(self, past_key_values: Any = None) -> None: ...

    class Newer(torch.nn.Module):
        def forward(self, cache: Any = None) -> None: ...

    expected = cache_argument(make_model(), 1)
    passing = copy.deepcopy(make_model())
    passing.__class__ = Passing
    adapted = peft.get_peft_model(
        make_model(), peft.LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM")
    )
    assert cache_argument(passing, 1) == expected
    assert cache_argument(adapted, 1) == expected
    assert cache_argument(Older(), 1) == {"past_key_values": 1}
    assert cache_argument(Newer(), 1) == {"cache": 1}


def test_the_trainers_cast_for_deepspeed_leaves_factors_bit_for_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """transformers' own ``_prepare_inputs``, told that DeepSpeed trains in bfloat16. It casts what lies in a dict."""
    made, batch = trainer(some_tokens(4, scale=True), tmp_path), collate(some_tokens(4, scale=True))
    plugin = SimpleNamespace(hf_ds_config=SimpleNamespace(dtype=lambda: torch.bfloat16))
    monkeypatch.setattr(made, "is_deepspeed_enabled", True)
    monkeypatch.setattr(made, "accelerator", SimpleNamespace(state=SimpleNamespace(deepspeed_plugin=plugin)))
    assert made._prepare_inputs({"scale": batch.scale_NT})["scale"].dtype is torch.bfloat16
    assert made._prepare_inputs(batch).scale_NT is batch.scale_NT


def test_deepspeeds_own_cast_leaves_factors_bit_for_bit() -> None:
    engine = pytest.importorskip("deepspeed.runtime.engine", exc_type=ImportError)
    batch = collate(some_tokens(4, scale=True))
    cast = engine.DeepSpeedEngine._cast_inputs_half
    self = SimpleNamespace()
    self._cast_inputs_half = lambda inputs: cast(self, inputs)
    half, same = cast(self, [{"scale": batch.scale_NT}, batch])
    assert half["scale"].dtype is torch.float16
    assert same is batch
