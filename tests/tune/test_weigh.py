"""``holdfast weigh``: which tokens are kept, by hand; weights that survive another tokenizer; what ``tune`` makes of
them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from holdfast import lm
from holdfast.cli import main
from holdfast.config import TuneConfig, WeighConfig
from holdfast.data.examples import load_examples
from holdfast.errors import HoldfastError
from holdfast.records import Role, Tokens
from holdfast.tune import train, weigh
from holdfast.tune.plan import make_plan
from holdfast.tune.roles import tokenize
from holdfast.tune.weighing import char_runs, keep_highest
from holdfast.tune.weights import role_weights
from materials import make_model, make_tokenizer, write_jsonl

TEXT = "The cat sat on it"
HI = {"role": "user", "content": "Hi"}
ENDS = (3, 7, 11, 14, 17)  # of the tokens The| cat| sat| on| it
CHARS = np.asarray([(begin, end - 1) for begin, end in zip((0, *ENDS), ENDS, strict=False)])


def tokens_of(folder: Path, row: dict[str, Any], tokenizer: Any, **options: Any) -> Tokens:
    examples = load_examples(str(write_jsonl(folder / "row.jsonl", [row])))
    (tokens,), _ = tokenize(examples, tokenizer, role_weights(), max_length=200, **options)
    return tokens


def weight_of_each(tokens: Tokens, tokenizer: Any) -> list[tuple[str, float]]:
    """Response tokens as text, with their weights."""
    scale = np.ones(len(tokens)) if tokens.scale is None else tokens.scale
    return [
        (tokenizer.decode([i]), float(w))
        for i, r, w in zip(tokens.ids, tokens.roles, scale, strict=True)
        if r == Role.ASSISTANT
    ]


# Five tokens, by hand


def test_three_of_five_tokens_by_excess_loss() -> None:
    model_nll, reference_nll = np.asarray([1.0, 3.0, 0.5, 4.0, 0.3]), np.asarray([0.5, 1.0, 1.5, 2.0, 0.2])
    excess = model_nll - reference_nll  # 0.5, 2, -1, 2, 0.1
    (kept,) = keep_highest([excess], 0.6, "global")
    assert kept.tolist() == [True, True, False, True, False]
    assert char_runs(CHARS, kept, rest=0.0) == ((7, 11, 0.0), (14, 17, 0.0))
    assert [TEXT[a:b] for a, b, _ in char_runs(CHARS, kept, rest=0.0)] == [" sat", " it"]


def test_neighbours_of_equal_weight_are_merged() -> None:
    assert char_runs(CHARS, np.asarray([False, False, True, False, False]), rest=0.25) == ((0, 7, 0.25), (11, 17, 0.25))
    assert char_runs(CHARS, np.ones(5, dtype=bool), rest=0.0) == ()


def test_a_share_of_all_tokens_or_of_each_row() -> None:
    scores = [np.asarray([9.0, 8.0, 7.0, 6.0]), np.asarray([1.0, 5.0])]
    assert [k.tolist() for k in keep_highest(scores, 0.5, "global")] == [[True, True, True, False], [False, False]]
    assert [k.tolist() for k in keep_highest(scores, 0.5, "sample")] == [[True, True, False, False], [False, True]]


def test_equal_scores_keep_the_earlier_and_unknown_ones_stand_outside() -> None:
    assert keep_highest([np.asarray([1.0, 1.0, 1.0, 1.0])], 0.5, "sample")[0].tolist() == [True, True, False, False]
    assert keep_highest([np.asarray([1.0, 2.0, np.nan])], 0.5, "sample")[0].tolist() == [False, True, True]
    assert keep_highest([np.empty(0), np.asarray([3.0])], 0.1, "global")[1].tolist() == [True]


def test_a_character_of_several_tokens_counts_as_kept_if_one_of_them_is() -> None:
    bytes_of_one_character = np.asarray([(0, 0), (0, 0), (1, 1)])
    assert char_runs(bytes_of_one_character, np.asarray([False, True, False]), rest=0.0) == ((1, 2, 0.0),)


# Weights on characters, read by any tokenizer


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": TEXT}],
         "token_weights": [None, [[7, 11, 0]]]},
        {"instruction": "Hi", "input": "you", "output": TEXT, "token_weights": [None, None, [[7, 11, 0]]]},
        {"instruction": "Hi", "output": TEXT, "token_weights": [None, [[7, 11, 0]]]},
        {"prompt": "Hi", "response": TEXT, "token_weights": [None, [[7, 11, 0]]]},
        {"prompt": [HI], "completion": [{"role": "assistant", "content": TEXT}], "token_weights": [None, [[7, 11, 0]]]},
        {"text": TEXT, "token_weights": [[[7, 11, 0]]]},
    ],
    ids=["chat", "alpaca with input", "alpaca", "pair", "pair of messages", "text"],
)  # fmt: skip
def test_every_layout_carries_them(tmp_path: Path, row: dict[str, Any]) -> None:
    tokenizer = make_tokenizer(bos=True)
    for template in ("auto", "chat"):
        made = weight_of_each(tokens_of(tmp_path, row, tokenizer, template=template), tokenizer)
        assert "".join(text for text, w in made if w == 0) == " sat"
        assert "".join(text for text, _ in made).strip() == TEXT


def test_a_token_takes_the_weight_of_its_last_character(tmp_path: Path) -> None:
    """The byte-level tokenizer here knows `colours` by pieces, a word-level one as a whole."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    row = {"text": "Paris is fine", "token_weights": [[[0, 4, 0.5], [5, 8, 0.0]]]}  # ends within `Paris`, and with `is`
    words = Tokenizer(models.WordLevel({"Paris": 0, "is": 1, "fine": 2, "<end>": 3}, unk_token="<end>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    by_word = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<end>")
    assert weight_of_each(tokens_of(tmp_path, row, by_word), by_word) == [("Paris", 1.0), ("is", 0.0), ("fine", 1.0)]
    by_piece = make_tokenizer()
    made = weight_of_each(tokens_of(tmp_path, row, by_piece), by_piece)
    at = 0
    for text, weight in made:
        at += len(text)
        assert weight == (0.5 if at <= 4 else 0.0 if 5 < at <= 8 else 1.0), (text, at)
    assert len(made) > 3


def test_a_template_that_strips_keeps_them_in_place(tmp_path: Path) -> None:
    strips = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] | trim }}<|im_end|>\n{% endfor %}"
    tokenizer = make_tokenizer(chat_template=strips)
    content = "  " + TEXT + " "
    row = {
        "messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": content}],
        "token_weights": [None, [[9, 13, 0]]],
    }
    assert content[9:13] == " sat"
    assert "".join(t for t, w in weight_of_each(tokens_of(tmp_path, row, tokenizer), tokenizer) if w == 0) == " sat"


