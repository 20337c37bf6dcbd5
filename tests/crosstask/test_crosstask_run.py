"""The whole way: task files -> prompts -> log-probs -> run directory, and what stands on it: labels, analysis, Ray, the
command line.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from holdfast.cli import main
from holdfast.crosstask import AnalyseConfig, CrossTaskConfig, LabelConfig, analyse, blocks, label, transfer
from holdfast.crosstask.grid import load_grid
from holdfast.crosstask.pipeline import finding
from holdfast.crosstask.predict import parse_label
from holdfast.crosstask.scoring import Reader
from holdfast.errors import HoldfastError
from holdfast.lm import LM
from materials import make_model, make_tokenizer, write_jsonl

THINGS = ["sun", "rain", "cake", "soup", "wind", "rice", "snow", "plum", "fog", "bread"]


@pytest.fixture(scope="module")
def lm() -> LM:
    tokenizer = make_tokenizer()
    tokenizer.model_max_length = 256
    return LM(make_model(max_position_embeddings=256), tokenizer, "tiny")


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four small tasks; labels of one, of several, and of colliding first tokens."""
    folder = tmp_path_factory.mktemp("library")
    tasks: dict[str, Any] = {
        "kind": {"definition": "Weather or food?", "labels": ["weather", "weathered", "food"], "fields": ["text"]},
        "length": {"definition": "Count the letters.", "labels": ["3", "4", "5"], "fields": ["text"], "cue": "Count:"},
        "first": {"definition": "Write the first letter.", "fields": ["text"], "cue": "Letter:"},
        "pair": {"definition": "Is it the same?", "labels": ["True", "False"], "fields": ["one", "two"]},
    }
    for name, given in tasks.items():
        rows = []
        for i, thing in enumerate(THINGS):
            answers = {
                "kind": "weather" if i % 2 else "food",
                "length": str(len(thing)),
                "first": thing[0],
                "pair": str(i % 2 == 0),
            }
            fields = {"one": thing, "two": THINGS[i - i % 2]} if name == "pair" else {"text": f"the {thing}"}
            rows.append(
                {"fields": fields, "answer": answers[name], "split": "train" if i < 6 else "dev" if i < 7 else "test"}
            )
        write_jsonl(folder / f"{name}.jsonl", rows)
        (folder / f"{name}.yaml").write_text(json.dumps(given))
    return folder


def config(library: Path, output: Path, **changes: Any) -> CrossTaskConfig:
    given = {
        "model": "tiny",
        "sources": str(library),
        "target": str(library / "kind.yaml"),
        "output": str(output),
        "json": True,
    }
    return CrossTaskConfig(**given | changes)


def rows(output: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (output / "rows.jsonl").read_text().splitlines()]


