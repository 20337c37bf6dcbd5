"""``transformers.Trainer`` with the weighted loss. Only public methods are overridden, so what users know keeps working.

    get_batch_samples   counts the divisor once over all micro-batches and ranks of an optimizer step
    compute_loss        sum of w * nll over that divisor, and the router loss of a mixture of experts whose config asks for it
    prediction_step     per-example sums; ``evaluation_metrics`` adds them up: token-exact whatever the batch size
    log                 one row per log step in the run directory

Axes: B batch, T tokens.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers.trainer_callback import PrinterCallback, ProgressCallback
from transformers.trainer_utils import EvalPrediction

from holdfast.errors import DivergedError, HoldfastError
from holdfast.lm.batched import token_nll
from holdfast.records import PROMPT_ROLES, RESPONSE_ROLES, Role
from holdfast.runs import RunDir
from holdfast.tune.adaptive import Adaptive
from holdfast.tune.attention import document_arguments, settle
from holdfast.tune.batches import layout_of, regroup, scale_of
from holdfast.tune.chunk import choose
from holdfast.tune.continuing import ContinuingTrainer
from holdfast.tune.head import LossRows, attach
from holdfast.tune.loss import adaptive_factor, divide
from holdfast.tune.router import router_loss
from holdfast.tune.weights import NORMALIZERS, RoleWeights, target_mask, token_weights

_TRAIN_COLUMNS = ("tokens", "loss", "prompt_nll", "response_nll", "grad_norm", "learning_rate", "tokens_per_second", "epoch")
_EVAL_COLUMNS = ("loss", "prompt_nll", "response_nll", "response_perplexity", "prompt_targets", "response_targets", "prompt_share")


@dataclass(frozen=True)
class Objective:
    """What is minimised: a weight per role, a key of ``NORMALIZERS``, how the head is computed (auto, torch, triton or plain), and a
    factor that looks at the token, for targets of ``adaptive_roles``."""

    weights: RoleWeights
    normalizer: str = "nonzero"
    head: str = "auto"
    adaptive: Adaptive | None = None
    adaptive_roles: tuple[Role, ...] = RESPONSE_ROLES


class WeightedTrainer(ContinuingTrainer):
    """A Trainer that minimises ``Objective`` over batches made by ``holdfast.tune.batches.collate``."""

    loss_is_scaled_for_ga = True

    def __init__(self, *, objective: Objective, run: RunDir | None = None, batching: str = "auto", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.compute_metrics = evaluation_metrics
        self.model_accepts_loss_kwargs = True
        self.objective = objective
        self.run = run
        self.batching, self.padded_reason = settle(self.model, batching, self.accelerator.autocast)
        self.plain_reason = "asked for" if objective.head == "plain" else attach(self.model)
        if objective.head in ("torch", "triton") and self.plain_reason:
            raise HoldfastError(f"--head {objective.head} cannot be used with this model: {self.plain_reason}", hint="use --head auto")
        if objective.head == "triton":
            choose("triton", self.args.device, torch.float32)  # raises where the kernel cannot run
        self.router = router_loss(self.model)
        self._micro_batches = 1
        self._routed = torch.zeros(2, dtype=_sum_dtype(self.args.device), device=self.args.device)  # sum and number of router losses
        self._tally = torch.zeros(5, dtype=_sum_dtype(self.args.device), device=self.args.device)
        self._logged_at = time.perf_counter()
        self._tokens = 0
        self.remove_callback(PrinterCallback)
        if self.pop_callback(ProgressCallback) is not None:
            self.add_callback(Bar)

    def get_batch_samples(  # type: ignore[override]
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], Tensor | int | None]:
        """The micro-batches of one optimizer step, and the divisor of its loss over all of them and all ranks."""
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        batches = regroup(batches, self.batching)
        self._micro_batches = max(1, len(batches))
        parts = []
        for batch in batches:
            weights_BT, parts_B = NORMALIZERS[self.objective.normalizer](self._weights(batch), batch["roles"])
            parts.append(parts_B.sum())
            layout = layout_of(batch, self.batching)
            weights_BT = weights_BT if layout is None else layout.pack(weights_BT)
            batch["kept"] = weights_BT[:, 1:].reshape(-1).nonzero().squeeze(-1)  # a GPU is waited for here, once, and not in the passes
        divisor = torch.stack(parts).sum().to(device) if parts else torch.zeros((), device=device)
        return batches, self.accelerator.reduce(divisor.double() if device.type != "mps" else divisor.float(), "sum")

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """sum(w * nll) / divisor. Without ``num_items_in_batch`` the divisor is that of this batch.

        The router loss, where there is one, is the mean over micro-batches and ranks: it is a product of means over the tokens of a
        micro-batch, so unlike the rest it depends on how a step is split.
        """
        weights_BT, parts_B = NORMALIZERS[self.objective.normalizer](self._weights(inputs), inputs["roles"])
        divisor = parts_B.sum() if num_items_in_batch is None else num_items_in_batch
        adaptive = self.objective.adaptive if model.training else None
        loss, nll_BT, routed = self._loss(model, inputs, weights_BT, divisor, adaptive, routes=self.router is not None)
        if model.training:
            self._count(inputs, weights_BT, nll_BT)
            # DDP and FSDP average gradients over ranks, but the divisor spans them already
            loss = loss * self.accelerator.num_processes
        outputs = {"nll": nll_BT}
        if self.router is not None and routed is not None:
            outputs["router_loss"] = routed.detach()
            micro_batches = 1 if num_items_in_batch is None else self._micro_batches
            loss = loss + self.router.coefficient * routed.to(loss.device, loss.dtype) / micro_batches
            if model.training:
                self._routed += torch.stack([routed.detach(), torch.ones_like(routed)]).to(self._routed)
        return (loss, outputs) if return_outputs else loss

    def prediction_step(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Sums per example instead of logits: see ``evaluation_metrics`` for the columns."""
        inputs = self._prepare_inputs(inputs)
        roles_BT = inputs["roles"]
        targets_BT = target_mask(roles_BT, (*PROMPT_ROLES, *RESPONSE_ROLES))
        prompt_BT = target_mask(roles_BT, PROMPT_ROLES)
        response_BT = targets_BT & ~prompt_BT
        weights_BT = self._weights(inputs)
        entering_BT, parts_B = NORMALIZERS[self.objective.normalizer](weights_BT, roles_BT)
        with torch.no_grad(), self.compute_loss_context_manager():
            _, nll_BT, _ = self._loss(model, inputs, targets_BT.float(), 1.0)
        columns = [
            nll_BT * prompt_BT,
            prompt_BT,
            nll_BT * response_BT,
            response_BT,
            nll_BT * entering_BT,
            weights_BT * prompt_BT,
            weights_BT * response_BT,
        ]
        dtype = _sum_dtype(nll_BT.device)
        rows_BK = torch.stack([c.to(dtype).sum(1) for c in columns] + [parts_B.to(dtype)], dim=1)
        return None, rows_BK, rows_BK[:, :1]

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Write a row; complete the training logs with token counts, speed and unweighted NLLs."""
        training = "loss" in logs
        if training:
            logs |= self._training_logs()
        super().log(logs, start_time)
        row = _row(logs, self.state.global_step)
        if row is not None and self.is_world_process_zero():
            if self.run is not None:
                self.run.append(row)
            _say(row, self.state.max_steps)
        check_loss(row, "lower --learning-rate, or clip with --max-grad-norm 1")

    def memory(self) -> dict[str, Any]:
        """See ``ContinuingTrainer``."""
        tally = self.accelerator.reduce(self._tally.clone(), "sum").tolist()
        routed = self.accelerator.reduce(self._routed.clone(), "sum").tolist()
        memory = {"tally": tally, "routed": routed, "tokens": self._tokens, "seconds": time.perf_counter() - self._logged_at}
        return super().memory() | memory

    def remember(self, memory: dict[str, Any]) -> None:
        """See ``ContinuingTrainer``."""
        super().remember(memory)
        for name, sums in (("tally", self._tally), ("routed", self._routed)):
            sums.zero_()
            if name in memory and self.is_world_process_zero():  # sums over all ranks, which must count once
                sums += torch.tensor(memory[name], dtype=sums.dtype, device=sums.device)
        self._tokens = memory.get("tokens", 0)
        self._logged_at = time.perf_counter() - memory.get("seconds", 0.0)

    def _weights(self, batch: dict[str, Tensor]) -> Tensor:
        return token_weights(batch["roles"], self.objective.weights, scale_of(batch))

    def _loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        weights_BT: Tensor,
        divisor: Tensor | float,
        adaptive: Adaptive | None = None,
        routes: bool = False,
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Loss, detached NLL [B, T] (fused: 0 where the weight is 0), and the router loss if ``routes``; padding does not enter it.

        No attention mask is passed: padding is on the right, where causal attention never looks, and the mask-free kernels are faster.
        """
        layout = layout_of(inputs, self.batching)
        given: dict[str, Any] = {"input_ids": inputs["input_ids"]}
        ids, real_BT = inputs["input_ids"], (inputs["roles"] != Role.PAD).long()
        adapts = target_mask(inputs["roles"], self.objective.adaptive_roles) if adaptive else None
        if layout is not None:
            ids, weights_BT, real_BT = layout.pack(ids), layout.pack(weights_BT), layout.pack(real_BT)
            adapts = None if adapts is None else layout.pack(adapts)
            given = {"input_ids": ids, **document_arguments(layout, self.model)}
        given |= {"output_router_logits": True} if routes else {}
        if self.plain_reason is None:
            kept = inputs.get("kept") if model.training else None
            made = model(**given, loss_rows=LossRows(ids, weights_BT, divisor, kept, adaptive, adapts, self.objective.head))
            loss, nll = made["loss"], made["nll"]
        else:
            made = model(**given, use_cache=False)
            logits = made["logits"]
            nll = token_nll(logits, ids)
            if adaptive is not None and adapts is not None:
                weights_BT = weights_BT * torch.where(adapts, adaptive_factor(adaptive, logits, nll), 1.0)
            loss = divide(torch.where(weights_BT != 0, weights_BT * nll, 0).sum(), divisor)
        routed = self.router(made["router_logits"], real_BT) if routes and self.router is not None else None
        return loss, (nll if layout is None else layout.unpack(nll)).detach(), routed

    def _count(self, inputs: dict[str, Any], weights_BT: Tensor, nll_BT: Tensor) -> None:
        prompt_BT = target_mask(inputs["roles"], PROMPT_ROLES) & (weights_BT != 0)
        response_BT = target_mask(inputs["roles"], RESPONSE_ROLES) & (weights_BT != 0)
        parts = (nll_BT * prompt_BT, prompt_BT, nll_BT * response_BT, response_BT, inputs["roles"] != Role.PAD)
        self._tally += torch.stack([p.to(self._tally.dtype).sum() for p in parts])

    def _training_logs(self) -> dict[str, Any]:
        """Means since the last row, over all ranks. None where no token of that kind had a weight."""
        prompt, n_prompt, response, n_response, tokens = self.accelerator.reduce(self._tally, "sum").tolist()
        self._tally.zero_()
        now = time.perf_counter()
        seconds, self._logged_at = now - self._logged_at, now
        self._tokens += int(tokens)
        routed, n_routed = self.accelerator.reduce(self._routed, "sum").tolist()
        self._routed.zero_()
        logs = {
            "prompt_nll": prompt / n_prompt if n_prompt else None,
            "response_nll": response / n_response if n_response else None,
            "tokens": self._tokens,
            "tokens_per_second": tokens / seconds,
        }
        return logs | {"router_loss": routed / n_routed} if self.router is not None and n_routed else logs


