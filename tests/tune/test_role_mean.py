"""The normalizer role-mean, L = sum over roles of (1 / n) sum w nll, against float64 worked out here from logits alone:
on every path, however a step is cut up. Over two processes it is in ``test_exactness.py``, in TRL's trainer in
``tests/integrations``."""

from __future__ import annotations

import copy
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import torch

from holdfast.records import Role, Tokens
from holdfast.tune.roles import TokenReport
from holdfast.tune.weights import prompt_share, role_weights, share_counts
from materials import make_model
from training_steps import gradient, relative, some_tokens, trainer

PAIR = (0.2, 0.8)


def with_tools() -> list[Tokens]:
    """Examples with a weight per token (some 0); two have a tool result, so that a role is in few micro-batches."""
    tokens = some_tokens(scale=True)
    for number in (2, 11):
        roles = tokens[number].roles.copy()
        roles[1:3] = int(Role.TOOL)
        tokens[number] = Tokens(tokens[number].ids, roles, tokens[number].scale)
    tokens[5].scale[1:4] = 0
    return tokens


def by_hand(model: Any, tokens: list[Tokens], pair: tuple[float, float] = PAIR) -> torch.Tensor:
    """The loss in the precision of the model, token by token."""
    weight_of = {Role.TEMPLATE: pair[0], Role.USER: pair[0], Role.TOOL: pair[0]}
    sums: dict[int, Any] = defaultdict(float)
    counts: dict[int, int] = defaultdict(int)
    for one in tokens:
        ids = torch.tensor(one.ids, dtype=torch.long)
        logs = model(input_ids=ids[None]).logits[0].log_softmax(-1)
        factors = [1.0] * len(one) if one.scale is None else one.scale.tolist()
        for place in range(1, len(one)):
            role = int(one.roles[place])
            weight = weight_of.get(Role(role), pair[1]) * factors[place]
            if weight:
                sums[role] = sums[role] - weight * logs[place - 1, ids[place]]
                counts[role] += 1
    return sum(sums[role] / counts[role] for role in sums)  # type: ignore[return-value]


def gradient_by_hand(model: Any, tokens: list[Tokens]) -> torch.Tensor:
    model = copy.deepcopy(model).double()
    by_hand(model, tokens).backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.requires_grad])


def adapted() -> Any:
    """Adapters whose two factors are not 0."""
    import peft

    torch.manual_seed(1)
    lora = peft.LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False)
    return peft.get_peft_model(make_model(), lora)


@pytest.fixture(scope="module")
def oracles() -> dict[bool, tuple[Any, torch.Tensor]]:
    """Fully trained and with adapters: the model, and the gradient by hand."""
    return {
        lora: (model, gradient_by_hand(model, with_tools()))
        for lora, model in ((False, make_model()), (True, adapted()))
    }


@pytest.mark.parametrize(
    ("micro", "lora"), [(16, False), (4, False), (1, False), (4, True)], ids=["16", "4", "1", "4, LoRA"]
)
@pytest.mark.parametrize(
    ("head", "batching"), [("plain", "padded"), ("plain", "packed"), ("torch", "packed"), ("torch", "padding-free")]
)
def test_the_gradient_is_exact_on_every_path(
    oracles: Any, tmp_path: Path, head: str, batching: str, micro: int, lora: bool
) -> None:
    """``micro``: examples of a micro-batch, of 16 in the step."""
    model, oracle = oracles[lora]
    options = {"head": head, "batching": batching, "micro": micro, "normalizer": "role-mean", "pair": PAIR}
    assert relative(gradient(with_tools(), tmp_path, model=copy.deepcopy(model), **options), oracle) < 3e-6


def test_weights_scaled_by_a_constant_scale_the_gradient(tmp_path: Path) -> None:
    """So settings of equal ratio are one training under AdamW, and twins are twins."""
    first, half = (gradient(with_tools(), tmp_path, normalizer="role-mean", pair=pair) for pair in (PAIR, (0.1, 0.4)))
    assert relative(2 * half, first) < 2e-6


@pytest.mark.parametrize("size", [1, 5, 16])
def test_an_evaluation_is_the_loss_by_hand_and_its_share_counts_a_role_once(tmp_path: Path, size: int) -> None:
    tokens = with_tools()
    with torch.no_grad():
        loss = float(by_hand(make_model().double(), tokens))
        prompt, response = (float(by_hand(_Flat(), tokens, pair)) for pair in ((0.2, 0.0), (0.0, 0.8)))
    metrics = trainer(tokens, tmp_path, normalizer="role-mean", pair=PAIR, per_device_eval_batch_size=size).evaluate()
    assert metrics["eval_loss"] == pytest.approx(loss, rel=1e-6)
    assert metrics["eval_prompt_share"] == pytest.approx(prompt / (prompt + response), rel=1e-6)


class _Flat:
    """A model to which every token is equally likely, so that a loss is its weights times one number."""

    def __call__(self, input_ids: torch.Tensor) -> Any:
        self.logits = torch.zeros(*input_ids.shape, 512, dtype=torch.float64)
        return self


def test_the_share_of_a_role_is_the_mean_of_its_weights() -> None:
    """Targets of weight 0 are not among those that the sum of a role is divided by."""
    report = TokenReport()
    report.weighted_targets.update({Role.USER: 30.0, Role.ASSISTANT: 6.0, Role.EOS: 2.0})
    report.counted_targets.update({Role.USER: 30, Role.ASSISTANT: 3, Role.EOS: 2})
    weights = role_weights(0.5, 1.0)
    counts = share_counts("role-mean", report.weighted_targets, report.counted_targets)
    assert prompt_share(counts, weights) == pytest.approx(0.5 / (0.5 + 2.0 + 1.0))
    counts = share_counts("nonzero", report.weighted_targets, report.counted_targets)
    assert prompt_share(counts, weights) == pytest.approx(15 / (15 + 8))
