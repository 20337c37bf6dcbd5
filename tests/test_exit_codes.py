"""Exit codes: a verdict (1) is only ever a judgement; bad input is 2 with a line; what nobody foresaw is 70 with a line
and a file.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from holdfast import cli
from holdfast.cli import main
from holdfast.config import SensitivityConfig
from holdfast.errors import ExitCode, HoldfastError, NotComparableError
from holdfast.sensitivity import measure
from materials import write_jsonl

SETS = [
    ["Who has the hat?", "Name the person with the hat.", "Hat: whose is it?"],
    ["What is 2 plus 3?", "Add 2 and 3.", "2 + 3?"],
]
Change = Callable[[Any], Any]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    sets = write_jsonl(folder / "sets.jsonl", SETS)
    measure(
        SensitivityConfig(model="pocket", sets=str(sets), output=str(folder / "run"), max_new_tokens=4, bootstrap=20)
    )
    return folder / "run"


def text(name: str, change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def damage(run: Path) -> None:
        (run / name).write_bytes(change((run / name).read_bytes()))

    return damage


def value(name: str, change: Callable[[Any], Any]) -> Callable[[Path], None]:
    def damage(run: Path) -> None:
        found = json.loads((run / name).read_text())
        changed = change(found)
        (run / name).write_text(json.dumps(found if changed is None else changed))

    return damage


def row(change: Callable[[Any], Any], number: int = 0) -> Callable[[Path], None]:
    def damage(run: Path) -> None:
        rows = [json.loads(line) for line in (run / "rows.jsonl").open()]
        changed = change(rows[number])
        rows[number] = rows[number] if changed is None else changed
        write_jsonl(run / "rows.jsonl", rows)

    return damage


def without(*path: str) -> Change:
    def change(found: Any) -> None:
        for key in path[:-1]:
            found = found[key]
        del found[path[-1]]

    return change


def with_(item: Any, *path: str) -> Change:
    def change(found: Any) -> None:
        for key in path[:-1]:
            found = found[key]
        found[path[-1]] = item

    return change


DAMAGE: dict[str, Callable[[Path], Any]] = {
    "rows cut in a row": text("rows.jsonl", lambda data: data[: len(data) * 2 // 3]),
    "last bytes cut": text("rows.jsonl", lambda data: data[:-2]),
    "rows cut after a row": text("rows.jsonl", lambda data: data[: data.index(b"\n") + 1]),
    "no rows": text("rows.jsonl", lambda data: b""),
    "white rows": text("rows.jsonl", lambda data: b"\n\n"),
    "binary rows": text("rows.jsonl", lambda data: bytes(range(256)) * 40),
    "rows of NUL": text("rows.jsonl", lambda data: b"\0" * len(data)),
    "rows nested too deep": text("rows.jsonl", lambda data: b"[" * 200_000),
    "rows twice": text("rows.jsonl", lambda data: data + data),
    "a row twice": text("rows.jsonl", lambda data: data[: data.index(b"\n") + 1] * 2),
    "rows missing": lambda run: (run / "rows.jsonl").unlink(),
    "rows a folder": lambda run: ((run / "rows.jsonl").unlink(), (run / "rows.jsonl").mkdir()),
    "row a list": row(lambda _: [1]),
    "row null": row(lambda _: 0, 1),
    "no set_id": row(without("set_id")),
    "set_id a list": row(with_([1], "set_id")),
    "set of another run": row(with_("elsewhere", "set_id")),
    "no indices": row(without("indices")),
    "indices null": row(with_(None, "indices")),
    "no view": row(with_({}, "indices")),
    "view a number": row(with_(3, "indices", "all")),
    "no psi": row(without("indices", "all", "psi")),
    "psi null": row(with_(None, "indices", "all", "psi")),
    "psi text": row(with_("0.3", "indices", "all", "psi")),
    "psi true": row(with_(True, "indices", "all", "psi")),
    "psi NaN": row(with_(float("nan"), "indices", "all", "psi")),
    "psi infinite": row(with_(float("inf"), "indices", "all", "psi")),
    "psi of 400 digits": row(with_(10**400, "indices", "all", "psi")),
    "psi too large": lambda run: [row(with_(1.7e308, "indices", "all", "psi"), number)(run) for number in (0, 1)],
    "summary cut": text("summary.json", lambda data: data[:300]),
    "summary empty": text("summary.json", lambda data: b""),
    "summary binary": text("summary.json", lambda data: b"\x80\x81"),
    "summary nested too deep": text("summary.json", lambda data: b"[" * 200_000),
    "summary a list": value("summary.json", lambda _: [1]),
    "summary of nothing": value("summary.json", lambda _: {}),
    "posix null": value("summary.json", with_(None, "posix")),
    "posix empty": value("summary.json", with_({}, "posix")),
    "posix a list": value("summary.json", with_(["all"], "posix")),
    "resolved null": value("summary.json", with_(None, "resolved")),
    "length null": value("summary.json", with_(None, "max_new_tokens")),
    "config a list": value("config.json", lambda _: ["sensitivity run"]),
    "config of another command": value("config.json", with_("tune", "command")),
    "config cut": text("config.json", lambda data: data[:20]),
    "config a folder": lambda run: ((run / "config.json").unlink(), (run / "config.json").mkdir()),
} | {
    f"summary without {name}": value("summary.json", without(*name.split(".")))
    for name in ("posix", "sets", "max_new_tokens", "definition", "model", "shots", "resolved", "resolved.sets_digest")
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_run_is_bad_input(
    name: str, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(finished, tmp_path / "run")
    DAMAGE[name](tmp_path / "run")
    run, whole = str(tmp_path / "run"), str(finished)
    commands = [
        ["check", run, "--baseline", whole],
        ["check", whole, "--baseline", run],
        ["compare", run, whole],
        ["compare", whole, run],
    ]
    for command in (
        [*commands, ["check", run, "--baseline", run]]
        if name not in ("set of another run", "psi too large")
        else commands
    ):
        assert main(["sensitivity", *command]) == 2, command
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith("error: ")
        assert len([line for line in err.splitlines() if not line.startswith("  hint: ")]) == 1
        assert run in err


@pytest.mark.parametrize("path", ["", "x" * 300, "/dev/null", "/", "no/such"])
def test_paths_that_are_no_runs(path: str, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["sensitivity", "check", str(finished), f"--baseline={path}"]) == 2
    assert main(["sensitivity", "compare", f"--run-a={path}", f"--run-b={finished}"]) == 2
    assert main(["bench", "compare", f"--run-a={path}", f"--run-b={path}"]) == 2


def test_directories_of_other_commands(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        main(["sensitivity", "check", str(finished), "--baseline", str(finished), "--output", str(tmp_path / "check")])
        == 0
    )
    assert main(["sensitivity", "compare", str(finished), str(finished), "--output", str(tmp_path / "compare")]) == 0
    prompts = write_jsonl(tmp_path / "p.jsonl", [{"prompt": "Who has the hat?"}])
    arguments = ["--prompts", str(prompts), "--variants", "casing", "--output", str(tmp_path / "variants")]
    assert main(["sensitivity", "variants", *arguments]) == 0
    for name in ("check", "compare", "variants"):
        assert main(["sensitivity", "check", str(finished), "--baseline", str(tmp_path / name)]) == 2
        assert main(["bench", "compare", str(finished), str(tmp_path / name)]) == 2
    assert "not a sensitivity run" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["check", "compare"])
@pytest.mark.parametrize("output", ["file", "x" * 300])
def test_an_output_that_cannot_be_written(command: str, output: str, finished: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    runs = [str(finished), "--baseline", str(finished)] if command == "check" else [str(finished), str(finished)]
    assert main(["sensitivity", command, *runs, "--output", str(tmp_path / output)]) == 2
    assert (tmp_path / "file").read_text() == "mine"


def bench_run(folder: Path) -> Path:
    folder.mkdir()
    about = {"kind": "item", "task": "t", "benchmark": "t", "version": "1.0", "shots": 0}
    write_jsonl(
        folder / "rows.jsonl",
        [about | {"item": n, "hash": f"h{n}", "scores": {"acc,none": float(n % 2)}} for n in range(40)],
    )
    summary = {"command": "bench run", "benchmarks": {"t": {"metric": "acc,none"}}, "items": 40}
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder


BENCH_DAMAGE: dict[str, Callable[[Path], Any]] = (
    {
        name: DAMAGE[name]
        for name in (
            "rows cut after a row",
            "no rows",
            "white rows",
            "binary rows",
            "rows of NUL",
            "rows nested too deep",
            "rows twice",
            "rows missing",
            "rows a folder",
            "row a list",
            "row null",
            "summary empty",
            "summary binary",
            "summary nested too deep",
            "summary a list",
            "summary of nothing",
        )
    }
    | {
        "rows cut in a row": text("rows.jsonl", lambda data: data[:3000]),
        "summary cut": text("summary.json", lambda data: data[:40]),
        "benchmarks null": value("summary.json", with_(None, "benchmarks")),
        "benchmarks empty": value("summary.json", with_({}, "benchmarks")),
        "benchmark null": value("summary.json", with_(None, "benchmarks", "t")),
        "no metric": value("summary.json", without("benchmarks", "t", "metric")),
        "a benchmark without rows": value("summary.json", with_({"metric": "acc"}, "benchmarks", "u")),
        "item a list": row(with_([1], "item")),
        "version a list": row(with_([1], "version")),
        "scores a list": row(with_([1], "scores")),
        "score null": row(with_(None, "scores", "acc,none"), 3),
        "score text": row(with_("1.0", "scores", "acc,none"), 3),
        "score NaN": row(with_(float("nan"), "scores", "acc,none"), 3),
        "score a list of nulls": row(with_([None], "scores", "acc,none"), 3),
    }
    | {
        f"row without {name}": row(without(name))
        for name in ("task", "benchmark", "item", "hash", "version", "shots", "scores")
    }
)


@pytest.mark.parametrize("name", BENCH_DAMAGE)
def test_a_damaged_bench_run_is_bad_input(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole, run = bench_run(tmp_path / "whole"), bench_run(tmp_path / "run")
    assert main(["bench", "compare", str(whole), str(run)]) == 0
    BENCH_DAMAGE[name](run)
    capsys.readouterr()
    for pair in ((whole, run), (run, whole), (run, run)):
        assert main(["bench", "compare", *map(str, pair)]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith("error: ")
        assert len([line for line in err.splitlines() if not line.startswith("  hint: ")]) == 1


def broken(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr("holdfast.sensitivity.gate.check", fail)


@pytest.mark.parametrize("place", ["none", "missing", "empty", "run", "foreign"])
def test_what_nobody_foresaw(
    place: str, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-4f9-never-printed")
    broken(monkeypatch, KeyError("http://ann:hunter2@h/v1 sk-4f9-never-printed\nsecond line"))
    output = tmp_path / "out"
    if place == "run":
        shutil.copytree(finished, output)
    elif place in ("empty", "foreign"):
        output.mkdir()
    if place == "foreign":
        (output / "thesis.tex").write_text("mine")
    given = [] if place == "none" else ["--output", str(output)]
    assert main(["sensitivity", "check", str(finished), "--baseline", "http://ann:hunter2@h", *given]) == 70
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    assert "fault of Holdfast, not of yours (KeyError" in err
    file = Path(re.findall(r"\S+fault\.txt", err)[-1])
    assert (file.parent == output) == (place in ("run", "empty"))
    trace = file.read_text()
    assert "Traceback (most recent call last)" in trace
    assert "in fail" in trace
    assert "sensitivity check" in trace
    for found in (err, trace):
        assert "hunter2" not in found
        assert "sk-4f9" not in found
    if file.parent != output:
        file.unlink()


def test_the_file_of_a_fault_does_not_stop_the_next_attempt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sets = write_jsonl(tmp_path / "sets.jsonl", SETS)
    arguments = [
        "sensitivity",
        "run",
        "--model",
        "pocket",
        "--sets",
        str(sets),
        "--output",
        str(tmp_path / "run"),
        "--max-new-tokens",
        "4",
    ]
    (tmp_path / "run").mkdir()
    with monkeypatch.context() as patch:
        patch.setattr("holdfast.runs.Run.open", lambda *_: 1 / 0)
        assert main(arguments) == 70
    assert (tmp_path / "run" / "fault.txt").is_file()
    assert main(arguments) == 0
    assert not (tmp_path / "run" / "fault.txt").exists()


def test_the_traceback_on_demand(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    broken(monkeypatch, RuntimeError("out of luck"))
    monkeypatch.setenv("HOLDFAST_DEBUG", "1")
    monkeypatch.setenv("TMPDIR", "/no/such")
    monkeypatch.setattr("tempfile.tempdir", "/no/such")
    assert main(["sensitivity", "check", str(finished), "--baseline", str(finished)]) == 70
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert "no file could be written" in err


def test_interruptions_and_exits(
    finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["sensitivity", "check", str(finished), "--baseline", str(finished)]
    broken(monkeypatch, KeyboardInterrupt())
    assert main(arguments) == 130
    broken(monkeypatch, SystemExit(5))
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 5
    broken(monkeypatch, RecursionError("deep"))
    assert main(arguments) == 70
    broken(monkeypatch, OSError(28, "No space left on device"))
    assert main(arguments) == 2
    assert "error: No space left on device" in capsys.readouterr().err


SLOW = (
    "import sys, time; from holdfast import cli; from holdfast.sensitivity import gate; "
    "gate.check = lambda _: (print('at work', flush=True), time.sleep(60)); "
    "sys.argv = ['holdfast', 'sensitivity', 'check', 'a', '--baseline', 'b']; sys.exit(cli.main())"
)


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signals(sent: signal.Signals, code: int) -> None:
    process = subprocess.Popen([sys.executable, "-c", SLOW], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "at work\n"
    started = time.monotonic()
    process.send_signal(sent)
    _, err = process.communicate(timeout=30)
    assert process.returncode == code
    assert len(err.splitlines()) == 1
    assert time.monotonic() - started < 20


def test_a_child_that_is_ended_is_not_taken_for_the_command() -> None:
    child = "(p := multiprocessing.get_context('fork').Process(target=time.sleep, args=(60,))).start()"
    work = f"lambda _: ({child}, time.sleep(0.5), p.terminate(), p.join(20), print(p.exitcode, flush=True), {{}})[-1]"
    script = SLOW[: SLOW.index("lambda")] + work + SLOW[SLOW.index("; sys.argv") :]
    script = f"import multiprocessing; {script}"
    made = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert (made.returncode, made.stdout, made.stderr) == (0, "-15\n", "")


def test_a_reader_that_goes_away_is_no_verdict(finished: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    for arguments in (["sensitivity", "check", str(finished), "--baseline", str(finished)], ["--help"]):
        made = subprocess.run(
            [sys.executable, "-m", "holdfast.cli", *arguments], stdout=writing, stderr=subprocess.PIPE, text=True
        )
        assert (made.returncode, made.stderr) == (141, "")
    arguments = ["sensitivity", "check", str(finished), "--baseline", "absent"]
    made = subprocess.run([sys.executable, "-m", "holdfast.cli", *arguments], stderr=writing)
    assert made.returncode == 2
    os.close(writing)
    with open("/dev/full", "w") as full:
        made = subprocess.run(
            [sys.executable, "-m", "holdfast.cli", "--help"], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert (made.returncode, made.stderr) == (2, "error: No space left on device\n")


# One table for all commands

BAD: dict[str, str] = {
    "tune": "--model pocket --data no/such.jsonl --output {out}",
    "weigh": "--model pocket --data no/such.jsonl --output {out}",
    "align": "--model pocket --data no/such.jsonl --output {out}",
    "sensitivity run": "--model pocket --sets no/such.jsonl --output {out}",
    "sensitivity variants": "--prompts no/such.jsonl --output {out}",
    "sensitivity compare": "no/such no/other",
    "sensitivity check": "no/such --baseline no/other",
    "crosstask run": "--model pocket --sources no/such --target pocket:tasks/topic --output {out}",
    "crosstask label": "--model pocket --sources no/such --target pocket:tasks/topic --output {out}",
    "crosstask analyse": "--run no/such --output {out}",
    "bench run": "--model pocket --tasks t --data-dir no/such --output {out}",
    "bench compare": "no/such no/other --output {out}",
    "study plan": "no/such.yaml --output {out}",
    "study run": "no/such.yaml --output {out}",
    "audit": "--model pocket --data no/such.jsonl --output {out}",
    "study best": "no/such --output {out}",
    "report": "no/such --output {out}/page.html",
    "demo": "--seed -1 --output {out}",
}
ENDINGS: list[tuple[Any, ExitCode]] = [
    ({}, ExitCode.FINE),
    ({"exit_code": 1}, ExitCode.NO),
    (HoldfastError("bad"), ExitCode.BAD_INPUT),
    (NotComparableError("other"), ExitCode.NOT_COMPARABLE),
    (KeyError("unforeseen"), ExitCode.FAULT),
    (KeyboardInterrupt(), ExitCode.INTERRUPTED),
    (cli._Terminated(), ExitCode.TERMINATED),
]
_ending: list[Any] = [{}]


def end(_: Any) -> Any:
    """Stands in for a command."""
    if isinstance(_ending[0], BaseException):
        raise _ending[0]
    return _ending[0]


def test_the_table_of_the_docs_is_the_one_of_the_code() -> None:
    page = Path(__file__).parents[1] / "docs" / "exit-codes.md"
    assert re.findall(r"^\| (\d+) \|", page.read_text(encoding="utf-8"), re.MULTILINE) == [
        str(int(code)) for code in ExitCode
    ]


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_bad_input_is_2_and_leaves_nothing(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*command.split(), *BAD[command].format(out=tmp_path / "out").split()]) == ExitCode.BAD_INPUT
    assert capsys.readouterr().err.startswith("error: ")
    assert not list(tmp_path.iterdir())
    assert main([*command.split(), "--no-such-option"]) == ExitCode.BAD_INPUT
    assert "unknown option '--no-such-option'" in capsys.readouterr().err


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_every_command_ends_by_the_table(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setitem(cli.COMMANDS, command, (cli.COMMANDS[command][0], f"{__name__}:end"))
    line = BAD[command].format(out=tmp_path / "out").replace("--seed -1", "")
    for ending, code in ENDINGS:
        monkeypatch.setitem(globals(), "_ending", [ending])
        assert main([*command.split(), *line.split()]) == code


def test_a_verdict_and_what_cannot_be_compared(finished: Path, tmp_path: Path) -> None:
    worse = shutil.copytree(finished, tmp_path / "worse")
    for number in (0, 1):
        row(lambda r: with_(r["indices"]["all"]["psi"] + 1, "indices", "all", "psi")(r), number)(worse)
    other = shutil.copytree(finished, tmp_path / "other")
    value("summary.json", with_(5, "max_new_tokens"))(other)
    assert main(["sensitivity", "check", str(worse), "--baseline", str(finished)]) == ExitCode.NO
    assert main(["sensitivity", "compare", str(worse), str(finished)]) == ExitCode.FINE
    assert main(["sensitivity", "check", str(other), "--baseline", str(finished)]) == ExitCode.NOT_COMPARABLE
    assert main(["sensitivity", "compare", str(other), str(finished)]) == ExitCode.NOT_COMPARABLE


@pytest.mark.parametrize("key", ["hash", "version", "benchmark"])
def test_bench_runs_that_cannot_be_compared(key: str, tmp_path: Path) -> None:
    whole, other = bench_run(tmp_path / "whole"), bench_run(tmp_path / "other")
    for number in range(40):
        row(with_("u", key), number)(other)
    if key == "benchmark":
        value("summary.json", with_({"u": {"metric": "acc,none"}}, "benchmarks"))(other)
    assert main(["bench", "compare", str(whole), str(other)]) == ExitCode.NOT_COMPARABLE


@pytest.mark.parametrize("closed", [1, 2])
def test_a_closed_stream_is_no_fault(closed: int) -> None:
    arguments = [sys.executable, "-m", "holdfast.cli", *(["--version"] if closed == 1 else ["report"])]
    command = f"{shlex.join(arguments)} {closed}>&-"
    ended = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0 if closed == 1 else 2, "", "")
