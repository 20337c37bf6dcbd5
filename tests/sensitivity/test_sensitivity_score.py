"""Every cell of the fast way against a plain forward pass, on three families; nothing depends on batch, order, padding
or company.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from holdfast.data.chat_template import encode
from holdfast.errors import HoldfastError
from holdfast.lm import LM, plain
from holdfast.lm.engine import Engine
from holdfast.lm.tree import build, plan
from holdfast.sensitivity.identity import weights_digest
from holdfast.sensitivity.index import psi
from holdfast.sensitivity.responses import Ids, Scores
from holdfast.sensitivity.score import Local, score
from holdfast.sensitivity.task import ScoreTable, SetTask
from materials import make_model, make_tokenizer
from prompt_ids import ragged

FAMILIES = ("llama", "gpt2", "neox", "gemma2", "cohere")


def family(name: str) -> Any:
    if name != "neox":
        return make_model(name)
    import transformers as tf

    torch.manual_seed(0)
    config = tf.GPTNeoXConfig(
        vocab_size=400, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=128,
        bos_token_id=0, eos_token_id=1,
    )  # fmt: skip
    model = tf.GPTNeoXForCausalLM(config).eval()
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.2)
    return model


def room(name: str = "llama", **changes: Any) -> LM:
    return LM(make_model(name, **changes) if changes else family(name), make_tokenizer(), name)


def fits(lm: LM) -> bool:
    return Engine(lm.model, lm.context).fits(lm.context)


def run(lm: LM, tasks: list[list[Ids]], new: int = 6, **options: Any) -> tuple[list[Scores], Local]:
    local, score_table = Local(lm, new, **options), ScoreTable()
    made = [SetTask.of(str(i), prompts) for i, prompts in enumerate(tasks)]
    local.complete(made, score_table)
    return [score_table.scores(task) for task in made], local


def same(a: Scores, b: Scores, tolerance: float = 1e-4) -> bool:
    return [r.ids for r in a.responses] == [r.ids for r in b.responses] and np.allclose(
        a.logp_XY, b.logp_XY, atol=tolerance, rtol=0
    )


@pytest.mark.parametrize("name", FAMILIES)
def test_every_cell_is_that_of_a_plain_forward_pass(name: str) -> None:
    lm = room(name)
    assert fits(lm)
    sets = [ragged(), ragged((9, 4, 7), shared=40, seed=2), ragged((2, 30), seed=3)]
    fast, _ = run(lm, sets)
    for prompts, scores in zip(sets, fast, strict=True):
        for x, prompt in enumerate(prompts):
            ids, _ = plain.respond(lm.model, prompt, 6, frozenset({1}))
            assert scores.responses[x].ids == ids
            for y, response in enumerate(scores.responses):
                logits = lm.model(input_ids=torch.tensor([prompt + response.ids])).logits.double().log_softmax(-1)
                wanted = [logits[0, len(prompt) - 1 + t, i].item() for t, i in enumerate(response.ids)]
                assert scores.token_logp[x, y, : len(wanted)] == pytest.approx(wanted, abs=1e-4)
                assert scores.logp_XY[x, y] == pytest.approx(sum(wanted), abs=1e-4)
                assert np.isnan(scores.token_logp[x, y, len(wanted) :]).all()


def test_in_float64_both_ways_agree_to_the_last_digits_that_float32_heads_allow() -> None:
    lm = room()
    lm.model.double()
    fast, _ = run(lm, [ragged(shared=30)])
    exact, _ = run(lm, [ragged(shared=30)], exact=True)
    assert same(fast[0], exact[0], 5e-6)


def test_nothing_depends_on_batch_order_padding_or_company() -> None:
    lm = room()
    prompts, company = ragged((5, 3, 8, 6, 20)), ragged((40, 2), seed=9)
    (alone,), _ = run(lm, [prompts])
    for options in ({"token_budget": 1}, {"token_budget": 16}, {"cache_bytes": 1}, {"cache_bytes": 8000}):
        assert same(alone, run(lm, [prompts], **options)[0][0]), options  # type: ignore[arg-type]
    assert same(alone, run(lm, [company, prompts])[0][1])
    order = [3, 1, 4, 0, 2]
    (turned,), _ = run(lm, [[prompts[i] for i in order]])
    assert same(alone.part(order), turned)
    assert psi(alone.logp_XY, alone.len_Y) == pytest.approx(psi(turned.logp_XY, turned.len_Y), abs=1e-6)


def test_copies_of_one_prompt_give_exactly_zero() -> None:
    lm = room()
    (scores,), local = run(lm, [[ragged()[0]] * 5])
    assert psi(scores.logp_XY, scores.len_Y) == 0.0
    assert local.cost()["tokens"] == 5 + 5 + 5  # one prefill, one decoding, one diagonal


def test_token_forwards_follow_the_formulas() -> None:
    lm = room(eos_token_id=None)
    lm.tokenizer = make_tokenizer(eos=False)
    lm.model.generation_config.eos_token_id = None
    (scores,), local = run(lm, [ragged()])
    assert len({r.ids for r in scores.responses}) == 4
    assert local.cost()["tokens"] == 122  # 22 + 4 x 5 + 16 x 5
    _, shared = run(lm, [ragged(shared=40)])
    (found,), _ = run(lm, [ragged(shared=40)])
    nodes = {r.ids[:k] for r in found.responses for k in range(1, 6)}
    assert shared.cost()["tokens"] == 40 + 22 + 4 * 5 + 4 * len(nodes)
    _, exact = run(lm, [ragged()], exact=True)
    assert exact.cost()["tokens"] == sum(6 * n + 15 for n in (5, 3, 8, 6)) + 4 * (22 + 4 * 5)


def test_end_of_sequence_is_kept_and_scored_and_nothing_after_it() -> None:
    lm = room()
    prompts = ragged((5, 3, 8, 6, 7, 4, 9, 2, 6, 5))
    (free,), _ = run(lm, [prompts])
    ends = {r.ids[1] for r in free.responses[:5]}  # make tokens that occur early into ends
    lm.model.generation_config.eos_token_id = [1, *ends]
    (scores,), _ = run(lm, [prompts])
    assert len(set(scores.len_Y.tolist())) > 1
    for a, b in zip(scores.responses, free.responses, strict=True):
        cut = next((t + 1 for t, i in enumerate(b.ids) if i in ends), 6)
        assert a.ids == b.ids[:cut]
    assert same(scores, run(lm, [prompts], exact=True)[0][0])


def test_a_response_that_is_only_the_end_has_length_one() -> None:
    lm = room()
    prompts = ragged()
    first = {plain.respond(lm.model, p, 1, frozenset())[0][0] for p in prompts}
    lm.model.generation_config.eos_token_id = list(first)
    (scores,), local = run(lm, [prompts])
    assert scores.len_Y.tolist() == [1, 1, 1, 1]
    assert local.cost()["tokens"] == 22
    assert np.isfinite(psi(scores.logp_XY, scores.len_Y))


def test_only_asked_groups_are_scored() -> None:
    lm = room()
    prompts = ragged((5, 3, 8, 6, 7))
    local, score_table = Local(lm, 6), ScoreTable()
    task = SetTask.of("a", prompts, [(0, 1, 2), (0, 3, 4)])
    local.complete([task], score_table)
    scores = score_table.scores(task)
    assert np.isnan(scores.logp_XY[1, 3])
    assert np.isnan(scores.logp_XY[4, 2])
    (full,), _ = run(lm, [prompts])
    for group in task.groups:
        assert same(scores.part(group), full.part(group))


def test_a_new_variant_costs_its_row_and_its_column() -> None:
    lm = room(eos_token_id=None)
    lm.model.generation_config.eos_token_id = None
    lm.tokenizer = make_tokenizer(eos=False)
    prompts = ragged((5, 3, 8, 6, 7))
    local, score_table = Local(lm, 6), ScoreTable()
    local.complete([SetTask.of("a", prompts[:4])], score_table)
    before = local.cost()["tokens"]
    task = SetTask.of("a", prompts)
    local.complete([task], score_table)
    assert local.cost()["tokens"] - before == (7 + 5 + 5 * 5) + (
        22 + 4 * 5
    )  # its row; then the others' prompts and one column
    assert same(score_table.scores(task), run(lm, [prompts])[0][0])


def test_score_of_texts() -> None:
    lm = LM(make_model(), make_tokenizer(bos=True), "tiny")
    scores = score(lm, ["What is the capital?", "Name the capital.", "What is the capital?"], max_new_tokens=4)
    assert scores.logp_XY.shape == (3, 3)
    assert scores.logp_XY[0, 1] == scores.logp_XY[2, 1]
    assert scores.token_logp.shape == (3, 3, scores.len_Y.max())
    assert all(r.text == lm.tokenizer.decode(r.ids, skip_special_tokens=True) for r in scores.responses)


def test_bos_stands_once_and_an_appended_eos_is_taken_off() -> None:
    from tokenizers import processors

    tokenizer = make_tokenizer(bos=True)
    once = encode(tokenizer, "hello", special_tokens=True)
    assert once[0] == 0
    assert encode(tokenizer, "<|bos|>hello", special_tokens=True) == once
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<|bos|> $A <|end|>", special_tokens=[("<|bos|>", 0), ("<|end|>", 1)]
    )
    assert encode(tokenizer, "hello", special_tokens=True) == once
    assert encode(tokenizer, "hello", special_tokens=False) == once[1:]


def test_prompts_that_cannot_be_scored() -> None:
    lm = room()
    with pytest.raises(HoldfastError, match="prompt 1 is empty"):
        score(lm, ["hello", ""])
    with pytest.raises(HoldfastError, match=r"prompt 0 has 120 tokens.*context of 128"):
        score(lm, [tuple([7] * 120), (5, 6)])
    assert score(lm, [tuple([7] * 120), (5, 6)], max_new_tokens=8).len_Y.max() <= 8


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_logits_that_are_not_finite_name_set_and_cell(value: float) -> None:
    lm = room()
    assert fits(lm)
    prompts = ragged()
    with torch.no_grad():
        lm.model.model.embed_tokens.weight[prompts[2][0]] = value  # a token that only one prompt has
    with pytest.raises(HoldfastError, match=r"not finite: set 'mine', response to prompt 2"):
        Local(lm, 6).complete([SetTask.of("mine", prompts)], ScoreTable())


def test_repetition_penalties_of_a_checkpoint_play_no_part() -> None:
    lm = room()
    (free,), _ = run(lm, [ragged()])
    lm.model.generation_config.repetition_penalty = 5.0
    assert same(free, run(lm, [ragged()])[0][0], 0)


def test_models_that_do_not_share_caches_are_scored_plainly() -> None:
    import transformers as tf

    torch.manual_seed(0)
    mamba = tf.MambaForCausalLM(
        tf.MambaConfig(vocab_size=400, hidden_size=16, num_hidden_layers=2, state_size=4)
    ).eval()
    lm = LM(mamba, make_tokenizer(), "mamba")
    assert not fits(lm)
    (scores,), local = run(lm, [ragged((5, 3))])
    assert local.way().startswith("plain")
    assert np.isfinite(scores.logp_XY).all()


def test_rows_of_responses() -> None:
    """What begins alike is one subtree, and small neighbours share a row."""
    responses = [(1, 2, 3), (9, 8), (1, 4, 5)]

    def rows(fill: int) -> list[list[tuple[int, ...]]]:
        passes = plan(build([r[:-1] for r in responses], start=7), 512, fill=fill)
        assert [top.start for step in passes for row in step.rows for top in row] == [7, 7]
        return [[top.ids for top in row] for step in passes for row in step.rows]

    assert rows(6) == [[(1,), (9,)]]
    assert rows(0) == [[(1,)], [(9,)]]


def test_weights_digest_sees_one_weight() -> None:
    model = make_model()
    before = weights_digest(model)
    with torch.no_grad():
        model.lm_head.weight[3, 3] += 1e-3
    assert weights_digest(model) != before == weights_digest(make_model())


def test_audit_reports_the_largest_difference() -> None:
    lm = room()
    local, score_table, task = Local(lm, 6), ScoreTable(), SetTask.of("a", ragged())
    local.complete([task], score_table)
    assert local.audit([task], score_table, 5, 0)["max_difference"] < 1e-4
    broken = next(iter(score_table.cells))
    score_table.cells[broken] = score_table.cells[broken] + 1.0
    assert local.audit([task], score_table, 100, 0) == pytest.approx(
        {"cells": 16, "max_difference": len(score_table.cells[broken])}, abs=1e-3
    )
