"""Tasks of lm-evaluation-harness: our scorer says what the harness's own says, local data, IFEval, resume, bad
input.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("lm_eval", reason="lm-evaluation-harness is not installed: pip install 'holdfast[bench]'")

from holdfast.bench import harness_scores, run
from holdfast.bench.harness import Settings, evaluate, find_tasks
from holdfast.bench.shared import harness_model
from holdfast.bench.suites import pins_of
from holdfast.cli import main
from holdfast.config import BenchConfig
from holdfast.errors import HoldfastError
from holdfast.lm import LM
from materials import make_model, make_tokenizer, write_jsonl

FAMILIES = ["llama", "gemma2", "gpt2", "cohere"]


def instance(kind: str, arguments: tuple[Any, ...]) -> Any:
    from lm_eval.api.instance import Instance

    return Instance(request_type=kind, doc={}, arguments=arguments, idx=0)


def questions(count: int) -> list[tuple[str, str]]:
    shots = "What is the capital of France? The capital of France is Paris. " * 2
    return [
        (f"{shots}Name {n} colours.", answer)
        for n in range(count)
        for answer in (" Red", " green and blue", " user", " fine")
    ]


def small(family: str, context: int = 128) -> LM:
    tokenizer = make_tokenizer()
    tokenizer.model_max_length = context
    return LM(make_model(family), tokenizer, family)


@pytest.mark.parametrize("family", FAMILIES)
def test_our_scorer_agrees_with_the_harness(family: str) -> None:
    lm = small(family)
    asks = [instance("loglikelihood", pair) for pair in questions(5)]
    asks.append(instance("loglikelihood", ("Name three colours. " * 60, " Red, green")))  # cut from the left by both
    models = [harness_model(lm, batch_size=8, template="none", sharing=sharing) for sharing in (True, False)]
    ours, theirs = (model.loglikelihood(asks, disable_tqdm=True) for model in models)
    np.testing.assert_allclose([a for a, _ in ours], [a for a, _ in theirs], atol=1e-4)
    assert [g for _, g in ours] == [g for _, g in theirs]


def test_greedy_is_said_where_it_is_true() -> None:
    lm = small("llama")
    shot = "Name three colours."
    text = lm.generate([shot], max_new_tokens=1)[0]
    asks = [instance("loglikelihood", (shot, answer)) for answer in (text, " Paris", " Red", " hello")] * 4
    made = harness_model(lm, batch_size=8, template="none").loglikelihood(asks, disable_tqdm=True)
    assert made[0][1] == (lm.tokenizer.encode(shot + text) == lm.tokenizer.encode(shot) + lm.tokenizer.encode(text))
    assert made == made[:4] * 4


@pytest.mark.parametrize("family", FAMILIES)
def test_answers_in_batches_are_those_one_by_one(family: str) -> None:
    lm = small(family)
    prompts = ["Name three colours.", "What is the capital of France? " * 3, "hello", "user assistant system tool"]
    asks = [
        instance("generate_until", (p, {"until": ["zzz"], "max_gen_toks": 12, "do_sample": False})) for p in prompts
    ]
    whole = harness_model(lm, batch_size=4, template="none").generate_until(asks, disable_tqdm=True)
    single = harness_model(lm, batch_size=1, template="none").generate_until(asks, disable_tqdm=True)
    assert whole == single
    assert any(whole)
    assert lm.generate(prompts, max_new_tokens=12, batch_size=4) == lm.generate(
        prompts, max_new_tokens=12, batch_size=1
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_answers_are_those_of_the_harness(family: str) -> None:
    """Stop texts, limits and cut contexts of all kinds, with shared beginnings; what is sampled is left to the
    harness.
    """
    lm = small(family)
    shots = "Name three colours. red, green, blue\n\n" * 4
    free = lm.generate([shots + "hello"], max_new_tokens=12)[0]
    prompts = [shots + text for text in ("Name a city.", "hello", "user", "What is the capital of France?")]
    asks = [
        instance("generate_until", (prompt, settings))
        for settings in (
            {"until": ["zzz"], "max_gen_toks": 12, "do_sample": False},
            {"until": [free[3:5], "qq"], "max_gen_toks": 12},
            {"until": free[2:4], "max_gen_toks": 70, "temperature": 0.0},  # contexts are cut on the left
            {"until": [], "max_new_tokens": 3},
        )
        for prompt in prompts
    ]
    ours, theirs = (
        harness_model(lm, batch_size=1, template="none", sharing=sharing).generate_until(asks, disable_tqdm=True)
        for sharing in (True, False)
    )
    assert ours == theirs
    assert len(set(ours)) > 4
    sampled = [
        instance(
            "generate_until", (prompts[0], {"until": [], "max_gen_toks": 3, "do_sample": True, "temperature": 5.0})
        )
    ]
    model, drawn = harness_model(lm, batch_size=1, template="none"), set()
    for seed in range(4):
        torch.manual_seed(seed)
        drawn |= set(model.generate_until(sampled, disable_tqdm=True))
    assert len(drawn) > 1


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A random model with room for five examples."""
    folder = tmp_path / "tiny"
    make_model(max_position_embeddings=2048).save_pretrained(folder)
    tokenizer = make_tokenizer()
    tokenizer.model_max_length = 2048
    tokenizer.save_pretrained(folder)
    return folder


