"""Shared prefixes change the work, never the numbers: packed scoring against one plain forward pass per sequence."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from conftest import make_model, make_tokenizer
from holdfast import prefix
from holdfast.errors import HoldfastError
from holdfast.lm import LM
from holdfast.prefix import Request, packs, score, score_plain
from holdfast.trie import build, flatten, plan

FAMILIES = ("llama", "gpt2", "gemma2", "cohere", "granite", "phi")
sequences = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=8).map(tuple), min_size=1, max_size=20)


def model(family: str = "llama", **changes: Any) -> LM:
    return LM(make_model(family, **changes), make_tokenizer(), family)


def grid(seed: int = 0, labels: tuple[tuple[int, ...], ...] = ((5,), (6, 7), (6, 8, 9))) -> list[Request]:
    """Prompts shaped like those of a grid: source definition, demonstration, target definition, input."""
    rng = random.Random(seed)

    def piece(length: int) -> tuple[int, ...]:
        return tuple(rng.randrange(400) for _ in range(length))

    requests = []
    targets = [piece(6), piece(9)]
    for _ in range(3):
        definition, demos = piece(8), [piece(rng.randint(4, 20)) for _ in range(3)]
        for target in targets:
            for _ in range(6):
                prompt = definition + rng.choice(demos) + target + piece(rng.randint(2, 9))
                requests.append(Request(prompt, labels, (7, 10, len(prompt) - 1)))
    return requests


def difference(a: list[prefix.Scores], b: list[prefix.Scores]) -> float:
    return max(
        float(np.abs(x - y).max())
        for p, q in zip(a, b, strict=True)
        for x, y in zip(p.token_logp, q.token_logp, strict=True)
    )


@given(sequences)
def test_the_tree_holds_every_sequence_once(given_sequences: list[tuple[int, ...]]) -> None:
    found = {}
    for node in flatten(build(given_sequences)):
        ids, at = node.ids, node
        while at.parent is not None:
            at = at.parent
            ids = at.ids + ids
        found |= dict.fromkeys(node.ends, ids)
        firsts = [child.ids[0] for child in node.children]
        assert len(set(firsts)) == len(firsts), "siblings that begin alike should have been one node"
    assert [found[i] for i in range(len(given_sequences))] == given_sequences


@given(sequences, st.integers(1, 30), st.sampled_from([1, 5, 192]))
def test_a_plan_covers_every_sequence_behind_prefixes_that_come_first(
    rows: list[tuple[int, ...]], size: int, worth: int
) -> None:
    passes = plan(build(rows), size, worth)
    done, ends = {None}, []
    for step in passes:
        assert step.prefix in done
        done |= set(step.cached)
        for top in (*step.rows, *step.cached):
            assert top.start == (step.prefix.stop if step.prefix else 0)
        ends += [number for top in step.rows for node in flatten(top) for number in node.ends]
        ends += [number for node in step.cached for number in node.ends]
    assert sorted(ends) == list(range(len(rows)))


@pytest.mark.parametrize("family", FAMILIES)
def test_packed_scoring_equals_plain_scoring(family: str) -> None:
    lm, requests = model(family), grid()
    plain_states: dict[int, Any] = {}
    states: dict[int, Any] = {}
    assert packs(lm)
    plain, _ = score_plain(lm, requests, on_states=plain_states.__setitem__)
    packed, cost = score(lm, requests, token_budget=300, on_states=states.__setitem__)
    assert difference(plain, packed) < 1e-4
    assert [a.top for a in plain] == [a.top for a in packed]
    assert max(abs(a.entropy - b.entropy) for a, b in zip(plain, packed)) < 1e-4
    assert max(float(np.abs(plain_states[i] - states[i]).max()) for i in range(len(requests))) < 1e-4
    assert len(states) == len(requests)
    assert cost.tokens < 0.6 * cost.plain_tokens == 0.6 * sum(len(r.prompt) for r in requests)


@pytest.mark.parametrize("row_tokens", [1, 20, 60, 5000])
@pytest.mark.parametrize("worth", [1, 30, 192])
def test_how_the_tree_is_cut_changes_nothing(row_tokens: int, worth: int) -> None:
    lm, requests = model(), grid(1)
    packed, _ = prefix._score_packed(lm, requests, 200, row_tokens, None, worth)
    assert difference(score_plain(lm, requests)[0], packed) < 1e-4


def test_order_and_budget_change_nothing() -> None:
    lm, requests = model(), grid(2)
    first, _ = score(lm, requests)
    shuffled = random.Random(0).sample(range(len(requests)), len(requests))
    second, _ = score(lm, [requests[i] for i in shuffled], token_budget=40)
    assert difference([first[i] for i in shuffled], second) < 1e-4


def test_single_token_labels_pass_no_token_and_the_tree_counts_distinct_tokens() -> None:
    requests = grid(3, labels=((5,), (6,)))
    _, cost = score(model(), requests)
    root = build([r.prompt for r in requests])
    assert cost.tokens == sum(len(node.ids) for node in flatten(root))


def test_a_model_without_positions_of_its_own_is_scored_plainly() -> None:
    import transformers as tf

    bloom = tf.BloomForCausalLM(tf.BloomConfig(vocab_size=400, hidden_size=32, n_layer=2, n_head=4)).eval()
    bloom.config.max_position_embeddings = 128
    for parameter in bloom.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.2)
    lm, requests = LM(bloom, make_tokenizer(), "bloom"), grid(4)[:4]
    assert not packs(lm)
    assert difference(score(lm, requests)[0], score_plain(lm, requests)[0]) == 0


def test_a_sliding_window_that_bites_is_scored_plainly() -> None:
    lm = model("gemma2", sliding_window=16)
    assert not packs(lm, 30)
    assert difference(score(lm, grid(5)[:3])[0], score_plain(lm, grid(5)[:3])[0]) == 0


@pytest.mark.parametrize(
    ("requests", "says"),
    [([Request((), ((1,),))], "is empty"), ([Request((1,) * 128, ((1, 2),))], "129 tokens; the model takes 128")],
)
def test_bad_requests(requests: list[Request], says: str) -> None:
    with pytest.raises(HoldfastError, match=says):
        score(model(), requests)


def test_logits_that_are_not_finite_are_an_error() -> None:
    lm = model()
    with torch.no_grad():
        lm.model.lm_head.weight[3] = float("nan")
    lm.model._holdfast_packs = True
    with pytest.raises(HoldfastError, match="not finite"):
        score(lm, grid()[:2])