def evaluation_metrics(prediction: EvalPrediction) -> dict[str, Any]:
    """Add up per-example sums [N, 8]: prompt NLL, prompt targets, response NLL, response targets, weighted NLL, prompt weight,
    response weight, divisor. NLLs in nats per token; None where there is no such token."""
    sums = torch.as_tensor(prediction.predictions).double().sum(0).tolist()
    prompt, n_prompt, response, n_response, weighted, prompt_weight, response_weight, divisor = sums
    return {
        "loss": weighted / divisor if divisor else 0.0,
        "prompt_nll": prompt / n_prompt if n_prompt else None,
        "response_nll": response / n_response if n_response else None,
        "response_perplexity": math.exp(min(response / n_response, 700)) if n_response else None,
        "prompt_targets": int(n_prompt),
        "response_targets": int(n_response),
        "prompt_share": prompt_weight / (prompt_weight + response_weight) if prompt_weight + response_weight else None,
    }


def check_loss(row: dict[str, Any] | None, hint: str) -> None:
    """Stop where the loss is no number any more, or has never been one.

    Raises:
        HoldfastError: it is not.
    """
    loss = row["loss"] if row else None
    if row and loss is not None and not math.isfinite(loss):
        broken = row["kind"] == "eval" and row["step"] == 0
        at = f"the loss is {loss} at step {row['step']}"
        raise HoldfastError(at, hint="the model that was given is broken") if broken else DivergedError(at, hint=hint)


