"""The weighted loss: reference numbers worked out by hand, properties, and the fast path against the plain one in
float64.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.lm.batched import token_nll
from holdfast.records import Role
from holdfast.tune.loss import weighted_linear_cross_entropy, weighted_nll
from holdfast.tune.weights import NORMALIZERS, role_weights, token_weights

LN2 = math.log(2)
V = 4
# Two examples whose tokens have NLLs of whole multiples of ln 2 (None: BOS, no target). P prompt, R response.
A = ([0, 1, 2, 3, 0, 1], "TPPRRR", [None, 1, 2, 1, 3, 1])
B = ([0, 1, 2, 3, 0, 1, 2, 3, 0], "TPPPPPPRR", [None, 1, 1, 1, 1, 1, 1, 3, 2])
ROLE = {"T": Role.TEMPLATE, "P": Role.USER, "R": Role.ASSISTANT, "_": Role.PAD}


def batch(*examples: Any, extra: int = 0, pad_id: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits, ids, roles of right-padded examples whose targets have the wanted probabilities."""
    length = max(len(ids) for ids, _, _ in examples) + extra
    logits = torch.randn(len(examples), length, V, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    ids = torch.full((len(examples), length), pad_id)
    roles = torch.full((len(examples), length), int(Role.PAD))
    for row, (tokens, kinds, bits) in enumerate(examples):
        ids[row, : len(tokens)] = torch.tensor(tokens)
        roles[row, : len(tokens)] = torch.tensor([int(ROLE[k]) for k in kinds])
        for position in range(1, len(tokens)):
            q = 2.0 ** -bits[position]
            logits[row, position - 1] = math.log((1 - q) / 3)
            logits[row, position - 1, tokens[position]] = math.log(q)
    return logits, ids, roles


def loss(pair: tuple[float, float], *examples: Any, normalizer: str = "nonzero", **options: Any) -> float:
    logits, ids, roles = batch(*examples, **options)
    weights = role_weights(*pair) if any(pair) else None
    assert weights is not None
    entering, parts = NORMALIZERS[normalizer](token_weights(roles, weights, dtype=torch.float64), roles)
    return float(weighted_nll(logits, ids, entering).total / parts.sum())


@pytest.mark.parametrize(
    ("pair", "wit", "weight_sum", "response_count"),
    [
        ((0, 1), 1.155245301, 1.155245301, 1.155245301),
        ((0, 0.4), 0.462098120, 1.155245301, 0.462098120),
        ((1, 1), 1.109035489, 1.109035489, 1.848392481),
        ((0.5, 0.5), 0.554517744, 1.109035489, 0.924196241),
        ((0.2, 0.8), 0.637695406, 1.138741797, 1.062825677),
        ((0.6, 0.4), 0.526791857, 1.097483036, 0.877986429),
        ((0.2, 1), 0.776324842, 1.141654180, 1.293874737),
        ((1, 0), 1.039720771, 1.039720771, 0.693147181),
        ((0.4, 0), 0.415888308, 1.039720771, 0.277258872),
    ],
)
def test_one_example(pair: tuple[float, float], wit: float, weight_sum: float, response_count: float) -> None:
    assert loss(pair, A) == pytest.approx(wit, abs=5e-10)
    assert loss(pair, A, normalizer="weight-sum") == pytest.approx(weight_sum, abs=5e-8)
    assert loss(pair, A, normalizer="response-count") == pytest.approx(response_count, abs=5e-8)


def test_the_jump_of_the_paper_near_zero() -> None:
    """Weight 1e-12 counts in the divisor and not in the sum. The formula does that; role_weights refuses such a
    weight.
    """
    logits, ids, roles = batch(A)
    weights = torch.where(roles == Role.USER, 1e-12, torch.where(roles == Role.ASSISTANT, 1.0, 0.0)).double()
    made = weighted_nll(logits, ids, weights)
    assert float(made.total / made.count) == pytest.approx(LN2, abs=1e-9)


@pytest.mark.parametrize(
    ("pair", "expected", "mean_of_means"),
    [
        ((0, 1), 1.386294361, 1.444056626),
        ((0, 0.4), 0.554517744, 0.577622650),
        ((1, 1), 1.013061264, 1.031056431),
        ((0.5, 0.5), 0.506530632, 0.515528216),
        ((0.2, 0.8), 0.522526336, 0.544120537),
        ((0.6, 0.4), 0.501198731, 0.505997442),
        ((0.2, 1), 0.629164364, 0.656756954),
        ((1, 0), 0.779790578, 0.866433976),
        ((0.4, 0), 0.311916231, 0.346573590),
    ],
)
def test_two_examples(pair: tuple[float, float], expected: float, mean_of_means: float) -> None:
    for options in ({}, {"extra": 3}, {"pad_id": 1}, {"extra": 5, "pad_id": 3}):
        assert loss(pair, A, B, **options) == pytest.approx(expected, abs=5e-8)
        assert loss(pair, B, A, **options) == pytest.approx(expected, abs=5e-8)
    assert loss(pair, A, B, normalizer="example") == pytest.approx(mean_of_means, abs=5e-8)
    parts = [loss(pair, one) for one in (A, B)]
    assert sum(parts) / 2 == pytest.approx(mean_of_means, abs=5e-8)


@pytest.mark.parametrize(("pair", "to_4", "to_3"), [((0.2, 0.8), 0.323468684, 0.207944154), ((0, 1), 0.693147181, 0.0)])
def test_truncated(pair: tuple[float, float], to_4: float, to_3: float) -> None:
    for length, expected in ((4, to_4), (3, to_3)):
        logits, ids, roles = (t[:, :length] for t in batch(A))
        made = weighted_nll(logits, ids, token_weights(roles, role_weights(*pair), dtype=torch.float64))
        assert float(made.total / made.count.clamp(min=1)) == pytest.approx(expected, abs=5e-8)


def test_gradient_with_flat_logits() -> None:
    logits = torch.zeros(1, 6, V, dtype=torch.float64, requires_grad=True)
    _, ids, roles = batch(A)
    made = weighted_nll(logits, ids, token_weights(roles, role_weights(0.2, 0.8), dtype=torch.float64))
    value = made.total / made.count
    value.backward()
    assert value.item() == pytest.approx(0.776324842, abs=1e-8)
    for row in range(6):
        expected = torch.zeros(V, dtype=torch.float64)
        if row < 5:
            size = 0.04 if row >= 2 else 0.01
            expected += size
            expected[ids[0, row + 1]] = -3 * size
        torch.testing.assert_close(logits.grad[0, row], expected, atol=1e-9, rtol=1e-7)


def test_rows_of_zero_weight_get_exactly_no_gradient() -> None:
    logits, ids, roles = batch(A, B)
    logits.requires_grad_()
    weighted_nll(logits, ids, token_weights(roles, role_weights(0, 1)).double()).total.backward()
    predicts_response = torch.zeros_like(roles, dtype=torch.bool)
    predicts_response[:, :-1] = roles[:, 1:] == Role.ASSISTANT
    assert (logits.grad[~predicts_response] == 0).all()


def test_infinite_nll_under_zero_weight_does_no_harm() -> None:
    logits = torch.zeros(1, 3, V, dtype=torch.float64)
    logits[0, 0, 1] = -math.inf
    made = weighted_nll(logits, torch.tensor([[0, 1, 2]]), torch.tensor([[0.0, 0.0, 1.0]], dtype=torch.float64))
    assert float(made.total) == pytest.approx(math.log(4))


@given(st.floats(0.01, 8.0))
def test_homogeneous(factor: float) -> None:
    logits, ids, roles = batch(A, B)
    weights = token_weights(roles, role_weights(0.2, 0.8), dtype=torch.float64)
    torch.testing.assert_close(
        weighted_nll(logits, ids, factor * weights).total, factor * weighted_nll(logits, ids, weights).total
    )


def dense(
    hidden: Any, head: Any, targets: Any, weights: Any, divisor: float, bias: Any, softcap: float | None, scale: float
) -> Any:
    """The naive form, in whatever precision it is given."""
    logits = hidden @ head.T + (0 if bias is None else bias)
    logits = logits * scale
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    nll = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
    return (weights * nll).sum() / divisor, torch.where(weights != 0, nll, 0).detach()


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 23),
    width=st.integers(1, 9),
    vocabulary=st.integers(2, 33),
    zero_share=st.sampled_from([0.0, 0.4, 0.9, 1.0]),
    softcap=st.sampled_from([None, 3.0]),
    scale=st.sampled_from([1.0, 0.25]),
    bias=st.booleans(),
    frozen=st.booleans(),
    chunk=st.sampled_from([None, 1, 7]),
    seed=st.integers(0, 1000),
)
def test_fast_head_equals_plain_in_float64(
    rows: int, width: int, vocabulary: int, zero_share: float, softcap: float | None, scale: float, bias: bool,
    frozen: bool,
    chunk: int | None, seed: int,
) -> None:  # fmt: skip
    rng = torch.Generator().manual_seed(seed)
    hidden = torch.randn(rows, width, dtype=torch.float64, generator=rng)
    head = torch.randn(vocabulary, width, dtype=torch.float64, generator=rng)
    bias_V = torch.randn(vocabulary, dtype=torch.float64, generator=rng) if bias else None
    targets = torch.randint(vocabulary, (rows,), generator=rng)
    weights = 3 * torch.rand(rows, dtype=torch.float64, generator=rng)
    weights[torch.rand(rows, generator=rng) < zero_share] = 0
    made = []
    for fast in (True, False):
        h, w = hidden.clone().requires_grad_(), head.clone().requires_grad_(not frozen)
        b = bias_V.clone().requires_grad_(not frozen) if bias_V is not None else None
        if fast:
            value, nll = weighted_linear_cross_entropy(
                h, w, targets, weights, divisor=7.5, bias_V=b, softcap=softcap, logit_scale=scale, chunk_rows=chunk
            )
        else:
            value, nll = dense(h, w, targets, weights, 7.5, b, softcap, scale)
        (1.5 * value).backward()
        made.append([value.detach(), nll, h.grad, w.grad, b.grad if b is not None else None])
    for ours, oracle in zip(*made):
        if oracle is None:
            assert ours is None
        else:
            torch.testing.assert_close(ours, oracle, atol=1e-12, rtol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_fast_head_in_low_precision(dtype: torch.dtype) -> None:
    """Float32 agrees with float64 to rounding; bfloat16 to bfloat16's, with sums kept in float32."""
    rng = torch.Generator().manual_seed(0)
    hidden, head = torch.randn(300, 16, generator=rng), torch.randn(77, 16, generator=rng)
    hidden, head = hidden.to(dtype), head.to(dtype)
    targets, weights = torch.randint(77, (300,), generator=rng), torch.rand(300, generator=rng)
    h64, w64 = hidden.double().requires_grad_(), head.double().requires_grad_()
    dense(h64, w64, targets, weights.double(), 100.0, None, None, 1.0)[0].backward()
    h, w = hidden.requires_grad_(), head.requires_grad_()
    weighted_linear_cross_entropy(h, w, targets, weights, divisor=100.0, chunk_rows=64)[0].backward()
    tolerance = 2e-6 if dtype is torch.float32 else 2e-2
    for ours, exact in ((h.grad, h64.grad), (w.grad, w64.grad)):
        assert ours.dtype is dtype
        assert float((ours.double() - exact).abs().max() / exact.abs().max()) < tolerance


def test_extreme_logits_stay_finite() -> None:
    hidden = torch.tensor([[1e4], [-1e4]]).requires_grad_()
    head = torch.tensor([[1.0], [0.0], [-1.0]])
    value, nll = weighted_linear_cross_entropy(hidden, head, torch.tensor([2, 2]), torch.ones(2), divisor=2.0)
    value.backward()
    assert nll.tolist() == [2e4, 0.0]
    assert hidden.grad.isfinite().all()


def test_nothing_kept_is_a_connected_zero() -> None:
    hidden, head = torch.randn(5, 3, requires_grad=True), torch.randn(4, 3, requires_grad=True)
    value, nll = weighted_linear_cross_entropy(
        hidden, head, torch.zeros(5, dtype=torch.long), torch.zeros(5), divisor=0.0
    )
    value.backward()
    assert value.item() == 0
    assert not nll.any()
    assert not hidden.grad.any()
    assert not head.grad.any()


def test_tied_head_adds_both_gradients() -> None:
    """The embedding is input and head at once: autograd must add both parts."""
    ids, targets = torch.tensor([1, 2, 3]), torch.tensor([2, 3, 1])
    made = []
    for fast in (True, False):
        table = torch.randn(5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(3)).requires_grad_()
        hidden = torch.nn.functional.embedding(ids, table)
        weights = torch.tensor([1.0, 0.0, 0.5], dtype=torch.float64)
        run = weighted_linear_cross_entropy(hidden, table, targets, weights, divisor=2.0) if fast else dense(
            hidden, table, targets, weights, 2.0, None, None, 1.0
        )  # fmt: skip
        run[0].backward()
        made.append(table.grad)
    torch.testing.assert_close(*made)


def test_no_grad_makes_no_gradients() -> None:
    hidden, head = torch.randn(4, 3, requires_grad=True), torch.randn(5, 3, requires_grad=True)
    with torch.no_grad():
        value, _ = weighted_linear_cross_entropy(
            hidden, head, torch.zeros(4, dtype=torch.long), torch.ones(4), divisor=4.0
        )
    assert not value.requires_grad


def test_backward_twice_is_refused() -> None:
    hidden, head = torch.randn(4, 3, requires_grad=True), torch.randn(5, 3)
    value, _ = weighted_linear_cross_entropy(hidden, head, torch.zeros(4, dtype=torch.long), torch.ones(4), divisor=4.0)
    value.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="one backward pass"):
        value.backward()


def test_first_token_is_no_target() -> None:
    nll = token_nll(torch.randn(2, 5, V), torch.zeros(2, 5, dtype=torch.long))
    assert not nll[:, 0].any()
