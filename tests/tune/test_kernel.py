"""The row kernel through Triton's interpreter, and the torch rows, against autograd on dense float64 logits."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from holdfast.errors import HoldfastError
from holdfast.lm.batched import token_nll
from holdfast.tune.adaptive import Adaptive, parse
from holdfast.tune.chunk import choose, no_kernel
from holdfast.tune.loss import adaptive_factor, weighted_linear_cross_entropy
from holdfast.tune.row_ops import fusable_rows

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
needs_interpreter = pytest.mark.skipif(
    not INTERPRETED, reason="run by test_the_kernel_through_the_interpreter in a process of its own"
)


@dataclass(frozen=True)
class Case:
    rows: int = 5
    width: int = 8
    vocabulary: int = 37
    dtype: torch.dtype = torch.float32
    softcap: float | None = None
    scale: float = 1.0
    bias: bool = False
    adaptive: str = "none"
    weights: str = "mixed"
    seed: int = 0

    @property
    def name(self) -> str:
        plain = Case()
        given = [f"{k}={v}" for k, v in vars(self).items() if v != getattr(plain, k)]
        return ", ".join(given) or "plain"


CASES = [
    Case(),
    Case(vocabulary=1),
    Case(vocabulary=8193, rows=3),
    Case(rows=1),
    Case(weights="zero"),
    Case(weights="large"),
    Case(weights="negative"),
    Case(softcap=3.0),
    Case(scale=0.25, softcap=2.0, bias=True),
    Case(bias=True),
    Case(dtype=torch.bfloat16),
    Case(dtype=torch.bfloat16, softcap=3.0, bias=True),
    Case(adaptive="dft"),
    Case(adaptive="power:0.5", softcap=3.0, scale=2.0),
    Case(adaptive="eaft"),
    Case(adaptive="eaft:2+above:0.01", bias=True, vocabulary=50),
    Case(adaptive="below:0.03"),
    Case(adaptive="dft", dtype=torch.bfloat16),
]


def inputs(case: Case) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(case.seed)
    n = case.rows

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(case.dtype)

    weights = {
        "mixed": torch.where(torch.arange(n) % 3 == 1, 0.0, torch.rand(n, generator=generator) + 0.1),
        "zero": torch.zeros(n),
        "large": 5 * torch.rand(n, generator=generator) + 1,
        "negative": torch.randn(n, generator=generator),
    }[case.weights]
    return {
        "hidden_ND": normal(n, case.width),
        "head_VD": normal(case.vocabulary, case.width),
        "bias_V": normal(case.vocabulary) if case.bias else None,
        "targets_N": torch.randint(case.vocabulary, (n,), generator=generator),
        "weights_N": weights,
        "adapts_N": torch.arange(n) % 4 != 3,
    }


def ours(case: Case, head: str) -> list[Tensor]:
    """Loss, NLL and the gradients of hidden states, head and bias, in chunks of two rows."""
    given = inputs(case)
    leaves = [given[k].requires_grad_() for k in ("hidden_ND", "head_VD", "bias_V") if given[k] is not None]
    loss, nll = weighted_linear_cross_entropy(
        **given,
        divisor=3.0,
        softcap=case.softcap,
        logit_scale=case.scale,
        chunk_rows=2,
        adaptive=parse(case.adaptive),
        head=head,
    )
    loss.backward()
    return [loss.detach(), nll, *(x.grad for x in leaves)]


def oracle(case: Case, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """The same from the whole matrix of logits in float64, by autograd, with g held fixed."""
    given = {k: v.to(dtype) if isinstance(v, Tensor) and v.is_floating_point() else v for k, v in inputs(case).items()}
    leaves = [given[k].requires_grad_() for k in ("hidden_ND", "head_VD", "bias_V") if given[k] is not None]
    logits = given["hidden_ND"] @ given["head_VD"].T
    logits = logits if given["bias_V"] is None else logits + given["bias_V"]
    logits = logits * case.scale
    logits = logits if case.softcap is None else case.softcap * torch.tanh(logits / case.softcap)
    nll = -logits.log_softmax(-1).gather(1, given["targets_N"][:, None])[:, 0]
    g = torch.ones_like(nll)
    how = parse(case.adaptive)
    if how is not None:
        p = (-nll).exp()
        g = p**how.power * ((p >= how.low) & (p <= how.high))
        if how.entropy:
            top = logits.topk(20).values.softmax(-1)
            g = g * (-(top * top.log()).sum(-1) / torch.tensor(20.0).log()) ** how.entropy
        g = torch.where(given["adapts_N"], g, 1.0).detach()
    loss = (given["weights_N"] * g * nll).sum() / 3
    loss.backward()
    return [loss.detach(), torch.where(given["weights_N"] != 0, nll.detach(), 0), *(x.grad for x in leaves)]


def agree(case: Case, head: str) -> None:
    """To 2e-6 of the largest value in float32, or to what plain float32 itself is off by where that is more: sums over
    a vocabulary are added up in another order on every kind of processor."""
    tolerance = 2e-6 if case.dtype == torch.float32 else 3e-2
    for mine, plain, true in zip(ours(case, head), oracle(case, torch.float32), oracle(case), strict=True):
        allowed = tolerance * max(float(true.abs().max()), 1e-3)
        if case.dtype == torch.float32:
            allowed = max(allowed, 1.25 * float((plain.double() - true).abs().max()))
        assert float((mine.double() - true).abs().max()) <= allowed, case.name


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_the_torch_rows_are_exact(case: Case) -> None:
    agree(case, "torch")


@needs_interpreter
@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_the_kernel_is_exact(case: Case) -> None:
    agree(case, "triton")


@needs_interpreter
@pytest.mark.parametrize("seed", range(12))
def test_the_kernel_on_random_shapes(seed: int) -> None:
    rng = torch.Generator().manual_seed(seed)

    def draw(low: int, high: int) -> int:
        return int(torch.randint(low, high, (), generator=rng))

    agree(
        Case(
            rows=draw(1, 7), width=draw(1, 9), vocabulary=draw(21, 300), seed=seed, bias=bool(draw(0, 2)),
            softcap=(None, 4.0)[draw(0, 2)], scale=(1.0, 0.5)[draw(0, 2)],
            adaptive=("none", "dft", "eaft", "power:2")[draw(0, 4)],
        ),
        "triton",
    )  # fmt: skip


@needs_interpreter
def test_the_kernel_trains_a_model_as_the_torch_rows_do(tmp_path: Any) -> None:
    from holdfast.config import TuneConfig
    from holdfast.tune import train

    made = [
        train(
            TuneConfig(
                model="pocket",
                data="pocket:instructions",
                output=str(tmp_path / head),
                limit=10,
                max_steps=2,
                batch_size=4,
                micro_batch_size=2,
                prompt_weight=0.2,
                response_weight=0.8,
                head=head,
                adaptive="dft",
                eval_share=0.2,
            )
        )
        for head in ("triton", "torch", "plain")
    ]
    assert made[0]["after"]["loss"] != made[0]["before"]["loss"]
    for other in made[1:]:
        assert made[0]["after"]["loss"] == pytest.approx(other["after"]["loss"], abs=1e-5)


@needs_interpreter
def test_without_gradients_the_kernel_leaves_the_logits_alone() -> None:
    given = inputs(Case())
    with torch.no_grad():
        loss, nll = weighted_linear_cross_entropy(**given, divisor=3.0, head="triton")
    assert not loss.requires_grad
    assert torch.allclose(nll.double(), oracle(Case())[1], atol=1e-5)


@pytest.mark.skipif(INTERPRETED, reason="this is the process it starts")
@pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason='the kernel needs Triton: pip install "holdfast[kernels]"'
)
def test_the_kernel_through_the_interpreter() -> None:
    """Triton decides when it is imported whether it interprets, so these tests have a process of their own."""
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:xdist", "-k", "the_kernel", __file__],
        env=os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-2000:]
    assert " passed" in run.stdout


@pytest.mark.skipif(INTERPRETED, reason="the interpreter makes the kernel available")
def test_a_kernel_that_cannot_run_says_why() -> None:
    with pytest.raises(HoldfastError, match="head triton"):
        choose("triton", torch.device("cpu"), torch.float32)
    assert no_kernel("cpu") is not None


@pytest.mark.skipif(INTERPRETED, reason="interpreted functions are not compiled")
@pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason='the kernel needs Triton: pip install "holdfast[kernels]"'
)
@pytest.mark.parametrize("full", [False, True], ids=["plain", "all options"])
@pytest.mark.parametrize("logits", ["*bf16", "*fp32"])
@pytest.mark.parametrize("capability", [80, 90])
def test_the_kernel_compiles_for_gpus_that_are_not_here(
    capability: int, logits: str, full: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Down to machine code of an A100 and an H100, in the longest block. Running it needs the GPU."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from holdfast.tune.kernel import _LONGEST_BLOCK, _rows

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    fixed = dict.fromkeys(("HAS_BIAS", "HAS_CAP", "ADAPTIVE", "SOME", "HAS_ENTROPY"), full) | {
        "GRAD": True,
        "BLOCK": _LONGEST_BLOCK,
    }
    fixed |= {} if full else dict.fromkeys(("bias_ptr", "adapts_ptr", "entropy_ptr"))
    types = {
        "x_ptr": logits,
        "bias_ptr": logits,
        "target_ptr": "*i64",
        "adapts_ptr": "*i1",
        "stride": "i32",
        "vocabulary": "i32",
    }
    types |= dict.fromkeys(("weight_ptr", "entropy_ptr", "nll_ptr", "g_ptr"), "*fp32")
    signature = {name: "constexpr" if name in fixed else types.get(name, "fp32") for name in _rows.arg_names}
    source = ASTSource(
        _rows, signature, constexprs={(_rows.arg_names.index(name),): value for name, value in fixed.items()}
    )
    made = triton.compile(source, target=GPUTarget("cuda", capability, 32), options={"num_warps": 32})
    assert made.asm["cubin"]


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_the_rows_for_compilers_are_exact(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("holdfast.tune.loss.choose", lambda *_: fusable_rows)
    agree(case, "auto")


def test_low_precision_without_a_compiler_is_still_right(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("holdfast.tune.chunk._compiles", lambda: False)
    agree(Case(dtype=torch.bfloat16), "auto")


@pytest.mark.full
def test_compiled_rows_are_the_plain_ones() -> None:
    from holdfast.tune import chunk

    if not chunk._compiles():
        pytest.skip("no compiler, or a CPU that is slow at bfloat16")
    for case in (Case(dtype=torch.bfloat16), Case(dtype=torch.bfloat16, softcap=3.0, adaptive="dft")):
        agree(case, "auto")


def test_the_plain_path_has_the_same_factor() -> None:
    """``adaptive_factor`` on [B, T, V] logits, as models that need full logits use it."""
    logits = torch.randn(2, 5, 30, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    ids = torch.randint(30, (2, 5), generator=torch.Generator().manual_seed(2))
    g = adaptive_factor(Adaptive(power=2, low=0.01), logits, token_nll(logits, ids))
    p = logits.softmax(-1)[:, :-1].gather(-1, ids[:, 1:, None])[..., 0]
    assert torch.allclose(g[:, 1:], p**2 * (p >= 0.01))
    assert (g[:, 0] == 1).all()
