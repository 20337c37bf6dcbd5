"""Back ends over real HTTP: the same numbers as in this process, faults survived or refused with the reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from holdfast import lm as models
from holdfast.config import SensitivityConfig
from holdfast.errors import HoldfastError
from holdfast.http import Client
from holdfast.sensitivity import measure
from holdfast.sensitivity.variants.wording import asker
from http_server import Reply, serving
from materials import write_jsonl
from sensitivity_server import serve

SETS = [["Who has the hat?", "Name the person with the hat."], ["What is 2 plus 3?", "Add 2 and 3.", "2 + 3?"]]


@pytest.fixture(scope="module")
def pocket() -> models.LM:
    return models.load("pocket")


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("holdfast.http._FIRST_PAUSE", 0.01)


@pytest.fixture
def config(tmp_path: Path) -> dict[str, Any]:
    return {
        "model": "pocket",
        "sets": str(write_jsonl(tmp_path / "sets.jsonl", SETS)),
        "max_new_tokens": 5,
        "timeout": 30.0,
        "retries": 6,
    }


def served(server: Any, backend: str) -> dict[str, Any]:
    return {"backend": backend, "endpoint": server.address + ("/v1" if backend == "openai" else "")}


@pytest.mark.parametrize("backend", ["openai", "sglang"])
@pytest.mark.parametrize("fault", [None, "dropped", "429", "slow", "truncated"])
def test_numbers_are_those_of_this_process_also_on_a_bad_line(
    backend: str, fault: str | None, pocket: models.LM, config: dict[str, Any], tmp_path: Path
) -> None:
    here = measure(SensitivityConfig(**config, output=str(tmp_path / "here")))
    config["timeout"] = 1.0 if fault == "slow" else 30.0
    with serve(pocket, fault) as server:
        there = measure(SensitivityConfig(**config, **served(server, backend), output=str(tmp_path / "there")))
        assert (server.count > there["cost"]["requests"] - there["cost"]["retries"]) == (
            fault in ("dropped", "429", "slow", "truncated")
        )
    assert there["posix"]["all"]["mean"] == pytest.approx(here["posix"]["all"]["mean"], abs=1e-4)
    rows = [[json.loads(line) for line in (tmp_path / name / "rows.jsonl").open()] for name in ("here", "there")]
    assert [[v["response"] for v in row["variants"]] for row in rows[0]] == [
        [v["response"] for v in row["variants"]] for row in rows[1]
    ]
    assert there["audit"]["max_difference"] < 1e-4
    assert (there["cost"]["retries"] > 0) == (fault is not None)


def test_tokens_as_text_are_matched_where_they_are_exact(
    pocket: models.LM, config: dict[str, Any], tmp_path: Path
) -> None:
    with serve(pocket, "text") as server:
        there = measure(SensitivityConfig(**config, **served(server, "openai"), output=str(tmp_path / "there")))
    here = measure(SensitivityConfig(**config, output=str(tmp_path / "here")))
    assert there["posix"]["all"]["mean"] == pytest.approx(here["posix"]["all"]["mean"], abs=1e-4)


@pytest.mark.parametrize(
    ("backend", "fault", "reason"),
    [
        ("openai", "no-echo", "does not echo"),
        ("openai", "second-bos", "second BOS"),
        ("openai", "nan", "missing or not finite"),
        ("openai", "order", "depend on what was asked before|other log-probs than generating"),
        ("openai", "shifted", "missing or not finite|other log-probs than generating|above 0"),
        ("sglang", "no-echo", "returns no input_token_logprobs"),
        ("sglang", "shifted", "other log-probs than generating"),
        ("sglang", "order", "depend on what was asked before|other log-probs than generating"),
        ("sglang", "nan", "missing or not finite"),
    ],
)
def test_the_preflight_refuses_with_the_reason(
    backend: str, fault: str, reason: str, pocket: models.LM, config: dict[str, Any], tmp_path: Path
) -> None:
    with serve(pocket, fault) as server, pytest.raises(HoldfastError, match=reason):
        measure(SensitivityConfig(**config, **served(server, backend), output=str(tmp_path / "out")))
    assert not (tmp_path / "out").exists()


def test_scoring_on_sglang_starts_at_the_last_prompt_token(
    pocket: models.LM, config: dict[str, Any], tmp_path: Path
) -> None:
    with serve(pocket) as server:
        seen: list[dict[str, Any]] = []
        answer = server.model.logp
        server.model.logp = lambda ids: seen.append({"ids": ids}) or answer(ids)
        summary = measure(SensitivityConfig(**config, **served(server, "sglang"), output=str(tmp_path / "there")))
        assert set(server.paths) == {"/generate"}
    assert summary["cost"]["requests"] == len(seen)


def test_an_absent_server_and_wrong_addresses(config: dict[str, Any], tmp_path: Path) -> None:
    config |= {"retries": 0, "output": str(tmp_path / "out")}
    with pytest.raises(HoldfastError, match="failed 1 times"):
        measure(SensitivityConfig(**config, backend="openai", endpoint="http://127.0.0.1:9/v1"))
    with pytest.raises(HoldfastError, match="begins with http"):
        measure(SensitivityConfig(**config, backend="openai", endpoint="localhost"))
    with pytest.raises(HoldfastError, match="needs --endpoint"):
        measure(SensitivityConfig(**config, backend="openai"))
    with pytest.raises(HoldfastError, match="needs --backend"):
        measure(SensitivityConfig(**config, endpoint="http://127.0.0.1:9/v1"))


def test_a_run_over_http_continues_after_the_server_died(
    pocket: models.LM, config: dict[str, Any], tmp_path: Path
) -> None:
    config |= {"output": str(tmp_path / "out"), "concurrency": 1, "retries": 0}
    with serve(pocket) as server:
        address = served(server, "openai")
        first = measure(SensitivityConfig(**config, **address))
        (tmp_path / "out" / "summary.json").unlink()
        before = server.count
        again = measure(SensitivityConfig(**config, **address))
        assert server.count - before == 5 + again["audit"]["cells"]  # preflight and audit; every cell was in the cache
    assert again["posix"] == first["posix"]


@pytest.mark.parametrize("backend", ["openai", "sglang"])
def test_what_was_answered_before_the_money_ran_out_is_kept(
    backend: str, pocket: models.LM, config: dict[str, Any], tmp_path: Path
) -> None:
    config |= {"output": str(tmp_path / "out"), "concurrency": 3, "audit_share": 0.0}
    with serve(pocket) as server:
        measure(SensitivityConfig(**config | {"output": str(tmp_path / "whole")}, **served(server, backend)))
        requests = server.count
    answered = 11 if backend == "sglang" else 8  # one request carries all cells of the other
    with serve(pocket, answered) as server:
        address = served(server, backend)
        with pytest.raises(HoldfastError, match="HTTP 402"):
            measure(SensitivityConfig(**config, **address))
        preflight, before = 5, server.count
        server.fault = None
        again = measure(SensitivityConfig(**config, **address))
        assert server.count - before == preflight + requests - answered
    assert again["posix"] == json.loads((tmp_path / "whole" / "summary.json").read_text())["posix"]


BAD = [
    {},
    [],
    None,
    {"tokens": "abc"},
    {"tokens": [17, None], "token_logprobs": ["a", {}]},
    {"tokens": ["token_id:x"], "token_logprobs": [0]},
]


@pytest.mark.parametrize("bad", BAD)
def test_answers_of_another_form(bad: Any, config: dict[str, Any], tmp_path: Path) -> None:
    for reply in (
        {"choices": [{"logprobs": bad, "text": "x"}]},
        {"meta_info": {"output_token_logprobs": bad}},
        {"meta_info": bad},
        bad,
    ):
        for backend in ("openai", "sglang"):
            with (
                serving(lambda _, r=reply: Reply(json.dumps(r))) as server,
                pytest.raises(HoldfastError, match=r"is no |cannot be used"),
            ):
                measure(
                    SensitivityConfig(
                        **config | {"retries": 0}, **served(server, backend), output=str(tmp_path / "out")
                    )
                )


def test_paraphrases_asked_from_a_loaded_model_and_refusals(pocket: models.LM) -> None:
    assert isinstance(asker("pocket")("Rewrite this: What is 2 plus 3?"), str)
    with pytest.raises(HoldfastError, match="no model named"):
        asker("http://127.0.0.1:9/v1")
    with serve(pocket) as server, pytest.raises(HoldfastError, match="is no chat completion"):
        asker(server.address + "/v1#pocket")("x")
    with pytest.raises(HoldfastError, match="begins with http"):
        Client("ftp://x", timeout=1, retries=0)


@pytest.mark.parametrize("backend", ["openai", "sglang"])
def test_the_tokenizer_of_another_model_is_refused(
    backend: str, pocket: models.LM, model_folder: Path, config: dict[str, Any], tmp_path: Path
) -> None:
    """Its ids are within the served vocabulary, so that nothing else tells: the server's own words for them do."""
    config |= {"tokenizer": str(model_folder), "output": str(tmp_path / "out"), "context": 128}
    with serve(pocket) as server, pytest.raises(HoldfastError, match="is not the server's") as caught:
        measure(SensitivityConfig(**config, **served(server, backend)))
    assert "--tokenizer" in str(caught.value.hint)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("backend", ["openai", "sglang"])
