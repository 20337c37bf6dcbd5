"""``import holdfast``: its names, what they cost to import, and what they give; every example that its docstrings show
is run here. (Those of README and docs: test_docs.py.)
"""

from __future__ import annotations

import builtins
import contextlib
import doctest
import importlib
import inspect
import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch

import call_paths
import holdfast
from golden_case import INPUTS, RUNS
from holdfast import door, results
from holdfast.config import BenchConfig, SensitivityConfig, TuneConfig
from holdfast.errors import HoldfastError, NotComparableError
from study_case import HerePool

HOME = Path(__file__).parents[1]
VERBS = (
    "train", "align_preferences", "measure_sensitivity", "cross_task", "pseudo_label", "run_study", "best_setting",
    "run_bench", "write_report", "compare_runs", "audit_data",
)  # fmt: skip
OTHERS = ("psi", "weighted_nll", "weighted_linear_cross_entropy", "load_model", "Estimate", "HoldfastError")
WINGS = ("tune", "align", "sensitivity", "crosstask", "audit", "bench", "study", "report")
STUDY = f"""
model: pocket
data: {{train: {INPUTS}/chat.jsonl, dev: {INPUTS}/dev.jsonl, test: {INPUTS}/test.jsonl}}
vary: {{weights: [[0, 1], [0.2, 0.8]]}}
seeds: 1
tune: {{max_steps: 2, batch_size: 8}}
items: 4
"""
FOLDERS = {
    "train": "runs/first", "align_preferences": "runs/aligned", "measure_sensitivity": "runs/posix",
    "cross_task": "runs/cross-task", "pseudo_label": "runs/labels", "run_study": "studies/mine",
    "run_bench": "runs/bench",
}  # fmt: skip
"""Verb -> the run directory of its example."""
NEEDS = {"align_preferences": "trl", "align.align": "trl", "WITSFTTrainer": "trl", "run_bench": "lm_eval"} | {
    f"bench.{name}": "lm_eval" for name in ("run", "compare", "check_tasks", "harness_scores")
}
"""Example -> the package of an extra without which it cannot run."""
AFTER = {
    "align_preferences": "train", "write_report": "train", "compare_runs": "measure_sensitivity", "tune.weigh": "train",
    "measure_sensitivity": "train", "align.align": "train", "sensitivity.compare": "compare_runs",
    "sensitivity.check": "measure_sensitivity", "bench.compare": "run_bench", "report.report": "train",
}  # fmt: skip
"""Example -> the one whose run directory it reads."""


def named(place: str) -> Any:
    """A name at the door, or ``wing.name``, or a method of the model."""
    if place.startswith("Model."):
        return getattr(door.Model, place.partition(".")[2])
    wing, _, name = place.rpartition(".")
    return getattr(importlib.import_module(f"holdfast.{wing}" if wing else "holdfast"), name)


def public_names() -> list[str]:
    """Every name with an example: those at the door, the model's methods, the functions of the wings."""
    places = [*holdfast.__all__, "Model.generate", "Model.score"]
    for wing in WINGS:
        room = importlib.import_module(f"holdfast.{wing}")
        places += [f"{wing}.{name}" for name in room.__all__ if not name.endswith("Config")]
    return places


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], dict[str, Any]]]:
    """Runs the example of a name, once, in a folder that all examples share; gives the variables that it leaves."""
    folder = tmp_path_factory.mktemp("workshop")
    shutil.copytree(INPUTS / "bench", folder / "tasks")
    task = (folder / "tasks" / "sums.yaml").read_text(encoding="utf-8")
    (folder / "tasks" / "sums.yaml").write_text(task.replace("inputs/bench", "tasks"), encoding="utf-8")
    (folder / "study.yaml").write_text(STUDY, encoding="utf-8")
    left: dict[str, dict[str, Any]] = {}

    def run(place: str) -> dict[str, Any]:
        if place in NEEDS:
            pytest.importorskip(NEEDS[place])
        if place in AFTER:
            run(AFTER[place])
        if place not in left:
            left[place] = run_example(inspect.getdoc(named(place)) or "", place)
            if place in FOLDERS:
                left[place]["written"] = json.loads(Path(FOLDERS[place], "summary.json").read_text(encoding="utf-8"))
        return left[place]

    with contextlib.chdir(folder), mock.patch("holdfast.study.pipeline.open_pool", lambda _, path: HerePool(path)):
        yield run


