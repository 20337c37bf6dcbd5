"""The life of a run: who may work in a directory, until when, and what it leaves where nothing came of it."""

from __future__ import annotations

import dataclasses
import errno
import fcntl
import importlib.util
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from golden_case import RUNS, call, prepare
from holdfast import runs
from holdfast.cli import COMMANDS as COMMAND_TABLE
from holdfast.config import AnalyseConfig, TuneConfig
from holdfast.config.legacy import LEGACY, legacy_values, renamed
from holdfast.errors import HoldfastError
from holdfast.study.planning import make_plan
from holdfast.tune import arguments
from study_case import make_case, make_spec, planned

LINES: dict[str, str] = json.loads((RUNS / "commands.json").read_text(encoding="utf-8"))
NEEDS = {"align": "trl", "bench": "lm_eval"}
COMMANDS = (
    "tune",
    "align",
    "weigh",
    "sensitivity",
    "variants",
    "crosstask",
    "label",
    "analyse",
    "bench",
    "bench-compare",
    "study",
)


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the recorded inputs and run directories, and the current directory there."""
    monkeypatch.chdir(tmp_path)
    prepare(tmp_path, runs=True)
    return tmp_path


def is_free(path: Path) -> bool:
    """Whether another process could lock a directory: a lock is the file's, so another opening of it counts as another
    process.
    """
    with (path / ".lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def need(name: str) -> None:
    if name in NEEDS and importlib.util.find_spec(NEEDS[name]) is None:
        pytest.skip(f"{NEEDS[name]} is not installed")


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_that_fails_lets_others_in(name: str, elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need(name)
    held = []

    def fail(run: runs.RunDir, summary: Any) -> None:
        held.append(not is_free(run.path))
        raise HoldfastError("the disk has gone")

    monkeypatch.setattr(runs.RunDir, "finish", fail)
    again = "" if name == "study" else "--overwrite"  # a study that is there asks for no training
    answer = call(f"{LINES[name]} {again}")
    assert answer.exit_code == 2, answer.err
    assert "the disk has gone" in answer.err
    assert held == [True]
    assert is_free(Path("runs", name)), "the directory stays locked for as long as the process lives"


def test_align_that_is_refused_leaves_neither_folder_nor_lock(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need("align")
    from holdfast.align import pipeline

    def refuse(*_: Any) -> None:
        raise HoldfastError("TRL refuses this")

    output = Path("runs/refused")
    line = LINES["align"].replace("runs/align", str(output))
    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "_trainer", refuse)
        assert call(line).exit_code == 2
    assert not output.exists()
    output.mkdir()
    with (output / ".lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        answer = call(line)
    assert answer.exit_code == 2
    assert "another process is at work" in answer.err
    assert not (output / "config.json").exists()


def config(path: Path, **changes: Any) -> AnalyseConfig:
    return AnalyseConfig(run="elsewhere", output=str(path), **changes)


def test_the_same_process_enters_again_and_the_last_to_leave_opens_the_door(tmp_path: Path) -> None:
    with runs.command(config(tmp_path / "run"), "crosstask analyse") as outer:
        outer.open({})
        with runs.command(config(tmp_path / "run"), "crosstask analyse") as inner:
            inner.open({})
        assert not is_free(outer.path)
    assert is_free(outer.path)


def test_a_directory_made_again_is_locked_again(tmp_path: Path) -> None:
    """What is held of a directory that has gone says nothing of the one that has come in its place."""
    with runs.command(config(tmp_path / "run"), "crosstask analyse") as first:
        first.open({})
        shutil.rmtree(first.path)
        first.path.mkdir()
        with (first.path / ".lock").open("w") as other:
            fcntl.flock(other, fcntl.LOCK_EX)
            with (
                runs.command(config(first.path), "crosstask analyse") as second,
                pytest.raises(HoldfastError, match="another process"),
            ):
                second.open({})
        with runs.command(config(first.path), "crosstask analyse") as third:
            third.open({})
            assert not is_free(first.path)
    assert is_free(first.path)


def test_another_process_is_kept_out(tmp_path: Path) -> None:
    script = (
        "import sys; from holdfast import runs; from holdfast.config import AnalyseConfig\n"
        "with runs.command(AnalyseConfig(run='elsewhere', output=sys.argv[1]), 'crosstask analyse') as run: "
        "run.open({})"
    )
    other = [sys.executable, "-c", script, str(tmp_path / "run")]
    with runs.command(config(tmp_path / "run"), "crosstask analyse") as run:
        run.open({})
        ended = subprocess.run(other, capture_output=True, text=True)
    assert "another process is at work" in ended.stderr
    assert subprocess.run(other, capture_output=True).returncode == 0


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(number, "no locks here")

    monkeypatch.setattr(fcntl, "flock", refuse)
    for _ in range(2):  # nothing is left behind that the next one would take for a lock
        with runs.command(config(tmp_path / "run"), "crosstask analyse") as run:
            run.open({})
            run.finish({})
        assert "has no locks" in capsys.readouterr().err


def fail_while_held(path: Path, error: BaseException) -> None:
    with runs.command(config(path), "crosstask analyse") as run:
        run.hold()
        (path / "data").mkdir()
        raise error


@pytest.mark.parametrize("error", [HoldfastError("bad"), KeyboardInterrupt(), ZeroDivisionError()])
def test_a_directory_that_nothing_came_of_goes_again(error: BaseException, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    for path, stays in ((tmp_path / "new", False), (tmp_path / "mine", True)):
        with pytest.raises(type(error)):
            fail_while_held(path, error)
        assert path.exists() == stays


def test_overwrite_deletes_when_the_run_is_opened_and_once(tmp_path: Path) -> None:
    with runs.command(config(tmp_path / "run"), "crosstask analyse") as run:
        run.open({})
        run.append({"a": 1})
        run.finish({"a": 1})
    with runs.command(config(tmp_path / "run", overwrite=True), "crosstask analyse") as run:
        assert run.finished() is None
        assert run.rows.exists()
        run.hold()
        run.clear()
        (run.path / "made").mkdir()
        run.open({})
        assert not run.rows.exists()
        assert (run.path / "made").exists()


def test_a_complete_run_is_known_by_what_it_was_made_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with runs.command(config(tmp_path / "run"), "crosstask analyse") as run:
        run.open({"data_digest": "a"})
        run.finish({"resolved": {"weights": 1}})
    capsys.readouterr()
    with runs.command(config(tmp_path / "run"), "crosstask analyse") as run:
        assert run.finished(resolved={"weights": 2}) is None
        assert capsys.readouterr().err == ""
        assert run.finished(resolved={"weights": 1})
        assert "already complete" in capsys.readouterr().err
        run.check_data(lambda: "a")
        with pytest.raises(HoldfastError, match="the data has changed"):
            run.check_data(lambda: "b")
        run.open({})
        assert not (run.path / "summary.json").exists(), "it is not complete while it is done anew"


@pytest.mark.parametrize("damage", [lambda c: c | {"config": [1]}, lambda c: c | {"resolved": None}])
def test_a_config_with_other_content_is_no_fault_of_ours(damage: Callable[[Any], Any], tmp_path: Path) -> None:
    with runs.command(config(tmp_path / "run"), "crosstask analyse") as run:
        run.open({"data_digest": "a"})
    file = tmp_path / "run" / "config.json"
    file.write_text(json.dumps(damage(json.loads(file.read_text()))))
    with pytest.raises(HoldfastError), runs.command(config(tmp_path / "run"), "crosstask analyse") as run:
        run.check_data(lambda: "a")


@pytest.mark.parametrize("left", ["config.json.partial", "fault.txt.partial"])
def test_a_kill_while_the_first_file_was_written_leaves_a_directory_that_can_be_used(left: str, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lock").touch()
    (tmp_path / "run" / left).write_text('{"comm')
    with runs.command(config(tmp_path / "run"), "crosstask analyse") as run:
        run.open({})
    assert runs.read_json(tmp_path / "run" / "config.json")["command"] == "crosstask analyse"


@pytest.mark.parametrize("content", ["null", "[1]", "3", '{"a": '])
def test_a_summary_that_is_none_is_no_fault_of_ours(content: str, tmp_path: Path) -> None:
    with runs.command(config(tmp_path / "run"), "crosstask analyse") as run:
        run.open({})
        run.finish({"a": 1})
    (tmp_path / "run" / "summary.json").write_text(content)
    with (
        pytest.raises(HoldfastError, match=r"summary\.json") as error,
        runs.command(config(tmp_path / "run"), "crosstask analyse"),
    ):
        pass
    assert "remove it" in str(error.value.hint)


def test_a_complete_run_that_was_moved_names_its_files_where_they_are(tmp_path: Path) -> None:
    with runs.command(config(tmp_path / "old"), "crosstask analyse") as run:
        run.open({})
        run.finish({"model_path": str(run.model), "labels_path": str(run.path / "labels.jsonl"), "steps": 3})
    shutil.move(tmp_path / "old", tmp_path / "new")
    with runs.command(config(tmp_path / "new"), "crosstask analyse") as run:
        files = {"model_path": str(tmp_path / "new" / "model"), "labels_path": str(tmp_path / "new" / "labels.jsonl")}
        assert run.finished() == files | {"steps": 3}


def test_every_option_that_the_record_lacks_has_the_value_of_its_version() -> None:
    """Whoever adds an option says in ``config/legacy.py`` what versions did without it."""
    for file in RUNS.glob("*/config.json"):
        record = json.loads(file.read_text(encoding="utf-8"))
        config_class, _ = COMMAND_TABLE[record["command"]]
        names = {field.name for field in dataclasses.fields(config_class)}
        assert names - record["config"].keys() <= legacy_values(config_class).keys(), file
        assert not record["config"].keys() - names - renamed(config_class).keys(), file


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return make_case(tmp_path_factory.mktemp("case"))


@dataclasses.dataclass(kw_only=True)
class NewerConfig(TuneConfig):
    """A config class that has got an option."""

    sparkle: str = "much"
    twinkle: str = "none"


def test_an_option_at_its_legacy_value_is_no_part_of_an_address(
    case: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = [trial.id for trial in planned(case, tmp_path / "data").trials]
    monkeypatch.setitem(LEGACY, NewerConfig, {"sparkle": "none", "twinkle": "none"})
    monkeypatch.setattr("holdfast.study.planning.TuneConfig", NewerConfig)
    monkeypatch.setitem(arguments._LOWER_IS_BETTER, NewerConfig, arguments._LOWER_IS_BETTER[TuneConfig])
    spec = make_spec(case)

    def ids(**options: Any) -> list[str]:
        changed = dataclasses.replace(spec, tune=spec.tune | options)
        return [trial.id for trial in make_plan(changed, [tmp_path / "data"]).trials]

    assert ids(sparkle="none") == before
    assert not set(ids()) & set(before), "the new option is at work"
    assert not set(ids(sparkle="none", twinkle="some")) & set(before)


def test_a_run_that_another_process_has_left_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    with runs.command(config(tmp_path / "run"), "crosstask analyse") as late:  # reads its data, loads its model ...
        with runs.command(config(tmp_path / "run", seed=5), "crosstask analyse") as early:
            early.open({})
            early.finish({"seed": 5})
        with pytest.raises(HoldfastError, match=r"holds another run \(seed differ\)"):
            late.open({})
    assert json.loads((tmp_path / "run" / "summary.json").read_text()) == {"seed": 5}
