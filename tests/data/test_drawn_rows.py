"""Rows that --data-share draws anew for every epoch: which, how many steps, the same after a kill."""

from __future__ import annotations

import collections
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from holdfast import runs
from holdfast.config import AlignConfig, TuneConfig
from holdfast.config.legacy import as_begun
from holdfast.data.sources import draw_epochs, sizes_of
from holdfast.runs import RunDir
from holdfast.tune import train
from holdfast.tune.batches import TokenDataset
from holdfast.tune.plan import make_plan
from materials import write_jsonl

COUNT = [{"prompt": f"Count to {n}.", "response": " ".join(map(str, range(1, n + 1)))} for n in range(1, 31)]
ASK = [{"question": f"What is {n}?", "answer": f"It is {n}."} for n in range(6)]


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("two")
    return [str(write_jsonl(folder / "a.jsonl", COUNT)), str(write_jsonl(folder / "b.jsonl", ASK))]


def config(model: Path, data: Any, output: Path | str = "unused", **options: Any) -> TuneConfig:
    settings = {"data_share": "2,1", "eval_share": 0.0, "batch_size": 4, "micro_batch_size": 2, "learning_rate": 5e-3}
    return TuneConfig(model=str(model), data=data, output=str(output), **settings | options)


def test_every_row_has_its_turn_before_one_comes_again() -> None:
    sizes = sizes_of([50, 7, 20], [2, 1, 1])
    assert sizes == [14, 7, 7]
    epochs = draw_epochs([50, 7, 20], [2, 1, 1], seed=1, epochs=25)
    ends = [0, 50, 57, 77]
    for part, (begin, end) in enumerate(itertools.pairwise(ends)):
        seen: collections.Counter[int] = collections.Counter()
        for drawn in epochs:
            here = [place for place in drawn if begin <= place < end]
            assert len(here) == len({*here}) == sizes[part]
            seen.update(here)
            counts = [seen[place] for place in range(begin, end)]
            assert max(counts) - min(counts) <= 1
    assert epochs[:3] == draw_epochs([50, 7, 20], [2, 1, 1], seed=1, epochs=3)
    assert epochs[:3] != draw_epochs([50, 7, 20], [2, 1, 1], seed=2, epochs=3)
    assert len({tuple(drawn) for drawn in epochs}) == 25


def test_the_plan_counts_steps_rows_and_shares_by_what_is_drawn(model_folder: Path, two: list[str]) -> None:
    plan = make_plan(config(model_folder, two, epochs=2.0, prompt_weight=1.0))
    assert plan.draws_EN is not None
    assert plan.draws_EN.shape == (2, 18)
    assert plan.steps == 10  # two epochs of 18 examples in batches of four
    assert plan.resolved()["data_sources"] == [
        {"source": two[0], "rows": 30, "drawn": 12, "distinct": 24},
        {"source": two[1], "rows": 6, "drawn": 6, "distinct": 6},
    ]
    assert len(plan.train) == 30  # rows that no epoch has are not tokenised
    twice = TokenDataset(plan.train, plan.draws_EN)
    tokens = [twice[place] for place in range(len(twice))]
    twice.begin_epoch(1)
    tokens += [twice[place] for place in range(len(twice))]
    roles = np.concatenate([item.roles[1:] for item in tokens])
    prompts = {int(role) for role in plan.report.targets if plan.weights[role] and role.label in PROMPTS}
    assert plan.share == pytest.approx(float(np.isin(roles, [*prompts]).mean()))
    assert make_plan(config(model_folder, two, max_steps=11)).resolved()["data_sources"][0]["distinct"] == 30
    assert make_plan(config(model_folder, two, max_steps=5)).resolved()["data_sources"][0]["distinct"] == 12


PROMPTS = ("system", "user", "tool", "template")


def test_held_out_rows_are_never_drawn(model_folder: Path, two: list[str]) -> None:
    plan = make_plan(config(model_folder, two, eval_share=0.2, epochs=9.0))
    held_out = {tokens.ids.tobytes() for tokens in plan.held_out}
    assert len(held_out) == 4  # a fifth of the 18 rows that an epoch would have
    assert not held_out & {tokens.ids.tobytes() for tokens in plan.train}