def test_weights_of_message_row_and_token_multiply(tmp_path: Path) -> None:
    row = {
        "messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": TEXT, "weight": 0.5}],
        "weight": 4,
    }
    tokenizer = make_tokenizer()
    made = weight_of_each(tokens_of(tmp_path, row | {"token_weights": [None, [[7, 11, 0.25]]]}, tokenizer), tokenizer)
    assert {weight for _, weight in made} == {2.0, 0.5}


# The command


def nll_of_each(folder: Path, text: str) -> list[float]:
    """Plainly, in float64."""
    made = lm.load(folder, device="cpu")
    ids = made.tokenizer(text, add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        logp_TV = made.model.double()(torch.tensor([ids])).logits[0].log_softmax(-1)
    return [-float(logp_TV[i - 1, token]) for i, token in enumerate(ids)][1:]


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reference")
    make_model(seed=1).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


def test_scores_are_those_of_the_plain_models(model_folder: Path, reference: Path, tmp_path: Path) -> None:
    texts = ["Name three colours.", "Fine, thank you!", "How are you today?", "Red"]
    data = write_jsonl(tmp_path / "data.jsonl", [{"text": text, "id": i} for i, text in enumerate(texts)])
    summary = weigh(
        WeighConfig(model=str(model_folder), reference=str(reference), data=str(data), output=str(tmp_path / "w"))
    )
    excess = [
        np.subtract(nll_of_each(model_folder, t + "<|end|>"), nll_of_each(reference, t + "<|end|>"))[:-1] for t in texts
    ]
    scores = np.sort(np.concatenate(excess))[::-1]
    assert summary["tokens"] == len(scores)
    assert summary["kept"] == int(0.6 * len(scores) + 0.5)
    assert summary["lowest_kept_score"] == pytest.approx(scores[summary["kept"] - 1], abs=1e-4)
    made = [json.loads(line) for line in (tmp_path / "w" / "data.jsonl").open()]
    assert [row["id"] for row in made] == [0, 1, 2, 3]
    plan = make_plan(
        TuneConfig(model=str(model_folder), data=str(tmp_path / "w" / "data.jsonl"), output="x", eval_share=0)
    )
    for tokens, wanted in zip(plan.train, excess, strict=True):
        scale = np.ones(len(tokens)) if tokens.scale is None else tokens.scale
        assert (scale[1:-1] == (wanted >= summary["lowest_kept_score"] - 1e-4)).all()
        assert scale[-1] == 1  # the end of the turn


def test_tuning_on_weighed_data_learns_what_was_kept(model_folder: Path, chat_file: Path, tmp_path: Path) -> None:
    summary = weigh(
        WeighConfig(model=str(model_folder), data=str(chat_file), output=str(tmp_path / "w"), by="confidence", keep=0.5)
    )
    weighed = train(
        TuneConfig(
            model=str(model_folder),
            data=summary["data_path"],
            output=str(tmp_path / "run"),
            learning_rate=5e-3,
            max_steps=3,
        )
    )
    assert weighed["data_report"]["targets_per_role"]["assistant"] > summary["kept"] / 2
    assert weighed["after"]["loss"] < weighed["before"]["loss"]


def test_one_model_keeps_what_surprises_it_or_what_it_knows(
    model_folder: Path, chat_file: Path, tmp_path: Path
) -> None:
    lost = {}
    for by in ("surprise", "confidence"):
        weigh(
            WeighConfig(
                model=str(model_folder), data=str(chat_file), output=str(tmp_path / by), by=by, keep=0.5, scope="sample"
            )
        )  # type: ignore[arg-type]
        rows = [json.loads(line) for line in (tmp_path / by / "data.jsonl").open()]
        lost[by] = {
            (i, c) for i, row in enumerate(rows) for a, b, _ in row["token_weights"][1] or [] for c in range(a, b)
        }
    assert lost["surprise"]
    assert not lost["surprise"] & lost["confidence"]


def test_finished_run_is_returned_and_changed_data_refused(model_folder: Path, chat_file: Path, tmp_path: Path) -> None:
    config = WeighConfig(model=str(model_folder), data=str(chat_file), output=str(tmp_path / "w"), limit=5)
    first = weigh(config)
    assert weigh(config) == first
    assert first["examples"] == len((tmp_path / "w" / "rows.jsonl").read_text().splitlines()) == 5
    chat_file.write_text(chat_file.read_text() + "\n")
    with pytest.raises(HoldfastError, match="the data has changed"):
        weigh(config)


def test_dry_run_writes_nothing(
    model_folder: Path, chat_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        main(
            [
                "weigh",
                "--model",
                str(model_folder),
                "--data",
                str(chat_file),
                "--output",
                str(tmp_path / "w"),
                "--dry-run",
            ]
        )
        == 0
    )
    assert "response tokens of 40 rows by surprise" in capsys.readouterr().out
    assert not (tmp_path / "w").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"keep": 0.0}, "--keep is 0.0"),
        ({"rest": -1.0}, "--rest is -1.0"),
        ({"by": "excess"}, "--by excess takes two models"),
        ({"by": "surprise", "reference": "pocket"}, "--by surprise takes one model"),
        ({"reference": "pocket"}, "have different tokenizers"),
    ],
)
def test_bad_settings(
    model_folder: Path, chat_file: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(HoldfastError) as error:
        weigh(WeighConfig(model=str(model_folder), data=str(chat_file), output=str(tmp_path / "w"), **changes))
    assert message in error.value.message
    assert not (tmp_path / "w").exists()


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([None], "must be a list with one entry for each of the 2 messages"),
        ("all", "must be a list with one entry"),
        ([None, [[0, 99, 0]]], "token_weights 2: [0, 99, 0] is no [start, end, weight] within the 17 characters"),
        ([None, [[4, 8, 0], [6, 9, 0]]], "[6, 9, 0] is no [start, end, weight]"),
        ([None, [[4, 4, 0]]], "[4, 4, 0] is no [start, end, weight]"),
        ([None, [[0, 4, -1]]], "the weight is -1.0"),
        ([None, [["a", 4, 1]]], "is no [start, end, weight]"),
        ([None, 5], "token_weights 2: 5 is no [start, end, weight]"),
    ],
)
def test_bad_weights_are_named_by_row_and_message(tmp_path: Path, weights: Any, message: str) -> None:
    data = write_jsonl(tmp_path / "bad.jsonl", [{"prompt": "Hi", "response": TEXT, "token_weights": weights}])
    with pytest.raises(HoldfastError, match=r"bad\.jsonl, row 1") as error:
        load_examples(str(data))
    assert message in error.value.message


