"""Shared prefixes change the work, never the numbers: the engine against one plain forward pass per sequence."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from holdfast.errors import HoldfastError
from holdfast.lm import LM, plain
from holdfast.lm.engine import Cost, Engine, Request, Scored
from holdfast.lm.tree import build, flatten, plan
from materials import make_model, make_tokenizer
from prompt_ids import grid

FAMILIES = ("llama", "gpt2", "gemma2", "cohere", "granite", "phi")
sequences = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=8).map(tuple), min_size=1, max_size=20)


def model(family: str = "llama", **changes: Any) -> LM:
    return LM(make_model(family, **changes), make_tokenizer(), family)


def score(lm: LM, requests: list[Request], *, on_hidden: Any = None, **options: Any) -> tuple[list[Scored], Cost]:
    engine = Engine(lm.model, lm.context, **options)
    return engine.score(requests, on_hidden=on_hidden), engine.cost


def score_plain(lm: LM, requests: list[Request], on_hidden: Any = None) -> list[Scored]:
    return plain.score(lm.model, requests, on_hidden=on_hidden)


def fits(lm: LM, longest: int = 0) -> bool:
    return Engine(lm.model, lm.context).fits(longest)


def difference(a: list[Scored], b: list[Scored]) -> float:
    return max(
        float(np.abs(x - y).max())
        for p, q in zip(a, b, strict=True)
        for x, y in zip(p.token_logprobs, q.token_logprobs, strict=True)
    )


@given(sequences)
def test_the_tree_holds_every_sequence_once(given_sequences: list[tuple[int, ...]]) -> None:
    found = {}
    for node in flatten([build(given_sequences)]):
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
        for top in (*(top for row in step.rows for top in row), *step.cached):
            assert top.start == (step.prefix.stop if step.prefix else 0)
        ends += [number for row in step.rows for node in flatten(row) for number in node.ends]
        ends += [number for node in step.cached for number in node.ends]
    assert sorted(ends) == list(range(len(rows)))


@pytest.mark.parametrize("family", FAMILIES)
def test_packed_scoring_equals_plain_scoring(family: str) -> None:
    lm, requests = model(family), grid()
    plain_states: dict[int, Any] = {}
    states: dict[int, Any] = {}
    assert fits(lm)
    expected = score_plain(lm, requests, on_hidden=plain_states.__setitem__)
    packed, cost = score(lm, requests, token_budget=300, on_hidden=states.__setitem__)
    assert difference(expected, packed) < 1e-4
    assert [a.next_token for a in expected] == [a.next_token for a in packed]
    assert max(abs(a.next_entropy - b.next_entropy) for a, b in zip(expected, packed)) < 1e-4
    assert max(float(np.abs(plain_states[i] - states[i]).max()) for i in range(len(requests))) < 1e-4
    assert len(states) == len(requests)
    assert cost.tokens < 0.6 * cost.plain_tokens == 0.6 * sum(len(r.prompt) for r in requests)


@pytest.mark.parametrize("row_tokens", [1, 20, 60, 5000])
@pytest.mark.parametrize("worth", [1, 30, 192])
def test_how_the_tree_is_cut_changes_nothing(row_tokens: int, worth: int) -> None:
    lm, requests = model(), grid(1)
    packed, _ = score(lm, requests, token_budget=200, row_tokens=row_tokens, worth=worth)
    assert difference(score_plain(lm, requests), packed) < 1e-4


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
    assert cost.tokens == sum(len(node.ids) for node in flatten([root]))


def test_a_model_without_positions_of_its_own_is_scored_plainly() -> None:
    import transformers as tf

    bloom = tf.BloomForCausalLM(tf.BloomConfig(vocab_size=400, hidden_size=32, n_layer=2, n_head=4)).eval()
    bloom.config.max_position_embeddings = 128
    for parameter in bloom.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.2)
    lm, requests = LM(bloom, make_tokenizer(), "bloom"), grid(4)[:4]
    assert not fits(lm)
    assert difference(score(lm, requests)[0], score_plain(lm, requests)) == 0


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
    fits(lm)
    with pytest.raises(HoldfastError, match="not finite"):
        score(lm, grid()[:2])


SIZES = {
    "vocab_size": 400, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 256, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 0,
}  # fmt: skip
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
# Windows of 16 tokens, which prompts of up to 100 tokens go far beyond; sinks, softcaps, chunks, experts; no window.
LOCAL_FAMILIES: dict[str, dict[str, Any]] = {
    "Gemma2": {"head_dim": 8, "sliding_window": 16, "attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0},
    "Gemma3": {"head_dim": 8, "sliding_window": 16},
    "Mistral": {"sliding_window": 16},
    "Mixtral": {"sliding_window": 16, "num_local_experts": 4},
    "Qwen2": {"sliding_window": 16, "use_sliding_window": True, "max_window_layers": 2},
    "Qwen3": {"sliding_window": 16, "use_sliding_window": True, "max_window_layers": 2, "head_dim": 8},
    "Qwen3Moe": {"sliding_window": 16, "use_sliding_window": True, "head_dim": 8, **EXPERTS},
    "Cohere2": {"sliding_window": 16},
    "Phi3": {"sliding_window": 16},
    "Starcoder2": {"sliding_window": 16},
    "GptOss": {"sliding_window": 16, "head_dim": 8, "num_local_experts": 4, "num_experts_per_tok": 2},
    "Olmo3": {"sliding_window": 16},
    "Exaone4": {"sliding_window": 16, "sliding_window_pattern": 4},
    "Llama4": {"attention_chunk_size": 16, "head_dim": 8, "num_local_experts": 4, "intermediate_size_mlp": 64},
    "SmolLM3": {},
    "OPT": {"ffn_dim": 64, "word_embed_proj_dim": 32},
    "Falcon": {},
    "Glm4": {"head_dim": 8},
}


def family_model(name: str, **changes: Any) -> Any:
    import transformers as tf

    torch.manual_seed(0)
    config = getattr(tf, f"{name}TextConfig", None) if name in ("Gemma3", "Llama4") else getattr(tf, f"{name}Config")
    net = getattr(tf, f"{name}ForCausalLM")(config(**{**SIZES, **LOCAL_FAMILIES.get(name, {}), **changes})).eval()
    for key, parameter in net.named_parameters():
        if parameter.dim() > 1 or "sinks" in key:
            torch.nn.init.normal_(parameter, std=1 if "sinks" in key else 0.2)
    return net


def long_requests(seed: int = 0) -> list[Request]:
    rng = random.Random(seed)

    def piece(length: int) -> tuple[int, ...]:
        return tuple(rng.randrange(2, 400) for _ in range(length))

    heads = [piece(60), piece(45)]
    return [Request(heads[i % 2] + piece(rng.randint(3, 40)), (piece(1), piece(3), piece(9))) for i in range(6)]


@pytest.mark.parametrize("name", LOCAL_FAMILIES)
def test_local_attention_sinks_softcaps_and_experts(name: str) -> None:
    net, requests = family_model(name), long_requests()
    prompts, stops = [request.prompt for request in requests], frozenset({1})
    expected = plain.score(net, requests)
    engine = Engine(net, 256, token_budget=300)
    assert engine.fits(256)
    assert difference(expected, engine.score(requests)) < 1e-4
    answers = engine.generate(prompts, 8, stops)
    assert [a.ids for a in answers] == [plain.respond(net, prompt, 8, stops)[0] for prompt in prompts]
    before = engine.cost.tokens
    behind = engine.score(requests)
    assert difference(expected, behind) < 1e-4
    assert engine.cost.tokens - before <= 6 * (2 + 8), "prompts that were answered are still in the cache"
    assert [a.is_greedy for a in expected] == [a.is_greedy for a in behind]
    assert [a.next_token for a in expected] == [a.next_token for a in behind]


@pytest.mark.parametrize("name", ["GPTNeo", "Mpt", "Bloom", "Mamba"])
def test_models_that_the_engine_does_not_fit_are_run_plainly(name: str) -> None:
    changes = {
        "GPTNeo": {
            "num_layers": 2,
            "num_heads": 4,
            "attention_types": [[["global", "local"], 1]],
            "window_size": 16,
            "num_hidden_layers": 2,
        },
        "Mpt": {"d_model": 32, "n_heads": 4, "n_layers": 2, "max_seq_len": 256},
        "Bloom": {"n_layer": 2, "n_head": 4},
        "Mamba": {"state_size": 4},
    }[name]
    net, requests = family_model(name, **changes), long_requests()[:3]
    engine, prompts = Engine(net, 256), [request.prompt for request in requests]
    assert not engine.fits(100)
    assert difference(plain.score(net, requests), engine.score(requests)) == 0
    answers = engine.generate(prompts, 5, frozenset({1}))
    assert [a.ids for a in answers] == [plain.respond(net, prompt, 5, frozenset({1}))[0] for prompt in prompts]
    assert engine.cost.tokens > 0


@pytest.mark.parametrize("name", ["Qwen2", "GptOss"])
def test_in_bfloat16_the_engine_is_as_near_to_float32_as_plain_passes(name: str) -> None:
    net, requests = family_model(name), long_requests()
    exact = plain.score(net, requests)
    net.bfloat16()
    net._holdfast_mask_form = None
    del net._holdfast_mask_form
    engine = Engine(net, 256)
    assert engine.fits(256)
    noise = difference(exact, plain.score(net, requests))
    assert difference(exact, engine.score(requests)) < 2 * noise + 0.02
    answers = engine.generate([request.prompt for request in requests], 4, frozenset())
    assert difference(exact, engine.score(requests)) < 2 * noise + 0.02
    assert all(len(answer.ids) == 4 for answer in answers)


def test_greedy_is_what_greedy_decoding_writes() -> None:
    net, requests = family_model("Qwen2"), long_requests()
    engine = Engine(net, 256)
    prompts = [request.prompt for request in requests]
    answers = engine.generate(prompts, 5, frozenset())
    engine.forget()
    asked = []
    for prompt, answer in zip(prompts, answers, strict=True):
        changed = (*answer.ids[:2], (answer.ids[2] + 1) % 400, *answer.ids[3:])
        asked.append(Request(prompt, (answer.ids, answer.ids[:2], changed)))
    assert [scored.is_greedy for scored in engine.score(asked)] == [[True, True, False]] * len(asked)


@pytest.mark.parametrize("cache_bytes", [1, 300_000, None])
@pytest.mark.parametrize("batch_size", [1, 4, None])
def test_memory_and_batch_size_change_no_answer(cache_bytes: int | None, batch_size: int | None) -> None:
    lm, requests = model(), grid(6)
    prompts = [request.prompt for request in requests] + [requests[0].prompt]
    engine = Engine(lm.model, lm.context, cache_bytes=cache_bytes, token_budget=100)
    answers = engine.generate(prompts, 5, frozenset({1}), batch_size=batch_size)
    assert [a.ids for a in answers] == [plain.respond(lm.model, p, 5, frozenset({1}))[0] for p in prompts]
    assert difference(score_plain(lm, requests), engine.score(requests)) < 1e-4


def test_an_answer_can_be_ended_by_what_it_says() -> None:
    lm = model()
    prompts = [request.prompt for request in grid(7)[:5]]
    engine = Engine(lm.model, lm.context)
    free = engine.generate(prompts, 6, frozenset())
    short = engine.generate(prompts, 6, frozenset(), ended=lambda ids: len(ids) == 2 or ids[0] % 2 == 0)
    assert [a.ids for a in short] == [a.ids[: 1 if a.ids[0] % 2 == 0 else 2] for a in free]
    ours, theirs = (
        plain.generate(lm.model, prompts, 6, frozenset(), lambda ids: len(ids) == 2),
        [a.ids[:2] for a in free],
    )
    assert [ids for ids, _ in ours] == theirs


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_answers_end_where_the_context_ends_and_say_so(family: str, capsys: pytest.CaptureFixture[str]) -> None:
    lm = model(family)
    lm.model.generation_config.eos_token_id = lm.tokenizer.eos_token = None
    piece = lm.tokenizer("hello ")["input_ids"]
    texts = ["hello " * 40, "hello " * 3, "hello " * 200]
    long, short, beyond = (tuple(ids) for ids in lm.tokenizer(texts)["input_ids"])
    assert len(short) + 20 <= lm.context
    while len(long) < 118:
        texts[0] += "hello "
        long = tuple(lm.tokenizer(texts[0])["input_ids"])
    assert len(long) < lm.context < len(long) + 20 + len(piece)
    answers = lm.generate(texts[:2], max_new_tokens=20)
    assert "1 of 2 answers end where the model's context does" in capsys.readouterr().err
    ids, _ = plain.respond(lm.model, long, lm.context + 1 - len(long), frozenset())
    assert answers[0] == lm.tokenizer.decode(ids, skip_special_tokens=True)
    with pytest.raises(HoldfastError, match=f"{len(beyond)} tokens; the model takes 1 to 128"):
        lm.generate([texts[2]])
