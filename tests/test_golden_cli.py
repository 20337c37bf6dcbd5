"""Golden command lines: every option of every command in every form gives the config that it gave; what was refused is
refused.

Recorded by ``scripts/make_golden.py``. An option may be added; none may be lost, be renamed, or read its value in
another way.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from golden_case import LINES, call, differences, options, parse, write_files

COMMANDS = sorted(file.stem for file in LINES.glob("*.json") if file.stem != "overview")
RENAMED = {"preset": "recipe"}
"""Name of an option when the lines were recorded -> its name now, for commands that have no other option of that name;
the lines themselves go on working."""
LEFT_OPEN = {"tune": {"weight_decay", "max_grad_norm", "warmup_ratio"}}
"""Command -> options whose default was a number and is worked out now (docs/tune.md, Defaults): None."""
FORMS = ("flag", "positional", "yaml", "mixed")


def recorded(name: str) -> Any:
    """The recorded lines of a command, under the names and with the defaults of today."""
    golden = json.loads((LINES / f"{name}.json").read_text(encoding="utf-8"))
    if name == "overview":
        return golden
    golden["defaults"] |= dict.fromkeys(LEFT_OPEN.get(name, ()))
    if not {"prompt_weight", "preset"} <= golden["defaults"].keys():  # there it goes on naming weights
        for part in [golden["defaults"], *(entry["changes"] for entry in golden["lines"])]:
            part |= {RENAMED[key]: part.pop(key) for key in RENAMED.keys() & part.keys()}
    return golden


def _now(says: str) -> str:
    """The place that an error names, under its name of today."""
    for old, new in RENAMED.items():
        says = says.replace(old, new)
    return says


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", COMMANDS)
def test_a_line_gives_its_config(name: str, form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    golden = recorded(name)
    monkeypatch.chdir(tmp_path)
    lines = [entry for entry in golden["lines"] if entry["form"] == form]
    if form == "positional" and not lines:
        pytest.skip(f"{golden['command']} takes no argument without a flag")
    assert lines
    wrong = []
    for entry in lines:
        write_files(entry.get("files", {}), tmp_path)
        answer = parse(entry["line"])
        if answer.config is None:
            wrong.append(f"{entry}: exit code {answer.exit_code}, {answer.err}")
        else:
            wrong += [f"{entry}: {text}" for text in differences(golden["defaults"] | entry["changes"], answer.config)]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("name", COMMANDS)
def test_bad_input_ends_with_code_2_and_names_the_place(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    wrong = []
    for entry in recorded(name)["refused"]:
        write_files(entry.get("files", {}), tmp_path)
        answer = parse(entry["line"])
        if (
            answer.exit_code != entry["exit_code"]
            or answer.config is not None
            or answer.out
            or not any(word in answer.err for word in (entry["says"], _now(entry["says"])))
        ):
            wrong.append(f"{entry}: exit code {answer.exit_code}, {answer.out}{answer.err}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_record_is_whole(name: str) -> None:
    """Every option was recorded with another value than its default, as a flag and as a YAML key."""
    golden = recorded(name)
    for form in ("flag", "yaml"):
        changed = {key for entry in golden["lines"] if entry["form"] == form for key in entry["changes"]}
        assert changed == golden["defaults"].keys()


def test_commands_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    for entry in recorded("overview"):
        answer = call(entry["line"])
        assert answer.exit_code == entry["exit_code"], entry["line"]
        text = answer.out if entry["exit_code"] == 0 else answer.err
        assert [word for word in entry["says"] if word not in text] == [], entry["line"]


def test_every_command_has_a_record() -> None:
    """A command that is new is to be recorded, too."""
    names = dict(options())
    assert {recorded(name)["command"] for name in COMMANDS} <= names.keys()
    assert all(dataclasses.is_dataclass(config_class) for config_class in names.values())
