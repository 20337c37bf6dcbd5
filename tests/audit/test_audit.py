"""``holdfast audit``: every kind of finding is planted and seen, named rightly; clean rows have none."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import holdfast
from golden_case import call
from holdfast.audit.findings import audit as audited
from holdfast.audit.findings import find
from holdfast.audit.record import AuditContext, AuditRow, Kind
from holdfast.audit.tuned import context_of, tuned
from holdfast.config import AuditConfig, TuneConfig
from holdfast.data.conversation import stop_texts
from holdfast.data.examples import examples_of
from holdfast.errors import HoldfastError
from holdfast.records import RESPONSE_ROLES, Role
from holdfast.report.pipeline import make
from holdfast.tune.plan import make_plan
from holdfast.tune.roles import assign_roles, render_example
from materials import make_model, make_tokenizer, write_jsonl

Plant = Callable[[list[AuditRow]], list[AuditRow]]
DATED = (
    "{{ '<|bos|>Today is ' + strftime_now('%d %B %Y') + '.\n' }}"
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
AGENT = (  # thoughts, calls, results; an empty thought is given by the generation prompt where thinking is off
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}"
    "{% if m['role'] == 'assistant' %}"
    "{% if m.get('reasoning_content') %}{{ '<think>' + m['reasoning_content'] + '</think>' }}"
    "{% elif thinking is defined %}{{ '<think>\n\n</think>' }}{% endif %}{% endif %}"
    "{{ m['content'] or '' }}"
    "{% for c in m.get('tool_calls') or [] %}{{ '<call>' + c['function']['name'] + c['function']['arguments']|tojson"
    " + '</call>' }}{% endfor %}{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
    "{% if thinking == 'given' %}{{ '<think>\n\n</think>' }}{% endif %}{% endif %}"
)
CALL = {"type": "function", "function": {"name": "weather", "arguments": {"place": "Oslo"}}}


def talk(*texts: str, **more: Any) -> dict[str, Any]:
    roles = itertools.cycle(("user", "assistant"))
    return {"messages": [{"role": role, "content": text} for role, text in zip(roles, texts, strict=False)], **more}


AGENT_ROW = {
    "messages": [
        {"role": "system", "content": "Be brief today."},
        {"role": "user", "content": "Is there rain in Oslo?"},
        {"role": "assistant", "content": None, "reasoning_content": "I must look.", "tool_calls": [CALL]},
        {"role": "tool", "name": "weather", "content": "drizzle, 11 degrees"},
        {"role": "assistant", "content": "It drizzles there."},
    ],
    "chat_template_kwargs": {"thinking": "on"},
}
GIVEN_ROW = talk("Name a colour.", "Red.", chat_template_kwargs={"thinking": "given"})
ROWS = [talk("What is the capital of France?", "Paris."), talk("Name a colour.", "Blue.", "And one more?", "Green.")]


@pytest.fixture(scope="module")
def chat() -> Any:
    tokenizer = make_tokenizer()
    tokenizer.eos_token = "<|im_end|>"
    return tokenizer


@pytest.fixture(scope="module")
def agent() -> Any:
    tokenizer = make_tokenizer(chat_template=AGENT)
    tokenizer.eos_token = "<|im_end|>"
    return tokenizer


def context(tokenizer: Any, **changes: Any) -> AuditContext:
    """What others' data is judged by, unless ``role_weights`` are among the changes."""
    stops = tokenizer.convert_tokens_to_ids(list(stop_texts(tokenizer)))
    bos, eos = tokenizer.convert_tokens_to_ids("<|bos|>"), tokenizer.eos_token_id
    usual: dict[str, Any] = {"stop_ids": frozenset(stops), "bos_id": bos, "eos_id": eos}
    return AuditContext(tokenizer, "model", **usual | {"embedding_rows": len(tokenizer)} | changes)


