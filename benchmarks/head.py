"""Head and weighted loss, forward and backward: time and peak memory of six ways to compute the same thing, beside the
bare GEMMs.

    python benchmarks/head.py [--quick] [--json out.json]

Every (way, shape, zero share) runs in its own process; rounds are interleaved. Two clocks: on an idle machine the wall
clock counts, on a shared one the processor time of all threads (idle threads sleep, so that waiting costs none). Loss
and gradients of each are compared with float64.

Input is the decoder's output [B, T, H], token ids and weights; the last position predicts nothing, so B (T - 1) rows
can count. Zero weights stand where they do in instruction data: at the start of each document (the prompt).

Axes: B batch, T tokens, V vocabulary, H hidden, N rows that predict a target.
"""

from __future__ import annotations

import argparse
import json
import os
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

DOCUMENTS = 4


@dataclass(frozen=True)
class Shape:
    """Tokens in all documents together, hidden size and vocabulary of a real model's head."""

    name: str
    tokens: int
    hidden: int
    vocabulary: int


SHAPES = {
    "smollm2-135m": Shape("SmolLM2-135M", 1024, 576, 49152),
    "tinyllama-1.1b": Shape("TinyLlama-1.1B", 1024, 2048, 32000),
    "quick": Shape("small", 512, 256, 16384),
}


@dataclass
class Inputs:
    """Hidden states and head (both want gradients), ids, weights as targets, and the divisor."""

    hidden_BTH: Tensor
    head_VH: Tensor
    ids_BT: Tensor
    weights_BT: Tensor
    divisor: float

    @property
    def rows(self) -> tuple[Tensor, Tensor, Tensor]:
        """Hidden state, target and weight of each row, shifted."""
        return (
            self.hidden_BTH[:, :-1].reshape(-1, self.hidden_BTH.shape[-1]),
            self.ids_BT[:, 1:].reshape(-1),
            self.weights_BT[:, 1:].reshape(-1),
        )

    @property
    def labels_BT(self) -> Tensor:
        """Ids, -100 where the weight is 0."""
        return self.ids_BT.masked_fill(self.weights_BT == 0, -100)


def make_inputs(shape: Shape, zero_share: float) -> Inputs:
    rng = torch.Generator().manual_seed(0)
    length = shape.tokens // DOCUMENTS
    hidden = torch.randn(DOCUMENTS, length, shape.hidden, generator=rng)
    head = torch.randn(shape.vocabulary, shape.hidden, generator=rng).mul_(2 * shape.hidden**-0.5)
    ids = torch.randint(shape.vocabulary, (DOCUMENTS, length), generator=rng)
    weights = 0.2 + 0.8 * torch.rand(DOCUMENTS, length, generator=rng)
    weights[:, : 1 + round(zero_share * (length - 1))] = 0
    return Inputs(hidden.requires_grad_(), head.requires_grad_(), ids, weights, float((weights != 0).sum()))


# Each way is a function: inputs -> closure that makes the loss (or, without one, the gradients). What is prepared
# outside the closure is not timed.
def bare_gemms(inputs: Inputs) -> Any:
    """The floor: logits, gradient of hidden, gradient of head, on the kept rows and nothing else."""
    hidden, _, weights = inputs.rows
    rows, head = hidden[weights != 0].detach(), inputs.head_VH.detach()

    def run() -> tuple[Tensor, ...]:
        logits = rows @ head.T
        return logits @ head, logits.T @ rows

    return run


def chunked_gemms(inputs: Inputs) -> Any:
    """The same three GEMMs, with one buffer of as many rows as our head uses at a time."""
    from holdfast.tune.loss import default_chunk_rows

    hidden, _, weights = inputs.rows
    rows, head = hidden[weights != 0].detach(), inputs.head_VH.detach()
    size = default_chunk_rows(head)

    def run() -> tuple[Tensor, ...]:
        buffer, d_rows, d_head = (
            torch.empty(min(size, len(rows)), len(head)),
            torch.empty_like(rows),
            torch.zeros_like(head),
        )
        for start in range(0, len(rows), size):
            piece = rows[start : start + size]
            logits = torch.mm(piece, head.T, out=buffer[: len(piece)])
            torch.mm(logits, head, out=d_rows[start : start + size])
            d_head.addmm_(logits.T, piece)
        return d_rows, d_head

    return run


