"""Texts -> vectors of length 1, so that a product is a cosine.

``tfidf`` needs no download; any other name is a sentence-transformers model.
An encoder takes the texts of a pool and the texts of the queries, and returns a matrix [rows, width] for each.
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
Encoder = Callable[[Sequence[str], Sequence[str]], tuple[Vectors, Vectors]]


def tfidf(pool: Sequence[str], queries: Sequence[str]) -> tuple[Vectors, Vectors]:
    """Words and word pairs, weighted by log term frequency times inverse document frequency in the pool."""
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
    """The encoder of this name: a key of ``ENCODERS``, ``module:function``, or a sentence-transformers model (hub name
    or folder).

    Args:
        cache: folder for the vectors of sentence-transformers models, keyed by model and text.
    """
    if name in ENCODERS:
        return ENCODERS[name]
    if ":" in name:
        module, _, function = name.partition(":")
        try:
            found: Encoder = getattr(importlib.import_module(module), function)
        except (ImportError, AttributeError) as error:
            raise HoldfastError(f"--encoder {name}: {error}") from error
        return found
    model = sentence_model(name)
    file = _file(cache, model, name)
    store = _load(file)

    def encode(pool: Sequence[str], queries: Sequence[str]) -> tuple[Vectors, Vectors]:
        vectors = _vectors(model, [*pool, *queries], store, file)
        return vectors[: len(pool)], vectors[len(pool) :]

    return encode


def window(name: str) -> Callable[[str], bool] | None:
    """For a sentence-transformers model, whether a text is longer than it reads; None for encoders that read
    everything.
    """
    if name in ENCODERS or ":" in name:
        return None
    model = sentence_model(name)
    limit = model.max_seq_length
    return (lambda text: len(model.tokenizer(text)["input_ids"]) > limit) if limit else None


@functools.lru_cache(maxsize=2)
def sentence_model(name: str) -> Any:
    """A sentence-transformers model on the CPU or the GPU.

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
    """Vectors of the texts [N, width]. Each distinct text is encoded once, whatever pool or query it comes from;
    ``store`` is added to.
    """
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
    """The model's answer to one text: two models of one name are told apart by it."""
    known: str | None = getattr(model, "_holdfast_probe", None)
    if known is None:
        known = str(np.round(model.encode(["probe"], show_progress_bar=False)[0][:8], 4).tolist())
        model._holdfast_probe = known
    return known


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