def rows_of(tokenizer: Any, rows: list[dict[str, Any]]) -> list[AuditRow]:
    """Rows as a trainer would have them that pays for responses alone."""
    examples = examples_of([(row, f"row {number}") for number, row in enumerate(rows, 1)], "rows")
    tokens = assign_roles([render_example(example, "chat", tokenizer) for example in examples], tokenizer)
    prepared = []
    for example, one in zip(examples, tokens, strict=True):
        roles = tuple(map(Role, one.roles.tolist()))
        weights = tuple(float(role in RESPONSE_ROLES) for role in roles)
        prepared.append(AuditRow(example.where, tuple(one.ids.tolist()), weights, roles))
    return prepared


def weighted(role: Role, weight: float, first: int = 0) -> Plant:
    """Give every token of a role another weight, from the row ``first`` on."""

    def plant(rows: list[AuditRow]) -> list[AuditRow]:
        changed = rows[:first]
        for row in rows[first:]:
            both = zip(row.roles or (), row.weights, strict=True)
            changed.append(dataclasses.replace(row, weights=tuple(weight if r is role else w for r, w in both)))
        return changed

    return plant


def with_tokens(
    at: Callable[[AuditRow], int], cut: int, *ids: int, role: Role = Role.TEMPLATE, weight: float = 0
) -> Plant:
    """Put other tokens in the place of ``cut`` ones of the first row."""

    def plant(rows: list[AuditRow]) -> list[AuditRow]:
        row, begin = rows[0], at(rows[0])

        def spliced(values: tuple[Any, ...], value: Any) -> tuple[Any, ...]:
            return values[:begin] + (value,) * len(ids) + values[begin + cut :]

        new = row.ids[:begin] + ids + row.ids[begin + cut :]
        roles = spliced(row.roles or (), role)
        return [AuditRow(row.place, new, spliced(row.weights, weight), roles), *rows[1:]]

    return plant


def first_of(role: Role, end: bool = False) -> Callable[[AuditRow], int]:
    return lambda row: next((stop if end else begin) for other, begin, stop in row.runs if other is role)


def kinds(rows: list[AuditRow], about: AuditContext) -> list[str]:
    return [finding.kind.value for finding in find(rows, about)]


# planted


IM_END, IM_START, BOS = 4, 3, 0
PLANTED: dict[str, tuple[Plant, str]] = {
    "no stop paid": (weighted(Role.EOS, 0), "stop-never-paid"),
    "a stop unpaid": (weighted(Role.EOS, 0, first=1), "stop-unpaid"),
    "answers unpaid": (weighted(Role.ASSISTANT, 0), "answer-unpaid"),
    "prompt paid": (weighted(Role.USER, 1), "prompt-paid"),
    "headers paid": (weighted(Role.TEMPLATE, 1), "template-paid"),
    "no stop in the middle": (lambda rows: with_tokens(first_of(Role.EOS), 1)(rows[::-1]), "stop-missing"),
    "cut": (lambda rows: [dataclasses.replace(rows[0], **_cut(rows[0], -2)), *rows[1:]], "cut-before-stop"),
    "second BOS": (with_tokens(lambda row: 0, 0, BOS, BOS), "second-bos"),
    "second EOS": (with_tokens(first_of(Role.EOS), 0, IM_END, role=Role.ASSISTANT, weight=1), "second-eos"),
    "beyond": (with_tokens(first_of(Role.USER), 1, 100_000, role=Role.USER), "beyond-embedding"),
    "twice": (lambda rows: [*rows, dataclasses.replace(rows[0], place="row 3")], "duplicate-rows"),
}


def _cut(row: AuditRow, end: int) -> dict[str, Any]:
    return {"ids": row.ids[:end], "weights": row.weights[:end], "roles": (row.roles or ())[:end]}


@pytest.mark.parametrize("name", PLANTED)
def test_what_is_planted_is_seen_and_named(name: str, chat: Any) -> None:
    plant, kind = PLANTED[name]
    rows = rows_of(chat, ROWS)
    assert kinds(rows, context(chat)) == []
    findings = find(plant(rows), context(chat))
    assert [finding.kind.value for finding in findings] == [kind]
    finding = findings[0]
    assert 1 <= finding.count <= 3
    assert finding.tokens >= finding.count
    assert finding.rows[0].startswith("row ")
    assert any(token.marked for token in finding.example)
    assert finding.cure
    assert finding.sentence


