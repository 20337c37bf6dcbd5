"""What a study plans: which settings are one training, what addresses a trial, and what is refused before anything
runs.
"""

from __future__ import annotations

import itertools
import json
import math
import re
import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as some

from holdfast.cli import main
from holdfast.config import StudyConfig, TuneConfig
from holdfast.errors import HoldfastError
from holdfast.records import PROMPT_ROLES, RESPONSE_ROLES, Role
from holdfast.study.grid import Targets, scale_matters, training_class
from holdfast.study.pipeline import run
from holdfast.study.spec import load_spec, make_spec
from holdfast.tune.weights import NORMALIZERS, role_weights, token_weights
from materials import write_jsonl
from study_case import chats, make_case, other_model, planned, run_study, write_study

EVERY = Targets(dict.fromkeys((*PROMPT_ROLES, *RESPONSE_ROLES), 10.0))


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return make_case(tmp_path_factory.mktemp("case"))


def test_the_papers_grid_is_21_trainings(case: dict[str, Any], tmp_path: Path) -> None:
    plan = planned(case | {"vary": {"weights": "paper"}, "seeds": 1}, tmp_path)
    assert plan.requested == 35
    assert len(plan.trials) == 21
    assert sorted((len(t.members) for t in plan.trials), reverse=True) == [5, 5, 5, 2, 2, *[1] * 16]
    named = {t.setting_name: t for t in plan.trials}
    assert named["(0, 1)"].members == ((0.0, 0.2), (0.0, 0.4), (0.0, 0.6), (0.0, 0.8), (0.0, 1.0))
    assert named["(1, 0)"].ratio == 1.0
    assert named["(1, 1)"].prompt_share == pytest.approx(_counted_share(case))


def _counted_share(case: dict[str, Any]) -> float:
    """Prompt targets over all targets, counted by another road: the chat template's own text."""
    from holdfast import lm
    from holdfast.data.chat_template import render
    from holdfast.records import Message
    from holdfast.tune.roles import assign_roles

    tokenizer = lm.load_tokenizer(case["model"])
    counts = {True: 0, False: 0}
    for line in Path(case["data"]["train"]).read_text().splitlines():
        messages = [Message(Role[m["role"].upper()], m["content"]) for m in json.loads(line)["messages"]]
        for role in assign_roles([render(messages, "chat", tokenizer)], tokenizer)[0].roles[1:]:
            counts[Role(int(role)) in PROMPT_ROLES] += 1
    return counts[True] / (counts[True] + counts[False])


def test_the_papers_whole_design_is_315_trainings(case: dict[str, Any], tmp_path: Path) -> None:
    """5 models x 3 data sets x 35 cells = 525."""
    models = [other_model(case, tmp_path / f"m{i}", seed=i + 1) for i in range(5)]
    data = [
        case["data"]
        | {"name": f"d{i}", "train": str(write_jsonl(tmp_path / f"{i}.jsonl", chats(50 * i + 100, 50 * i + 110)))}
        for i in range(3)
    ]
    plan = planned(case | {"model": models, "data": data, "vary": {"weights": "paper"}, "seeds": 1}, tmp_path / "data")
    assert (plan.requested, len(plan.trials), len(plan.groups)) == (525, 315, 15)
    assert len({t.group for t in plan.trials}) == 15


def test_one_model_under_two_names_is_refused(case: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "again").symlink_to(case["model"])
    with pytest.raises(HoldfastError, match="are the same model on the same data"):
        planned(case | {"model": [case["model"], str(tmp_path / "again")]}, tmp_path / "data")


def test_float_noise_in_weights_makes_no_new_training(case: dict[str, Any], tmp_path: Path) -> None:
    weights = [[0.1 + 0.2, 0.3], [1, 1], [0.1 * 3, 0.9], [1, 3], [0.7, 0.1 * 7]]
    plan = planned(case | {"vary": {"weights": weights}, "seeds": 1}, tmp_path)
    assert [len(t.members) for t in plan.trials] == [3, 2]


