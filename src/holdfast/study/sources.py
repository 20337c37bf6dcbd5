"""Base model and data of a study -> tokens on disk, and the facts that the plan needs.

    FOLDER/KEY.json                                             facts: counts, digests, default learning rate
    FOLDER/KEY.npz                                              tokens of train, dev and test
    FOLDER/NAME-train.jsonl, NAME-dev.jsonl, NAME-test.jsonl    the splits, where the study makes them itself

Data is tokenised once and read by every worker. The key covers everything that the tokens depend on, so a folder can be
used again.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
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
from holdfast.config.legacy import without_legacy
from holdfast.data.examples import load_examples
from holdfast.data.read import load_rows, source_digest
from holdfast.data.shapes import shape_of
from holdfast.errors import HoldfastError
from holdfast.pocket import META
from holdfast.records import PROMPT_ROLES, RESPONSE_ROLES, Example, Role, Tokens
from holdfast.runs import check_arrays, read_json, write_json, write_text
from holdfast.study.grid import Targets, weights_of
from holdfast.study.spec import Data
from holdfast.tables.text import counted
from holdfast.tune.plan import default_learning_rate, encode_source, tell_rows

FORMAT = 2
_TOKEN_FIELDS = (
    "model",
    "layout",
    "template",
    "chat_template",
    "chat_template_kwargs",
    "stop",
    "spans",
    "turns",
    "max_length",
    "truncation",
    "skip_bad_rows",
    "limit",
    "trust_remote_code",
    "columns",
    "roles",
    "joint",
    "date",
)
_HELD_OUT = 0.1
SPLITS = ("train", "dev", "test")
ROLE_COUNTS = ("targets", "weighted_targets", "counted_targets")
"""Fields of a report that are counts by role."""


@dataclass(frozen=True)
class SourceFacts:
    """What is known of one base model on one data set.

    ``files`` are the three splits as ``TuneConfig.data`` takes them, and ``digests`` are those of the files.
    ``targets`` counts weighted target tokens by role. ``role_masks`` are the sets of roles (as bits) that some training
    example has as targets. ``seen`` counts the examples of dev and test that are also in the training data. ``date`` is
    the day that the chat template prints; None: it prints none; "": an older version did not say.
    """

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
    date: str | None = ""

    def weighted(self) -> Targets:
        """Return the targets by role."""
        counted = self.report.get("counted_targets")  # older versions wrote none
        return Targets(roles_counter(self.targets), self.scaled, roles_counter(counted) if counted else None)

    def suits(self, weights: Mapping[Role, float]) -> bool:
        """Return whether every training example has a target of non-zero weight. If one has none, a training with
        these weights leaves it out, and needs tokens without it."""
        used = sum(1 << role for role, weight in weights.items() if weight)
        return all(mask & used for mask in self.role_masks)


class Sources:
    """The facts of one base model on one data set: several if ``limit``, ``template`` or the like is varied.

    Args:
        folders: where facts and tokens may be; new ones are written to the last.
        responses: whether any training gives responses a weight.
        day: what a chat template with a date prints, unless the config says.
    """

    def __init__(self, data: Data, folders: Sequence[Path], *, responses: bool, day: str) -> None:
        self.data, self.folders, self.responses, self.day = data, folders, responses, day
        self.facts: dict[str, SourceFacts] = {}
        self._asked: dict[str, SourceFacts] = {}

    def of(self, config: TuneConfig) -> SourceFacts:
        """Return the facts of what a training with this config sees. Trainings share the tokens of ``whole`` unless
        their weights leave out some example altogether.

        Raises:
            HoldfastError: see ``prepare``.
        """
        weights = weights_of(config)
        facts = self.whole(config)
        if facts.suits(weights):
            return facts
        return self._prepared(config, {role.label: float(weight > 0) for role, weight in weights.items() if role})

    def whole(self, config: TuneConfig) -> SourceFacts:
        """Return the facts of the data with a weight on all roles, or on all prompts."""
        roles = (*PROMPT_ROLES, *RESPONSE_ROLES) if self.responses else PROMPT_ROLES
        return self._prepared(config, {role.label: float(role in roles) for role in (*PROMPT_ROLES, *RESPONSE_ROLES)})

    def _prepared(self, config: TuneConfig, weights: dict[str, float]) -> SourceFacts:
        asked = json.dumps([[getattr(config, name) for name in _TOKEN_FIELDS], weights])
        if asked not in self._asked:
            facts = prepare(config, self.data, weights, self.folders, self.day)
            self._asked[asked] = self.facts[facts.key] = facts
        return self._asked[asked]


def splits(data: Data, folder: Path) -> dict[str, str]:
    """Return the three splits of a data set, as ``TuneConfig.data`` takes them. Those that the study does not name are
    cut off the training data and written to ``folder``.

    The hash of a row's content decides on its split, so equal rows stay together, and new rows move no others.
    """
    files = {name: value for name, value in (("train", data.train), ("dev", data.dev), ("test", data.test)) if value}
    missing = [name for name in ("dev", "test") if name not in files]
    if not missing:
        return files
    parts: dict[str, list[str]] = {name: [] for name in ("train", *missing)}
    for row in load_rows(data.train):
        if data.train.startswith("pocket:"):
            # The facts of a pocket row say nothing about its content, so they do not move it to another split.
            row = {column: value for column, value in row.items() if column != META}
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


def prepare(
    config: TuneConfig, data: Data, weights: Mapping[str, float], folders: Sequence[Path], day: str
) -> SourceFacts:
    """Return the facts of one data set for one model, after tokenising it where no folder has its tokens. The date is
    part of the key of a chat template that prints it, and of no other.

    Args:
        config: holds the model and every field that tokens depend on.
        weights: role -> weight, non-zero for every role that any setting gives weight. An example without a target of
            such a role cannot be learned from and is left out.
        folders: where tokens may be; new ones are written to the last.
        day: what the chat template prints if it prints a date and the config names none.

    Raises:
        HoldfastError: bad data, with file and row; dev and test that share an example.
    """
    folder = folders[-1]
    files = splits(data, folder)
    digests = {name: str(source_digest(file)) for name, file in files.items()}
    model_digest = digest_of_model(config.model)
    day = config.date or day
    keys = {}
    for date in (None, day):
        values = {name: getattr(config, name) for name in _TOKEN_FIELDS} | {"date": date}
        fields = without_legacy(TuneConfig, values)
        keys[date] = json_digest([FORMAT, fields, digests, model_digest, sorted(weights.items())])[:12]
    for (date, key), place in itertools.product(keys.items(), folders):
        facts = _read(place / f"{key}.json")
        if facts and (facts.date == date or (facts.date == "" and config.date is None)):
            return dataclasses.replace(facts, files=files, data=data.name)
    reading = dataclasses.replace(
        config, preset=None, prompt_weight=None, response_weight=None, weights=dict(weights), date=day
    )
    return _tokenise(reading, data, keys, files, digests, model_digest, folder)


def _read(file: Path) -> SourceFacts | None:
    """Return facts that were written before; None where they, or their tokens, are missing or damaged."""
    tokens = file.with_suffix(".npz")
    if not (file.is_file() and tokens.is_file()):
        return None
    try:
        check_arrays(tokens, ["_".join(pair) for pair in itertools.product(SPLITS, ("lengths", "ids", "roles"))])
        return SourceFacts(**read_json(file))
    except (HoldfastError, TypeError) as error:  # TypeError: facts are missing
        reason = error.message if isinstance(error, HoldfastError) else f"{file}: {error}"
        print(f"warning: {reason}; the data is tokenised again", file=sys.stderr)
        return None


def _tokenise(
    config: TuneConfig,
    data: Data,
    keys: Mapping[str | None, str],
    files: dict[str, str],
    digests: dict[str, str],
    model_digest: str,
    folder: Path,
) -> SourceFacts:
    bad_rows: list[str] | None = [] if config.skip_bad_rows else None
    bad_of_test: list[str] | None = [] if config.skip_bad_rows else None
    read = partial(
        load_examples,
        layout=config.layout,
        needs_response=any(config.weights[role.label] for role in RESPONSE_ROLES),
        shape=shape_of(config),
    )
    examples = {
        "train": read(files["train"], limit=config.limit, bad_rows=bad_rows),
        "dev": read(files["dev"], bad_rows=bad_rows),
        "test": read(files["test"], bad_rows=bad_of_test),
    }
    every = [*itertools.chain.from_iterable(examples.values())]
    tell_rows(data.train, every, [*(bad_rows or []), *(bad_of_test or [])])
    _check_overlap(examples["dev"], examples["test"], files)
    source = encode_source(
        dataclasses.replace(config, data=files["train"]), examples["train"], examples["dev"], bad_rows
    )
    test = encode_source(dataclasses.replace(config, data=files["test"]), examples["test"], [], bad_of_test)
    tokens = {"train": source.train, "dev": source.held_out, "test": test.train}
    key = keys[source.date]
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
        labelled=all(map(_labelled, (*examples["dev"], *examples["test"]))),
        seen=len({*map(_content, examples["train"])} & {*map(_content, (*examples["dev"], *examples["test"]))}),
        report=_plain(source.report, source.bad_rows),
        date=source.date,
    )
    save_tokens(folder / f"{key}.npz", tokens)
    write_json(folder / f"{key}.json", dataclasses.asdict(facts))
    return facts


def _content(example: Example) -> tuple[tuple[int, str, str], ...]:
    return tuple((int(m.role), m.content, json.dumps(m.extras, default=str)) for m in example.messages)


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
            f"dev ({files['dev']}) and test ({files['test']}) share {counted(len(both), 'example')}; "
            f"the first: {both[0][0]} is {both[0][1]}",
            hint="a choice made on dev could then not be judged on test; take the examples out of one of the two",
        )


def _role_mask(tokens: Tokens) -> int:
    targets = np.ones(len(tokens), bool) if tokens.scale is None else tokens.scale != 0
    return sum(1 << int(role) for role in np.unique(tokens.roles[1:][targets[1:]]))


def _plain(report: Any, bad_rows: list[str]) -> dict[str, Any]:
    """Return a TokenReport as JSON values, from which ``trial`` makes it again."""
    values = dict(vars(report))
    for name in ROLE_COUNTS:
        values[name] = {role.label: value for role, value in values[name].items()}
    return values | {"templates": dict(values["templates"]), "bad_rows": bad_rows}


def save_tokens(path: Path, tokens: Mapping[str, list[Tokens]]) -> None:
    """Write lists of ``Tokens`` as flat arrays. A crash leaves no half-written file."""
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
    """Return one list of what ``save_tokens`` has written."""
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
    """Return what stands for a base model in addresses. Of a local one it is a digest of its configs and of both ends
    of every weight file, because whole weights take long to read; of one from the hub it is the name.
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
    """Return counts by role from counts by a role's name."""
    return Counter({Role[name.upper()]: value for name, value in values.items()})  # type: ignore[arg-type]


def json_digest(value: Any) -> str:
    """Return the SHA-256 of a value in JSON, with sorted keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