def evaluation_of(logs: dict[str, Any], prefix: str = "eval") -> dict[str, Any]:
    """The metrics of ``evaluation_metrics`` out of the Trainer's logs, which prefix them."""
    return {name: logs.get(f"{prefix}_{name}") for name in _EVAL_COLUMNS}


class Bar(ProgressCallback):
    """The progress bar without its log lines, which would go to stdout."""

    def on_log(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: ``WeightedTrainer.log`` has said it."""


def _sum_dtype(device: torch.device) -> torch.dtype:
    return torch.float32 if device.type == "mps" else torch.float64


def _row(logs: dict[str, Any], step: int) -> dict[str, Any] | None:
    """The row of a log event, or None for the Trainer's closing statistics."""
    if "loss" in logs:
        routed = {"router_loss": logs["router_loss"]} if "router_loss" in logs else {}
        return {"kind": "train", "step": step} | {name: logs.get(name) for name in _TRAIN_COLUMNS} | routed
    if "eval_loss" in logs:
        return {"kind": "eval", "step": step} | evaluation_of(logs)
    return None


def _say(row: dict[str, Any], steps: int) -> None:
    def number(name: str) -> str:
        return f"{row[name]:.4f}" if row.get(name) is not None else "-"

    head = f"step {row['step']}/{steps}" if row["kind"] == "train" else f"eval at {row['step']}"
    line = f"{head}  loss {number('loss')}  prompt NLL {number('prompt_nll')}  response NLL {number('response_nll')}"
    if "router_loss" in row:
        line += f"  router loss {row['router_loss']:.4f}"
    if row["kind"] == "train":
        line += f"  lr {row['learning_rate']:.1e}  {row['tokens_per_second']:,.0f} tokens/s"
    print(line, file=sys.stderr)
