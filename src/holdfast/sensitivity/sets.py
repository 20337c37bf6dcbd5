"""Files -> sets of prompts that ask for the same thing. JSONL that a person can read and edit.

    {"set_id": "q1", "variant_id": "spelling-3", "kind": "spelling", "seed": 3, "prompt": "...", "target": "B",
     "meta": {...}}

Also read: a list of strings per row (one set), and the named set ``pocket:intents``. A row of kind ``original`` belongs
to every kind.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from holdfast.data.read import read_values
from holdfast.errors import HoldfastError, whole_text

ORIGINAL = "original"
ALL, MIXTURE = "all", "mixture"
"""Views over several kinds: no kind may have these names (see ``planning``)."""


@dataclass(frozen=True)
class Variant:
    """One prompt of a set. ``meta``: ``options`` (label -> text), ``edits``, ``diff`` and notes of the generator."""

    variant_id: str
    kind: str
    prompt: str
    seed: int = 0
    target: str | None = None
    meta: dict[str, Any] = field(default_factory=dict)
    where: str = ""


@dataclass(frozen=True)
class PromptSet:
    """Prompts of one intent."""

    set_id: str
    variants: tuple[Variant, ...]

    @property
    def kinds(self) -> tuple[str, ...]:
        """Kinds of change in this set, in order of appearance, without the original."""
        return tuple(dict.fromkeys(v.kind for v in self.variants if v.kind != ORIGINAL))

    def of_kind(self, kind: str) -> tuple[int, ...]:
        """Return the places of the original and of the variants of a kind."""
        return tuple(i for i, v in enumerate(self.variants) if v.kind in (ORIGINAL, kind))


@dataclass
class Skipped:
    """How many sets were left out, and why and where the first of them were."""

    count: int = 0
    first: list[str] = field(default_factory=list)

    def add(self, reason: str) -> None:
        """Count one more set."""
        self.count += 1
        if len(self.first) < 20:
            self.first.append(reason)


def load_sets(source: str, limit: int | None = None) -> list[PromptSet]:
    """Read sets.

    Args:
        source: JSONL or JSON file, or ``pocket:intents``.
        limit: only the first sets.

    Raises:
        HoldfastError: no such file, a broken row, a duplicate id, or a target that is none of the options; with file
            and row.
    """
    sets: dict[str, list[Variant]] = {}
    seen: dict[tuple[str, str], str] = {}
    origins: dict[str, tuple[int, bool]] = {}
    for number, (row, where) in enumerate(read_rows(source), 1):
        origin = (number, isinstance(row, list))
        for set_id, variant in _variants(row, number, where):
            _check_origin(set_id, origins.setdefault(set_id, origin), origin, where)
            if (set_id, variant.variant_id) in seen:
                raise HoldfastError(
                    f"{where}: variant '{variant.variant_id}' of set '{set_id}' is there twice "
                    f"(first in {seen[set_id, variant.variant_id]})",
                    hint="give every variant of a set its own variant_id",
                )
            seen[set_id, variant.variant_id] = where
            if limit is not None and set_id not in sets and len(sets) == limit:
                continue
            sets.setdefault(set_id, []).append(variant)
    if not sets:
        raise HoldfastError(f"{source}: no sets in it")
    return [PromptSet(set_id, tuple(variants)) for set_id, variants in sets.items()]


def usable(sets: list[PromptSet], strict: bool) -> tuple[list[PromptSet], Skipped]:
    """Return the sets with two distinct prompts or more, and the count of the others.

    Raises:
        HoldfastError: with ``strict`` there is one of the others, or no set is left.
    """
    skipped = Skipped()
    kept = []
    for s in sets:
        if len({v.prompt for v in s.variants}) > 1:
            kept.append(s)
            continue
        reason = f"set '{s.set_id}' ({s.variants[0].where or 'generated'}) has fewer than two distinct prompts"
        if strict:
            raise HoldfastError(reason, hint="without --strict such sets are skipped and counted")
        skipped.add(reason)
    if not kept:
        raise HoldfastError(
            f"no set has two distinct prompts; {skipped.first[0]}", hint="sensitivity compares at least two wordings"
        )
    return kept, skipped


def write_sets(path: Path, sets: list[PromptSet]) -> None:
    """Write a sets file, one variant per row."""
    from holdfast.runs import write_text

    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in as_rows(sets)))


def as_rows(sets: list[PromptSet]) -> Iterator[dict[str, Any]]:
    """Yield the rows of a sets file."""
    for s in sets:
        for v in s.variants:
            row = {"set_id": s.set_id, **{key: value for key, value in asdict(v).items() if key != "where"}}
            yield {key: value for key, value in row.items() if value is not None and value != {}}


def digest(sets: list[PromptSet]) -> str:
    """Return the SHA-256 of everything that is measured or compared: ids, kinds, prompts and targets."""
    content: list[Any] = []
    for s in sets:
        content.append([s.set_id, [[v.variant_id, v.kind, v.prompt, v.target, *_turns(v)] for v in s.variants]])
    return hashlib.sha256(json.dumps(content, ensure_ascii=False).encode()).hexdigest()


def read_rows(source: str) -> list[tuple[Any, str]]:
    """Return the rows of a file or of a named pocket data set, each (an object, a list or a text) with its place.

    Raises:
        HoldfastError: missing, unreadable or broken, with the row.
    """
    sets = Path(source) / "sets.jsonl"  # in a run directory of `holdfast sensitivity variants`
    file = str(sets) if sets.is_file() else source
    return read_values(file, objects=False, hint="give a JSONL file, or pocket:intents")


def _check_origin(set_id: str, first: tuple[int, bool], own: tuple[int, bool], where: str) -> None:
    """Refuse a row whose set is the list of another row, because a list of prompts is a whole set."""
    if first != own and (first[1] or own[1]):
        a_list = f"a list here is the set '{set_id}', which is there already (row {first[0]})"
        raise HoldfastError(
            f"{where}: " + (a_list if own[1] else f"the set '{set_id}' is the list of row {first[0]}"),
            hint="give the set of the other rows another set_id",
        )


def _variants(row: Any, number: int, where: str) -> Iterator[tuple[str, Variant]]:
    if isinstance(row, list) and row and all(isinstance(prompt, str) for prompt in row):
        for i, prompt in enumerate(row):
            yield f"set-{number}", Variant(str(i), ORIGINAL if i == 0 else "given", _prompt(prompt, where), where=where)
        return
    row = _of_messages(row, where) if isinstance(row, dict) and "messages" in row else row
    if not isinstance(row, dict) or "prompt" not in row or "set_id" not in row:
        content = ", ".join(row) if isinstance(row, dict) else type(row).__name__
        raise HoldfastError(
            f"{where}: a row has set_id, variant_id, kind and prompt, or is a list of prompts; found {content}",
            hint="to make variants of single prompts, give them as --prompts with --variants",
        )
    if row["set_id"] is None:
        raise HoldfastError(f"{where}: 'set_id' is null", hint="rows of one set have the same set_id")
    row = {key: value for key, value in row.items() if value is not None}
    meta, target = row.get("meta") or {}, row.get("target")
    if not isinstance(meta, dict):
        raise HoldfastError(f"{where}: 'meta' must be an object, not {type(meta).__name__}")
    options = meta.get("options")
    if target is not None and isinstance(options, dict) and str(target) not in options:
        raise HoldfastError(f"{where}: the target {target!r} is none of the options {', '.join(options)}")
    variant = Variant(
        str(row.get("variant_id", number)),
        _kind(str(row.get("kind", "given")), where),
        _prompt(row.get("prompt"), where),
        _seed(row.get("seed", 0), where),
        None if target is None else str(target),
        meta,
        where,
    )
    yield str(row["set_id"]), variant


def _of_messages(row: dict[str, Any], where: str) -> dict[str, Any]:
    """Return a row of several turns with the last one, the user's, as its prompt and the others as ``meta.before``."""
    turns = row["messages"]
    whole = isinstance(turns, list) and bool(turns) and all(map(_is_turn, turns))
    if not whole or turns[-1]["role"] != "user" or "prompt" in row:
        raise HoldfastError(
            f"{where}: 'messages' is a list of turns with role (system, user, assistant) and content, the last of them "
            "the user's, and stands in the place of 'prompt'"
        )
    rest = {key: value for key, value in row.items() if key != "messages"}
    before = {"before": turns[:-1]} if turns[:-1] else {}
    return rest | {"prompt": turns[-1]["content"], "meta": (row.get("meta") or {}) | before}


def _is_turn(turn: Any) -> bool:
    if not isinstance(turn, dict) or turn.get("role") not in ("system", "user", "assistant"):
        return False
    return isinstance(turn.get("content"), str)


def _turns(variant: Variant) -> list[Any]:
    """Return the turns before the prompt as part of the digest, which stays as it was where there are none."""
    return [variant.meta["before"]] if variant.meta.get("before") else []


def _kind(kind: str, where: str) -> str:
    """Return the kind, unless it is a name of the results."""
    if kind in (ALL, MIXTURE):
        raise HoldfastError(
            f"{where}: the kind '{kind}' is a name of the results, which it would replace",
            hint=f"call the kind something else; only {ALL} and {MIXTURE} are taken",
        )
    return kind


def _seed(value: Any, where: str) -> int:
    if not re.fullmatch(r"-?\d{1,18}(\.0)?", str(value)):
        raise HoldfastError(f"{where}: 'seed' must be a whole number, not {value!r}")
    return int(str(value).removesuffix(".0"))


def _prompt(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise HoldfastError(f"{where}: the prompt must be text, not {type(value).__name__}")
    return whole_text(value, f"{where}: the prompt")
