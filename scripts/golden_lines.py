"""Command lines made systematically from the fields of the config classes, with the configs that they give. See
``make_golden.py``.
"""

from __future__ import annotations

import dataclasses
import os
import shlex
import tempfile
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from golden_case import LINES, call, dump, options, parse, write_files

Entry = dict[str, Any]
Field = dataclasses.Field[Any]
FILE = "c.yaml"
VALUES: dict[Any, list[tuple[str, str]]] = {
    int: [("7", "7")],
    float: [("0.375", "0.375"), ("2e-5", "2e-5"), ("3", "3")],  # YAML reads 2e-5 as text, and users write it
    list[str]: [("one 'and two'", "[one, and two]"), ("one", "[one]")],
    dict[str, float]: [("user 0.5 eos 1", "{user: 0.5, eos: 1}")],
    dict[str, str]: [("adam_beta2 0.98 optim sgd", "{adam_beta2: 0.98, optim: sgd, group_by_length: true, top: 3}")],
}
"""By type: as written after a flag, and in YAML."""
SHARES = {"eval_share", "warmup_ratio", "lora_dropout", "keep", "least_margin", "alpha", "audit_share", "min_meaning"}
TEXTS = {
    "template": "plain", "schedule": "constant_with_warmup", "adaptive": "power:0.5", "loss": "ipo,sft",
    "report_to": "tensorboard", "suite": "knowledge,chat", "tasks": "mmlu_anatomy", "format": "md,csv",
    "retriever": "mmr", "in_task_retriever": "similar", "encoder": "some/encoder", "variants": "spelling,casing",
    "answers": "option", "endpoint": "http://localhost:8000/v1", "judge_url": "http://localhost:8000/v1",
    "where": "stage=sft", "in_task": "pool",
}  # fmt: skip
"""What an option of text may be, where not anything; so that a later check of it will agree."""
BAD: dict[Any, tuple[list[str], list[str]]] = {
    str: ([""], ["3", "[one]"]),
    int: (["", "=many", "=1.5"], ["many", "1.5", "[1]"]),
    float: (["", "=heavy", "=nan", "=inf"], ["heavy", "[1]"]),
    bool: (["=maybe"], ["maybe", "3"]),
    "literal": (["", "=no-such-choice"], ["no-such-choice", "3"]),
    list[str]: ([], ["one", "[1]"]),
    dict[str, float]: ([" user heavy"], ["[1, 2]", "{user: heavy}"]),
    dict[str, str]: ([" alone"], ["[1, 2]", "3"]),
}
"""By type: what is no value of it, after a flag and in YAML."""


def record(names: set[str]) -> None:
    """Write one file per command, and the overview."""
    LINES.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        for command, config_class in options():
            name = command.replace(" ", "-")
            if not names or name in names:
                (LINES / f"{name}.json").write_text(dump(recorded(command, config_class)), encoding="utf-8")
        if not names or "overview" in names:
            (LINES / "overview.json").write_text(dump(overview()), encoding="utf-8")


def recorded(command: str, config_class: type) -> Entry:
    """All lines of a command. Each is checked on the way: what one option sets is that option and no other."""
    hints = typing.get_type_hints(config_class)
    fields = [(f, hints[f.name]) for f in dataclasses.fields(config_class)]
    least = [f"{flag(f)} {f.name}" for f, _ in fields if required(f)]
    defaults = config_of({"line": " ".join([command, *least])})
    lines = []
    for entry, names in entries(command, config_class, fields):
        config = config_of(entry)
        changes = {
            key: value
            for key, value in config.items()
            if value != defaults[key] or type(value) is not type(defaults[key])
        }
        assert changes.keys() == names or (len(names) != 1 and changes.keys() <= names), (entry, changes)
        lines.append(entry | {"changes": changes})
    return {
        "command": command,
        "defaults": defaults,
        "lines": lines,
        "refused": [judged(e) for e in refusals(command, config_class, fields)],
    }


def config_of(entry: Entry) -> Any:
    write_files(entry.get("files", {}), Path())
    answer = parse(entry["line"])
    assert answer.config is not None, (entry, answer.err)
    return answer.config


def judged(entry: Entry) -> Entry:
    """A line that is refused, with its exit code; its error must name what ``says`` says."""
    write_files(entry.get("files", {}), Path())
    answer = parse(entry["line"])
    assert answer.exit_code == 2, (entry, answer)
    assert answer.config is None, (entry, answer)
    assert entry["says"] in answer.err, (entry, answer.err)
    return entry | {"exit_code": answer.exit_code}