@pytest.mark.parametrize(
    ("tune", "why"),
    [
        ({"max_grad_norm": 1.0}, "clipped at 1"),
        ({"training": {"optim": "sgd"}}, "optimizer sgd"),
        ({"training": {"adam_epsilon": "1e-3"}}, "adam_epsilon"),
    ],
)
def test_what_sees_the_size_of_the_loss_keeps_equal_ratios_apart(
    case: dict[str, Any], tmp_path: Path, tune: dict[str, Any], why: str
) -> None:
    plan = planned(case | {"tune": case["tune"] | tune, "seeds": 1}, tmp_path)
    assert len(plan.trials) == 4
    ((reason, names),) = plan.groups[0].kept_apart
    assert why in reason
    assert names == ("(0, 1)", "(0, 0.4)")


@pytest.mark.parametrize(
    "training", [{}, {"optim": "adamw_torch_fused"}, {"optim": "paged_adamw_8bit"}, {"adam_epsilon": "1e-8"}]
)
def test_adamw_does_not_see_the_size_of_the_loss(training: dict[str, str]) -> None:
    assert scale_matters(TuneConfig(model="m", data="d", output="o", max_grad_norm=0, training=training)) is None


_WEIGHT = some.sampled_from([0.0, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0])


@given(
    first=some.lists(_WEIGHT, min_size=len(Role) - 1, max_size=len(Role) - 1).filter(any),
    second=some.lists(_WEIGHT, min_size=len(Role) - 1, max_size=len(Role) - 1).filter(any),
    scale=some.sampled_from([None, 0.5, 0.1, 3.0]),
    pair=some.tuples(some.sampled_from(sorted(NORMALIZERS)), some.sampled_from(sorted(NORMALIZERS))),
    seed=some.integers(0, 10),
)
def test_one_class_means_one_loss_up_to_a_constant(
    first: list[float], second: list[float], scale: float | None, pair: tuple[str, str], seed: int
) -> None:
    """The oracle is the loss itself, on random steps: weight of every token over the divisor. Equal class <=> constant
    quotient.
    """
    if scale is not None:
        second = [scale * w for w in first]
    tables = [
        role_weights(weights={r.label: w for r, w in zip((*PROMPT_ROLES, *RESPONSE_ROLES), values)})
        for values in (first, second)
    ]
    for scale_free in (True, False):
        classes = [training_class(t, n, scale_free=scale_free, targets=EVERY) for t, n in zip(tables, pair)]
        if classes[0] == classes[1]:
            assert _proportional(tables, pair, seed, exactly=not scale_free)
        elif pair[0] == pair[1]:  # across normalizers only the plain coincidences are known to be one
            assert not _proportional(tables, pair, seed, exactly=not scale_free)


def _proportional(tables: list[Any], normalizers: tuple[str, str], seed: int, *, exactly: bool) -> bool:
    generator = torch.Generator().manual_seed(seed)
    factors = []
    for _ in range(4):  # optimizer steps of 6 examples, every role among them
        roles_BT = torch.randint(1, len(Role), (6, 24), generator=generator)
        made = []
        for table, name in zip(tables, normalizers):
            weights_BT, parts_B = NORMALIZERS[name](token_weights(roles_BT, table, dtype=torch.float64), roles_BT)
            made.append((weights_BT / parts_B.sum()).flatten())
        at = int(made[0].argmax())
        factors.append(float(made[1][at] / made[0][at]))
        if not torch.allclose(made[0] * factors[-1], made[1], rtol=1e-9, atol=1e-12):
            return False
    constant = max(factors) - min(factors) <= 1e-9 * max(factors)
    return constant and (not exactly or abs(factors[0] - 1) < 1e-9)