@pytest.fixture(scope="module")
def left_alone(model_folder: Path, two: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("alone")
    train(config(model_folder, two, output, epochs=3.0, save_steps=2, log_steps=1))
    return output


class Killed(BaseException):
    pass


@pytest.mark.parametrize("row", [8, 12])
def test_a_killed_run_goes_on_with_the_same_rows(
    model_folder: Path, two: list[str], left_alone: Path, tmp_path: Path, row: int, monkeypatch: Any
) -> None:
    options: dict[str, Any] = {"epochs": 3.0, "save_steps": 2, "log_steps": 1}
    append, count = RunDir.append, itertools.count()

    def dying(self: RunDir, content: dict[str, Any]) -> None:
        if next(count) == row:
            raise Killed
        append(self, content)

    with monkeypatch.context() as patch:
        patch.setattr(RunDir, "append", dying)
        with pytest.raises(Killed):
            train(config(model_folder, two, tmp_path, **options))
    train(config(model_folder, two, tmp_path, **options))
    weights = "model/model.safetensors"
    assert (tmp_path / weights).read_bytes() == (left_alone / weights).read_bytes()
    losses = [[json.loads(line)["loss"] for line in (place / "rows.jsonl").read_text().splitlines()]
              for place in (tmp_path, left_alone)]  # fmt: skip
    assert losses[0] == losses[1]


def test_the_trainer_takes_the_rows_of_its_epoch(
    model_folder: Path, two: list[str], tmp_path: Path, monkeypatch: Any
) -> None:
    seen: list[int] = []
    item = TokenDataset.__getitem__

    def noting(self: TokenDataset, index: int) -> Any:
        tokens = item(self, index)
        seen.append(next(place for place, other in enumerate(self.items) if other is tokens))
        return tokens

    monkeypatch.setattr(TokenDataset, "__getitem__", noting)
    settings = config(model_folder, two, tmp_path, epochs=3.0)
    plan = make_plan(settings)
    train(settings)
    assert plan.draws_EN is not None
    assert [sorted(part) for part in [seen[:18], seen[18:36], seen[36:]]] == plan.draws_EN.tolist()


def test_a_run_of_a_version_that_drew_once_goes_on_so(model_folder: Path, two: list[str], tmp_path: Path) -> None:
    options: dict[str, Any] = {"epochs": 2.0}
    once = train(config(model_folder, two, tmp_path / "once", data_draw="once", **options))
    assert [source["distinct"] for source in once["data_sources"]] == [12, 6]
    assert once["train_examples"] == 18
    about = json.loads((tmp_path / "once" / "config.json").read_text())
    del about["config"]["data_draw"]
    (tmp_path / "once" / "config.json").write_text(json.dumps(about))
    settings = config(model_folder, two, tmp_path / "once", **options)
    assert as_begun(settings, about).data_draw == "once"
    assert runs.check_output(settings, "tune") is not None  # it is that run


def test_align_draws_pairs_for_every_epoch(model_folder: Path, tmp_path: Path, monkeypatch: Any) -> None:
    pytest.importorskip("trl")
    from holdfast.align import align
    from holdfast.align.plan import make_plan as plan_pairs

    pairs = [{"prompt": f"{n}?", "chosen": f"yes {n}", "rejected": f"no {n}"} for n in range(12)]
    files = [str(write_jsonl(tmp_path / f"{name}.jsonl", rows)) for name, rows in (("a", pairs[:9]), ("b", pairs[9:]))]
    settings = AlignConfig(
        model=str(model_folder), data=files, output=str(tmp_path / "run"), data_share="1,1", epochs=3.0, eval_share=0,
        batch_size=3,
    )  # fmt: skip
    item, seen = TokenDataset.__getitem__, []

    def noting(self: TokenDataset, index: int) -> Any:
        seen.append(item(self, index))
        return seen[-1]

    monkeypatch.setattr(TokenDataset, "__getitem__", noting)
    summary, plan = align(settings), plan_pairs(settings)
    assert summary["steps"] == 6
    assert [source["distinct"] for source in summary["data_sources"]] == [9, 3]
    for epoch, places in enumerate(plan.draws_EN.tolist()):
        trained = sorted(row["prompt_ids"] for row in seen[6 * epoch : 6 * epoch + 6])
        assert trained == sorted(plan.train[place].prompt for place in places)