@pytest.mark.parametrize(
    ("role", "kind"),
    [
        (Role.THINK, "thought-unpaid"),
        (Role.TOOL_CALL, "call-unpaid"),
        (Role.FORMAT, "format-unpaid"),
        (Role.EMPTY_THINK, "empty-thought-unpaid"),
    ],
)
def test_what_an_agent_writes_and_is_not_paid(role: Role, kind: str, agent: Any) -> None:
    rows = rows_of(agent, [AGENT_ROW])
    assert kinds(rows, context(agent)) == []
    assert kinds(weighted(role, 0)(rows), context(agent)) == [kind]


def test_results_of_tools_and_thoughts_that_are_given(agent: Any) -> None:
    rows = rows_of(agent, [AGENT_ROW, GIVEN_ROW])
    assert kinds(rows, context(agent)) == []
    assert kinds(weighted(Role.TOOL, 1)(rows), context(agent)) == ["tool-result-paid"]
    given = rows[1]
    begin = given.responses[0][0]
    thought = agent("<think>\n\n</think>", add_special_tokens=False)["input_ids"]
    assert list(given.ids[begin - len(thought) : begin]) == thought
    weights = tuple(1.0 if begin - len(thought) <= at < begin else w for at, w in enumerate(given.weights))
    (finding,) = find([dataclasses.replace(given, weights=weights)], context(agent))
    assert (finding.kind, finding.tokens) == (Kind.GIVEN_THOUGHT_PAID, len(thought))
    (template, thoughts) = find(weighted(Role.TEMPLATE, 1)([given]), context(agent))
    assert (template.kind, thoughts.kind) == (Kind.TEMPLATE_PAID, Kind.GIVEN_THOUGHT_PAID)
    assert template.tokens + thoughts.tokens == sum(role is Role.TEMPLATE for role in (given.roles or ())[1:])


def test_rows_that_contradict_each_other(chat: Any) -> None:
    rows = [
        *ROWS,
        talk("Name a colour.", "Blue."),
        talk("Name a colour.", "Red."),
        talk("Name a colour.", "Red.", "?", "!"),
    ]
    findings = find(rows_of(chat, rows), context(chat))
    assert [(finding.kind, finding.rows) for finding in findings] == [
        (Kind.CONTRADICTING_ROWS, ("row 4 (other than row 2)", "row 5 (other than row 2)"))
    ]
    alone = rows_of(chat, [{"messages": [{"role": "assistant", "content": text}]} for text in ("Hello.", "Hi.")])
    assert kinds(alone, context(chat)) == [], "nothing was asked"


def test_a_response_that_is_empty_after_the_template(chat: Any) -> None:
    rows = rows_of(chat, [*ROWS, talk("Say nothing.", "x")])
    begin, end = next((begin, end) for role, begin, end in rows[2].runs if role is Role.ASSISTANT)
    (emptied,) = with_tokens(lambda row: begin, end - begin)(rows[2:])
    (finding,) = find([*rows[:2], emptied], context(chat))
    assert (finding.kind, finding.rows) == (Kind.EMPTY_RESPONSE, ("row 3",))


def test_a_day_that_the_template_prints() -> None:
    tokenizer = make_tokenizer(chat_template=DATED)
    tokenizer.eos_token = "<|im_end|>"
    rows = rows_of(tokenizer, ROWS)
    (finding,) = find(rows, context(tokenizer))
    assert (finding.kind, finding.count) == (Kind.DATE_IN_TEMPLATE, 2)
    day = "".join(token.text for token in finding.example if token.marked).split()
    assert len(day) == 3
    assert day[2].rstrip(".").isdigit()
    assert kinds(rows, context(tokenizer, date="2026-01-31")) == [], "chosen"
    assert kinds([dataclasses.replace(row, roles=None) for row in rows], context(tokenizer)) == ["date-in-template"]


