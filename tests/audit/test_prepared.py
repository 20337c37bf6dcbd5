"""Data that other trainers prepare: read, matched with the rows that it was made of, and audited.

TRL's own SFTTrainer prepares it here, LLaMA-Factory 0.9.5's own processors prepared a file of it. Of axolotl 0.19.0 and
ms-swift 4.6.0 the columns are those that their sources write.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("trl")

from datasets import Dataset, DatasetDict
from trl.chat_template_utils import get_training_chat_template

import holdfast
from holdfast.audit.live import context_of_model, references_of
from holdfast.audit.matching import Matcher
from holdfast.audit.prepared import read_prepared
from holdfast.audit.record import AuditRow
from holdfast.errors import HoldfastError
from holdfast.records import Role
from materials import TEXT, make_tokenizer
from planted import agents, audited, chats, kinds, model_for, pairs, prepared_by_trl, tokenizer_for

Rows = list[dict[str, Any]]
Pays = Callable[[AuditRow, int], bool | None]
Bug = Callable[[Any, Path], tuple[Rows, Rows, Any]]
"""Tokenizers and a folder -> prepared rows with a bug, the data, and the tokenizer of the audit."""
IGNORED = -100


def trained_with(name: str) -> Any:
    """A tokenizer whose chat template is the one that TRL trains with."""
    tokenizer = tokenizer_for(name)
    tokenizer.chat_template = get_training_chat_template(tokenizer) or tokenizer.chat_template
    return tokenizer


@pytest.fixture(scope="module")
def tokenizers() -> Callable[[str], Any]:
    """Tokenizers by the name of TRL's template, made once."""
    cache: dict[str, Any] = {}
    return lambda name: cache[name] if name in cache else cache.setdefault(name, trained_with(name))


# clean preparations

ASSISTANT = {"assistant_only_loss": True}
CLEAN: dict[str, tuple[str, Rows, dict[str, Any]]] = {
    "chat": ("qwen3", chats(), ASSISTANT),
    "three turns": ("qwen3", chats(turns=3), ASSISTANT),
    "system": ("qwen3", chats(turns=2, system="Be brief."), ASSISTANT),
    "packed": ("qwen3", chats(8, turns=2), ASSISTANT | {"packing": True, "max_length": 400}),
    "packed, one row": ("qwen3", chats(turns=2, system="Be brief."), ASSISTANT | {"packing": True}),
    "packed, whole rows only": (
        "qwen3", chats(), ASSISTANT | {"packing": True, "packing_strategy": "bfd_split", "max_length": 300},
    ),
    "agent": ("qwen3", agents(), ASSISTANT),
    "agent without thoughts": ("qwen3", agents(thought=False), ASSISTANT),
    "agent, packed": ("qwen3", agents(), ASSISTANT | {"packing": True, "max_length": 2048}),
    "prompt and completion": ("qwen3", pairs(chat=True), {}),
    "prompt and completion, packed": ("qwen3", pairs(chat=True), {"packing": True}),
    "texts": ("qwen3", pairs(), {}),
    "texts, packed": ("qwen3", pairs(8), {"packing": True, "max_length": 200}),
    "plain text": ("qwen3", [{"text": f"{text} {i}"} for i in range(2) for text in TEXT], {}),
    "qwen2.5": ("qwen2_5", chats(turns=2), ASSISTANT),
    "qwen3 instruct": ("qwen3_instruct_2507", chats(turns=2), ASSISTANT),
    "llama3": ("llama3", chats(turns=2, system="Be brief."), ASSISTANT),
    "llama3, packed": ("llama3", chats(turns=2), ASSISTANT | {"packing": True}),
    "gemma": ("gemma", chats(turns=2), ASSISTANT),
    "gemma3": ("gemma3", chats(turns=2, system="Be brief."), ASSISTANT),
    "glm4": ("glm4moe", chats(turns=2), ASSISTANT),
    "cohere": ("cohere", chats(turns=2), ASSISTANT),
    "lfm2": ("lfm2", chats(turns=2), ASSISTANT),
}  # fmt: skip


@pytest.mark.parametrize("name", CLEAN)
def test_a_clean_preparation_has_no_finding(name: str, tokenizers: Any, tmp_path: Path) -> None:
    template, rows, options = CLEAN[name]
    tokenizer = tokenizers(template)
    prepared = prepared_by_trl(tokenizer, rows, tmp_path, **options)
    with_data, alone = audited(prepared, tokenizer, rows), audited(prepared, tokenizer)
    assert kinds(with_data) == kinds(alone) == []
    assert not [sentence for sentence in with_data.unseen if "no row of" in sentence or "no prepared" in sentence]
    assert sum(line.paid for line in with_data.roles) == sum(line.paid for line in alone.roles) > 0
    assert with_data.rows == len(rows)  # packed rows are cut into the documents that they are