def run_example(text: str, place: str, variables: dict[str, Any] | None = None) -> dict[str, Any]:
    """Run the ``>>>`` lines of a text; gives the variables that they leave."""
    example = doctest.DocTestParser().get_doctest(text, {} if variables is None else variables, place, None, 0)
    assert example.examples, f"{place} has no example"
    said = io.StringIO()
    runner = doctest.DocTestRunner(verbose=False)
    runner.run(example, out=said.write, clear_globs=False)
    vars(builtins).pop("_", None)  # a prompt leaves its last value there, and tyro stumbles over some
    assert not runner.failures, said.getvalue()
    return example.globs


# names


def test_the_names_at_the_door_are_these() -> None:
    assert set(holdfast.__all__) == {*VERBS, *OTHERS, "AuditCallback", "WITSFTTrainer"}
    assert len(holdfast.__all__) <= 20
    assert {*holdfast.__all__, "tune", "__version__"} <= set(dir(holdfast))
    assert not {"importlib", "TYPE_CHECKING", "Any"} & set(dir(holdfast))
    with mock.patch("importlib.util.find_spec", return_value=None):  # so that help(holdfast) does not ask for it
        assert "WITSFTTrainer" not in dir(holdfast)
    with pytest.raises(AttributeError, match="has no attribute 'tuna'"):
        holdfast.tuna  # noqa: B018
    with pytest.raises(ImportError, match="tuna"):
        from holdfast import tuna  # noqa: F401


EVERY_SUBMODULE = """
import contextlib, importlib, io, pkgutil, sys
import holdfast
scripts = {"holdfast.bench.alpaca_driver"}  # runs in another environment
for module in pkgutil.walk_packages(holdfast.__path__, "holdfast."):
    if module.name not in scripts:
        try:
            importlib.import_module(module.name)
        except (ImportError, holdfast.HoldfastError) as error:  # an extra that is not installed
            print(module.name, error, file=sys.stderr)
import numpy, torch
assert holdfast.psi(numpy.array([[-2.0, -7.0], [-4.0, -3.0]]), numpy.array([2, 4])) == 1.0
total, count, _ = holdfast.weighted_nll(torch.zeros(1, 2, 8), torch.tensor([[0, 1]]), torch.ones(1, 2))
assert abs(total.item() - 2.0794) < 1e-3
hidden, head, one = torch.zeros(1, 4), torch.zeros(8, 4), torch.ones(1)
loss, _ = holdfast.weighted_linear_cross_entropy(hidden, head, torch.tensor([1]), one, divisor=1)
assert abs(loss.item() - 2.0794) < 1e-3
assert holdfast.Estimate(0.5).mean == 0.5
with contextlib.suppress(holdfast.HoldfastError):
    assert issubclass(holdfast.WITSFTTrainer, object)
for wing in ("tune", "align", "sensitivity", "crosstask", "audit", "bench", "study", "report"):
    room = importlib.import_module(f"holdfast.{wing}")
    shadowed = [name for name in room.__all__ if not callable(getattr(room, name))]
    assert not shadowed, f"submodules of {wing} stand where its functions should: {shadowed}"
for name in sys.argv[1:]:
    for call in (lambda verb: verb("no/such/model"), lambda verb: verb(no_such_keyword=1)):
        try:
            call(getattr(holdfast, name))
        except holdfast.HoldfastError as error:
            continue
        raise SystemExit(f"{name} is not the verb")
try:
    holdfast.load_model("./no/such/model")
except holdfast.HoldfastError:
    print("all are what they are called")
"""


def test_no_name_is_shadowed_by_a_submodule() -> None:
    run = subprocess.run(
        [sys.executable, "-c", EVERY_SUBMODULE, *VERBS], capture_output=True, text=True, check=False, env=os.environ
    )
    assert run.stdout.strip() == "all are what they are called", run.stderr