# Thoughts, calls, several sources

AGENT = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.reasoning_content %}<think>{{ m.reasoning_content }}"
    "</think>{% endif %}{{ m.content or '' }}{% for c in m.tool_calls or [] %}<call>{{ c.function.name }} "
    "{{ c.function.arguments | tojson }}</call>{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CALL = {"function": {"name": "weather", "arguments": {"at": "Paris", "n": 3, "of": ["rain", "sun"]}}}
AGENT_ROW: dict[str, Any] = {
    "messages": [
        HI,
        {"role": "assistant", "content": "Fine", "reasoning_content": "See the", "tool_calls": [CALL]},
        {"role": "tool", "content": "rain"},
        {"role": "assistant", "content": "<think>It is</think>Red"},
    ]
}  # fmt: skip


def scale_by_role(plan: Any) -> dict[str, list[float]]:
    (tokens,) = plan.train
    scale = np.ones(len(tokens)) if tokens.scale is None else tokens.scale
    return {
        role.label: [float(w) for r, w in zip(tokens.roles, scale, strict=True) if r == role]
        for role in (Role.ASSISTANT, Role.THINK, Role.TOOL_CALL, Role.FORMAT, Role.EOS)
    }


@pytest.mark.parametrize("scored", ["all", "text"])
def test_thoughts_and_calls_are_weighed_and_read_again(model_folder: Path, tmp_path: Path, scored: Any) -> None:
    template = tmp_path / "agent.jinja"
    template.write_text(AGENT)
    options: dict[str, Any] = {"model": str(model_folder), "chat_template": str(template)}
    data = str(write_jsonl(tmp_path / "a.jsonl", [AGENT_ROW]))
    plan = make_plan(TuneConfig(**options, data=data, output="x", eval_share=0))
    counts = {name: len(weights) for name, weights in scale_by_role(plan).items()}
    summary = weigh(WeighConfig(**options, data=data, output=str(tmp_path / "w"), keep=0.01, rest=0.25, scored=scored))
    assert (summary["kept"], summary["beyond_context"]) == (1, 0)
    (row,) = [json.loads(line) for line in (tmp_path / "w" / "data.jsonl").open()]
    weighed = scale_by_role(make_plan(TuneConfig(**options, data=summary["data_path"], output="x", eval_share=0)))
    low = {name: sum(weight == 0.25 for weight in weights) for name, weights in weighed.items()}
    assert sum(low.values()) == summary["tokens"] - 1
    assert low["format"] == low["eos"] == 0
    if scored == "text":
        assert low["think"] == low["tool_call"] == 0
        assert low["assistant"] >= counts["assistant"] - 1
        assert isinstance(row["token_weights"][1], list)
        return
    assert low["think"] >= counts["think"] - 1
    assert 0 < low["tool_call"] < counts["tool_call"]  # braces, keys and numbers are in no text of the row
    assert [bool(runs) for runs in row["token_weights"][1]["beside"]].count(True) >= 4  # thought, name, three texts