def test_conventional_tuning_is_the_same_under_most_normalizers(case: dict[str, Any], tmp_path: Path) -> None:
    vary = {"weights": [[0, 1], [0.2, 0.8]], "normalizer": ["nonzero", "weight-sum", "response-count"]}
    plan = planned(case | {"vary": vary, "seeds": 1}, tmp_path)
    names = [t.setting_name for t in plan.trials]
    assert [n for n in names if n.startswith("(0, 1)")] == ["(0, 1), normalizer nonzero"]
    assert len([n for n in names if n.startswith("(0.2")]) == 3


def test_roles_that_the_data_lacks_make_no_training_of_their_own(case: dict[str, Any], tmp_path: Path) -> None:
    """No example has a tool or system message."""
    vary = {"weights": [[0.5, 1]], "role_weights": [{}, {"tool": 0.0}, {"system": 1.0}, {"template": 0.0}]}
    plan = planned(case | {"vary": vary, "seeds": 1}, tmp_path)
    assert len(plan.trials) == 2


@pytest.mark.parametrize(
    ("clip", "epsilon", "low", "high"),
    [(0.0, 1e-12, 0.0, 1e-5), (0.0, 1e-8, 0.0, 0.005), (1.0, 1e-8, 0.05, math.inf)],
    ids=["none", "none, usual epsilon", "clipped"],
)
def test_with_clipping_equal_ratios_do_train_to_different_models(
    case: dict[str, Any], tmp_path: Path, clip: float, epsilon: float, low: float, high: float
) -> None:
    """And without it they do not: so merging is right, and so is keeping apart. What is left without it is the epsilon
    of AdamW against a gradient of a sixteenth. (The clip lies between the gradient norms of the two losses; were both
    always clipped, they would be one again.)"""
    from safetensors.torch import load_file

    from holdfast.tune import train

    found = []
    for weight in (1.0, 0.0625):
        config = TuneConfig(
            model=case["model"], data=case["data"]["train"], eval_share=0.0, output=str(tmp_path / str(weight)),
            prompt_weight=0.0, response_weight=weight, max_grad_norm=clip, training={"adam_epsilon": str(epsilon)},
            epochs=4.0, **case["tune"],
        )  # fmt: skip
        train(config)
        found.append(
            torch.cat([v.flatten() for v in load_file(tmp_path / str(weight) / "model" / "model.safetensors").values()])
        )
    base = torch.cat([v.flatten() for v in load_file(Path(case["model"]) / "model.safetensors").values()])
    assert low <= float((found[0] - found[1]).norm() / (found[0] - base).norm()) < high


def test_shares_are_what_they_say(case: dict[str, Any], tmp_path: Path) -> None:
    plan = planned(case | {"vary": {"weights": {"share": [0, 0.05, 0.3, 1]}}, "seeds": 1}, tmp_path)
    assert [t.prompt_share for t in plan.trials] == pytest.approx([0, 0.05, 0.3, 1], rel=1e-3)


def test_shares_under_role_mean_count_each_role_once(case: dict[str, Any], tmp_path: Path) -> None:
    """The loss gives each of the roles in the data its weight, however many tokens it has."""
    vary = {"weights": {"share": [0, 0.05, 0.3, 1]}, "normalizer": ["nonzero", "role-mean"]}
    plan = planned(case | {"vary": vary, "seeds": 1}, tmp_path)
    assert [t.prompt_share for t in plan.trials] == pytest.approx(list(np.repeat([0, 0.05, 0.3, 1], 2)), rel=1e-3)
    with np.load(tmp_path / f"{plan.trials[0].source}.npz") as arrays:
        present = {Role(int(role)) for role in arrays["train_roles"]}
    sides = [len(present & set(roles)) for roles in (PROMPT_ROLES, RESPONSE_ROLES)]
    assert sides == [2, 2], "user and template; assistant and eos"
    (third,) = (t for t in plan.trials if t.tune["normalizer"] == "role-mean" and 0.2 < t.prompt_share < 0.4)
    pair = third.tune["prompt_weight"], third.tune["response_weight"]
    assert pair[0] * 2 / (pair[0] * 2 + pair[1] * 2) == pytest.approx(0.3, rel=1e-3)


