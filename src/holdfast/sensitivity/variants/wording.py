"""The same thing in other words: from a file, from a table of synonyms, or from a model that is asked for paraphrases.

A paraphrase that lost something protected (a number, a placeholder, code, the right answer) is dropped and counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from random import Random
from typing import Any

from holdfast.chat import Chat, without_thoughts
from holdfast.errors import HoldfastError
from holdfast.sensitivity.sets import read_rows
from holdfast.sensitivity.variants.items import Draft, Generator, PromptItem, like
from holdfast.sensitivity.variants.protect import free_words, holds, protected_spans
from holdfast.sensitivity.variants.rewritings import is_remark, read_answer

Ask = Callable[[str], str]
"""Instruction -> the model's answer."""
_LONGEST_ANSWER = 1024
Similarity = Callable[[Sequence[str], Sequence[str]], list[float]]
"""Two lists of texts -> cosine of the meaning of each pair."""

POCKET_SYNONYMS: dict[str, tuple[str, ...]] = {
    "find": ("look for",), "largest": ("biggest",), "larger": ("bigger",), "biggest": ("largest",),
    "bigger": ("larger",), "big": ("large",), "words": ("terms",), "text": ("passage",), "passage": ("text",),
    "topic": ("subject", "theme"),
    "colour": ("shade",), "sum": ("total",), "sentiment": ("feeling", "mood"), "category": ("group", "class"),
    "opposite": ("reverse",), "please": ("kindly",), "begin": ("start",), "could": ("can",), "happy": ("glad",),
    "sad": ("unhappy",),
}  # fmt: skip
"""Our own word-level synonyms for the language of ``pocket``: only those that mean the same as noun and as verb."""


def synonyms(table: Mapping[str, Sequence[str]]) -> Generator:
    """Return a generator that replaces some of the words that are in the table."""

    def generate(item: PromptItem, rng: Random) -> Iterator[Draft]:
        places = [(a, b) for a, b in free_words(item.question, item.keep) if item.question[a:b].lower() in table]
        while places:
            question, replaced = item.question, []
            for start, end in sorted(rng.sample(places, rng.randint(1, len(places))), reverse=True):
                word = question[start:end]
                new = rng.choice(list(table[word.lower()]))
                question = question[:start] + like(word, new) + question[end:]
                replaced.append(f"{word} -> {new}")
            yield item.draft(question, replaced=replaced[::-1])

    return generate


def paraphrases_from(path: str) -> Generator:
    """Return a generator that reads paraphrases from a file: rows ``{"id" or "prompt": ..., "paraphrases": [...]}``.

    Raises:
        HoldfastError: a broken row.
    """
    by_item: dict[str, list[str]] = {}
    for row, where in read_rows(path):
        values = row if isinstance(row, dict) else {}
        texts = values.get("paraphrases")
        key = next((values[name] for name in ("id", "prompt", "question", "instruction") if name in values), None)
        if key is None or not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise HoldfastError(f"{where}: a row has an id (or the prompt itself) and a list of paraphrases")
        by_item.setdefault(str(key), []).extend(texts)

    def generate(item: PromptItem, rng: Random) -> Iterator[Draft]:
        for written in by_item.get(item.item_id, by_item.get(item.question, [])):
            text, _ = without_thoughts(written, item.question)
            if is_remark(text.strip(), item.question):
                yield _no_variant(item, written)
            else:
                yield _checked(item, text, {"source": path})

    return generate


def paraphrases_by(ask: Ask, name: str, count: int) -> Generator:
    """Return a generator that asks a model for ``count`` paraphrases at once. The model's ``name`` is recorded."""

    def generate(item: PromptItem, rng: Random) -> Iterator[Draft]:
        written = read_answer(ask(PARAPHRASE_INSTRUCTION.format(count=count) + item.question), item.question)
        for text in written.texts:
            yield _checked(item, text, {"model": name})
        for text in written.left_out:
            # A line that is no remark and lost something protected is counted as that.
            lost = [] if is_remark(text, item.question) else _lost(item, text)
            yield (item, "", {"lost": lost}) if lost else _no_variant(item, text)

    return generate


PARAPHRASE_INSTRUCTION = (
    "Rewrite the text below in {count} different ways. Each must ask for exactly the same thing. Keep all names, "
    "numbers, quotations and anything in braces or code as it is. Write one rewriting per line and nothing else.\n\n"
)


def sentence_similarity(model: str) -> Similarity:
    """Return a function that compares texts by the cosine of sentence vectors (sentence-transformers).

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
        encode = partial(encoder.encode, normalize_embeddings=True, show_progress_bar=False)
        return [float(x) for x in (encode(list(left)) * encode(list(right))).sum(1)]

    return similar


def _no_variant(item: PromptItem, text: str) -> Draft:
    """Return a draft that is counted and not used, for a part of an answer that is no rewriting."""
    return item, "", {"no_variant": text}


def _lost(item: PromptItem, text: str) -> list[str]:
    pieces = [item.question[a:b] for a, b in protected_spans(item.question, item.keep)]
    return [piece for piece in pieces if not holds(text, piece)]


def _checked(item: PromptItem, text: str, meta: dict[str, Any]) -> Draft:
    """Return a paraphrase, or an empty prompt with what was lost."""
    lost = _lost(item, text)
    return (item, "", meta | {"lost": lost}) if lost else item.draft(text, **meta)


def asker(name: str, *, trust_remote_code: bool = False) -> Ask:
    """Return a function that asks a model: a server's (``http://host/v1#model``), or one loaded as ``--model``."""
    return _served(name) if name.startswith(("http://", "https://")) else _loaded(name, trust_remote_code)


def _loaded(name: str, trust_remote_code: bool) -> Ask:
    from holdfast import lm as models
    from holdfast.data.chat_template import generation_prompt
    from holdfast.records import Message, Role

    lm = models.load(name, trust_remote_code=trust_remote_code)
    template = "chat" if lm.tokenizer.chat_template else "plain"

    def ask(instruction: str) -> str:
        prompt = generation_prompt([Message(Role.USER, instruction)], template, lm.tokenizer)
        room = lm.context - len(lm.tokenizer(prompt, add_special_tokens=False)["input_ids"])
        if room < 1:
            raise HoldfastError(f"{name}: a text to paraphrase does not fit into its context of {lm.context} tokens")
        most = min(_LONGEST_ANSWER, room)
        answer = lm.generate([prompt], max_new_tokens=most)[0]
        cut = len(lm.tokenizer(answer, add_special_tokens=False)["input_ids"]) >= most
        return _without_last_line(answer) if cut else answer

    return ask


def _served(address: str) -> Ask:
    base, _, model = address.partition("#")
    if not model:
        raise HoldfastError(f"{address}: no model named", hint="http://host:8000/v1#model-name")
    chat = Chat(base, model, max_tokens=_LONGEST_ANSWER, timeout=300.0)

    def ask(instruction: str) -> str:
        answer = chat.ask([{"role": "user", "content": instruction}])
        return _without_last_line(answer.text) if answer.is_cut else answer.text

    return ask


def _without_last_line(answer: str) -> str:
    """Return an answer that was cut off without its last line, because half a line is no whole rewriting."""
    return answer.rpartition("\n")[0]
