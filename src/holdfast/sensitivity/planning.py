"""Config -> sets with all their variants -> tasks of token ids: everything that can be known before a model is loaded.

sets file, or prompts --variants--> sets --template, exemplars--> texts --tokenizer--> ids       views: which prompts
each index is over
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from holdfast.config import SensitivityConfig, VariantConfig
from holdfast.errors import HoldfastError, redacted
from holdfast.runs import read_json
from holdfast.sensitivity import variants
from holdfast.sensitivity.prompts import Renderer
from holdfast.sensitivity.sets import ALL, MIXTURE, ORIGINAL, PromptSet, Skipped, digest, load_sets, read_rows, usable
from holdfast.sensitivity.variants import wording
from holdfast.sensitivity.variants.items import Item
from holdfast.sensitivity.variants.make import Accept, Generator, Report, extend

_PAPER_KINDS, _PAPER_VARIANTS, _PAPER_MIXTURE = ("spelling", "templates"), 20, 7

Views = dict[str, tuple[int, ...]]
"""Name -> numbers of the variants that an index is taken over."""


@dataclass(frozen=True)
class Plan:
    """What will be measured. ``texts`` and ``ids`` per set and variant are what the model sees."""

    sets: list[PromptSet]
    views: list[Views]
    texts: list[list[str]]
    ids: list[list[tuple[int, ...]]]
    skipped: Skipped
    report: Report

    @property
    def digest(self) -> str:
        """Of the sets."""
        return digest(self.sets)


def make_plan(config: SensitivityConfig, tokenizer: Any) -> Plan:
    """Read or make the sets, and tokenise them.

    Raises:
        HoldfastError: bad input, with file and row.
    """
    from holdfast.data.chat_template import encode

    sets, report = gather(config)
    sets, skipped = usable(sets, config.strict)
    renderer = Renderer(
        tokenizer,
        chat_template=config.chat,
        system=config.system,
        shots=config.shots,
        shots_data=config.shots_data,
        layout=config.shots_layout,
    )
    texts = [[renderer.render(v) for v in s.variants] for s in sets]
    ids = [[encode(tokenizer, text, special_tokens=renderer.special_tokens) for text in group] for group in texts]
    pairs = "kinds" if config.preset == "paper" else config.pairs
    mixture = config.mixture or (_PAPER_MIXTURE if config.preset == "paper" else 0)
    return Plan(sets, [_views(s, pairs, mixture, config.seed) for s in sets], texts, ids, skipped, report)


def gather(config: VariantConfig) -> tuple[list[PromptSet], Report]:
    """Sets from the file, or made of the prompts, or both: then more variants are made of every original of the
    file.
    """
    kinds = _kinds(config)
    source = getattr(config, "sets", None)
    if (source is None) == (config.prompts is None):
        raise HoldfastError(
            "give either --sets (prompts in several wordings) or --prompts with --variants (wordings are made)"
        )
    if config.prompts is not None and not kinds:
        raise HoldfastError("--prompts needs --variants", hint="--variants spelling,templates")
    per_kind = _PAPER_VARIANTS if config.preset == "paper" else config.per_kind
    generators = {kind: variants.generator(kind, _with_sources(config, per_kind)) for kind in kinds}
    accept = _accept(config) if kinds else {}
    if config.prompts is not None:
        return variants.make(
            variants.load_items(config.prompts, config.limit), generators, per_kind, config.seed, accept
        )
    report = Report()
    made = [
        _extended(s, generators, per_kind, config.seed, report, accept) for s in load_sets(str(source), config.limit)
    ]
    return made, report


def _kinds(config: VariantConfig) -> list[str]:
    kinds = [kind.strip() for kind in config.variants.split(",") if kind.strip()]
    if config.preset == "paper" and not kinds:
        written = config.paraphrases or config.paraphrase_model
        kinds = [*_PAPER_KINDS, *([variants.PARAPHRASES] if written else [])]
    if len(set(kinds)) < len(kinds):
        raise HoldfastError(f"--variants {config.variants}: a kind is named twice")
    return kinds


def _extended(
    s: PromptSet, generators: dict[str, Generator], per_kind: int, seed: int, report: Report, accept: dict[str, Accept]
) -> PromptSet:
    """A set of the file with generated variants of its original (else of its first prompt)."""
    if not generators:
        return s
    original = next((v for v in s.variants if v.kind == ORIGINAL), s.variants[0])
    item = Item(s.set_id, original.prompt, target=original.target, gold=original.target, where=original.where)
    clash = set(generators) & set(s.kinds)
    if clash:
        raise HoldfastError(
            f"set '{s.set_id}' has variants of kind '{min(clash)}' already", hint="leave that kind out of --variants"
        )
    made = tuple(extend(item, {v.prompt for v in s.variants}, generators, per_kind, seed, report, accept))
    names = {v.variant_id for v in made}
    for v in s.variants:
        if v.variant_id in names:
            raise HoldfastError(
                f"{v.where}: variant_id '{v.variant_id}' of set '{s.set_id}' is the name of a variant that --variants "
                "makes",
                hint="give the variant of the file another variant_id",
            )
    return PromptSet(s.set_id, (*s.variants, *made))


def _with_sources(config: VariantConfig, per_kind: int) -> dict[str, Generator]:
    """Generators that need a file or a model."""
    made: dict[str, Generator] = {}
    if config.paraphrases and config.paraphrase_model:
        raise HoldfastError("give --paraphrases or --paraphrase-model, not both")
    if config.paraphrases:
        made[variants.PARAPHRASES] = wording.paraphrases_from(config.paraphrases)
    if config.paraphrase_model:
        from holdfast.sensitivity.paraphraser import asker

        made[variants.PARAPHRASES] = wording.paraphrases_by(
            asker(config.paraphrase_model, trust_remote_code=config.trust_remote_code),
            redacted(config.paraphrase_model),
            per_kind,
        )
    if config.synonyms:
        made["synonyms"] = wording.synonyms(_synonym_table(config.synonyms))
    return made


def _synonym_table(path: str) -> dict[str, list[str]]:
    table = read_json(Path(path))
    if not isinstance(table, dict) or not all(
        isinstance(v, list) and v and all(isinstance(w, str) and w for w in v) for v in table.values()
    ):
        raise HoldfastError(f"--synonyms {path}: a JSON object, word -> list of synonyms, is needed")
    return {str(word).lower(): words for word, words in table.items()}


def _accept(config: VariantConfig) -> dict[str, Accept]:
    if config.meaning_model is None:
        return {}
    similar = wording.sentence_similarity(config.meaning_model)
    return {variants.PARAPHRASES: partial(_means_the_same, similar, config.min_meaning)}


def _means_the_same(similar: wording.Similarity, minimum: float, original: str, variant: str) -> bool:
    return similar([original], [variant])[0] >= minimum


def _views(s: PromptSet, pairs: str, mixture: int, seed: int) -> Views:
    """All, each kind with the original, and the mixture. Views of fewer than two prompts are left out."""
    views: Views = {ALL: tuple(range(len(s.variants)))} if pairs == ALL or not s.kinds else {}
    views |= {kind: s.of_kind(kind) for kind in s.kinds}
    if mixture:
        rng = Random(f"{seed}:mixture:{s.set_id}")
        views[MIXTURE] = tuple(sorted(i for kind in s.kinds for i in _drawn(s, kind, mixture, rng)))
    return {name: index for name, index in views.items() if len({s.variants[i].prompt for i in index}) > 1}


def _drawn(s: PromptSet, kind: str, count: int, rng: Random) -> Sequence[int]:
    own = [i for i in s.of_kind(kind) if s.variants[i].kind == kind]
    return rng.sample(own, min(count, len(own)))


__all__ = ["ALL", "MIXTURE", "Plan", "Views", "gather", "make_plan", "read_rows"]
