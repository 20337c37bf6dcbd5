"""Trials on Ray: the rows of one machine; a cluster that does not answer is told at once."""

from __future__ import annotations

import socket
import time
from pathlib import Path
from typing import Any

import pytest

from holdfast.cluster import check_address
from holdfast.errors import HoldfastError
from holdfast.study.execute import Trainer, cores
from holdfast.study.jobs import job_of
from study_case import comparable, make_case, planned, run_study


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return make_case(tmp_path_factory.mktemp("case")) | {"vary": {"weights": [[0, 1], [1, 1]]}, "seeds": 1}


def test_an_actor_makes_the_rows_of_a_local_run(case: dict[str, Any], tmp_path: Path) -> None:
    """The short form: what runs inside an actor, without a cluster around it."""
    run_study(case, tmp_path / "local")
    (tmp_path / "ray").mkdir()
    plan = planned(case, tmp_path / "ray" / "data")
    actor = Trainer(str(tmp_path / "ray"))
    jobs = [job_of(plan, plan.groups[0], trial) for trial in (None, *plan.trials)]
    rows = [{k: v for k, v in actor.perform(job).items() if k != "seconds"} for job in jobs]
    assert rows == [row | {"group": rows[0]["group"]} for row in comparable(tmp_path / "local")]


@pytest.mark.full
def test_rows_from_ray_equal_local_rows(case: dict[str, Any], tmp_path: Path) -> None:
    ray = pytest.importorskip("ray")
    run_study(case, tmp_path / "local", processes=True)
    ray.init(num_cpus=cores(), include_dashboard=False, log_to_driver=False)  # as many threads as a local slot has
    try:
        run_study(case, tmp_path / "ray", processes=True, cluster="ray")
    finally:
        ray.shutdown()
    assert comparable(tmp_path / "ray") == comparable(tmp_path / "local")


@pytest.mark.full
def test_what_diverged_on_ray_is_not_trained_with_other_seeds(case: dict[str, Any], tmp_path: Path) -> None:
    ray = pytest.importorskip("ray")
    content = case | {"vary": {"weights": [[0, 1]], "learning_rate": [0.01, 1e30]}, "seeds": 2, "measure": []}
    content |= {"tune": case["tune"] | {"epochs": 4.0}}
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
    try:
        summary = run_study(content, tmp_path / "ray", processes=True, cluster="ray")
    finally:
        ray.shutdown()
    assert [summary["trials"][name] for name in ("planned", "done", "failed", "not_started")] == [4, 2, 1, 1]
    assert summary["diverged"] == ["(0, 1), lr 1e+30"]


def test_an_address_that_does_not_answer_is_told_at_once(
    case: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setenv("RAY_ADDRESS", f"ray://127.0.0.1:{port}")
    started = time.monotonic()
    with pytest.raises(HoldfastError, match=f"127.0.0.1:{port} does not answer"):
        run_study(case, tmp_path / "out", processes=True, cluster="ray")
    assert time.monotonic() - started < 10
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("address", [None, "", "auto", "local"])
def test_other_addresses_are_left_to_ray(address: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    monkeypatch.setattr(socket, "create_connection", lambda *arguments, **_: asked.append(arguments))
    check_address(address)
    assert not asked, "nothing is connected to"
