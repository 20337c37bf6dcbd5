"""Base model and data of a study -> tokens on disk and the facts that the plan needs. Tokenised once, read by every
worker.

    FOLDER/KEY.json      facts: counts, digests, default learning rate        FOLDER/KEY.npz    tokens of train, dev and
    test
    FOLDER/NAME-train.jsonl, NAME-dev.jsonl, NAME-test.jsonl                  where the study splits the data itself

The key covers everything that the tokens depend on, so a folder can be used again, and what is there is never made
twice.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from holdfast.config import TuneConfig
from holdfast.data.examples import load_examples
from holdfast.data.read import load_rows, source_digest
from holdfast.errors import HoldfastError
from holdfast.pocket import META
from holdfast.records import PROMPT_ROLES, RESPONSE_ROLES, Example, Role, Tokens
from holdfast.runs import check_arrays, read_json, write_json, write_text
from holdfast.study.settings import Targets
from holdfast.study.spec import Data
from holdfast.tune.plan import default_learning_rate, encode_source, tell_rows
from holdfast.tune.weights import role_weights

FORMAT = 2
_TOKEN_FIELDS = (
    "model",
    "layout",
    "template",
    "max_length",
    "truncation",
    "skip_bad_rows",
    "limit",
    "trust_remote_code",
)
_HELD_OUT = 0.1
SPLITS = ("train", "dev", "test")


@dataclass(frozen=True)
class SourceFacts:
    """What is known of one base model on one data set. ``files`` are the three splits as ``TuneConfig.data`` takes
    them, ``digests`` theirs; ``targets`` are weighted target tokens per role, ``role_masks`` the sets of roles (bits)
    that an example has as targets."""

    key: str
    model: str
    data: str
    files: dict[str, str]
    digests: dict[str, str]
    model_digest: str
    examples: dict[str, int]
    tokens: int
    targets: dict[str, float]
    scaled: bool
    role_masks: list[int]
    max_length: int
    parameters: int
    learning_rate: float
    learning_rate_lora: float
    labelled: bool
    seen: int
    report: dict[str, Any] = field(default_factory=dict)

    def weighted(self) -> Targets:
        """The targets by role."""
        return Targets({Role[name.upper()]: count for name, count in self.targets.items()}, self.scaled)

    def suits(self, weights: Mapping[Role, float]) -> bool:
        """Whether every training example has a target of non-zero weight, so that these tokens are those of a training
        of its own.
        """
        used = sum(1 << role for role, weight in weights.items() if weight)
        return all(mask & used for mask in self.role_masks)


class Sources:
    """The facts of one base model on one data set, per way of reading it (several where ``limit`` or ``template`` is
    varied, say).

    Args:
        folders: where facts and tokens may be; the last one is where new ones go.
        responses: whether any training gives responses a weight.
    """

    def __init__(self, data: Data, folders: Sequence[Path], *, responses: bool) -> None:
        self.data, self.folders, self.responses = data, folders, responses
        self.facts: dict[str, SourceFacts] = {}
        self._asked: dict[str, SourceFacts] = {}

    def of(self, config: TuneConfig) -> SourceFacts:
        """What a training with this config would see. All roles count as weighted, so that trainings share tokens; only
        one whose weights leave out some example altogether gets tokens of its own.

        Raises:
            HoldfastError: see ``prepare``.
        """
        weights = role_weights(config.prompt_weight, config.response_weight, config.preset, config.weights)
        facts = self.whole(config)
        if facts.suits(weights):
            return facts
        return self._prepared(config, {role.label: float(weight > 0) for role, weight in weights.items() if role})

    def whole(self, config: TuneConfig) -> SourceFacts:
        """The data with a weight on all roles, or on all prompts."""
        roles = (*PROMPT_ROLES, *RESPONSE_ROLES) if self.responses else PROMPT_ROLES
        return self._prepared(config, {role.label: float(role in roles) for role in (*PROMPT_ROLES, *RESPONSE_ROLES)})

    def _prepared(self, config: TuneConfig, weights: dict[str, float]) -> SourceFacts:
        asked = json.dumps([[getattr(config, name) for name in _TOKEN_FIELDS], weights])
        if asked not in self._asked:
            facts = prepare(config, self.data, weights, self.folders)
            self._asked[asked] = self.facts[facts.key] = facts
        return self._asked[asked]


def splits(data: Data, folder: Path) -> dict[str, str]:
    """The three splits of a data set, as ``TuneConfig.data`` takes them; those that are not given are cut off the
    training data.

    A row goes to the split that its content says (a hash), so equal rows stay together and more rows move none of the
    others.
    """
    files = {name: value for name, value in (("train", data.train), ("dev", data.dev), ("test", data.test)) if value}
    missing = [name for name in ("dev", "test") if name not in files]
    if not missing:
        return files
    parts: dict[str, list[str]] = {name: [] for name in ("train", *missing)}
    for row in load_rows(data.train):
        if data.train.startswith("pocket:"):
            row = {
                column: value for column, value in row.items() if column != META
            }  # facts about a row move it nowhere
        text = json.dumps(row, ensure_ascii=False, sort_keys=True)
        place = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") / 2**32 / _HELD_OUT
        parts[missing[int(place)] if place < len(missing) else "train"].append(text + "\n")
    for name, lines in parts.items():
        if not lines:
            raise HoldfastError(
                f"{data.train}: too few rows to cut off a {name} split", hint="name one under data: {dev: .., test: ..}"
            )
        file = folder / f"{data.name.replace('/', '-').replace(':', '-')}-{name}.jsonl"
        write_text(file, "".join(lines))
        files[name] = str(file)
    return files


def prepare(config: TuneConfig, data: Data, weights: Mapping[str, float], folders: Sequence[Path]) -> SourceFacts:
    """Tokenise one data set for one model, or find that it has been done.

    Args:
        config: every TuneConfig field that tokens depend on, and the model.
        weights: role -> weight, non-zero for every role that any setting gives weight; decides which examples can be
            learned from.
        folders: where to look; the last one is where to write.

    Raises:
        HoldfastError: bad data, with file and row; dev and test that share an example.
    """
    *earlier, folder = folders
    files = splits(data, folder)
    digests = {name: str(source_digest(file)) for name, file in files.items()}
    model_digest = digest_of_model(config.model)
    fields = {name: getattr(config, name) for name in _TOKEN_FIELDS}
    key = _sha([FORMAT, fields, digests, model_digest, sorted(weights.items())])[:12]
    for place in (*earlier, folder):
        facts = _found(place / f"{key}.json")
        if facts is not None:
            return dataclasses.replace(facts, files=files, data=data.name)
    reading = dataclasses.replace(config, preset=None, prompt_weight=None, response_weight=None, weights=dict(weights))
    return _tokenise(reading, data, key, files, digests, model_digest, folder)


def _found(file: Path) -> SourceFacts | None:
    """What has been made before, if facts and tokens are there and whole."""
    tokens = file.with_suffix(".npz")
    if not (file.is_file() and tokens.is_file()):
        return None
    try:
        check_arrays(tokens, [f"{split}_{kind}" for split in SPLITS for kind in ("lengths", "ids", "roles")])
        return SourceFacts(**read_json(file))
    except (HoldfastError, TypeError) as error:  # TypeError: facts are missing
        reason = error.message if isinstance(error, HoldfastError) else f"{file}: {error}"
        print(f"warning: {reason}; the data is tokenised again", file=sys.stderr)
        return None


def _tokenise(
    config: TuneConfig,
    data: Data,
    key: str,
    files: dict[str, str],
    digests: dict[str, str],
    model_digest: str,
    folder: Path,
) -> SourceFacts:
    bad_rows: list[str] | None = [] if config.skip_bad_rows else None
    of_test: list[str] | None = [] if config.skip_bad_rows else None
    read = partial(
        load_examples, layout=config.layout, needs_response=any(config.weights[role.label] for role in RESPONSE_ROLES)
    )
    examples = {
        "train": read(files["train"], limit=config.limit, bad_rows=bad_rows),
        "dev": read(files["dev"], bad_rows=bad_rows),
        "test": read(files["test"], bad_rows=of_test),
    }
    tell_rows(
        data.train, [example for items in examples.values() for example in items], [*(bad_rows or []), *(of_test or [])]
    )
    _check_overlap(examples["dev"], examples["test"], files)
    source = encode_source(
        dataclasses.replace(config, data=files["train"]), examples["train"], examples["dev"], bad_rows
    )
    test = encode_source(dataclasses.replace(config, data=files["test"]), examples["test"], [], of_test)
    tokens = {"train": source.train, "dev": source.held_out, "test": test.train}
    facts = SourceFacts(
        key=key,
        model=config.model,
        data=data.name,
        files=files,
        digests=digests,
        model_digest=model_digest,
        examples={name: len(items) for name, items in tokens.items()},
        tokens=source.report.tokens,
        targets={role.label: float(count) for role, count in source.report.weighted_targets.items()},
        role_masks=sorted({_role_mask(t) for t in source.train}),
        scaled=any(t.scale is not None for t in source.train),
        max_length=source.max_length,
        parameters=source.parameters,
        learning_rate=default_learning_rate(source.parameters),
        learning_rate_lora=default_learning_rate(source.parameters, lora=True),
        labelled=all(_labelled(e) for name in ("dev", "test") for e in examples[name]),
        seen=len(
            {_content(e) for e in examples["train"]} & {_content(e) for e in (*examples["dev"], *examples["test"])}
        ),
        report=_plain(source.report, source.bad_rows),
    )
    save_tokens(folder / f"{key}.npz", tokens)
    write_json(folder / f"{key}.json", dataclasses.asdict(facts))
    return facts


def _content(example: Example) -> tuple[tuple[int, str], ...]:
    return tuple((int(m.role), m.content) for m in example.messages)


def _labelled(example: Example) -> bool:
    return (
        len(example.messages) > 1
        and example.messages[-1].role is Role.ASSISTANT
        and bool(example.messages[-1].content.strip())
    )


def _check_overlap(dev: list[Example], test: list[Example], files: dict[str, str]) -> None:
    dev_places = {_content(e): e.where for e in dev}
    both = [(dev_places[_content(e)], e.where) for e in test if _content(e) in dev_places]
    if both:
        raise HoldfastError(
            f"dev ({files['dev']}) and test ({files['test']}) share {len(both)} examples; the first: {both[0][0]} is "
            f"{both[0][1]}",
            hint="a choice made on dev could then not be judged on test; take the examples out of one of the two",
        )


def _role_mask(tokens: Tokens) -> int:
    targets = np.ones(len(tokens), bool) if tokens.scale is None else tokens.scale != 0
    return sum(1 << int(role) for role in np.unique(tokens.roles[1:][targets[1:]]))


def _plain(report: Any, bad_rows: list[str]) -> dict[str, Any]:
    """A TokenReport as JSON values, from which ``worker`` makes it again."""
    values = dict(vars(report))
    for name in ("targets", "weighted_targets"):
        values[name] = {role.label: value for role, value in values[name].items()}
    return values | {"templates": dict(values["templates"]), "bad_rows": bad_rows}


def save_tokens(path: Path, tokens: Mapping[str, list[Tokens]]) -> None:
    """Lists of ``Tokens`` as flat arrays: whole or not at all."""
    arrays: dict[str, Any] = {}
    for name, items in tokens.items():
        arrays[f"{name}_lengths"] = np.array([len(t) for t in items], np.int32)
        arrays[f"{name}_ids"] = np.concatenate([t.ids for t in items] or [np.zeros(0, np.int32)])
        arrays[f"{name}_roles"] = np.concatenate([t.roles for t in items] or [np.zeros(0, np.int8)])
        if any(t.scale is not None for t in items):
            ones = [t.scale if t.scale is not None else np.ones(len(t), np.float32) for t in items]
            arrays[f"{name}_scale"] = np.concatenate(ones)
    partial = path.with_suffix(".partial.npz")
    np.savez(partial, **arrays)
    partial.replace(path)


def load_tokens(path: Path, name: str) -> list[Tokens]:
    """The inverse of ``save_tokens``, for one list."""
    with np.load(path, allow_pickle=False) as arrays:
        ends = np.cumsum(arrays[f"{name}_lengths"])
        ids, roles = arrays[f"{name}_ids"], arrays[f"{name}_roles"]
        scale = arrays.get(f"{name}_scale")
    items = []
    for start, end in zip([0, *ends[:-1]], ends, strict=True):
        part = None if scale is None or (scale[start:end] == 1).all() else scale[start:end]
        items.append(Tokens(ids[start:end], roles[start:end], part))
    return items


def digest_of_model(name: str) -> str:
    """What stands for a base model: configs and both ends of every weight file of a local one, the name of one from the
    hub.
    """
    from holdfast import pocket, runs

    path = Path(name)
    folder = pocket.model_path() if name == "pocket" else runs.resolve(path) or path
    if not folder.is_dir():
        return name
    digest = hashlib.sha256()
    for file in sorted(p for p in folder.iterdir() if p.suffix in (".json", ".safetensors")):
        size = file.stat().st_size
        digest.update(f"{file.name} {size}".encode())
        with file.open("rb") as content:
            digest.update(content.read(2**20))
            content.seek(max(0, size - 2**20))
            digest.update(content.read())
    return digest.hexdigest()


def roles_counter(values: Mapping[str, float]) -> Counter[Role]:
    """Counts by role, from their names."""
    return Counter({Role[name.upper()]: value for name, value in values.items()})  # type: ignore[arg-type]


def _sha(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