def test_weights_of_calls_that_have_no_place_are_refused(tmp_path: Path) -> None:
    beside = [None, None, [[0, 5, 0.5]], None, None]
    row = AGENT_ROW | {"token_weights": [None, {"content": None, "beside": beside}, None, None]}
    tokenizer = make_tokenizer(chat_template=AGENT)
    tokens = tokens_of(tmp_path, row, tokenizer)
    assert tokens.scale is not None
    assert tokenizer.decode(tokens.ids[tokens.scale == 0.5]) == "Paris"
    as_text = AGENT.replace("c.function.arguments | tojson", "'args: ' + c.function.arguments")
    with pytest.raises(HoldfastError, match="message 2: the chat template prints the tool call in another form"):
        tokens_of(tmp_path, row, make_tokenizer(chat_template=as_text))
    with pytest.raises(HoldfastError, match="5 texts beside"):
        tokens_of(tmp_path, row | {"token_weights": [None, {"beside": [None]}, None, None]}, tokenizer)


def test_several_sources_are_each_written(model_folder: Path, tmp_path: Path) -> None:
    files = [
        str(write_jsonl(tmp_path / "test.jsonl", [{"prompt": "Hi", "response": f"{TEXT} {n}"} for n in range(3)])),
        str(write_jsonl(tmp_path / "b.jsonl", [{"question": "Hi", "answer": TEXT}])),
    ]
    config = WeighConfig(model=str(model_folder), data=files, output=str(tmp_path / "w"), keep=0.5)
    summary = weigh(config)
    assert summary["examples"] == 4
    assert [len(file.read_text().splitlines()) for file in sorted((tmp_path / "w" / "data").iterdir())] == [3, 1]
    plan = make_plan(TuneConfig(model=str(model_folder), data=summary["data_path"], output="x", eval_share=0))
    dropped = sum(int((tokens.scale == 0).sum()) for tokens in plan.train if tokens.scale is not None)
    assert dropped == summary["tokens"] - summary["kept"]
    assert weigh(config) == summary
    assert main(["weigh", "--model", str(model_folder), "--data", *files, "--output", "x", "--dry-run"]) == 0


def test_a_weighing_of_an_older_version_is_that_run(model_folder: Path, chat_file: Path, tmp_path: Path) -> None:
    config = WeighConfig(model=str(model_folder), data=str(chat_file), output=str(tmp_path / "w"), limit=2)
    first = weigh(config)
    file = tmp_path / "w" / "config.json"
    about = json.loads(file.read_text())
    del about["config"]["scored"]
    file.write_text(json.dumps(about))
    assert weigh(config) == first
