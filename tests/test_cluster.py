"""Workers on a local Ray cluster: every job once, errors as errors, the dead replaced, nothing left behind."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from holdfast.cluster import Lost, Workers, whole
from holdfast.errors import HoldfastError


class Held:
    """What the workers of these tests hold."""

    def __init__(self, base: int) -> None:
        self.base = base

    def add(self, x: int) -> int:
        if x == 13:
            raise HoldfastError("13 is bad input", hint="take another")
        if x == 7:
            os._exit(1)
        if x == 5:
            raise KeyError("nobody foresaw this")
        return self.base + x


def test_without_ray_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(HoldfastError, match="needs Ray") as error:
        Workers(Held, (1,), 1)
    assert error.value.hint == "pip install 'holdfast[ray]'"


@pytest.mark.full
def test_jobs_errors_and_the_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = pytest.importorskip("ray", reason="Ray (extra ray) is not installed")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with Workers(Held, (100,), 3) as workers:  # more workers than this machine may have cores
        assert sorted(workers.results("add", [(i,) for i in range(4)])) == [(0, 100), (1, 101), (2, 102), (3, 103)]
        assert workers.ask_all("add", 1) == [101] * 3
        begun: list[int] = []
        values = dict(workers.results("add", [(1,), (7,), (5,), (2,)], begun.append))
        assert (values[0], values[3]) == (101, 102)
        assert isinstance(values[1], Lost)
        assert "nobody foresaw this" in str(values[2].error)
        assert sorted(begun) == [0, 1, 2, 3]
        with pytest.raises(ray.exceptions.RayTaskError):
            whole(values[2])
        assert workers.ask_all("add", 2) == [102] * 3, "a worker that died has been replaced"
        with pytest.raises(HoldfastError, match="13 is bad input") as error:
            list(workers.results("add", [(13,)]))
        assert error.value.hint == "take another"
    assert not ray.is_initialized()
