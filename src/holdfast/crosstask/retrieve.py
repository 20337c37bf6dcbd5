"""Target inputs and the pool of a source task -> for every input, the k demonstrations of its prompt.

    similar(q) = top-k over the pool of cos(e(q), e(p)), the most similar first; ties go to the earlier item of the pool

A retriever is a function ``Query -> [queries, k]`` of places in the pool. One matrix product serves all queries.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt

from holdfast.crosstask.encoders import Encoder, Places, Vectors, cosines, named_function, top
from holdfast.crosstask.graph import graph_similarity
from holdfast.crosstask.tasks import Item, Task
from holdfast.errors import HoldfastError

EmbedText = Literal["render", "fields"]
_BLOCK = 512
"""Queries whose cosines are held at a time."""


@dataclass(frozen=True)
class Query:
    """What a retriever gets: vectors of pool [P, width] and queries [Q, width], their texts, how many, and a seed."""

    pool: Vectors
    queries: Vectors
    texts: Sequence[str]
    k: int
    seed: int = 0
    context: Vectors | None = None
    """Vectors of unlabelled inputs of the target, for retrievers that look at neighbourhoods."""

    def similarities(self) -> Iterator[npt.NDArray[np.float64]]:
        """Yield the cosines of each query with the pool [P]."""
        for start in range(0, len(self.texts), _BLOCK):
            yield from cosines(self.queries[start : start + _BLOCK], self.pool)

    def places(self, chosen: Iterable[Places]) -> Places:
        """Return the choices for the queries, one after the other, as one array [Q, k]."""
        return np.array(list(chosen), np.int64).reshape(len(self.texts), self.k)


Retriever = Callable[[Query], Places]


def similar(query: Query) -> Places:
    """Return the most similar items first."""
    return query.places(top(row, query.k) for row in query.similarities())


def random(query: Query) -> Places:
    """Return items drawn for each query from its own text and the seed, so that other queries change nothing."""
    size = query.pool.shape[0]
    return query.places(_generator(query.seed, text).choice(size, query.k, replace=False) for text in query.texts)


def fixed(query: Query) -> Places:
    """Return the same items, drawn once, for every query."""
    drawn = _generator(query.seed, "").choice(query.pool.shape[0], query.k, replace=False)
    return np.tile(drawn, (len(query.texts), 1))


def mmr(query: Query, weight: float = 0.7, candidates: int = 50) -> Places:
    """Return items by maximal marginal relevance (Carbonell and Goldstein 1998), out of the most similar candidates.

    next = argmax_p  weight * cos(q, p) - (1 - weight) * max_chosen cos(p, c)
    """

    def diverse(row: npt.NDArray[np.float64]) -> Places:
        near = top(row, min(max(candidates, query.k), len(row)))
        among = cosines(query.pool[near], query.pool[near])
        chosen = [0]
        while len(chosen) < query.k:
            gain = weight * row[near] - (1 - weight) * among[:, chosen].max(1)  # the equation above
            gain[chosen] = -np.inf
            chosen.append(int(gain.argmax()))
        return near[chosen]

    return query.places(diverse(row) for row in query.similarities())


def graph(query: Query) -> Places:
    """Return items whose neighbourhood in the pool is like that of the query among the target's inputs."""
    return query.places(top(row, query.k) for row in graph_similarity(query.pool, query.queries, query.context))


RETRIEVERS: dict[str, Retriever] = {"similar": similar, "random": random, "fixed": fixed, "mmr": mmr, "graph": graph}


def retriever(name: str) -> Retriever:
    """Return the retriever of this name: a key of ``RETRIEVERS`` or ``module:function``."""
    if name not in RETRIEVERS and ":" not in name:
        raise HoldfastError(f"unknown retriever '{name}'; known: {', '.join(RETRIEVERS)}, or module:function")
    return RETRIEVERS.get(name) or cast(Retriever, named_function(name, "--retriever"))


def retrieve(
    source: Task,
    pool: Sequence[Item],
    target: Task,
    items: Sequence[Item],
    *,
    k: int,
    encode: Encoder,
    name: str = "similar",
    embed_text: EmbedText = "render",
    too_long: Callable[[str], bool] | None = None,
    seed: int = 0,
    unlabelled: Sequence[Item] = (),
) -> list[tuple[Item, ...]]:
    """Return k labelled items of the source for each item of the target, or the whole pool where that is smaller.

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
        pool_texts, asked = both[: len(pool)], both[len(pool) :]
    else:
        pool_texts = embed_texts(source, pool, embed_text, too_long)
        asked = embed_texts(target, [*items, *unlabelled], embed_text, too_long)
    vectors, queries = encode(pool_texts, asked)
    context = queries[len(items) :] if unlabelled else None
    query = Query(vectors, queries[: len(items)], asked[: len(items)], min(k, len(pool)), seed, context)
    places = retriever(name)(query)
    return [tuple(map(pool.__getitem__, row)) for row in places]


def embed_texts(
    task: Task, items: Sequence[Item], how: EmbedText, too_long: Callable[[str], bool] | None = None
) -> list[str]:
    """Return what the encoder reads: the input as written, with field names and cue (the paper's), or the fields alone.

    Where any text is longer than the encoder reads, the fields of this task are put shortest first, because then the
    question is read and the passage is cut. ``embed_fields`` in the task's YAML sets fields and order by hand.
    """
    names = task.embed_fields or tuple(dict.fromkeys(task.slots))
    missing = [name for name in names if name not in task.slots]
    if missing:
        raise HoldfastError(f"{task.where}: embed_fields names '{missing[0]}', which is not in the template")
    texts = _texts(task, items, how, names)
    if too_long is not None and not task.embed_fields and len(names) > 1 and any(map(too_long, texts)):

        def median_length(name: str) -> float:
            return float(np.median([len(item.fields[name]) for item in items]))

        texts = _texts(task, items, "fields", sorted(names, key=median_length))
    return texts


def _texts(task: Task, items: Sequence[Item], how: EmbedText, names: Sequence[str]) -> list[str]:
    if how == "render" and not task.embed_fields:
        return [task.render(item) for item in items]
    return ["\n".join(map(item.fields.__getitem__, names)) for item in items]


def _generator(seed: int, text: str) -> Any:
    digest = hashlib.blake2b(f"{seed}\x1f{text}".encode(), digest_size=8).digest()
    return np.random.default_rng(int.from_bytes(digest))
