"""The embedded model and the demo: small enough to ship, tuned in seconds, compared without claiming more than the spread allows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from holdfast import lm, pocket
from holdfast.chat import render
from holdfast.config import DemoConfig
from holdfast.demo import _finding, demo, evaluate, held_out_items, interval_half_width
from holdfast.records import Message, Role


def test_the_embedded_model_is_small_and_complete() -> None:
    folder = pocket.model_path()
    assert sum(p.stat().st_size for p in folder.rglob("*")) < 8 * 2**20
    loaded = lm.load("pocket")
    assert loaded.context >= 512
    assert 1e6 <= loaded.model.num_parameters() <= 4e6
    assert loaded.model.config.model_type == "llama"


def test_its_chat_template_marks_generations_as_we_do() -> None:
    """Other trainers read the markers of the template; they and we must mean the same tokens."""
    tokenizer = lm.load_tokenizer("pocket")
    dicts = [
        {"role": r, "content": c}
        for r, c in (("system", "Be kind."), ("user", "hot?"), ("assistant", "cold"), ("user", "up?"), ("assistant", "down"))
    ]
    encoded = tokenizer.apply_chat_template(dicts, return_assistant_tokens_mask=True, return_dict=True)
    from holdfast.tune.roles import assign_roles

    spans = render([Message(Role[m["role"].upper()], m["content"]) for m in dicts], "chat", tokenizer)
    tokens = assign_roles([spans], tokenizer)[0]
    assert tokens.ids.tolist() == encoded["input_ids"]
    assert [int(r in (Role.ASSISTANT, Role.EOS)) for r in tokens.roles] == encoded["assistant_masks"]


def test_base_model_answers_few_test_items() -> None:
    scores = evaluate(lm.load("pocket"), held_out_items(100))
    assert scores["new_items"] <= 0.2
    assert scores["new_wordings"] <= 0.2


def test_demo_in_small(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = DemoConfig(output=str(tmp_path / "demo"), seeds=2, limit=256, eval_items=20)
    summary = demo(config)
    out = capsys.readouterr().out
    assert len(summary["runs"]) == 6
    assert out.count("±") >= 3 * 4
    assert str(tmp_path / "demo") in out
    rows = [json.loads(line) for line in (tmp_path / "demo" / "rows.jsonl").read_text().splitlines()]
    assert [row["kind"] for row in rows] == ["base"] + ["run"] * 6
    assert demo(config) == summary  # complete: shown again, not repeated


def rows(**groups: list[float]) -> list[dict[str, object]]:
    return [{"weighting": name, "new_wordings": value} for name, values in groups.items() for value in values]


def test_finding_claims_only_what_stands_out() -> None:
    assert "no weighting is shown to be better" in _finding(rows(base=[0.50, 0.60], other=[0.58, 0.66]))
    assert "other is worse than base by 30.0 points" in _finding(rows(base=[0.80, 0.81], other=[0.50, 0.51]))
    assert "nothing is claimed" in _finding(rows(base=[0.5], other=[0.9]))


def test_interval_of_a_difference() -> None:
    """Two groups of two: pooled variance 0.0002 / 2 per mean; t(0.975, 2) = 4.3027."""
    half = interval_half_width([[0.50, 0.52], [0.60, 0.62]], comparisons=1)
    assert half == pytest.approx(4.302653 * 0.0002**0.5, rel=1e-6)