def test_under_role_mean_equal_ratios_are_one_training(case: dict[str, Any], tmp_path: Path) -> None:
    means = case["tune"] | {"normalizer": "role-mean"}
    assert len(planned(case | {"tune": means, "seeds": 1}, tmp_path).trials) == 3
    twins = planned(case | {"tune": means, "seeds": 1, "twins": 1}, tmp_path).trials
    assert [t.tune["response_weight"] for t in twins[:2]] == [1.0, 0.5]
    one_role = {"weights": [[0, 1]], "role_weights": [{"eos": 0}, {}], "normalizer": ["nonzero", "role-mean"]}
    plan = planned(case | {"vary": one_role, "seeds": 1}, tmp_path)
    assert [(t.setting["weights"], t.setting["normalizer"]) for t in plan.trials] == [
        ({"eos": 0}, "nonzero"), ({}, "nonzero"), ({}, "role-mean"),
    ]  # fmt: skip


def test_ratios_are_the_default_search(case: dict[str, Any], tmp_path: Path) -> None:
    content = {key: value for key, value in case.items() if key != "vary"}
    plan = planned(content | {"seeds": 1}, tmp_path)
    shares = [t.prompt_share for t in plan.trials]
    assert len(shares) == 8
    assert shares[0] == 0
    steps = [b / a for a, b in itertools.pairwise(shares[1:])]
    assert max(steps) == pytest.approx(min(steps), rel=0.1)


def test_an_address_is_the_content_of_a_trial_and_nothing_else(case: dict[str, Any], tmp_path: Path) -> None:
    def ids(**changes: Any) -> set[str]:
        return {t.id for t in planned(case | changes, tmp_path).trials}

    own = ids()
    assert len(own) == 6
    assert ids(name="other") == own
    assert ids(vary={"weights": [[1, 1], [0.5, 0.5], [0.2, 0.8], [0, 0.7], [0.4, 0.6]]}) > own
    assert ids(seeds=3) > own
    assert ids(tune=case["tune"] | {"save_steps": 5}) == own
    moved = write_jsonl(
        tmp_path / "moved.jsonl", [json.loads(line) for line in Path(case["data"]["train"]).read_text().splitlines()]
    )
    assert ids(data=case["data"] | {"train": str(moved)}) == own
    for change in (
        {"tune": case["tune"] | {"learning_rate": 0.02}},
        {"measure": []},
        {"items": 3},
        {"data": case["data"] | {"train": str(write_jsonl(tmp_path / "more.jsonl", chats(0, 25)))}},
        {"seeds": [7]},
        {"twins": 1},
    ):
        assert ids(**change) != own
        assert change == {"twins": 1} or not ids(**change) & own


def test_twins_are_scaled_copies_of_every_setting(case: dict[str, Any], tmp_path: Path) -> None:
    plan = planned(case | {"twins": 1, "seeds": 1}, tmp_path)
    assert [(t.setting_name, t.twin) for t in plan.trials][:2] == [("(0, 1)", 0), ("(0, 1)", 1)]
    assert [t.tune["response_weight"] for t in plan.trials][:2] == [1.0, 0.5]
    with pytest.raises(HoldfastError, match="no twins"):
        planned(case | {"twins": 1, "tune": {"max_grad_norm": 1.0}}, tmp_path)


