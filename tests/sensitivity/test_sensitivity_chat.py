"""Chat endpoints over real HTTP: what is measured without log-probs, what is asked, stored, refused and paid."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from chat_server import chatting
from holdfast.cli import main
from holdfast.config import CompareConfig, SensitivityConfig
from holdfast.errors import HoldfastError, NotComparableError
from holdfast.report.parts import Note
from holdfast.report.reading import read_run
from holdfast.report.sensitivity import measured as measured_parts
from holdfast.results import Comparison, SensitivityResult, from_summary
from holdfast.sensitivity import compare, measure
from holdfast.tables.sensitivity import of_run
from materials import write_jsonl

SETS = [
    ["Is iron a metal?", "Would you call iron a metal?", "iron: metal or not?"],
    ["Is wood a metal?", "Would you call wood a metal?", "wood: metal or not?"],
]
ROWS = [
    {"set_id": f"q{q}", "variant_id": str(v), "kind": "given" if v else "original", "prompt": text, "target": "yes"}
    for q, prompts in enumerate(SETS)
    for v, text in enumerate(prompts)
]


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("holdfast.http._FIRST_PAUSE", 0.01)


@pytest.fixture
def config(tmp_path: Path) -> dict[str, Any]:
    sets = write_jsonl(tmp_path / "sets.jsonl", ROWS)
    return {"model": "m", "sets": str(sets), "backend": "chat", "output": str(tmp_path / "out"), "concurrency": 2}


def run(server: Any, config: dict[str, Any], **more: Any) -> dict[str, Any]:
    return measure(SensitivityConfig(**config | {"endpoint": server.url} | more))


def last(messages: list[dict[str, Any]]) -> str:
    return str(messages[-1]["content"])


def yes_unless_short(messages: list[dict[str, Any]], number: int) -> str:
    """Iron is a metal in two of three wordings; wood in none."""
    return "Yes." if "iron" in last(messages) and "or not" not in last(messages) else "No."


def test_everything_that_needs_answers_only_is_measured(config: dict[str, Any], tmp_path: Path, capsys: Any) -> None:
    with chatting(yes_unless_short) as server:
        summary = run(server, config)
    changes, indices = summary["answer_changes"]["all"], summary["indices"]["all"]
    # Of the three pairs of wordings two differ in the first set, none in the second.
    assert changes["differ"]["mean"] == pytest.approx(1 / 3, abs=1e-6)
    assert (changes["changed"], changes["prompts"]) == (1, 2)
    assert (changes["noise"], changes["effect"]) == (None, None)
    assert indices["variation_ratio"]["mean"] == pytest.approx(1 / 6, abs=1e-6)
    assert indices["consistency_rate"]["mean"] == pytest.approx(2 / 3, abs=1e-6)
    assert indices["answered"]["mean"] == 1
    assert (summary["psi"], summary["posix"]) == (None, {})
    assert "log-prob" in summary["psi_reason"]
    target = summary["targets"]["all"]
    assert target["accuracy"] == {"0": 0.5, "1": 0.5, "2": 0.0}
    assert (target["spread"], target["performance_drop"]["2"]) == (0.5, 1.0)
    assert "psi is not available" in capsys.readouterr().err
    result = from_summary(SensitivityResult, json.loads((tmp_path / "out" / "summary.json").read_text()))
    assert result.answer_changes is not None
    assert result.answer_changes["all"].changed == 1
    assert [body["temperature"] for body in server.bodies] == [0] * 6
    assert "top_k" not in server.bodies[0]


def test_noise_is_taken_from_the_effect(config: dict[str, Any]) -> None:
    """An endpoint that tosses a coin whatever the wording: answers differ, and no wording does it."""
    seen: dict[str, int] = {}

    def coin(messages: list[dict[str, Any]], number: int) -> str:
        seen[last(messages)] = seen.get(last(messages), 0) + 1
        return ["Yes.", "No."][seen[last(messages)] % 2]

    with chatting(coin) as server:
        summary = run(server, config, repeats=4, temperature=1.0)
    changes = summary["answer_changes"]["all"]
    # Each wording says each answer twice: 1/2 of the pairs of wordings differ, 2/3 of those of repeats.
    assert changes["differ"]["mean"] == pytest.approx(0.5)
    assert changes["noise"]["mean"] == pytest.approx(2 / 3, abs=1e-6)
    assert changes["effect"]["mean"] == pytest.approx(-1 / 6, abs=1e-6)
    assert len(server.bodies) == 24
    assert summary["targets"]["all"]["accuracy"] == {"0": 0.5, "1": 0.5, "2": 0.5}


def test_the_end_of_a_run_in_words(config: dict[str, Any], capsys: Any, tmp_path: Path) -> None:
    with chatting(yes_unless_short) as server:
        once = run(server, config)
        err = capsys.readouterr().err
        again = run(server, config | {"output": str(tmp_path / "again")}, repeats=2)
    assert once["in_words"] == [
        "1 of 2 prompts changes its answer with the wording.",
        'The worst is \'q0\' (0.67 of the pairs of wordings differ): the answer is "yes" to variant 0, and "no" to '
        "variant 2.",
        "Scale: copies not measured (--repeats 3) | yours 0.33 | unrelated prompts 1.00 of the pairs of answers differ "
        "(copies are repeats of one wording; the last is of 1 pair of prompts of different sets).",
    ]
    assert err.index("1 of 2 prompts") < err.index(f"As a page: holdfast report {config['output']}")
    assert again["in_words"][0] == "1 of 2 prompts changes its most frequent answer with the wording."
    assert again["in_words"][2].startswith(
        "Answers to two wordings differ in 0.33 of the pairs, those to one wording in 0.00: the effect of the "
        "wording is 0.33 (95 % interval -1.00 to 1.00)"
    )
    assert "Scale: copies 0.00 | yours 0.33 | unrelated" in again["in_words"][3]
    worst = from_summary(SensitivityResult, again).worst
    assert worst is not None
    assert worst.differ == pytest.approx(2 / 3, abs=1e-6)


def test_the_page_of_an_endpoint(config: dict[str, Any], tmp_path: Path) -> None:
    """Sentences first; then how far each kind changes answers, over how many sets; the sets, the worst first."""
    rows = [row | {"kind": "short" if row["variant_id"] == "2" else row["kind"]} for row in ROWS]
    rows = [row for row in rows if (row["set_id"], row["kind"]) != ("q1", "given")]
    config["sets"] = str(write_jsonl(tmp_path / "kinds.jsonl", rows))
    with chatting(yes_unless_short) as server:
        summary = run(server, config)
    page = measured_parts(read_run(config["output"]), 1)
    assert [part.text for part in page if isinstance(part, Note)][: len(summary["in_words"])] == summary["in_words"]
    titles = [getattr(part, "title", "") for part in page]
    assert {"Which kind of change matters", "Sets ranked by answers that differ", "All sets"} <= set(titles)
    sets = page[titles.index("All sets")]
    assert [column.title for column in sets.columns] == [
        "set", "right answers", "most frequent response", "distinct responses", "prompts", "wordings differ",
        "repeats differ", "wordings differ, given", "wordings differ, short",
    ]  # fmt: skip
    assert [row[0] for row in sets.rows] == ["q0", "q1"]
    assert sets.rows[1][-2:] == [None, 0.0]
    indices = next(table for table in of_run(summary) if table.title == "All indices")
    assert indices.caption.endswith("over 2 sets (all), 1 set (given) and 2 sets (short).")
    assert "Few sets (1)" in of_run(summary)[0].caption


def test_an_endpoint_that_ignores_its_prompt_and_answers_that_cannot_be_read(
    config: dict[str, Any], tmp_path: Path
) -> None:
    rows = [row | {"set_id": f"{row['set_id']}{i}", "target": None} for row in ROWS for i in "ab"]
    config["sets"] = str(write_jsonl(tmp_path / "more.jsonl", rows))
    with chatting(lambda messages, number: "Perhaps." if "or not" in last(messages) else "Yes.") as server:
        said = run(server, config, answers="yes-no")["in_words"]
    assert said[0] == "No prompt of 4 changes its answer with the wording."
    assert '4 of 12 responses (33.3 %) could not be read as an answer (--answers yes-no), such as "Perhaps.".' in said
    assert said[-1].startswith("Warning: the model hardly looks at its prompt: 100% of the pairs of different prompts")
    assert said[-1].endswith("Few changes are then no sign of steadiness.")


def changes_in(count: int) -> Any:
    """Of twelve prompts the answers of so many change with the wording."""

    def say(messages: list[dict[str, Any]], number: int) -> str:
        item, wording = last(messages).split()[1:]
        return "Yes." if int(item) < count and wording == "2" else "No."

    return say


@pytest.fixture
def measured(config: dict[str, Any], tmp_path: Path) -> Any:
    """Measure twelve prompts in three wordings with an endpoint's answers; returns the run's folder."""
    rows = [
        {"set_id": f"q{q}", "variant_id": str(v), "kind": "given" if v else "original", "prompt": f"Ask {q} {v}"}
        for q in range(12)
        for v in range(3)
    ]
    config["sets"] = str(write_jsonl(tmp_path / "twelve.jsonl", rows))

    def measured(name: str, count: int, **more: Any) -> str:
        with chatting(changes_in(count)) as server:
            run(server, config | {"output": str(tmp_path / name)}, **more)
        return str(tmp_path / name)

    return measured


def test_two_endpoints_are_compared_and_gated_by_their_answers(measured: Any, tmp_path: Path, capsys: Any) -> None:
    steady, shaky = measured("steady", 2, repeats=2), measured("shaky", 9, repeats=3)
    result = compare(CompareConfig(run_a=steady, run_b=shaky, output=str(tmp_path / "cmp")))
    row = result["by_kind"]["all"]
    assert result["measure"] == "effect"
    # In a prompt that changes two of three pairs of wordings differ; repeats never do.
    assert (row["a"], row["b"]) == (pytest.approx(2 / 12 * 2 / 3), pytest.approx(9 / 12 * 2 / 3))
    assert 0 < row["low"] < row["difference"] < row["high"]
    out = capsys.readouterr().out
    assert "Answers that change, less the noise, of both" in out
    assert "Shares of the pairs of wordings" in out
    assert [moved["difference"] for moved in result["moved_most"]] == [pytest.approx(2 / 3, abs=1e-6)] * 7
    gate = ["sensitivity", "check", shaky, "--baseline", steady, "--output", str(tmp_path / "gate")]
    assert main(gate) == 1
    assert "Tolerance 0.02 of the pairs of wordings" in (tmp_path / "gate" / "summary.md").read_text()
    assert "effect 0.111111 -&gt; 0.500000" in (tmp_path / "gate" / "junit.xml").read_text()
    assert main([*gate, "--max-increase", "0.5"]) == 0
    assert main(["sensitivity", "check", steady, "--baseline", shaky]) == 0
    assert from_summary(Comparison, result).changes["all"].mean == pytest.approx(row["difference"])


def test_answers_asked_once_are_compared_with_their_noise(measured: Any) -> None:
    result = compare(CompareConfig(run_a=measured("a", 3), run_b=measured("b", 3), json=True))
    assert result["measure"] == "differ"
    assert result["by_kind"]["all"]["difference"] == 0
    assert result["notes"] == ["noise is not taken off, because each wording was asked once: --repeats 3 tells it"]


@pytest.mark.parametrize(
    ("more", "what"),
    [
        ({"repeats": 2}, "numbers of repeats, of which 1 tells no noise, differ: 1 in"),
        ({"answers": "yes-no"}, r"ways of reading \(--answers\) differ: auto in .*, yes-no in"),
        ({"equality": "exact"}, "ways of comparing differ: --equality answer in .*, --equality exact in"),
        ({"system": "Be brief."}, "system messages or --chat-template-kwargs differ"),
        ({"max_new_tokens": 12}, "length of responses"),
        ({"limit": 5}, "the sets differ"),
        ({"pairs": "kinds"}, "measured all, given; .* measured given"),
    ],
)
def test_runs_whose_answers_mean_other_things_are_refused(measured: Any, more: dict[str, Any], what: str) -> None:
    runs = measured("a", 3), measured("b", 3, **more)
    with pytest.raises(NotComparableError, match=what):
        compare(CompareConfig(run_a=runs[0], run_b=runs[1], json=True))


def test_an_endpoint_is_compared_with_a_local_model(measured: Any, config: dict[str, Any], tmp_path: Path) -> None:
    """The local model's answers are greedy: all of their change is the wording's."""
    local = config | {"model": "pocket", "backend": "hf", "max_new_tokens": 3}
    local.pop("concurrency")
    measure(SensitivityConfig(**local | {"output": str(tmp_path / "hf"), "chat": True}))
    chat = measured("chat", 3, repeats=2, max_new_tokens=3)
    result = compare(CompareConfig(run_a=str(tmp_path / "hf"), run_b=chat, json=True))
    assert result["measure"] == "effect"
    rows = [json.loads(line) for line in (tmp_path / "hf" / "rows.jsonl").open()]
    consistent = [row["indices"]["all"]["consistency_rate"] for row in rows]
    assert result["by_kind"]["all"]["a"] == pytest.approx(1 - sum(consistent) / 12, abs=1e-5)
    assert f"the answers of {tmp_path / 'hf'} are greedy and count as free of noise" in result["notes"]
    measure(SensitivityConfig(**local | {"output": str(tmp_path / "plain")}))
    with pytest.raises(NotComparableError, match=r"no chat template \(--chat\) in"):
        compare(CompareConfig(run_a=str(tmp_path / "plain"), run_b=chat, json=True))
    (tmp_path / "chat" / "rows.jsonl").write_text("")
    assert main(["sensitivity", "compare", chat, chat]) == 2


def test_anthropics_form_thoughts_and_a_system_message(config: dict[str, Any]) -> None:
    def think(messages: list[dict[str, Any]], number: int) -> dict[str, Any]:
        return {"thoughts": f"thought {number}", "text": "Yes."}

    with chatting(think) as server:
        summary = run(server, config, api="anthropic", system="Be brief.", reasoning_effort="1024", max_new_tokens=2000)
    assert summary["answer_changes"]["all"]["differ"]["mean"] == 0
    body = server.bodies[0]
    assert (body["system"], body["max_tokens"]) == ("Be brief.", 2000)
    assert body["thinking"] == {"type": "enabled", "budget_tokens": 1024}
    assert [m["role"] for m in body["messages"]] == ["user"]
    assert "temperature" not in body
    assert server.asked[0].headers["anthropic-version"]


def test_thoughts_in_tags_are_dropped(config: dict[str, Any]) -> None:
    with chatting(lambda messages, number: f"<think>Hm, {number}.</think>\n\nYes.") as server:
        summary = run(server, config)
    assert summary["answer_changes"]["all"]["differ"]["mean"] == 0


def test_what_a_model_refuses_is_said_otherwise_or_left_out_after_one_refusal(
    config: dict[str, Any], capsys: Any
) -> None:
    refuses = {
        "max_tokens": "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.",
        "temperature": "Unsupported value: 'temperature' does not support 0 with this model.",
        "logprobs": "This model does not support logprobs.",
    }
    with chatting(yes_unless_short, refuses) as server:
        summary = run(server, config)
    assert server.refused <= 4  # top_logprobs has two forms
    assert set(server.bodies[0]) == {"model", "messages", "max_completion_tokens"}
    assert summary["request"] == {"max_completion_tokens": 30}
    err = capsys.readouterr().err
    assert "does not take max_tokens: it is asked with max_completion_tokens instead" in err
    assert "these answers are sampled" in err


def test_what_was_asked_for_is_never_left_out(config: dict[str, Any]) -> None:
    refuses = {"temperature": "temperature is fixed"}
    with chatting(yes_unless_short, refuses) as server, pytest.raises(HoldfastError, match="temperature is fixed"):
        run(server, config, temperature=0.7)
    with chatting(yes_unless_short) as server:
        run(
            server,
            config | {"overwrite": True},
            chat_template_kwargs='{"enable_thinking": false}',
            reasoning_effort="low",
        )
    assert server.bodies[0]["chat_template_kwargs"] == {"enable_thinking": False}
    assert server.bodies[0]["reasoning_effort"] == "low"


def test_a_failure_loses_no_answer_and_a_second_run_costs_nothing(config: dict[str, Any], tmp_path: Path) -> None:
    def dies(messages: list[dict[str, Any]], number: int) -> Any:
        return {"code": 402, "data": {"error": "no credit"}} if number > 3 else yes_unless_short(messages, number)

    with chatting(dies) as server:
        with pytest.raises(HoldfastError, match="402"):
            run(server, config, concurrency=1)
        url = server.url
    with chatting(yes_unless_short) as server:
        config["endpoint"] = url  # the answers are of this address
        with pytest.raises(HoldfastError, match="failed 1 times"):
            measure(SensitivityConfig(**config, retries=0))
        first = run(server, config | {"output": str(tmp_path / "other"), "cache": str(tmp_path / "cache")})
        assert first["cost"]["requests"] == 6
        again = run(server, config | {"output": str(tmp_path / "again"), "cache": str(tmp_path / "cache")})
    assert again["cost"]["requests"] == 0
    assert again["answer_changes"] == first["answer_changes"]


@pytest.mark.parametrize("code", [401, 402])
def test_a_refusal_of_the_first_request_leaves_nothing(code: int, config: dict[str, Any], tmp_path: Path) -> None:
    def refuses(messages: list[dict[str, Any]], number: int) -> Any:
        return {"code": code, "data": {"error": "no"}} if number == 1 else yes_unless_short(messages, number)

    with chatting(refuses) as server:
        with pytest.raises(HoldfastError, match=str(code)):
            run(server, config)
        assert not (tmp_path / "out").exists()
        # Neither is a mended command kept out, nor is what an earlier call has stored lost.
        assert run(server, config, max_new_tokens=12)["cost"]["requests"] == 6


def test_a_refusal_later_keeps_what_was_answered(config: dict[str, Any], tmp_path: Path) -> None:
    with chatting(yes_unless_short) as server, pytest.raises(HoldfastError, match="stopped by --max-requests"):
        run(server, config, max_requests=1)
    assert (tmp_path / "out" / "cache" / "answers.sqlite").exists()


def test_the_budget_is_a_hard_stop_and_the_same_command_goes_on(config: dict[str, Any], capsys: Any) -> None:
    """10 tokens in and 2 out of each answer cost 0.014; with 30 tokens it would be some 0.075."""
    prices = {"price_in": 1000.0, "price_out": 2000.0, "budget": 0.11}
    with chatting(yes_unless_short) as server:
        with pytest.raises(HoldfastError, match="stopped by --budget"):
            run(server, config, **prices)
        first = len(server.bodies)
        assert 0 < first * 0.014 <= 0.11
        summary = run(server, config, **prices | {"budget": 0.3})
        assert len(server.bodies) == 6
    assert summary["price"] == pytest.approx((6 - first) * 0.014)
    assert "6 requests to send" in capsys.readouterr().err


@pytest.mark.parametrize("count", ["10", -10, 1.5, float("nan"), True, [1]])
def test_counts_that_are_none_neither_lose_an_answer_nor_loosen_the_budget(count: Any, config: dict[str, Any]) -> None:
    """Then every answer is counted as the longest: 64 tokens cost 0.128."""

    def counts(messages: list[dict[str, Any]], number: int) -> Any:
        usage = {"prompt_tokens": count, "completion_tokens": count}
        choice = {"message": {"role": "assistant", "content": "Yes."}, "finish_reason": "stop"}
        return {"code": 200, "data": {"choices": [choice], "usage": usage}}

    prices = {"price_in": 0.0, "price_out": 2000.0, "max_new_tokens": 64, "concurrency": 1}
    with chatting(counts) as server:
        with pytest.raises(HoldfastError, match=r"stopped by --budget 0.3: 0.256 is spent"):
            run(server, config, **prices, budget=0.3)
        assert len(server.bodies) == 2
        assert run(server, config, **prices, budget=9.0)["cost"]["answers_stored_before"] == 2


@pytest.mark.parametrize("logprob", [None, float("nan"), -math.inf, "low", [1]])
def test_logprobs_that_are_none_cost_no_answer(logprob: Any, config: dict[str, Any]) -> None:
    def says(messages: list[dict[str, Any]], number: int) -> Any:
        entry = {"token": "Yes", "logprob": logprob, "top_logprobs": [{"token": "Yes", "logprob": logprob}]}
        choice = {"message": {"content": "Yes."}, "logprobs": {"content": [entry]}}
        return {"code": 200, "data": {"choices": [choice]}}

    with chatting(says) as server:
        summary = run(server, config)
    assert (summary["cost"]["requests"], summary["answer_changes"]["all"]["first_token"]) == (6, None)


def test_max_requests(config: dict[str, Any]) -> None:
    with chatting(yes_unless_short) as server:
        with pytest.raises(HoldfastError, match=r"--max-requests 4; 2 of 6 answers are missing"):
            run(server, config, max_requests=4)
        assert len(server.bodies) == 4
        assert run(server, config, max_requests=4)["cost"]["requests"] == 2


@pytest.mark.parametrize(
    ("change", "hint"), [({"model": "other"}, "it serves m"), ({"endpoint": "no /v1"}, "usually answer under /v1")]
)
def test_a_wrong_name_and_a_missing_v1(change: dict[str, str], hint: str, config: dict[str, Any]) -> None:
    with chatting(yes_unless_short) as server:
        change = {key: server.address if key == "endpoint" else value for key, value in change.items()}
        with pytest.raises(HoldfastError) as caught:
            run(server, config, **change)
    assert hint in str(caught.value.hint)


def test_answers_of_which_none_can_be_read_are_not_said_to_stay(config: dict[str, Any]) -> None:
    with chatting(lambda messages, number: "perhaps") as server:
        summary = run(server, config, answers="yes-no")
    (said,) = summary["in_words"]
    assert said.startswith("Whether answers change with the wording is unknown: ")
    assert said.endswith('could not be read (--answers yes-no), such as "perhaps".')


def test_a_server_that_answers_to_any_name_is_noticed(config: dict[str, Any], capsys: Any) -> None:
    """As llama.cpp does. The note comes once, not for every question."""
    with chatting(lambda messages, number: "yes", names=("m",), any_name=True) as server:
        measure(SensitivityConfig(**(config | {"endpoint": server.url + "/v1", "model": "other"})))
    assert capsys.readouterr().err.count("lists no model 'other' (it lists m)") == 1


def test_the_shift_of_the_first_token(config: dict[str, Any]) -> None:
    def with_logprobs(messages: list[dict[str, Any]], number: int) -> dict[str, Any]:
        short = "or not" in last(messages)
        return {"text": "No.", "first": {"No": -0.5, "Yes": -1.0} if short else {"No": -0.25, "Yes": -2.0}}

    with chatting(with_logprobs) as server:
        changes = run(server, config)["answer_changes"]["all"]
    # Of six ordered pairs of wordings four cross from a short one to another: 0.25 nats each.
    assert changes["first_token"]["mean"] == pytest.approx(4 * 0.25 / 6, abs=1e-6)
    assert changes["first_token_at_least"] == 0


def test_prompts_of_several_turns(config: dict[str, Any], tmp_path: Path) -> None:
    turns = [
        {"role": "system", "content": "S"},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Yo"},
    ]
    rows = [
        {"set_id": "a", "variant_id": str(i), "kind": "given", "messages": [*turns, {"role": "user", "content": text}]}
        for i, text in enumerate(["Is iron a metal?", "iron: metal or not?"])
    ]
    config["sets"] = str(write_jsonl(tmp_path / "turns.jsonl", rows))
    with chatting(yes_unless_short) as server:
        summary = run(server, config)
    assert server.bodies[0]["messages"] == rows[0]["messages"]
    assert summary["answer_changes"]["all"]["changed"] == 1


def test_a_judge_says_what_is_equal(config: dict[str, Any]) -> None:
    def say(messages: list[dict[str, Any]], number: int) -> str:
        if "Do both say the same" in last(messages):
            return "Yes." if last(messages).count("metal.") == 2 else "no"
        return {"I": "A metal.", "W": "Certainly a metal."}.get(last(messages)[0], "Wood.")

    with chatting(say) as server:
        judge = {"equality": "judge", "judge_url": server.url, "judge_model": "m"}
        summary = run(server, config, **judge)
    assert summary["answer_changes"]["all"]["differ"]["mean"] == pytest.approx(2 / 3, abs=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"endpoint": None}, "needs --endpoint"),
        ({"budget": 1.0}, "--budget needs --price-in"),
        ({"equality": "judge"}, "needs --judge-url"),
        ({"equality": "meaning"}, "needs --meaning-model"),
        ({"context": 9}, "--context does not go with --backend chat"),
        ({"dtype": "bfloat16"}, "--dtype does not go with"),
        ({"chat_template_kwargs": "[1]"}, "a JSON object is needed"),
        ({"backend": "hf", "repeats": 2}, "--repeats is for --backend chat"),
        ({"api": "anthropic", "reasoning_effort": "low"}, "a number of tokens"),
    ],
)
def test_what_does_not_go_together_is_refused(change: dict[str, Any], message: str, config: dict[str, Any]) -> None:
    with pytest.raises(HoldfastError, match=message):
        measure(SensitivityConfig(**{"endpoint": "http://127.0.0.1:9/v1"} | config | change))


def test_answers_of_one_meaning_are_equal(config: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for the encoder: texts with the same last word are close."""

    def encoder(name: str) -> Any:
        return lambda left, right: [0.95 if a.split()[-1] == b.split()[-1] else 0.2 for a, b in zip(left, right)]

    monkeypatch.setattr("holdfast.sensitivity.variants.wording.sentence_similarity", encoder)
    said = {"I": "It is a metal", "W": "Surely a metal", "i": "no metal", "w": "never wood"}
    with chatting(lambda messages, number: said[last(messages)[0]]) as server:
        more = {"equality": "meaning", "meaning_model": "any"}
        assert run(server, config, **more)["answer_changes"]["all"]["differ"]["mean"] == pytest.approx(1 / 3, abs=1e-6)
        config |= {"output": config["output"] + "-2", "same_meaning": 0.99}
        assert run(server, config, **more)["answer_changes"]["all"]["differ"]["mean"] == 1


