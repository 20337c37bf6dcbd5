"""Rows that hold more than text are refused by name, whichever command reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from golden_case import call
from holdfast.data.media import refuse_media
from holdfast.errors import HoldfastError
from materials import write_jsonl

ANSWER = {"role": "assistant", "content": "A cat."}


def chat(part: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": [{"type": "text", "text": "What is it?"}, part]}, ANSWER]}


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "OpenAI": (chat({"type": "image_url", "image_url": {"url": "a.png"}}), "message 1 holds an image (image_url)"),
    "responses": (chat({"type": "input_image", "image_url": "a.png"}), "message 1 holds an image (input_image)"),
    "transformers": (chat({"type": "image"}), "message 1 holds an image (image)"),
    "video": (chat({"type": "video", "video": "a.mp4"}), "message 1 holds a video (video)"),
    "audio": (chat({"type": "input_audio", "input_audio": {}}), "message 1 holds a sound (input_audio)"),
    "file": (chat({"type": "file", "file": {"file_id": "f"}}), "message 1 holds a file (file)"),
    "no type": (chat({"image_url": "a.png"}), "message 1 holds an image (image_url)"),
    "key": (
        {"messages": [{"role": "user", "content": "?", "images": ["a.png"]}, ANSWER]},
        "message 1 holds an image (images)",
    ),
    "parts": (
        {"prompt": [{"type": "image", "image": "x"}], "response": "b"},
        "message 1 of 'prompt' holds an image (image)",
    ),
    "ShareGPT": (
        {"conversations": [{"from": "human", "value": [{"type": "audio"}]}, {"from": "gpt", "value": "b"}]},
        "message 1 holds a sound (audio)",
    ),
    "path": ({"prompt": "a", "response": "b", "image": "cats/1.JPG"}, "column 'image' holds an image"),
    "address": ({"prompt": "a", "response": "b", "videos": ["https://x/y"]}, "column 'videos' holds a video"),
    "data": ({"prompt": "a", "audio": "data:audio/wav;base64,AA"}, "column 'audio' holds a sound"),
    "feature": ({"prompt": "a", "photo": {"bytes": b"", "path": None}}, "column 'photo' holds an image, a sound"),
    "decoded": ({"prompt": "a", "audio": {"array": [0.0], "sampling_rate": 8000}}, "column 'audio' holds a sound"),
}
TEXT: list[Any] = [
    {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]}, {**ANSWER, "audio": None}]},
    {"prompt": "a", "response": "b", "image": None, "images": [], "video": "The title of a film"},
    {"text": "an image_url", "tools": [{"type": "function", "function": {"name": "image"}}], "source": "a.png"},
    {"documents": [{"type": "document", "document": "a"}], "text": "b"},
    "a prompt",
]


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_text_is_refused_by_name(name: str) -> None:
    row, says = REFUSED[name]
    with pytest.raises(HoldfastError) as error:
        refuse_media(row, "d.jsonl, row 3")
    assert error.value.message.startswith(f"d.jsonl, row 3: {says}")
    assert error.value.message.endswith("; Holdfast reads text only")
    assert error.value.hint


@pytest.mark.parametrize("row", TEXT)
def test_text_is_not_refused(row: Any) -> None:
    refuse_media(row, "row 1")


def test_every_command_refuses_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    image = {"type": "image_url", "image_url": {"url": "a.png"}}
    write_jsonl(tmp_path / "chat.jsonl", [chat(image)])
    asked = [{"role": "user", "content": [image]}]
    write_jsonl(
        tmp_path / "pairs.jsonl", [{"prompt": asked, "chosen": [ANSWER], "rejected": [{**ANSWER, "content": "B"}]}]
    )
    write_jsonl(tmp_path / "prompts.jsonl", [{"prompt": "What is it?", "image": "a.png"}])
    (tmp_path / "task.yaml").write_text("name: t\ndefinition: d\nlabels: [a, b]\ntemplate: '{text}'\n")
    write_jsonl(tmp_path / "task.jsonl", [{"text": "x", "answer": "a", "image": "a.png"}])
    place = "row 1: message 1 holds an image (image_url); Holdfast reads text only"
    lines = {
        "tune --data chat.jsonl": place,
        "weigh --data chat.jsonl": place,
        "align --data pairs.jsonl": "row 1: message 1 of 'prompt' holds an image (image_url)",
        "sensitivity run --prompts prompts.jsonl --variants casing": "row 1: column 'image' holds an image",
        "crosstask run --sources pocket:tasks --target task.yaml": "row 1: column 'image' holds an image",
    }
    for line, says in lines.items():
        answer = call(f"{line} --model pocket --output o --dry-run")
        assert answer.exit_code == 2, line
        assert says in answer.err, answer.err


def test_features_of_a_data_set_are_not_decoded(tmp_path: Path) -> None:
    import datasets

    from holdfast.data.read import load_rows

    features = datasets.Features({"text": datasets.Value("string"), "photo": datasets.Image()})
    data = datasets.Dataset.from_dict({"text": ["a"], "photo": [{"bytes": b"no picture", "path": None}]}, features)
    data.save_to_disk(tmp_path / "saved")
    rows = load_rows(str(tmp_path / "saved"))
    assert rows == [{"text": "a", "photo": {"bytes": b"no picture", "path": None}}]
    with pytest.raises(HoldfastError, match="column 'photo' holds an image"):
        refuse_media(rows[0], "row 1")