def test_nothing_heavy_is_imported_before_it_is_used() -> None:
    code = (
        "import sys, holdfast; dir(holdfast); from holdfast import Estimate, HoldfastError, train, compare_runs\n"
        "try: train(model='pocket')\n"
        "except HoldfastError: print(sorted({'torch', 'transformers', 'numpy', 'scipy', 'tyro'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_no_signature_at_the_door_has_an_untyped_dict() -> None:
    places = [getattr(door, name) for name in door.__all__] + [door.Model.generate, door.Model.score]
    classes = [each for _, each in inspect.getmembers(results, inspect.isclass) if each.__module__ == results.__name__]
    for each in [*places, *classes]:
        hints = inspect.get_annotations(each).values()
        assert not [hint for hint in hints if "dict[str, Any]" in str(hint) or "Mapping[str, Any]" in str(hint)], each


# examples and results


@pytest.mark.parametrize("place", public_names())
def test_every_public_name_has_an_example_that_runs(place: str, workshop: Callable[[str], dict[str, Any]]) -> None:
    workshop(place)


@pytest.mark.parametrize("verb", VERBS)
def test_a_result_is_the_summary_of_its_run(verb: str, workshop: Callable[[str], dict[str, Any]]) -> None:
    variables = workshop(verb)
    result = variables["table" if verb == "best_setting" else "result"]
    assert result.to_summary() == variables.get("written", result.to_summary())
    assert ("written" in variables) == (verb in FOLDERS)
    every_key_is_read(type(result), result.to_summary())
    with pytest.raises(AttributeError):  # frozen
        result.command = "other"


def every_key_is_read(kind: type[results.Result], summary: Any) -> results.Result:
    """A run must not write a key that its result does not have."""
    unread: list[str] = []
    result = results.from_summary(kind, summary, unread)
    assert not unread, f"{kind.__name__} has no attribute for {unread}"
    assert result.to_summary() == summary
    return result


GOLDEN: dict[str, type[results.Result]] = {
    "tune": results.TuneResult, "tune-lora": results.TuneResult, "tune-old": results.TuneResult,
    "align": results.AlignResult, "sensitivity": results.SensitivityResult, "label": results.LabelResult,
    "sensitivity-tuned": results.SensitivityResult, "crosstask": results.CrossTaskResult, "demo": results.StudyResult,
    "study": results.StudyResult, "best": results.BestSetting, "best-table": results.TableFindings,
    "bench": results.BenchResult, "bench-tuned": results.BenchResult, "bench-compare": results.Comparison,
    "compare": results.Comparison,
}  # fmt: skip


@pytest.mark.parametrize("name", GOLDEN)
def test_runs_of_an_older_version_are_read_too(name: str) -> None:
    files = ("summary.json", "best.json", "comparison.json")
    file = next(RUNS / name / file for file in files if (RUNS / name / file).is_file())
    summary = {"command": "sensitivity compare"} | json.loads(file.read_text(encoding="utf-8"))
    every_key_is_read(GOLDEN[name], summary)


def test_intervals_are_estimates() -> None:
    def golden(name: str) -> Any:
        return results.from_summary(GOLDEN[name], json.loads((RUNS / name / "summary.json").read_text("utf-8")))

    posix = golden("sensitivity").posix["all"]
    assert (round(posix.mean, 4), posix.n) == (0.0937, 3)
    assert posix.low <= posix.mean <= posix.high
    gain, after = golden("align").gain, golden("align").after
    assert (gain.mean, gain.p) == (0.0, 1.0)
    assert after.logps_chosen == pytest.approx(-31.6324, abs=1e-4)
    condition = golden("crosstask").targets["sentiment"].conditions[4]
    assert (condition.against_zero_shot.mean, condition.accuracy.n) == (-50.0, 4)
    assert golden("bench").benchmarks["my_sums"].high == pytest.approx(0.39033, abs=1e-4)
    assert golden("bench-compare").changes["my_sums"].p == 1.0
    assert golden("study").selection.settings[1].difference.mean == pytest.approx(0.0717, abs=1e-4)
    assert golden("study").selection.settings[0].test.sd == pytest.approx(0.00587, abs=1e-4)


def test_a_summary_that_lacks_what_every_run_has_is_refused() -> None:
    with pytest.raises(HoldfastError, match="the summary has no 'model', as a TuneResult has"):
        results.from_summary(results.TuneResult, {"command": "tune"})
    unread: list[str] = []
    summary = json.loads((RUNS / "tune" / "summary.json").read_text(encoding="utf-8"))
    summary["after"] |= {"new": 1}
    results.from_summary(results.TuneResult, summary | {"newer": []}, unread)
    assert sorted(unread) == ["after.new", "newer"]


def test_the_best_setting_of_a_study_is_what_train_takes(workshop: Callable[[str], dict[str, Any]]) -> None:
    study = workshop("run_study")["result"]
    best = holdfast.best_setting(source="studies/mine")
    assert isinstance(best, results.BestSetting)
    every_key_is_read(results.BestSetting, best.to_summary())
    assert best.chosen == study.selection.chosen
    config = door._config(TuneConfig, None, best.tune)
    assert f"({config.prompt_weight:g}, {config.response_weight:g})" == best.chosen


def test_two_bench_runs_are_compared_item_by_item(workshop: Callable[[str], dict[str, Any]]) -> None:
    workshop("run_bench")
    result = holdfast.compare_runs(run_a="runs/bench", run_b=Path("runs/bench"), bootstrap=50)
    every_key_is_read(results.Comparison, result.to_summary())
    assert result.benchmarks is not None
    change = result.changes["my_sums"]
    assert (change.mean, change.n, result.benchmarks["my_sums"].metric, result.by_kind) == (0.0, 6, "acc,none", None)


# keywords, configs, errors


def test_keywords_override_a_config() -> None:
    config = TuneConfig(model="pocket", data="rows.jsonl", output="runs/a", seed=3)
    other = door._config(TuneConfig, config, {"output": Path("runs/b"), "learning_rate": "2e-5"})
    assert (other.output, other.learning_rate, other.seed, config.output) == ("runs/b", 2e-5, 3, "runs/a")
    assert door._config(TuneConfig, config, {}) == config


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: holdfast.train(model="pocket", data="x.jsonl", output="o", promt_weight=1),
            "unknown key 'promt_weight'",
        ),
        (lambda: holdfast.train(model="pocket"), "data, output must be stated"),
        (lambda: holdfast.train(model="pocket", data="x.jsonl", output="o", prompt_weight="much"), "'much'"),
        (lambda: holdfast.train(model="pocket", data="x.jsonl", output="o", batch_size=0), "--batch-size is 0"),
        (lambda: holdfast.train(model="pocket", data="no/such.jsonl", output="o"), "no/such.jsonl"),
        (lambda: holdfast.train(model="pocket", data="pocket:instructions", output="o", dry_run=True), "dry_run"),
        (lambda: holdfast.train(BenchConfig(model="pocket", output="o")), "is a BenchConfig, not a TuneConfig"),
        (lambda: holdfast.measure_sensitivity(SensitivityConfig(model="pocket", output="o")), "--sets"),
        (lambda: holdfast.best_setting(source="no/such"), "no such file"),
        (lambda: holdfast.write_report(directories=["no/such"], output="p.html"), "no/such"),
        (lambda: holdfast.compare_runs(run_a="no/a", run_b="no/b"), "no/a"),
        (lambda: holdfast.load_model("./no/such"), "no such model folder"),
        (lambda: holdfast.load_model("pocket", template="chatt"), "unknown"),
    ],
)
def test_bad_input_is_a_holdfast_error_and_leaves_nothing(
    call: Callable[[], object], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(HoldfastError, match=re.escape(message)):
        call()
    assert not list(tmp_path.iterdir())


def test_verbs_print_nothing_on_stdout(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    page = holdfast.write_report(directories=[str(RUNS / "tune")], output=tmp_path / "report.html")
    runs = {"run_a": RUNS / "sensitivity", "run_b": RUNS / "sensitivity-tuned"}
    assert holdfast.compare_runs(**runs, bootstrap=100).changes["all"].n == 3  # type: ignore[arg-type]
    holdfast.best_setting(source=INPUTS / "results.csv", metric="accuracy")
    said = capsys.readouterr()
    assert said.out == ""
    assert page.path in said.err


def test_what_cannot_be_compared_says_so(tmp_path: Path) -> None:
    other = json.loads((RUNS / "sensitivity" / "summary.json").read_text(encoding="utf-8")) | {"max_new_tokens": 5}
    shutil.copytree(RUNS / "sensitivity", tmp_path / "other", ignore=shutil.ignore_patterns("cache", "matrices"))
    (tmp_path / "other" / "summary.json").write_text(json.dumps(other), encoding="utf-8")
    with pytest.raises(NotComparableError, match="length of responses"):
        holdfast.compare_runs(run_a=RUNS / "sensitivity", run_b=tmp_path / "other")


# the model


def test_scores_of_a_model_are_those_of_its_logits() -> None:
    model = holdfast.load_model("pocket", template="none", device="cpu")
    (score,) = model.score(["What is the opposite of hot?"], [" cold"])
    ids = model.tokenizer("What is the opposite of hot? cold", add_special_tokens=False, return_tensors="pt").input_ids
    start = len(model.tokenizer("What is the opposite of hot?", add_special_tokens=False).input_ids)
    with torch.no_grad():
        logp = model.network(ids).logits.double().log_softmax(-1)[0]
    expected = sum(logp[t - 1, ids[0, t]].item() for t in range(start, ids.shape[1]))
    assert score == pytest.approx(expected, abs=1e-4)
    assert np.isfinite(score)
    for prompts, answers, message in (
        (["a"], [], "1 prompt and 0 answers"),
        (["a"], [""], "adds no token"),
    ):
        with pytest.raises(HoldfastError, match=message):
            model.score(prompts, answers)
    assert model.generate([]) == model.score([], []) == []


# types


USER = '''
"""What a user writes, as strictly typed as it can be."""

from collections.abc import Mapping
from pathlib import Path

import holdfast
from holdfast.config import TuneConfig


def tuned(model: str, rows: Path, output: Path) -> float | None:
    config = TuneConfig(model=model, data=str(rows), output=str(output), prompt_weight=0.2)
    result = holdfast.train(config, seed=1)
    return result.after.response_nll if result.after else None


def steadier(old: str, new: str) -> Mapping[str, holdfast.Estimate]:
    return holdfast.compare_runs(run_a=old, run_b=new).changes


def answer(run: str, question: str) -> tuple[str, float]:
    model = holdfast.load_model(run)
    (text,) = model.generate([question], max_new_tokens=8)
    return text, model.score([question], [text])[0]


def best(study: str) -> str | None:
    try:
        selection = holdfast.run_study(study=study).selection
    except holdfast.HoldfastError as error:
        return error.hint
    chosen: str | None = selection.chosen
    worst: float = min(setting.dev.mean for setting in selection.settings if setting.dev)
    return f"{chosen} {worst}"
'''


@pytest.mark.full
def test_a_strictly_typed_script_is_accepted(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    (tmp_path / "user.py").write_text(USER, encoding="utf-8")
    wrong = USER.replace("tuple[str, float]:", "tuple[str, str]:").replace("-> float | None:", "-> str:")
    (tmp_path / "wrong.py").write_text(wrong, encoding="utf-8")
    environment = os.environ | {"MYPYPATH": str(Path(holdfast.__file__).parents[1])}
    assert (Path(holdfast.__file__).parent / "py.typed").is_file()
    # silent, as of an installed package: what is said is said of the script
    command = [sys.executable, "-m", "mypy", "--strict", "--follow-imports", "silent"]
    command += ["--config-file", str(HOME / "pyproject.toml")]

    def check(file: str) -> str:
        call = [*command, "--cache-dir", str(tmp_path / "cache"), file]
        return subprocess.run(call, capture_output=True, text=True, cwd=tmp_path, env=environment).stdout

    assert "Success" in check("user.py")
    assert len(re.findall(r"^wrong\.py:\d+: error", check("wrong.py"), re.M)) >= 2  # the results are typed


@pytest.mark.full
def test_the_study_example_runs_in_processes_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("study.yaml").write_text(STUDY, encoding="utf-8")
    result = run_example(inspect.getdoc(holdfast.run_study) or "", "run_study")["result"]
    every_key_is_read(results.StudyResult, result.to_summary())


# from the command line to a formula


@pytest.mark.parametrize("title", call_paths.PATHS)
def test_a_stranger_finds_the_formula(title: str) -> None:
    path = call_paths.call_path(*call_paths.PATHS[title])
    functions, lines, files = call_paths.figures(path)
    assert path[0].name == "main"
    assert path[-1].name in ("weighted_nll", "weighted_linear_cross_entropy", "psi", "label_scores")
    # the fused loss goes through the model's own forward and that of its head, which may be sharded
    most = (8, 250, 6) if title == "WIT loss, fused" else (6, 250, 5)
    assert functions <= most[0], path
    assert lines <= most[1], path
    assert files <= most[2], path
