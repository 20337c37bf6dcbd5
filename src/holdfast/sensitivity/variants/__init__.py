"""Seeded generators of prompts that ask for the same thing, by kind: a key of ``GENERATORS`` or ``module:function``."""

from __future__ import annotations

import importlib
from typing import cast

from holdfast.errors import HoldfastError, nearest
from holdfast.sensitivity.variants.contractions import contractions
from holdfast.sensitivity.variants.items import Generator, PromptItem, load_items
from holdfast.sensitivity.variants.layouts import grammar, option_order, templates
from holdfast.sensitivity.variants.make import Report, extend, make
from holdfast.sensitivity.variants.surface import casing, punctuation, spelling
from holdfast.sensitivity.variants.wording import POCKET_SYNONYMS, synonyms

GENERATORS: dict[str, Generator] = {
    "spelling": spelling,
    "templates": templates,
    "grammar": grammar,
    "casing": casing,
    "punctuation": punctuation,
    "contractions": contractions,
    "options": option_order,
    "synonyms": synonyms(POCKET_SYNONYMS),
}
PARAPHRASES = "paraphrases"
"""The kind whose generator needs a file or a model; see ``wording``."""


def generator(kind: str, more: dict[str, Generator] | None = None) -> Generator:
    """Return the generator of a kind.

    Raises:
        HoldfastError: an unknown kind.
    """
    generators = GENERATORS | (more or {})
    if kind in generators:
        return generators[kind]
    if kind == PARAPHRASES:
        raise HoldfastError(
            "the kind 'paraphrases' needs a source",
            hint="give --paraphrases FILE, or --paraphrase-model MODEL to have them written",
        )
    module, colon, function = kind.partition(":")
    if not colon:
        raise HoldfastError(
            f"unknown kind of variant '{kind}'; known: {', '.join([*generators, PARAPHRASES])}, or module:function",
            hint=nearest(kind, [*generators, PARAPHRASES]),
        )
    try:
        return cast(Generator, getattr(importlib.import_module(module), function))
    except (ImportError, AttributeError) as error:
        raise HoldfastError(
            f"kind '{kind}': {error}", hint="a kind is a function (item, rng) -> iterator of (item, prompt, meta)"
        ) from error


__all__ = ["GENERATORS", "Generator", "PromptItem", "Report", "extend", "generator", "load_items", "make"]
