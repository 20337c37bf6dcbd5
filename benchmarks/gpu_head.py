"""Head and weighted loss on one GPU, forward and backward: time, peak memory and gradient error of ours, its rivals and
the bare products.

    python benchmarks/gpu_head.py [--json out.json] [--markdown out.md]        python benchmarks/gpu_head.py --cpu
    (smoke test)

Every (way, model) is a process of its own that goes through all zero shares, head trained and frozen; rounds over the
processes are interleaved, as many as fit in ``--seconds`` (450). Time: CUDA events, median over passes, then over
rounds. Memory: peak over what is allocated with the inputs there. Error: largest difference from float64 over the
largest value, on every 8th kept row of the hidden states' gradient and every 64th row of the head's. Rows of weight 0
are the beginnings of the documents. What is not installed or fails is said in the table.

Axes: N rows (targets), V vocabulary, H hidden.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import measure

DOCUMENTS, SHARES = 4, (0.0, 0.5, 0.9)
ROW_STEP, HEAD_STEP = 8, 64


@dataclass(frozen=True)
class Shape:
    """The head of a model and the rows that go through it."""

    rows: int
    hidden: int
    vocabulary: int
    softcap: float | None = None


SHAPES = {
    "Qwen3-8B": Shape(8192, 4096, 151936),
    "Gemma-2-2B": Shape(8192, 2304, 256000, 30.0),
    "Llama-3.2-1B": Shape(8192, 2048, 128256),
}
TINY = {"tiny": Shape(80, 16, 320), "tiny, capped": Shape(80, 16, 320, 3.0)}


class CannotRun(Exception):
    """This way does not do this case, and why."""


@dataclass
class Inputs:
    """Hidden states and head (leaves), targets, weights, and the divisor: the number of weights that are not 0."""

    hidden_NH: Tensor
    head_VH: Tensor
    targets_N: Tensor
    weights_N: Tensor
    softcap: float | None

    @property
    def divisor(self) -> float:
        """Number of weights that are not 0."""
        return float((self.weights_N != 0).sum())

    @property
    def labels_N(self) -> Tensor:
        """Targets, -100 where the weight is 0."""
        return self.targets_N.masked_fill(self.weights_N == 0, -100)

    def weighted(self, divisor: float, nll_N: Tensor) -> Tensor:
        """The loss, from the NLL per token."""
        return (self.weights_N * nll_N).sum() / divisor


def make_inputs(shape: Shape, zero_share: float, frozen: bool, device: str) -> Inputs:
    """bfloat16 on a GPU, float32 in the smoke test; the same numbers in every process on one device."""
    rng = torch.Generator(device).manual_seed(0)
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    hidden = torch.randn(shape.rows, shape.hidden, generator=rng, device=device, dtype=dtype)
    head = torch.randn(shape.vocabulary, shape.hidden, generator=rng, device=device, dtype=dtype).mul_(
        2 * shape.hidden**-0.5
    )
    targets = torch.randint(shape.vocabulary, (shape.rows,), generator=rng, device=device)
    weights = 0.2 + 0.8 * torch.rand(shape.rows, generator=rng, device=device)
    length = shape.rows // DOCUMENTS
    weights.view(DOCUMENTS, length)[:, : round(zero_share * length)] = 0
    return Inputs(hidden.requires_grad_(), head.requires_grad_(not frozen), targets, weights, shape.softcap)


Forward = Callable[[], Any]


# Each way: inputs -> closure that makes the loss (or, for the bare products, the gradients). What is outside the
# closure is not timed.
def bare_products(inputs: Inputs) -> Forward:
    """The floor: two or three GEMMs on the kept rows and nothing else."""
    rows, head = inputs.hidden_NH.detach()[inputs.weights_N != 0], inputs.head_VH.detach()
    trained = inputs.head_VH.requires_grad

    def run() -> tuple[Tensor, ...]:
        logits = rows @ head.T
        return (logits @ head, logits.T @ rows) if trained else (logits @ head,)

    return run


def holdfast(inputs: Inputs, rows: str) -> Forward:
    from holdfast.tune.loss import weighted_linear_cross_entropy

    given = (inputs.hidden_NH, inputs.head_VH, inputs.targets_N, inputs.weights_N)
    divisor = inputs.divisor
    return lambda: weighted_linear_cross_entropy(*given, divisor=divisor, softcap=inputs.softcap, head=rows)[0]


def dense(inputs: Inputs) -> Forward:
    """Logits of all rows, raised to float32."""
    labels, divisor = inputs.labels_N, inputs.divisor

    def run() -> Tensor:
        logits = F.linear(inputs.hidden_NH, inputs.head_VH).float()
        logits = logits if inputs.softcap is None else inputs.softcap * torch.tanh(logits / inputs.softcap)
        return inputs.weighted(divisor, F.cross_entropy(logits, labels, ignore_index=-100, reduction="none"))

    return run


def trl_fused(inputs: Inputs) -> Forward:
    """TRL's fused head on a decoder that returns our hidden states; labels come shifted."""
    from transformers import LlamaConfig
    from trl.trainer.utils import add_fused_lm_head

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.config = LlamaConfig(num_hidden_layers=1)
            self.config.final_logit_softcapping = inputs.softcap
            self.head = SimpleNamespace(weight=inputs.head_VH, bias=None)

        def base_model(self, **_: Any) -> Any:
            return SimpleNamespace(last_hidden_state=inputs.hidden_NH[None])

        def get_output_embeddings(self) -> Any:
            return self.head

        def forward(self, **_: Any) -> None:
            """Replaced by ``add_fused_lm_head``."""

    model = Model()
    add_fused_lm_head(model)
    labels, divisor = inputs.labels_N[None], inputs.divisor
    return lambda: inputs.weighted(divisor, -model(shift_labels=labels, fused_lm_head=True).log_probs[0])