def test_a_bos_that_opens_every_turn_joins_no_documents(tmp_path: Path) -> None:
    """SmolLM2's BOS is <|im_start|>."""
    tokenizer, data = trained_with("qwen3_instruct_2507"), chats(turns=2, system="Be brief.")
    tokenizer.bos_token = "<|im_start|>"
    rows = prepared_by_trl(tokenizer, data, tmp_path, packing=True, **ASSISTANT)
    assert kinds(audited(rows, tokenizer)) == kinds(audited(rows, tokenizer, data)) == []


def test_there_are_twenty_clean_preparations() -> None:
    assert len(CLEAN) >= 20


# bugs


def put_back(rows: Rows, tokenizer: Any, data: Rows, pays: Pays) -> Rows:
    """Labels anew: True pays an id, False does not, None leaves it as TRL has it."""
    references = {row.ids: row for row in references_of(data, tokenizer)}
    changed = []
    for row in rows:
        reference = references[tuple(row["input_ids"])]
        labels = [
            {True: token, False: IGNORED, None: label}[pays(reference, i)]
            for i, (token, label) in enumerate(zip(row["input_ids"], row["labels"], strict=True))
        ]
        changed.append(row | {"labels": labels})
    return changed


def of_role(role: Role, *, paid: bool) -> Pays:
    return lambda row, i: paid if (row.roles or ())[i] is role else None


def before_last_answer(row: AuditRow, i: int) -> bool | None:
    return False if i < row.responses[-1][0] else None


def planted(template: str, data: Rows, pays: Pays | None = None, **options: Any) -> Bug:
    """TRL's preparation, with other labels."""

    def bug(tokenizers: Any, folder: Path) -> tuple[Rows, Rows, Any]:
        tokenizer = tokenizers(template)
        rows = prepared_by_trl(tokenizer, data, folder, **ASSISTANT | options)
        return (put_back(rows, tokenizer, data, pays) if pays else rows), data, tokenizer

    return bug


def some_stops_unpaid(tokenizers: Any, folder: Path) -> tuple[Rows, Rows, Any]:
    rows, data, tokenizer = planted("qwen3", chats())(tokenizers, folder)
    broken = put_back(rows, tokenizer, data, of_role(Role.EOS, paid=False))
    return [*rows[:3], *broken[3:]], data, tokenizer


def mask_lost_in_packing(tokenizers: Any, folder: Path) -> tuple[Rows, Rows, Any]:
    rows, data, tokenizer = planted("qwen3", chats(turns=2), packing=True)(tokenizers, folder)
    return [row | {"labels": row["input_ids"]} for row in rows], data, tokenizer


def shifted_labels(tokenizers: Any, folder: Path) -> tuple[Rows, Rows, Any]:
    rows, data, tokenizer = planted("qwen3", chats(turns=2))(tokenizers, folder)
    return [row | {"labels": [*row["labels"][1:], IGNORED]} for row in rows], data, tokenizer


def double_bos(tokenizers: Any, folder: Path) -> tuple[Rows, Rows, Any]:
    rows, data, tokenizer = planted("llama3", chats(turns=2))(tokenizers, folder)
    bos = tokenizer.bos_token_id
    twice = [{"input_ids": [bos, *row["input_ids"]], "labels": [IGNORED, *row["labels"]]} for row in rows]
    return twice, data, tokenizer


def appended_eos(tokenizers: Any, folder: Path) -> tuple[Rows, Rows, Any]:
    rows, data, tokenizer = planted("qwen3", chats())(tokenizers, folder)
    names, eos = ("input_ids", "labels"), tokenizer.eos_token_id
    return [{name: [*row[name], eos] for name in names} for row in rows], data, tokenizer


def cut_ends(tokenizers: Any, folder: Path) -> tuple[Rows, Rows, Any]:
    data = chats()
    whole = prepared_by_trl(tokenizers("qwen3"), data, folder, **ASSISTANT)
    shortest = min(len(row["input_ids"]) for row in whole)
    return planted("qwen3", data, max_length=shortest - 5)(tokenizers, folder)