def test_a_run_and_everything_that_is_reported_together(lm: LM, library: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    summary = transfer(
        config(
            library, out, target=str(library), in_task="pool", with_in_task=True, mixed=["pair", "length"], dev_items=1
        ),
        lm,
    )
    assert list(summary["targets"]) == ["first", "kind", "length", "pair"]
    kind = {row["condition"]: row for row in summary["targets"]["kind"]["conditions"]}
    assert set(kind) == {
        "zero-shot",
        "in-task",
        "first",
        "first+in-task",
        "length",
        "length+in-task",
        "pair",
        "pair+in-task",
        "mixed",
        "vote",
    }
    for condition, row in kind.items():
        assert row["accuracy"]["count"] == 3
        assert row["accuracy"]["low"] <= row["accuracy"]["value"] <= row["accuracy"]["high"]
        assert sum(row["labels"].values()) == 3
        assert ("against_zero_shot" in row) == (condition != "zero-shot")
    assert {"mass", "confidence", "accuracy_batch_calibrated", "validity"} <= set(kind["pair"])
    assert summary["targets"]["first"]["free_answers"]
    choice = summary["targets"]["kind"]["choice"]
    assert set(choice) == {"definition", "confidence", "validity", "mass", "dev", "oracle"}
    assert [way for way in choice if choice[way]["uses_test_labels"]] == ["oracle"]
    assert (
        summary["labels_with_colliding_first_tokens"]["kind"] == "weather, weathered, food"
    )  # all begin with the space
    assert summary["sources"]["pair"]["against_zero_shot"]["count"] == 9
    assert summary["cost"]["tokens"] < summary["cost"]["plain_tokens"]
    found = rows(out)
    assert len(found) == (2 + 2 * 3 + 1) * 4 * 4  # conditions, targets, items
    assert set(found[0]) >= {"target", "condition", "item", "gold", "prediction", "valid", "demos"}
    assert transfer(
        config(
            library, out, target=str(library), in_task="pool", with_in_task=True, mixed=["pair", "length"], dev_items=1
        )
    ) == json.loads((out / "summary.json").read_text())


def test_what_is_written_is_strict_json(lm: LM, library: Path, tmp_path: Path) -> None:
    transfer(config(library, tmp_path / "one", limit=1, json=False), lm)  # one item: no interval, no test

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    json.loads((tmp_path / "one" / "summary.json").read_text(), parse_constant=refuse)


def logp(output: Path, condition: str) -> Any:
    return np.array(
        [list(row["logp"].values()) for row in rows(output) if row["condition"] == condition and "logp" in row]
    )


def test_shared_prefixes_equal_plain_scoring(lm: LM, library: Path, tmp_path: Path) -> None:
    transfer(config(library, tmp_path / "fast", k=2, token_budget=300), lm)
    transfer(config(library, tmp_path / "plain", k=2, exact=True), lm)
    for condition in ("zero-shot", "pair", "length", "first"):
        assert np.abs(logp(tmp_path / "fast", condition) - logp(tmp_path / "plain", condition)).max() < 1e-4


def test_no_demonstration_is_zero_shot(lm: LM, library: Path, tmp_path: Path) -> None:
    transfer(config(library, tmp_path / "k0", k=0), lm)
    assert (logp(tmp_path / "k0", "pair") == logp(tmp_path / "k0", "zero-shot")).all()


def test_a_label_of_several_tokens_is_scored_whole(lm: LM, library: Path, tmp_path: Path) -> None:
    import torch

    transfer(config(library, tmp_path / "run"), lm)
    grid = load_grid(config(library, tmp_path / "x"))
    prompt = blocks.Runner(grid, lm).cells("pair")[0].prompts[0].text
    for text, value in zip(("weather", "weathered", "food"), logp(tmp_path / "run", "pair")[0]):
        before, ids = lm.tokenizer(prompt)["input_ids"], lm.tokenizer(f"{prompt} {text}")["input_ids"]
        assert ids[: len(before)] == before
        assert len(ids) > len(before) + 1
        with torch.no_grad():
            logits = lm.model(torch.tensor([ids])).logits[0].log_softmax(-1)
        assert sum(float(logits[i - 1, ids[i]]) for i in range(len(before), len(ids))) == pytest.approx(value, abs=1e-4)


def test_the_mass_of_a_label_space_counts_no_text_twice(lm: LM, library: Path, tmp_path: Path) -> None:
    transfer(config(library, tmp_path / "run"), lm)
    row = next(row for row in rows(tmp_path / "run") if row["condition"] == "pair")
    p = {name: np.exp(value) for name, value in row["logp"].items()}
    assert row["mass"] == pytest.approx(p["weather"] + p["food"], abs=1e-6)  # "weathered" begins with "weather"


def test_greedy_generation_agrees_where_the_model_wants_to_say_a_label(lm: LM, tmp_path: Path) -> None:
    """Labels made of what this model says: then the most probable label of one token is what greedy decoding writes."""
    target = "pocket:tasks/count"
    made = config(Path("pocket:tasks/topic"), tmp_path / "x", sources="pocket:tasks/topic", target=target, limit=30)
    runner = blocks.Runner(load_grid(made), lm)
    block = runner.run("topic")
    written = blocks.Runner(load_grid(replace(made, decode="generate")), lm).run("topic").results[0].texts or []
    labels = ("2", "3", "4", "5", "6")
    scores = block.results[0].scores
    assert scores is not None
    assert (scores.lengths == scores.lengths[0, 0]).all()
    for i, text in enumerate(written):
        if scores.begins[i] and parse_label(text, labels, "paper") is not None:
            assert parse_label(text, labels, "paper") == labels[int(scores.sums[i].argmax())]


def test_a_killed_run_goes_on_from_its_whole_blocks(
    lm: LM, library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    transfer(config(library, tmp_path / "whole"), lm)
    real, ran = blocks.Runner.run, list[str]()

    def dies(self: blocks.Runner, block: str) -> Any:
        if len(ran) == 2:
            raise KeyboardInterrupt
        ran.append(block)
        return real(self, block)

    monkeypatch.setattr(blocks.Runner, "run", dies)
    with pytest.raises(KeyboardInterrupt):
        transfer(config(library, tmp_path / "killed"), lm)
    assert not (tmp_path / "killed" / "summary.json").exists()
    monkeypatch.setattr(blocks.Runner, "run", lambda self, block: ran.append(block) or real(self, block))
    transfer(config(library, tmp_path / "killed"), lm)
    assert len(ran) == len(set(ran)) == 5
    assert rows(tmp_path / "killed") == rows(tmp_path / "whole")
    with pytest.raises(HoldfastError, match=r"holds another run \(k differ\)"):
        transfer(config(library, tmp_path / "killed", k=2), lm)


@pytest.mark.parametrize("calibration", ["batch", "contextual"])
def test_calibration_in_a_run(lm: LM, library: Path, tmp_path: Path, calibration: Any) -> None:
    transfer(config(library, tmp_path / "run", calibration=calibration), lm)
    if calibration == "contextual":
        prompt = (
            blocks.Runner(load_grid(config(library, tmp_path / "x", calibration=calibration)), lm)
            .cells("pair")[0]
            .empty[0]
            .text
        )
        assert prompt.endswith("Definition: Weather or food?\nText: N/A\nAnswer:")


def test_prompts_that_are_too_long_lose_demonstrations_not_the_question(lm: LM, library: Path, tmp_path: Path) -> None:
    summary = transfer(config(library, tmp_path / "run", k=4, context=120), lm)
    pair = next(row for row in summary["targets"]["kind"]["conditions"] if row["condition"] == "pair")
    assert pair["demonstrations_dropped"] + pair["demonstrations_shortened"] > 0
    grid = load_grid(config(library, tmp_path / "x", k=4, context=120))
    runner = blocks.Runner(grid, lm)
    for prompt in runner.cells("pair")[0].prompts:
        assert prompt.text.endswith("Answer:")
        assert runner.reader is not None
        assert runner.reader.count([prompt.text])[0] <= 120
    with pytest.raises(HoldfastError, match=r"kind.jsonl, row 8: the prompt has \d+ tokens even with no demonstration"):
        transfer(config(library, tmp_path / "short", context=30), lm)
    assert not (tmp_path / "short").exists()


def test_dry_run_names_the_pieces_and_writes_nothing(
    lm: LM, library: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = transfer(config(library, tmp_path / "run", dry_run=True, json=False), lm)
    shown = capsys.readouterr().out
    assert [
        kind in shown
        for kind in ("source definition | 'Definition:", "demonstration |", "target definition |", "input |")
    ] == [True] * 4
    assert made["prompts"] == 12
    assert not (tmp_path / "run").exists()


# --- pseudo-labels -------------------------------------------------------------------------------------------------


def labels_config(library: Path, output: Path, **changes: Any) -> LabelConfig:
    given = {
        "model": "tiny",
        "sources": str(library),
        "target": str(library / "kind.yaml"),
        "output": str(output),
        "json": True,
    }
    return LabelConfig(**given | changes)


def test_pseudo_labels_are_read_by_tune_by_crosstask_and_by_a_person(lm: LM, library: Path, tmp_path: Path) -> None:
    summary = label(labels_config(library, tmp_path / "labels"), lm)
    assert summary["labelled"] + summary["abstained"] == summary["pool"] == 6
    path = tmp_path / "labels" / "labels.jsonl"
    found = [json.loads(line) for line in path.read_text().splitlines()]
    assert found[0]["prompt"] == "Definition: Weather or food?\nText: the sun\nAnswer:"
    assert found[0]["response"] == found[0]["answer"]
    from holdfast.data.examples import load_examples

    examples = load_examples(str(path))
    assert [e.messages[-1].content for e in examples] == [row["answer"] for row in found]
    again = transfer(config(library, tmp_path / "run", in_task=str(path), in_task_k=2, in_task_retriever="similar"), lm)
    assert "in-task" in {row["condition"] for row in again["targets"]["kind"]["conditions"]}


def test_answers_of_the_pool_do_not_reach_the_labels(lm: LM, library: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    write_jsonl(bare / "pool.jsonl", [{"text": f"the {thing}"} for thing in THINGS[:6]])
    label(labels_config(library, tmp_path / "a"), lm)
    label(labels_config(library, tmp_path / "b", pool=str(bare / "pool.jsonl")), lm)
    a, b = (
        [json.loads(line)["answer"] for line in (tmp_path / name / "labels.jsonl").read_text().splitlines()]
        for name in "ab"
    )
    assert a == b


def test_abstention_rounds_and_propagation(lm: LM, library: Path, tmp_path: Path) -> None:
    label(labels_config(library, tmp_path / "one", least_margin=1.0), lm)
    kept = [json.loads(line) for line in (tmp_path / "one" / "labels.jsonl").read_text().splitlines()]
    assert all(row["confidence"] == 1 for row in kept)
    more = label(labels_config(library, tmp_path / "two", lm_items=3, rounds=2, propagate="knn"), lm)
    assert more["asked_of_the_model"] == 3
    assert set(more["by_method"]) <= {"vote", "vote, round 2", "knn"}


def test_a_pool_that_holds_test_items_is_refused(lm: LM, library: Path, tmp_path: Path) -> None:
    pool = write_jsonl(tmp_path / "pool.jsonl", [{"text": "a new thing"}, {"text": "The  PLUM"}])
    with pytest.raises(
        HoldfastError,
        match=r"pool.jsonl, row 2: 1 of the 2 inputs to label of 'kind' is a test item too \(this one is .*row 8\)",
    ):
        label(labels_config(library, tmp_path / "x", pool=str(pool)), lm)
    assert not (tmp_path / "x").exists()


# --- analysis ------------------------------------------------------------------------------------------------------


def test_sums_of_states_equal_a_plain_pass(lm: LM, library: Path, tmp_path: Path) -> None:
    made = [
        blocks.Runner(load_grid(config(library, tmp_path / "x", states=True, exact=exact)), lm).run("pair")
        for exact in (False, True)
    ]
    for kind in ("centred", "raw"):
        fast, plain = (
            np.array(list(block.results[0].similarity[kind].values()))  # type: ignore[index]
            for block in made
        )
        assert np.abs(fast - plain).max() < 1e-4
        assert (np.abs(plain) <= 3 + 1e-9).all(), "three test items"


def test_analysis_of_a_run(lm: LM, library: Path, tmp_path: Path) -> None:
    transfer(config(library, tmp_path / "run", states=True, target=str(library / "length.yaml")), lm)
    summary = analyse(AnalyseConfig(run=str(tmp_path / "run"), output=str(tmp_path / "why"), json=True))
    found = summary["targets"]["length"]
    assert found["sources"] == ["first", "kind", "pair"]
    assert set(found["layers"]) == {"definitions, centred", "answers, centred", "definitions, raw", "answers, raw"}
    assert len(found["layers"]["answers, centred"]) == 3  # embeddings and two layers
    assert set(found["simple"]) == {"definitions, encoder", "valid outputs"}
    transfer(config(library, tmp_path / "stateless"), lm)
    with pytest.raises(HoldfastError, match="no target has answers, sums of states"):
        analyse(AnalyseConfig(run=str(tmp_path / "stateless"), output=str(tmp_path / "none")))
    with pytest.raises(HoldfastError, match="no finished run"):
        analyse(AnalyseConfig(run=str(tmp_path), output=str(tmp_path / "none")))


# --- bad input -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"sources": "KIND"}, "the only source is the target 'kind' itself"),
        ({"mixed": ["chess"]}, "--mixed chess: no such source; there are first, kind, length, pair"),
        ({"k": -1}, "--k is -1; it must be at least 0"),
        ({"limit": 0}, "--limit is 0"),
        ({"with_in_task": True}, "--with-in-task needs --in-task"),
        ({"endpoint": "http://localhost:1"}, "gives neither label log-probs nor hidden states"),
        ({"context": 10_000}, "--context 10000: the model takes 256 tokens"),
        ({"target": "pocket:tasks/nothing"}, "no such task"),
        ({"template": "chat"}, None),
    ],
)
def test_bad_settings(lm: LM, library: Path, tmp_path: Path, changes: dict[str, Any], says: str | None) -> None:
    if says is None:
        with pytest.raises(HoldfastError, match="--template chat, but the tokenizer has no chat template"):
            Reader(make_tokenizer(chat_template=None), "chat")
        return
    changes = {key: str(library / "kind.yaml") if value == "KIND" else value for key, value in changes.items()}
    with pytest.raises(HoldfastError, match=says):
        transfer(config(library, tmp_path / "run", **changes), lm)
    assert not (tmp_path / "run").exists()


def test_the_target_under_another_name_is_found_by_content(lm: LM, library: Path, tmp_path: Path) -> None:
    for suffix in (".yaml", ".jsonl"):
        (tmp_path / f"disguised{suffix}").write_text((library / f"kind{suffix}").read_text())
    with pytest.raises(
        HoldfastError,
        match=r"source 'disguised' is the target 'kind' under another name \(3 of 3 test items are in it\)",
    ):
        transfer(
            config(library, tmp_path / "run", sources=f"{library / 'pair.yaml'},{tmp_path / 'disguised.yaml'}"), lm
        )


def test_a_pool_that_holds_test_items_of_the_target(lm: LM, library: Path, tmp_path: Path) -> None:
    (tmp_path / "other.yaml").write_text(json.dumps({"definition": "Something else.", "fields": ["text"]}))
    write_jsonl(tmp_path / "other.jsonl", [{"text": "the snow", "answer": "x"}, {"text": "the plum", "answer": "y"}])
    with pytest.raises(
        HoldfastError,
        match=r"other.jsonl, row 2: the pool of source 'other' holds 1 test item of 'kind' \(this one is .*row 8\)",
    ):
        transfer(config(library, tmp_path / "run", sources=str(tmp_path / "other.yaml")), lm)


def test_a_source_without_labels_is_an_empty_pool(lm: LM, library: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.yaml").write_text(json.dumps({"definition": "Something else.", "fields": ["text"]}))
    write_jsonl(tmp_path / "empty.jsonl", [{"text": "x"}])
    with pytest.raises(HoldfastError, match=r"source 'empty' has an empty pool"):
        transfer(config(library, tmp_path / "run", sources=str(tmp_path / "empty.yaml")), lm)


def test_labels_with_the_same_ids(lm: LM) -> None:
    from holdfast.crosstask.scoring import Batch
    from holdfast.crosstask.tasks import make_task

    task = make_task({"definition": "d", "fields": ["t"], "labels": ["a", "b"]}, [({"t": "x"}, "row 1")], "t.yaml")
    with pytest.raises(HoldfastError, match=r"t.yaml: labels 'a' and 'b' have the same token ids"):
        Batch(Reader(lm.tokenizer), {}, [])._check_labels(task, (" a", " b"), ((5, 6), (5, 6)))


# --- the command line, and a cluster -------------------------------------------------------------------------------


def test_the_commands(library: Path, model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = [
        "--model",
        str(model_folder),
        "--sources",
        str(library),
        "--target",
        str(library / "length.yaml"),
        "--json",
    ]
    assert main(["crosstask", "run", *given, "--states", "--output", str(tmp_path / "run")]) == 0
    assert json.loads(capsys.readouterr().out)["command"] == "crosstask run"
    assert main(["crosstask", "label", *given, "--output", str(tmp_path / "labels")]) == 0
    assert main(["crosstask", "analyse", "--run", str(tmp_path / "run"), "--output", str(tmp_path / "why")]) == 0
    capsys.readouterr()
    assert main(["crosstask", "run", *given, "--k", "-1", "--output", str(tmp_path / "bad")]) == 2
    assert "error: --k is -1" in capsys.readouterr().err


@pytest.mark.full
def test_ray_gives_the_same_rows(library: Path, model_folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    for name, cluster in (("here", "none"), ("there", "ray")):
        transfer(config(library, tmp_path / name, model=str(model_folder), cluster=cluster))
    assert rows(tmp_path / "here") == rows(tmp_path / "there")


def test_the_end_names_only_sources_that_are_shown_to_help() -> None:
    def summary(count: int, **p_values: float) -> dict[str, Any]:
        tests = {name: {"p": p, "difference": 9.0, "count": count} for name, p in p_values.items()}
        return {"sources": {name: {"against_zero_shot": test} for name, test in tests.items()}}

    assert finding({"sources": {"a": {"mean_accuracy": None}}}) == ""
    assert finding(summary(6, a=0.001)) == "1 source against no example, on 6 items: too few to say"
    assert finding(summary(90, a=0.01, b=0.06)).endswith("shown to be better: a (+9.0 points)")
    assert finding(summary(90, a=0.04, b=0.3)).endswith("none is shown to be better")
