"""Every example is short, runs on the embedded model, and learns."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).resolve().parents[1] / "examples").glob("*.py"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.stem)
def test_example(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) < 40
    monkeypatch.chdir(tmp_path)
    if "trl" in path.stem:
        pytest.importorskip("trl")
    runpy.run_path(str(path), run_name="__main__")
    out, err = capfd.readouterr()
    losses = [float(x) for x in re.findall(r"'?\bloss'?:? '?([\d.]+)", out + err)]
    assert len(losses) >= 3
    assert losses[-1] < losses[0]