def holdfast(inputs: Inputs) -> Any:
    from holdfast.tune.loss import weighted_linear_cross_entropy

    return lambda: weighted_linear_cross_entropy(
        inputs.rows[0], inputs.head_VH, *inputs.rows[1:], divisor=inputs.divisor
    )[0]


def dense_kept(inputs: Inputs) -> Any:
    """Logits of the kept rows only, all at once."""

    def run() -> Tensor:
        hidden, targets, weights = inputs.rows
        kept = weights.nonzero().squeeze(1)
        nll = F.cross_entropy(F.linear(hidden[kept], inputs.head_VH).float(), targets[kept], reduction="none")
        return (weights[kept] * nll).sum() / inputs.divisor

    return run


def dense_all(inputs: Inputs) -> Any:
    """As in transformers: logits of all rows, raised to float32, cross entropy per token; times the weights."""

    def run() -> Tensor:
        logits = F.linear(inputs.hidden_BTH, inputs.head_VH).float()
        shifted = F.pad(inputs.labels_BT, (0, 1), value=-100)[:, 1:].reshape(-1)
        nll = F.cross_entropy(logits.view(-1, logits.shape[-1]), shifted, ignore_index=-100, reduction="none")
        return (F.pad(inputs.weights_BT, (0, 1))[:, 1:].reshape(-1) * nll).sum() / inputs.divisor

    return run


def reference_form(inputs: Inputs) -> Any:
    """The order of operations of the WIT authors' script: shifted copy, boolean selection, full log-softmax, fancy
    index.
    """

    def run() -> Tensor:
        logits = F.linear(inputs.hidden_BTH, inputs.head_VH).float()
        flat = logits[:, :-1, :].contiguous().view(-1, logits.shape[-1])
        labels = inputs.labels_BT[:, 1:].contiguous().view(-1)
        weights = inputs.weights_BT[:, 1:].contiguous().view(-1)
        active = labels != -100
        logp = F.log_softmax(flat[active], dim=-1)
        at_target = logp[range(len(logp)), labels[active]]
        return -(weights[active] * at_target).sum() / inputs.divisor

    return run


def trl_fused(inputs: Inputs) -> Any:
    """TRL's fused head on a decoder that returns our hidden states; its log-probs times the weights."""
    from transformers import LlamaConfig
    from trl.trainer.utils import add_fused_lm_head

    class Decoder(nn.Module):
        def forward(self, **_: Any) -> Any:
            return SimpleNamespace(last_hidden_state=inputs.hidden_BTH)

    class Model(nn.Module):
        config = LlamaConfig(num_hidden_layers=1)

        def __init__(self) -> None:
            super().__init__()
            self.base_model, self.head = Decoder(), nn.Linear(1, 1, bias=False)
            self.head.weight = inputs.head_VH  # type: ignore[assignment]

        def get_output_embeddings(self) -> nn.Module:
            return self.head

        def forward(self, **_: Any) -> None:
            """Replaced by ``add_fused_lm_head``."""

    inputs.head_VH = nn.Parameter(inputs.head_VH.detach())
    model = Model()
    add_fused_lm_head(model)
    return lambda: (
        -(model(labels=inputs.labels_BT, fused_lm_head=True).log_probs * inputs.weights_BT[:, 1:]).sum()
        / inputs.divisor
    )


def torch_chunked(inputs: Inputs, **options: Any) -> Any:
    """torch's chunked op, all rows given to it, zero weights as ignored targets; its NLL times the weights."""
    chosen = nn.LinearCrossEntropyOptions(**options)

    def run() -> Tensor:
        hidden, targets, weights = inputs.rows
        labels = targets.masked_fill(weights == 0, -100)
        return (
            weights * F.linear_cross_entropy(hidden, inputs.head_VH, labels, reduction="none", options=chosen)
        ).sum() / inputs.divisor

    return run


