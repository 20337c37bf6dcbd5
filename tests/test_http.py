"""The one HTTP client against a server that misbehaves in every way we have met: it ends, says what is wrong, and says
no key.
"""

from __future__ import annotations

import ast
import email.utils
import gzip
import itertools
import json
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import holdfast
from holdfast import http
from holdfast.errors import HoldfastError
from http_server import Reply, completion, half, serving

FINE = {"fine": True}


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that would have been made."""
    waited: list[float] = []
    monkeypatch.setattr("holdfast.http.time.sleep", waited.append)
    return waited


def post(server: Any, *, timeout: float = 5, retries: int = 0, **more: Any) -> Any:
    return http.Client(server.url, timeout=timeout, retries=retries).post("/completions", {"a": 1}, **more)


def refusal(reply: Reply, **more: Any) -> tuple[HoldfastError, int]:
    """The error that an answer ends in, and how often it was asked for."""
    with serving(lambda _: reply) as server, pytest.raises(HoldfastError) as caught:
        post(server, **more)
    return caught.value, len(server.asked)


@pytest.mark.parametrize("status", sorted(http.RETRIED))
def test_statuses_that_pass(status: int) -> None:
    with serving(lambda request: Reply("wait", status) if request.number < 3 else Reply(FINE)) as server:
        assert post(server, retries=2) == FINE
    assert refusal(Reply("wait", status), retries=1)[1] == 2


def test_a_fault_of_the_request_is_no_fault_of_the_moment() -> None:
    """llama-cpp-python answers 500 where others answer 422."""
    body = {"error": {"message": "2 validation errors:\n {'loc': ('body', 'prompt', 'str')}"}}
    with serving(lambda request: Reply(body, 500)) as server:
        client = http.Client(server.url, timeout=5, retries=3)
        with pytest.raises(http.RefusedError, match="validation errors"):
            client.post("/completions", {}, lambda answer: answer, "completion")
        assert client.requests == 1


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 405, 413, 422, 501])
def test_statuses_that_stay(status: int) -> None:
    error, asked = refusal(Reply("because", status), retries=3)
    assert isinstance(error, http.RefusedError)
    assert (asked, error.code, error.text) == (1, status, "because")
    assert f"/v1/completions: HTTP {status} because" in error.message
    hints = {401: "OPENAI_API_KEY", 402: "paid", 403: "OPENAI_API_KEY", 404: "this address"}
    assert hints.get(status, "refuses") in str(error.hint)


@pytest.mark.parametrize(
    ("reply", "says"),
    [
        (Reply(drop=True), "failed 2 times; last: "),
        (half({"a": "long enough"}), "IncompleteRead"),
        (Reply((b"400\r\nhalf a piece",), headers={"Transfer-Encoding": "chunked"}, length=0), "IncompleteRead"),
        (Reply("<html>busy</html>"), "no JSON.*<html>busy"),
        (Reply(""), "no JSON"),
        (Reply(b'{"a": "\xff\xfe"}'), "no text .byte 8"),
        (Reply("[" * 200_000), "no JSON"),
        (Reply("1" * 5000), "no JSON"),
        (Reply({"error": "overloaded"}), 'no completion: {"error": "overloaded"}'),
        (Reply(completion(None)), "no completion"),
        (Reply({"choices": []}), "no completion"),
        (Reply([]), "no completion"),
    ],
)
def test_answers_that_are_none(reply: Reply, says: str) -> None:
    error, asked = refusal(reply, retries=1, take=http.completion_text, kind="completion")
    assert asked == 2
    with pytest.raises(HoldfastError, match=says):
        raise error
    assert len(error.message) < 400


def test_nobody_there_and_a_good_answer_after_bad_ones() -> None:
    with pytest.raises(HoldfastError, match=r"failed 2 times; last: .*refused"):
        http.Client("http://127.0.0.1:9/v1", timeout=1, retries=1).post("/x", {})
    replies = [Reply(drop=True), half(FINE), Reply("busy"), Reply(b"\xff"), Reply("x", 503), Reply(completion("yes"))]
    with serving(lambda request: replies[request.number - 1]) as server:
        client = http.Client(server.url, timeout=5, retries=5)
        assert client.post("/completions", {}, http.completion_text, "completion") == "yes"
    assert (client.requests, client.retried) == (6, 5)


def drip(first: bytes = b"") -> Iterator[bytes]:
    """One byte after the other, for ever."""
    yield first
    while True:
        threading.Event().wait(0.05)
        yield b" "


@pytest.mark.parametrize(
    "reply",
    [
        lambda: Reply(drip(), length=10_000),
        lambda: Reply(drip(), length=0),
        lambda: Reply(drip(), length=0, headers={"Dripping": "x"}, code=500),
        lambda: Reply(
            (b"1\r\n" + piece + b"\r\n" for piece in drip(b" ")), length=0, headers={"Transfer-Encoding": "chunked"}
        ),
    ],
    ids=["announced", "endless", "an error", "chunked"],
)
def test_a_server_that_sends_a_byte_now_and_then(reply: Any) -> None:
    start = time.monotonic()
    with (
        serving(lambda _: reply()) as server,
        pytest.raises(HoldfastError, match=r"no whole answer within 0.3 s|HTTP 500"),
    ):
        post(server, timeout=0.3, retries=1)
    assert time.monotonic() - start < 3
    assert len(server.asked) == 2


def test_headers_that_never_end() -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as door:

        def trickle() -> None:
            connection, _ = door.accept()
            with connection:
                connection.sendall(b"HTTP/1.1 200 OK\r\nX: ")
                try:
                    for piece in drip():
                        connection.sendall(piece or b" ")
                except OSError:
                    return

        threading.Thread(target=trickle, daemon=True).start()
        start = time.monotonic()
        with pytest.raises(HoldfastError, match=r"no whole answer within 0.3 s"):
            http.Client(f"http://127.0.0.1:{door.getsockname()[1]}", timeout=0.3, retries=0).post("/x", {})
        assert time.monotonic() - start < 3


def test_answers_that_are_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    error, asked = refusal(Reply([], length=3 * 2**30), retries=3)
    assert asked == 1
    assert "more than 67,108,864 bytes" in error.message
    monkeypatch.setattr("holdfast.http.LIMIT", 100_000)
    error, asked = refusal(Reply(itertools.repeat(b" " * 9999), length=0), retries=3)
    assert asked == 1
    assert "more than 100,000 bytes" in error.message
    with serving(lambda _: Reply(" " * 99_998 + "[]")) as server:
        assert post(server) == []


def test_compressed_answers_are_neither_asked_for_nor_read() -> None:
    packed = Reply(gzip.compress(b"[]"), headers={"Content-Encoding": "gzip"})
    with serving(lambda _: packed) as server, pytest.raises(HoldfastError, match=r"compressed \(gzip\)"):
        post(server, retries=3)
    assert [request.headers["Accept-Encoding"] for request in server.asked] == ["identity"]


@pytest.mark.parametrize(
    ("header", "pause"),
    [
        ("2", 2),
        ("0.25", 0.25),
        ("0", 0),
        ("-5", 0.5),
        ("nan", 0.5),
        ("inf", 60),
        ("1e9", 60),
        ("soon", 0.5),
        ("", 0.5),
        ("9" * 400, 60),
    ],
)
def test_retry_after_in_seconds(header: str, pause: float, pauses: list[float]) -> None:
    refusal(Reply("busy", 429, {"Retry-After": header}), retries=1)
    assert pauses[-1] == pause


def test_retry_after_as_a_date(pauses: list[float]) -> None:
    for ahead, least, most in ((20, 17, 20), (9000, 60, 60), (-9000, 0.5, 0.5)):
        refusal(
            Reply("busy", 503, {"Retry-After": email.utils.formatdate(time.time() + ahead, usegmt=True)}), retries=1
        )
        assert least <= pauses[-1] <= most
    refusal(Reply("busy", 503, {"Retry-After": "Fri, 99 Foo 2026 99:99:99 GMT"}), retries=1)
    assert pauses[-1] == 0.5


def test_pauses_double_up_to_a_minute(pauses: list[float]) -> None:
    with pytest.raises(HoldfastError, match="failed 1201 times"):
        http.Client("http://127.0.0.1:9", timeout=1, retries=1200).post("/x", {})
    assert pauses[:9] == [0.5, 1, 2, 4, 8, 16, 32, 60, 60]
    assert set(pauses[7:]) == {60}
    assert len(pauses) == 1200


def test_numbers_that_are_none_and_halves_of_characters_arrive() -> None:
    with serving(lambda _: Reply('{"logp": [NaN, -Infinity], "choices": [{"text": "a\\ud83d b"}]}')) as server:
        answer = post(server)
        assert answer["logp"][0] != answer["logp"][0]
        assert post(server, take=http.completion_text) == "a\ufffd b"


def test_texts_of_chats() -> None:
    def said(content: Any) -> str:
        return http.chat_text({"choices": [{"message": {"content": content}}]})

    assert [said("x"), said(None), said([{"type": "text", "text": "a"}, {"type": "image"}])] == ["x", "", "a"]
    assert said([{"type": "text", "text": None}, {"type": "text", "text": "b"}]) == "b"
    refusal = {"content": None, "refusal": "I cannot help with that."}
    assert http.chat_text({"choices": [{"message": refusal}]}) == refusal["refusal"]
    for content in ([{"type": "text", "text": 3}], 0, False, {}):  # no text, and never taken for an answer
        with pytest.raises(TypeError):
            said(content)


@pytest.mark.parametrize(
    "address",
    ["ftp://x", "localhost:80", "http://", "http://h:0", "http://h:x", "http://h/a b", "http://h/ü", "http://h w/"],
)
def test_addresses_that_are_none(address: str) -> None:
    with pytest.raises(HoldfastError, match="address"):
        http.Client(address, timeout=1, retries=0)


def test_what_is_under_way_when_one_fails_is_kept_and_nothing_is_begun() -> None:
    begun, kept = [], {}

    def work(item: int) -> int:
        begun.append(item)
        if item == 5:
            raise HoldfastError("no more")
        threading.Event().wait(0.02 if item < 5 else 0.2)
        return item * item

    with pytest.raises(HoldfastError, match="no more"):
        http.together(work, range(1000), 4, kept.__setitem__)
    assert len(begun) < 30
    assert kept == {item: item * item for item in begun if item != 5}


def test_many_threads_share_a_client() -> None:
    kept: dict[int, Any] = {}
    with serving(lambda request: Reply(request.body, 503 if request.number % 4 == 0 else 200)) as server:
        client = http.Client(server.url, timeout=5, retries=20)
        http.together(lambda n: client.post("/x", {"n": n}, lambda answer: answer["n"]), range(40), 8, kept.__setitem__)
    assert kept == {n: n for n in range(40)}
    assert client.requests == len(server.asked) == 40 + client.retried


def test_no_script_stands_beside_a_module_that_would_hide_one_of_pythons_own() -> None:
    """``python FILE`` looks beside FILE first, and ``http`` is a name of the standard library."""
    house = Path(holdfast.__file__).parent
    scripts = [path for path in house.rglob("*.py") if _starts_itself(path) and path.parent != house]
    assert {path.name for path in scripts} >= {"alpaca_driver.py", "worker.py"}
    for path in scripts:
        hidden = {other.stem for other in path.parent.iterdir()} & sys.stdlib_module_names
        used = {name.split(".")[0] for name in _imports(path)}
        assert not hidden & used, f"{path}: {hidden}"
        assert "holdfast" in used or not hidden


def _starts_itself(path: Path) -> bool:
    return '__name__ == "__main__"' in path.read_text(encoding="utf-8")


def _imports(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(str(node.module))
    return names


def test_json_is_what_is_sent() -> None:
    with serving(lambda _: Reply(FINE)) as server:
        http.Client(server.url + "/", timeout=5, retries=0, key="k").post("/x", {"text": "ü\ud800"})
    (request,) = server.asked
    assert (request.path, request.key, json.dumps(request.body)) == ("/v1/x", "Bearer k", '{"text": "\\u00fc\\ud800"}')
