"""Golden numbers: short runs of every command on `pocket` and on stories260k say what they said when they were
recorded.

Summaries and rows may gain keys; none may be lost, and no number may move by more than another processor moves it
(``golden_case.RELATIVE``). Recorded by ``scripts/make_golden.py numbers``.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
import torch

from golden_case import NUMBERS, differences, perform, prepare

NEEDS = {"align": "trl", "bench": "lm_eval"}
LONG = {"study-pocket", "study-stories260k"}
"""They start processes; `test_golden_runs.py` continues a study in the default run."""
CASES = sorted(file.stem for file in NUMBERS.glob("*.json"))


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in; the current directory and the environment come back."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", "")
    return tmp_path


@pytest.mark.skipif(torch.cuda.is_available(), reason="the numbers were recorded on a CPU")
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.full] if name in LONG else []) for name in CASES]
)
def test_the_numbers_are_those_recorded(name: str, elsewhere: Path, request: pytest.FixtureRequest) -> None:
    extra = NEEDS.get(name.split("-")[0])
    if extra and importlib.util.find_spec(extra) is None:
        pytest.skip(f"{extra} is not installed")
    if name.endswith("stories260k"):
        request.getfixturevalue("shared")
    prepare(elsewhere)
    wrong = []
    for entry in json.loads((NUMBERS / f"{name}.json").read_text(encoding="utf-8")):
        wrong += [
            f"{entry['line']}: {text}" for text in differences(entry, {"line": entry["line"]} | perform(entry["line"]))
        ]
    assert not wrong, "\n".join(wrong)


def test_every_command_that_gives_numbers_is_recorded() -> None:
    lines = [
        entry["line"] for name in CASES for entry in json.loads((NUMBERS / f"{name}.json").read_text(encoding="utf-8"))
    ]
    for command in ("tune", "weigh", "align", "sensitivity run", "sensitivity variants", "sensitivity compare",
                    "sensitivity check", "crosstask run", "crosstask label", "crosstask analyse", "bench run",
                    "bench compare", "study plan", "study run", "study best", "report"):  # fmt: skip
        assert any(line.startswith(f"{command} ") for line in lines), command