def empty_thought_paid(tokenizers: Any, folder: Path) -> tuple[Rows, Rows, Any]:
    """TRL's training template marks the thought that the generation prompt of these rows holds."""
    data = [row | {"chat_template_kwargs": {"enable_thinking": False}} for row in chats()]
    return planted("qwen3", data)(tokenizers, folder)


def other_tokenizer(tokenizers: Any, folder: Path) -> tuple[Rows, Rows, Any]:
    """Ids of a vocabulary of the same size, in which every token has another number."""
    rows, data, tokenizer = planted("qwen3", chats(turns=2))(tokenizers, folder)
    ids = list(range(len(tokenizer)))
    random.Random(0).shuffle(ids)
    names, swap = ("input_ids", "labels"), dict(enumerate(ids)) | {IGNORED: IGNORED}
    return [{name: [swap[i] for i in row[name]] for name in names} for row in rows], data, tokenizer


TWO = chats(turns=2)
NO_STOP, NO_PAY = ["stop-never-paid"], ["nothing-paid"]
BUGS: dict[str, tuple[Bug, list[str], list[str]]] = {
    # name: (what is done, findings with the data, findings of ids alone)
    "stop unpaid": (planted("qwen3", TWO, of_role(Role.EOS, paid=False)), NO_STOP, NO_STOP),
    "some stops unpaid": (some_stops_unpaid, ["stop-unpaid"], ["stop-unpaid"]),
    "stop in the next header": (planted("glm4moe", TWO, of_role(Role.EOS, paid=False)), NO_STOP, NO_STOP),
    "mask lost in packing": (mask_lost_in_packing, ["everything-paid"], ["everything-paid"]),
    "shifted labels": (shifted_labels, ["labels-shifted"], ["labels-shifted"]),
    "double BOS": (double_bos, ["second-bos"], ["second-bos"]),
    "appended EOS": (appended_eos, ["second-eos"], ["second-eos"]),
    "cut ends": (cut_ends, ["cut-before-stop"], ["cut-before-stop"]),
    "prompt paid": (planted("qwen3", TWO, of_role(Role.USER, paid=True)), ["prompt-paid"], []),
    "last turn only": (planted("qwen3", TWO, before_last_answer), ["last-turn-only"], ["last-turn-only"]),
    "thoughts unpaid": (planted("qwen3", agents(), of_role(Role.THINK, paid=False)), ["thought-unpaid"], []),
    "results of tools paid": (planted("qwen3", agents(), of_role(Role.TOOL, paid=True)), ["tool-result-paid"], []),
    "empty thought paid": (empty_thought_paid, ["given-thought-paid"], []),
    "other tokenizer": (other_tokenizer, ["other-tokenizer"], ["other-tokenizer"]),
    "nothing paid": (planted("qwen3", TWO, lambda row, i: False), NO_PAY, NO_PAY),
    "wrapped": (
        planted("llama3", TWO, packing=True, packing_strategy="wrapped", max_length=300),
        ["cut-before-stop", "documents-joined"], ["cut-before-stop", "documents-joined"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BUGS)
def test_a_planted_bug_is_named(name: str, tokenizers: Any, tmp_path: Path) -> None:
    bug, with_data, alone = BUGS[name]
    rows, data, tokenizer = bug(tokenizers, tmp_path)
    assert kinds(audited(rows, tokenizer, data)) == with_data
    audit = audited(rows, tokenizer)
    assert kinds(audit) == alone
    assert any("only ids were looked at" in sentence for sentence in audit.unseen)


def test_a_finding_counts_its_documents_and_shows_where(tokenizers: Any, tmp_path: Path) -> None:
    rows, data, tokenizer = mask_lost_in_packing(tokenizers, tmp_path)
    (finding,) = audited(rows, tokenizer, data).findings
    assert finding.count == len(data) > len(rows)
    assert finding.rows[0] == "prepared, row 1, document 1"
    rows, data, tokenizer = some_stops_unpaid(tokenizers, tmp_path)
    (finding,) = audited(rows, tokenizer).findings
    assert finding.count == 3
    assert [token.text for token in finding.example if token.marked] == ["<|im_end|>"]


# matching


def test_roles_come_from_the_row_that_a_document_is(tokenizers: Any) -> None:
    tokenizer = tokenizers("llama3")
    data = chats(turns=2, system="Be brief.")
    references = references_of(data, tokenizer)
    matcher = Matcher(references, context_of_model(tokenizer, model_for(tokenizer)))
    one, two = references[1], references[4]
    assert one.roles is not None
    assert two.roles is not None

    def match(ids: tuple[int, ...]) -> Any:
        return matcher.match(AuditRow("here", ids, (1.0,) * len(ids)))

    assert match(one.ids).roles == one.roles
    assert match(one.ids[:90]).roles == one.roles[:90]
    assert match(one.ids[40:]).roles == one.roles[40:]
    assert match((one.ids[0], *one.ids)).roles[1:] == one.roles
    assert match((*one.ids[:-1], 5)).roles == one.roles  # another stop
    both = match(one.ids + two.ids)
    assert (both.roles, both.begins) == (one.roles + two.roles, (len(one),))
    between = match((*one.ids[:30], 7, 7, 7, *one.ids[30:]))
    assert between.roles[:30] + between.roles[33:] == one.roles
    assert between.unlike == 3
    assert match(tuple(range(60, 120))) is None
    assert matcher.unused() == len(data) - 2


def test_a_template_that_prints_more_is_no_finding_and_is_said(tmp_path: Path) -> None:
    """TRL trains on a template that keeps the thoughts of earlier turns; the data is read with the model's own."""
    tokenizer = tokenizer_for("qwen3")
    rows = prepared_by_trl(tokenizer, chats(turns=3), tmp_path, **ASSISTANT)
    audit = audited(rows, tokenizer, chats(turns=3))
    assert kinds(audit) == []
    assert any("another chat template" in sentence for sentence in audit.unseen)


def test_documents_that_are_not_in_the_data_are_counted(tokenizers: Any, tmp_path: Path) -> None:
    tokenizer = tokenizers("qwen3")
    one, two = ([{"role": "user", "content": text}, {"role": "assistant", "content": text[::-1]}]
                for text in ("Zzz? Qu! " * 5, "Xyx. Pj; " * 5))  # fmt: skip
    rows = prepared_by_trl(tokenizer, [*chats(3), {"messages": one}], tmp_path, **ASSISTANT)
    sentences = audited(rows, tokenizer, [*chats(3), {"messages": two}]).unseen
    assert any("1 of 4 documents are no row of" in sentence for sentence in sentences)
    assert any("1 of 4 rows of --data are in no prepared document" in sentence for sentence in sentences)


# columns


def read(row: dict[str, Any], tokenizer: Any) -> Any:
    return read_prepared([(row, "row 1")], context_of_model(tokenizer, None))


IDS = [11, 12, 13, 14, 15, 16]
WANTED = [(0.0, 0.0, 1.0), (0.0, 1.0, 1.0)]  # of two documents of three ids
LABELS = [IGNORED, IGNORED, 13, IGNORED, 15, 16]
SAME = {
    "labels, seq_lengths (TRL, packed)": {"labels": LABELS, "seq_lengths": [3, 3]},
    "completion_mask, position_ids": {"completion_mask": [0, 0, 1, 0, 1, 1], "position_ids": [0, 1, 2, 0, 1, 2]},
    "two masks": {
        "completion_mask": [0, 1, 1, 0, 1, 1], "assistant_masks": [0, 0, 1, 0, 1, 1], "sequence_lengths": [3, 3],
    },
    "loss_mask, cu_seqlens": {"loss_mask": [0, 0, 1, 0, 1, 1], "cu_seqlens": [0, 3, 6]},
    # axolotl 0.19.0: utils/trainer.py add_position_ids, utils/collators/batching.py (masks that count documents)
    "axolotl": {"labels": LABELS, "attention_mask": [1, 1, 1, 2, 2, 2], "length": 6},
    "axolotl, position ids": {"labels": LABELS, "attention_mask": [1] * 6, "position_ids": [0, 1, 2, 0, 1, 2]},
    # ms-swift 4.6.0: cached data sets have input_ids, labels, loss_scale and lengths
    "ms-swift": {"labels": LABELS, "loss_scale": [1.0] * 6, "lengths": [3, 3]},
}  # fmt: skip


@pytest.mark.parametrize("name", SAME)
def test_columns_of_other_trainers_say_the_same(name: str, tokenizer: Any) -> None:
    data = read({"input_ids": IDS, **SAME[name]}, tokenizer)
    assert [document.row.weights for document in data.documents] == WANTED
    assert [document.row.ids for document in data.documents] == [(11, 12, 13), (14, 15, 16)]
    assert set(data.unused) == {"length"} & set(SAME[name])


def test_llama_factory_packs_and_pads(tokenizer: Any) -> None:
    """LLaMA-Factory 0.9.5, data/processor/supervised.py: neat_packing counts documents in the mask and pads with 0;
    without it the mask is 1 on padding, too, and positions of padding are all 0.
    """
    pad = [tokenizer.pad_token_id] * 3
    row = {"input_ids": IDS + pad, "labels": LABELS + [IGNORED] * 3, "position_ids": [0, 1, 2, 0, 1, 2, 0, 0, 0]}
    neat = row | {"attention_mask": [1, 1, 1, 2, 2, 2, 0, 0, 0], "images": None}
    bounds = {"sequence_boundaries": [0, 3, 6, 9], "right_padding_length": 3}
    for case in (row | {"attention_mask": [1] * 9}, neat, neat | {"packing_params": bounds}):
        data = read(case, tokenizer)
        assert [document.row.weights for document in data.documents] == WANTED
        assert data.padding == 3
    del neat["position_ids"]
    assert len(read(neat | {"packing_params": bounds}, tokenizer).documents) == 2


LLAMA_FACTORY = json.loads((Path(__file__).parents[1] / "golden" / "llamafactory_prepared.json").read_text("utf-8"))


@pytest.mark.parametrize("name", LLAMA_FACTORY)
def test_what_llama_factory_itself_prepared_is_clean(name: str) -> None:
    """The file holds what the processors of LLaMA-Factory 0.9.5 (templates qwen and llama3, cutoff_len 560) gave for
    ``chats(3, turns=2)`` and the tokenizers of these tests.
    """
    tokenizer, data = tokenizer_for(name.partition(",")[0]), chats(3, turns=2)
    for part in (None, data):
        audit = audited(LLAMA_FACTORY[name], tokenizer, part)
        assert (kinds(audit), audit.rows) == ([], len(data))
    broken = [row | {"labels": [IGNORED, *row["labels"][:-1]]} for row in LLAMA_FACTORY[name]]  # shifted the other way
    assert kinds(audited(broken, tokenizer, data)) != []


def test_padding_that_is_the_stop_keeps_one() -> None:
    pad = make_tokenizer(pad="<|end|>")
    end = pad.eos_token_id
    data = read({"input_ids": [11, 12, end, end, end], "labels": [IGNORED, 12, IGNORED, IGNORED, IGNORED]}, pad)
    assert data.documents[0].row.ids == (11, 12, end)
    rows = [{"input_ids": [11, n, 13, end, end], "labels": [IGNORED, n, 13, IGNORED, IGNORED]} for n in range(40, 60)]
    pad.chat_template = None
    assert kinds(audited(rows, pad)) == ["stop-never-paid"]  # the mask that hides padding by its id


def test_weights_per_token_multiply(tokenizer: Any) -> None:
    row = {"input_ids": IDS, "labels": LABELS, "loss_weights": [1, 1, 0.5, 1, 2, 0.0]}
    assert read(row, tokenizer).documents[0].row.weights == (0, 0, 0.5, 0, 2, 0)


def test_what_is_not_used_is_said(tokenizer: Any) -> None:
    data = read({"input_ids": IDS, "labels": LABELS, "completion_mask": [1] * 6, "text": "x", "score": 3}, tokenizer)
    assert data.notes() == [
        "columns not used: score, text",
        "there are labels, so masks beside them are not used: completion_mask",
    ]
    (note,) = read({"input_ids": IDS}, tokenizer).notes()
    assert "neither labels nor masks" in note
    (note,) = read({"input_ids": IDS, "labels": [IGNORED, 99, 13, 14, 15, 16]}, tokenizer).notes()
    assert note.startswith("1 labels are neither")


BAD = {
    "no column input_ids": {"text": "x"},
    "'input_ids' is no list of whole numbers": {"input_ids": ["a"]},
    "6 input_ids, but 2 values of 'labels'": {"input_ids": IDS, "labels": [1, 2]},
    "'seq_lengths' adds up to 5, not to its 6 input_ids": {"input_ids": IDS, "seq_lengths": [2, 3]},
    "'cu_seqlens' does not run from 0": {"input_ids": IDS, "cu_seqlens": [3, 6]},
    "'loss_weights' does not give a number": {"input_ids": IDS, "loss_weights": [1.0]},
    "6 input_ids, but 1 values of 'position_ids'": {"input_ids": IDS, "position_ids": [0]},
}


@pytest.mark.parametrize("message", BAD)
def test_a_bad_row_is_named(message: str, tokenizer: Any) -> None:
    with pytest.raises(HoldfastError) as error:
        read(BAD[message], tokenizer)
    assert error.value.message.startswith("row 1: ")
    assert message in error.value.message


# the command


@pytest.fixture(scope="module")
def folders(tokenizers: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A model, data, and what TRL prepared of it: saved, as Parquet and as JSONL."""
    home = tmp_path_factory.mktemp("prepared")
    tokenizer, data = tokenizers("qwen3"), chats(turns=2)
    model_for(tokenizer).save_pretrained(home / "model")
    tokenizer.save_pretrained(home / "model")
    rows = prepared_by_trl(tokenizer, data, home, packing=True, **ASSISTANT)
    (home / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in data), encoding="utf-8")
    (home / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    prepared = Dataset.from_list(rows)
    prepared.save_to_disk(str(home / "saved"))
    DatasetDict({"train": prepared, "test": prepared}).save_to_disk(str(home / "splits"))
    prepared.to_parquet(str(home / "rows.parquet"))
    return {name: str(home / name) for name in ("model", "data.jsonl", "rows.jsonl", "saved", "splits", "rows.parquet")}


@pytest.mark.parametrize("name", ["saved", "splits", "rows.parquet", "rows.jsonl"])
def test_every_kind_of_file_gives_the_same_audit(
    name: str, folders: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    result = holdfast.audit_data(model=folders["model"], data=folders["data.jsonl"], prepared=folders[name], json=True)
    said = capsys.readouterr()
    assert (result.findings, result.rows, result.exit_code) == ((), 6, 0)
    assert ("split 'train' is read; test is not" in said.err) == (name == "splits")
    assert {line.role for line in result.roles} == {"user", "template", "assistant", "empty_think", "eos"}


def test_without_data_only_ids_are_looked_at(folders: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    result = holdfast.audit_data(model=folders["model"], prepared=folders["saved"])
    assert [line.role for line in result.roles] == ["unknown"]
    assert any("only ids were looked at" in sentence for sentence in result.not_seen)
    assert "only ids were looked at" in capsys.readouterr().err


def test_the_command_names_a_planted_bug(folders: dict[str, str], tmp_path: Path) -> None:
    rows = [json.loads(line) for line in Path(folders["rows.jsonl"]).read_text(encoding="utf-8").splitlines()]
    broken = [row | {"labels": row["input_ids"]} for row in rows]
    Dataset.from_list(broken).save_to_disk(str(tmp_path / "broken"))
    result = holdfast.audit_data(
        model=folders["model"], data=folders["data.jsonl"], prepared=str(tmp_path / "broken"), json=True
    )
    assert result.exit_code == 1
    assert [(finding.kind, finding.count) for finding in result.findings] == [("everything-paid", 6)]


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"loss_weights": ["a", 1, 1]}, "'loss_weights' holds 'a', which is no weight"),
        ({"loss_weights": [None, 1, 1]}, "'loss_weights' holds None"),
        ({"loss_weights": [math.nan, 1, 1]}, "'loss_weights' holds nan"),
        ({"loss_weights": [-1.0, 1, 1]}, "'loss_weights' holds -1.0"),
        ({"seq_lengths": [5, -2]}, "'seq_lengths' holds -2, which is no length"),
        ({"packing_params": "x"}, "'packing_params' is no object"),
        ({"input_ids": None}, "'input_ids' is null"),
    ],
)
def test_a_row_that_cannot_be_one_is_named(columns: dict[str, Any], said: str) -> None:
    with pytest.raises(HoldfastError, match=f"a, row 1: {said}"):
        read_prepared([({"input_ids": [4, 5, 6]} | columns, "a, row 1")], context_of_model(make_tokenizer(), None))


@pytest.mark.parametrize("name", ["qwen2_5", "phi3", "glm4moe_training"])
def test_ids_alone_show_what_is_paid_whole_shifted_or_joined(tokenizers: Any, tmp_path: Path, name: str) -> None:
    """Also where a template begins with a system message of its own, ends in EOS, or has headers of one token."""
    tokenizer = tokenizers(name)
    texts = [str(tokenizer.apply_chat_template(row["messages"], tokenize=False)) for row in chats(4)]
    rows = [{"input_ids": tokenizer(text, add_special_tokens=False)["input_ids"]} for text in texts]
    assert "everything-paid" in kinds(audited(rows, tokenizer))
    right = []
    for row in rows:
        half = len(row["input_ids"]) // 2
        right.append(row | {"labels": [IGNORED] * half + row["input_ids"][half - 1 : -1]})
    assert "labels-shifted" in kinds(audited(right, tokenizer))