def test_padding_is_no_second_stop_and_position_0_no_target(chat: Any) -> None:
    row = rows_of(chat, ROWS)[0]
    more = (4, 4, 4)
    padded = AuditRow("row 1", row.ids + more, row.weights + (0,) * 3, (*(row.roles or ()), *(Role.TEMPLATE,) * 3))
    assert kinds([padded], context(chat)) == []
    assert AuditRow("row 1", (5, 6), (1, 1)).weights == (0, 1)
    with pytest.raises(HoldfastError, match="row 1: 2 ids, but 1 weights"):
        AuditRow("row 1", (5, 6), (1,))


def test_another_end_than_generation_stops_on_is_named(chat: Any) -> None:
    (finding,) = find(rows_of(chat, ROWS), context(chat, stop_ids=frozenset({1})))
    assert (finding.kind, finding.rows[0]) == (Kind.STOP_MISSING, "row 1 (ends with '<|im_end|>')")


def test_rows_without_roles_show_what_ids_alone_show(chat: Any) -> None:
    rows = [dataclasses.replace(row, roles=None) for row in rows_of(chat, ROWS)]
    result = audited([*rows, dataclasses.replace(rows[0])], context(chat))
    assert [finding.kind.value for finding in result.findings] == ["duplicate-rows"]
    assert [(line.label, line.share) for line in result.roles] == [("unknown", 1)]
    assert result.findings[0].example[0].role is None


# what is asked for is no finding


ASKED = dict.fromkeys(Role, 0.0) | dict.fromkeys(RESPONSE_ROLES, 1.0)


def test_what_a_config_asks_for_is_judged_by_what_the_model_writes(agent: Any) -> None:
    rows = rows_of(agent, [AGENT_ROW])
    half = weighted(Role.USER, 0.2)(weighted(Role.TOOL, 1)(rows))
    assert kinds(half, context(agent, role_weights=ASKED | {Role.USER: 0.2, Role.TOOL: 1.0})) == []
    by_row = weighted(Role.THINK, 0)(rows)
    assert kinds(by_row, context(agent, role_weights=ASKED)) == [], "a message or a span has weight 0"
    assert kinds(by_row, context(agent, role_weights=ASKED | {Role.THINK: 0.0})) == ["thought-unpaid"]
    chosen = weighted(Role.USER, 0.2)(rows)
    assert kinds(chosen, context(agent)) == [], "somebody chose that number"


def test_the_share_is_that_of_the_plan_of_tune(model_folder: Path, chat_file: Path) -> None:
    options: dict[str, Any] = {"model": str(model_folder), "data": str(chat_file), "prompt_weight": 0.2}
    for normalizer in ("nonzero", "role-mean"):
        plan = make_plan(TuneConfig(**options, eval_share=0, normalizer=normalizer, output="x"))
        material = tuned(AuditConfig(**options, normalizer=normalizer))
        result = audited(material.rows, material.context)
        share = sum(line.share for line in result.roles if line.is_given)
        assert share == pytest.approx(plan.share), normalizer
        assert [row.ids for row in material.rows] == [tuple(tokens.ids.tolist()) for tokens in plan.train]
        assert {line.role: line.tokens for line in result.roles} == {r: n for r, n in plan.report.targets.items() if n}
        assert [finding.kind for finding in result.findings] == [Kind.CUT_BEFORE_STOP], "one has more than 128 tokens"


# clean templates of others


STOPS_ELSEWHERE = {"gptoss", "gptoss_training", "diffusion_gemma", "diffusion_gemma_training"}
"""In these an earlier turn ends with a token that generation does not stop on (docs/audit.md)."""


def _on_clean_templates(names: list[str]) -> int:
    import template_matrix

    cells = 0
    for name in names:
        tokenizer = template_matrix.tokenizer_of(name)
        about = context(tokenizer, date="2026-01-31", bos_id=tokenizer.bos_token_id)
        for conversation, row in template_matrix.CONVERSATIONS.items():
            try:
                rows = rows_of(tokenizer, [row])
            except HoldfastError:  # the template refuses the conversation
                continue
            cells += 1
            expected = ["stop-missing"] * (name in STOPS_ELSEWHERE and len(rows[0].responses) > 1)
            seen = kinds(rows, about)
            assert seen in ([], expected), f"{name}, {conversation}: {seen}"
    return cells


