"""The whole command: sets in, run directory out; continued, extended, compared, gated; bad input refused before
anything is written.
"""

from __future__ import annotations

import json
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from holdfast.cli import main
from holdfast.config import CheckConfig, CompareConfig, SensitivityConfig
from holdfast.errors import HoldfastError
from holdfast.sensitivity import check, compare, measure
from holdfast.sensitivity import pipeline as pipelines
from holdfast.sensitivity.index import psi, psi_signed
from holdfast.sensitivity.score import Local
from materials import make_model, make_tokenizer, write_jsonl

ROWS = [
    {
        "set_id": "fr",
        "variant_id": "o",
        "kind": "original",
        "prompt": "What is the capital of France?",
        "target": "Paris",
    },
    {"set_id": "fr", "variant_id": "a", "kind": "wording", "prompt": "Name the capital of France.", "target": "Paris"},
    {"set_id": "fr", "variant_id": "b", "kind": "wording", "prompt": "capital of France?", "target": "Paris"},
    {"set_id": "col", "variant_id": "o", "kind": "original", "prompt": "Name three colours.", "target": "red"},
    {"set_id": "col", "variant_id": "a", "kind": "wording", "prompt": "Which are three colours?", "target": "red"},
    {"set_id": "col", "variant_id": "b", "kind": "wording", "prompt": "Three colours, please.", "target": "red"},
]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two random models with one tokenizer."""
    folders = []
    for seed in (0, 1):
        folder = tmp_path_factory.mktemp(f"model{seed}")
        make_model(seed=seed).save_pretrained(folder)
        make_tokenizer(bos=True).save_pretrained(folder)
        folders.append(str(folder))
    return folders


@pytest.fixture
def sets(tmp_path: Path) -> str:
    return str(write_jsonl(tmp_path / "sets.jsonl", ROWS))


def config(model: str, source: str, output: Path, **more: Any) -> SensitivityConfig:
    return SensitivityConfig(
        **{"model": model, "sets": source, "output": str(output), "max_new_tokens": 6, "bootstrap": 200, **more}
    )


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "rows.jsonl").open()]


def test_a_run_leaves_rows_matrices_summary_and_the_shape_of_the_harness(
    models: list[str], sets: str, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    summary = measure(config(models[0], sets, out, variants="spelling,templates", per_kind=3, mixture=2))
    assert set(summary["posix"]) == {"all", "wording", "spelling", "templates", "mixture"}
    rows = rows_of(out)
    assert [row["set_id"] for row in rows] == ["fr", "col"]
    with np.load(out / rows[0]["matrix"]) as matrix:
        assert matrix["logp_XY"].shape == (9, 9)
        assert rows[0]["indices"]["all"]["psi"] == pytest.approx(psi(matrix["logp_XY"], matrix["len_Y"]))
        wording = matrix["logp_XY"][:3, :3], matrix["len_Y"][:3]
        assert rows[0]["indices"]["wording"]["psi"] == pytest.approx(psi(*wording))
        assert rows[0]["indices"]["wording"]["psi_signed"] == pytest.approx(psi_signed(*wording))
        assert np.nansum(matrix["token_logp"], -1) == pytest.approx(matrix["logp_XY"], abs=1e-4)
    assert summary["posix"]["all"]["mean"] == pytest.approx(
        np.mean([r["indices"]["all"]["psi"] for r in rows]), abs=1e-6
    )
    assert summary["posix"]["all"]["low"] <= summary["posix"]["all"]["mean"] <= summary["posix"]["all"]["high"]
    assert summary["audit"]["cells"] >= 4
    assert summary["audit"]["max_difference"] < 1e-4
    assert set(summary["targets"]["wording"]) >= {
        "accuracy",
        "prompt_sensi_score",
        "spread",
        "cps",
        "per_case",
        "performance_drop",
    }
    mixture = rows[0]["indices"]["mixture"]["prompts"]
    assert mixture == 2 + 2 + 2
    (results,), (samples,) = list(out.glob("results_*.json")), list(out.glob("samples_*.jsonl"))
    found = json.loads(results.read_text())
    assert found["results"]["holdfast_sensitivity"]["posix_all,none"] == summary["posix"]["all"]["mean"]
    sample = json.loads(samples.read_text().splitlines()[0])
    assert {
        "doc_id",
        "doc",
        "target",
        "arguments",
        "resps",
        "filtered_resps",
        "doc_hash",
        "prompt_hash",
        "target_hash",
    } <= sample.keys()
    assert sample["resps"] == [[rows[0]["variants"][0]["response"]]]
    assert json.loads((out / "summary.json").read_text()) == json.loads(json.dumps(summary))


def test_attribution_adds_up(models: list[str], sets: str, tmp_path: Path) -> None:
    measure(config(models[0], sets, tmp_path / "out"))
    for row in rows_of(tmp_path / "out"):
        value, found = row["indices"]["all"]["psi"], row["attribution"]["all"]
        assert np.mean(list(found["by_prompt"].values())) == pytest.approx(value, abs=1e-5)
        assert np.mean(list(found["by_response"].values())) == pytest.approx(value, abs=1e-5)
        with np.load(tmp_path / "out" / row["matrix"]) as matrix:
            names = [v["variant_id"] for v in row["variants"]]
            top = found["pairs"][0]
            x, y = names.index(top["prompt"]), names.index(top["response_of"])
            logp_XY, len_Y = matrix["logp_XY"], matrix["len_Y"]
            assert top["shift"] == pytest.approx((logp_XY[y, y] - logp_XY[x, y]) / len_Y[y], abs=1e-5)
            told = found["tokens"][0]
            y = names.index(told["response_of"])
            gaps = np.abs(matrix["token_logp"][y, y] - matrix["token_logp"][[i for i in range(3) if i != y], y]).mean(0)
            assert [s for _, s in told["tokens"]] == pytest.approx(gaps[: len_Y[y]], abs=1e-4)


def test_exact_and_fast_agree_and_the_kinds_alone_cost_less(models: list[str], sets: str, tmp_path: Path) -> None:
    more = {"variants": "spelling,templates", "per_kind": 4}
    fast = measure(config(models[0], sets, tmp_path / "fast", **more))
    exact = measure(config(models[0], sets, tmp_path / "exact", exact=True, **more))
    kinds = measure(config(models[0], sets, tmp_path / "kinds", pairs="kinds", **more))
    assert exact["way"].startswith("plain")
    for view in ("wording", "spelling", "templates"):
        assert fast["posix"][view]["mean"] == pytest.approx(exact["posix"][view]["mean"], abs=1e-4)
        assert fast["posix"][view]["mean"] == pytest.approx(kinds["posix"][view]["mean"], abs=1e-4)
    assert "all" not in kinds["posix"]
    assert kinds["cost"]["tokens"] < fast["cost"]["tokens"] < exact["cost"]["tokens"]


def test_a_complete_run_is_returned_and_a_killed_one_continues(
    models: list[str], sets: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipelines, "SETS_PER_BATCH", 1)
    whole = measure(config(models[0], sets, tmp_path / "whole"))
    complete, calls = Local.complete, []

    def killed(self: Local, tasks: Any, known: Any) -> None:
        calls.append([t.name for t in tasks])
        if len(calls) == 2:
            raise KeyboardInterrupt
        complete(self, tasks, known)

    monkeypatch.setattr(Local, "complete", killed)
    with pytest.raises(KeyboardInterrupt):
        measure(config(models[0], sets, tmp_path / "out"))
    assert not (tmp_path / "out" / "summary.json").exists()
    continued = measure(config(models[0], sets, tmp_path / "out"))
    assert calls == [["fr"], ["col"], ["col"], ["col and fr"]]  # last, the unrelated prompts
    assert continued["posix"] == whole["posix"]
    assert measure(config(models[0], sets, tmp_path / "out")) == json.loads(
        (tmp_path / "out" / "summary.json").read_text()
    )
    assert len(calls) == 4
    with pytest.raises(HoldfastError, match=r"holds another run .*max_new_tokens"):
        measure(config(models[0], sets, tmp_path / "out", max_new_tokens=3))


def test_an_edited_sets_file_costs_one_row_and_one_column(models: list[str], sets: str, tmp_path: Path) -> None:
    out, cache = tmp_path / "out", str(tmp_path / "cache")
    measure(config(models[0], sets, out))
    before = rows_of(out)[0]["indices"]["all"]["psi"]
    more = {"set_id": "fr", "variant_id": "c", "kind": "wording", "prompt": "France: capital?", "target": "Paris"}
    write_jsonl(Path(sets), [*ROWS, more])
    again = measure(config(models[0], sets, out))
    fresh = measure(config(models[0], sets, tmp_path / "fresh", cache=cache))
    assert again["posix"]["all"]["mean"] == pytest.approx(fresh["posix"]["all"]["mean"], abs=1e-5)
    assert again["cost"]["tokens"] < fresh["cost"]["tokens"] / 2
    assert rows_of(out)[0]["indices"]["all"]["psi"] != before
    shared = measure(config(models[0], sets, tmp_path / "shared", cache=cache))
    assert shared["cost"]["tokens"] == 0
    other = measure(
        config(models[1], sets, tmp_path / "other", cache=cache)
    )  # other weights: nothing is taken from the cache
    assert other["cost"]["tokens"] > 0


def test_chat_templates_and_exemplars_are_part_of_what_is_measured(
    models: list[str], sets: str, tmp_path: Path
) -> None:
    dev = str(
        write_jsonl(
            tmp_path / "dev.jsonl", [{"question": "1 + 1?", "answer": "2"}, {"question": "2 + 2?", "answer": "4"}]
        )
    )
    some: dict[str, Any] = {"variants": "templates", "per_kind": 2}
    plain = measure(config(models[0], sets, tmp_path / "plain", **some))
    chat = measure(config(models[0], sets, tmp_path / "chat", **some, chat=True, system="Be short."))
    shots = measure(config(models[0], sets, tmp_path / "shots", **some, shots=2, shots_data=dev))
    fixed = measure(config(models[0], sets, tmp_path / "fixed", **some, shots=2, shots_data=dev, shots_layout="fixed"))
    assert len({s["posix"]["all"]["mean"] for s in (plain, chat, shots, fixed)}) == 4
    assert (plain["chat"], chat["chat"], shots["shots"]) == (False, True, 2)

    def prompts(name: str) -> dict[str, str]:
        (file,) = (tmp_path / name).glob("samples_*.jsonl")
        samples = [json.loads(line) for line in file.open()]
        return {
            s["doc"]["variant_id"]: s["arguments"]["gen_args_0"]["arg_0"] for s in samples if s["doc"]["set_id"] == "fr"
        }

    assert prompts("chat")["o"] == (
        "<|im_start|>system\nBe short.<|im_end|>\n<|im_start|>user\nWhat is the capital of "
        "France?<|im_end|>\n<|im_start|>assistant\n"
    )
    assert prompts("shots")["o"] == "Q:1 + 1?\nA: 2\n\nQ:2 + 2?\nA: 4\n\nWhat is the capital of France?"
    assert prompts("shots")["templates-0"] == "q:1 + 1?\na: 2\n\nq:2 + 2?\na: 4\n\nq:What is the capital of France?\na:"
    assert prompts("fixed")["templates-0"] == "Q:1 + 1?\nA: 2\n\nQ:2 + 2?\nA: 4\n\nq:What is the capital of France?\na:"
    with pytest.raises(HoldfastError, match="needs --shots-data"):
        measure(config(models[0], sets, tmp_path / "x", shots=1))
    with pytest.raises(HoldfastError, match="only 2 exemplars"):
        measure(config(models[0], sets, tmp_path / "x", shots=3, shots_data=dev))
    with pytest.raises(HoldfastError, match="--system needs --chat"):
        measure(config(models[0], sets, tmp_path / "x", system="Be short."))


def test_the_preset_of_the_paper(models: list[str], tmp_path: Path) -> None:
    prompts = write_jsonl(
        tmp_path / "p.jsonl",
        [
            {
                "question": "Which one of these many things here is a bright colour?",
                "choices": ["dog", "red"],
                "answer": "B",
            }
        ],
    )
    texts = [{"id": "1", "paraphrases": [f"Paraphrase {chr(97 + i)}: which is a colour?" for i in range(20)]}]
    summary = measure(
        config(
            models[0],
            "",
            tmp_path / "out",
            sets=None,
            prompts=str(prompts),
            recipe="paper",
            max_new_tokens=5,
            paraphrases=str(write_jsonl(tmp_path / "para.jsonl", texts)),
        )
    )
    (row,) = rows_of(tmp_path / "out")
    sizes = {view: found["prompts"] for view, found in row["indices"].items()}
    assert sizes == {"spelling": 21, "templates": 21, "paraphrases": 21, "mixture": 21}
    assert summary["prompts"] == 61


def test_sets_that_cannot_be_measured_are_skipped_and_counted_or_refused(models: list[str], tmp_path: Path) -> None:
    source = str(write_jsonl(tmp_path / "sets.jsonl", [*ROWS, {"set_id": "one", "prompt": "alone"}, ["same", "same"]]))
    summary = measure(config(models[0], source, tmp_path / "out"))
    assert summary["skipped"]["count"] == 2
    assert "set 'one'" in summary["skipped"]["first"][0]
    assert "row 7" in summary["skipped"]["first"][0]
    with pytest.raises(HoldfastError, match=r"set 'one' .*row 7.* fewer than two distinct"):
        measure(config(models[0], source, tmp_path / "strict", strict=True))
    with pytest.raises(HoldfastError, match="no set has two distinct prompts"):
        measure(config(models[0], str(write_jsonl(tmp_path / "b.jsonl", [["same", "same"]])), tmp_path / "none"))


@pytest.mark.parametrize(
    ("more", "match"),
    [
        ({"sets": None}, "give either --sets"),
        ({"prompts": "x.jsonl"}, "give either --sets"),
        ({"sets": None, "prompts": "x.jsonl"}, "--prompts needs --variants"),
        ({"variants": "speling"}, "unknown kind"),
        ({"variants": "wording"}, "unknown kind"),
        ({"max_new_tokens": 0}, "--max-new-tokens is 0; it must be at least 1"),
        ({"max_new_tokens": 127}, r"set 'fr', prompt 0 has \d+ tokens; with 127 new ones"),
        ({"answers": "guess"}, "unknown answer rule"),
        ({"cluster": "ray", "backend": "openai", "endpoint": "http://x"}, "--cluster ray is for"),
        ({"exact": True, "backend": "openai"}, "--exact is for"),
        ({"model": "absent/folder/model"}, "no such model folder"),
    ],
)
def test_bad_input_is_refused_before_anything_is_written(
    models: list[str], sets: str, tmp_path: Path, more: dict[str, Any], match: str
) -> None:
    with pytest.raises(HoldfastError, match=match):
        measure(config(**{"model": models[0], "source": sets, "output": tmp_path / "out"} | more))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["all", "mixture"])
def test_a_kind_that_would_replace_a_view_is_refused(
    models: list[str], tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_jsonl(
        tmp_path / "sets.jsonl", [row | {"kind": kind if row["kind"] == "wording" else row["kind"]} for row in ROWS]
    )
    assert (
        main(["sensitivity", "run", "--model", models[0], "--sets", str(path), "--output", str(tmp_path / "out")]) == 2
    )
    assert f"sets.jsonl, row 2: the kind '{kind}' is a name of the results" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_made_variants_do_not_take_the_ids_of_those_in_the_file(models: list[str], tmp_path: Path) -> None:
    rows = [row | {"variant_id": "spelling-0" if row["variant_id"] == "a" else row["variant_id"]} for row in ROWS]
    path = write_jsonl(tmp_path / "sets.jsonl", rows)
    with pytest.raises(
        HoldfastError,
        match=r"row 2: variant_id 'spelling-0' of set 'fr' is the name of a variant that --variants makes",
    ):
        measure(config(models[0], str(path), tmp_path / "out", variants="spelling", per_kind=2))
    assert not (tmp_path / "out").exists()


def test_the_dry_run_shows_the_first_set_and_the_cost(
    models: list[str], sets: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = measure(config(models[0], sets, tmp_path / "out", dry_run=True))
    shown = capsys.readouterr().out
    assert "Name the capital of France." in shown
    assert f"at most {found['token_forwards_at_most']:,} token-forwards" in shown
    run = measure(config(models[0], sets, tmp_path / "out"))
    assert run["cost"]["tokens"] <= found["token_forwards_at_most"] < found["plain_token_forwards"]


def test_compare_and_check_over_the_command_line(
    models: list[str], sets: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    for model, out in ((models[0], a), (models[1], b)):
        assert (
            main(
                ["sensitivity", "run", "--model", model, "--sets", sets, "--output", str(out), "--max-new-tokens", "6"]
            )
            == 0
        )
    capsys.readouterr()
    assert main(["sensitivity", "compare", str(a), str(b)]) == 0
    assert "Sets that moved most" in capsys.readouterr().out
    found = compare(CompareConfig(run_a=str(a), run_b=str(b), output=str(tmp_path / "cmp"), json=True))
    low, high = sorted((a, b), key=lambda run: json.loads((run / "summary.json").read_text())["posix"]["all"]["mean"])
    row = found["by_kind"]["all"]
    psi_a, psi_b = ([r["indices"]["all"]["psi"] for r in rows_of(run)] for run in (a, b))
    assert row["difference"] == pytest.approx(np.mean(psi_b) - np.mean(psi_a))
    assert json.loads((tmp_path / "cmp" / "comparison.json").read_text())["by_kind"]["all"]["p"] == row["p"]

    assert main(["sensitivity", "check", str(a), "--baseline", str(a), "--output", str(tmp_path / "ok")]) == 0
    result = check(
        CheckConfig(run=str(high), baseline=str(low), max_increase=0.0, output=str(tmp_path / "gate"), json=True)
    )
    worse = [v for v, r in result["by_kind"].items() if r["difference"] > 0 and r["low"] > 0]
    assert result["failed"] == worse
    tree = ET.parse(tmp_path / "gate" / "junit.xml").getroot()
    assert (tree.get("failures"), len(tree)) == (str(len(worse)), len(result["by_kind"]))
    assert "| all |" in (tmp_path / "gate" / "summary.md").read_text()

    assert main(["sensitivity", "check", str(a), "--baseline", str(tmp_path / "absent")]) == 2
    assert main(["sensitivity", "check", str(a), "--baseline", str(b), "--max-increase", "-1"]) == 2
    assert main(["sensitivity", "check", str(a), "--baseline", str(b), "--max-increase", "nan"]) == 2
    measure(config(models[0], sets, tmp_path / "short", max_new_tokens=3))
    assert main(["sensitivity", "check", str(tmp_path / "short"), "--baseline", str(a)]) == 3
    assert "length of responses" in capsys.readouterr().err
    measure(config(models[0], sets, tmp_path / "chat", chat=True))
    assert main(["sensitivity", "compare", str(tmp_path / "chat"), str(a)]) == 3
    dev = str(write_jsonl(tmp_path / "dev.jsonl", [{"question": "1 + 1?", "answer": "2"}]))
    measure(config(models[0], sets, tmp_path / "shots", shots=1, shots_data=dev))
    assert (
        main(["sensitivity", "compare", str(a), str(tmp_path / "shots")]) == 0
    )  # the effect of exemplars is a question
    assert "exemplars (--shots) differ: 0 and 1" in capsys.readouterr().out
    assert main(["sensitivity", "check", str(tmp_path / "shots"), "--baseline", str(a)]) == 3  # but no baseline
    other = str(write_jsonl(tmp_path / "other.jsonl", ROWS[:3]))
    measure(config(models[0], other, tmp_path / "other"))
    assert main(["sensitivity", "compare", str(tmp_path / "other"), str(a)]) == 3


def test_the_gate_fails_beyond_tolerance_and_noise_only(models: list[str], sets: str, tmp_path: Path) -> None:
    measure(config(models[0], sets, tmp_path / "a"))

    def shifted(name: str, by: list[float]) -> str:
        target = tmp_path / name
        target.mkdir()
        for file in ("config.json", "summary.json"):
            (target / file).write_text((tmp_path / "a" / file).read_text())
        rows = rows_of(tmp_path / "a")
        for row, extra in zip(rows, by, strict=True):
            row["indices"]["all"]["psi"] += extra
        write_jsonl(target / "rows.jsonl", rows)
        return str(target)

    cases = {
        "worse": ([0.5, 0.6], 1),
        "small": ([0.01, 0.01], 0),
        "noise": ([2.0, -0.5], 0),
        "better": ([-0.3, -0.2], 0),
    }
    for name, (by, code) in cases.items():
        assert (
            check(CheckConfig(run=shifted(name, by), baseline=str(tmp_path / "a"), json=True))["exit_code"] == code
        ), name
    assert main(["sensitivity", "check", str(tmp_path / "worse"), "--baseline", str(tmp_path / "a")]) == 1


def test_help_of_the_commands_imports_no_torch() -> None:
    script = (
        "import sys; from holdfast.cli import main; assert main(['sensitivity']) == 0; assert main(['--help']) == 0; "
        "import holdfast.sensitivity; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0
    assert "sensitivity compare" in done.stdout
