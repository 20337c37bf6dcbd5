"""Keys travel to the server that was named and nowhere else: not on a redirect, not into messages, not into a file of a
run.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from holdfast import lm as models
from holdfast.cli import main
from holdfast.crosstask.generate import Endpoint
from holdfast.errors import HoldfastError, redacted
from holdfast.http import Client
from http_server import Reply, completion, serving
from materials import write_jsonl
from sensitivity_server import serve

KEY = "sk-4f9-never-printed"


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("holdfast.http._FIRST_PAUSE", 0.01)
    monkeypatch.delenv("HOLDFAST_API_KEY", raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


def ask_client(address: str) -> Any:
    import os

    return Client(address, timeout=5, retries=1, key=os.environ["OPENAI_API_KEY"]).post("/completions", {})


def ask_endpoint(address: str) -> Any:
    return Endpoint(address, "m", retries=1, timeout=5).generate(["x"])


ASK = pytest.mark.parametrize("ask", [ask_client, ask_endpoint])
COMPLETION = completion("yes")


@ASK
@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_a_redirect_is_an_error_and_the_key_stays(ask: Callable[[str], Any], code: int) -> None:
    with serving(lambda _: Reply(COMPLETION)) as other:
        to = {"Location": other.url + "/completions?token=t0k3n"}
        with (
            serving(lambda _: Reply("moved", code, to)) as first,
            pytest.raises(HoldfastError, match=f"{code} and points to http") as caught,
        ):
            ask(first.url)
    assert other.asked == []
    assert len(first.asked) == 1
    assert "t0k3n" not in str(caught.value)


@ASK
@pytest.mark.parametrize("code", [401, 500])
def test_a_server_that_echoes_the_key(ask: Callable[[str], Any], code: int) -> None:
    # long enough for the key to lie across the place where the message is cut
    for filler in ("", "x" * 185, "x" * 1990):
        echo = serving(lambda request, f=filler: Reply(f"{f} bad: {request.key}", code))
        with echo as server, pytest.raises(HoldfastError) as caught:
            ask(server.url)
        assert f"HTTP {code}" in str(caught.value)
        assert "sk-4" not in str(caught.value)


@ASK
def test_an_address_with_a_password_and_a_query(ask: Callable[[str], Any]) -> None:
    with serving(lambda _: Reply("nothing here", 404)) as server:
        address = server.url.replace("http://", "http://ann:hunter2@") + "?api-version=7&api_key=s3cret"
        with pytest.raises(HoldfastError) as caught:
            ask(address)
    assert "hunter2" not in str(caught.value)
    assert "s3cret" not in str(caught.value)
    assert "api-version=7" in str(caught.value)
    (request,) = server.asked
    assert request.path == "/v1/completions?api-version=7&api_key=s3cret"
    assert request.key == "Basic YW5uOmh1bnRlcjI="


@ASK
def test_an_address_that_cannot_be_read_is_not_repeated(ask: Callable[[str], Any]) -> None:
    for address in ("http://ann:hun/ter2@127.0.0.1:9/v1", "http://ann:hun#ter2@127.0.0.1:9/v1"):
        with pytest.raises(HoldfastError) as caught:
            ask(address)
        assert "hun" not in str(caught.value)


@pytest.mark.parametrize(
    ("value", "sent"), [(f"{KEY}\n", f"Bearer {KEY}"), (f"  {KEY}\r\n", f"Bearer {KEY}"), ("\n", None)]
)
def test_white_space_around_a_key_is_stripped(value: str, sent: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", value)
    with serving(lambda _: Reply(COMPLETION)) as server:
        Endpoint(server.url, "m", retries=0).generate(["x"])
    assert server.asked[0].key == sent


def run_arguments(folder: Path, address: str, **more: str) -> list[str]:
    sets = write_jsonl(folder / "sets.jsonl", [["Who has the hat?", "Name the person with the hat."]])
    given = {
        "model": "pocket",
        "sets": str(sets),
        "max-new-tokens": "4",
        "backend": "openai",
        "endpoint": address,
        "retries": "1",
    } | more
    return [
        "sensitivity",
        "run",
        "--output",
        str(folder / "run"),
        *(f"--{name}={value}" for name, value in given.items()),
    ]


@pytest.mark.parametrize("value", ["sk-in\nside", "sk-\x07bell", "sk-größe", "sk-\u200bzero"])
def test_a_key_that_cannot_be_sent_is_not_printed(
    value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", value)
    assert main(run_arguments(tmp_path, "http://127.0.0.1:9/v1")) == 2
    err = capsys.readouterr().err
    assert "OPENAI_API_KEY cannot be a key: character" in err
    assert "sk-" not in err
    assert not (tmp_path / "run").exists()


def everything_in(folder: Path) -> bytes:
    return b"".join(str(p).encode() + (p.read_bytes() if p.is_file() else b"") for p in sorted(folder.rglob("*")))


def test_a_run_holds_no_key_and_another_key_continues_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with serve(models.load("pocket")) as server:
        host = server.address.removeprefix("http://")

        def address(user: str, **query: str) -> str:
            return f"http://{user}@{host}/v1?" + "&".join(
                f"{name.replace('_', '-')}={value}" for name, value in query.items()
            )

        first = address("ann:hunter2", api_version="1", sig="5igned")
        assert main([*run_arguments(tmp_path, first), "--json"]) == 0
        config = json.loads((tmp_path / "run" / "config.json").read_text())
        assert config["config"]["endpoint"] == f"http://***@{host}/v1?api-version=1&sig=***"
        before = server.count
        capsys.readouterr()
        assert (
            main(run_arguments(tmp_path, address("bob:other", api_version="1", sig="later"))) == 0
        )  # the key was changed
        assert "already complete" in capsys.readouterr().err
        assert server.count - before == 5  # the preflight
        assert main(run_arguments(tmp_path, address("ann:hunter2", api_version="2", sig="5igned"))) == 2
        assert "endpoint differ" in capsys.readouterr().err
    assert main(["report", str(tmp_path / "run"), "--output", str(tmp_path / "run.html")]) == 0
    found = everything_in(tmp_path) + "".join(capsys.readouterr()).encode()
    for secret in (b"hunter2", b"5igned", b"ann:", KEY.encode()):
        assert secret not in found


def test_a_key_that_a_server_answers_with_reaches_no_row(tmp_path: Path) -> None:
    arguments = [
        "--sources=pocket:tasks/topic",
        "--target=pocket:tasks/yes_no",
        "--limit=2",
        "--decode=generate",
        "--model=m",
    ]
    with serving(lambda request: Reply(completion(f"yes {request.key}"))) as server:
        assert main(["crosstask", "run", *arguments, f"--endpoint={server.url}", f"--output={tmp_path / 'run'}"]) == 0
    assert server.asked[0].key == f"Bearer {KEY}"
    rows = (tmp_path / "run" / "rows.jsonl").read_text()
    assert "yes Bearer ***" in rows
    assert KEY.encode() not in everything_in(tmp_path)


def test_an_error_about_arguments_holds_no_key(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [*run_arguments(tmp_path, "http://127.0.0.1:9/v1"), "--timeout"]
    assert main([*arguments, "http://ann:hunter2@h/v1?api_key=s3cret"]) == 2
    said = "".join(capsys.readouterr())
    assert "--timeout" in said
    (tmp_path / "c.yaml").write_text("endpoint: http://ann:hunter2@h/v1?api_key=s3cret\n")
    assert main(["sensitivity", "run", "--config", str(tmp_path / "c.yaml"), "--help"]) == 0
    said += "".join(capsys.readouterr())
    assert "http://***@h/v1?api_key=***" in said
    assert "hunter2" not in said
    assert "s3cret" not in said


def test_the_model_of_an_address_is_no_password(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_jsonl(tmp_path / "p.jsonl", [{"prompt": "Who has the hat?"}])
    prompts = f"--prompts={tmp_path / 'p.jsonl'}"
    with serving(lambda _: Reply("no", 404)) as server:
        model = f"--paraphrase-model={server.url}#@cf/llama"
        code = main(
            ["sensitivity", "variants", prompts, "--variants=paraphrases", model, f"--output={tmp_path / 'out'}"]
        )
    assert code == 2
    assert f"{server.url}/chat/completions" in capsys.readouterr().err


SPELLINGS = {
    "backslashes": lambda key: key.replace("/", "\\/"),
    "unicode escapes": lambda key: "".join(f"\\u{ord(c):04x}" for c in key),
    "escapes of signs": lambda key: key.replace("+", "\\u002B").replace("/", "\\u002f"),
    "percent signs": lambda key: key.replace("+", "%2b").replace("/", "%2f"),
    "a path": lambda key: key.replace("+", "%2B"),
    "HTML": lambda key: key.replace("+", "&#43;").replace("/", "&#x2F;"),
}


@ASK
@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("code", [200, 400])
def test_a_key_is_known_however_a_server_spells_it(
    ask: Callable[[str], Any], spelling: str, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = "sk-4f/9+never-printed"
    monkeypatch.setenv("OPENAI_API_KEY", key)
    echoed = SPELLINGS[spelling](key)
    with serving(lambda _: Reply('{"choices": [{"text": "key: ' + echoed + '."}]}', code)) as server:
        try:
            said = str(ask(server.url))
        except HoldfastError as error:
            said = str(error)
    assert "key: ***." in said
    assert key not in said
    assert echoed not in said


@pytest.mark.parametrize(
    "arguments", [["hub_token=hf_abc123def"], ["hub_token", "hf_abc123def", "--no-such"], ["hub-token", "hf_abc123def"]]
)
def test_a_token_among_the_arguments_is_not_repeated(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with contextlib.suppress(SystemExit):
        main(["tune", "--model=m", "--data=d.jsonl", "--output=o", "--training", *arguments])
    said = "".join(capsys.readouterr())
    assert said
    assert "hf_abc123def" not in said
    assert "hf_abc123def" not in redacted(
        " ".join(["holdfast tune --training", *arguments])
    )  # as the file of a fault has it
