"""Generation over HTTP: a small OpenAI-compatible server with a real model behind it, well and badly behaved."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from chat_server import chatting
from holdfast.crosstask import CrossTaskConfig, LabelConfig, label, transfer
from holdfast.crosstask.generate import Endpoint, generate
from holdfast.errors import HoldfastError
from holdfast.lm import LM
from http_server import Reply, Request, completion, serving
from materials import make_model, make_tokenizer, write_jsonl


class Model:
    """Answers completions. ``faults`` are taken one per request: a status, "drop", "slow", "junk", or None;
    ``refused``: fields.
    """

    def __init__(self, lm: LM, credit: int = 10**6) -> None:
        self.lm, self.credit, self.lock = lm, credit, threading.Lock()
        self.faults, self.refused = list[Any](), set[str]()

    def __call__(self, request: Request) -> Reply:
        if request.number > self.credit:
            return Reply({"error": "no credit"}, 402)
        with self.lock:
            fault = self.faults.pop(0) if self.faults else None
            if fault == "drop":
                return Reply(drop=True)
            if isinstance(fault, int):
                return Reply({"error": "a fault"}, fault, {"Retry-After": "0.05"} if fault == 429 else {})
            strange = sorted(request.body.keys() & self.refused)
            if strange or fault == "junk":
                return Reply({"error": f"no {' '.join(strange)}"}, 400 if strange else 200)
            text = self.lm.generate([request.body["prompt"]], max_new_tokens=request.body["max_tokens"])[0]
        return Reply(completion(text.split(request.body["stop"][0], 1)[0]), wait=0.6 if fault == "slow" else 0.0)


@pytest.fixture(scope="module")
def lm() -> LM:
    tokenizer = make_tokenizer()
    tokenizer.model_max_length = 256
    return LM(make_model(max_position_embeddings=256), tokenizer, "tiny")


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("holdfast.http._FIRST_PAUSE", 0.01)


@pytest.fixture
def server(lm: LM) -> Iterator[Any]:
    model = Model(lm)
    with serving(model) as running:
        running.model = model
        yield running


def endpoint(server: Any, **changes: Any) -> Endpoint:
    return Endpoint(server.url, "tiny", **{"max_new_tokens": 5, "timeout": 5.0} | changes)


PROMPTS = ["Name a colour.", "What is the capital of France?", "Name a colour.", "hello world"]


def test_it_answers_as_the_model_in_this_process_does(lm: LM, server: Any) -> None:
    here = [text.split("\n", 1)[0] for text in generate(lm, PROMPTS, max_new_tokens=5)]
    assert endpoint(server).generate(PROMPTS) == here
    assert len(server.asked) == 3, "equal prompts are asked once"
    assert {request.path for request in server.asked} == {"/v1/completions"}
    assert {(r.body["temperature"], r.body["stop"][0], r.body["model"]) for r in server.asked} == {(0, "\n", "tiny")}


def test_faults_that_pass_are_waited_out(lm: LM, server: Any) -> None:
    wanted = endpoint(server).generate(PROMPTS)
    server.model.faults = [429, "drop", 503, "junk", "slow"]
    assert endpoint(server, timeout=0.3).generate(PROMPTS) == wanted


@pytest.mark.parametrize(
    ("fault", "says"), [(401, "HTTP 401"), ("junk", "is no completion"), ("drop", "Error|Remote|Disconnected")]
)
def test_faults_that_stay_are_one_error(server: Any, fault: Any, says: str) -> None:
    server.model.faults = [fault] * 50
    with pytest.raises(HoldfastError, match=says):
        endpoint(server, retries=2).generate(["x"])
    assert len(server.asked) == (1 if fault == 401 else 3)


def test_nobody_there() -> None:
    with pytest.raises(HoldfastError, match=r"--endpoint http://127.0.0.1:9/v1"):
        Endpoint("http://127.0.0.1:9/v1", "x", retries=1).generate(["x"])


def test_a_key_is_sent(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOLDFAST_API_KEY", "secret")
    endpoint(server).generate(["x"])
    assert server.asked[0].key == "Bearer secret"


def test_a_run_over_an_endpoint(lm: LM, server: Any, tmp_path: Path) -> None:
    given: dict[str, Any] = {
        "sources": "pocket:tasks/topic",
        "target": "pocket:tasks/yes_no",
        "limit": 4,
        "decode": "generate",
        "json": True,
    }
    given |= {"max_new_tokens": 4, "model": "tiny"}
    there = transfer(CrossTaskConfig(**given, endpoint=server.url, output=str(tmp_path / "there")))
    here = transfer(CrossTaskConfig(**given, output=str(tmp_path / "here")), lm)
    assert there["targets"]["yes_no"]["conditions"] == here["targets"]["yes_no"]["conditions"]
    assert there["cost"]["tokens"] == 0


def test_neutral_penalties_are_sent_as_far_as_the_server_takes_them(
    server: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = endpoint(server).generate(PROMPTS)
    neutral = {
        "top_p": 1,
        "top_k": -1,
        "min_p": 0,
        "repetition_penalty": 1,
        "frequency_penalty": 0,
        "presence_penalty": 0,
    }
    assert all(neutral.items() <= request.body.items() for request in server.asked)
    server.model.refused = {"top_k", "repetition_penalty"}
    assert endpoint(server).generate(PROMPTS) == wanted
    assert "repetition_penalty" not in server.asked[-1].body
    assert server.asked[-1].body["presence_penalty"] == 0
    assert capsys.readouterr().err.count("does not take") == 1


def test_a_text_that_is_null_is_no_answer() -> None:
    with serving(lambda _: Reply(completion(None))) as server, pytest.raises(HoldfastError, match="is no completion"):
        Endpoint(server.url, "tiny", retries=1).generate(["x"])
    assert len(server.asked) == 2


GRID: dict[str, Any] = {
    "sources": "pocket:tasks/topic",
    "target": "pocket:tasks/yes_no",
    "model": "tiny",
    "max_new_tokens": 2,
}
GRID |= {"decode": "generate", "json": True}


def test_what_was_answered_before_the_money_ran_out_is_kept(lm: LM, tmp_path: Path) -> None:
    def configured(url: str, output: str) -> CrossTaskConfig:
        return CrossTaskConfig(**GRID, limit=20, endpoint=url, output=str(tmp_path / output))

    with serving(Model(lm)) as server:
        whole = transfer(configured(server.url, "whole"))
        requests = len(server.asked)
    with serving(Model(lm, credit=27)) as server:
        with pytest.raises(HoldfastError, match=r"HTTP 402 .*no credit") as caught:
            transfer(configured(server.url, "run"))
        assert "asks for the rest" in str(caught.value.hint)
        assert 27 < len(server.asked) < 27 + 17, "it stops asking"
    with (tmp_path / "run" / "blocks" / "answers.jsonl").open("a") as file:
        file.write('\n{"prompt": "12ab", "te')  # as a kill leaves it
    with serving(Model(lm), server.port) as server:
        again = transfer(configured(server.url, "run"))
        assert len(server.asked) == requests - 27
    assert again["targets"] == whole["targets"]
    assert (tmp_path / "run" / "rows.jsonl").read_text() == (tmp_path / "whole" / "rows.jsonl").read_text()


def test_labels_go_on_too(lm: LM, tmp_path: Path) -> None:
    def configured(url: str) -> LabelConfig:
        return LabelConfig(**GRID, limit=12, endpoint=url, output=str(tmp_path / "run"), pool=str(pool))

    rows = [{"id": f"n{n}", "passage": f"Ann has {n} hats.", "question": f"Is {n} many?"} for n in range(12)]
    pool = write_jsonl(tmp_path / "pool.jsonl", rows)
    with serving(Model(lm, credit=5)) as server, pytest.raises(HoldfastError, match="HTTP 402"):
        label(configured(server.url))
    assert len((tmp_path / "run" / "blocks" / "answers.jsonl").read_text().split()) > 5
    with serving(Model(lm), server.port) as server:
        assert label(configured(server.url))["asked_of_the_model"] == 12
        assert len(server.asked) == 12 - 5


@pytest.mark.parametrize("method", ["chat/completions", "messages"])
def test_a_chat_endpoint_is_asked_where_the_address_names_its_method(method: str) -> None:
    with chatting(lambda messages, number: f"\n{messages[-1]['content'].upper()}\nmore") as server:
        texts = Endpoint(f"{server.url}/{method}", "m", 9).generate(["yes", "no", "yes"])
        assert {request.path for request in server.asked} == {f"/v1/{method}"}
    assert texts == ["YES", "NO", "YES"]
    assert [body["max_tokens"] for body in server.bodies] == [9, 9]


def test_thoughts_of_a_chat_endpoint_are_no_label(capsys: pytest.CaptureFixture[str]) -> None:
    said = {
        "a": "<think>\nyes or no?\n</think>\n\nyes\nmore",
        "b": {"text": "<think>\nIs it no", "finish": "length"},
        "Is <think> a tag?": "<think> is one",
    }
    with chatting(lambda messages, number: said[messages[-1]["content"]]) as server:
        texts = Endpoint(f"{server.url}/chat/completions", "m", 9).generate(list(said))
    assert texts == ["yes", "", "<think> is one"]
    assert "1 answer reached --max-new-tokens before anything was said" in capsys.readouterr().err