def torch_chunked_by_hand(inputs: Inputs) -> Any:
    return torch_chunked(inputs, batch_chunk_size=256, chunking_method=None)


WAYS = {
    "bare GEMMs, kept rows": bare_gemms,
    "bare GEMMs, our chunks": chunked_gemms,
    "holdfast": holdfast,
    "dense, kept rows": dense_kept,
    "dense, all rows (HF)": dense_all,
    "WIT reference form": reference_form,
    "TRL fused head": trl_fused,
    "torch chunked, 256 rows": torch_chunked_by_hand,
    "torch chunked, default": torch_chunked,
}
FLOOR, OURS, DEFAULTS = "bare GEMMs, kept rows", "holdfast", "torch chunked, default"
CLOCKS = {"seconds": "wall clock", "cpu_seconds": "processor time"}


def once(way: str, inputs: Inputs) -> Callable[[], Any]:
    """One forward and backward pass; gives the loss, if the way makes one."""
    forward = WAYS[way](inputs)

    def run() -> Any:
        inputs.hidden_BTH.grad = inputs.head_VH.grad = None
        loss = forward()
        if isinstance(loss, Tensor):
            loss.backward()  # type: ignore[no-untyped-call]
        return loss

    return run


def case(way: str, shape: Shape, zero_share: float, passes: int, exact: str | None) -> dict[str, float]:
    """One process: peak memory of the first pass, the best time of some more (other work on the machine only adds to
    it), errors against ``exact`` if there is one."""
    once(
        way, make_inputs(Shape("warm-up", 64, 64, 512), zero_share)
    )()  # libraries and thread pools are there before the baseline
    inputs = make_inputs(shape, zero_share)
    run = once(way, inputs)
    with measure.peak_rise() as rise:
        loss = run()
    times = []
    for _ in range(passes):
        started = time.perf_counter(), time.process_time()
        run()
        times.append((time.perf_counter() - started[0], time.process_time() - started[1]))
    seconds, cpu_seconds = map(min, zip(*times, strict=True))
    made = {"seconds": seconds, "cpu_seconds": cpu_seconds, "rise_mb": rise()}
    if exact is not None and isinstance(loss, Tensor):
        value, d_hidden, d_head = torch.load(exact)
        made["loss_error"] = abs(loss.item() / value.item() - 1)
        made["hidden_error"] = _error(inputs.hidden_BTH.grad, d_hidden)
        made["head_error"] = _error(inputs.head_VH.grad, d_head)
    return made


def _error(made: Tensor | None, exact: Tensor) -> float:
    assert made is not None
    return float((made.double() - exact).abs().max() / exact.abs().max())


def save_exact(shape: Shape, zero_share: float, path: str) -> dict[str, float]:
    """Loss and gradients of the dense form in float64."""
    inputs = make_inputs(shape, zero_share)
    inputs.hidden_BTH = inputs.hidden_BTH.detach().double().requires_grad_()
    inputs.head_VH = inputs.head_VH.detach().double().requires_grad_()
    hidden, targets, weights = inputs.rows
    kept = weights != 0
    nll = F.cross_entropy(hidden[kept] @ inputs.head_VH.T, targets[kept], reduction="none")
    loss = (weights[kept].double() * nll).sum() / inputs.divisor
    loss.backward()
    torch.save([loss.detach(), inputs.hidden_BTH.grad, inputs.head_VH.grad], path)
    return {}


def compare(shape: str, zero_share: float, repetitions: int, passes: int, folder: str) -> measure.Results:
    """All ways on one shape and zero share."""
    exact = str(Path(folder) / "exact.pt")
    here = [__file__, "--shape", shape, "--zero", str(zero_share)]
    measure.run_case([*here, "--save-exact", exact])
    cases = {way: [*here, "--case", way, "--passes", str(1 if way == DEFAULTS else passes)] for way in WAYS}
    if zero_share != 0.75:
        del cases[DEFAULTS]  # ten times slower than the rest: once is enough
    first = measure.rounds({way: [*arguments, "--exact", exact] for way, arguments in cases.items()}, 1)
    more = measure.rounds({way: arguments for way, arguments in cases.items() if way != DEFAULTS}, repetitions - 1)
    return {way: runs + more.get(way, []) for way, runs in first.items()}


