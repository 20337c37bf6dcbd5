"""The same thing in other words: from a file, from a table of synonyms, or from a model that is asked for paraphrases.

A paraphrase that lost something protected (a number, a placeholder, code, the right answer) is dropped, whoever wrote
it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from random import Random
from typing import Any

from holdfast.errors import HoldfastError
from holdfast.sensitivity.sets import read_rows
from holdfast.sensitivity.variants.items import Item
from holdfast.sensitivity.variants.protect import free_words, holds, protected_spans
from holdfast.sensitivity.variants.rewritings import is_remark, read_answer, without_thoughts

Made = Iterator[tuple[Item, str, dict[str, Any]]]
Ask = Callable[[str], str]
"""Instruction -> the model's answer."""
Similarity = Callable[[Sequence[str], Sequence[str]], list[float]]
"""Two lists of texts -> cosine of the meaning of each pair."""

POCKET_SYNONYMS: dict[str, tuple[str, ...]] = {
    "find": ("look for",), "largest": ("biggest",), "larger": ("bigger",), "biggest": ("largest",), "bigger": ("larger",),
    "big": ("large",), "words": ("terms",), "text": ("passage",), "passage": ("text",), "topic": ("subject", "theme"),
    "colour": ("shade",), "sum": ("total",), "sentiment": ("feeling", "mood"), "category": ("group", "class"),
    "opposite": ("reverse",), "please": ("kindly",), "begin": ("start",), "could": ("can",), "happy": ("glad",), "sad": ("unhappy",),
}  # fmt: skip
"""Word-level synonyms for the language of `pocket`, of our own making: few, and only such as mean the same as noun and
as verb.
"""


def synonyms(table: Mapping[str, Sequence[str]]) -> Callable[[Item, Random], Made]:
    """A generator that replaces some words that the table has."""

    def generate(item: Item, rng: Random) -> Made:
        keep = [item.gold] if item.gold else []
        places = [(a, b) for a, b in free_words(item.question, keep) if item.question[a:b].lower() in table]
        while places:
            question, replaced = item.question, []
            for start, end in sorted(rng.sample(places, rng.randint(1, len(places))), reverse=True):
                word = question[start:end]
                new = rng.choice(list(table[word.lower()]))
                question = question[:start] + (new[0].upper() + new[1:] if word[0].isupper() else new) + question[end:]
                replaced.append(f"{word} -> {new}")
            made = item.asking(question)
            yield made, made.prompt(), {"replaced": replaced[::-1]}

    return generate


def paraphrases_from(path: str) -> Callable[[Item, Random], Made]:
    """A generator that reads paraphrases from a file: rows ``{"id" or "prompt": ..., "paraphrases": [...]}``.

    Raises:
        HoldfastError: a broken row.
    """
    known: dict[str, list[str]] = {}
    for row, where in read_rows(path):
        texts = row.get("paraphrases") if isinstance(row, dict) else None
        key = (
            next((row[k] for k in ("id", "prompt", "question", "instruction") if k in row), None)
            if isinstance(row, dict)
            else None
        )
        if key is None or not isinstance(texts, list) or not all(isinstance(t, str) for t in texts):
            raise HoldfastError(f"{where}: a row has an id (or the prompt itself) and a list of paraphrases")
        known.setdefault(str(key), []).extend(texts)

    def generate(item: Item, rng: Random) -> Made:
        for written in known.get(item.item_id, known.get(item.question, [])):
            text, _ = without_thoughts(written, item.question)
            if is_remark(text.strip(), item.question):
                yield _no_variant(item, written)
            else:
                yield from _checked(item, text, {"source": path})

    return generate


def paraphrases_by(ask: Ask, name: str, count: int) -> Callable[[Item, Random], Made]:
    """A generator that asks a model for ``count`` paraphrases at once. ``name`` of the model is recorded."""

    def generate(item: Item, rng: Random) -> Made:
        written = read_answer(ask(PARAPHRASE_INSTRUCTION.format(count=count) + item.question), item.question)
        for text in written.texts:
            yield from _checked(item, text, {"model": name})
        for text in written.left_out:
            lost = (
                [] if is_remark(text, item.question) else _lost(item, text)
            )  # a stray line is counted as what is wrong with it
            yield (item, "", {"lost": lost}) if lost else _no_variant(item, text)

    return generate


PARAPHRASE_INSTRUCTION = (
    "Rewrite the text below in {count} different ways. Each must ask for exactly the same thing. Keep all names, "
    "numbers, quotations and "
    "anything in braces or code as it is. Write one rewriting per line and nothing else.\n\n"
)


def sentence_similarity(model: str) -> Similarity:
    """Cosine of sentence vectors, by a sentence-transformers model (extra ``encoder``).

    Raises:
        HoldfastError: the package is not installed or the model cannot be loaded.
    """
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        raise HoldfastError(
            "a meaning check needs sentence-transformers", hint="pip install 'holdfast[encoder]'"
        ) from error
    try:
        encoder = SentenceTransformer(model)
    except Exception as error:  # loaders raise what they like
        raise HoldfastError(
            f"{model}: could not be loaded as a sentence-transformers model ({str(error).splitlines()[0][:160]})"
        ) from error

    def similar(left: Sequence[str], right: Sequence[str]) -> list[float]:
        a, b = (
            encoder.encode(list(texts), normalize_embeddings=True, show_progress_bar=False) for texts in (left, right)
        )
        return [float(x) for x in (a * b).sum(1)]

    return similar


def _no_variant(item: Item, text: str) -> tuple[Item, str, dict[str, Any]]:
    """Something in an answer that is no rewriting: counted, not used."""
    return item, "", {"no_variant": text}


def _lost(item: Item, text: str) -> list[str]:
    pieces = [item.question[a:b] for a, b in protected_spans(item.question, [item.gold] if item.gold else [])]
    return [piece for piece in pieces if not holds(text, piece)]


def _checked(item: Item, text: str, meta: dict[str, Any]) -> Made:
    lost = _lost(item, text)
    made = item.asking(text)
    yield made, "" if lost else made.prompt(), meta | ({"lost": lost} if lost else {})