def entries(command: str, config_class: Any, fields: list[tuple[Field, Any]]) -> Iterator[tuple[Entry, set[str]]]:
    """Lines, and the options that each may change."""
    every = {f.name for f, _ in fields}
    for f, kind in fields:
        for written, _ in values(f, kind):
            yield {"form": "flag", "line": line(command, fields, {f.name: written})}, {f.name}
        for _, text in values(f, kind):
            yield in_yaml("yaml", command, fields, f"{f.name}: {text}\n", {f.name}), {f.name}
    yield from together(command, fields, every)
    yield from positional(command, config_class, fields, every)


def together(command: str, fields: list[tuple[Field, Any]], every: set[str]) -> Iterator[tuple[Entry, set[str]]]:
    """All options at once, in the ways of writing that every option has; and flags over files."""
    first = {f.name: values(f, kind)[0] for f, kind in fields}
    spelled = {name: written for name, (written, _) in first.items()}
    equal = {f.name: spelled[f.name].replace(" ", "=", 0 if many(kind) else 1) for f, kind in fields}
    underscored = {
        name: "--" + name.join(written[2:].split(name.replace("_", "-"), 1)) for name, written in spelled.items()
    }
    for given in (spelled, equal, underscored):
        yield {"form": "flag", "line": line(command, fields, given)}, every
    for separator in ("_", "-"):
        text = "".join(f"{name.replace('_', separator)}: {text}\n" for name, (_, text) in first.items())
        yield in_yaml("yaml", command, fields, text, every), every
        yield (
            {"form": "mixed", "files": {FILE: text}, "line": f"{command} --config={FILE} --output over --seed 5"},
            every,
        )
        yield (
            {"form": "mixed", "files": {FILE: text}, "line": f"{command} --output over --seed 5 --config {FILE}"},
            every,
        )
    files = {"a.yaml": "seed: 3\noutput: a\njson: true\n", "b.yaml": "seed: 4\ndry-run: true\n"}
    needed = line(command, fields, {"output": ""})
    yield {"form": "mixed", "files": files, "line": f"{needed} --config a.yaml --config b.yaml"}, every
    yield {"form": "mixed", "files": {FILE: ""}, "line": f"{line(command, fields, {})} --config {FILE}"}, set()
    if "max_steps" in every:
        yield {"form": "mixed", "line": line(command, fields, {"max_steps": "--max-steps -1"})}, set()
    twice = " ".join([line(command, fields, {"seed": "--seed 3"}), "--seed 4"])
    yield {"form": "mixed", "line": twice}, {"seed"}


def positional(
    command: str, config_class: Any, fields: list[tuple[Field, Any]], every: set[str]
) -> Iterator[tuple[Entry, set[str]]]:
    """Arguments without a flag, in front of flags; of a list also between and behind them. Short forms of flags."""
    names = getattr(config_class, "positional", ())
    if not names:
        return
    loose = " ".join(f"./{name}" for name in names)
    rest = " ".join(f"{flag(f)} x" for f, _ in fields if required(f) and f.name not in names)
    start = f"{command} {loose} {rest}".strip()
    yield {"form": "positional", "line": start}, every
    yield {"form": "positional", "line": f"{start} --output o --json --seed 3"}, every
    yield {"form": "positional", "files": {FILE: "seed: 3\n"}, "line": f"{start} --config {FILE}"}, every
    if len(names) > 1:
        yield (
            {
                "form": "positional",
                "line": f"{command} ./{names[0]} --{names[1].replace('_', '-')} ./{names[1]} {rest}".strip(),
            },
            every,
        )
    if many(typing.get_type_hints(config_class)[names[0]]):
        yield {"form": "positional", "line": f"{command} one two 'and three'"}, every
        yield {"form": "positional", "line": f"{command} one --json two --output o three --dry-run"}, every
        yield {"form": "positional", "line": f"{command} --output=o one two"}, every
    for short in getattr(config_class, "short", {}):
        yield {"form": "positional", "line": f"{start} {short} other"}, every