def test_data_without_splits_is_split_by_content(case: dict[str, Any], tmp_path: Path) -> None:
    rows = chats(0, 100)
    file = write_jsonl(tmp_path / "all.jsonl", rows + rows[:20])
    first = planned(case | {"data": str(file)}, tmp_path / "a").groups[0].first.files
    write_jsonl(file, chats(100, 120) + rows)
    second = planned(case | {"data": str(file)}, tmp_path / "b").groups[0].first.files
    parts = [{name: set(Path(files[name]).read_text().splitlines()) for name in files} for files in (first, second)]
    assert not parts[0]["dev"] & parts[0]["test"]
    assert not parts[0]["train"] & (parts[0]["dev"] | parts[0]["test"])
    assert all(parts[0][name] <= parts[1][name] for name in parts[0])
    assert 4 <= len(parts[0]["dev"]) <= 18


def test_prompts_alone_can_be_studied(case: dict[str, Any], tmp_path: Path) -> None:
    data = {
        name: str(write_jsonl(tmp_path / f"{name}.jsonl", [{"prompt": f"What is {i}{name}?"} for i in range(6)]))
        for name in case["data"]
    }
    content = case | {
        "data": data,
        "measure": [],
        "select": "prompt_nll",
        "vary": {"weights": [[1, 0]], "learning_rate": [0.01, 0.1]},
    }
    assert len(planned(content, tmp_path / "data").trials) == 4
    with pytest.raises(HoldfastError, match="exact_match needs right answers"):
        planned(content | {"measure": ["exact_match"]}, tmp_path / "data")


def bad(case: dict[str, Any]) -> dict[str, tuple[dict[str, Any], str]]:
    overlap = case["data"] | {"test": case["data"]["dev"]}
    return {
        "unknown key": ({"sedes": 3}, "did you mean 'seeds'"),
        "unknown setting": ({"vary": {"learning_rat": [1e-3]}}, "did you mean 'learning_rate'"),
        "unknown tune field": ({"tune": {"epoch": 2}}, "did you mean 'epochs'"),
        "unknown metric": ({"measure": ["exact_mach"]}, "did you mean 'exact_match'"),
        "unknown option": ({"measure": [{"exact_match": {"max_tokens": 3}}]}, "did you mean 'max_new_tokens'"),
        "metric not measured": ({"select": "posix"}, "'posix' is not measured"),
        "no such function": ({"measure": ["json:nothing"]}, "json:nothing could not be loaded"),
        "wrong type": ({"tune": {"batch_size": "many"}}, "'batch_size' is 'many'"),
        "negative weight": ({"vary": {"weights": [[0, -1]]}}, "finite number >= 0"),
        "no weight": ({"vary": {"weights": [[0, 0]]}}, "all weights are zero"),
        "weight that is no number": (
            {"vary": {"weights": [[math.nan, 1]]}},
            "vary.weights: nan is not a finite number >= 0",
        ),
        "no weights": ({"vary": {"weights": {"share": []}}}, "vary.weights.share has no values"),
        "only a pair of zeros": (
            {"vary": {"weights": {"prompt": [0], "response": [0]}}},
            "vary.weights: all weights are zero",
        ),
        "seeds that are lists": ({"seeds": [[0], [1]]}, "seeds is [0]; it must be a whole number"),
        "seed twice": ({"seeds": [1, 1]}, "a list of different ones"),
        "weight as text": ({"vary": {"weights": [["a", 1]]}}, "not a number"),
        "share beyond 1": ({"vary": {"weights": {"share": [1.5]}}}, "between 0 and 1"),
        "both weights": ({"vary": {"weights": [[0, 1]], "prompt_weight": [0.1]}}, "both 'weights' and 'prompt_weight'"),
        "seed among the settings": ({"vary": {"seed": [1]}}, "stands elsewhere in a study: seeds"),
        "unknown search": ({"search": "halvin"}, "did you mean 'halving'"),
        "ratios with weights": ({"search": "ratios"}, "makes the weights itself"),
        "no data": ({"data": None}, "'data' is missing"),
        "no such file": ({"data": {"train": "./nothing.jsonl"}}, "no such file"),
        "dev in test": ({"data": overlap}, "share 6 examples"),
        "direction that is no bool": (
            {"measure": [{"json:dumps": {"higher_is_better": 0}}]},
            "higher_is_better is 0; it must be true or",
        ),
        "direction as text": (
            {"measure": [{"lm_eval:x": {"higher_is_better": "nope"}}]},
            "higher_is_better is 'nope'; it must be true",
        ),
        "limit as text": ({"measure": [{"lm_eval:x": {"limit": "many"}}]}, "'limit' is 'many'"),
        "no module": ({"measure": [":f"]}, ":f could not be loaded"),
        "relative module": ({"measure": [".:f"]}, ".:f could not be loaded"),
        "list of prompt sets": (
            {"measure": [{"posix": {"sets": ["pocket:intents"]}}]},
            "posix.sets is ['pocket:intents']; it must be a file",
        ),
        "prompt sets as number": ({"measure": [{"posix": {"sets": 3}}]}, "posix.sets is 3; it must be a file"),
        "no response": (
            {"measure": [{"posix": {"sets": "pocket:intents", "max_new_tokens": 0}}]},
            "measure.posix: --max-new-tokens is 0",
        ),
        "tasks as numbers": (
            {"measure": [{"crosstask_accuracy": {"sources": 3, "dev": 4, "test": 5}}]},
            "crosstask_accuracy.sources is 3",
        ),
        "no source tasks": (
            {"measure": [{"crosstask_accuracy": {"dev": "a", "test": "b"}}]},
            "'sources', and 'dev' and 'test'",
        ),
        "model twice": ({"model": ["pocket", "pocket"]}, "model: 'pocket' is there twice"),
        "no pairs": ({"then": {"align": {}}}, "then.align: 'data' is missing"),
        "second stage below 0": (
            {"then": {"align": {"data": "pocket:preferences", "limit": 0}}},
            "then.align: --limit is 0",
        ),
        "epsilon as text": (
            {"tune": {"training": {"adam_epsilon": "abc"}}},
            "adam_epsilon is 'abc'; it must be a number",
        ),
        "unknown argument": ({"tune": {"training": {"foo": 1}}}, "unexpected keyword argument 'foo'"),
        "unknown optimizer": ({"vary": {"training": [{}, {"optim": "nope"}]}}, "nope is not a valid OptimizerNames"),
        "unknown schedule": ({"tune": {"schedule": "nope"}}, "nope is not a valid SchedulerType"),
        "learning rate below 0": ({"tune": {"learning_rate": -1.0}}, "must be greater than 0"),
    }


