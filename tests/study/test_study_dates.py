"""Chat templates that print the date: all trials of a study print one day, and two days share no tokens."""

from __future__ import annotations

import datetime
import shutil
import types
from pathlib import Path
from typing import Any

import pytest

from holdfast.runs import read_json, write_json
from holdfast.study import measure, sources, spec
from materials import CHATML, make_tokenizer
from study_case import make_case, planned, rows_of, run_study

LEAP_DAY = "2024-02-29"


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return make_case(tmp_path_factory.mktemp("case"))


@pytest.fixture(scope="module")
def dated(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    case = make_case(tmp_path_factory.mktemp("dated"))
    tokenizer = make_tokenizer()
    tokenizer.chat_template = "{{ strftime_now('%d %b %Y') }}\n" + CHATML
    tokenizer.save_pretrained(case["model"])
    return case | {"vary": {"weights": [[0, 1]]}, "seeds": 1}


def on(monkeypatch: pytest.MonkeyPatch, day: str) -> None:
    """A study begins on this day."""
    clock = types.SimpleNamespace(today=lambda: datetime.date.fromisoformat(day))
    monkeypatch.setattr(spec, "datetime", types.SimpleNamespace(date=clock))


def with_date(case: dict[str, Any], day: str) -> dict[str, Any]:
    return case | {"tune": case["tune"] | {"date": day}}


def test_two_days_share_no_tokens(dated: dict[str, Any], tmp_path: Path) -> None:
    days = [LEAP_DAY, "2024-03-01", LEAP_DAY]
    trials = [planned(with_date(dated, day), tmp_path).trials[0] for day in days]
    assert trials[0] == trials[2]
    assert trials[0].source != trials[1].source
    assert trials[0].id != trials[1].id
    assert len(list(tmp_path.glob("*.npz"))) == 2
    varied = planned(dated | {"vary": {"weights": [[0, 1]], "date": days[:2]}}, tmp_path)
    assert [t.id for t in varied.trials] == [t.id for t in trials[:2]]


def test_a_template_without_a_date_keeps_its_tokens_and_addresses(case: dict[str, Any], tmp_path: Path) -> None:
    plain = planned(case, tmp_path)
    assert planned(with_date(case, LEAP_DAY), tmp_path).trials == plain.trials
    assert {t.tune["date"] for t in plain.trials} == {None}
    assert "date" not in plain.resolved()
    assert len(list(tmp_path.glob("*.npz"))) == 1


def test_facts_of_older_versions_are_those_of_their_study(
    dated: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They do not say which day was printed: a study begun with them goes on, and a day that is asked for is another
    matter."""
    keys: list[str] = []
    tokenise = sources._tokenise

    def watched(config: Any, data: Any, keys_of: Any, *rest: Any) -> Any:
        keys.append(keys_of[None])
        return tokenise(config, data, keys_of, *rest)

    monkeypatch.setattr(sources, "_tokenise", watched)
    trial = planned(with_date(dated, LEAP_DAY), tmp_path).trials[0]
    facts = read_json(tmp_path / f"{trial.source}.json") | {"key": keys[0]}
    del facts["date"], facts["report"]["counted_targets"]
    write_json(tmp_path / f"{keys[0]}.json", facts)
    shutil.copy(tmp_path / f"{trial.source}.npz", tmp_path / f"{keys[0]}.npz")
    old = planned(dated, tmp_path).trials[0]
    assert (old.source, old.tune["date"]) == (keys[0], None)
    assert planned(with_date(dated, LEAP_DAY), tmp_path).trials[0] == trial
    assert len(keys) == 1, "tokenised once"


def test_a_study_goes_on_with_the_day_on_which_it_began(
    dated: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = []
    render = measure.generation_prompt

    def watched(*arguments: Any) -> str:
        prompts.append(render(*arguments))
        return prompts[-1]

    monkeypatch.setattr(measure, "generation_prompt", watched)
    output = tmp_path / "study"
    on(monkeypatch, LEAP_DAY)
    run_study(dated, output)
    first = rows_of(output)
    assert read_json(output / "config.json")["resolved"]["date"] == LEAP_DAY

    on(monkeypatch, "2024-03-01")
    run_study(dated | {"vary": {"weights": [[0, 1], [0.2, 0.8]]}}, output)
    rows = rows_of(output)
    assert rows[: len(first)] == first, "nothing is trained again"
    assert read_json(output / "config.json")["resolved"]["date"] == LEAP_DAY
    trials = [row for row in rows if row["kind"] == "trial"]
    for row in trials:
        folder = output / row["path"]
        assert read_json(folder / "config.json")["resolved"]["date"] == LEAP_DAY
        text = "".join(token["text"] for token in read_json(folder / "summary.json")["example"])
        assert text.startswith("29 Feb 2024\n")
    assert len(trials) == 2
    assert prompts
    assert all(prompt.startswith("29 Feb 2024\n") for prompt in prompts)