def liger(inputs: Inputs, reduction: str) -> Forward:
    _gpu_only(inputs)
    from liger_kernel.transformers import LigerFusedLinearCrossEntropyLoss

    op = LigerFusedLinearCrossEntropyLoss(reduction=reduction, softcap=inputs.softcap, accum_dtype=torch.float32)
    labels, divisor = inputs.labels_N, inputs.divisor
    if reduction == "mean":
        return lambda: op(inputs.head_VH, inputs.hidden_NH, labels)
    return lambda: inputs.weighted(divisor, op(inputs.head_VH, inputs.hidden_NH, labels))


def cut_exact(inputs: Inputs) -> Forward:
    _gpu_only(inputs)
    from cut_cross_entropy import linear_cross_entropy

    labels, divisor = inputs.labels_N, inputs.divisor
    options = {"softcap": inputs.softcap, "reduction": "none", "impl": "cce_exact"}
    return lambda: inputs.weighted(divisor, linear_cross_entropy(inputs.hidden_NH, inputs.head_VH, labels, **options))


def torch_chunked(inputs: Inputs) -> Forward:
    if not hasattr(F, "linear_cross_entropy"):
        raise CannotRun("needs torch 2.13")
    if inputs.softcap is not None:
        raise CannotRun("no soft-cap")
    labels, divisor, options = inputs.labels_N, inputs.divisor, nn.LinearCrossEntropyOptions()
    given = {"reduction": "none", "ignore_index": -100, "options": options}
    return lambda: inputs.weighted(divisor, F.linear_cross_entropy(inputs.hidden_NH, inputs.head_VH, labels, **given))


def _gpu_only(inputs: Inputs) -> None:
    if not inputs.hidden_NH.is_cuda:
        raise CannotRun("needs a GPU")


FLOOR, OURS, UNWEIGHTED = "bare products", "holdfast triton", "Liger, mean"
WAYS: dict[str, Callable[[Inputs], Forward]] = {
    FLOOR: bare_products,
    OURS: lambda inputs: holdfast(inputs, "triton"),
    "holdfast torch": lambda inputs: holdfast(inputs, "torch"),
    "dense": dense,
    "TRL fused head": trl_fused,
    UNWEIGHTED: lambda inputs: liger(inputs, "mean"),
    "Liger, none x weights": lambda inputs: liger(inputs, "none"),
    "CCE exact, none x weights": cut_exact,
    "torch chunked, none x weights": torch_chunked,
}
RIVALS = [way for way in WAYS if way not in (FLOOR, UNWEIGHTED) and not way.startswith("holdfast")]


def cell(way: str, inputs: Inputs, passes: int, exact: list[Tensor] | None) -> dict[str, float]:
    """Median milliseconds, peak GiB (GPU only) and gradient error (where there is something to compare with) of one
    case.
    """
    forward, cuda = WAYS[way](inputs), inputs.hidden_NH.is_cuda

    def run() -> None:
        inputs.hidden_NH.grad = inputs.head_VH.grad = None
        loss = forward()
        if isinstance(loss, Tensor):
            loss.backward()  # type: ignore[no-untyped-call]

    run()
    made = {}
    if exact is not None and inputs.hidden_NH.grad is not None and way != UNWEIGHTED:
        made["error"] = max(
            _error(leaf.grad, true) for leaf, true in zip(_sampled(inputs), exact, strict=True) if leaf.grad is not None
        )
    inputs.hidden_NH.grad = inputs.head_VH.grad = None
    if cuda:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        torch.cuda.synchronize()
        made["peak_gib"] = (torch.cuda.max_memory_allocated() - before) / 2**30
    return made | {"ms": statistics.median(_milliseconds(run, cuda) for _ in range(passes))}


