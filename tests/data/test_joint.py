"""Where prompt and response meet: the ids are TRL's on the rows of TRL's documentation, computed by TRL itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from holdfast.align.tokens import PairTokens, tokenize_pairs
from holdfast.data.examples import load_examples
from holdfast.data.pairs import load_pairs
from holdfast.data.shapes import JOINTS, Shape
from holdfast.records import Role, Tokens
from holdfast.tune.roles import tokenize
from holdfast.tune.weights import role_weights
from materials import make_model, make_tokenizer, write_jsonl

ASKED = [{"role": "user", "content": "What color is the sky?"}]
BLUE, GREEN = [{"role": "assistant", "content": "It is blue."}], [{"role": "assistant", "content": "It is green."}]
TUNED: dict[str, dict[str, Any]] = {
    "language modelling": {"text": "The sky is blue."},
    "language modelling, conversational": {"messages": ASKED + BLUE},
    "prompt-completion": {"prompt": "The sky is", "completion": " blue."},
    "prompt-completion, conversational": {"prompt": ASKED, "completion": BLUE},
    "from and value": {
        "conversations": [
            {"from": "user", "value": "What color is the sky?"}, {"from": "assistant", "value": "It is blue."},
        ]
    },
    "EOS in the completion": {"prompt": "The sky is", "completion": " blue.<|end|>"},
    "EOS in the text": {"text": "The sky is blue.<|end|>"},
    "space in the prompt": {"prompt": "The sky is ", "completion": "blue."},
    "Chinese": {"prompt": "天空是", "completion": "蓝色的。"},
}  # fmt: skip
PREFERRED: dict[str, dict[str, Any]] = {
    "explicit": {"prompt": "The sky is", "chosen": " blue.", "rejected": " green."},
    "implicit": {"chosen": "The sky is blue.", "rejected": "The sky is green."},
    "explicit, conversational": {"prompt": ASKED, "chosen": BLUE, "rejected": GREEN},
    "implicit, conversational": {"chosen": ASKED + BLUE, "rejected": ASKED + GREEN},
}


def tuned(path: Path, row: dict[str, Any], tokenizer: Any, joint: str = "auto") -> Tokens:
    examples = load_examples(str(write_jsonl(path / "a.jsonl", [row])), shape=Shape(joint=JOINTS[joint]))
    (tokens,), _ = tokenize(examples, tokenizer, role_weights(), max_length=128)
    return tokens


def preferred(path: Path, row: dict[str, Any], tokenizer: Any, joint: str = "auto") -> PairTokens:
    pairs = load_pairs(str(write_jsonl(path / "a.jsonl", [row])), shape=Shape(joint=JOINTS[joint]))
    (pair,), _ = tokenize_pairs(pairs, tokenizer, max_length=128)
    return pair


@pytest.mark.parametrize("bos", [False, True])
@pytest.mark.parametrize("name", TUNED)
def test_ids_are_those_of_trl(tmp_path: Path, name: str, bos: bool) -> None:
    pytest.importorskip("trl")
    from datasets import Dataset
    from trl import SFTTrainer

    from holdfast.integrations.trl import WITSFTTrainer
    from trl_trainer import arguments

    tokenizer = make_tokenizer(bos=bos)
    options = {"train_dataset": Dataset.from_list([TUNED[name]]), "processing_class": tokenizer}
    theirs = SFTTrainer(make_model(), arguments(tmp_path), **options).train_dataset[0]
    assert tuned(tmp_path, TUNED[name], make_tokenizer(bos=bos)).ids.tolist() == theirs["input_ids"]
    options["processing_class"] = make_tokenizer(bos=bos)
    adapter = WITSFTTrainer(make_model(), arguments(tmp_path), **options).train_dataset[0]
    assert list(adapter["input_ids"]) == theirs["input_ids"]


def test_the_adapter_joins_as_trl_does(tmp_path: Path) -> None:
    pytest.importorskip("trl")
    from trl_trainer import trainer

    (row,) = trainer(tmp_path, [{"prompt": "The sky is", "completion": "blue."}]).train_dataset
    tokenizer = make_tokenizer()
    assert list(row["input_ids"]) == [*tokenizer("The sky isblue.")["input_ids"], tokenizer.eos_token_id]


@pytest.mark.parametrize("name", PREFERRED)
def test_pairs_are_those_of_trl(tmp_path: Path, name: str) -> None:
    pytest.importorskip("trl")
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    config = DPOConfig(str(tmp_path), use_cpu=True, bf16=False, report_to=[], disable_tqdm=True)
    rows = Dataset.from_list([PREFERRED[name]])
    made = DPOTrainer(make_model(), make_model(), args=config, train_dataset=rows, processing_class=make_tokenizer())
    theirs = made.train_dataset[0]
    ours = preferred(tmp_path, PREFERRED[name], tokenizer := make_tokenizer())
    assert ours.prompt == theirs["prompt_ids"]
    after = tokenizer("\n")["input_ids"] if "conversational" in name else []  # what the template prints after the turn
    assert ours.chosen + after == theirs["chosen_ids"]
    assert ours.rejected + after == theirs["rejected_ids"]


SIDES = [
    ("The sky is", "blue.", " "), ("The sky is", " blue.", ""), ("The sky is\n", "blue.", ""),
    ("The sky is", "\nblue.", ""),
    ("空は", "青い。", ""), ("ท้องฟ้า", "สีฟ้า", ""), ("天空是什么颜色？", "Blue", ""),  # noqa: RUF001
    ("하늘은", "파란색", " "), ("Небо", "синее", " "),  # noqa: RUF001
]  # fmt: skip


@pytest.mark.parametrize("sides", SIDES)
@pytest.mark.parametrize("joint", JOINTS)
def test_the_joint(tmp_path: Path, sides: tuple[str, str, str], joint: str) -> None:
    prompt, answer, found = sides
    between = {"auto": found, "none": "", "space": " ", "newline": "\n"}[joint]
    tokenizer = make_tokenizer()
    whole = [*tokenizer(prompt + between + answer)["input_ids"], tokenizer.eos_token_id]
    assert tuned(tmp_path, {"prompt": prompt, "response": answer}, tokenizer, joint).ids.tolist() == whole
    pair = preferred(tmp_path, {"prompt": prompt, "chosen": answer, "rejected": answer + "?!"}, tokenizer, joint)
    assert pair.prompt + pair.chosen == whole


def test_bos_and_eos_that_a_text_holds_are_the_only_ones(tmp_path: Path) -> None:
    tokenizer = make_tokenizer(bos=True)
    bare = tuned(tmp_path, {"text": "Once"}, tokenizer)
    for text in ("<|bos|>Once<|end|>", "<|bos|>Once", "Once<|end|>"):
        tokens = tuned(tmp_path, {"text": text}, tokenizer)
        assert tokens.ids.tolist() == bare.ids.tolist()
        assert tokens.roles.tolist() == bare.roles.tolist()
    assert Role(int(bare.roles[-1])) is Role.EOS
    pair = tuned(tmp_path, {"prompt": "<|bos|>The sky is", "completion": " blue.<|end|>"}, tokenizer)
    assert (
        pair.ids.tolist() == tuned(tmp_path, {"prompt": "The sky is", "completion": " blue."}, tokenizer).ids.tolist()
    )
    choice = preferred(
        tmp_path, {"prompt": "<|bos|>The sky is", "chosen": " blue.<|end|>", "rejected": " red."}, tokenizer
    )
    assert choice.prompt + choice.chosen == pair.ids.tolist()


def test_stories260k_gets_no_second_bos_or_eos(shared: Path, tmp_path: Path) -> None:
    from holdfast import lm

    tokenizer = lm.load_tokenizer(str(shared / "models" / "stories260k"))
    tokens = tuned(tmp_path, {"text": "<s>Once</s>"}, tokenizer)
    assert tokens.ids.tolist() == tuned(tmp_path, {"text": "Once"}, tokenizer).ids.tolist()
    assert tokenizer.decode(tokens.ids).count("<s>") == tokenizer.decode(tokens.ids).count("</s>") == 1