@pytest.mark.parametrize("name", list(bad({"data": {"dev": ""}})))
def test_bad_input_is_refused_with_a_way_out(case: dict[str, Any], tmp_path: Path, name: str) -> None:
    change, message = bad(case)[name]
    with pytest.raises(HoldfastError) as error:
        run_study({k: v for k, v in (case | change).items() if v is not None}, tmp_path / "out")
    assert message in str(error.value)
    assert not (tmp_path / "out").exists(), "nothing is left behind"


def test_a_number_that_yaml_reads_as_text_is_a_number(case: dict[str, Any], tmp_path: Path) -> None:
    file = write_study(tmp_path / "s.yaml", {k: v for k, v in case.items() if k != "vary"})
    with file.open("a") as lines:
        lines.write("vary: {weights: {share: [1e-2, 0.5]}, learning_rate: [1e-3]}\n")
    assert load_spec(str(file)).weights == {"share": [0.01, 0.5]}


def test_broken_yaml_is_named_by_line_and_column(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text("model: pocket\n\tdata: x\n")
    with pytest.raises(HoldfastError, match=r"s\.yaml, line 2, column 1: broken YAML: a tab"):
        load_spec(str(tmp_path / "s.yaml"))


def test_a_key_is_given_once(tmp_path: Path) -> None:
    """YAML would take the last one."""
    (tmp_path / "s.yaml").write_text(
        "model: pocket\ndata: &d {train: a, dev: b}\nseeds: 2\ntune: {epochs: 1}\nseeds: 3\n"
    )
    with pytest.raises(HoldfastError, match=r"s\.yaml, line 5, column 1: .*'seeds' is there twice"):
        load_spec(str(tmp_path / "s.yaml"))
    (tmp_path / "merged.yaml").write_text(
        "model: pocket\ndata:\n- &d {train: a, dev: b}\n- {<<: *d, name: other, train: c}\n"
    )
    assert [(d.train, d.dev) for d in load_spec(str(tmp_path / "merged.yaml")).data] == [("a", "b"), ("c", "b")]


def test_functions_are_found_in_the_current_directory(case: dict[str, Any], tmp_path: Path) -> None:
    """As the installed command is started: without it on the path."""
    (tmp_path / "beside_the_study.py").write_text("def score(lm, source):\n    return 1.0\n")
    write_study(tmp_path / "s.yaml", case | {"measure": ["beside_the_study:score"]})
    code = "from holdfast.study.spec import load_spec; print([m.pinned() for m in load_spec('s.yaml').measures])"
    shown = subprocess.run([sys.executable, "-P", "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert "beside_the_study:score" in shown.stdout, shown.stderr


def test_an_edited_function_is_another_measure(
    case: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    ids = []
    for value in ("0.5", "0.25"):
        (tmp_path / "own_measure.py").write_text(f"def score(lm, source):\n    return {value}\n")
        ids.append({t.id for t in planned(case | {"measure": ["own_measure:score"]}, tmp_path / "data").trials})
    assert not ids[0] & ids[1]


def test_a_plan_is_printed_and_nothing_written(
    case: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_study(tmp_path / "tiny.yaml", case)
    assert main(["study", "plan", str(file), "--output", str(tmp_path / "out"), "--calibrate", "0"]) == 0
    shown = capsys.readouterr().out
    assert "8 trainings asked for, 6 distinct" in shown
    assert "(0, 1)" in shown
    assert "(0, 0.4)" in shown
    assert not (tmp_path / "out").exists()
    assert main(["study", "run", str(file), "--output", str(tmp_path / "out"), "--calibrate", "0", "--dry-run"]) == 0
    assert capsys.readouterr().out == shown


def test_a_plan_names_the_data_and_not_what_is_cut_off_it(
    case: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_jsonl(tmp_path / "all.jsonl", chats(0, 100))
    study = write_study(tmp_path / "cut.yaml", case | {"data": str(file)})
    assert main(["study", "plan", str(study), "--output", str(tmp_path / "out"), "--calibrate", "0"]) == 0
    shown = capsys.readouterr().out
    assert re.search(
        rf" on {re.escape(str(file))} \(\d+ examples\), dev cut off it \(\d+\), test cut off it \(\d+\)\n", shown
    )


def test_facts_move_no_row_of_pocket_to_another_split(case: dict[str, Any], tmp_path: Path) -> None:
    """Of commit 33c6712: other parts would make a study that was begun then train everything anew."""
    planned(case | {"data": "pocket:instructions/test"}, tmp_path / "data")
    files = {file.stem.rpartition("-")[2]: file for file in (tmp_path / "data").glob("*.jsonl")}
    assert {split: sha256(file.read_bytes()).hexdigest() for split, file in files.items()} == {
        "train": "31e0fb140dfe200cd2dcfa677481e30f9cb9bfafd5a8b7252dbf266371028814",
        "dev": "30e0bf95c0764e1ba12e167a38dfa30229f98fdb77cef8200cc4b10fa523e0ee",
        "test": "54a5d547a01ef5323a3ad9fdccec8e30612962a1e2537240e501dd88d21ce7d3",
    }


def test_tasks_are_tried_before_anything_is_trained(case: dict[str, Any], tmp_path: Path) -> None:
    tasks = {"sources": "pocket:tasks", "dev": "pocket:tasks/add", "test": "pocket:tasks/plural"}
    for measure, message in (
        ("lm_eval:nosuchtask", "no task 'nosuchtask'"),
        ({"crosstask_accuracy": tasks | {"dev": "pocket:tasks/none"}}, "pocket:tasks/none"),
        ({"crosstask_accuracy": tasks | {"sources": "nosuch"}}, "nosuch"),
        (
            {"crosstask_accuracy": tasks | {"test": "pocket:tasks/add"}},
            "dev and test share .* the first: pocket:tasks/add, row",
        ),
    ):
        study = write_study(tmp_path / "s.yaml", case | {"measure": [measure]})
        with pytest.raises(HoldfastError, match=message):
            run(StudyConfig(study=str(study), output=str(tmp_path / "out")))
        assert not (tmp_path / "out").exists()


def test_planning_again_needs_no_torch(case: dict[str, Any], tmp_path: Path) -> None:
    planned(case, tmp_path)
    code = (
        "import sys, json; from pathlib import Path;"
        "from holdfast.study.planning import make_plan; from holdfast.study.spec import make_spec;"
        f"made = make_plan(make_spec(json.loads({json.dumps(json.dumps(case))})), [Path({str(tmp_path)!r})]);"
        "print(len(made.trials), 'torch' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["6", "False"]


def test_the_built_in_study_and_the_examples_are_valid() -> None:
    assert load_spec("pocket").metric == "exact_match"
    for file in sorted((Path(__file__).parents[2] / "examples").rglob("*.yaml")):
        if "\nvary:" in file.read_text(encoding="utf-8"):
            assert load_spec(str(file)).models


def test_a_second_stage_is_read(case: dict[str, Any]) -> None:
    spec = make_spec(case | {"then": {"align": {"data": "pocket:preferences", "limit": 8}}})
    assert spec.then == {"align": {"data": "pocket:preferences", "limit": 8}}
    with pytest.raises(HoldfastError, match="did you mean 'data'"):
        make_spec(case | {"then": {"align": {"dta": "pocket:preferences"}}})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"data": "./nope.jsonl"}, "no such file"),
        ({"loss": "nope"}, "--loss nope"),
        ({"training": {"foo": 1}}, "unexpected keyword argument 'foo'"),
    ],
)
def test_a_second_stage_is_tried_before_anything_is_trained(
    case: dict[str, Any], tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    pytest.importorskip("trl")
    with pytest.raises(HoldfastError, match=rf"then\.align: .*{message}"):
        run_study(case | {"then": {"align": {"data": "pocket:preferences", **options}}}, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_second_stage_is_tried_with_the_template_of_the_first(case: dict[str, Any], tmp_path: Path) -> None:
    """Pairs that are conversations do not fit the template that the models will have been trained with."""
    pytest.importorskip("trl")
    chat = [
        {"role": "user", "content": "Count."},
        {"role": "assistant", "content": "1"},
        {"role": "user", "content": "Go on."},
    ]
    answers = {name: [{"role": "assistant", "content": text}] for name, text in (("chosen", "2"), ("rejected", "3"))}
    pairs = str(write_jsonl(tmp_path / "pairs.jsonl", [{"prompt": chat, **answers}]))
    plain = {
        name: str(
            write_jsonl(
                tmp_path / f"{name}.jsonl", [{"prompt": f"Count {i}{name}.", "response": "1 2"} for i in range(4)]
            )
        )
        for name in ("train", "dev", "test")
    }
    content = case | {
        "data": plain,
        "tune": case["tune"] | {"template": "alpaca"},
        "then": {"align": {"data": pairs, "eval_share": 0.0}},
    }
    with pytest.raises(HoldfastError, match=r"then\.align: .*alpaca"):
        run_study(content, tmp_path / "out")
