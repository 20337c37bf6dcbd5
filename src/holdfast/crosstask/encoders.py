"""Texts -> vectors of length 1, so that a product is a cosine; vectors -> the nearest ones.

An encoder takes the texts of a pool and the texts of the queries, and returns a matrix [rows, width] for each.
``tfidf`` needs no download; any other name is a sentence-transformers model.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from holdfast.errors import HoldfastError

Vectors = Any
"""A dense float32 array or a scipy sparse matrix [rows, width], rows of length 1 (or 0)."""
Places = npt.NDArray[np.int64]
Encoder = Callable[[Sequence[str], Sequence[str]], tuple[Vectors, Vectors]]
_DIGITS = 6  # of a cosine: two texts that are equal tie, whatever the order in which the product was summed


def cosines(left: Vectors, right: Vectors) -> npt.NDArray[np.float64]:
    """Return the cosines [rows of left, rows of right] as a dense array, rounded so that equal texts tie."""
    product = left @ right.T
    dense = product.toarray() if hasattr(product, "toarray") else product
    return np.asarray(np.round(np.asarray(dense, np.float64), _DIGITS), np.float64)


def top(row: npt.NDArray[np.float64], k: int) -> Places:
    """Return the places of the k largest values, the largest first, the earlier first among equals."""
    if k < len(row):
        least = np.partition(row, len(row) - k)[len(row) - k]
        near = np.flatnonzero(row >= least)
    else:
        near = np.arange(len(row))
    return near[np.argsort(-row[near], kind="stable")][:k]


def named_function(name: str, option: str) -> Any:
    """Return the function that ``module:function`` names.

    Raises:
        HoldfastError: no such module or function; the message names the option.
    """
    module, _, function = name.partition(":")
    try:
        return getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise HoldfastError(f"{option} {name}: {error}") from error


def tfidf(pool: Sequence[str], queries: Sequence[str]) -> tuple[Vectors, Vectors]:
    """Return words and word pairs, weighted by log term frequency times inverse document frequency in the pool."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"(?u)\b\w+\b", dtype=np.float32)
    try:
        vectors = vectorizer.fit_transform(pool)
    except ValueError:  # no text holds a word
        return np.zeros((len(pool), 1), np.float32), np.zeros((len(queries), 1), np.float32)
    return vectors, vectorizer.transform(queries) if queries else vectors[:0]


ENCODERS: dict[str, Encoder] = {"tfidf": tfidf}


@functools.lru_cache(maxsize=4)
def encoder(name: str, cache: str | None = None) -> Encoder:
    """Return the encoder of this name.

    Args:
        name: a key of ``ENCODERS``, ``module:function``, or a sentence-transformers model (hub name or folder).
        cache: folder for the vectors of sentence-transformers models, keyed by model and text.
    """
    if name in ENCODERS:
        return ENCODERS[name]
    if ":" in name:
        own: Encoder = named_function(name, "--encoder")
        return own
    model = sentence_model(name)
    file = _file(cache, model, name)
    store = _load(file)

    def encode(pool: Sequence[str], queries: Sequence[str]) -> tuple[Vectors, Vectors]:
        vectors = _vectors(model, [*pool, *queries], store, file)
        return vectors[: len(pool)], vectors[len(pool) :]

    return encode


def window(name: str) -> Callable[[str], bool] | None:
    """Return a test of whether a text is longer than the encoder reads, or None where it reads everything."""
    if name in ENCODERS or ":" in name:
        return None
    model = sentence_model(name)
    limit = model.max_seq_length
    return (lambda text: len(model.tokenizer(text)["input_ids"]) > limit) if limit else None


@functools.lru_cache(maxsize=2)
def sentence_model(name: str) -> Any:
    """Return a sentence-transformers model on the CPU or the GPU.

    Raises:
        HoldfastError: the library or the model is missing.
    """
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        raise HoldfastError(
            f"encoder '{name}' needs sentence-transformers", hint="pip install 'holdfast[encoder]', or --encoder tfidf"
        ) from error
    try:
        return SentenceTransformer(name, model_kwargs={"use_safetensors": True})
    except Exception as error:  # the hub client raises many unrelated types
        raise HoldfastError(
            f"--encoder {name}: no sentence-transformers model of this name could be loaded ({type(error).__name__})",
            hint=f"name a local folder, a hub model that is cached or can be downloaded, or {', '.join(ENCODERS)}",
        ) from error


def _vectors(model: Any, texts: Sequence[str], store: dict[str, Any], file: Path | None) -> npt.NDArray[np.float32]:
    """Return vectors of the texts [N, width]. Each distinct text is encoded once and added to ``store``."""
    new = [text for text in dict.fromkeys(texts) if _key(text) not in store]
    if new:
        vectors = model.encode(new, batch_size=64, normalize_embeddings=True, show_progress_bar=sys.stderr.isatty())
        store |= {_key(text): vector for text, vector in zip(new, vectors.astype(np.float16), strict=True)}
        _save(file, store)
    matrix = np.stack([store[_key(text)] for text in texts]).astype(np.float32)
    return np.asarray(matrix / np.maximum(np.linalg.norm(matrix, axis=1, keepdims=True), 1e-12), np.float32)


def _key(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _file(folder: str | None, model: Any, name: str) -> Path | None:
    if folder is None:
        return None
    digest = hashlib.blake2b(
        f"{Path(name).name}:{model.max_seq_length}:{_probe(model)}".encode(), digest_size=8
    ).hexdigest()
    return Path(folder) / f"{digest}.npz"


def _probe(model: Any) -> str:
    """Return the model's answer to one text, because two models of one name are told apart by it."""
    answer: str | None = getattr(model, "_holdfast_probe", None)
    if answer is None:
        answer = str(np.round(model.encode(["probe"], show_progress_bar=False)[0][:8], 4).tolist())
        model._holdfast_probe = answer
    return answer


def _load(path: Path | None) -> dict[str, Any]:
    if path is None or not path.is_file():
        return {}
    with np.load(path, allow_pickle=False) as file:
        return dict(zip(file["keys"].tolist(), file["vectors"]))


def _save(path: Path | None, store: dict[str, Any]) -> None:
    if path is None:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}.partial.npz")
    np.savez(partial, keys=np.array(list(store)), vectors=np.stack(list(store.values())))
    partial.replace(path)