def _milliseconds(run: Callable[[], None], cuda: bool) -> float:
    if not cuda:
        started = time.perf_counter()
        run()
        return 1000 * (time.perf_counter() - started)
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    run()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end))


def _sampled(inputs: Inputs) -> list[Any]:
    """The parts of both gradients that are compared, each behind ``.grad``."""
    kept = inputs.weights_N.nonzero()[::ROW_STEP, 0]
    hidden, head = inputs.hidden_NH.grad, inputs.head_VH.grad
    head_rows = None if head is None else head[::HEAD_STEP]
    return [SimpleNamespace(grad=hidden[kept]), SimpleNamespace(grad=head_rows)]  # type: ignore[index]


def _error(made: Tensor, exact: Tensor) -> float:
    return float((made.double() - exact).abs().max() / exact.abs().max())


@torch.no_grad()
def exact_gradients(inputs: Inputs) -> list[Tensor]:
    """The sampled gradients by the formula, in float64, 512 rows of logits at a time."""
    head = inputs.head_VH.double()
    kept = inputs.weights_N.nonzero()[:, 0]
    d_hidden, d_head = [], torch.zeros_like(head[::HEAD_STEP])
    for rows in kept.split(512):
        hidden = inputs.hidden_NH[rows].double()
        logits = hidden @ head.T
        logits = logits if inputs.softcap is None else inputs.softcap * torch.tanh(logits / inputs.softcap)
        d = logits.softmax(-1)
        d[torch.arange(len(rows)), inputs.targets_N[rows]] -= 1
        d *= inputs.weights_N[rows, None].double() / inputs.divisor
        d = d if inputs.softcap is None else d * (1 - (logits / inputs.softcap) ** 2)
        d_hidden.append(d[::ROW_STEP] @ head)  # 512 is a multiple of ROW_STEP
        d_head += d[:, ::HEAD_STEP].T @ hidden
    return [torch.cat(d_hidden), d_head]


def case(way: str, shape: Shape, device: str, passes: int, exact: str) -> dict[str, Any]:
    """All cells of a (way, model): "zero share, trained|frozen" -> figures, or why there are none."""
    made: dict[str, Any] = {}
    true = torch.load(exact, map_location=device)
    for share in SHARES:
        for head in ("trained", "frozen"):
            try:
                made[f"{share:.0%}, {head}"] = cell(
                    way, make_inputs(shape, share, head == "frozen", device), passes, true[share]
                )
            except CannotRun as reason:
                made[f"{share:.0%}, {head}"] = {"none": str(reason)}
            except ModuleNotFoundError as error:
                made[f"{share:.0%}, {head}"] = {"none": f"{error.name} not installed"}
            except torch.OutOfMemoryError:
                made[f"{share:.0%}, {head}"] = {"none": "out of memory"}
            except Exception as error:  # a rival that fails is a finding, not the end of the run
                made[f"{share:.0%}, {head}"] = {"none": f"{type(error).__name__}: {str(error).splitlines()[:1]}"[:120]}
    return made


def start(way: str, name: str, device: str, exact: str, seconds: float) -> dict[str, Any]:
    """``case`` in a process of its own."""
    environment = (
        os.environ | {"HF_HUB_OFFLINE": "1"} | ({"TRITON_INTERPRET": "1"} if device == "cpu" and way == OURS else {})
    )
    command = [sys.executable, __file__, "--case", way, "--shape", name, "--exact", exact] + ["--cpu"] * (
        device == "cpu"
    )
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=max(1.0, seconds))
    except subprocess.TimeoutExpired:
        return {"all": {"none": "out of time"}}
    if done.returncode:
        return {"all": {"none": f"failed: {done.stderr.strip().splitlines()[-1:]}"[:120]}}
    made: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return made


