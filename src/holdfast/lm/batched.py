"""Whole sequences of ids -> NLL of every token, in padded batches of similar length. For scoring once, where no prefix
is shared.

    nll_t = -log softmax(z_{t-1})[y_t]

Axes: B batch, T tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from holdfast.errors import HoldfastError

Floats = npt.NDArray[np.float64]
BATCH_TOKENS = 4096


def token_nll(logits_BTV: Tensor, ids_BT: Tensor) -> Tensor:
    """Return the negative log-likelihood of each token given those before it, nats, [B, T]. Column 0 is 0, because the
    first token is not a target.

    Low-precision logits are raised to float32; float64 stays float64.
    """
    logits = logits_BTV[:, :-1]
    logp_BTV = logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1)
    nll_BT = -logp_BTV.gather(-1, ids_BT[:, 1:, None]).squeeze(-1)
    return torch.nn.functional.pad(nll_BT, (1, 0))


@torch.no_grad()
def sequence_nlls(
    model: Any,
    sequences: Sequence[Sequence[int]],
    pad_id: int,
    *,
    batch_size: int | None = None,
    context: int | None = None,
) -> list[Floats]:
    """Return the NLL of every token of every sequence, nats [T] each, computed from full logits.

    Args:
        model: a causal language model; it is in evaluation mode while this runs.
        sequences: ids [T] each.
        pad_id: any id. No attention mask is passed: padding is on the right, where causal attention never looks.
        batch_size: sequences per pass at most, beside ``BATCH_TOKENS`` tokens with padding. Changes speed only.
        context: tokens beyond this position get NaN.

    Raises:
        NotFiniteError: the model's logits are not finite.
    """
    was_training = model.training
    model.eval()
    nlls = [np.full(len(ids), np.nan) for ids in sequences]
    lengths = [len(ids) if context is None else min(len(ids), context) for ids in sequences]
    for batch in _batches(lengths, batch_size):
        ids_BT = torch.full((len(batch), max(lengths[i] for i in batch)), pad_id)
        for row, i in enumerate(batch):
            ids_BT[row, : lengths[i]] = torch.as_tensor(sequences[i][: lengths[i]])
        ids_BT = ids_BT.to(model.device)
        nll_BT = token_nll(model(input_ids=ids_BT, use_cache=False).logits, ids_BT).double().cpu()
        for row, i in enumerate(batch):
            check_finite(nll_BT[row, : lengths[i]])
            nlls[i][: lengths[i]] = nll_BT[row, : lengths[i]].numpy()
    model.train(was_training)
    return nlls


def _batches(lengths: Sequence[int], batch_size: int | None) -> Iterator[list[int]]:
    """Numbers of sequences, those of similar length together; one that is longer than the budget has a pass of its
    own.
    """
    batch: list[int] = []
    for i in sorted(range(len(lengths)), key=lengths.__getitem__):
        full = (len(batch) + 1) * lengths[i] > BATCH_TOKENS or (batch_size is not None and len(batch) >= batch_size)
        if batch and full:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


def check_finite(values: Tensor) -> None:
    """Raise if a value is NaN or infinite.

    Raises:
        NotFiniteError: a value is not finite.
    """
    if not bool(values.isfinite().all()):
        raise NotFiniteError


class NotFiniteError(HoldfastError):
    """The model's logits hold NaN or infinities."""

    def __init__(self, where: str = "") -> None:
        super().__init__(
            f"the model's logits are not finite{where and ': ' + where}",
            hint="the weights hold NaN, or overflow in this precision; try float32",
        )
