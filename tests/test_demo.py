"""The embedded model and the demo: small enough to ship, tuned in seconds, studied and reported in minutes."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path

import numpy as np
import pytest

from holdfast import cli, lm, pocket
from holdfast.data.chat_template import render
from holdfast.demo import scores
from holdfast.records import Message, Role
from holdfast.tables import lines
from holdfast.tables.demo import sentences


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
        for r, c in (
            ("system", "Be kind."),
            ("user", "hot?"),
            ("assistant", "cold"),
            ("user", "up?"),
            ("assistant", "down"),
        )
    ]
    encoded = tokenizer.apply_chat_template(dicts, return_assistant_tokens_mask=True, return_dict=True)
    from holdfast.tune.roles import assign_roles

    spans = render([Message(Role[m["role"].upper()], m["content"]) for m in dicts], "chat", tokenizer)
    tokens = assign_roles([spans], tokenizer)[0]
    assert tokens.ids.tolist() == encoded["input_ids"]
    assert [int(r in (Role.ASSISTANT, Role.EOS)) for r in tokens.roles] == encoded["assistant_masks"]


def test_the_table_tells_new_items_from_new_wordings(tmp_path: Path) -> None:
    """Two seeds of one setting; of the first 20 test items those in wordings from training are right, of the others one
    in two runs.
    """
    new = np.array([row["held_out_wording"] for row in pocket.rows("pocket:instructions/test")[:20]])
    rows = []
    for seed in range(2):
        np.savez(tmp_path / f"{seed}.npz", exact_match=np.where(new, seed, 1.0))
        test = {"response_nll": 0.4 + 0.02 * seed, "prompt_nll": 5.0, "posix": 0.5}
        rows.append({"kind": "trial", "trial": str(seed), "status": "done", "setting_name": "(0, 1)", "test": test})
        rows[-1]["items"] = {"test": f"{seed}.npz"}
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    _, head, line, *_ = lines({"command": "demo", "scores": scores(tmp_path)}).splitlines()
    assert re.split(r"  +", head.strip()) == [
        "(prompt, response)",
        "response NLL",
        "prompt NLL",
        "new items %",
        "new wordings %",
        "POSIX wording",
    ]
    cells = ["(0, 1)", "0.410 ± 0.014", "5.000 ± 0.000", "100.0 ± 0.0", "50.0 ± 70.7", "0.50 ± 0.00"]
    assert re.split(r"  +", line.strip()) == cells


@pytest.mark.full
def test_demo_in_small(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The shipped study on 64 examples per run: the story in its order, and the page. A second call shows it again at
    once.
    """
    arguments = ["demo", "--output", str(tmp_path / "demo"), "--limit", "64"]
    assert cli.main(arguments) == 0
    out = capsys.readouterr().out
    told = [line for line in out.splitlines() if line.endswith("?") or line.startswith("What does a prompt weight do?")]
    assert told[-5:] == [
        "Does the wording matter?",
        "Which weights are best?",
        "What would picking the best on the test split have sold you?",
        "What does a prompt weight do? (Asked before anything was trained.)",
        "Does an example of another task help?",
    ]
    assert out.startswith("One question in 5 wordings\n")
    assert re.search(r"changes with the wording in \d+ of 120 questions before tuning", out)
    table = [line.strip() for line in out[out.index("Test scores") :].splitlines()[1:6]]
    assert [re.split(r"  +", line)[0] for line in table] == [
        "(prompt, response)",
        "base model",
        "(0, 1)",
        "(0.2, 0.8)",
        "(1, 1)",
    ]
    base = dict(
        zip(("response NLL", "prompt NLL", "new items", "new wordings", "posix"), table[1].split()[2:], strict=True)
    )
    assert float(base["new items"]) <= 20
    assert float(base["new wordings"]) <= 20
    assert all(line.count("±") == 5 for line in table[2:])
    assert "pocket:tasks: " in out
    page = Path(out.splitlines()[-1])
    assert page.is_absolute()
    assert "<html" in page.read_text(encoding="utf-8")
    text = page.read_text(encoding="utf-8")
    for line in ("new wordings %", "One question in 5 wordings", *told[-5:]):
        assert line in html.unescape(text), "what the terminal printed is on the page"
    trained = {path: path.stat().st_mtime_ns for path in (tmp_path / "demo" / "trials").glob("*/summary.json")}
    assert len(trained) == 9
    assert cli.main(arguments) == 0
    assert capsys.readouterr().out == out
    assert {path: path.stat().st_mtime_ns for path in trained} == trained


def test_the_demo_says_what_it_will_train(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["demo", "--output", str(tmp_path / "demo"), "--dry-run"]) == 0
    assert "(0.2, 0.8)" in capsys.readouterr().out
    assert not (tmp_path / "demo").exists()


def _told(gain: float, low: float, high: float) -> list[str]:
    selection = {
        "naive": {"setting_name": "(1, 1)", "gain": gain, "luck": 0.004},
        "conventional": "(0, 1)",
        "claim": "none",
    }
    decided = {"setting": "(1, 1)", "conventional": "(0, 1)", "difference": (low + high) / 2, "low": low, "high": high}
    study = {"groups": {"pocket": {"selection": selection}}, "finding": "A tie."}
    return [answer for _, answer in sentences({"study": study, "decided": decided | {"seeds": 3}})]


def test_the_demo_claims_no_more_than_the_noise_allows() -> None:
    assert "+1.3 points of luck" in _told(0.013, -3, -2)[1]
    assert _told(0.013, -3, -2)[2].endswith(
        "lowers the prompt NLL of the test split by 2.50 nats per token [2.00, 3.00] over 3 seeds, beyond noise."
    )
    assert _told(0.013, -3, 2)[2].endswith("not beyond noise.")