def merge(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Cells of all rounds -> medians; a cell without figures in any round keeps the reason."""
    cells: dict[str, Any] = {}
    for key in (f"{share:.0%}, {head}" for share in SHARES for head in ("trained", "frozen")):
        found = [run.get(key) or run["all"] for run in runs]
        good = [c for c in found if "ms" in c]
        cells[key] = (
            {k: statistics.median(c[k] for c in good) for k in good[0]} | {"rounds": len(good)} if good else found[0]
        )
    return cells


def table(name: str, ways: dict[str, Any]) -> str:
    lines = [
        f"\n{name}: {asdict((SHAPES | TINY)[name])}\n",
        "| way | zero rows, head | ms | x bare | peak GiB | grad. error |",
        "|---|" * 2 + "---|" * 4,
    ]
    for way, cells in ways.items():
        for key, c in cells.items():
            floor = ways[FLOOR][key].get("ms")
            texts = [f"{c['ms']:.2f}", f"{c['ms'] / floor:.2f}" if floor else ""] if "ms" in c else [c["none"], ""]
            texts += [f"{c['peak_gib']:.2f}" if "peak_gib" in c else "", f"{c['error']:.0e}" if "error" in c else ""]
            lines.append(f"| {way} | {key} | {' | '.join(texts)} |")
    return "\n".join(lines)


def verdicts(name: str, ways: dict[str, Any]) -> list[str]:
    """The targets, each met, MISSED or not measured."""

    def line(text: str, value: float | None, limit: float) -> str:
        return f"{name}: {text}: " + (
            "not measured" if value is None else f"{value:.2f} {'met' if value <= limit else 'MISSED'}"
        )

    def over(key: str, way: str) -> float | None:
        mine, other = ways[OURS][key].get("ms"), ways[way][key].get("ms")
        return mine / other if mine and other else None

    made = []
    if name == "Qwen3-8B":
        made += [line("time over bare products at 0 % zero rows, at most 1.25", over("0%, trained", FLOOR), 1.25)]
        made += [line("peak GiB, at most 6", ways[OURS]["0%, trained"].get("peak_gib"), 6)]
    for way in RIVALS:
        made.append(
            line(
                f"largest time over {way}, below 1",
                max(filter(None, (over(k, way) for k in ways[OURS])), default=None),
                1 - 1e-9,
            )
        )
    for share in SHARES[1:]:
        all_rows, kept = (ways[OURS][f"{s:.0%}, trained"].get("ms") for s in (SHARES[0], share))
        value = kept / all_rows / (1 - share) if kept and all_rows else None
        made.append(
            line(
                f"time per kept row at {share:.0%} zero rows over that at 0 %, at most 1.25 (our tolerance)",
                value,
                1.25,
            )
        )
    return made


def about(device: str) -> dict[str, Any]:
    found = measure.machine("torch")
    for package in ("triton", "transformers", "trl", "liger-kernel", "cut-cross-entropy"):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    if device == "cpu":
        return found | {"device": "CPU (smoke test: the figures say nothing)"}
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    driver = subprocess.run(query, capture_output=True, text=True).stdout.split()
    return found | {"device": torch.cuda.get_device_name(), "driver": driver[0] if driver else "unknown"}


def compare(names: list[str], device: str, seconds: float) -> dict[str, Any]:
    """All ways on all shapes, in rounds, until the next round would not fit."""
    begun = time.monotonic()
    runs: dict[str, dict[str, list[Any]]] = {name: {way: [] for way in WAYS} for name in names}
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            shape = (SHAPES | TINY)[name]
            torch.save(
                {s: exact_gradients(make_inputs(shape, s, False, device)) for s in SHARES}, Path(folder) / f"{name}.pt"
            )
        if device == "cuda":
            torch.cuda.empty_cache()
        longest, rounds = 0.0, 0
        while not rounds or (device == "cuda" and time.monotonic() - begun + longest < seconds):
            started = time.monotonic()
            for name in names:
                for way in WAYS:
                    left = seconds - (time.monotonic() - begun)
                    runs[name][way].append(start(way, name, device, str(Path(folder) / f"{name}.pt"), min(90.0, left)))
            longest, rounds = max(longest, time.monotonic() - started), rounds + 1
    return {name: {way: merge(found) for way, found in ways.items()} for name, ways in runs.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--cpu", action="store_true", help="smoke test: tiny shapes, float32, the kernel through Triton's interpreter"
    )
    parser.add_argument("--json", help="write the figures to this file")
    parser.add_argument("--markdown", help="write tables and verdicts to this file (they are printed, too)")
    parser.add_argument("--seconds", type=float, default=450, help="no case runs beyond this")
    parser.add_argument("--passes", type=int, default=7, help="timed passes per cell and process")
    parser.add_argument("--shape", choices=SHAPES | TINY, action="append", help="only this model (may be repeated)")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    parser.add_argument("--exact", help=argparse.SUPPRESS)
    given = parser.parse_args()
    device = "cpu" if given.cpu else "cuda"
    if device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("no GPU here; --cpu runs the smoke test")
    if given.case:
        print(json.dumps(case(given.case, (SHAPES | TINY)[given.shape[0]], device, given.passes, given.exact)))
        return
    found = compare(given.shape or list(TINY if given.cpu else SHAPES), device, given.seconds)
    told = about(device)
    checks = [] if given.cpu else [line for name, ways in found.items() for line in verdicts(name, ways)]
    parts = [
        ", ".join(f"{k} {v}" for k, v in told.items()),
        *(table(name, ways) for name, ways in found.items()),
        "",
        *(f"- {c}" for c in checks),
    ]
    print("\n".join(parts))
    if given.markdown:
        Path(given.markdown).write_text("\n".join(parts) + "\n")
    measure.finish({"about": told, "results": found, "targets": checks}, given.json)


if __name__ == "__main__":
    main()