def test_clean_preparations_have_no_findings() -> None:
    pytest.importorskip("trl")
    import template_matrix

    assert _on_clean_templates(template_matrix.names()[::3]) > 100


@pytest.mark.full
def test_clean_preparations_have_no_findings_with_any_template() -> None:
    pytest.importorskip("trl")
    import template_matrix

    assert _on_clean_templates(template_matrix.names()) > 400


# the command


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder and files of rows."""
    place = tmp_path_factory.mktemp("audit")
    make_model().config.save_pretrained(place / "model")  # no weights: none are needed
    make_tokenizer().save_pretrained(place / "model")
    write_jsonl(place / "clean.jsonl", [row | {"id": number} for number, row in enumerate(ROWS)])
    odd = [*ROWS, {"messages": []}, talk("Hi.", "Hello.", history="[...]"), talk("Bye.", ""), ROWS[0]]
    write_jsonl(place / "odd.jsonl", odd)
    return place


def test_no_findings_is_exit_code_0_and_metadata_is_no_finding(folder: Path) -> None:
    answer = call(f"audit --model {folder}/model --data {folder}/clean.jsonl")
    assert answer.exit_code == 0
    assert "no findings" in answer.out
    assert "generation stops on: <|end|>, <|im_end|>" in answer.out
    assert "clean.jsonl: columns not used: id" in answer.err


def test_findings_are_exit_code_1_and_the_same_in_json(folder: Path) -> None:
    line = f"audit --model {folder}/model --data {folder}/odd.jsonl --weights eos 0 format 0"
    answer = call(line)
    assert answer.exit_code == 1
    assert "4 findings" in answer.out
    assert "> eos             0  <|im_end|>" in answer.out
    assert "cure: give eos a weight above 0 (--weights eos 1, or in the file weights: {eos: 1})" in answer.out
    summary = json.loads(call(line + " --json").out)
    by_kind = {finding["kind"]: finding for finding in summary["findings"]}
    assert list(by_kind) == ["stop-never-paid", "duplicate-rows", "keys-not-used", "rows-refused"]
    assert by_kind["duplicate-rows"]["rows"] == [f"{folder}/odd.jsonl, row 6 (as {folder}/odd.jsonl, row 1)"]
    assert "row 4: column 'history'" in by_kind["keys-not-used"]["rows"][0]
    assert by_kind["rows-refused"]["count"] == 2
    assert summary["exit_code"] == 1
    skipped = json.loads(call(line + " --json --skip-bad-rows").out)
    assert [finding["kind"] for finding in skipped["findings"]] == ["stop-never-paid", "duplicate-rows"]
    assert skipped["not_seen"][0].startswith("left out by --skip-bad-rows: 3 bad rows; the first: ")


def test_ids_beyond_the_embedding_are_a_finding_here_and_an_error_of_tune(folder: Path, tmp_path: Path) -> None:
    small = tmp_path / "small"
    make_model(vocab_size=300).config.save_pretrained(small)
    make_tokenizer().save_pretrained(small)
    options: dict[str, Any] = {"model": str(small), "data": str(folder / "clean.jsonl")}
    result = holdfast.audit_data(**options)
    assert [finding.kind for finding in result.findings] == ["beyond-embedding"]
    with pytest.raises(HoldfastError, match="embedding has 300 rows"):
        make_plan(TuneConfig(**options, output="x"))


def test_cut_rows_are_counted(folder: Path) -> None:
    options: dict[str, Any] = {"model": str(folder / "model"), "data": str(folder / "clean.jsonl")}
    whole = tuned(AuditConfig(**options)).rows[1]
    length = whole.responses[1][1] - 1  # without the stop of the second row
    result = holdfast.audit_data(**options, max_length=length)
    assert [(finding.kind, finding.count) for finding in result.findings] == [("cut-before-stop", 1)]
    assert result.not_seen == (f"cut to {length} tokens: 1 row, by {len(whole) - length} tokens in all",)


def test_a_row_that_is_cut_within_its_prompt_holds_no_response(folder: Path, tmp_path: Path) -> None:
    data = write_jsonl(tmp_path / "long.jsonl", [*ROWS, talk("And on. " * 40, "No.")])
    options: dict[str, Any] = {"model": str(folder / "model"), "data": str(data), "max_length": 100}
    paid = holdfast.audit_data(**options, prompt_weight=0.2)
    assert [finding.rows for finding in paid.findings] == [(f"{data}, row 3 (within its prompt)",)]
    unpaid = holdfast.audit_data(**options)
    assert not unpaid.findings
    assert unpaid.not_seen == ("left out, as the prompt fills the 100 tokens: 1 row",)


@pytest.mark.parametrize("template", ["plain", "alpaca", "dialogue"])
def test_templates_of_our_own_are_clean(template: str, folder: Path) -> None:
    data = folder / ("one.jsonl" if template != "dialogue" else "clean.jsonl")
    write_jsonl(folder / "one.jsonl", [{"prompt": "Name a colour.", "response": "Red."}])
    assert not holdfast.audit_data(model=folder / "model", data=data, template=template).findings


def test_the_config_of_a_run_is_taken_as_it_is(folder: Path, tmp_path: Path) -> None:
    config = tmp_path / "tune.yaml"
    text = "model: {0}/model\ndata: {0}/clean.jsonl\noutput: {1}/run\nepochs: 3\nlr: 1e-4\ntraining: {{optim: sgd}}\n"
    config.write_text(text.format(folder, tmp_path) + "prompt_weight: 0.2\neval_share: 0.5\nlora_rank: 8\n")
    answer = call(f"audit --config {config}")
    assert answer.exit_code == 0, answer.err
    assert "'output' is that of its own run" in answer.err
    assert "play no part in an audit: epochs, learning_rate, lora_rank, training" in answer.err
    assert "note: held out, and not looked at: 1 row" in answer.out
    assert not (tmp_path / "run").exists()
    as_config = TuneConfig(model=f"{folder}/model", data=f"{folder}/clean.jsonl", output="x", prompt_weight=0.2)
    result = holdfast.audit_data(as_config, eval_share=0.0)
    assert result.weights is not None
    assert result.weights["user"] == 0.2


def test_a_run_directory_with_every_place_and_its_report(folder: Path, tmp_path: Path) -> None:
    line = f"audit --model {folder}/model --data {folder}/odd.jsonl --weights eos 0 --output {tmp_path}/run"
    assert call(line).exit_code == 1
    rows = [json.loads(row) for row in (tmp_path / "run" / "rows.jsonl").read_text().splitlines()]
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert [row["text"] for row in rows if row["kind"] == "stop-never-paid"] == ["<|im_end|>"] * 4
    assert len({row["row"] for row in rows if row["kind"] == "stop-never-paid"}) == summary["findings"][0]["count"]
    again = call(line)
    assert again.exit_code == 1
    assert "already complete" in again.err
    assert "4 findings" in again.out
    from holdfast.config import ReportConfig

    make(ReportConfig(directories=[str(tmp_path / "run")], output=str(tmp_path / "page.html"), format="html,md"))
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    for text in ("Loss passport", "stop-never-paid", "What the loss looks at, by role", "⟦", "rows-refused"):
        assert text in page
    assert "Shown plainly" not in page


def test_what_cannot_be_audited_is_bad_input(folder: Path, tmp_path: Path) -> None:
    for line, words in (
        (f"--model {folder}/model", "nothing to audit"),
        (f"--model {folder}/model --data {tmp_path}/none.jsonl", "none.jsonl"),
        (f"--model {folder}/model --data {folder}/clean.jsonl --weights eoz 1", "unknown role 'eoz'"),
        (f"--model {folder}/model --data {folder}/clean.jsonl --max-length 4", "no example is left"),
    ):
        answer = call(f"audit {line}")
        assert answer.exit_code == 2, line
        assert words in answer.err


def test_the_context_knows_the_model(folder: Path) -> None:
    tokenizer = make_tokenizer(bos=True)
    about = context_of(AuditConfig(model=str(folder / "model"), data="x"), tokenizer, None)
    assert (about.embedding_rows, about.bos_id, about.eos_id, about.stop_ids) == (400, 0, 1, frozenset({1}))