def test_a_penalty_that_is_the_servers_default_is_switched_off(
    backend: str, pocket: models.LM, config: dict[str, Any], tmp_path: Path
) -> None:
    here = measure(SensitivityConfig(**config, output=str(tmp_path / "here")))
    with serve(pocket, "penalty") as server:
        there = measure(SensitivityConfig(**config, **served(server, backend), output=str(tmp_path / "there")))
    assert there["posix"]["all"]["mean"] == pytest.approx(here["posix"]["all"]["mean"], abs=1e-4)


@pytest.mark.parametrize(
    ("backend", "fault"), [("openai", "stubborn"), ("sglang", "stubborn"), ("openai", "strict-penalty")]
)
def test_responses_that_are_not_greedy_are_refused(
    backend: str, fault: str, pocket: models.LM, config: dict[str, Any], tmp_path: Path
) -> None:
    with serve(pocket, fault) as server, pytest.raises(HoldfastError, match="not the most likely one") as caught:
        measure(SensitivityConfig(**config, **served(server, backend), output=str(tmp_path / "out")))
    assert "generation_config.json" in str(caught.value.hint)


def test_fields_that_a_server_refuses_are_left_out_and_said(
    pocket: models.LM, config: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    here = measure(SensitivityConfig(**config, output=str(tmp_path / "here")))
    with serve(pocket, "strict") as server:
        there = measure(SensitivityConfig(**config, **served(server, "openai"), output=str(tmp_path / "there")))
    assert there["posix"]["all"]["mean"] == pytest.approx(here["posix"]["all"]["mean"], abs=1e-4)
    err = capsys.readouterr().err
    assert [err.count(f"does not take {name}") for name in ("top_k", "repetition_penalty")] == [1, 1]


def test_one_request_carries_many_cells(pocket: models.LM, config: dict[str, Any], tmp_path: Path) -> None:
    here = measure(SensitivityConfig(**config, output=str(tmp_path / "here")))
    requests = {}
    for fault in (None, "no-lists"):
        with serve(pocket, fault) as server:
            more = served(server, "openai") | {"output": str(tmp_path / str(fault)), "concurrency": 1}
            there = measure(SensitivityConfig(**config, **more))
        assert there["posix"]["all"]["mean"] == pytest.approx(here["posix"]["all"]["mean"], abs=1e-4)
        requests[fault] = there["cost"]["requests"]
    # one request instead of one for every distinct cell
    assert requests["no-lists"] >= requests[None] + 5


def test_the_context_is_the_servers_with_room_for_the_token_that_it_adds(
    pocket: models.LM, config: dict[str, Any], tmp_path: Path
) -> None:
    longest = max(len(pocket.tokenizer(text)["input_ids"]) for prompts in SETS for text in prompts)
    for room, fits in ((longest + 6, True), (longest + 5, False)):
        with serve(pocket, context=room) as server:
            run = SensitivityConfig(**config, **served(server, "openai"), output=str(tmp_path / str(room)))
            if fits:
                measure(run)
                continue
            with pytest.raises(
                HoldfastError, match=f"1 that the server adds that is beyond the model's context of {room}"
            ):
                measure(run)
