"""Intervals and paired comparison of bench runs, against arithmetic done another way; runs that cannot be paired are
refused.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from bench_tasks import a_run
from holdfast import stats
from holdfast.bench import compare
from holdfast.bench.items import bootstrap, estimate
from holdfast.cli import main
from holdfast.config import BenchCompareConfig


def test_gained_and_lost_items(tmp_path: Path) -> None:
    a = a_run(tmp_path / "a", [0.0] * 9 + [1.0] * 11)
    b = a_run(tmp_path / "b", [1.0] * 8 + [0.0] + [1.0] * 10 + [0.0])  # 8 gained, 1 lost
    found = compare(BenchCompareConfig(run_a=a, run_b=b))["benchmarks"]["t"]
    assert found["difference"] == pytest.approx(7 / 20)
    assert found["p"] == pytest.approx(2 * (1 + 9) / 2**9)  # exact McNemar: one or fewer losses among nine, two-sided
    assert found["low"] < 7 / 20 < found["high"]
    assert (found["a"], found["b"]) == (pytest.approx(11 / 20), pytest.approx(18 / 20))


def test_items_of_several_instructions(tmp_path: Path) -> None:
    a = a_run(tmp_path / "a", [[0.0, 1.0, 0.0], [1.0], [0.0, 0.0]])
    b = a_run(tmp_path / "b", [[1.0, 1.0, 0.0], [1.0], [1.0, 1.0]])
    found = compare(BenchCompareConfig(run_a=a, run_b=b))["benchmarks"]["t"]
    assert (found["a"], found["b"], found["difference"]) == (
        pytest.approx(2 / 6),
        pytest.approx(5 / 6),
        pytest.approx(3 / 6),
    )
    assert found["p"] == 0.5  # flips of two changes: both up or both down, two of four


def test_a_run_against_itself(tmp_path: Path) -> None:
    a = a_run(tmp_path / "a", [0.0, 1.0, 1.0])
    found = compare(BenchCompareConfig(run_a=a, run_b=a, output=str(tmp_path / "out")))["benchmarks"]["t"]
    assert (found["difference"], found["low"], found["high"], found["p"]) == (0, 0, 0, 1)
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["benchmarks"]["t"] == found


@pytest.mark.parametrize(
    ("other", "says"),
    [
        ({"hash": "else"}, "other items"),
        ({"version": "2.0"}, "version 2.0"),
        ({"shots": 5}, "5 shots"),
        ({"benchmark": "u"}, "other benchmarks"),
    ],
)
def test_what_cannot_be_paired_is_refused(
    other: dict[str, Any], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = a_run(tmp_path / "a", [1.0, 0.0]), a_run(tmp_path / "b", [1.0, 0.0], **other)
    assert main(["bench", "compare", a, b]) == 3
    assert says in capsys.readouterr().err


def test_fewer_items_are_other_items(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = a_run(tmp_path / "a", [1.0, 0.0]), a_run(tmp_path / "b", [1.0])
    assert main(["bench", "compare", a, b]) == 3
    assert "2 and 1, 1 of them the same" in capsys.readouterr().err
    assert main(["bench", "compare", a, str(tmp_path)]) == 2
    assert "not a bench run" in capsys.readouterr().err


@pytest.mark.parametrize(("hits", "n"), [(0, 8), (3, 10), (10, 10), (250, 1000)])
def test_wilson_is_its_formula(hits: int, n: int) -> None:
    z, p = 1.959963984540054, hits / n
    middle, half = (
        (p + z * z / (2 * n)) / (1 + z * z / n),
        z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)),
    )
    assert stats.wilson(hits, n) == pytest.approx((middle - half, middle + half), abs=1e-12)


def test_a_mean_of_lists_counts_members() -> None:
    made = bootstrap([[1.0, 0.0, 0.0], [1.0]], seed=0)
    assert made["value"] == 0.5
    assert (made["n"], made["values"]) == (2, 4)
    assert (made["low"], made["high"]) == (pytest.approx(1 / 3), 1)
    assert estimate([1.0, 0.0], 0)["low"] == stats.wilson(1, 2)[0]
    assert estimate([], 0)["n"] == 0
    nothing = estimate([[0.0, 0.0], [0.0], [0.0]], 0)  # a bootstrap would say [0, 0]
    assert (nothing["low"], nothing["high"], nothing["n"]) == (*stats.wilson(0, 3), 3)