def refusals(command: str, config_class: Any, fields: list[tuple[Field, Any]]) -> Iterator[Entry]:
    """Lines that are refused before anything runs, and what the error names."""
    for f, kind in fields:
        if required(f) and f.name not in getattr(config_class, "positional", ()):
            yield {"line": line(command, fields, {f.name: ""}), "says": flag(f)}
        for written in bad(kind, 0):
            says = "maybe" if written == "=maybe" else flag(f)  # the error names the word that a switch cannot take
            yield {"line": line(command, fields, {f.name: f"{flag(f)}{written}"}), "says": says}
        for text in bad(kind, 1):
            yield in_yaml("", command, fields, f"{f.name}: {text}\n", {f.name}) | {"says": f.name}
    for name, bound in lowest(config_class).items():
        f = next(f for f, _ in fields if f.name == name)
        below = bound - 1
        yield {"line": line(command, fields, {name: f"{flag(f)}={below:g}"}), "says": f"{flag(f)} is {below:g}"}
        yield in_yaml("", command, fields, f"{name}: {below:g}\n", {name}) | {"says": f"{flag(f)} is {below:g}"}
    yield {"line": line(command, fields, {"seed": f"--seed {2**32}"}), "says": f"--seed is {2**32}"}
    least = line(command, fields, {})
    yield {"line": f"{least} --no-such-option 1", "says": "no-such-option"}
    yield {"line": f"{least} --config", "says": "--config"}
    yield {"line": f"{least} --config nowhere.yaml", "says": "nowhere.yaml"}
    for text, says in {
        "no_such_key: 1\n": "no_such_key",
        "- a\n": "c.yaml",
        "a: [\n": "broken YAML",
        "seed: {a: 1}\n": "seed",
    }.items():
        yield {"files": {FILE: text}, "line": f"{least} --config {FILE}", "says": says}
    if not getattr(config_class, "positional", ()):
        yield {"line": f"{least} loose", "says": "loose"}


def overview() -> list[Entry]:
    """Help, and commands that there are not."""
    commands = dict(options())
    made: list[Entry] = [{"line": text, "says": ["usage: holdfast", *commands]} for text in ("", "--help", "-h")]
    for group in sorted({name.split()[0] for name in commands if " " in name}):
        made += [
            {"line": f"{group}{text}", "says": [name for name in commands if name.startswith(f"{group} ")]}
            for text in ("", " --help")
        ]
        made.append({"line": f"{group} nonsense", "says": [f"{group} nonsense"]})
    for name, config_class in commands.items():
        made.append({"line": f"{name} --help", "says": [help_name(f) for f in dataclasses.fields(config_class)]})
    made += [
        {"line": "--version", "says": ["holdfast "]},
        {"line": "tuen", "says": ["did you mean 'tune'"]},
        {"line": "--nonsense", "says": []},
    ]
    return [entry | {"exit_code": call(entry["line"]).exit_code} for entry in made]


def help_name(f: Field) -> str:
    return f"--no-{flag(f)[2:]}" if f.default is True else flag(f)


def line(command: str, fields: list[tuple[Field, Any]], given: dict[str, str]) -> str:
    """The command with what it needs at least, in which ``given`` says how single options are written."""
    words = {f.name: f"{flag(f)} {f.name}" for f, _ in fields if required(f)} | given
    return " ".join([command, *(words[f.name] for f, _ in fields if words.get(f.name))])


def in_yaml(form: str, command: str, fields: list[tuple[Field, Any]], text: str, given: set[str]) -> Entry:
    """The same with a config file; what it gives is not given as a flag."""
    made = {"files": {FILE: text}, "line": f"{line(command, fields, dict.fromkeys(given, ''))} --config {FILE}"}
    return made | ({"form": form} if form else {})


def flag(f: Field) -> str:
    return "--" + f.name.replace("_", "-")


def required(f: Field) -> bool:
    return f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING


def lowest(config_class: type) -> dict[str, float]:
    bounds: dict[str, float] = {}
    for base in reversed(config_class.__mro__):
        bounds |= vars(base).get("least", {})
    return bounds


def many(kind: Any) -> bool:
    return typing.get_origin(kind) in (list, dict)


def values(f: Field, kind: Any) -> list[tuple[str, str]]:
    """Values other than the default: as written with the flag, and in YAML."""
    made: list[tuple[str, str]] = []
    for choice in choices(kind):
        made += values_of(f, choice)
    if type(None) in choices(kind) and f.default is not None:
        made.append((f"{flag(f)} None", "null"))
    return made


def values_of(f: Field, kind: Any) -> list[tuple[str, str]]:
    if kind is bool:
        return [(help_name(f), "false" if f.default is True else "true")]
    if typing.get_origin(kind) is Literal:  # quoted, as YAML reads some words as truth values
        return [(f"{flag(f)} {choice}", f'"{choice}"') for choice in typing.get_args(kind) if choice != f.default]
    pairs = VALUES.get(kind, [])
    if kind is str:
        text = TEXTS.get(f.name, "a value")
        pairs = [(shlex.quote(text), f'"{text}"')]
    if kind is float and f.name in SHARES:
        pairs = [pair for pair in pairs if float(pair[0]) <= 1]
    return [(f"{flag(f)} {written}", text) for written, text in pairs]


def choices(kind: Any) -> tuple[Any, ...]:
    """The members of a union."""
    return (
        typing.get_args(kind)
        if isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union
        else (kind,)
    )


def bad(kind: Any, place: int) -> list[str]:
    """What is no value of a type: after the flag (place 0), or in YAML (place 1)."""
    members = choices(kind)
    first = "literal" if typing.get_origin(members[0]) is Literal else members[0]
    return BAD[first][place]