def table(shape: Shape, zero_share: float, results: measure.Results) -> str:
    lines = [
        f"\n{shape.name}: T = {shape.tokens}, H = {shape.hidden}, V = {shape.vocabulary}; {zero_share:.0%} of the "
        "rows have weight 0\n",
        "| | seconds | spread | x bare GEMMs | processor s | spread | x bare GEMMs | x ours | peak rise, MB | loss "
        "error | grad. error |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for way, runs in results.items():
        first = runs[0]
        gradient_error = max(first.get("hidden_error", 0), first.get("head_error", 0))
        errors = [f"{first['loss_error']:.0e}", f"{gradient_error:.0e}"] if "loss_error" in first else ["", ""]
        cells = []
        for clock in CLOCKS:
            spread = measure.spread(runs, clock) if len(runs) > 1 else "one run"
            cells += [f"{measure.median(runs, clock):.3f}", spread, f"{measure.ratio(runs, results[FLOOR], clock):.2f}"]
        cells += [
            f"{measure.ratio(runs, results[OURS], 'cpu_seconds'):.2f}",
            f"{measure.median(runs, 'rise_mb'):.0f}",
            *errors,
        ]
        lines.append(f"| {way} | {' | '.join(cells)} |")
    return "\n".join(lines)


def targets(results: measure.Results, zero_share: float, clock: str) -> dict[str, tuple[float, bool]]:
    """Figures that the project promises, and whether each holds here."""
    ours = results[OURS]
    checks = {
        "time over bare GEMMs, at most 1.2": (measure.ratio(ours, results[FLOOR], clock), 1.2),
        "time over dense on kept rows, at most 1": (measure.ratio(ours, results["dense, kept rows"], clock), 1.0),
        "peak over dense on all rows, at most 0.6": (
            measure.ratio(ours, results["dense, all rows (HF)"], "rise_mb"),
            0.6,
        ),
    }
    if zero_share == 0.75:
        checks["time over TRL's head, at most 0.25"] = (measure.ratio(ours, results["TRL fused head"], clock), 0.25)
    return {name: (value, value <= limit) for name, (value, limit) in checks.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one small shape, two zero shares, one round")
    parser.add_argument("--json", help="also write the figures to this file")
    parser.add_argument("--shape", choices=SHAPES, action="append", help="only this shape (may be repeated)")
    parser.add_argument(
        "--zero", type=float, action="append", help="only this share of rows of weight 0 (may be repeated)"
    )
    parser.add_argument("--repetitions", type=int, help="rounds; default 3")
    parser.add_argument("--passes", type=int, default=3, help="timed passes per process")
    for hidden in ("--case", "--exact", "--save-exact"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.save_exact or given.case:
        shape, zero = SHAPES[given.shape[0]], given.zero[0]
        made = (
            save_exact(shape, zero, given.save_exact)
            if given.save_exact
            else case(given.case, shape, zero, given.passes, given.exact)
        )
        print(json.dumps(made))
        return
    names = given.shape or (["quick"] if given.quick else [name for name in SHAPES if name != "quick"])
    shares = given.zero or ([0.0, 0.75] if given.quick else [0.0, 0.5, 0.75, 0.9])
    about = measure.machine("torch", "transformers", "trl") | {
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 2),
    }
    print(", ".join(f"{key} {value}" for key, value in about.items()))
    saved: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            for share in shares:
                results = compare(name, share, given.repetitions or (1 if given.quick else 3), given.passes, folder)
                print(table(SHAPES[name], share, results))
                checks = {label: targets(results, share, clock) for clock, label in CLOCKS.items()}
                for label, found in checks.items():
                    text = "; ".join(
                        f"{name}: {value:.2f} {'met' if met else 'MISSED'}" for name, (value, met) in found.items()
                    )
                    print(f"\n{label}: {text}", flush=True)
                saved.append({"shape": asdict(SHAPES[name]), "zero_share": share, "ways": results, "targets": checks})
    measure.finish({"about": about, "results": saved}, given.json)


if __name__ == "__main__":
    main()
