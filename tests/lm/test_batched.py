"""NLLs of whole sequences in padded batches equal those of each sequence alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from holdfast.lm import batched
from materials import make_model

SEQUENCES = [[int(i) for i in np.random.default_rng(n).integers(0, 400, n)] for n in (5, 1, 17, 2, 9)]


def alone(model: torch.nn.Module, ids: list[int]) -> list[float]:
    with torch.no_grad():
        logp_TV = model(input_ids=torch.tensor([ids])).logits[0].double().log_softmax(-1)
    return [0.0] + [-float(logp_TV[t - 1, ids[t]]) for t in range(1, len(ids))]


@pytest.mark.parametrize(("budget", "rows"), [(4096, None), (20, None), (4096, 2), (1, 1)])
def test_batches_change_nothing(monkeypatch: pytest.MonkeyPatch, budget: int, rows: int | None) -> None:
    monkeypatch.setattr(batched, "BATCH_TOKENS", budget)
    model = make_model().double().train()
    nlls = batched.sequence_nlls(model, SEQUENCES, 7, batch_size=rows)
    assert model.training, "the mode is as it was"
    model.eval()
    for ids, nll in zip(SEQUENCES, nlls, strict=True):
        assert nll == pytest.approx(alone(model, ids), abs=1e-9)


def test_what_is_beyond_the_context_has_no_nll() -> None:
    nll = batched.sequence_nlls(make_model(), SEQUENCES, 7, context=10)[2]
    assert np.isfinite(nll[:10]).all()
    assert np.isnan(nll[10:]).all()


def test_logits_that_are_no_numbers_are_refused() -> None:
    model = make_model()
    with torch.no_grad():
        model.lm_head.weight[3] = float("nan")
    with pytest.raises(batched.NotFiniteError, match="not finite"):
        batched.sequence_nlls(model, SEQUENCES, 7)
