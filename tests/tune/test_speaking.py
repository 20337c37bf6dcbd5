"""What `holdfast tune` says before, during and after a training, and that it claims no more than its data show."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from holdfast.config import TuneConfig
from holdfast.stats import smallest_shown
from holdfast.tune import train
from holdfast.tune.cost import parameter_counts, size
from holdfast.tune.outcome import changed


def sums(nll: Any, targets: int = 10) -> Any:
    """What ``evaluation_metrics`` adds up, with the same NLL in prompt and response."""
    per_example = np.asarray(nll, float) * targets
    columns = [per_example, np.full(len(per_example), targets)] * 2
    return np.stack(columns + [np.zeros(len(per_example))] * 4, axis=1)


def summary(before: Any, after: Any, **more: Any) -> dict[str, Any]:
    figures = [{"response_nll": float(np.mean(nll)), "prompt_nll": None} for nll in (before, after)]
    return {"before": figures[0], "after": figures[1], "eval_examples": len(before), **more}


@pytest.mark.parametrize(
    ("count", "shift", "spread", "says"),
    [
        (2, -0.5, 0.0, "too few to say"),
        (12, -0.5, 0.1, "lower on 12 of them, too few to say by how much"),
        (400, -0.3, 0.3, "lower by 0.3"),
        (400, +0.3, 0.3, "higher by 0.3"),
        (40, 0.0, 1.0, "no difference shown"),
    ],
)
def test_the_end_claims_no_more_than_it_may(count: int, shift: float, spread: float, says: str) -> None:
    noise = np.random.default_rng(0).standard_normal((2, count))
    before = 2.5 + noise[0]
    after = before + shift + spread * (noise[1] - noise[1].mean())
    text = changed(summary(before, after), sums(before), sums(after), seed=0)
    assert text.startswith(f"response NLL {before.mean():.3f} -> {after.mean():.3f} on {count} held-out examples: ")
    assert says in text


def test_the_interval_is_that_of_the_difference_per_token() -> None:
    generator = np.random.default_rng(1)
    before, gained = 2 + generator.random(400), generator.normal(-0.2, 0.4, 400)
    text = changed(summary(before, before + gained), sums(before), sums(before + gained), seed=0)
    mean, bounds = text.split(" by ")[1].split(" ", 1)
    low, high = (float(bound) for bound in bounds.strip("[]").split(", "))
    half = 1.96 * gained.std(ddof=1) / 20
    assert float(mean) == pytest.approx(-gained.mean(), abs=1e-3)
    assert (low, high) == pytest.approx((-gained.mean() - half, -gained.mean() + half), abs=6e-3)


def test_without_held_out_rows_it_says_what_is_missing() -> None:
    assert "--eval-data" in changed({"before": None, "after": None}, None, None, 0)


def test_a_continued_run_has_no_interval_and_a_chosen_step_is_a_caution() -> None:
    nll = np.full(40, 2.0)
    assert changed(summary(nll, nll - 1), None, sums(nll - 1), 0).endswith("no interval, as the run was continued")
    assert "step 3 was chosen on the same examples" in changed(
        summary(nll, nll - 1, best_step=3), sums(nll), sums(nll - 1), 0
    )


def test_counts_of_adapters_are_those_of_the_model_that_is_trained() -> None:
    config = TuneConfig(model="pocket", data="pocket:instructions", output="", lora_rank=4)
    assert parameter_counts(config) == (1_396_096, 59_136)
    whole = parameter_counts(TuneConfig(model="pocket", data="pocket:instructions", output=""))
    assert whole == (1_336_960, 1_336_960)
    assert (size(26e6), size(4.31e9), size(900)) == ("26 MB", "4.31 GB", "0.9 kB")


def test_how_much_can_be_shown_at_all() -> None:
    assert smallest_shown(1) == float("inf")
    assert smallest_shown(3) == pytest.approx(4.303 / 3**0.5, rel=1e-3)


def test_a_training_says_what_it_does_and_no_library_speaks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = TuneConfig(
        model="pocket", data="pocket:instructions", output=str(tmp_path / "run"), limit=42, eval_share=0.05,
        max_steps=2, batch_size=8, lora_rank=2, gradient_checkpointing=True, log_steps=1,
    )  # fmt: skip
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        train(config)
    assert [str(w.message) for w in caught if issubclass(w.category, FutureWarning)] == []
    shown = capsys.readouterr()
    lines = shown.err.splitlines()
    assert shown.out == ""
    assert lines[0].startswith("model pocket: 1,366,528 parameters, 29,568 of them trained (LoRA rank 2); ")
    assert lines[1].startswith("memory: about ")
    assert lines[2].startswith("40 examples to train on, 2 held out; longest ")
    assert lines[3].startswith("2 steps, about ")
    assert lines[4].startswith("weights: ")
    assert lines[5].startswith("note: 2 examples held out are few")
    assert lines[-3].startswith("response NLL ")
    assert lines[-3].endswith("on 2 held-out examples: too few to say")
    assert lines[-2:] == [
        f"written: {config.output}",
        f"next: holdfast report {config.output} --output {config.output}.html",
    ]