def test_mmlu_is_the_same_by_either_scorer(shared: Path, tiny: Path, tmp_path: Path) -> None:
    from holdfast.lm import load

    lm, pins = load(str(tiny)), pins_of(["mmlu_abstract_algebra"])
    found = []
    for sharing in (True, False):
        settings = Settings("none", tmp_path / str(sharing), str(shared / "data"), limit=12, sharing=sharing)
        found.append(evaluate(lm, find_tasks(pins, settings), settings))
    ours, theirs = ([s["filtered_resps"] for s in f["samples"]["mmlu_abstract_algebra"]] for f in found)
    np.testing.assert_allclose([[r[0] for r in q] for q in ours], [[r[0] for r in q] for q in theirs], atol=1e-4)
    assert (
        found[0]["results"]["mmlu_abstract_algebra"]["acc,none"]
        == found[1]["results"]["mmlu_abstract_algebra"]["acc,none"]
    )
    assert found[0]["n-shot"]["mmlu_abstract_algebra"] == 5
    assert found[0]["samples"]["mmlu_abstract_algebra"][0]["arguments"][0][0].count("Answer:") == 6


def test_a_run_leaves_rows_scores_and_the_harness_files(shared: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    tasks = "mmlu_anatomy,mmlu_flan_n_shot_generative_anatomy"
    config = BenchConfig(
        model="pocket", tasks=tasks, data_dir=str(shared / "data"), limit=5, output=str(out), max_new_tokens=8
    )
    summary = run(config)
    rows = [json.loads(line) for line in (out / "rows.jsonl").read_text().splitlines()]
    assert [row["benchmark"] for row in rows] == [t for t in tasks.split(",") for _ in range(5)]
    assert {row["shots"] for row in rows} == {0, 5}
    score = summary["scores"]["mmlu_anatomy"]["acc,none"]
    assert score["value"] == np.mean([row["scores"]["acc,none"] for row in rows[:5]])
    assert score["low"] <= score["value"] <= score["high"]
    assert {"exact_match,flexible-extract", "empty", "words"} <= summary["scores"][
        "mmlu_flan_n_shot_generative_anatomy"
    ].keys()
    assert summary["resolved"]["template"] == "chat"
    assert "<|assistant|>" in rows[0]["prompt"]
    results = json.loads((out / "lm-eval" / "results.json").read_text())
    assert results["results"]["mmlu_anatomy"]["acc,none"] == score["value"]
    assert {"versions", "n-shot", "configs", "n-samples"} <= results.keys()
    assert len((out / "lm-eval" / "samples_mmlu_anatomy.jsonl").read_text().splitlines()) == 5
    assert run(config) == summary


def test_what_is_answered_is_not_asked_again(shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import transformers

    out = tmp_path / "run"
    config = BenchConfig(
        model="pocket", tasks="mmlu_anatomy,mmlu_flan_n_shot_generative_anatomy", data_dir=str(shared / "data"),
        limit=3, output=str(out),
        max_new_tokens=4,
    )  # fmt: skip
    before = run(config)
    (out / "summary.json").unlink()
    (out / "rows.jsonl").unlink()

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("the model was asked again")

    monkeypatch.setattr(transformers.LlamaForCausalLM, "forward", refuse)
    after = run(config)
    assert after["scores"] == before["scores"]


def test_groups_are_one_benchmark(tmp_path: Path, model_folder: Path) -> None:
    """BBH, from local files in its own form; a group's score counts every item once."""
    import lm_eval.tasks
    import yaml

    home = Path(lm_eval.tasks.__file__).parent / "bbh" / "zeroshot"
    members = yaml.safe_load((home / "_bbh_zeroshot.yaml").read_text())["task"]
    (tmp_path / "data" / "bbh").mkdir(parents=True)
    for name in members:
        rows = [{"input": f"{n} more?\nOptions:\n(A) yes\n(B) no\nList: b a", "target": "(A)"} for n in range(2)]
        write_jsonl(tmp_path / "data" / "bbh" / f"{name.removeprefix('bbh_zeroshot_')}.jsonl", rows)
    config = BenchConfig(
        model=str(model_folder),
        suite="reasoning",
        data_dir=str(tmp_path / "data"),
        output=str(tmp_path / "run"),
        max_new_tokens=2,
    )
    summary = run(config)
    assert summary["items"] == 2 * len(members) == 54
    assert summary["benchmarks"]["bbh_zeroshot"]["metric"] == "exact_match,flexible-extract"
    assert summary["benchmarks"]["bbh_zeroshot"]["n"] == 54
    assert summary["averages"]["of"] == ["bbh_zeroshot"]
    assert "paper_average" not in summary["averages"]


@pytest.fixture
def sentences(tmp_path: Path, shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sentence splitter in the place of nltk's punkt_tab, which cannot be downloaded here: trained by nltk on text of
    ours.
    """
    nltk = pytest.importorskip("nltk", reason="nltk is not installed: pip install 'holdfast[bench]'")
    try:
        nltk.data.find("tokenizers/punkt_tab")
        return
    except LookupError:
        pass
    from nltk.tokenize.punkt import PunktTrainer, save_punkt_params

    folder = tmp_path / "nltk" / "tokenizers" / "punkt_tab" / "english"
    folder.mkdir(parents=True)
    monkeypatch.setattr(nltk.data, "path", [str(tmp_path / "nltk"), *nltk.data.path])
    rows = [json.loads(line) for line in (shared / "data" / "dolly_3k" / "data.jsonl").read_text().split("\n")[:150]]
    trainer = PunktTrainer()
    trainer.train("\n".join(m["content"] for row in rows for m in row["messages"]))
    save_punkt_params(trainer.get_params(), dir=str(folder))


@pytest.mark.usefixtures("sentences")
def test_ifeval_at_every_level(shared: Path, tmp_path: Path) -> None:
    config = BenchConfig(
        model=str(shared / "models" / "stories260k"), suite="instructions", data_dir=str(shared / "data"), limit=10,
        output=str(tmp_path / "run"), max_new_tokens=40,
    )  # fmt: skip
    summary = run(config)
    scores = summary["scores"]["ifeval"]
    levels = [f"{unit}_level_{rule}_acc,none" for unit in ("prompt", "inst") for rule in ("strict", "loose")]
    assert {*levels, "empty", "words"} == scores.keys()
    rows = [json.loads(line) for line in (tmp_path / "run" / "rows.jsonl").read_text().splitlines()]
    followed = [v for row in rows for v in row["scores"][levels[2]]]
    assert scores[levels[2]]["value"] == pytest.approx(np.mean(followed))
    assert scores[levels[2]]["values"] == len(followed) > 10 == scores[levels[0]]["n"] == scores[levels[2]]["n"]
    assert scores["words"]["value"] == pytest.approx(np.mean([len(row["answer"].split()) for row in rows]))
    assert summary["benchmarks"]["ifeval"]["metric"] == levels[2]
    assert json.loads((tmp_path / "run" / "lm-eval" / "results.json").read_text())["results"]["ifeval"][
        levels[2]
    ] == pytest.approx(scores[levels[2]]["value"])


def test_ifeval_without_sentence_data_stops_before_the_model_loads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nltk = pytest.importorskip("nltk")
    monkeypatch.setattr(nltk.data, "path", [str(tmp_path)])
    with pytest.raises(HoldfastError, match="punkt_tab") as caught:
        run(BenchConfig(model="no/such-model", suite="instructions", output=str(tmp_path / "run")))
    assert caught.value.hint == "python -m nltk.downloader punkt_tab"
    assert not (tmp_path / "run").exists()


def test_scores_for_a_study(shared: Path) -> None:
    found = harness_scores("pocket", ["mmlu_anatomy"], data_dir=str(shared / "data"), limit=6)["mmlu_anatomy"]
    assert found["metric"] == "acc,none"
    assert len(found["items"]) == 6
    assert set(found["items"]) <= {0.0, 1.0}
    assert found["value"] == np.mean(found["items"])


def test_tasks_of_ones_own(model_folder: Path, tmp_path: Path) -> None:
    data = write_jsonl(tmp_path / "rows.jsonl", [{"q": f"{n} plus 1?", "a": str(n + 1)} for n in range(4)])
    (tmp_path / "mine.yaml").write_text(
        f"task: my_sums\ndataset_path: json\ndataset_kwargs: {{data_files: {{test: {data}}}}}\ntest_split: test\n"
        "output_type: generate_until\ndoc_to_text: '{{q}}'\ndoc_to_target: '{{a}}'\n"
        'generation_kwargs: {until: ["\\n"], max_gen_toks: 4}\n'
        "metric_list: [{metric: exact_match}]\nmetadata: {version: 7}\n"
    )
    summary = run(
        BenchConfig(model=str(model_folder), tasks="my_sums", data_dir=str(tmp_path), output=str(tmp_path / "run"))
    )
    assert summary["scores"]["my_sums"]["exact_match,none"]["n"] == 4
    assert json.loads((tmp_path / "run" / "rows.jsonl").read_text().splitlines()[0])["version"] == "7"


def test_dry_run_shows_the_prompt_and_loads_no_model(
    shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.nn.Module, "to", lambda *_: pytest.fail("a model was loaded"))
    data = str(shared / "data")
    summary = run(
        BenchConfig(model="pocket", tasks="mmlu_anatomy", data_dir=data, output=str(tmp_path / "x"), dry_run=True)
    )
    assert summary["benchmarks"]["mmlu_anatomy"] == {"tasks": 1, "items": 40}
    assert "about anatomy" in capsys.readouterr().out
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--suite", "knowlege"], "did you mean 'knowledge'"),
        (["--tasks", "mmlu_anatomi", "--data-dir", "."], "did you mean 'mmlu_anatomy'"),
        ([], "nothing to run"),
        (["--tasks", "mmlu_anatomy", "--data-dir", "{empty}"], "wanted: mmlu/dev*.jsonl"),
        (["--tasks", "mmlu_anatomy", "--data-dir", "{no_dev}"], "no 'dev' rows"),
        (["--tasks", "mmlu_anatomy", "--data-dir", "{broken}"], "dev.jsonl, row 2: broken JSON"),
        (["--tasks", "mmlu_anatomy", "--data-dir", "nowhere"], "no such folder"),
        (["--tasks", "mmlu_anatomy", "--data-dir", "{odd}"], "has the form of the rows"),
        (["--tasks", "mmlu_anatomy"], "--data-dir with local files"),
        (["--suite", "chat", "--judge-url", "http://x"], "needs both"),
        (["--suite", "chat", "--judge-url", "x", "--judge-model", "m"], "http://"),
        (["--tasks", "mmlu_anatomy", "--limit", "0"], "--limit is 0; it must be at least 1"),
    ],
)
def test_bad_input_is_explained(
    arguments: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("empty", "no_dev", "broken", "odd"):
        (tmp_path / name / "mmlu").mkdir(parents=True)
    row = {"question": "?", "choices": ["1", "2", "3", "4"], "answer": 0, "subject": "anatomy"}
    write_jsonl(tmp_path / "no_dev" / "mmlu" / "test.jsonl", [row])
    write_jsonl(tmp_path / "broken" / "mmlu" / "test.jsonl", [row])
    (tmp_path / "broken" / "mmlu" / "dev.jsonl").write_text(json.dumps(row) + "\n{\n")
    for split in ("dev", "test"):
        write_jsonl(tmp_path / "odd" / "mmlu" / f"{split}.jsonl", [{"question": "?", "subject": "anatomy"}])
    folders = {name: str(tmp_path / name) for name in ("empty", "no_dev", "broken", "odd")}
    code = main(
        [
            "bench",
            "run",
            "--model",
            "pocket",
            "--output",
            str(tmp_path / "run"),
            *(a.format(**folders) for a in arguments),
        ]
    )
    assert code == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "run" / "summary.json").exists()


def test_a_chat_template_that_is_not_there(tmp_path: Path, shared: Path) -> None:
    make_model().save_pretrained(tmp_path / "bare")
    make_tokenizer(chat_template=None).save_pretrained(tmp_path / "bare")
    config = BenchConfig(
        model=str(tmp_path / "bare"),
        tasks="mmlu_anatomy",
        data_dir=str(shared / "data"),
        template="chat",
        output=str(tmp_path / "run"),
    )
    with pytest.raises(HoldfastError, match="has no chat template"):
        run(config)


def test_a_missing_harness_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "lm_eval.tasks", None)
    with pytest.raises(HoldfastError, match="not installed") as caught:
        run(BenchConfig(model="pocket", tasks="mmlu_anatomy", output=str(tmp_path / "run")))
    assert caught.value.hint == 'pip install "holdfast[bench]"'


def test_the_example_is_a_configuration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    example = Path(__file__).resolve().parents[2] / "examples" / "bench.yaml"
    code = main(
        [
            "bench",
            "run",
            "--config",
            str(example),
            "--suite",
            "",
            "--tasks",
            "nothing_like_it",
            "--output",
            str(tmp_path / "run"),
        ]
    )
    assert code == 2
    assert "no task 'nothing_like_it'" in capsys.readouterr().err


def test_a_model_is_asked_as_it_was_tuned(tmp_path: Path, tokenizer: Any) -> None:
    from holdfast.data.chat_template import template_for

    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    (tmp_path / "config.json").write_text(json.dumps({"resolved": {"templates": {"alpaca": 40}}}))
    assert template_for(str(tmp_path), "auto", tokenizer) == "alpaca"
    assert template_for(str(tmp_path / "model"), "auto", tokenizer) == "alpaca"
    assert template_for(str(tmp_path), "none", tokenizer) == "none"
    assert template_for("pocket", "auto", tokenizer) == "chat"
    assert template_for("pocket", "auto", make_tokenizer(chat_template=None)) == "none"
    with pytest.raises(HoldfastError, match="--template alpacca"):
        template_for("pocket", "alpacca", tokenizer)
