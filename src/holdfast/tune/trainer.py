"""``transformers.Trainer`` with the weighted loss.

Only public methods are overridden, so that what users know of the Trainer holds here, too.

    get_batch_samples   counts the divisor once over all micro-batches and ranks of an optimizer step
    compute_loss        sum of w * nll over that divisor (arXiv 2507.07817, eq. 2), and the router loss of a mixture
                        of experts whose config asks for it
    prediction_step     per-example sums; ``evaluation_metrics`` adds them up: token-exact whatever the batch size
    log                 one row per log step in the run directory

Axes: B batch, T tokens.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers.trainer_utils import EvalPrediction

from holdfast.errors import HoldfastError
from holdfast.records import PROMPT_ROLES, RESPONSE_ROLES, Role
from holdfast.runs import RunDir
from holdfast.tune.adaptive import Adaptive
from holdfast.tune.attention import document_arguments, settle
from holdfast.tune.batches import StepBatch, regroup
from holdfast.tune.chunk import choose
from holdfast.tune.continuing import ContinuingTrainer
from holdfast.tune.head import LossRows, attach
from holdfast.tune.loss import divide, weighted_nll
from holdfast.tune.router import router_loss
from holdfast.tune.weights import NORMALIZERS, RoleWeights, role_counts, target_mask, token_weights

_TRAIN_COLUMNS = (
    "tokens",
    "loss",
    "prompt_nll",
    "response_nll",
    "grad_norm",
    "learning_rate",
    "tokens_per_second",
    "epoch",
)
_EVAL_COLUMNS = (
    "loss",
    "prompt_nll",
    "response_nll",
    "response_perplexity",
    "prompt_targets",
    "response_targets",
    "prompt_share",
)


@dataclass(frozen=True)
class Objective:
    """What is minimised: a weight per role, a key of ``NORMALIZERS``, how the head is computed (auto, torch, triton or
    plain), and a factor that looks at the token, for targets of ``adaptive_roles``."""

    weights: RoleWeights
    normalizer: str = "nonzero"
    head: str = "auto"
    adaptive: Adaptive | None = None
    adaptive_roles: tuple[Role, ...] = RESPONSE_ROLES


class WeightedTrainer(ContinuingTrainer):
    """A Trainer that minimises ``Objective`` over batches made by ``holdfast.tune.batches.collate``."""

    loss_is_scaled_for_ga = True
    train_columns = _TRAIN_COLUMNS
    eval_columns = _EVAL_COLUMNS
    when_diverged = "lower --learning-rate, or clip with --max-grad-norm 1"

    def __init__(
        self, *, objective: Objective, run: RunDir | None = None, batching: str = "auto", **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.compute_metrics = self._evaluated
        self.last_sums_NK: Any = None
        """Per-example sums of the last evaluation, see ``evaluation_metrics``."""
        self.model_accepts_loss_kwargs = True
        self.objective = objective
        self.run = run
        self.batching, self.padded_reason = settle(self.model, batching, self.accelerator.autocast)
        self.plain_reason = "asked for" if objective.head == "plain" else attach(self.model)
        if objective.head in ("torch", "triton") and self.plain_reason:
            raise HoldfastError(
                f"--head {objective.head} cannot be used with this model: {self.plain_reason}", hint="use --head auto"
            )
        if objective.head == "triton":
            choose("triton", self.args.device, torch.float32)  # raises where the kernel cannot run
        self.router = router_loss(self.model)
        self._micro_batches = 1
        zeros = partial(torch.zeros, dtype=_sum_dtype(self.args.device), device=self.args.device)
        self._tally, self._routed = zeros(5), zeros(2)  # see ``_count``; sum and number of router losses
        self._logged_at = time.perf_counter()
        self._tokens = 0

    def get_batch_samples(  # type: ignore[override]
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], Tensor | int | None]:
        """The micro-batches of one optimizer step, and the divisor of its loss over all of them and all ranks."""
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        counts_R = self._role_counts(batches) if self.objective.normalizer == "role-mean" else None
        batches = [self._weighed(batch, counts_R) for batch in regroup(batches, self.batching)]
        self._micro_batches = max(1, len(batches))
        shares = [torch.as_tensor(batch.rows.divisor) for batch in batches]
        divisor = torch.stack(shares).sum().to(device) if shares else torch.zeros((), device=device)
        return batches, self.accelerator.reduce(divisor.double() if device.type != "mps" else divisor.float(), "sum")

    def compute_loss(  # type: ignore[override]
        self,
        model: nn.Module,
        inputs: StepBatch,
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """sum(w * nll) / divisor. Without ``num_items_in_batch`` the divisor is that of this batch.

        The router loss, where there is one, is the mean over micro-batches and ranks: it is a product of means over the
        tokens of a micro-batch, so unlike the rest it depends on how a step is split.
        """
        batch = self._weighed(inputs)
        rows = batch.rows if num_items_in_batch is None else replace(batch.rows, divisor=num_items_in_batch)
        rows = rows if model.training else replace(rows, adaptive=None, adapts_BT=None)
        loss, nll_NT, routed = self._loss(model, batch, rows, routes=self.router is not None)
        if model.training:
            self._count(batch, nll_NT)
            # DDP and FSDP average gradients over ranks, but the divisor spans them already
            loss = loss * self.accelerator.num_processes
        outputs = {"nll": nll_NT}
        if self.router is not None and routed is not None:
            outputs["router_loss"] = routed.detach()
            micro_batches = 1 if num_items_in_batch is None else self._micro_batches
            loss = loss + self.router.coefficient * routed.to(loss.device, loss.dtype) / micro_batches
            if model.training:
                self._routed += torch.stack([routed.detach(), torch.ones_like(routed)]).to(self._routed)
        return (loss, outputs) if return_outputs else loss

    def prediction_step(  # type: ignore[override]
        self, model: nn.Module, inputs: StepBatch, prediction_loss_only: bool, ignore_keys: list[str] | None = None
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Sums per example instead of logits: see ``evaluation_metrics`` for the columns."""
        batch = self._laid_out(inputs)
        targets_NT = target_mask(batch.roles_NT, (*PROMPT_ROLES, *RESPONSE_ROLES))
        prompt_NT = target_mask(batch.roles_NT, PROMPT_ROLES)
        response_NT = targets_NT & ~prompt_NT
        weights_NT = self._weights(batch)
        role_means = self.objective.normalizer == "role-mean"
        one_R = torch.ones(len(Role), device=weights_NT.device) if role_means else None
        entering_NT, shares_N = NORMALIZERS[self.objective.normalizer](weights_NT, batch.roles_NT, one_R)
        rows = LossRows(batch.pack(batch.ids_NT), batch.pack(targets_NT.float()), 1.0, head=self.objective.head)
        with torch.no_grad(), self.compute_loss_context_manager():
            _, nll_NT, _ = self._loss(model, batch, rows)
        columns = [
            nll_NT * prompt_NT,
            prompt_NT,
            nll_NT * response_NT,
            response_NT,
            nll_NT * entering_NT,
            weights_NT * prompt_NT,
            weights_NT * response_NT,
        ]
        dtype = _sum_dtype(nll_NT.device)
        sums_NK = torch.stack([c.to(dtype).sum(1) for c in columns] + [shares_N.to(dtype)], dim=1)
        if role_means:
            sums_NK = torch.cat([sums_NK, self._sums_by_role(batch, weights_NT, nll_NT)], dim=1)
        return None, sums_NK, sums_NK[:, :1]

    def _sums_by_role(self, batch: StepBatch, weights_NT: Tensor, nll_NT: Tensor) -> Tensor:
        """Per example the weighted NLL of every role, then its targets of non-zero weight, then its weights, [N, 3
        roles]."""
        dtype = _sum_dtype(nll_NT.device)
        weighted_NT, counted_NT = (weights_NT * nll_NT).to(dtype), (weights_NT != 0).to(dtype)
        masks = [batch.roles_NT == int(role) for role in Role]
        columns = [(weighted_NT * mask_NT).sum(1) for mask_NT in masks]
        columns += [(counted_NT * mask_NT).sum(1) for mask_NT in masks]
        columns += [(weights_NT.to(dtype) * mask_NT).sum(1) for mask_NT in masks]
        return torch.stack(columns, dim=1)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Write a row; complete the training logs with token counts, speed and unweighted NLLs."""
        if "loss" in logs:
            logs |= self._training_logs()
        numbers = {name: value for name, value in logs.items() if value is not None}  # trackers warn of what is none
        super().log(numbers, start_time)
        self.write_row(logs | numbers)

    def line(self, row: dict[str, Any]) -> str:
        """See ``ContinuingTrainer``."""

        def number(name: str) -> str:
            return f"{row[name]:.4f}" if row.get(name) is not None else "-"

        line = f"loss {number('loss')}  prompt NLL {number('prompt_nll')}  response NLL {number('response_nll')}"
        if "router_loss" in row:
            line += f"  router loss {row['router_loss']:.4f}"
        if row["kind"] == "train":
            line += f"  lr {row['learning_rate']:.1e}  {row['tokens_per_second']:,.0f} tokens/s"
        return line

    def memory(self) -> dict[str, Any]:
        """See ``ContinuingTrainer``."""
        tally = self.accelerator.reduce(self._tally.clone(), "sum").tolist()
        routed = self.accelerator.reduce(self._routed.clone(), "sum").tolist()
        memory = {
            "tally": tally,
            "routed": routed,
            "tokens": self._tokens,
            "seconds": time.perf_counter() - self._logged_at,
        }
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

    def _weights(self, batch: StepBatch) -> Tensor:
        return token_weights(batch.roles_NT, self.objective.weights, batch.scale_NT)

    def _laid_out(self, batch: StepBatch) -> StepBatch:
        return batch.to(self.args.device).laid_out(self.batching)

    def _role_counts(self, batches: list[StepBatch]) -> Tensor:
        """Targets of non-zero weight of every role in an optimizer step, over all its micro-batches and ranks."""
        counts_R = torch.zeros(len(Role), dtype=_sum_dtype(self.args.device), device=self.args.device)
        for batch in batches:
            counts_R += role_counts(self._weights(batch), batch.roles_NT).to(counts_R)
        counted: Tensor = self.accelerator.reduce(counts_R, "sum")
        return counted

    def _weighed(self, batch: StepBatch, counts_R: Tensor | None = None) -> StepBatch:
        """The batch with its layout, weights and rows of the loss. One that has them is left as it is.

        ``counts_R``: see ``weights.NORMALIZERS``; None: the step is this batch.
        """
        if batch.rows is not None:
            return batch
        batch, objective = self._laid_out(batch), self.objective
        weights_NT, shares_N = NORMALIZERS[objective.normalizer](self._weights(batch), batch.roles_NT, counts_R)
        weights_RW = batch.pack(weights_NT)
        # a GPU is waited for here, once per step, and not in the passes
        kept_M = weights_RW[:, 1:].reshape(-1).nonzero().squeeze(-1)
        adapts_RW = batch.pack(target_mask(batch.roles_NT, objective.adaptive_roles)) if objective.adaptive else None
        ids_RW = batch.pack(batch.ids_NT)
        rows = LossRows(ids_RW, weights_RW, shares_N.sum(), kept_M, objective.adaptive, adapts_RW, objective.head)
        return replace(batch, weights_NT=weights_NT, rows=rows)

    def _loss(
        self, model: nn.Module, batch: StepBatch, rows: LossRows, routes: bool = False
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return loss, detached NLL [N, T] (fused: 0 where the weight is 0), and the router loss if ``routes``.

        Padding does not enter the router loss.

        No attention mask is passed: padding is on the right, where causal attention never looks, and the mask-free
        kernels are faster.
        """
        arguments: dict[str, Any] = {"input_ids": rows.ids_BT}
        if batch.layout is not None:
            arguments |= document_arguments(batch.layout, self.model)
        if routes:
            arguments["output_router_logits"] = True
        if self.plain_reason is None:
            out = model(**arguments, loss_rows=rows)
            loss, nll_RW = out["loss"], out["nll"]
        else:
            out = model(**arguments, use_cache=False)
            total, _, nll_RW = weighted_nll(out["logits"], rows.ids_BT, rows.weights_BT, rows.adaptive, rows.adapts_BT)
            loss = divide(total, rows.divisor)
        routed = (
            self.router(out["router_logits"], batch.pack(batch.real_NT)) if routes and self.router is not None else None
        )
        return loss, batch.unpack(nll_RW).detach(), routed

    def _evaluated(self, prediction: EvalPrediction) -> dict[str, Any]:
        self.last_sums_NK = prediction.predictions
        return evaluation_metrics(prediction)

    def _count(self, batch: StepBatch, nll_NT: Tensor) -> None:
        prompt_NT, response_NT = (
            target_mask(batch.roles_NT, roles) & (batch.weights_NT != 0) for roles in (PROMPT_ROLES, RESPONSE_ROLES)
        )
        parts = (nll_NT * prompt_NT, prompt_NT, nll_NT * response_NT, response_NT, batch.real_NT)
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
    """Add up per-example sums [N, 8]: prompt NLL, prompt targets, response NLL, response targets, weighted NLL, prompt
    weight, response weight, divisor. NLLs in nats per token; None where there is no such token.

    Under ``role-mean`` there are three more columns per role, weighted NLL, targets of non-zero weight and weight,
    because no sum per example knows how many targets the others have.
    """
    sums_K = torch.as_tensor(prediction.predictions).double().sum(0)
    sums, by_role = sums_K[:8].tolist(), sums_K[8:]
    prompt, n_prompt, response, n_response, weighted, prompt_weight, response_weight, divisor = sums
    if len(by_role):
        nll_R, counts_R, weights_R = by_role.chunk(3)
        weighted, divisor = float((nll_R / counts_R.clamp(min=1)).sum()), 1.0
        mean_weights_R = weights_R / counts_R.clamp(min=1)
        prompt_weight, response_weight = (float(mean_weights_R[list(r)].sum()) for r in (PROMPT_ROLES, RESPONSE_ROLES))
    return {
        "loss": weighted / divisor if divisor else 0.0,
        "prompt_nll": prompt / n_prompt if n_prompt else None,
        "response_nll": response / n_response if n_response else None,
        "response_perplexity": math.exp(min(response / n_response, 700)) if n_response else None,
        "prompt_targets": int(n_prompt),
        "response_targets": int(n_response),
        "prompt_share": prompt_weight / (prompt_weight + response_weight) if prompt_weight + response_weight else None,
    }


def evaluation_of(logs: dict[str, Any], prefix: str = "eval") -> dict[str, Any]:
    """The metrics of ``evaluation_metrics`` out of the Trainer's logs, which prefix them."""
    return {name: logs.get(f"{prefix}_{name}") for name in _EVAL_COLUMNS}


def _sum_dtype(device: torch.device) -> torch.dtype:
    return torch.float32 if device.type == "mps" else torch.float64
