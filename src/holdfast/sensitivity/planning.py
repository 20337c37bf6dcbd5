"""Config -> sets with all their variants -> token ids: everything that needs no model.

sets file, or prompts --variants--> sets --template, exemplars--> texts --tokenizer--> ids
views: over which prompts of a set each index is taken
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

from holdfast.config import SensitivityConfig, VariantConfig
from holdfast.errors import HoldfastError, from_json, redacted
from holdfast.runs import read_json
from holdfast.sensitivity import variants
from holdfast.sensitivity.prompts import Renderer
from holdfast.sensitivity.sets import ALL, MIXTURE, ORIGINAL, PromptSet, Skipped, digest, load_sets, usable
from holdfast.sensitivity.variants import wording
from holdfast.sensitivity.variants.items import Generator, PromptItem
from holdfast.sensitivity.variants.make import Accept, Report, extend

_PAPER_KINDS, _PAPER_VARIANTS, _PAPER_MIXTURE = ("spelling", "templates"), 20, 7

Views = dict[str, tuple[int, ...]]
"""Name -> numbers of the variants that an index is taken over."""


@dataclass(frozen=True)
class SensitivityPlan:
    """What will be measured. ``texts`` and ``ids``, per set and variant, are the prompts as the model reads them."""

    sets: list[PromptSet]
    views: list[Views]
    texts: list[list[str]]
    ids: list[list[tuple[int, ...]]]
    skipped: Skipped
    report: Report

    @property
    def digest(self) -> str:
        """SHA-256 of the sets."""
        return digest(self.sets)


def make_plan(config: SensitivityConfig, tokenizer: Any) -> SensitivityPlan:
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
        template_options=template_options(config),
    )
    texts, ids = [], []
    for s in sets:
        texts.append([renderer.render(v) for v in s.variants])
        ids.append([encode(tokenizer, text, special_tokens=renderer.special_tokens) for text in texts[-1]])
    return SensitivityPlan(sets, views_of(sets, config), texts, ids, skipped, report)


def views_of(sets: Sequence[PromptSet], config: SensitivityConfig) -> list[Views]:
    """Return the views of each set that the config asks for."""
    pairs = "kinds" if config.recipe == "paper" else config.pairs
    mixture = config.mixture or (_PAPER_MIXTURE if config.recipe == "paper" else 0)
    return [_views(s, pairs, mixture, config.seed) for s in sets]


def template_options(config: SensitivityConfig) -> dict[str, Any]:
    """Return what --chat-template-kwargs says.

    Raises:
        HoldfastError: it is no JSON object.
    """
    if config.chat_template_kwargs is None:
        return {}
    try:
        options = from_json(config.chat_template_kwargs)
    except ValueError:
        options = None
    if not isinstance(options, dict):
        raise HoldfastError(
            f"--chat-template-kwargs {config.chat_template_kwargs}: a JSON object is needed",
            hint="""such as --chat-template-kwargs '{"enable_thinking": false}'""",
        )
    return options


def gather(config: VariantConfig) -> tuple[list[PromptSet], Report]:
    """Return sets from the file, to which variants of every original may be added, or sets made of the prompts."""
    kinds = _kinds(config)
    source = getattr(config, "sets", None)
    if (source is None) == (config.prompts is None):
        raise HoldfastError(
            "give either --sets (prompts in several wordings) or --prompts with --variants (wordings are made)"
        )
    if config.prompts is not None and not kinds:
        raise HoldfastError("--prompts needs --variants", hint="--variants spelling,templates")
    per_kind = _PAPER_VARIANTS if config.recipe == "paper" else config.per_kind
    generators = {kind: variants.generator(kind, _with_sources(config, per_kind)) for kind in kinds}
    accept = _accept(config) if kinds else {}
    if config.prompts is not None:
        items = variants.load_items(config.prompts, config.limit)
        return variants.make(items, generators, per_kind, config.seed, accept)
    report = Report()
    sets = load_sets(str(source), config.limit)
    return [_extended(s, generators, per_kind, config.seed, report, accept) for s in sets], report


def _kinds(config: VariantConfig) -> list[str]:
    kinds = [kind.strip() for kind in config.variants.split(",") if kind.strip()]
    if config.recipe == "paper" and not kinds:
        written = config.paraphrases or config.paraphrase_model
        kinds = [*_PAPER_KINDS, *([variants.PARAPHRASES] if written else [])]
    if len(set(kinds)) < len(kinds):
        raise HoldfastError(f"--variants {config.variants}: a kind is named twice")
    return kinds


def _extended(
    s: PromptSet, generators: dict[str, Generator], per_kind: int, seed: int, report: Report, accept: dict[str, Accept]
) -> PromptSet:
    """Return a set of the file with generated variants of its original (else of its first prompt)."""
    if not generators:
        return s
    original = next((v for v in s.variants if v.kind == ORIGINAL), s.variants[0])
    item = PromptItem(s.set_id, original.prompt, target=original.target, gold=original.target, where=original.where)
    clash = set(generators) & set(s.kinds)
    if clash:
        raise HoldfastError(
            f"set '{s.set_id}' has variants of kind '{min(clash)}' already", hint="leave that kind out of --variants"
        )
    added = tuple(extend(item, {v.prompt for v in s.variants}, generators, per_kind, seed, report, accept))
    if original.meta.get("before"):  # the turns before the prompt are those of the original
        added = tuple(replace(v, meta=v.meta | {"before": original.meta["before"]}) for v in added)
    names = {v.variant_id for v in added}
    for v in s.variants:
        if v.variant_id in names:
            raise HoldfastError(
                f"{v.where}: variant_id '{v.variant_id}' of set '{s.set_id}' is the name of a variant that --variants "
                "makes",
                hint="give the variant of the file another variant_id",
            )
    return PromptSet(s.set_id, (*s.variants, *added))


def _with_sources(config: VariantConfig, per_kind: int) -> dict[str, Generator]:
    """Return the generators that need a file or a model."""
    generators: dict[str, Generator] = {}
    if config.paraphrases and config.paraphrase_model:
        raise HoldfastError("give --paraphrases or --paraphrase-model, not both")
    if config.paraphrases:
        generators[variants.PARAPHRASES] = wording.paraphrases_from(config.paraphrases)
    if config.paraphrase_model:
        ask = wording.asker(config.paraphrase_model, trust_remote_code=config.trust_remote_code)
        name = redacted(config.paraphrase_model)
        generators[variants.PARAPHRASES] = wording.paraphrases_by(ask, name, per_kind)
    if config.synonyms:
        generators["synonyms"] = wording.synonyms(_synonym_table(config.synonyms))
    return generators


def _synonym_table(path: str) -> dict[str, list[str]]:
    table = read_json(Path(path))
    if not isinstance(table, dict) or not all(map(_are_words, table.values())):
        raise HoldfastError(f"--synonyms {path}: a JSON object, word -> list of synonyms, is needed")
    return {str(word).lower(): words for word, words in table.items()}


def _are_words(listed: Any) -> bool:
    return isinstance(listed, list) and bool(listed) and all(isinstance(word, str) and word for word in listed)


def _accept(config: VariantConfig) -> dict[str, Accept]:
    if config.meaning_model is None:
        return {}
    similar = wording.sentence_similarity(config.meaning_model)
    return {variants.PARAPHRASES: lambda original, variant: similar([original], [variant])[0] >= config.min_meaning}


def _views(s: PromptSet, pairs: str, mixture: int, seed: int) -> Views:
    """Return the views of a set: all, each kind with the original, and the mixture, where they have two prompts."""
    prompts = [v.prompt for v in s.variants]
    views: Views = {ALL: tuple(range(len(s.variants)))} if pairs == ALL or not s.kinds else {}
    views |= {kind: s.of_kind(kind) for kind in s.kinds}
    if mixture:
        rng = Random(f"{seed}:mixture:{s.set_id}")
        drawn: list[int] = []
        for kind in s.kinds:
            own = [i for i in s.of_kind(kind) if s.variants[i].kind == kind]
            drawn += rng.sample(own, min(mixture, len(own)))
        views[MIXTURE] = tuple(sorted(drawn))
    return {name: view for name, view in views.items() if len(set(map(prompts.__getitem__, view))) > 1}
