"""Generation over HTTP: a small OpenAI-compatible server with a real model behind it, well and badly behaved."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from conftest import make_model, make_tokenizer
from holdfast.crosstask import CrossTaskConfig, transfer
from holdfast.crosstask.generate import Endpoint, generate
from holdfast.errors import HoldfastError
from holdfast.lm import LM


class Server:
    """Serves a model at /v1/completions. ``faults`` are taken one per request: a status, "drop", "slow", "junk", or None."""

    def __init__(self, lm: LM) -> None:
        self.lm, self.faults, self.asked = lm, list[Any](), list[dict[str, Any]]()
        self.refused: set[str] = set()
        self.lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with outer.lock:
                    outer.asked.append(asked | {"path": self.path, "key": self.headers.get("Authorization")})
                    fault = outer.faults.pop(0) if outer.faults else None
                if fault == "drop":
                    self.connection.close()
                    return
                if fault == "slow":
                    time.sleep(0.6)
                strange = sorted(asked.keys() & outer.refused)
                status = fault if isinstance(fault, int) else 400 if strange else 200
                text = json.dumps(
                    {"error": f"no {' '.join(strange)}"}
                    if status != 200 or fault == "junk"
                    else {"choices": [{"text": outer.answer(asked)}]}
                )
                self.send_response(status)
                if status == 429:
                    self.send_header("Retry-After", "0.05")
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *_: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def answer(self, asked: dict[str, Any]) -> str:
        with self.lock:
            text = self.lm.generate([asked["prompt"]], max_new_tokens=asked["max_tokens"])[0]
        return text.split(asked["stop"][0], 1)[0]


@pytest.fixture(scope="module")
def lm() -> LM:
    tokenizer = make_tokenizer()
    tokenizer.model_max_length = 256
    return LM(make_model(max_position_embeddings=256), tokenizer, "tiny")


@pytest.fixture
def server(lm: LM) -> Iterator[Server]:
    made = Server(lm)
    yield made
    made.http.shutdown()
    made.http.server_close()


def endpoint(server: Server, **changes: Any) -> Endpoint:
    return Endpoint(server.url, "tiny", **{"max_new_tokens": 5, "timeout": 5.0} | changes)


PROMPTS = ["Name a colour.", "What is the capital of France?", "Name a colour.", "hello world"]


def test_it_answers_as_the_model_in_this_process_does(lm: LM, server: Server) -> None:
    here = [text.split("\n", 1)[0] for text in generate(lm, PROMPTS, max_new_tokens=5)]
    assert endpoint(server).generate(PROMPTS) == here
    assert len(server.asked) == 3, "equal prompts are asked once"
    assert {(a["path"], a["temperature"], a["stop"][0], a["model"]) for a in server.asked} == {("/v1/completions", 0, "\n", "tiny")}


def test_faults_that_pass_are_waited_out(lm: LM, server: Server) -> None:
    wanted = endpoint(server).generate(PROMPTS)
    server.faults = [429, "drop", 503, "junk", "slow"]
    assert endpoint(server, timeout=0.3).generate(PROMPTS) == wanted


@pytest.mark.parametrize(("fault", "says"), [(401, "HTTP 401"), ("junk", "is no completion"), ("drop", "Error|Remote|Disconnected")])
def test_faults_that_stay_are_one_error(server: Server, fault: Any, says: str) -> None:
    server.faults = [fault] * 50
    with pytest.raises(HoldfastError, match=says):
        endpoint(server, retries=2).generate(["x"])
    assert len(server.asked) == (1 if fault == 401 else 3)


def test_nobody_there() -> None:
    with pytest.raises(HoldfastError, match=r"--endpoint http://127.0.0.1:9/v1"):
        Endpoint("http://127.0.0.1:9/v1", "x", retries=1).generate(["x"])


def test_a_key_is_sent(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOLDFAST_API_KEY", "secret")
    endpoint(server).generate(["x"])
    assert server.asked[0]["key"] == "Bearer secret"


def test_a_run_over_an_endpoint(lm: LM, server: Server, tmp_path: Path) -> None:
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


def test_neutral_penalties_are_sent_as_far_as_the_server_takes_them(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    wanted = endpoint(server).generate(PROMPTS)
    neutral = {"top_p": 1, "top_k": -1, "min_p": 0, "repetition_penalty": 1, "frequency_penalty": 0, "presence_penalty": 0}
    assert all(neutral.items() <= asked.items() for asked in server.asked)
    server.refused = {"top_k", "repetition_penalty"}
    assert endpoint(server).generate(PROMPTS) == wanted
    assert "repetition_penalty" not in server.asked[-1]
    assert server.asked[-1]["presence_penalty"] == 0
    assert capsys.readouterr().err.count("does not take") == 1
