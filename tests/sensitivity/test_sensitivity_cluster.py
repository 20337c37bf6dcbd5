"""Sets spread over a local Ray cluster give the rows of one process."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast.config import SensitivityConfig
from holdfast.errors import HoldfastError
from holdfast.sensitivity import backends, measure
from holdfast.sensitivity import pipeline as pipelines
from materials import make_model, make_tokenizer, write_jsonl

pytestmark = pytest.mark.full


@pytest.fixture(scope="module")
def ray() -> Iterator[object]:
    ray = pytest.importorskip("ray", reason="Ray (extra ray) is not installed")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield ray
    ray.shutdown()


def test_rows_are_those_of_one_process(ray: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (pipelines, backends):
        monkeypatch.setattr(module, "SETS_PER_BATCH", 2)
    make_model().save_pretrained(tmp_path / "model")
    make_tokenizer(bos=True).save_pretrained(tmp_path / "model")
    sets = str(
        write_jsonl(
            tmp_path / "sets.jsonl",
            [[f"Name {n} colours.", f"Which are {n} colours?", f"{n} colours"] for n in range(5)],
        )
    )

    def run(name: str, **more: object) -> list[dict[str, object]]:
        measure(
            SensitivityConfig(
                model=str(tmp_path / "model"), sets=sets, output=str(tmp_path / name), max_new_tokens=5, **more
            )
        )  # type: ignore[arg-type]
        return [json.loads(line) for line in (tmp_path / name / "rows.jsonl").open()]

    assert run("cluster", cluster="ray", workers=2) == run("one")
    summary = json.loads((tmp_path / "cluster" / "summary.json").read_text())
    assert summary["way"] == "fast, 2 Ray actors"
    assert summary["cost"]["tokens"] == json.loads((tmp_path / "one" / "summary.json").read_text())["cost"]["tokens"]
    with pytest.raises(HoldfastError, match="that is beyond the model's context") as error:
        measure(SensitivityConfig(
            model=str(tmp_path / "model"), sets=sets, output=str(tmp_path / "long"), max_new_tokens=127, cluster="ray",
            workers=1,
        ))  # fmt: skip
    assert error.value.hint