def test_a_dry_run_asks_nothing_and_says_the_price(config: dict[str, Any], capsys: Any) -> None:
    with chatting(yes_unless_short) as server:
        figures = run(server, config, dry_run=True, repeats=2, price_in=1.0, price_out=10.0)
        assert not server.asked
    assert (figures["requests_at_most"], figures["tokens_out_at_most"]) == (12, 360)
    assert figures["price_at_most_about"] == pytest.approx((figures["tokens_in_about"] + 3600) / 1e6)
    assert "iron: metal or not?" in capsys.readouterr().out
    assert not Path(config["output"]).exists()


def test_options_of_a_local_chat_template(tmp_path: Path) -> None:
    from holdfast.sensitivity.prompts import Renderer
    from holdfast.sensitivity.sets import Variant
    from materials import CHATML, make_tokenizer

    tokenizer = make_tokenizer(chat_template=CHATML + "{% if thinks is false %}<think></think>{% endif %}")
    own: dict[str, Any] = {"chat_template": True, "system": None, "shots": 0, "shots_data": None, "layout": "same"}
    texts = [
        Renderer(tokenizer, **own, template_options=options).render(Variant("0", "original", "Hi"))
        for options in (None, {"thinks": False})
    ]
    assert texts[1] == texts[0] + "<think></think>"
    with pytest.raises(HoldfastError, match="needs --chat"):
        Renderer(tokenizer, **own | {"chat_template": False}, template_options={"thinks": False})
