"""Target inputs and the pool of a source task -> for every input, the k demonstrations to show.

    similar(q) = top-k over the pool of cos(e(q), e(p)), the most similar first; ties go to the earlier item of the pool

A retriever is a function ``Search -> [queries, k]`` of places in the pool. One matrix product serves all queries.
"""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from holdfast.crosstask.encoders import Encoder, Vectors
from holdfast.crosstask.tasks import Item, Task
from holdfast.errors import HoldfastError

Places = npt.NDArray[np.int64]
EmbedText = Literal["render", "fields"]
_DIGITS = 6  # of a cosine: two texts that are equal tie, whatever the order in which the product was summed


@dataclass(frozen=True)
class Search:
    """What a retriever gets: vectors of pool [P, width] and queries [Q, width], texts of the queries, how many, and a
    seed.
    """

    pool: Vectors
    queries: Vectors
    texts: Sequence[str]
    k: int
    seed: int = 0
    context: Vectors | None = None
    """Vectors of unlabelled inputs of the target, for retrievers that look at neighbourhoods."""

    def similarity(self, rows: slice = slice(None)) -> npt.NDArray[np.float64]:
        """Cosines [Q, P], rounded so that equal texts tie."""
        product = self.queries[rows] @ self.pool.T
        dense = product.toarray() if hasattr(product, "toarray") else product
        return np.asarray(np.round(np.asarray(dense, np.float64), _DIGITS), np.float64)


Retriever = Callable[[Search], Places]


def similar(search: Search, block: int = 512) -> Places:
    """The most similar items first."""
    found = []
    for start in range(0, len(search.texts), block):
        found += [top(row, search.k) for row in search.similarity(slice(start, start + block))]
    return np.array(found, np.int64).reshape(len(search.texts), search.k)


def random(search: Search) -> Places:
    """Items drawn for each query from its own text and the seed: other queries change nothing."""
    size = search.pool.shape[0]
    return np.array(
        [_generator(search.seed, text).choice(size, search.k, replace=False) for text in search.texts], np.int64
    )


def fixed(search: Search) -> Places:
    """The same items, drawn once, for every query."""
    drawn = _generator(search.seed, "").choice(search.pool.shape[0], search.k, replace=False)
    return np.tile(drawn, (len(search.texts), 1))


def mmr(search: Search, weight: float = 0.7, candidates: int = 50) -> Places:
    """Maximal marginal relevance: similar to the query, unlike what is already chosen (Carbonell and Goldstein 1998).

    next = argmax_p  weight * cos(q, p) - (1 - weight) * max_chosen cos(p, c), over the ``candidates`` most similar
    items.
    """
    found = []
    for start in range(0, len(search.texts), 512):
        for row in search.similarity(slice(start, start + 512)):
            near = top(row, min(max(candidates, search.k), len(row)))
            among = search.pool[near] @ search.pool[near].T
            among = np.round(np.asarray(among.toarray() if hasattr(among, "toarray") else among, np.float64), _DIGITS)
            chosen = [0]
            while len(chosen) < search.k:
                gain = weight * row[near] - (1 - weight) * among[:, chosen].max(1)
                gain[chosen] = -np.inf
                chosen.append(int(gain.argmax()))
            found.append(near[chosen])
    return np.array(found, np.int64).reshape(len(search.texts), search.k)


def graph(search: Search) -> Places:
    """Items whose neighbourhood in the pool is like that of the query among the target's inputs."""
    from holdfast.crosstask.graph import graph as by_graph  # imports scipy

    return by_graph(search)


RETRIEVERS: dict[str, Retriever] = {"similar": similar, "random": random, "fixed": fixed, "mmr": mmr, "graph": graph}


def retriever(name: str) -> Retriever:
    """The retriever of this name: a key of ``RETRIEVERS`` or ``module:function``."""
    if name in RETRIEVERS:
        return RETRIEVERS[name]
    module, colon, function = name.partition(":")
    try:
        if not colon:
            raise HoldfastError(f"unknown retriever '{name}'; known: {', '.join(RETRIEVERS)}, or module:function")
        found: Retriever = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise HoldfastError(f"--retriever {name}: {error}") from error
    return found


def top(row: npt.NDArray[np.float64], k: int) -> Places:
    """Places of the k largest values, the largest first, the earlier first among equals."""
    if k < len(row):
        least = np.partition(row, len(row) - k)[len(row) - k]
        near = np.flatnonzero(row >= least)
    else:
        near = np.arange(len(row))
    return near[np.argsort(-row[near], kind="stable")][:k]


def retrieve(
    source: Task, pool: Sequence[Item], target: Task, items: Sequence[Item], *, k: int, encode: Encoder, name: str = "similar",
    embed_text: EmbedText = "render", too_long: Callable[[str], bool] | None = None, seed: int = 0, unlabelled: Sequence[Item] = (),
) -> list[tuple[Item, ...]]:  # fmt: skip
    """For each item of the target, k labelled items of the source, the most similar first; fewer only where the pool is
    smaller.

    Raises:
        HoldfastError: the pool is empty.
    """
    if not pool:
        raise HoldfastError(
            f"{source.where}: no labelled item to show",
            hint="a source needs rows with an answer (in split 'train', if it has splits)",
        )
    if source.name == target.name:  # one task, one order of fields
        both = embed_texts(source, [*pool, *items, *unlabelled], embed_text, too_long)
        shown, asked = both[: len(pool)], both[len(pool) :]
    else:
        shown, asked = (
            embed_texts(source, pool, embed_text, too_long),
            embed_texts(target, [*items, *unlabelled], embed_text, too_long),
        )
    vectors, queries = encode(shown, asked)
    context = queries[len(items) :] if unlabelled else None
    places = retriever(name)(
        Search(vectors, queries[: len(items)], asked[: len(items)], min(k, len(pool)), seed, context)
    )
    return [tuple(pool[place] for place in row) for row in places]


def embed_texts(
    task: Task, items: Sequence[Item], how: EmbedText, too_long: Callable[[str], bool] | None = None
) -> list[str]:
    """What the encoder reads: the input as written, with field names and cue (the paper's), or the fields alone.

    Where any text is longer than the encoder reads, the fields of this task are put shortest first, so that the
    question is seen and the passage is cut. ``embed_fields`` in the task's YAML sets fields and order by hand.
    """
    names = task.embed_fields or tuple(dict.fromkeys(task.slots))
    missing = [name for name in names if name not in task.slots]
    if missing:
        raise HoldfastError(f"{task.where}: embed_fields names '{missing[0]}', which is not in the template")
    texts = _texts(task, items, how, names)
    if too_long is not None and not task.embed_fields and len(names) > 1 and any(map(too_long, texts)):
        names = tuple(sorted(names, key=lambda name: float(np.median([len(item.fields[name]) for item in items]))))
        texts = _texts(task, items, "fields", names)
    return texts


def _texts(task: Task, items: Sequence[Item], how: EmbedText, names: Sequence[str]) -> list[str]:
    if how == "render" and not task.embed_fields:
        return [task.render(item) for item in items]
    return ["\n".join(item.fields[name] for name in names) for item in items]


def _generator(seed: int, text: str) -> Any:
    digest = hashlib.blake2b(f"{seed}\x1f{text}".encode(), digest_size=8).digest()
    return np.random.default_rng(int.from_bytes(digest))
