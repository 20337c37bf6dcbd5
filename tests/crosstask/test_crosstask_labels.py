"""What pseudo-labels say of themselves: confidence of one voter, mass, validity, distribution, and warnings where they
are worth little.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from holdfast.cli import main
from holdfast.crosstask import CrossTaskConfig, LabelConfig, label, transfer
from holdfast.lm import LM
from materials import make_model, make_tokenizer, write_jsonl

LABELS = ["positive", "negative"]


@pytest.fixture(scope="module")
def lm() -> LM:
    tokenizer = make_tokenizer()
    tokenizer.model_max_length = 256
    return LM(make_model(max_position_embeddings=256), tokenizer, "tiny")


def write_task(folder: Path, name: str, rows: list[dict[str, Any]], **given: Any) -> str:
    (folder / f"{name}.yaml").write_text(json.dumps({"definition": f"Do {name}.", **given}))
    write_jsonl(folder / f"{name}.jsonl", rows)
    return str(folder / f"{name}.yaml")


@pytest.fixture
def tasks(tmp_path: Path) -> dict[str, str]:
    """A target with 24 inputs to label, and two sources."""
    rows = [{"text": f"the film number {i} of many", "answer": LABELS[i % 2]} for i in range(24)]
    return {
        "target": write_task(tmp_path, "mood", rows, fields=["text"], cue="Mood:", labels=LABELS),
        "one": write_task(
            tmp_path, "fact", [{"s": "it is so", "answer": "fact"}], fields=["s"], labels=["fact", "opinion"]
        ),
        "two": write_task(
            tmp_path, "size", [{"t": "it is big", "answer": "big"}], fields=["t"], labels=["big", "small"]
        ),
    }


def config(tasks: dict[str, str], output: Path, *sources: str, **more: Any) -> LabelConfig:
    given = {
        "model": "tiny",
        "sources": ",".join(tasks[s] for s in sources),
        "target": tasks["target"],
        "output": str(output),
    }
    return LabelConfig(**given | more)


def kept(output: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (output / "labels.jsonl").read_text().splitlines()]


def test_with_one_voter_the_confidence_is_the_probability_of_the_label(
    lm: LM, tasks: dict[str, str], tmp_path: Path
) -> None:
    label(config(tasks, tmp_path / "one", "one"), lm)
    asked = CrossTaskConfig(model="tiny", sources=tasks["one"], target=tasks["target"], output=str(tmp_path / "run"))
    transfer(asked, lm)
    scored = [json.loads(line) for line in (tmp_path / "run" / "rows.jsonl").read_text().splitlines()]
    import math

    by_item = {row["item"]: row["logp"] for row in scored if row["condition"] == "fact"}
    rows = kept(tmp_path / "one")
    assert len(rows) == 24
    for row in rows:
        odds = {name: math.exp(value) for name, value in by_item[row["id"]].items()}
        assert row["confidence"] == pytest.approx(odds[row["answer"]] / sum(odds.values()), abs=1e-3)
        assert row["confidence"] < 1
    # The threshold is one of probability then, and two voters still say the share of the vote.
    most = max(row["confidence"] for row in rows)
    label(config(tasks, tmp_path / "sure", "one", least_margin=most - 1e-3), lm)
    assert 0 < len(kept(tmp_path / "sure")) < 24 or len({row["confidence"] for row in rows}) == 1
    label(config(tasks, tmp_path / "both", "one", "two"), lm)
    assert {row["confidence"] for row in kept(tmp_path / "both")} <= {0.0, 1.0}


def test_one_voter_without_probabilities_has_no_confidence(
    lm: LM, tasks: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(LM, "generate", lambda self, prompts, **more: [" Positive"] * len(prompts))
    summary = label(config(tasks, tmp_path / "one", "one", decode="generate"), lm)
    assert {row["confidence"] for row in kept(tmp_path / "one")} == {None}
    assert summary["validity"]["value"] == 100
    assert summary["mass"] is None
    assert "has no confidence" in capsys.readouterr().err


def test_label_prints_mass_validity_and_the_distribution_and_warns(
    lm: LM, tasks: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    summary = label(config(tasks, tmp_path / "one", "one"), lm)
    shown = capsys.readouterr()
    assert summary["mass"] < 0.01  # an untrained model: hardly a chance for either label
    assert summary["validity"]["count"] == 24
    assert set(summary["labels"]) <= set(LABELS)
    assert f"mean mass of the labels {summary['mass']:.2g}" in shown.out
    assert "of the answers are valid" in shown.out
    for name, count in summary["labels"].items():
        assert f"{name} {count}" in shown.out
    assert "warning: the labels have a mean probability mass of" in shown.err
    if max(summary["labels"].values()) >= 23:
        assert "of the 24 labels are" in shown.err
    assert len(summary["warnings"]) == shown.err.count("warning:")
    assert json.loads((tmp_path / "one" / "summary.json").read_text())["warnings"] == summary["warnings"]


@pytest.mark.parametrize(
    ("answers", "warned"),
    [
        ([" positive"] * 24, True),
        ([" positive"] * 23 + [" negative"], True),
        ([" positive"] * 22 + [" negative"] * 2, False),
    ],
)
def test_one_label_that_takes_nearly_everything_is_warned_of(
    lm: LM,
    tasks: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    answers: list[str],
    warned: bool,
) -> None:
    monkeypatch.setattr(LM, "generate", lambda self, prompts, **more: answers[: len(prompts)])
    label(config(tasks, tmp_path / "x", "one", decode="generate", json=True), lm)
    assert ("labels are 'positive'" in capsys.readouterr().err) == warned
    label(config(tasks, tmp_path / "few", "one", decode="generate", json=True, limit=19), lm)
    assert "labels are 'positive'" not in capsys.readouterr().err  # too few to say


def saying(text: str) -> LM:
    """A model that always wants to say one token, over a vocabulary of whole words with and without a space and a
    capital.
    """
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    words = "positive negative Positive Negative NEGATIVE News N A a B b it is so"
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=600, special_tokens=["<end>"], initial_alphabet=alphabet, show_progress=False
    )
    raw.train_from_iterator([f" {words}"] * 50 + words.split() * 50, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="<end>", eos_token="<end>", model_max_length=256
    )
    (token,) = tokenizer(text)["input_ids"]
    model = make_model("phi", vocab_size=len(tokenizer), max_position_embeddings=256)
    with torch.no_grad():
        model.lm_head.bias[token] = 60.0
    return LM(model, tokenizer, "tiny")


@pytest.mark.parametrize(
    ("labels", "says", "valid"),
    [
        (LABELS, " negative", True),
        (LABELS, " Negative", True),
        (LABELS, "negative", True),
        (LABELS, "Negative", True),
        (LABELS, " NEGATIVE", True),
        (["Positive", "Negative"], " negative", True),
        (LABELS, " News", False),
        (LABELS, " N", False),
        (["A", "B"], "A", True),
        (["A", "B"], " b", True),
        (["A", "B"], " a", False),  # an article
    ],
)
def test_validity_ignores_case_and_a_leading_space(tmp_path: Path, labels: list[str], says: str, valid: bool) -> None:
    rows = [{"text": f"the film number {i} of many", "answer": labels[i % 2]} for i in range(4)]
    target = write_task(tmp_path, "mood", rows, fields=["text"], cue="Mood:", labels=labels)
    source = write_task(tmp_path, "fact", [{"s": "it is so", "answer": "so"}], fields=["s"])
    summary = transfer(
        CrossTaskConfig(model="tiny", sources=source, target=target, output=str(tmp_path / "run"), json=True),
        saying(says),
    )
    for row in summary["targets"]["mood"]["conditions"]:
        if row["condition"] != "vote":
            assert row["validity"]["value"] == (100 if valid else 0)
    made = label(
        LabelConfig(model="tiny", sources=source, target=target, output=str(tmp_path / "labels"), json=True),
        saying(says),
    )
    assert made["validity"]["value"] == (100 if valid else 0)


def test_the_command_shows_them(tasks: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = [
        "--model",
        "pocket",
        "--sources",
        tasks["one"],
        "--target",
        tasks["target"],
        "--output",
        str(tmp_path / "x"),
        "--limit",
        "6",
    ]
    assert main(["crosstask", "label", *given]) == 0
    out = capsys.readouterr().out
    assert "labels: " in out
    assert "valid" in out
    assert "mass" in out
